//! What becomes of a message.

use crate::claim::{ClaimError, InFlight, LeaseError};
use crate::confirm::claims::Outcome;
use std::time::Duration;
use thiserror::Error;

/// What became of a message, and so what its broker was told.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a dead letter is delivered again until somebody acknowledges it"]
pub enum Consumed<E> {
    /// It was worked on, this came of it and is kept; acknowledged.
    Done(Outcome),
    /// It had been worked on before, and this came of it; acknowledged.
    Replayed(Outcome),
    /// It was handed back, to be delivered again.
    Retried {
        /// After so long, if the broker keeps to it.
        after: Duration,
        /// Why.
        reason: Retry<E>,
    },
    /// It will not be worked on, however often it comes. The broker was told nothing: put the
    /// message where somebody will look at it, and then [`ack`](super::Delivery::ack) it. Until
    /// then it is delivered again, and comes to the same.
    Dead(DeadLetter<E>),
}

/// Why a message is to be delivered again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Retry<E> {
    /// Somebody else is at it.
    #[error("the message is being worked on: wait for {:?} at most", .0.remaining)]
    InFlight(InFlight),
    /// Its handler failed.
    #[error("the handler failed")]
    Failed(#[source] Failure<E>),
    /// The claim could not be made; nothing was done.
    #[error("the message could not be claimed")]
    Unclaimed(#[source] ClaimError),
    /// The work was done or begun, and what came of it could not be kept: the next handler
    /// may do it again.
    #[error("what came of the message could not be kept")]
    Unsettled(#[source] LeaseError),
}

/// How a handler failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure<E> {
    /// It gave this error.
    #[error("the handler gave an error")]
    Returned(#[source] E),
    /// It panicked, with this message.
    #[error("the handler panicked: {0}")]
    Panicked(String),
}

/// Why a message will not be worked on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DeadLetter<E> {
    /// Its key came with another payload before: two messages share it.
    #[error("the key came with another payload before: give each message a key of its own")]
    Mismatch,
    /// The work ended, now or before, in a failure that is kept.
    #[error("the work failed for good")]
    Failed(Outcome),
    /// It was tried as often as it may be.
    #[error("{attempts} attempts have failed: correct what the last one ran into")]
    Exhausted {
        /// So often.
        attempts: u32,
        /// How the last one failed; `None` if that was seen before, or nobody heard.
        #[source]
        last: Option<Failure<E>>,
    },
    /// Its key, of which the identity has so many bytes, is longer than stores must take.
    #[error("an identity of {0} bytes is too long: hash the key first")]
    KeyTooLong(usize),
}

/// The broker could not be told what became of a message, and will deliver it again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the broker was not told what became of a message, and will deliver it again")]
pub struct Unanswered<E, B> {
    /// What became of it.
    pub consumed: Consumed<E>,
    /// Why the broker was not told.
    #[source]
    pub source: B,
}
