//! The deduper: keys and times in, verdicts out.

mod builder;
mod error;

pub(crate) use builder::MemoryLimit;
pub use builder::{Builder, Mode, OnFull};
pub use error::{BatchError, BatchErrorKind, CheckError, ConfigError, ConfigProblem};

use crate::hash::KeyHasher;
use crate::stats::Stats;
use crate::time::{Clock, Timestamp, Window};
use crate::verdict::Verdict;
use std::sync::Arc;
use std::time::Duration;

/// Answers, for each key: has it been seen within the window?
///
/// Shared by reference between any number of threads.
pub struct Deduper {
    hasher: KeyHasher,
    clock: Arc<dyn Clock>,
}

impl Deduper {
    /// Begins a deduper over `window`.
    pub fn builder(window: Window) -> Builder {
        Builder::new(window)
    }

    pub(crate) fn from_builder(
        _builder: &Builder,
        hasher: KeyHasher,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConfigError> {
        Ok(Self { hasher, clock })
    }

    /// Checks a key at the present time, and records it if it was not known.
    ///
    /// # Errors
    ///
    /// [`CheckError::TimeRequired`] in event time; [`CheckError::Full`] or
    /// [`CheckError::OutOfMemory`] if there is no room. Nothing is recorded then.
    pub fn check(&self, key: &[u8]) -> Result<Verdict, CheckError> {
        let _ = (self.hasher.hash(key), self.clock.now());
        todo!()
    }

    /// Checks a key at the record's own time.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check), [`CheckError::TimeNotExpected`] in processing
    /// time, and [`CheckError::TooFarAhead`].
    pub fn check_at(&self, _key: &[u8], _at: Timestamp) -> Result<Verdict, CheckError> {
        todo!()
    }

    /// Checks `keys` in order, as if one by one, and fills in `verdicts`.
    ///
    /// # Errors
    ///
    /// A [`BatchError`] that says how many keys were completed; nothing after
    /// them is recorded.
    pub fn check_batch<K: AsRef<[u8]>>(
        &self,
        _keys: &[K],
        _verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        todo!()
    }

    /// Checks `keys` in order at their own times.
    ///
    /// # Errors
    ///
    /// As [`check_batch`](Self::check_batch).
    pub fn check_batch_at<K: AsRef<[u8]>>(
        &self,
        _keys: &[K],
        _times: &[Timestamp],
        _verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        todo!()
    }

    /// True iff `check` would say `Duplicate`; records nothing.
    ///
    /// # Errors
    ///
    /// [`CheckError::TimeRequired`] in event time.
    pub fn contains(&self, _key: &[u8]) -> Result<bool, CheckError> {
        todo!()
    }

    /// True iff `check_at` would say `Duplicate`; records nothing and moves no
    /// watermark.
    ///
    /// # Errors
    ///
    /// [`CheckError::TimeNotExpected`] in processing time;
    /// [`CheckError::TooFarAhead`].
    pub fn contains_at(&self, _key: &[u8], _at: Timestamp) -> Result<bool, CheckError> {
        todo!()
    }

    /// Forgets a key, so that its next check is `Unique`: for a message whose
    /// processing failed. True iff the key was known.
    pub fn forget(&self, _key: &[u8]) -> bool {
        todo!()
    }

    /// Does maintenance that checks have not done yet (clears dead slots,
    /// gives memory back) for about `budget`. True iff nothing is left to do.
    pub fn maintain(&self, _budget: Duration) -> bool {
        todo!()
    }

    /// A reading of the counters and sizes; locks each shard once.
    pub fn stats(&self) -> Stats {
        todo!()
    }
}
