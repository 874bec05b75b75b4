//! The memory budget: what the engine holds, and what it may hold.

use crate::sync::atomic::{AtomicU64, Ordering};

/// What happens to a new key when the memory limit is reached. Known keys
/// answer `Duplicate` in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFull {
    /// The check is a [`CheckError::Full`](crate::CheckError::Full).
    Reject,
    /// The oldest bucket is given up everywhere at once; if only the current
    /// one is left, single keys are. Counted in
    /// [`Stats::evicted`](crate::Stats::evicted).
    EvictOldest,
    /// With a confirmer only, and then the only choice: the oldest keys are
    /// left to it. Nothing is forgotten.
    Spill,
}

/// A memory limit and the policy at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryLimit {
    pub(crate) bytes: u64,
    pub(crate) on_full: OnFull,
}

/// The bytes that one deduper holds, and the most that it may.
///
/// A plain counter: no data is published through it, so all accesses are
/// `Relaxed`, and the read-modify-writes make sure that the limit is never
/// overdrawn by a race.
#[derive(Debug)]
pub(crate) struct Budget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
}

impl Budget {
    /// A budget of `limit_bytes`; `None` is without limit.
    pub(crate) fn new(limit_bytes: Option<u64>) -> Self {
        Self { limit_bytes: limit_bytes.unwrap_or(u64::MAX), used_bytes: AtomicU64::new(0) }
    }

    /// Takes `bytes` if they are left. True iff they were.
    #[must_use]
    pub(crate) fn try_reserve(&self, bytes: u64) -> bool {
        self.used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit_bytes)
            })
            .is_ok()
    }

    /// Takes `bytes` whether they are left or not: for small things whose
    /// refusal would cost more than the overdraft.
    pub(crate) fn reserve(&self, bytes: u64) {
        self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back `bytes` that were taken.
    pub(crate) fn release(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Is there a limit at all?
    pub(crate) const fn is_limited(&self) -> bool {
        self.limit_bytes != u64::MAX
    }

    /// The bytes that may still be taken.
    pub(crate) fn left_bytes(&self) -> u64 {
        self.limit_bytes.saturating_sub(self.used_bytes())
    }

    /// How far the limit may knowingly be overdrawn for a moment: three of the
    /// five per cent that are promised.
    pub(crate) const fn slack_bytes(&self) -> u64 {
        self.limit_bytes / 100 * 3
    }

    /// The bytes held at present.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_never_overdrawn_by_try_reserve() {
        let budget = Budget::new(Some(100));
        assert!(budget.try_reserve(60));
        assert!(!budget.try_reserve(41));
        assert!(budget.try_reserve(40));
        budget.release(40);
        assert_eq!(budget.used_bytes(), 60);
    }

    #[test]
    fn without_a_limit_everything_is_granted() {
        assert!(Budget::new(None).try_reserve(u64::MAX / 2));
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::thread;
    use std::sync::Arc;

    #[test]
    fn a_limit_is_never_overdrawn_by_a_race() {
        loom::model(|| {
            let budget = Arc::new(Budget::new(Some(100)));
            let take = |bytes| {
                let budget = Arc::clone(&budget);
                thread::spawn(move || budget.try_reserve(bytes))
            };
            let threads = [take(60), take(70)];
            assert!(budget.used_bytes() <= 100);
            let granted = threads.map(|thread| thread.join().unwrap());
            assert_eq!(granted.iter().filter(|is_granted| **is_granted).count(), 1);
            assert!([60, 70].contains(&budget.used_bytes()));
        });
    }

    #[test]
    fn what_is_given_back_can_be_taken_once() {
        loom::model(|| {
            let budget = Arc::new(Budget::new(Some(100)));
            assert!(budget.try_reserve(100));
            let take = || {
                let budget = Arc::clone(&budget);
                thread::spawn(move || budget.try_reserve(100))
            };
            let threads = [take(), take()];
            budget.release(100);
            let granted = threads.map(|thread| u64::from(thread.join().unwrap()));
            let granted: u64 = granted.iter().sum();
            assert!(granted <= 1);
            assert_eq!(budget.used_bytes(), 100 * granted);
        });
    }
}
