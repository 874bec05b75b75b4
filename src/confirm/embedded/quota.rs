//! The limit on what the file's pages take.

use crate::confirm::{StoreError, StoreErrorKind};

/// The least limit that leaves room to work in.
pub(super) const LEAST_BYTES: u64 = 16 << 20;

/// What is believed to be free under the limit. Counting pages reads the whole
/// file's structure, so it is done only when this says that there may be none.
#[derive(Debug)]
pub(super) struct Quota {
    limit_bytes: Option<u64>,
    room_bytes: u64,
    /// About what was written and dropped since the last count: counting again is of no
    /// use while that is little.
    changed_bytes: u64,
}

impl Quota {
    pub(super) const fn new(limit_bytes: Option<u64>) -> Self {
        Self { limit_bytes, room_bytes: 0, changed_bytes: u64::MAX }
    }

    /// True iff `more` bytes can be written, where `count` tells how many are used.
    pub(super) fn allows<E>(
        &mut self,
        more: u64,
        count: impl FnOnce() -> Result<u64, E>,
    ) -> Result<bool, E> {
        let Some(limit) = self.limit_bytes else { return Ok(true) };
        if self.room_bytes < more && self.changed_bytes >= limit / 64 {
            // Changes lie beside what they replace, and not every gap can be used.
            self.room_bytes = (limit - limit / 8).saturating_sub(count()?);
            self.changed_bytes = 0;
        }
        Ok(self.room_bytes >= more)
    }

    /// The error for what does not fit.
    pub(super) fn full(&self) -> StoreError {
        let limit = self.limit_bytes.unwrap_or_default();
        StoreError::new(StoreErrorKind::Full, format!("the disk limit of {limit} bytes is reached"))
    }

    /// `bytes` were written.
    pub(super) const fn take(&mut self, bytes: u64) {
        self.room_bytes = self.room_bytes.saturating_sub(bytes);
        self.changed_bytes = self.changed_bytes.saturating_add(bytes);
    }

    /// `bytes` were dropped: there may be room again.
    pub(super) const fn release(&mut self, bytes: u64) {
        self.changed_bytes = self.changed_bytes.saturating_add(bytes);
    }

    /// What of the limit is left to those who have priority, if they take any.
    #[cfg(feature = "claims")]
    pub(super) fn spare_bytes(&self) -> u64 {
        self.limit_bytes.unwrap_or_default() / 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never() -> Result<u64, ()> {
        panic!("counted without need")
    }

    #[test]
    fn counts_seldom_and_not_at_all_while_full() {
        let mut quota = Quota::new(Some(64 << 20));
        assert_eq!(quota.allows(1_000, || Ok::<_, ()>(10 << 20)), Ok(true));
        quota.take(45 << 20);
        assert_eq!(quota.allows(1_000, never), Ok(true));
        assert_eq!(quota.allows(2 << 20, || Ok::<_, ()>(30 << 20)), Ok(true));
        quota.take(30 << 20);
        assert_eq!(quota.allows(1_000, || Ok::<_, ()>(60 << 20)), Ok(false));
        assert_eq!(quota.allows(1_000, never), Ok(false));
        quota.release(1_000);
        assert_eq!(quota.allows(1_000, never), Ok(false));
        quota.release(u64::MAX);
        assert_eq!(quota.allows(1_000, || Ok::<_, ()>(10 << 20)), Ok(true));
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        assert_eq!(Quota::new(None).allows(u64::MAX, never), Ok(true));
    }
}
