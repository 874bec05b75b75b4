//! What is known of a shard without its lock.

use super::Rules;
use super::moment::Moment;
use crate::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use crate::table::{Ages, Layout};
use crate::time::Bucket;

/// How each shard's table is laid out and how its tags are read. Apart from the
/// shards, so that it stays in the first-level cache.
#[derive(Debug)]
pub(super) struct Heads {
    layouts: Box<[AtomicU64]>,
    newest: Box<[AtomicI64]>,
}

impl Heads {
    pub(super) const BYTES_PER_SHARD: usize = size_of::<AtomicU64>() + size_of::<AtomicI64>();

    pub(super) fn new(count: u32) -> Self {
        Self {
            layouts: (0..count).map(|_| AtomicU64::new(0)).collect(),
            newest: (0..count).map(|_| AtomicI64::new(i64::MIN)).collect(),
        }
    }

    /// The layout of a shard's table, not long ago. Relaxed: a glance may go to
    /// any page, and finds the key there or not.
    #[inline]
    pub(super) fn layout(&self, shard: usize) -> Layout {
        Layout::of_word(self.layouts[shard].load(Ordering::Relaxed))
    }

    /// A shard's newest bucket. Acquire: slots that are read afterwards are no
    /// older, so that no tag in them stands for a bucket too old for it to
    /// tell.
    #[inline]
    pub(super) fn newest(&self, shard: usize) -> Bucket {
        Bucket(self.newest[shard].load(Ordering::Acquire))
    }

    /// Says how a shard is now. To be called under its lock.
    #[inline]
    pub(super) fn publish(&self, shard: usize, layout: Layout, newest: Bucket) {
        let layout = layout.to_word();
        if self.layouts[shard].load(Ordering::Relaxed) != layout {
            self.layouts[shard].store(layout, Ordering::Relaxed);
        }
        if self.newest[shard].load(Ordering::Relaxed) != newest.0 {
            self.newest[shard].store(newest.0, Ordering::Release);
        }
    }
}

/// When a check takes place, and how the tags are read then of a shard that
/// has come as far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Present {
    at: Bucket,
    pub(super) ages: Ages,
    is_late: bool,
    /// How often memory of keys had been freed before.
    pub(super) frees: u64,
}

impl Present {
    /// At `at`, or at the watermark.
    #[inline]
    pub(crate) fn new(rules: &Rules, at: Option<Bucket>) -> Self {
        // Before watermark and floor: memory that was freed because they rose
        // belongs to slots that are dead by them.
        let frees = rules.frees.count();
        let moment = Moment::new(rules, at);
        let ages = Ages::new(moment.at, rules.unchanged_from(moment.at), rules.tags);
        Self { at: moment.at, ages, is_late: moment.is_late(), frees }
    }

    /// Are the tags of a shard that has come to `newest` read by `ages`?
    #[inline]
    fn is_of(&self, newest: Bucket) -> bool {
        newest == self.at && !self.is_late
    }

    /// How the tags are read of a shard that has come to `newest`.
    #[expect(clippy::inline_always, reason = "or each key of a batch pays for a call")]
    #[inline(always)]
    pub(super) fn with_ages<R>(
        &self,
        newest: Bucket,
        rules: &Rules,
        read: impl FnOnce(&Ages) -> R,
    ) -> R {
        let other;
        let ages = if self.is_of(newest) {
            &self.ages
        } else {
            other = self.other_ages(newest, rules);
            &other
        };
        read(ages)
    }

    #[cold]
    fn other_ages(&self, newest: Bucket, rules: &Rules) -> Ages {
        let is_unknown = self.is_late || newest < self.at;
        let low = if is_unknown { newest.plus(1) } else { rules.unchanged_from(self.at) };
        Ages::new(newest, low, rules.tags)
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::thread;
    use std::sync::Arc;

    const TAGS: u8 = 255;

    /// A dead slot whose tag comes to stand for the present bucket, because
    /// tags wrap: the sweep clears it, then the shard says where it is. Whoever
    /// sees the shard there must not see the dead slot. (With Relaxed in place
    /// of either Release or Acquire this fails.)
    #[test]
    fn no_slot_is_read_by_a_head_that_is_newer_than_its_sweep() {
        loom::model(|| {
            let heads = Arc::new(Heads::new(1));
            let slot = Arc::new(AtomicU64::new(1));
            let wrapped = Bucket(i64::from(TAGS));
            heads.publish(0, Layout::NONE, Bucket(0));
            let (shards_heads, shards_slot) = (Arc::clone(&heads), Arc::clone(&slot));
            let shard = thread::spawn(move || {
                shards_slot.store(0, Ordering::Relaxed);
                shards_heads.publish(0, Layout::NONE, wrapped);
            });
            let reader = thread::spawn(move || {
                if heads.newest(0) == wrapped {
                    assert_eq!(slot.load(Ordering::Relaxed), 0, "a slot from before the sweep");
                }
            });
            shard.join().unwrap();
            reader.join().unwrap();
        });
    }
}
