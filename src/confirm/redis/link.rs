//! The connection to one server: made when it is needed, and anew after it broke.

use super::failure::{Failure, connecting, refused};
use super::script::Naming;
use crate::confirm::{StoreError, StoreErrorKind};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, FromRedisValue, RedisResult, Value,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

const REPLICA: &str = "the server is a replica, whose answers may be out of date: name the primary";

pub(super) struct Link {
    client: Client,
    /// Of connecting, and of each reply.
    timeout: Duration,
    state: Mutex<State>,
    is_down: AtomicBool,
    /// Whether somebody waits on behalf of callers who gave up.
    is_probed: AtomicBool,
    connections: AtomicU64,
    restarts: AtomicU64,
}

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// Which connection it is, so that a call that fails ends its own alone.
    number: u64,
    /// Whom we were connected to last.
    peer: Peer,
}

/// What a server tells of itself, as far as it tells.
#[derive(Default)]
struct Peer {
    /// Of its process.
    run_id: Option<String>,
    /// What it calls this connection.
    client_id: Option<u64>,
}

impl Link {
    pub(super) fn new(server: ConnectionInfo, timeout: Duration) -> RedisResult<Self> {
        // Otherwise the end of a call may wait for the network to acknowledge its beginning.
        let tcp = TcpSettings::default().set_nodelay(true);
        Ok(Self {
            client: Client::open(server.set_tcp_settings(tcp))?,
            timeout,
            state: Mutex::default(),
            is_down: AtomicBool::new(false),
            is_probed: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
        })
    }

    /// Where the server is, and how to speak to it.
    pub(super) fn server(&self) -> &ConnectionInfo {
        self.client.get_connection_info()
    }

    /// True iff the last connection broke, or could not be made.
    pub(super) fn is_down(&self) -> bool {
        // Relaxed: a hint of whom to ask.
        self.is_down.load(Ordering::Relaxed)
    }

    /// How many connections were made.
    pub(super) fn connections(&self) -> u64 {
        // Relaxed, here and below: the count alone matters.
        self.connections.load(Ordering::Relaxed)
    }

    /// How many of these led to another server process than the one before.
    pub(super) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Connects, if there is no connection.
    pub(super) async fn reach(&self) -> Result<(), StoreError> {
        self.connection().await.map(drop)
    }

    /// Has a command done; `asking` for a slot that is on its way to this server.
    pub(super) async fn call(
        self: &Arc<Self>,
        command: impl Fn(Naming) -> Cmd,
        asking: bool,
    ) -> Result<Value, Failure> {
        let (connection, number) = self.connection().await.map_err(Failure::Unreached)?;
        let mut call = Call { link: self, connection, number, is_open: true };
        let mut reply = send(&mut call.connection, command(Naming::ByHash), asking).await;
        if matches!(&reply, Err(error) if error.code() == Some("NOSCRIPT")) {
            reply = send(&mut call.connection, command(Naming::BySource), asking).await;
        }
        call.is_open = false;
        let failure = match reply {
            Ok(value) => return Ok(value),
            Err(error) => Failure::of_sent(error),
        };
        if failure.ends_connection() {
            self.end(number).await;
        }
        Err(failure)
    }

    /// The connection, shared by all callers, and its number. While one caller
    /// connects the others wait for it.
    async fn connection(&self) -> Result<(MultiplexedConnection, u64), StoreError> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((connection.clone(), state.number));
        }
        let connected = self.connect(&mut state).await;
        self.is_down.store(connected.is_err(), Ordering::Relaxed);
        Ok((connected?, state.number))
    }

    async fn connect(&self, state: &mut State) -> Result<MultiplexedConnection, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout));
        let mut connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .map_err(connecting)?;
        let peer = inspected(&mut connection).await?;
        if peer.run_id.is_some() && peer.run_id == state.peer.run_id {
            disown(&mut connection, state.peer.client_id).await?;
        } else if peer.run_id.is_some() && state.peer.run_id.is_some() {
            self.restarts.fetch_add(1, Ordering::Relaxed);
        }
        self.connections.fetch_add(1, Ordering::Relaxed);
        state.peer = peer;
        state.number += 1;
        state.connection = Some(connection.clone());
        Ok(connection)
    }

    /// Ends a connection if nothing comes back over it within the timeout.
    async fn probe(&self, mut connection: MultiplexedConnection, number: u64) {
        // That the server refuses it is a reply, too.
        let reply = send(&mut connection, redis::cmd("PING"), false).await;
        if reply.is_err_and(|error| Failure::of_sent(error).ends_connection()) {
            self.end(number).await;
        }
    }

    /// Lets the next call connect anew, unless one has already.
    async fn end(&self, number: u64) {
        let mut state = self.state.lock().await;
        if state.number == number {
            state.connection = None;
            self.is_down.store(true, Ordering::Relaxed);
        }
    }
}

/// A call on its way. One that is dropped before its end would not notice that
/// nothing comes back, and neither would any that follows and is dropped as early: so it
/// leaves a probe behind.
struct Call<'link> {
    link: &'link Arc<Link>,
    connection: MultiplexedConnection,
    number: u64,
    is_open: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        // Without a runtime nobody can wait; the next call that is given up tries again.
        let (Ok(runtime), Some(probing)) = (Handle::try_current(), Probing::begin(self.link))
        else {
            return;
        };
        let (connection, number) = (self.connection.clone(), self.number);
        runtime.spawn(async move { probing.0.probe(connection, number).await });
    }
}

/// The turn to probe a link: one for all callers who give up meanwhile.
struct Probing(Arc<Link>);

impl Probing {
    fn begin(link: &Arc<Link>) -> Option<Self> {
        // Relaxed, here and below: nothing else is read by it.
        let is_probed = link.is_probed.swap(true, Ordering::Relaxed);
        (!is_probed).then(|| Self(Arc::clone(link)))
    }
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.0.is_probed.store(false, Ordering::Relaxed);
    }
}

/// Sends a command, and before it, so that no other comes between, what it needs
/// to be taken for a slot that is being moved.
async fn send(
    connection: &mut MultiplexedConnection,
    command: Cmd,
    asking: bool,
) -> RedisResult<Value> {
    let reply = if asking {
        let mut both = redis::pipe();
        both.add_command(redis::cmd("ASKING")).add_command(command);
        connection.req_packed_commands(&both, 0, 2).await?.pop().unwrap_or(Value::Nil)
    } else {
        connection.req_packed_command(&command).await?
    };
    match reply {
        Value::ServerError(error) => Err(error.into()),
        value => Ok(value),
    }
}

/// Who the server is; refuses one that would evict keys, and a replica.
async fn inspected(connection: &mut MultiplexedConnection) -> Result<Peer, StoreError> {
    let info: String = permitted(connection, &redis::cmd("INFO")).await?.unwrap_or_default();
    let field = |name: &str| {
        let mut lines = info.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    // A replica in a cluster redirects; any other answers, with what it knows so far.
    if field("role") == Some("slave") && field("cluster_enabled") != Some("1") {
        return Err(StoreError::new(StoreErrorKind::Unavailable, REPLICA));
    }
    let limited = field("maxmemory").is_some_and(|bytes| bytes != "0");
    match field("maxmemory_policy") {
        Some(policy) if limited && policy != "noeviction" => Err(refused(format!(
            "the server evicts keys to stay within its memory, so it would forget early: set its \
             maxmemory-policy to noeviction instead of {policy}"
        ))),
        _ => Ok(Peer {
            run_id: field("run_id").map(str::to_owned),
            client_id: permitted(connection, redis::cmd("CLIENT").arg("ID")).await?,
        }),
    }
}

/// Has the server end our previous connection, so that what was sent there and
/// has not arrived, held up by the network, never runs: a `forget` on the new
/// connection could come before it.
async fn disown(
    connection: &mut MultiplexedConnection,
    client_id: Option<u64>,
) -> Result<(), StoreError> {
    let Some(client_id) = client_id else { return Ok(()) };
    let kill = redis::cmd("CLIENT").arg("KILL").arg("ID").arg(client_id).to_owned();
    permitted::<Value>(connection, &kill).await.map(drop)
}

/// The reply, if we may ask and the server knows the command: otherwise we may
/// still confirm.
async fn permitted<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    command: &Cmd,
) -> Result<Option<T>, StoreError> {
    match command.query_async(connection).await {
        Ok(reply) => Ok(Some(reply)),
        Err(error) if matches!(error.code(), Some("NOPERM" | "ERR")) => Ok(None),
        Err(error) => Err(connecting(error)),
    }
}
