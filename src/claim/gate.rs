//! Who gets in.

use super::Identity;
use super::builder::{Failures, GateBuilder};
use super::error::{ClaimError, LeaseError};
use super::finished::Finished;
use super::lease::{Hold, Lease};
use super::lost::Lost;
use super::stats::{Counts, GateStats};
use super::wait::{Freed, Patience};
use crate::confirm::claims::{
    Answer, AsyncClaimStore, ClaimRequest, ClaimStore, Digest, Ending, Outcome, SettleRequest,
    Settled, Settlement, Status, Terms,
};
use crate::confirm::{Inline, MAX_KEY_BYTES, StoreError, Token, at_once, caught};
use crate::time::{Clock, Timestamp};
use event_listener::Listener as _;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Lets one caller at a time process a key, and gives all others what came of it.
///
/// Cloning is cheap, and clones are one gate. Its methods come in two faces: blocking
/// ones for a [`ClaimStore`], `*_async` ones for an [`AsyncClaimStore`]. A claim costs
/// a request to the store, and so does its settlement; a retry of a key that finished
/// lately, and in this process, costs neither ([`GateBuilder::remember`]).
///
/// ```
/// use hapax::claim::{Claim, Gate, Identity};
/// use hapax::confirm::claims::{Digest, MemoryClaims, Outcome};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let gate = Gate::builder(MemoryClaims::new()).build()?;
/// let charge = Identity::new("acct-7", "POST /charges", "order-17");
/// let payload = Digest::of(b"amount=10");
///
/// let Claim::Granted(mut lease) = gate.claim(&charge, payload)? else { unreachable!() };
/// assert!(matches!(gate.claim(&charge, payload)?, Claim::InFlight(_)));
/// lease.complete(Outcome::success(*b"charged 10"))?;
///
/// let Claim::Replay(outcome) = gate.claim(&charge, payload)? else { unreachable!() };
/// assert_eq!(outcome.bytes(), Some(b"charged 10".as_slice()));
/// assert!(matches!(gate.claim(&charge, Digest::of(b"amount=99"))?, Claim::Mismatch));
/// # Ok(())
/// # }
/// ```
pub struct Gate<S> {
    inner: Arc<Inner<S>>,
}

/// What a claim comes to.
#[must_use = "a lease that is dropped frees its key"]
pub enum Claim<S> {
    /// The key is the caller's to process: settle the lease.
    Granted(Lease<S>),
    /// It has been processed, and this came of it.
    Replay(Outcome),
    /// Somebody else is at it.
    InFlight(InFlight),
    /// The key came with another payload before: it must not be processed, nor get the
    /// first one's outcome.
    Mismatch,
}

/// A key that somebody else is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Since this time of the store's clock.
    pub since: Timestamp,
    /// Until it may be taken over, unless its lease is extended. Nothing, where a
    /// transaction is at it that may end at any moment.
    pub remaining: Duration,
}

pub(super) struct Inner<S> {
    store: S,
    terms: Terms,
    failures: Failures,
    max_outcome_bytes: usize,
    finished: Finished,
    lost: Lost,
    freed: Freed,
    counts: Counts,
    clock: Arc<dyn Clock>,
}

impl<S> Gate<S> {
    /// A gate over a store that keeps its claims.
    pub const fn builder(store: S) -> GateBuilder<S> {
        GateBuilder::new(store)
    }

    #[cfg(feature = "postgres")]
    pub(super) fn inner(&self) -> &Inner<S> {
        &self.inner
    }

    pub(super) fn new(
        store: S,
        terms: Terms,
        failures: Failures,
        max_outcome_bytes: usize,
        finished: Finished,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (lost, freed, counts) = (Lost::new(), Freed::default(), Counts::default());
        let inner = Inner {
            store,
            terms,
            failures,
            max_outcome_bytes,
            finished,
            lost,
            freed,
            counts,
            clock,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.inner.store
    }

    /// How long a lease lasts, and an outcome is kept.
    pub fn terms(&self) -> Terms {
        self.inner.terms
    }

    /// The largest answer that is kept, in bytes.
    pub fn max_outcome(&self) -> usize {
        self.inner.max_outcome_bytes
    }

    /// What claims have come to so far, in this process.
    pub fn stats(&self) -> GateStats {
        self.inner.counts.read()
    }

    fn outcome(&self, id: &Identity, digest: Digest, asked: Asked, hold: Hold<S>) -> Claim<S> {
        self.inner.counts.claimed(&asked.answer);
        let (grant, is_confirmed) = match asked.answer {
            Answer::Granted(grant) => (grant, true),
            Answer::Unconfirmed(grant) => (grant, false),
            Answer::Finished(outcome) => return Claim::Replay(outcome),
            Answer::InFlight { since, remaining } => {
                return Claim::InFlight(InFlight { since, remaining });
            }
            Answer::Mismatch => return Claim::Mismatch,
        };
        let claim = (id.clone(), digest, asked.token);
        let deadline = asked.at.saturating_add(self.inner.terms.lease);
        let gate = Arc::clone(&self.inner);
        Claim::Granted(Lease::new(gate, claim, (grant, is_confirmed), deadline, hold))
    }
}

/// For blocking stores.
impl<S: ClaimStore> Gate<S> {
    /// Claims a key that came with a payload of this digest.
    ///
    /// # Errors
    ///
    /// [`ClaimError`]; the key is not the caller's to process.
    pub fn claim(&self, id: &Identity, digest: Digest) -> Result<Claim<S>, ClaimError> {
        let asked = at_once(self.inner.claim(Inline(&self.inner.store), id.as_bytes(), digest))?;
        Ok(self.outcome(id, digest, asked, Hold::blocking()))
    }

    /// Claims a key; while somebody else is at it, waits for them, in all for `patience`
    /// at most. Holders in this process wake it, others are looked for again and again,
    /// after 5 ms at first and every quarter of a second in the end.
    ///
    /// # Errors
    ///
    /// As [`claim`](Self::claim).
    pub fn claim_or_wait(
        &self,
        id: &Identity,
        digest: Digest,
        patience: Duration,
    ) -> Result<Claim<S>, ClaimError> {
        let mut patience = Patience::new(patience);
        loop {
            // Before the store is asked, so that nothing is missed in between.
            let freed = self.inner.freed.listen(id.as_bytes());
            let claim = self.claim(id, digest)?;
            let Claim::InFlight(in_flight) = &claim else { return Ok(claim) };
            let Some(pause) = patience.pause(in_flight.remaining) else { return Ok(claim) };
            let _ = freed.wait_timeout(pause);
        }
    }

    /// What is known of a key; `None`: it is free. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`ClaimError`]; nothing is known.
    pub fn lookup(&self, id: &Identity) -> Result<Option<Status>, ClaimError> {
        at_once(self.inner.lookup(Inline(&self.inner.store), id.as_bytes()))
    }

    /// Frees a key, for operators: whoever holds it can no longer settle it, and an
    /// outcome is forgotten.
    ///
    /// # Errors
    ///
    /// [`ClaimError`]; the key may or may not be free.
    pub fn release(&self, id: &Identity) -> Result<(), ClaimError> {
        at_once(self.inner.release(Inline(&self.inner.store), id.as_bytes()))
    }

    /// Frees the room of what has expired in the store, once at least and again until `budget`
    /// is spent; true iff nothing is left. For stores whose entries do not expire by themselves, when
    /// little is claimed.
    ///
    /// # Errors
    ///
    /// [`ClaimError::Store`]
    pub fn maintain(&self, budget: Duration) -> Result<bool, ClaimError> {
        at_once(self.inner.maintain(Inline(&self.inner.store), budget))
    }
}

/// For asynchronous stores. A claim whose future is dropped goes to the next claim of its
/// key in this process.
impl<S: AsyncClaimStore + 'static> Gate<S> {
    /// `claim` for asynchronous stores.
    ///
    /// # Errors
    ///
    /// Those of `claim` for blocking ones.
    pub async fn claim_async(&self, id: &Identity, digest: Digest) -> Result<Claim<S>, ClaimError> {
        let asked = self.inner.claim(&self.inner.store, id.as_bytes(), digest).await?;
        Ok(self.outcome(id, digest, asked, Hold::asynchronous()))
    }

    /// `claim_or_wait` for asynchronous stores, in a tokio runtime with time.
    ///
    /// # Errors
    ///
    /// Those of `claim_or_wait` for blocking ones.
    pub async fn claim_or_wait_async(
        &self,
        id: &Identity,
        digest: Digest,
        patience: Duration,
    ) -> Result<Claim<S>, ClaimError> {
        let mut patience = Patience::new(patience);
        loop {
            let freed = self.inner.freed.listen(id.as_bytes());
            let claim = self.claim_async(id, digest).await?;
            let Claim::InFlight(in_flight) = &claim else { return Ok(claim) };
            let Some(pause) = patience.pause(in_flight.remaining) else { return Ok(claim) };
            let _ = tokio::time::timeout(pause, freed).await;
        }
    }

    /// `lookup` for asynchronous stores.
    ///
    /// # Errors
    ///
    /// Those of `lookup` for blocking ones.
    pub async fn lookup_async(&self, id: &Identity) -> Result<Option<Status>, ClaimError> {
        self.inner.lookup(&self.inner.store, id.as_bytes()).await
    }

    /// `release` for asynchronous stores.
    ///
    /// # Errors
    ///
    /// Those of `release` for blocking ones.
    pub async fn release_async(&self, id: &Identity) -> Result<(), ClaimError> {
        self.inner.release(&self.inner.store, id.as_bytes()).await
    }

    /// `maintain` for asynchronous stores.
    ///
    /// # Errors
    ///
    /// Those of `maintain` for blocking ones.
    pub async fn maintain_async(&self, budget: Duration) -> Result<bool, ClaimError> {
        self.inner.maintain(&self.inner.store, budget).await
    }
}

/// A store's answer, and the token that it was asked with.
pub(super) struct Asked {
    answer: Answer,
    token: Token,
    at: Timestamp,
}

impl<S> Inner<S> {
    pub(super) const fn store(&self) -> &S {
        &self.store
    }

    pub(super) const fn failures(&self) -> Failures {
        self.failures
    }

    pub(super) const fn terms(&self) -> Terms {
        self.terms
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    #[cfg(feature = "postgres")]
    pub(super) const fn counts(&self) -> &Counts {
        &self.counts
    }

    async fn claim<A: AsyncClaimStore>(
        &self,
        store: A,
        id: &[u8],
        digest: Digest,
    ) -> Result<Asked, ClaimError> {
        if id.len() > MAX_KEY_BYTES {
            return Err(ClaimError::TooLong(id.len()));
        }
        let at = self.now();
        let asking = self.lost.asking(id);
        let token = asking.token();
        if let Some(answer) = self.finished.answer(id, &digest) {
            asking.never_asked();
            return Ok(Asked { answer, token, at });
        }
        let request = ClaimRequest { token, digest, terms: self.terms };
        let answer = twice(|| caught(store.claim(id, &request))).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                if !error.may_have_recorded() {
                    asking.never_asked();
                }
                return Err(ClaimError::Store(error));
            }
        };
        asking.answered();
        if let Answer::Finished(outcome) = &answer {
            self.finished.learn(id, digest, outcome);
        }
        Ok(Asked { answer, token, at })
    }

    async fn lookup<A: AsyncClaimStore>(
        &self,
        store: A,
        id: &[u8],
    ) -> Result<Option<Status>, ClaimError> {
        caught(store.look(id)).await.map_err(ClaimError::Store)
    }

    async fn release<A: AsyncClaimStore>(&self, store: A, id: &[u8]) -> Result<(), ClaimError> {
        let request = self.settlement(Token::new(0), Settlement::Clear);
        let cleared = twice(|| caught(store.settle(id, &request))).await;
        self.finished.forget(id);
        self.freed.notify(id);
        cleared.map(drop).map_err(ClaimError::Store)
    }

    async fn maintain<A: AsyncClaimStore>(
        &self,
        store: A,
        budget: Duration,
    ) -> Result<bool, ClaimError> {
        let start = Instant::now();
        loop {
            let has_more = caught(store.sweep()).await.map_err(ClaimError::Store)?;
            if !has_more || start.elapsed() >= budget {
                return Ok(!has_more);
            }
        }
    }

    /// Says how a claim ended, or goes on.
    async fn settle<A: AsyncClaimStore>(
        &self,
        store: A,
        id: &[u8],
        token: Token,
        settlement: Settlement<'_>,
    ) -> Result<(), LeaseError> {
        let request = self.settlement(token, settlement);
        let settled = twice(|| caught(store.settle(id, &request))).await;
        if !matches!(settlement, Settlement::Extend) {
            self.freed.notify(id);
        }
        match settled {
            Ok(Settled::Done) => Ok(()),
            Ok(Settled::Stale) => {
                self.counts.stale.add(1);
                Err(LeaseError::Stale)
            }
            Err(error) => Err(LeaseError::Store(error)),
        }
    }

    pub(super) async fn free<A: AsyncClaimStore>(
        &self,
        store: A,
        (id, token): (&[u8], Token),
    ) -> Result<(), LeaseError> {
        self.settle(store, id, token, Settlement::Release).await
    }

    pub(super) async fn extend<A: AsyncClaimStore>(
        &self,
        store: A,
        (id, token): (&[u8], Token),
    ) -> Result<(), LeaseError> {
        self.settle(store, id, token, Settlement::Extend).await
    }

    /// Keeps an outcome.
    pub(super) async fn complete<A: AsyncClaimStore>(
        &self,
        store: A,
        (id, token): (&[u8], Token),
        digest: Digest,
        outcome: Outcome,
    ) -> Result<(), LeaseError> {
        let outcome = self.cut_to_size(outcome);
        self.settle(store, id, token, Settlement::Complete(&outcome)).await?;
        self.finished.remember(id, digest, &outcome);
        match outcome.ending() {
            Ending::Success => self.counts.succeeded.add(1),
            Ending::Failure => self.counts.failed.add(1),
        }
        Ok(())
    }

    /// An outcome, or the tombstone in its place if it is too large.
    pub(super) fn cut_to_size(&self, outcome: Outcome) -> Outcome {
        if outcome.len() <= self.max_outcome_bytes {
            return outcome;
        }
        self.counts.tombstones.add(1);
        Outcome::tombstone(outcome.ending())
    }

    pub(super) const fn settlement<'a>(
        &self,
        token: Token,
        settlement: Settlement<'a>,
    ) -> SettleRequest<'a> {
        SettleRequest { token, settlement, terms: self.terms }
    }
}

/// Makes a call, and once more if its reply was lost: the token makes that harmless.
async fn twice<T, F>(call: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    match call().await {
        Err(error) if error.is_retryable() && error.may_have_recorded() => {
            call().await.map_err(|again| if again.may_have_recorded() { again } else { error })
        }
        result => result,
    }
}

impl<S> Clone for Gate<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S> fmt::Debug for Gate<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("terms", &self.inner.terms).finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for Claim<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granted(lease) => f.debug_tuple("Granted").field(lease).finish(),
            Self::Replay(outcome) => f.debug_tuple("Replay").field(outcome).finish(),
            Self::InFlight(in_flight) => in_flight.fmt(f),
            Self::Mismatch => f.write_str("Mismatch"),
        }
    }
}
