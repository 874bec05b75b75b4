//! What all shards of a deduper share: the rules, and the moving bounds.

use super::Refusal;
use crate::filter::Plan;
use crate::memory::{MemoryLimit, OnFull};
use crate::mode::Mode;
use crate::sync::atomic::{AtomicI64, Ordering};
use crate::table::{Frees, Identity};
use crate::time::{Bucket, Grid, Watermark, Window};
use std::sync::Arc;
use std::time::Duration;

/// What all shards of one deduper share.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) watermark: Watermark,
    pub(crate) grid: Grid,
    floor: Bound,
    thinned: Bound,
    /// When memory of keys was freed: a bound on what readers without a lock may
    /// conclude.
    pub(super) frees: Arc<Frees>,
    limit: Option<MemoryLimit>,
    pub(crate) mode: Mode,
    pub(super) is_sliding: bool,
    pub(super) is_event_time: bool,
    /// How many buckets ahead of the watermark a record can be.
    pub(super) ahead: i64,
    pub(super) tags: u8,
    /// In filter mode.
    pub(super) filter: Option<Plan>,
}

impl Rules {
    /// Rules for a validated configuration; in processing time without
    /// `lateness`.
    pub(crate) fn new(
        window: Window,
        lateness: Option<Duration>,
        mode: Mode,
        limit: Option<MemoryLimit>,
        tags: u8,
    ) -> Self {
        let is_event_time = lateness.is_some();
        let lateness = lateness.unwrap_or(Duration::ZERO);
        let grid = window.grid();
        let rules = Self {
            watermark: Watermark::new(grid, lateness),
            grid,
            floor: Bound::new(),
            thinned: Bound::new(),
            frees: Arc::default(),
            limit,
            mode,
            is_sliding: window.is_sliding(),
            is_event_time,
            ahead: grid.reach(lateness),
            tags,
            filter: None,
        };
        assert!(rules.clearing_steps() > 0, "{tags} tags are too few for this window");
        rules
    }

    /// These rules, with filters in filter mode: for so many expected `keys` in
    /// each of so many shards, if that is known.
    pub(crate) fn with_filters(self, keys: Option<f64>) -> Self {
        let Mode::Filter { rate } = self.mode else { return self };
        let generations = self.generations();
        // What is expected to be live are the keys of one span.
        let keys = keys.map(|keys| keys / self.grid.buckets as f64);
        Self { filter: Some(Plan { rate, generations, tags: self.tags, keys }), ..self }
    }

    /// Buckets that can be live at once.
    pub(super) const fn reach(&self) -> i64 {
        self.grid.buckets + self.ahead + 1
    }

    /// The generations that a filter needs: one for each bucket that can be
    /// live. An unbounded window has one bucket for ever.
    pub(super) const fn generations(&self) -> u32 {
        if self.grid.is_unbounded() { 1 } else { self.reach() as u32 }
    }

    /// What filters over this window cost at a rate.
    pub(crate) fn filter_bits_per_key(&self, rate: f64) -> f64 {
        Plan::bits_per_key(rate, self.generations())
    }

    /// A slot's bucket is surely dead `reach` buckets later, and its tag comes
    /// round after `tags`: in the buckets between, all lines must be swept.
    pub(super) const fn clearing_steps(&self) -> i64 {
        self.tags as i64 - self.reach()
    }

    /// The earliest bucket that a record at `at` can match, evictions aside.
    #[inline]
    pub(super) const fn window_start(&self, at: Bucket) -> Bucket {
        at.minus(self.grid.buckets)
    }

    /// Buckets before this one are dead, by the watermark and by what was given
    /// up.
    #[inline]
    pub(super) fn low(&self, watermark: Bucket) -> Bucket {
        self.window_start(watermark).max(self.floor())
    }

    /// The first bucket of which a check at `at` finds its match as it leaves
    /// it: nothing is to be moved up or given up.
    #[inline]
    pub(super) fn unchanged_from(&self, at: Bucket) -> Bucket {
        let matching = if self.is_sliding { at } else { self.window_start(at) };
        matching.max(self.floor())
    }

    /// What must agree for a slot to hold a key.
    #[inline]
    pub(super) const fn identity(&self) -> Identity {
        match self.mode {
            Mode::Fingerprint | Mode::Filter { .. } => Identity::FINGERPRINT,
            Mode::Verified => Identity::CODE,
        }
    }

    pub(crate) const fn is_event_time(&self) -> bool {
        self.is_event_time
    }

    pub(crate) fn on_full(&self) -> Option<OnFull> {
        self.limit.map(|limit| limit.on_full)
    }

    pub(super) fn limit_bytes(&self) -> Option<u64> {
        self.limit.map(|limit| limit.bytes)
    }

    /// The earliest bucket that has not been given up to stay within memory.
    #[inline]
    pub(super) fn floor(&self) -> Bucket {
        self.floor.get()
    }

    /// Gives up all buckets up to `bucket`, in all shards at once.
    pub(super) fn give_up(&self, bucket: Bucket) {
        self.floor.raise(bucket.plus(1));
    }

    /// Neither table nor filter of a shard can grow: gives up the shard's oldest
    /// bucket in all shards at once, if the policy says so. Some bucket: it is
    /// the newest, and the shard is to give up keys of it by itself.
    pub(super) fn make_way(
        &self,
        oldest: Option<Bucket>,
        newest: Bucket,
    ) -> Result<Option<Bucket>, Refusal> {
        match (self.on_full(), oldest) {
            // Also if there is not a key left, and still no room.
            (None, _) | (Some(OnFull::EvictOldest | OnFull::Spill), None) => {
                Err(Refusal::OutOfMemory)
            }
            (Some(OnFull::Reject), _) => Err(Refusal::Full),
            (Some(OnFull::EvictOldest | OnFull::Spill), Some(oldest)) if oldest < newest => {
                self.give_up(oldest);
                Ok(None)
            }
            (Some(OnFull::EvictOldest | OnFull::Spill), Some(newest)) => {
                self.note_thinned(newest);
                Ok(Some(newest))
            }
        }
    }

    /// Notes that single keys of buckets up to `bucket` were given up.
    pub(super) fn note_thinned(&self, bucket: Bucket) {
        self.thinned.raise(bucket);
    }

    /// Was any key given up before its time?
    pub(super) fn has_given_up(&self) -> bool {
        self.floor.is_set() || self.thinned.is_set()
    }

    /// Every key recorded within this span is still remembered; `None`:
    /// whatever its age.
    pub(crate) fn effective_window(&self, window: Window) -> Option<Duration> {
        let Some(span) = window.span() else {
            return self.thinned.is_set().then_some(Duration::ZERO);
        };
        let Some(largest_seen) = self.watermark.largest_seen() else { return Some(span) };
        let whole_from = self.floor.get().max(self.thinned.get().plus(1));
        let whole = self.grid.bucket(largest_seen).since(whole_from).min(self.grid.buckets);
        self.grid.stretch(whole).map(|stretch| stretch.min(span))
    }
}

/// A bucket that only rises, shared by all shards.
///
/// `Relaxed`, for the reasons given at [`Watermark`]: it is read under a
/// shard's lock, and it publishes nothing but itself.
#[derive(Debug)]
struct Bound(AtomicI64);

impl Bound {
    /// Long before any bucket of any timestamp, with room for arithmetic.
    const UNSET: i64 = i64::MIN / 2;

    fn new() -> Self {
        Self(AtomicI64::new(Self::UNSET))
    }

    fn is_set(&self) -> bool {
        self.get().0 != Self::UNSET
    }

    #[inline]
    fn get(&self) -> Bucket {
        Bucket(self.0.load(Ordering::Relaxed))
    }

    fn raise(&self, bucket: Bucket) {
        self.0.fetch_max(bucket.0, Ordering::Relaxed);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::thread;
    use std::sync::Arc;

    #[test]
    fn a_bound_never_goes_back() {
        loom::model(|| {
            let bound = Arc::new(Bound::new());
            let raise = |bucket| {
                let bound = Arc::clone(&bound);
                thread::spawn(move || {
                    bound.raise(bucket);
                    bound.get()
                })
            };
            let [one, other] = [raise(Bucket(3)), raise(Bucket(7))];
            let (earlier, later) = (bound.get(), bound.get());
            assert!(earlier <= later);
            assert!(one.join().unwrap() >= Bucket(3));
            assert_eq!(other.join().unwrap(), Bucket(7));
            assert_eq!(bound.get(), Bucket(7));
        });
    }
}
