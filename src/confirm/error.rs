//! How a store fails.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// What kind of failure it was: what the caller may do about it.
///
/// Where a kind says that nothing was recorded, this is of the part that failed: a store
/// that divides its requests may have recorded other parts, as
/// [`StoreError::may_have_recorded`] then says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// No reply came in time; the keys may have been recorded.
    Timeout,
    /// The store could not be reached; nothing was recorded.
    Unavailable,
    /// The connection broke before the reply; the keys may have been recorded.
    Uncertain,
    /// Another owner has taken the store over; nothing was recorded.
    Fenced,
    /// What the store holds cannot be read.
    Corrupt,
    /// The store has no room left; nothing was recorded.
    Full,
    /// The store understood and will not: rights, settings, a key too long.
    /// Nothing was recorded.
    Refused,
    /// Writing failed for good, and nothing shows what of it lasts.
    Broken,
    /// The confirmer itself is wrong: it panicked, or gave an answer that cannot
    /// be. The keys may have been recorded.
    Faulty,
}

impl fmt::Display for StoreErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "the store did not reply in time: ask again with the same tokens",
            Self::Unavailable => "the store cannot be reached: ask again when it is back",
            Self::Uncertain => {
                "the connection to the store broke before its reply: ask again with the same tokens"
            }
            Self::Fenced => {
                "another owner has taken over the store: stop processing these keys, or open the \
                 store again to take it back"
            }
            Self::Corrupt => "the store's data are damaged: restore them, or start an empty store",
            Self::Full => "the store is full: give it more room, or shorten the window",
            Self::Refused => "the store refused the request: change what its cause names",
            Self::Broken => {
                "the store failed to write and can no longer be trusted: open it again, which \
                 checks what it holds"
            }
            Self::Faulty => "the confirmer is at fault: repair in it what its cause names",
        })
    }
}

/// Why a store could not answer: a kind, which is all that a caller acts on,
/// and the store's own error as [`source`](Error::source).
///
/// Cloning is cheap: one failed request may be the answer to many callers.
#[derive(Clone)]
pub struct StoreError {
    kind: StoreErrorKind,
    /// Whether more of the request may have been recorded than the kind tells.
    has_recorded_parts: bool,
    source: Arc<dyn Error + Send + Sync>,
}

impl StoreError {
    /// Of this kind, because of `source`: an error or a message.
    pub fn new(kind: StoreErrorKind, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { kind, has_recorded_parts: false, source: Arc::from(source.into()) }
    }

    /// The same, of a request of which other parts may have been recorded if `has_recorded`.
    pub(crate) const fn with_parts(mut self, has_recorded: bool) -> Self {
        self.has_recorded_parts |= has_recorded;
        self
    }

    /// What kind of failure it was.
    pub const fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// True iff asking again, with the same tokens, may succeed without anybody
    /// having done anything.
    pub const fn is_retryable(&self) -> bool {
        use StoreErrorKind::{Timeout, Unavailable, Uncertain};
        matches!(self.kind, Timeout | Unavailable | Uncertain)
    }

    /// False iff it is certain that the request changed nothing. Otherwise only
    /// asking again with the same tokens can tell.
    pub const fn may_have_recorded(&self) -> bool {
        use StoreErrorKind::{Broken, Corrupt, Faulty, Timeout, Uncertain};
        self.has_recorded_parts
            || matches!(self.kind, Timeout | Uncertain | Corrupt | Broken | Faulty)
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreError")
            .field("kind", &self.kind)
            .field("has_recorded_parts", &self.has_recorded_parts)
            .field("source", &self.source)
            .finish()
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

/// Equal in kind, in what may have been recorded, and in the words of the cause.
impl PartialEq for StoreError {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.may_have_recorded() == other.may_have_recorded()
            && self.source.to_string() == other.source.to_string()
    }
}

impl Eq for StoreError {}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_asked_again_and_what_may_have_happened() {
        use StoreErrorKind::{
            Broken, Corrupt, Faulty, Fenced, Full, Refused, Timeout, Unavailable, Uncertain,
        };
        let error = |kind| StoreError::new(kind, "cause");
        for kind in [Timeout, Uncertain] {
            assert!(error(kind).is_retryable() && error(kind).may_have_recorded(), "{kind:?}");
        }
        assert!(error(Unavailable).is_retryable() && !error(Unavailable).may_have_recorded());
        for kind in [Fenced, Full, Refused] {
            assert!(!error(kind).is_retryable() && !error(kind).may_have_recorded(), "{kind:?}");
        }
        for kind in [Broken, Corrupt, Faulty] {
            assert!(!error(kind).is_retryable() && error(kind).may_have_recorded(), "{kind:?}");
        }
    }

    #[test]
    fn parts_that_were_recorded_change_neither_the_kind_nor_what_to_do() {
        use StoreErrorKind::{Full, Refused, Timeout, Unavailable};
        for kind in [Full, Refused, Timeout, Unavailable] {
            let whole = StoreError::new(kind, "cause");
            let part = whole.clone().with_parts(true).with_parts(false);
            assert!(part.may_have_recorded(), "{kind:?}");
            assert_eq!((part.kind(), part.is_retryable()), (kind, whole.is_retryable()));
            assert_eq!(part == whole, whole.may_have_recorded(), "{kind:?}");
            assert_eq!(whole.clone().with_parts(false), whole);
        }
    }

    #[test]
    fn the_cause_is_the_source() {
        let error = StoreError::new(StoreErrorKind::Refused, "no such table");
        assert_eq!(error.source().unwrap().to_string(), "no such table");
        assert!(!error.to_string().contains("no such table"));
    }
}
