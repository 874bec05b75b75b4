//! What errors of stores mean for a call, and the errors of calls that asked two stores.

use crate::confirm::{StoreError, StoreErrorKind};

/// True iff the store could not answer. A refusal is an answer, to this request;
/// and who is fenced off must hear of it.
pub(super) const fn is_outage(error: &StoreError) -> bool {
    !matches!(error.kind(), StoreErrorKind::Fenced | StoreErrorKind::Refused)
}

/// True iff a reply, or its request, was lost on the way: asking again may bring
/// it.
pub(super) const fn is_lost(error: &StoreError) -> bool {
    error.is_retryable() && error.may_have_recorded()
}

/// Whether an error counts with the breaker. A full store is quick to say so,
/// and still knows its keys: it is left alone only where `another` has room.
pub(super) const fn is_failure(error: &StoreError, another: bool) -> bool {
    match error.kind() {
        StoreErrorKind::Full => another,
        _ => is_outage(error),
    }
}

/// The fallback failed while its answer was needed.
#[derive(Debug, thiserror::Error)]
#[error("the fallback failed, and the store has yet to be told of keys that it answered for")]
struct FallbackFailed(#[source] StoreError);

pub(super) fn fallback_failed(error: StoreError) -> StoreError {
    StoreError::new(error.kind(), FallbackFailed(error))
}

/// The fallback failed as well.
#[derive(Debug, thiserror::Error)]
#[error("the fallback failed too ({fallback}); the store itself failed before it")]
struct BothFailed {
    fallback: StoreError,
    #[source]
    primary: StoreError,
}

pub(super) fn both_failed(fallback: StoreError, primary: StoreError) -> StoreError {
    StoreError::new(fallback.kind(), BothFailed { fallback, primary })
}

/// An error that says that nothing was recorded, although an earlier call, or another
/// store, may have.
pub(super) fn in_doubt(error: StoreError, may_have_recorded: bool) -> StoreError {
    if may_have_recorded && !error.may_have_recorded() {
        return StoreError::new(StoreErrorKind::Uncertain, error);
    }
    error
}
