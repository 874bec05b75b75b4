//! Write-behind: new keys on their way to an owned store.

use super::pending::Mark;
use crate::confirm::{Sighting, Token};
use crate::hash::KeyHash;
use crate::time::Bucket;
use crossbeam_queue::ArrayQueue;
use parking_lot::{Mutex, MutexGuard};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Written at once, at most.
const KEYS_PER_WRITE: usize = 1_024;

/// A bounded queue of keys whose verdicts have been given, and that are not yet in
/// the store.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: ArrayQueue<Queued>,
    /// What is being written, by whoever holds it; what could not be is left here
    /// and comes first the next time.
    writing: Mutex<Vec<Queued>>,
    /// All that is queued or being written.
    len: AtomicUsize,
}

/// A key in the queue.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(super) hash: KeyHash,
    pub(super) key: Box<[u8]>,
    pub(super) bucket: Bucket,
    pub(super) token: Token,
    pub(super) mark: Mark,
}

impl Queued {
    pub(crate) fn sighting(&self) -> Sighting<'_> {
        Sighting { key: &self.key, bucket: self.bucket, token: self.token }
    }
}

impl Queue {
    /// For so many keys, at least one.
    pub(crate) fn new(keys: usize) -> Self {
        Self {
            waiting: ArrayQueue::new(keys.max(1)),
            writing: Mutex::default(),
            len: AtomicUsize::new(0),
        }
    }

    /// Queues a key. False if there is no room.
    pub(super) fn push(&self, queued: Queued) -> bool {
        // Counted first: it must never be thought empty while it is not. What is
        // being written takes room, too, or keys would gather while the store fails.
        let len = self.len.fetch_add(1, Ordering::Relaxed);
        let is_queued = len < self.waiting.capacity() && self.waiting.push(queued).is_ok();
        if !is_queued {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
        is_queued
    }

    /// Keys that are not yet in the store.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Is there enough to be worth a write, and nobody at it?
    pub(crate) fn is_due(&self) -> bool {
        self.waiting.len() >= KEYS_PER_WRITE.min(self.waiting.capacity())
            && !self.writing.is_locked()
    }

    /// The keys to be written next; none if there are none. What has been disowned
    /// is dropped.
    pub(crate) fn take(&self) -> Batch<'_> {
        let mut keys = self.writing.lock();
        keys.retain(|queued| self.keeps(queued));
        while keys.len() < KEYS_PER_WRITE
            && let Some(queued) = self.waiting.pop()
        {
            if self.keeps(&queued) {
                keys.push(queued);
            }
        }
        Batch { queue: self, keys }
    }

    /// Counts a key out unless it is to be written.
    fn keeps(&self, queued: &Queued) -> bool {
        let is_disowned = queued.mark.is_set();
        self.len.fetch_sub(is_disowned.into(), Ordering::Relaxed);
        !is_disowned
    }
}

/// Keys that are being written. Dropped before they are, they stay in the queue.
pub(crate) struct Batch<'a> {
    queue: &'a Queue,
    keys: MutexGuard<'a, Vec<Queued>>,
}

impl Batch<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(crate) fn sightings(&self) -> Vec<Sighting<'_>> {
        self.keys.iter().map(Queued::sighting).collect()
    }

    /// They are in the store; each is shown to `visit`.
    pub(super) fn written(mut self, mut visit: impl FnMut(&Queued)) {
        self.queue.len.fetch_sub(self.keys.len(), Ordering::Relaxed);
        for queued in self.keys.drain(..) {
            visit(&queued);
        }
    }
}
