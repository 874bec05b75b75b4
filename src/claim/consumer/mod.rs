//! Messages of a broker that delivers at least once, each worked on once.
//!
//! It owns the order of steps for a message: claim its key, work under a lease that is
//! extended meanwhile, keep the outcome, and only then tell the broker. It leaves out where
//! messages come from, and how many are in hand at once. Invariants:
//!
//! - no message is acknowledged before what came of it is kept;
//! - a message that is not acknowledged is handed back or reported as dead, and is
//!   delivered again until somebody acknowledges it;
//! - nothing is worked on without a lease, nor any longer once the lease is known to be lost.
//!
//! So a crash at any step loses nothing. One between the work and its outcome has the
//! message worked on again, by a handler that is told
//! ([`Attempt::is_takeover`]); at no other step does one. Where the work is a transaction
//! in PostgreSQL, claim the message once more within it, in another scope (`Gate::within`):
//! then even that one finds it done.

mod builder;
mod consumed;
mod delivery;
mod stats;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

pub use builder::{ConsumerBuilder, ConsumerError};
pub use consumed::{Consumed, DeadLetter, Failure, Retry, Unanswered};
pub use delivery::{Attempt, Delivery};
pub use stats::ConsumerStats;

use super::{Claim, ClaimError, Gate, GateBuilder, Identity, Lease, LeaseError, heartbeat};
use crate::confirm::catching;
use crate::confirm::claims::{AsyncClaimStore, Digest, Ending, Outcome};
use builder::Settings;
use stats::Counts;
use std::fmt;
use std::future::Future;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The pauses before an outcome that could not be kept is offered to the store again,
/// from the first to the longest, each twice the one before: 13 s in all.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Works on each message once, as far as its handler can be: claim, work, keep the
/// outcome, acknowledge.
///
/// One consumer serves any number of messages at once; it starts no task, and runs in a
/// tokio runtime with time. A message costs a claim and a settlement, and
/// one request to the store for each heartbeat of a longer work. Over a blocking store:
/// [`Inline`](crate::confirm::Inline).
///
/// ```
/// use hapax::claim::{Consumed, Consumer, Delivery};
/// use hapax::confirm::Inline;
/// use hapax::confirm::claims::{MemoryClaims, Outcome};
/// use std::convert::Infallible;
/// use std::time::Duration;
///
/// struct Order; // what a broker's client gives
///
/// impl Delivery for Order {
///     type Error = Infallible;
///     fn key(&self) -> &[u8] { b"order-17" }
///     fn payload(&self) -> &[u8] { b"2 hats" }
///     async fn ack(&self) -> Result<(), Infallible> { Ok(()) }
///     async fn nack(&self, _delay: Duration) -> Result<(), Infallible> { Ok(()) }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let gate = Consumer::gate(Inline(MemoryClaims::new())).build()?;
/// let consumer = Consumer::builder(gate, "shipping").build()?;
/// let ship = |attempt: hapax::claim::Attempt| async move {
///     assert!(!attempt.is_takeover); // else: find out what the one before has done
///     Ok::<_, std::io::Error>(Outcome::success(*b"parcel 4"))
/// };
/// let shipped = Outcome::success(*b"parcel 4");
/// assert!(matches!(consumer.consume(&Order, ship).await?, Consumed::Done(now) if now == shipped));
/// assert!(matches!(
///     consumer.consume(&Order, ship).await?,
///     Consumed::Replayed(before) if before == shipped
/// ));
/// # Ok(())
/// # }
/// ```
pub struct Consumer<S> {
    gate: Gate<S>,
    scope: Vec<u8>,
    settings: Settings,
    counts: Box<Counts>,
}

impl<S> Consumer<S> {
    /// A gate with the terms of a consumer: leases of five minutes, and outcomes that
    /// are kept for seven days, longer than brokers deliver a message again.
    pub const fn gate(store: S) -> GateBuilder<S> {
        const DAY: Duration = Duration::from_secs(86_400);
        Gate::builder(store).lease(Duration::from_secs(300)).keep(DAY.saturating_mul(7))
    }

    /// A consumer of the messages of one scope: all who share the work on them name the
    /// same, and whoever does something else with the same messages another.
    pub fn builder(gate: Gate<S>, scope: impl AsRef<[u8]>) -> ConsumerBuilder<S> {
        ConsumerBuilder::new(gate, scope.as_ref().to_vec())
    }

    /// The gate.
    pub const fn claims(&self) -> &Gate<S> {
        &self.gate
    }

    /// What has become of messages so far, in this process.
    pub fn stats(&self) -> ConsumerStats {
        self.counts.read()
    }
}

impl<S: AsyncClaimStore + 'static> Consumer<S> {
    /// Has a message worked on unless it was before, and tells its broker.
    ///
    /// `handler` gives what came of the work: a success, or a failure that a retry would meet
    /// too; or an error, after which the message is tried again. It must not block: while it
    /// waits, the lease is extended, and where it waits it is dropped once the lease is known to
    /// be lost. A panic in it is one of its failures.
    ///
    /// Dropped, the future leaves the message unacknowledged, and its key free.
    ///
    /// # Errors
    ///
    /// [`Unanswered`] if the broker could not be told. Nothing is lost: it delivers the
    /// message again.
    pub async fn consume<D, F, E>(
        &self,
        delivery: &D,
        handler: impl FnOnce(Attempt) -> F,
    ) -> Result<Consumed<E>, Unanswered<E, D::Error>>
    where
        D: Delivery,
        F: Future<Output = Result<Outcome, E>>,
    {
        let consumed = self.process(delivery, handler).await;
        self.counts.count(&consumed);
        let answered = match &consumed {
            Consumed::Done(_) | Consumed::Replayed(_) => delivery.ack().await,
            Consumed::Retried { after, .. } => delivery.nack(*after).await,
            Consumed::Dead(_) => Ok(()),
        };
        match answered {
            Ok(()) => Ok(consumed),
            Err(source) => {
                self.counts.unanswered.add(1);
                Err(Unanswered { consumed, source })
            }
        }
    }

    async fn process<D, F, E>(
        &self,
        delivery: &D,
        handler: impl FnOnce(Attempt) -> F,
    ) -> Consumed<E>
    where
        D: Delivery,
        F: Future<Output = Result<Outcome, E>>,
    {
        let id = Identity::new("", &self.scope, delivery.key());
        let claim = self.gate.claim_async(&id, Digest::of(delivery.payload())).await;
        match claim {
            Ok(Claim::Granted(lease)) => self.work(lease, delivery, handler).await,
            Ok(Claim::Replay(outcome)) => match outcome.ending() {
                Ending::Success => Consumed::Replayed(outcome),
                Ending::Failure => Consumed::Dead(DeadLetter::Failed(outcome)),
            },
            Ok(Claim::InFlight(in_flight)) => {
                let after = self.settings.retry_in_flight(in_flight.remaining);
                Consumed::Retried { after, reason: Retry::InFlight(in_flight) }
            }
            Ok(Claim::Mismatch) => Consumed::Dead(DeadLetter::Mismatch),
            Err(ClaimError::TooLong(bytes)) => Consumed::Dead(DeadLetter::KeyTooLong(bytes)),
            Err(error) => self.retried(1, Retry::Unclaimed(error)),
        }
    }

    async fn work<D, F, E>(
        &self,
        mut lease: Lease<S>,
        delivery: &D,
        handler: impl FnOnce(Attempt) -> F,
    ) -> Consumed<E>
    where
        D: Delivery,
        F: Future<Output = Result<Outcome, E>>,
    {
        let attempt = Attempt::of(&lease);
        if attempt.number > self.settings.attempts {
            // What is not freed is free after the deadline.
            let _ = lease.free_async().await;
            return exhausted(attempt.number - 1, None);
        }
        // Apart, because it may be large, and would be moved with all that is around it.
        let work = Box::pin(catching(async { handler(attempt).await }));
        let every = self.settings.heartbeat;
        // A broker that does not answer must not cost the lease.
        let beat = || timeout(every, delivery.progress());
        match heartbeat::under(&mut lease, every, beat, work).await {
            Ok(Ok(Ok(outcome))) => self.complete(&mut lease, attempt, outcome).await,
            Ok(Ok(Err(error))) => self.fail(&mut lease, attempt, Failure::Returned(error)).await,
            Ok(Err(panic)) => self.fail(&mut lease, attempt, Failure::Panicked(panic)).await,
            Err(lost) => self.retried(attempt.number, Retry::Unsettled(lost)),
        }
    }

    async fn complete<E>(
        &self,
        lease: &mut Lease<S>,
        attempt: Attempt,
        outcome: Outcome,
    ) -> Consumed<E> {
        match keep(lease, &outcome).await {
            Ok(()) if outcome.ending() == Ending::Success => Consumed::Done(outcome),
            Ok(()) => Consumed::Dead(DeadLetter::Failed(outcome)),
            Err(error) => self.retried(attempt.number, Retry::Unsettled(error)),
        }
    }

    async fn fail<E>(
        &self,
        lease: &mut Lease<S>,
        attempt: Attempt,
        failure: Failure<E>,
    ) -> Consumed<E> {
        // What becomes of the key is secondary to why the work failed.
        let _ = lease.fail_async(Outcome::tombstone(Ending::Failure)).await;
        if attempt.number < self.settings.attempts {
            self.retried(attempt.number, Retry::Failed(failure))
        } else {
            exhausted(attempt.number, Some(failure))
        }
    }

    fn retried<E>(&self, attempt: u32, reason: Retry<E>) -> Consumed<E> {
        Consumed::Retried { after: self.settings.retry(attempt), reason }
    }
}

const fn exhausted<E>(attempts: u32, last: Option<Failure<E>>) -> Consumed<E> {
    Consumed::Dead(DeadLetter::Exhausted { attempts, last })
}

/// Has an outcome kept, also by a store that is away for a moment: without it, the work
/// would be done again.
async fn keep<S: AsyncClaimStore + 'static>(
    lease: &mut Lease<S>,
    outcome: &Outcome,
) -> Result<(), LeaseError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let kept = lease.complete_async(outcome.clone()).await;
        let Err(LeaseError::Store(error)) = &kept else { return kept };
        if !error.is_retryable() || pause > LONGEST_PAUSE.min(lease.remaining()) {
            return kept;
        }
        sleep(pause).await;
        pause *= 2;
    }
}

impl<S: fmt::Debug> fmt::Debug for Consumer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("gate", &self.gate)
            .field("scope", &self.scope.escape_ascii().to_string())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
