//! Setting up what keeps keys or claims in PostgreSQL.

use super::PostgresConfirmer;
use super::failure::refused;
use super::sessions::Sessions;
use crate::confirm::StoreError;
use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Config, NoTls, Socket};

/// A namespace's name may be this long, in bytes.
const LONGEST_NAMESPACE: usize = 255;

/// Sets up a [`PostgresConfirmer`], or, with the feature `claims`, `PostgresClaims`.
#[must_use = "nothing is connected until `connect`"]
pub struct PostgresBuilder<T = PostgresConfirmer> {
    parameters: String,
    namespace: String,
    connections: usize,
    connect_timeout: Duration,
    reply_timeout: Duration,
    manager: Arc<dyn Fn(Config) -> Manager + Send + Sync>,
    connects: PhantomData<fn() -> T>,
}

impl<T> PostgresBuilder<T> {
    pub(super) fn new(parameters: &str) -> Self {
        Self {
            parameters: parameters.to_owned(),
            namespace: "default".to_owned(),
            connections: 8,
            connect_timeout: Duration::from_secs(3),
            reply_timeout: Duration::from_secs(5),
            manager: Arc::new(|config| manager(config, NoTls)),
            connects: PhantomData,
        }
    }

    /// Whose keys these are; `default` unless told. Up to 255 bytes.
    ///
    /// Keys of different namespaces never meet, though they share the table.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespace = name.into();
        self
    }

    /// How many connections there may be at once, one at least; 8 unless told.
    ///
    /// Each serves one call at a time; further calls wait for a free one. A call that is given
    /// up, by its caller or because no reply came in time, takes its connection with it, and
    /// makes room for a new one. The server notices within some 100 ms, also while the
    /// statement waits for a lock. Servers before version 14, and those on systems that cannot
    /// tell (Windows), keep the old connection until its statement ends, for at most the reply
    /// timeout: they may have as many more connections as calls are given up in that time.
    pub const fn connections(mut self, most: usize) -> Self {
        self.connections = most;
        self
    }

    /// How long a call waits for a free connection or a new one, 3 s unless told.
    ///
    /// A call that waited in vain fails with
    /// [`Unavailable`](crate::confirm::StoreErrorKind::Unavailable).
    pub const fn connect_timeout(mut self, most: Duration) -> Self {
        self.connect_timeout = most;
        self
    }

    /// How long a call then waits for a reply, 5 s unless told.
    ///
    /// A call that waited in vain fails with
    /// [`Timeout`](crate::confirm::StoreErrorKind::Timeout). The server gives its statements up
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
    pub fn tls<C>(mut self, connector: C) -> Self
    where
        C: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
        C::Stream: Send + Sync,
        C::TlsConnect: Send + Sync,
        <C::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        self.manager = Arc::new(move |config| manager(config, connector.clone()));
        self
    }

    /// The namespace, and connections to its server.
    pub(super) fn into_parts(self) -> Result<(String, Sessions), StoreError> {
        let sessions = self.sessions()?;
        Ok((self.namespace, sessions))
    }

    pub(super) fn sessions(&self) -> Result<Sessions, StoreError> {
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

/// Whatever it connects.
impl<T> Clone for PostgresBuilder<T> {
    fn clone(&self) -> Self {
        Self {
            parameters: self.parameters.clone(),
            namespace: self.namespace.clone(),
            manager: Arc::clone(&self.manager),
            ..*self
        }
    }
}

impl<T> fmt::Debug for PostgresBuilder<T> {
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

fn manager<C>(config: Config, connector: C) -> Manager
where
    C: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    C::Stream: Send + Sync,
    C::TlsConnect: Send + Sync,
    <C::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    // `Fast` asks nothing of a connection before it is used again: those whose
    // requests failed are closed, and one that has broken since says so.
    let fast = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    Manager::from_config(config, connector, fast)
}
