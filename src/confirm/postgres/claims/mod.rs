//! Claims that any number of processes share, in PostgreSQL, and in a caller's own
//! transaction.
//!
//! It owns the table, what is asked of it (`sql`), entries as rows of it (`row`), and how
//! one is looked at, decided upon and replaced (`table`), be it in the pool's
//! sessions or in a caller's transaction (`transaction`). Invariants:
//!
//! - an entry replaces what it was decided upon, or nothing;
//! - whoever writes nothing locks nothing;
//! - who claims never waits for a transaction of somebody else's unless told to.

mod row;
mod sql;
mod table;
mod transaction;

use super::sessions::{Parameter, Sessions};
use super::{PostgresBuilder, sql as shared};
use crate::confirm::StoreError;
use crate::confirm::claims::{
    Answer, AsyncClaimStore, ClaimRequest, Entry, SettleRequest, Settled, Status,
};
use std::fmt;
use std::time::Duration;
use table::Table;
use tokio::time::sleep;
use tokio_postgres::Transaction;
use transaction::InTransaction;

/// Entries that one statement of [`sweep`](AsyncClaimStore::sweep) deletes at most.
const SWEEP_ROWS: i64 = 500;

/// How long a claim looks again whose key somebody is at whom nobody can see yet: a claim
/// just being made will be seen in a moment, a caller's transaction may take its time.
const PAUSES_MS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Claims in a PostgreSQL database, version 12 or later, that any number of processes
/// share, by the server's clock.
///
/// A claim is two statements, and so is its settlement; whoever hears of an outcome, or that
/// somebody else is at it, only reads. Identities longer than 1,024 bytes are stored as
/// their beginning and SHA-256.
///
/// In a caller's own transaction the claim and the work become true together, or not at
/// all: see [`Gate::within`](crate::claim::Gate::within).
///
/// Entries that have expired stay until they are swept
/// ([`Gate::maintain_async`](crate::claim::Gate::maintain_async)): have some process do it every
/// minute.
///
/// What is written is as durable as the server's `synchronous_commit` says. Where a standby
/// takes over that lacks the latest claims, they are forgotten; one with a clock that is behind
/// lets leases last longer. Connections must stay with their servers' sessions: behind
/// `PgBouncer`, pool by session.
///
/// ```no_run
/// use hapax::claim::{Claim, Gate, Identity};
/// use hapax::confirm::claims::{Digest, Outcome, PostgresClaims};
///
/// # async fn charge() -> Result<(), Box<dyn std::error::Error>> {
/// let builder = PostgresClaims::builder("host=db1,db2 user=orders dbname=orders");
/// builder.create_schema().await?;
/// let gate = Gate::builder(builder.connect().await?).build()?;
/// let charge = Identity::new("acct-7", "POST /charges", "order-17");
/// if let Claim::Granted(mut lease) = gate.claim_async(&charge, Digest::of(b"10 EUR")).await? {
///     lease.complete_async(Outcome::success(*b"charged")).await?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct PostgresClaims {
    namespace: String,
    sessions: Sessions,
}

impl PostgresClaims {
    /// The statements that make the table and its index.
    ///
    /// Where they are there, these change nothing, but only their owner may run them, and
    /// they wait for writers while new ones wait behind them.
    /// [`create_schema`](PostgresBuilder::create_schema) looks first.
    pub const SCHEMA: &str = sql::SCHEMA;

    /// For the database that `parameters` name, in either of libpq's forms:
    /// `host=localhost user=hapax` or `postgresql://hapax@localhost`.
    ///
    /// Where several hosts are named, the first that takes writes is used.
    pub fn builder(parameters: &str) -> PostgresBuilder<Self> {
        PostgresBuilder::new(parameters)
    }

    /// The same claims, as `transaction` makes them.
    pub(crate) fn within<'t>(&'t self, transaction: &'t Transaction<'t>) -> InTransaction<'t> {
        InTransaction::new(Table { channel: transaction, namespace: &self.namespace })
    }

    fn table(&self) -> Table<'_, Sessions> {
        Table { channel: &self.sessions, namespace: &self.namespace }
    }
}

impl PostgresBuilder<PostgresClaims> {
    /// Creates the table and its index, [`PostgresClaims::SCHEMA`], in the first
    /// schema of the connection's `search_path`; where they are there, does nothing.
    ///
    /// Several callers may do so at once, and while others write. Where nothing is missing,
    /// no lock is taken on the table, and no right to it is needed.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect);
    /// [`Refused`](crate::confirm::StoreErrorKind::Refused) without the right to create
    /// what is missing.
    pub async fn create_schema(&self) -> Result<(), StoreError> {
        self.sessions()?.execute(&shared::create("hapax_claim", sql::SCHEMA)).await
    }

    /// Connects, and makes sure that the table is there.
    ///
    /// This and every later call needs a tokio runtime, one that outlives the store: its
    /// tasks serve the connections.
    ///
    /// # Errors
    ///
    /// Those of connecting a [`PostgresConfirmer`](crate::confirm::PostgresConfirmer).
    ///
    /// # Panics
    ///
    /// In a runtime whose timers or network are off.
    pub async fn connect(self) -> Result<PostgresClaims, StoreError> {
        let (namespace, sessions) = self.into_parts()?;
        let claims = PostgresClaims { namespace, sessions };
        // Whatever would fail later does so now.
        claims.sessions.rows(sql::PROBE, &[]).await?;
        claims.table().look(b"").await?;
        Ok(claims)
    }
}

impl AsyncClaimStore for PostgresClaims {
    /// A key that a caller's transaction is at is looked at again for an eighth of a second;
    /// then it is in flight, and may be free at any moment: nothing remains of it.
    async fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        for pause in PAUSES_MS.map(Duration::from_millis) {
            let answer = self.table().claim(id, request).await?;
            if !matches!(answer, Answer::InFlight { remaining: Duration::ZERO, .. }) {
                return Ok(answer);
            }
            sleep(pause).await;
        }
        self.table().claim(id, request).await
    }

    /// Where a caller's transaction is at the key, waits for it, within the reply timeout.
    async fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        self.table().settle(id, request).await
    }

    async fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        let looked = self.table().look(id).await?;
        Ok(Entry::status(looked.held.as_ref(), looked.now))
    }

    /// Deletes up to 500 entries in one statement.
    async fn sweep(&self) -> Result<bool, StoreError> {
        let parameters: [Parameter<'_>; 2] = [&self.namespace, &SWEEP_ROWS];
        Ok(self.sessions.number(sql::SWEEP, &parameters).await? == SWEEP_ROWS)
    }
}

impl fmt::Debug for PostgresClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresClaims").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}
