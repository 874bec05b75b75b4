//! What a check says of a key: an outcome, never an error.

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use = "a verdict that nobody reads lets a duplicate through"]
pub enum Verdict {
    /// The key was not in the window; it is now. Of any number of concurrent
    /// checks of one key, exactly one gets this.
    Unique,
    /// The key is already in the window.
    Duplicate,
    /// Event time only: the record is older than the watermark allows, so the
    /// window can no longer say. Nothing was recorded.
    Late,
    /// Let through although the confirmer could not be asked: nobody who could
    /// be has seen the key, which is recorded as far as that was possible. With
    /// a confirmer only, and only where the outage policy says so.
    Unconfirmed,
}

impl Verdict {
    /// True iff the key should be processed: it was new, or nobody could say
    /// otherwise.
    pub const fn is_unique(self) -> bool {
        matches!(self, Self::Unique | Self::Unconfirmed)
    }

    /// True iff the key is already in the window.
    pub const fn is_duplicate(self) -> bool {
        matches!(self, Self::Duplicate)
    }

    /// True iff the record came after its time was closed.
    pub const fn is_late(self) -> bool {
        matches!(self, Self::Late)
    }
}
