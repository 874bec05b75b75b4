//! A confirmer that any number of processes share, in PostgreSQL (feature `postgres`),
//! and claims that they share (`claims`).
//!
//! It owns the tables, what is asked of them (`sql`), and the connections
//! (`sessions`). A batch is one statement and one transaction, but for keys that
//! come twice in it and move (`batch`). Invariants:
//!
//! - every wait ends: for a connection, for a reply, and, on the server, for a
//!   lock;
//! - a connection whose request got no reply is never used again;
//! - the server's clock decides nothing about keys. About claims it decides alone.

mod batch;
mod builder;
#[cfg(feature = "claims")]
mod claims;
mod failure;
mod key;
mod sessions;
mod sql;

pub use builder::PostgresBuilder;
#[cfg(feature = "claims")]
pub use claims::PostgresClaims;
pub use failure::PostgresError;

use super::{Answer, AsyncConfirmer, Bucket, Record, Rule, Sighting, StoreError};
use crate::time::Window;
use batch::{Batch, Round, held, records};
use failure::of_later_round;
use key::all_stored;
use sessions::{Parameter, Sessions};
use std::fmt;
use tokio_postgres::Row;

/// Records that one statement of [`expire`](AsyncConfirmer::expire) deletes at most.
/// It holds their locks for 2 to 7 ms, measured over a million records in memory.
const EXPIRE_ROWS: i64 = 2_000;

/// Statements of one call of [`expire`](AsyncConfirmer::expire).
const EXPIRE_STEPS: usize = 500;

/// A confirmer in a PostgreSQL database, version 12 or later, that any number of
/// processes share.
///
/// A call of [`confirm`](AsyncConfirmer::confirm) is one statement, except where a key
/// comes twice in it and moves. Duplicates only read; in a sliding window those in a
/// new bucket write. Keys longer than 1,024 bytes are stored as their beginning and
/// SHA-256.
///
/// Connections must stay with their servers' sessions: behind `PgBouncer`, pool by session.
///
/// # What may be lost
///
/// A record is as durable as the server's `synchronous_commit` says. A standby that the
/// server does not wait for (`synchronous_standby_names`) may lack the latest records
/// when it takes over, though they were acknowledged: their keys are new once more.
///
/// # What may come late
///
/// A call that failed with [`Timeout`](super::StoreErrorKind::Timeout) or
/// [`Uncertain`](super::StoreErrorKind::Uncertain), or whose future was dropped, may
/// still be under way on the server, for at most the reply timeout after its statement got there.
/// If a [`forget`](AsyncConfirmer::forget) of its keys comes first, they are recorded
/// nevertheless, and the retry that was to get in is a duplicate. So let the reply
/// timeout pass before forgetting the keys of such a call. What the server gets
/// later, because it hung or the network held it up, and commits that wait for a
/// synchronous standby, keep no such bound.
///
/// ```no_run
/// use hapax::confirm::{Answer, AsyncConfirmer, Bucket, PostgresConfirmer, Rule, Sighting, Token};
/// use hapax::Window;
/// use std::time::Duration;
///
/// # async fn confirm() -> Result<(), hapax::confirm::StoreError> {
/// let builder = PostgresConfirmer::builder("host=db1,db2 user=orders dbname=orders")
///     .namespace("orders");
/// builder.create_schema().await?;
/// let confirmer = builder.connect().await?;
/// let rule = Rule::of(&Window::fixed(Duration::from_secs(600)));
/// let seen = [Sighting { key: b"order-17", bucket: Bucket::new(23_000), token: Token::new(1) }];
/// assert_eq!(confirmer.confirm(&seen, rule).await?, [Answer::New]);
/// # Ok(())
/// # }
/// ```
pub struct PostgresConfirmer {
    namespace: String,
    sessions: Sessions,
}

impl PostgresConfirmer {
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
    pub fn builder(parameters: &str) -> PostgresBuilder {
        PostgresBuilder::new(parameters)
    }

    async fn ask(&self, round: &Round<'_>, rule: Rule) -> Result<Vec<Record>, StoreError> {
        let (buckets, slides) = (i64::from(rule.buckets()), rule.is_sliding());
        let Round { keys, buckets: at, tokens } = round;
        let parameters: [Parameter<'_>; 6] = [&self.namespace, keys, at, tokens, &buckets, &slides];
        records(&self.sessions.rows(sql::CONFIRM, &parameters).await?, keys)
    }

    /// What a statement about keys alone gives.
    async fn by_key(&self, statement: &str, keys: &[&[u8]]) -> Result<Vec<Row>, StoreError> {
        let stored = all_stored(keys.iter().copied())?;
        let stored: Vec<&[u8]> = stored.iter().map(|key| &**key).collect();
        self.sessions.rows(statement, &[&self.namespace, &stored]).await
    }
}

impl PostgresBuilder {
    /// Creates the table and its index, [`PostgresConfirmer::SCHEMA`], in the first
    /// schema of the connection's `search_path`; where they are there, does nothing.
    ///
    /// Several callers may do so at once, and while others write. Where nothing is missing,
    /// no lock is taken on the table, and no right to it is needed.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect);
    /// [`Refused`](super::StoreErrorKind::Refused) without the right to create what is missing.
    pub async fn create_schema(&self) -> Result<(), StoreError> {
        self.sessions()?.execute(&sql::create("hapax_record", sql::SCHEMA)).await
    }

    /// Connects, and makes sure that the table is there.
    ///
    /// This and every later call needs a tokio runtime, one that outlives the confirmer:
    /// its tasks serve the connections.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](super::StoreErrorKind::Unavailable) if no server can be reached, or
    /// none that takes writes ([`PostgresError::ReadOnly`]);
    /// [`Refused`](super::StoreErrorKind::Refused) if parameters or settings cannot be
    /// used, the server lets nobody in with them, the table is missing
    /// ([`PostgresError::Schema`]), or there is no runtime.
    ///
    /// # Panics
    ///
    /// In a runtime whose timers or network are off.
    pub async fn connect(self) -> Result<PostgresConfirmer, StoreError> {
        let (namespace, sessions) = self.into_parts()?;
        let confirmer = PostgresConfirmer { namespace, sessions };
        // About no keys: whatever would fail later does so now.
        confirmer.ask(&Round::default(), Rule::of(&Window::unbounded())).await?;
        Ok(confirmer)
    }
}

impl AsyncConfirmer for PostgresConfirmer {
    async fn confirm(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Vec<Answer>, StoreError> {
        let mut batch = Batch::of(sightings)?;
        let mut is_first = true;
        while !batch.is_answered() {
            let asked = self.ask(&batch.round(), rule).await;
            let records =
                asked.map_err(|error| if is_first { error } else { of_later_round(error) })?;
            batch.answer(&records, rule);
            is_first = false;
        }
        Ok(batch.into_answers())
    }

    async fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        let rows = self.by_key(sql::LOOK, keys).await?;
        held(&rows, keys.len())
    }

    async fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.by_key(sql::FORGET, keys).await.map(drop)
    }

    /// Deletes up to a million records, 2,000 in a statement. Dropping the future stops
    /// after the one under way.
    async fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        for _ in 0..EXPIRE_STEPS {
            let parameters: [Parameter<'_>; 3] = [&self.namespace, &before.number(), &EXPIRE_ROWS];
            if self.sessions.number(sql::EXPIRE, &parameters).await? < EXPIRE_ROWS {
                break;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for PostgresConfirmer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfirmer")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}
