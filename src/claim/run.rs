//! Claims around a closure.

use super::error::RunError;
use super::{Claim, Gate, Identity, Lease};
use crate::confirm::claims::{AsyncClaimStore, ClaimStore, Digest, Ending, Outcome};
use std::future::Future;
use std::sync::Arc;

/// What is left to do once a key was claimed.
enum Turn<S> {
    Work(Lease<S>),
    Answer(Outcome),
}

fn turn<S, E>(claim: Claim<S>) -> Result<Turn<S>, RunError<E>> {
    match claim {
        Claim::Granted(lease) => Ok(Turn::Work(lease)),
        Claim::Replay(outcome) if outcome.ending() == Ending::Success => Ok(Turn::Answer(outcome)),
        Claim::Replay(outcome) => Err(RunError::FailedBefore(outcome)),
        Claim::InFlight(in_flight) => Err(RunError::InFlight(in_flight.remaining)),
        Claim::Mismatch => Err(RunError::Mismatch),
    }
}

impl<S: ClaimStore> Gate<S> {
    /// Does `work` unless it was done before, and gives what came of it, then or now.
    ///
    /// ```
    /// use hapax::claim::{Gate, Identity};
    /// use hapax::confirm::claims::MemoryClaims;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let gate = Gate::builder(MemoryClaims::new()).build()?;
    /// let charge = Identity::new("acct-7", "POST /charges", "order-17");
    /// for _ in 0..3 {
    ///     let outcome = gate.run(&charge, b"amount=10", || {
    ///         Ok::<_, std::io::Error>(b"charged 10".to_vec()) // once
    ///     })?;
    ///     assert_eq!(outcome.bytes(), Some(b"charged 10".as_slice()));
    /// }
    /// assert_eq!(gate.stats().granted, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RunError`]. An error of `work` frees the key, or is kept as a tombstone, as the
    /// gate was told ([`Failures`](super::Failures)).
    pub fn run<T: Into<Arc<[u8]>>, E>(
        &self,
        id: &Identity,
        payload: &[u8],
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<Outcome, RunError<E>> {
        let claim = self.claim(id, Digest::of(payload)).map_err(RunError::Claim)?;
        let mut lease = match turn(claim)? {
            Turn::Answer(outcome) => return Ok(outcome),
            Turn::Work(lease) => lease,
        };
        match work() {
            Ok(answer) => {
                let outcome = Outcome::success(answer);
                lease.complete(outcome.clone()).map_err(RunError::Unsettled)?;
                Ok(outcome)
            }
            Err(error) => {
                // What became of the key is secondary to why the work failed.
                let _ = lease.fail(Outcome::tombstone(Ending::Failure));
                Err(RunError::Failed(error))
            }
        }
    }
}

impl<S: AsyncClaimStore + 'static> Gate<S> {
    /// `run` for asynchronous stores and work.
    ///
    /// # Errors
    ///
    /// Those of `run` for blocking ones.
    pub async fn run_async<T: Into<Arc<[u8]>>, E, F: Future<Output = Result<T, E>>>(
        &self,
        id: &Identity,
        payload: &[u8],
        work: impl FnOnce() -> F,
    ) -> Result<Outcome, RunError<E>> {
        let claim = self.claim_async(id, Digest::of(payload)).await.map_err(RunError::Claim)?;
        let mut lease = match turn(claim)? {
            Turn::Answer(outcome) => return Ok(outcome),
            Turn::Work(lease) => lease,
        };
        match work().await {
            Ok(answer) => {
                let outcome = Outcome::success(answer);
                lease.complete_async(outcome.clone()).await.map_err(RunError::Unsettled)?;
                Ok(outcome)
            }
            Err(error) => {
                let _ = lease.fail_async(Outcome::tombstone(Ending::Failure)).await;
                Err(RunError::Failed(error))
            }
        }
    }
}
