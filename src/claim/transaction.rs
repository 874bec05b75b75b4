//! Claims in the caller's own transaction.
//!
//! It owns what is granted there, and who waits for whom. What is remembered of finished keys
//! is left out: nothing is finished before the transaction commits, which only the
//! caller hears of.

use super::Identity;
use super::builder::Failures;
use super::error::TransactionError;
use super::gate::{Gate, InFlight, Inner};
use super::lost::new_token;
use super::wait::Patience;
use crate::confirm::claims::{
    Answer, ClaimRequest, Digest, Fence, Grant, Outcome, PostgresClaims, Settled, Settlement,
};
use crate::confirm::{MAX_KEY_BYTES, Token};
use std::borrow::Borrow;
use std::fmt;
use std::time::Duration;
use tokio::time::sleep;
use tokio_postgres::Transaction;

impl<S: Borrow<PostgresClaims>> Gate<S> {
    /// Claims in the caller's own transaction, the strongest form there is: the work and its
    /// outcome commit together, or neither does. So nothing is done twice, and nothing that
    /// was acknowledged is lost, whatever crashes when.
    ///
    /// A key claimed so is the transaction's until it ends. Rolled back, also because its
    /// process or its connection died, it leaves no trace, and the key is free at once,
    /// whatever the lease; committed, its outcome is there for all who ask. Meanwhile the key
    /// is in flight for everybody else, in transactions and out of them; and one that
    /// is in flight elsewhere is so here.
    ///
    /// The transaction is one of tokio-postgres 0.7, a public dependency, in the database and with
    /// the `search_path` that the store has. It must not be behind a proxy that splits
    /// transactions.
    ///
    /// ```no_run
    /// use hapax::claim::{Gate, Identity, TransactionClaim};
    /// use hapax::confirm::claims::{Digest, Outcome, PostgresClaims};
    /// use std::error::Error;
    /// use tokio_postgres::Client;
    ///
    /// async fn charge(
    ///     gate: &Gate<PostgresClaims>,
    ///     client: &mut Client,
    ///     order: &str,
    ///     cents: i64,
    /// ) -> Result<Option<Outcome>, Box<dyn Error>> {
    ///     let id = Identity::new("acct-7", "POST /charges", order);
    ///     let transaction = client.transaction().await?;
    ///     let claim = gate.within(&transaction).claim(&id, Digest::of(&cents.to_be_bytes())).await?;
    ///     let lease = match claim {
    ///         TransactionClaim::Granted(lease) => lease,
    ///         TransactionClaim::Replay(outcome) => return Ok(Some(outcome)),
    ///         TransactionClaim::InFlight(_) => return Ok(None), // 409
    ///         TransactionClaim::Mismatch => return Err("the key was used for another sum".into()), // 422
    ///     };
    ///     let spend = "UPDATE account SET cents = cents - $1 WHERE id = 7";
    ///     transaction.execute(spend, &[&cents]).await?;
    ///     let outcome = Outcome::success(*b"charged");
    ///     lease.complete(outcome.clone()).await?;
    ///     transaction.commit().await?; // both, or neither
    ///     Ok(Some(outcome))
    /// }
    /// ```
    ///
    /// # When it fails
    ///
    /// After an error, roll back. If [`TransactionError::is_retryable`] says so, run the
    /// whole transaction again: at `SERIALIZABLE` and `REPEATABLE READ` some must
    /// give way ([`PostgresError::Conflict`](crate::confirm::PostgresError::Conflict)), and so
    /// may other statements of it, and its commit. If the commit's reply is lost, do that, too:
    /// it is a replay if the first one has committed. A future of these that was
    /// dropped leaves a transaction that can only be rolled back.
    ///
    /// A machine that is cut off leaves its transaction open on the server, and the
    /// key in flight, until the server notices: set its `tcp_keepalives_idle` and
    /// `idle_in_transaction_session_timeout`.
    pub fn within<'t>(&'t self, transaction: &'t Transaction<'t>) -> Within<'t, S> {
        Within { gate: self.inner(), transaction }
    }
}

/// A gate as a transaction sees it; see [`Gate::within`].
///
/// It asks the database, whatever this process remembers of finished keys. The gate counts
/// what its claims come to, and not how they end: that is the caller's commit.
pub struct Within<'t, S> {
    gate: &'t Inner<S>,
    transaction: &'t Transaction<'t>,
}

/// What a claim in a transaction comes to.
#[derive(Debug)]
#[must_use = "a lease that is not completed before the commit holds its key until its deadline"]
pub enum TransactionClaim<'t, S> {
    /// The key is the transaction's to process: complete the lease, then commit.
    Granted(TransactionLease<'t, S>),
    /// It has been processed, and this came of it.
    Replay(Outcome),
    /// Somebody else is at it. Nothing [remains](InFlight::remaining) if that is another
    /// transaction: it may end at any moment.
    InFlight(InFlight),
    /// The key came with another payload before: it must not be processed, nor get the
    /// first one's outcome.
    Mismatch,
}

/// A transaction's right to process a key, until it ends.
///
/// Dropped, it changes nothing: roll back, and the key is free; commit, and it stays claimed
/// until the gate's lease ends, as if its holder had died.
#[must_use = "complete it before the commit"]
pub struct TransactionLease<'t, S> {
    within: Within<'t, S>,
    id: Identity,
    token: Token,
    grant: Grant,
}

impl<'t, S: Borrow<PostgresClaims>> Within<'t, S> {
    /// Claims a key that came with a payload of this digest, and waits for nobody.
    ///
    /// Two round trips, or one for a key that is finished or in flight elsewhere, which writes
    /// and locks nothing.
    ///
    /// # Errors
    ///
    /// [`TransactionError`]
    pub async fn claim(
        &self,
        id: &Identity,
        digest: Digest,
    ) -> Result<TransactionClaim<'t, S>, TransactionError> {
        let length = id.as_bytes().len();
        if length > MAX_KEY_BYTES {
            return Err(TransactionError::TooLong(length));
        }
        let token = new_token();
        let request = ClaimRequest { token, digest, terms: self.gate.terms() };
        let claimed = self.claims().within(self.transaction).claim(id.as_bytes(), &request).await;
        let answer = claimed.map_err(TransactionError::Store)?;
        self.gate.counts().claimed(&answer);
        Ok(match answer {
            Answer::Granted(grant) | Answer::Unconfirmed(grant) => {
                let (within, id) = (self.clone(), id.clone());
                TransactionClaim::Granted(TransactionLease { within, id, token, grant })
            }
            Answer::Finished(outcome) => TransactionClaim::Replay(outcome),
            Answer::InFlight { since, remaining } => {
                TransactionClaim::InFlight(InFlight { since, remaining })
            }
            Answer::Mismatch => TransactionClaim::Mismatch,
        })
    }

    /// Claims a key; while somebody else is at it, waits for them, for `patience` at most:
    /// for a transaction until it ends, for a lease by looking again and again, after 5 ms at
    /// first and every quarter of a second in the end.
    ///
    /// For transactions at `READ COMMITTED`: at higher levels one sees nothing of what
    /// others commit after its first statement. Two that wait for each other's keys are told
    /// apart by the server's deadlock detection, which ends one of them
    /// ([`PostgresError::Conflict`](crate::confirm::PostgresError::Conflict)).
    ///
    /// # Errors
    ///
    /// [`TransactionError`]
    pub async fn claim_or_wait(
        &self,
        id: &Identity,
        digest: Digest,
        patience: Duration,
    ) -> Result<TransactionClaim<'t, S>, TransactionError> {
        let mut patience = Patience::new(patience);
        loop {
            let claim = self.claim(id, digest).await?;
            let TransactionClaim::InFlight(in_flight) = &claim else { return Ok(claim) };
            let Some(pause) = patience.pause(in_flight.remaining) else { return Ok(claim) };
            if in_flight.remaining.is_zero() {
                self.wait(id, patience.left()).await?;
            } else {
                sleep(pause).await;
            }
        }
    }

    /// Waits for other transactions.
    async fn wait(&self, id: &Identity, most: Duration) -> Result<(), TransactionError> {
        let waited = self.claims().within(self.transaction).wait(id.as_bytes(), most).await;
        waited.map_err(TransactionError::Store)
    }

    fn claims(&self) -> &'t PostgresClaims {
        self.gate.store().borrow()
    }
}

impl<S: Borrow<PostgresClaims>> TransactionLease<'_, S> {
    /// What was claimed.
    pub const fn identity(&self) -> &Identity {
        &self.id
    }

    /// Larger than that of every holder before, for whoever else the work writes to; of
    /// those that were rolled back as long as the server's clock does not go back.
    pub const fn fence(&self) -> Fence {
        self.grant.fence
    }

    /// The how manieth it is to try, from 1: of those that left a trace, which transactions that
    /// were rolled back did not.
    pub const fn attempt(&self) -> u32 {
        self.grant.attempt
    }

    /// True iff the holder before was never heard of again: how much of its work it did
    /// outside of this database nobody knows.
    pub const fn is_takeover(&self) -> bool {
        self.grant.is_takeover
    }

    /// Keeps what came of the work, for all who ask again, once the transaction commits.
    /// Two round trips.
    ///
    /// # Errors
    ///
    /// [`TransactionError`]
    pub async fn complete(self, outcome: Outcome) -> Result<(), TransactionError> {
        let outcome = self.within.gate.cut_to_size(outcome);
        self.settle(Settlement::Complete(&outcome)).await
    }

    /// Ends the lease after a failure, once the transaction commits: the key is free, or the
    /// failure is kept, as the gate was told ([`Failures`]). For work that failed in a
    /// way that is to be committed, or that was undone by a savepoint begun after the claim.
    ///
    /// # Errors
    ///
    /// [`TransactionError`]
    pub async fn fail(self, failure: Outcome) -> Result<(), TransactionError> {
        match self.within.gate.failures() {
            Failures::Remember => self.complete(failure).await,
            Failures::Free => self.free().await,
        }
    }

    /// Ends the lease and frees the key for a retry, once the transaction commits.
    ///
    /// # Errors
    ///
    /// [`TransactionError`]
    pub async fn free(self) -> Result<(), TransactionError> {
        self.settle(Settlement::Release).await
    }

    async fn settle(&self, settlement: Settlement<'_>) -> Result<(), TransactionError> {
        let request = self.within.gate.settlement(self.token, settlement);
        let claims = self.within.claims().within(self.within.transaction);
        match claims.settle(self.id.as_bytes(), &request).await {
            Ok(Settled::Done) => Ok(()),
            Ok(Settled::Stale) => Err(TransactionError::Undone),
            Err(error) => Err(TransactionError::Store(error)),
        }
    }
}

impl<S> Clone for Within<'_, S> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<S> fmt::Debug for Within<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Within").finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for TransactionLease<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionLease")
            .field("identity", &self.id)
            .field("grant", &self.grant)
            .finish_non_exhaustive()
    }
}
