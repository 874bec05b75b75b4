//! Claims in Redis.
//!
//! It owns the names of identities there, and how one is asked about: `script.lua`
//! reads, decides and writes, inside of the server; `call` speaks its language. The
//! connections are the confirmer's, and so are its invariants.

mod call;

use super::name::slot;
use super::nodes::Nodes;
use super::{RedisBuilder, RedisStats, check_lengths, within};
use crate::confirm::StoreError;
use crate::confirm::claims::{
    Answer, AsyncClaimStore, ClaimRequest, SettleRequest, Settled, Status,
};
use call::{Call, SCRIPT};
use redis::Value;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// No confirmer's name begins so: theirs begin with a number.
const MARK: &[u8] = b"claim:";

/// Claims in Redis 7, which several processes may share; also over a confirmer's
/// connections ([`RedisConfirmer::claims`](super::RedisConfirmer::claims)).
///
/// A claim, a settlement and a look take one round trip each. An identity is one key,
/// `claim:6:orders:` and the identity, of 78 bytes and its outcome, which Redis drops when
/// it means nothing any more. Times are those of the server that has it.
///
/// # What may be lost
///
/// What a [`RedisConfirmer`](super::RedisConfirmer) may lose with a failover or a crash,
/// claims lose, too: a key may be granted once more while its holder works, who then hears
/// that it is stale; and one that was finished may be processed again. Fences go on rising
/// as far as the servers' clocks agree. Where that is too much, keep claims in
/// PostgreSQL.
///
/// # Rights
///
/// It uses `EVALSHA`, `EVAL`, `GET`, `SET` and `TIME`, and in a cluster `ASKING`; without the
/// right to `INFO`, restarts, eviction and replicas go unnoticed.
///
/// ```no_run
/// use hapax::claim::{Claim, Gate, Identity};
/// use hapax::confirm::claims::{Digest, Outcome, RedisClaims};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let builder = RedisClaims::server("redis://127.0.0.1/").namespace("payments");
/// let gate = Gate::builder(builder.connect().await?).build()?;
/// let charge = Identity::new("acct-7", "POST /charges", "order-17");
/// if let Claim::Granted(mut lease) = gate.claim_async(&charge, Digest::of(b"amount=10")).await? {
///     // Charge, and then:
///     lease.complete_async(Outcome::success(*b"charged 10")).await?;
/// }
/// # Ok(())
/// # }
/// ```
pub struct RedisClaims {
    nodes: Arc<Nodes>,
    prefix: Vec<u8>,
    timeout: Duration,
}

impl RedisClaims {
    /// In one server: as [`RedisConfirmer::server`](super::RedisConfirmer::server).
    pub fn server(url: impl Into<String>) -> RedisBuilder<Self> {
        RedisBuilder::server(url)
    }

    /// In a cluster: as [`RedisConfirmer::cluster`](super::RedisConfirmer::cluster).
    pub fn cluster(urls: impl IntoIterator<Item = impl Into<String>>) -> RedisBuilder<Self> {
        RedisBuilder::cluster(urls)
    }

    /// Beside a confirmer whose names begin with `prefix`.
    pub(super) fn new(nodes: Arc<Nodes>, prefix: &[u8], timeout: Duration) -> Self {
        Self { nodes, prefix: [MARK, prefix].concat(), timeout }
    }

    /// What it, and the confirmer whose connections it shares, have seen of their
    /// servers. Costs a lock and a walk over them.
    pub fn stats(&self) -> RedisStats {
        self.nodes.stats()
    }

    async fn ask(&self, id: &[u8], call: Call<'_>) -> Result<Value, StoreError> {
        check_lengths([id].into_iter())?;
        let name = [self.prefix.as_slice(), id].concat();
        let slot = if self.nodes.is_cluster() { slot(&name) } else { 0 };
        let asked = self.nodes.call(slot, |naming| call.command(&SCRIPT, &name, naming));
        within(self.timeout, async { Ok(asked.await?) }).await
    }
}

impl RedisBuilder<RedisClaims> {
    /// Connects, in a tokio runtime with time and I/O, which every later call needs,
    /// too.
    ///
    /// # Errors
    ///
    /// Those of connecting a [`RedisConfirmer`](super::RedisConfirmer).
    pub async fn connect(self) -> Result<RedisClaims, StoreError> {
        let (nodes, prefix, timeout) = self.connected().await?;
        Ok(RedisClaims::new(nodes, &prefix, timeout))
    }
}

impl AsyncClaimStore for RedisClaims {
    async fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        call::answer(&self.ask(id, Call::Claim(request)).await?)
    }

    async fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        call::settled(&self.ask(id, Call::Settle(request)).await?)
    }

    async fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        call::status(&self.ask(id, Call::Look).await?)
    }
}

impl fmt::Debug for RedisClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisClaims").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
