//! A confirmer that any number of processes share, in PostgreSQL (feature `postgres`).
//!
//! It owns the table, what is asked of it (`sql`), and the connections
//! (`sessions`). A batch is one statement and one transaction, but for keys that
//! come twice in it and move (`batch`). Invariants:
//!
//! - every wait ends: for a connection, for a reply, and, on the server, for a
//!   lock;
//! - a connection whose request got no reply is never used again;
//! - the server's clock decides nothing.

mod batch;
mod failure;
mod key;
mod sessions;
mod sql;

pub use failure::PostgresError;

use super::{Answer, AsyncConfirmer, Bucket, Record, Rule, Sighting, StoreError};
use crate::time::Window;
use batch::{Batch, Round, held, records};
use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod};
use failure::{of_later_round, refused, unreadable};
use key::all_stored;
use sessions::{Parameter, Sessions};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Config, NoTls, Row, Socket};

/// Records that one statement of [`expire`](AsyncConfirmer::expire) deletes at most.
/// It holds their locks for 2 to 7 ms, measured over a million records in memory.
const EXPIRE_ROWS: i64 = 2_000;

/// Statements of one call of [`expire`](AsyncConfirmer::expire).
const EXPIRE_STEPS: usize = 500;

/// A namespace's name may be this long, in bytes.
const LONGEST_NAMESPACE: usize = 255;

/// Sets up a [`PostgresConfirmer`].
#[derive(Clone)]
#[must_use = "nothing is connected until `connect`"]
pub struct PostgresBuilder {
    parameters: String,
    namespace: String,
    connections: usize,
    connect_timeout: Duration,
    reply_timeout: Duration,
    manager: Arc<dyn Fn(Config) -> Manager + Send + Sync>,
}

impl PostgresBuilder {
    /// Whose keys these are; `default` unless told. Up to 255 bytes.
    ///
    /// Keys of different namespaces never meet, though they share the table.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = name.into();
        self
    }

    /// How many connections there may be at once, one at least; 8 unless told.
    ///
    /// Each serves one call at a time; further calls wait for a free one.
    pub const fn connections(mut self, most: usize) -> Self {
        self.connections = most;
        self
    }

    /// How long a call waits for a free connection or a new one, 3 s unless told.
    ///
    /// A call that waited in vain fails with
    /// [`Unavailable`](super::StoreErrorKind::Unavailable).
    pub const fn connect_timeout(mut self, most: Duration) -> Self {
        self.connect_timeout = most;
        self
    }

    /// How long a call then waits for a reply, 5 s unless told.
    ///
    /// A call that waited in vain fails with
    /// [`Timeout`](super::StoreErrorKind::Timeout). The server gives its statements up
    /// after the same time, in whole milliseconds.
    pub const fn reply_timeout(mut self, most: Duration) -> Self {
        self.reply_timeout = most;
        self
    }

    /// What encrypts the connections; nothing unless told, and a server that demands
    /// encryption then refuses them.
    ///
    /// The crates postgres-native-tls and tokio-postgres-rustls have such connectors.
    /// Whether one is used is up to `sslmode` among the connection's parameters.
    pub fn tls<T>(mut self, connector: T) -> Self
    where
        T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        T::Stream: Send + Sync,
        T::TlsConnect: Send + Sync,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        self.manager = Arc::new(move |config| manager(config, connector.clone()));
        self
    }

    /// Creates the table and its index, [`PostgresConfirmer::SCHEMA`], in the first
    /// schema of the connection's `search_path`; where they are there, does nothing.
    ///
    /// Several callers may do so at once.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect);
    /// [`Refused`](super::StoreErrorKind::Refused) without the right to create tables.
    pub async fn create_schema(&self) -> Result<(), StoreError> {
        self.sessions()?.execute(&sql::create_schema()).await
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
        let sessions = self.sessions()?;
        let confirmer = PostgresConfirmer { namespace: self.namespace, sessions };
        // About no keys: whatever would fail later does so now.
        confirmer.ask(&Round::default(), Rule::of(&Window::unbounded())).await?;
        Ok(confirmer)
    }

    fn sessions(&self) -> Result<Sessions, StoreError> {
        if self.namespace.len() > LONGEST_NAMESPACE || self.namespace.contains('\0') {
            return Err(refused("a namespace has at most 255 bytes, and none of them is zero"));
        }
        if self.connections == 0 || self.connect_timeout.is_zero() || self.reply_timeout.is_zero() {
            return Err(refused("connections and timeouts must be more than zero"));
        }
        let manager = (self.manager)(self.config()?);
        Sessions::new(manager, self.connections, self.connect_timeout, self.reply_timeout)
    }

    fn config(&self) -> Result<Config, StoreError> {
        let mut config = self.parameters.parse::<Config>().map_err(refused)?;
        if config.get_application_name().is_none() {
            config.application_name("hapax");
        }
        // One address that does not answer must not use up the time for all.
        let addresses = config.get_hosts().len().max(config.get_hostaddrs().len()).max(1);
        config.connect_timeout(self.connect_timeout / addresses as u32);
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        Ok(config)
    }
}

impl fmt::Debug for PostgresBuilder {
    /// Without the parameters: there may be a password among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBuilder")
            .field("namespace", &self.namespace)
            .field("connections", &self.connections)
            .field("connect_timeout", &self.connect_timeout)
            .field("reply_timeout", &self.reply_timeout)
            .finish_non_exhaustive()
    }
}

fn manager<T>(config: Config, connector: T) -> Manager
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + Sync,
    T::TlsConnect: Send + Sync,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    // `Fast` asks nothing of a connection before it is used again: those whose
    // requests failed are closed, and one that has broken since says so.
    let fast = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    Manager::from_config(config, connector, fast)
}

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
    pub const SCHEMA: &str = sql::SCHEMA;

    /// For the database that `parameters` name, in either of libpq's forms:
    /// `host=localhost user=hapax` or `postgresql://hapax@localhost`.
    ///
    /// Where several hosts are named, the first that takes writes is used.
    pub fn builder(parameters: &str) -> PostgresBuilder {
        PostgresBuilder {
            parameters: parameters.to_owned(),
            namespace: "default".to_owned(),
            connections: 8,
            connect_timeout: Duration::from_secs(3),
            reply_timeout: Duration::from_secs(5),
            manager: Arc::new(|config| manager(config, NoTls)),
        }
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
            let rows = self.sessions.rows(sql::EXPIRE, &parameters).await?;
            let [count] = &*rows else { return Err(unreadable("no count of deleted records")) };
            let deleted: i64 = count.try_get(0).map_err(unreadable)?;
            if deleted < EXPIRE_ROWS {
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
