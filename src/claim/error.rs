//! What goes wrong with claims. That a key is in flight, finished, or came with another
//! payload are outcomes, and not here.

use crate::confirm::claims::Outcome;
use crate::confirm::{MAX_KEY_BYTES, StoreError};
use std::time::Duration;
use thiserror::Error;

/// Why a gate cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GateError {
    /// A lease of no length would let everybody in.
    #[error("a lease of {0:?} ends before it begins: give it at least a millisecond")]
    LeaseTooShort(Duration),
    /// Outcomes that are forgotten before a lease ends protect nothing.
    #[error(
        "outcomes kept for {keep:?} are forgotten before a lease of {lease:?} ends: keep them \
         longer"
    )]
    KeepTooShort {
        /// The lease asked for.
        lease: Duration,
        /// How long outcomes are to be kept.
        keep: Duration,
    },
}

/// Why a key could not be claimed, looked up, or cleared.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The store failed. The key is not the caller's; what the store may have granted
    /// goes to the next claim of it in this process, or to anybody after its deadline.
    #[error("the claim could not be made: {0}")]
    Store(#[source] StoreError),
    /// The identity is longer than stores must take.
    #[error("an identity of {0} bytes is longer than {MAX_KEY_BYTES}: hash its key first")]
    TooLong(usize),
}

/// Why a holder could not settle its claim.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The key is not this holder's any more, and nothing has changed.
    #[error(
        "the lease was lost: another took over after its deadline, or an operator cleared it; do \
         not act on what this run came to, and extend leases in time"
    )]
    Stale,
    /// The store failed. The key stays claimed until its deadline unless the call is made
    /// again.
    #[error("the claim could not be settled, call again: {0}")]
    Store(#[source] StoreError),
}

/// Why a claim in the caller's own transaction could not be made or settled. Nothing of it is
/// recorded, and the transaction can only be rolled back.
#[cfg(feature = "postgres")]
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TransactionError {
    /// A statement failed: because the transaction lost to others
    /// ([`PostgresError::Conflict`](crate::confirm::PostgresError::Conflict)), its connection
    /// broke, or the database refused it.
    #[error("the transaction must be rolled back: {0}")]
    Store(#[source] StoreError),
    /// The transaction does not hold the key any more: it was rolled back to a savepoint from
    /// before the claim.
    #[error(
        "the claim was undone by a rollback to a savepoint: settle claims before, or roll \
         all of the transaction back"
    )]
    Undone,
    /// The identity is longer than stores must take.
    #[error("an identity of {0} bytes is longer than {MAX_KEY_BYTES}: hash its key first")]
    TooLong(usize),
}

#[cfg(feature = "postgres")]
impl TransactionError {
    /// True iff the same transaction, rolled back and run again from its start, may succeed
    /// without anybody having done anything.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retryable())
    }
}

/// Why [`run`](super::Gate::run) has no fresh outcome.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RunError<E> {
    /// The work failed, and the key is free for a retry.
    #[error("{0}")]
    Failed(E),
    /// It failed before, and that is remembered.
    #[error("it failed before, and the failure was kept")]
    FailedBefore(Outcome),
    /// Somebody else is at it.
    #[error("the key is in flight: ask again in {0:?} at the latest")]
    InFlight(Duration),
    /// The key came with another payload before.
    #[error("the key was used with another payload: take a new key for a new request")]
    Mismatch,
    /// The key could not be claimed; nothing was done.
    #[error(transparent)]
    Claim(ClaimError),
    /// The work was done, and its outcome could not be stored: the next run may do it
    /// again.
    #[error("the work was done, but {0}")]
    Unsettled(LeaseError),
}
