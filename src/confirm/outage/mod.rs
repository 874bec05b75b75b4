//! What happens when a confirmer cannot answer.
//!
//! It owns the policies ([`Reject`], [`Admit`], [`Fallback`]), the circuit breaker that
//! spares callers the wait for a store that is down, and what is remembered of
//! keys until the store has answered for them; the same for stores of `claims`. It
//! leaves out whether and about which keys a store is asked. Invariants:
//!
//! - a confirmer's panic or nonsense is an error, and never a verdict;
//! - a sighting whose outcome its caller never learned is not held against the
//!   key's next sighting (`unresolved`);
//! - a key in the `journal` is not the primary's to answer until it has been told;
//! - no lock is held while a confirmer works, and a call that is given up midway
//!   leaves everything as a lost reply would.
//!
//! A call's `course` is written once, as a future. Over blocking confirmers it never
//! waits, and so is done when it has been polled once.

mod books;
mod breaker;
mod call;
#[cfg(feature = "claims")]
mod claims;
mod course;
mod failure;
mod guard;
mod journal;
mod policy;
mod stats;
mod switch;
#[cfg(test)]
mod tests;
mod unresolved;

pub use crate::stats::OutageStats;
pub use breaker::Breaker;
pub(crate) use call::write;
#[cfg(feature = "claims")]
pub(crate) use call::{catching, caught};
#[cfg(feature = "claims")]
pub use claims::Guarded;
pub(crate) use course::{AnsweredBy, Confirmed, Course};
pub(crate) use guard::Guard;
pub use policy::{Admit, Fallback, Outage, Reject};
pub use stats::Health;
