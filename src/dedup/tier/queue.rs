//! Write-behind: new keys on their way to an owned store.

use super::pending::Mark;
use crate::confirm::{Sighting, StoreError, StoreErrorKind, Token};
use crate::hash::KeyHash;
use crate::time::Bucket;
use crossbeam_queue::ArrayQueue;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Written at once, at most.
const KEYS_PER_WRITE: usize = 1_024;

/// After so many keys that the store refuses, one by one, a check's write ends: where
/// all is refused no check is to make a thousand calls.
pub(crate) const REFUSALS_PER_CHECK: usize = 8;

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
    pub(super) key: Arc<[u8]>,
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
    /// Has `write` record them, fewer at a time where the store refuses some, so that
    /// one of these does not hold up the others; it ends after `most_refusals` of them.
    /// Each that arrives is shown to `arrived`. What is not written stays queued, what
    /// was refused behind the rest.
    pub(crate) fn write(
        mut self,
        most_refusals: usize,
        mut write: impl FnMut(&[Sighting<'_>]) -> Result<(), StoreError>,
        mut arrived: impl FnMut(&Queued),
    ) -> Written {
        let mut written = Written::NOTHING;
        let mut at_once = self.keys.len();
        while !written.has_failed() && written.refused < self.keys.len().min(most_refusals) {
            let part = written.refused..self.keys.len().min(written.refused + at_once);
            let sightings: Vec<_> = self.keys[part.clone()].iter().map(Queued::sighting).collect();
            match write(&sightings) {
                Ok(()) => {
                    written.keys += part.len();
                    self.queue.len.fetch_sub(part.len(), Ordering::Relaxed);
                    self.keys.drain(part).for_each(|queued| arrived(&queued));
                }
                Err(error) if is_refusal(&error) && part.len() > 1 => at_once = part.len() / 2,
                Err(error) => {
                    written.refused += usize::from(is_refusal(&error));
                    written.result = Err(error);
                    at_once = self.keys.len();
                }
            }
        }
        // The next write begins with what this one has not tried.
        self.keys.rotate_left(written.refused);
        written
    }
}

/// How a write went.
pub(crate) struct Written {
    /// So many keys have arrived, ...
    pub(crate) keys: usize,
    /// ... so many the store refused.
    pub(crate) refused: usize,
    pub(crate) result: Result<(), StoreError>,
}

impl Written {
    pub(crate) const NOTHING: Self = Self { keys: 0, refused: 0, result: Ok(()) };

    /// Did the store fail, rather than refuse some keys?
    pub(crate) fn has_failed(&self) -> bool {
        matches!(&self.result, Err(error) if !is_refusal(error))
    }
}

fn is_refusal(error: &StoreError) -> bool {
    error.kind() == StoreErrorKind::Refused
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: u8 = 100;

    fn queue() -> Queue {
        let queue = Queue::new(KEYS.into());
        for number in 0..KEYS {
            let (hash, token) = (KeyHash::new(number.into()), Token::new(number.into()));
            let key = Arc::from([number]);
            let mark = Mark::default();
            assert!(queue.push(Queued { hash, key, bucket: Bucket::new(0), token, mark }));
        }
        queue
    }

    fn refuse() -> Result<(), StoreError> {
        Err(StoreError::new(StoreErrorKind::Refused, "injected"))
    }

    #[test]
    fn a_check_soon_gives_up_where_all_is_refused() {
        let queue = queue();
        let mut calls = 0;
        let refuse_all = |_: &[Sighting<'_>]| {
            calls += 1;
            refuse()
        };
        let written = queue.take().write(REFUSALS_PER_CHECK, refuse_all, |_| panic!("refused"));
        assert_eq!((written.keys, written.refused), (0, REFUSALS_PER_CHECK));
        assert!(calls <= 8 * REFUSALS_PER_CHECK, "{calls}");
        assert_eq!(queue.len(), usize::from(KEYS));
        // What was refused comes last.
        let first = queue.take().keys[0].key[0];
        assert_eq!(usize::from(first), REFUSALS_PER_CHECK);
    }

    #[test]
    fn what_is_refused_alone_stays_queued() {
        let queue = queue();
        let is_unwelcome = |key: u8| key.is_multiple_of(10);
        let mut arrived = Vec::new();
        let refuse_some = |sightings: &[Sighting<'_>]| {
            let is_refused = sightings.iter().any(|sighting| is_unwelcome(sighting.key[0]));
            if is_refused { refuse() } else { Ok(()) }
        };
        let written =
            queue.take().write(usize::MAX, refuse_some, |queued| arrived.push(queued.key[0]));
        assert!(written.result.is_err() && !written.has_failed());
        assert_eq!(arrived, (0..KEYS).filter(|key| !is_unwelcome(*key)).collect::<Vec<_>>());
        assert_eq!((written.keys, written.refused), (90, 10));
        let left: Vec<_> = queue.take().keys.iter().map(|queued| queued.key[0]).collect();
        assert_eq!(left, (0..KEYS).filter(|key| is_unwelcome(*key)).collect::<Vec<_>>());
    }

    #[test]
    fn a_store_that_fails_is_not_called_again() {
        let queue = queue();
        let mut calls = 0;
        let fail = |_: &[Sighting<'_>]| {
            calls += 1;
            Err(StoreError::new(StoreErrorKind::Unavailable, "injected"))
        };
        let written = queue.take().write(usize::MAX, fail, |_| panic!("not written"));
        assert!(written.has_failed());
        assert_eq!((calls, queue.len()), (1, usize::from(KEYS)));
    }
}
