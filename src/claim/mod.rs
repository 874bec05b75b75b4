//! Claims: one effect per key, and its outcome for all who ask again.
//!
//! It owns how a key is claimed, worked on under a [`Lease`], and settled; who waits
//! for whom; and what is remembered of finished keys. What a store decides is in
//! [`confirm::claims`](crate::confirm::claims). Invariants:
//!
//! - an outcome is stored before its key is free;
//! - what a lease's holder never said is not guessed: a completion that may have been
//!   lost is not followed by a release;
//! - no lock is held while a store or a caller works.
//!
//! What this buys, plainly: of concurrent holders one alone can complete, and all
//! others learn what came of it. The work itself is done once where it commits
//! together with the claim, in one transaction; elsewhere a holder that dies in the
//! middle of it leaves it done in part, and the next learns that it has taken
//! over ([`Grant::is_takeover`](crate::confirm::claims::Grant::is_takeover)).

mod builder;
mod consumer;
mod error;
mod finished;
mod gate;
pub(crate) mod heartbeat;
mod identity;
mod lease;
mod lost;
mod run;
mod stats;
#[cfg(feature = "postgres")]
mod transaction;
mod wait;

pub use builder::{Failures, GateBuilder};
pub use consumer::{
    Attempt, Consumed, Consumer, ConsumerBuilder, ConsumerError, ConsumerStats, DeadLetter,
    Delivery, Failure, Retry, Unanswered,
};
#[cfg(feature = "postgres")]
pub use error::TransactionError;
pub use error::{ClaimError, GateError, LeaseError, RunError};
pub use gate::{Claim, Gate, InFlight};
pub use identity::Identity;
pub use lease::Lease;
pub use stats::GateStats;
#[cfg(feature = "postgres")]
pub use transaction::{TransactionClaim, TransactionLease, Within};
