//! What happens when a claim store cannot answer.
//!
//! It owns [`Guarded`]: who answers for a key meanwhile, and until when. Of each key that
//! the stand-in let through there is a note in the `journal`, behind a lock in the
//! `books`; the `course` of a call says who is asked, in which order. Invariants:
//!
//! - a key is noted before the stand-in is asked to grant it, and until the primary has
//!   been told what came of it: all that time it is the stand-in's to answer;
//! - a lease is settled where it was granted, and nowhere else;
//! - a note says who holds a key, the stand-in what came of it: an outcome lies in one
//!   place, and a reply that was lost is looked up.

mod books;
mod course;
mod journal;
#[cfg(test)]
mod tests;

use super::policy::sealed::Plan;
use super::{Breaker, Health, Outage, OutageStats};
use crate::confirm::claims::{
    Answer, AsyncClaimStore, ClaimRequest, ClaimStore, MemoryClaims, SettleRequest, Settled, Status,
};
use crate::confirm::inline::at_once;
use crate::confirm::{Inline, StoreError};
use crate::time::{Clock, SystemClock};
use books::Books;
use course::{Course, StandIn};
use std::fmt;
use std::sync::Arc;

/// A claim store behind a circuit breaker and an outage policy.
///
/// While the store, the *primary*, cannot answer:
///
/// - [`Reject`](crate::confirm::Reject): claims fail with its error. Nothing is processed
///   twice, and nothing goes on until it is back.
/// - [`Admit`](crate::confirm::Admit): claims in this process's memory stand in for it. Of
///   one key still one worker at a time runs in this process, and outcomes are replayed in
///   it; other processes know nothing of it.
/// - [`Fallback`](crate::confirm::Fallback): another store stands in for it.
///
/// What a stand-in grants is [`Unconfirmed`](Answer::Unconfirmed): keys that only the
/// primary knew are processed again.
///
/// Each key that the stand-in let through is noted, in memory, as far as the policy's
/// journal has room: a note takes the key and 280 bytes. A full one fails the claim
/// ([`Full`](crate::confirm::StoreErrorKind::Full)), and nothing is dropped. When the
/// primary is back, noted keys are the stand-in's to answer until the primary has been told
/// what came of them: every claim tells it of up to two,
/// [`sweep`](ClaimStore::sweep) of 64. A key that was meanwhile finished in the primary,
/// too, was let through twice, and is counted; where somebody is at it there, it is told
/// later. All other keys are the primary's at once. A process that ends before leaves those
/// keys to the stand-in alone.
///
/// A lease is settled where it was granted: one of the primary's that must be settled
/// while the primary is away is an error, and worth another try until its deadline. A claim
/// whose reply was lost is asked for once more, and then of the stand-in with the same
/// token; what the primary may have granted for it ends when it is told of it, or with
/// the lease.
///
/// `look` says nothing of keys that are the primary's while it is away. Clearing a key
/// always asks both.
///
/// Beside what the stores take, a claim takes two locks, shared by all, some times for a
/// moment.
///
/// ```
/// use hapax::confirm::Admit;
/// use hapax::confirm::claims::{Guarded, MemoryClaims};
/// use hapax::claim::Gate;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // In earnest, over a store that others share.
/// let gate = Gate::builder(Guarded::new(MemoryClaims::new(), Admit)).build()?;
/// assert_eq!(gate.store().stats().admitted, 0);
/// # Ok(())
/// # }
/// ```
pub struct Guarded<S, P> {
    primary: S,
    policy: P,
    /// Stands in where the policy names nobody else.
    memory: Option<MemoryClaims>,
    books: Books,
}

impl<S, P: Outage> Guarded<S, P> {
    /// Over `primary`, with a breaker as [`Breaker::new`] sets it.
    pub fn new(primary: S, policy: P) -> Self {
        Self::with(primary, policy, Breaker::new(), Arc::new(SystemClock::new()))
    }

    /// With other settings of the breaker; `clock` tells it the time, and the claims in
    /// memory, if these stand in.
    pub fn with(primary: S, policy: P, breaker: Breaker, clock: Arc<dyn Clock>) -> Self {
        let limit_bytes = policy.journal_limit_bytes();
        let memory = matches!(policy.plan(), Plan::Admit)
            .then(|| MemoryClaims::with_clock(clock.clone()).memory_limit(limit_bytes));
        Self { primary, policy, memory, books: Books::new(breaker, limit_bytes, clock) }
    }

    /// The store itself.
    pub const fn primary(&self) -> &S {
        &self.primary
    }

    /// How the primary is doing.
    pub fn health(&self) -> Health {
        self.books.health()
    }

    /// What became of claims when it failed.
    pub fn stats(&self) -> OutageStats {
        self.books.stats()
    }

    fn course<'a, A, B>(
        &'a self,
        primary: A,
        other: impl FnOnce(&'a P::Instead) -> B,
    ) -> Course<'a, A, B> {
        let stand_in = match self.policy.plan() {
            Plan::Reject => None,
            Plan::Admit => self.memory.as_ref().map(StandIn::Memory),
            Plan::Ask(instead) => Some(StandIn::Other(other(instead))),
        };
        Course { primary, stand_in, books: &self.books }
    }
}

/// The same course over stores that never wait.
impl<S: ClaimStore, P: Outage<Instead: ClaimStore>> Guarded<S, P> {
    fn inline(&self) -> Course<'_, Inline<&S>, Inline<&P::Instead>> {
        self.course(Inline(&self.primary), Inline)
    }
}

impl<S: ClaimStore, P: Outage<Instead: ClaimStore>> ClaimStore for Guarded<S, P> {
    fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        at_once(self.inline().claim(id, request))
    }

    fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        at_once(self.inline().settle(id, request))
    }

    fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        at_once(self.inline().look(id))
    }

    /// Tells the primary what it has yet to be told, then sweeps both.
    fn sweep(&self) -> Result<bool, StoreError> {
        at_once(self.inline().sweep())
    }
}

impl<S: AsyncClaimStore, P: Outage<Instead: AsyncClaimStore>> AsyncClaimStore for Guarded<S, P> {
    async fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        self.course(&self.primary, |instead| instead).claim(id, request).await
    }

    async fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        self.course(&self.primary, |instead| instead).settle(id, request).await
    }

    async fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        self.course(&self.primary, |instead| instead).look(id).await
    }

    /// Tells the primary what it has yet to be told, then sweeps both.
    async fn sweep(&self) -> Result<bool, StoreError> {
        self.course(&self.primary, |instead| instead).sweep().await
    }
}

impl<S: fmt::Debug, P> fmt::Debug for Guarded<S, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("primary", &self.primary).finish_non_exhaustive()
    }
}
