//! A confirmer in Redis, one server or a cluster (feature `redis`), and claims there
//! (with the feature `claims`).
//!
//! It owns the names of keys there, how a batch is divided into calls, and what
//! is said where some calls succeeded and others did not. `script.lua` answers
//! and records, inside of the server; `batch` speaks its language; `claims` has a
//! script of its own; `nodes` knows which server to ask, `link` is the connection to one.
//! Invariants:
//!
//! - a key is read, judged and written in one script, which no other comes
//!   between;
//! - a call is repeated by itself only if it was certainly not run: of any other
//!   the caller is told, who alone has the tokens to ask again;
//! - nothing takes longer than the timeout.

mod batch;
mod builder;
#[cfg(feature = "claims")]
mod claims;
mod failure;
mod link;
mod name;
mod nodes;
mod script;

pub use builder::RedisBuilder;
#[cfg(feature = "claims")]
pub use claims::RedisClaims;

use super::{
    Answer, AsyncConfirmer, MAX_KEY_BYTES, Record, Rule, Sighting, StoreError, StoreErrorKind,
};
use batch::{Batch, Entry};
use failure::{Failure, refused};
use futures_util::future::join_all;
use nodes::Nodes;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// A confirmer in Redis 7, which several processes may share.
///
/// A call takes one round trip for each 1,024 keys or MiB of them; in a cluster for
/// each of their slots, all at once. Each record takes 16 bytes, and the key, beside
/// what Redis needs for it.
///
/// # What may be lost
///
/// Redis acknowledges a write before its replicas have it, and with
/// `appendfsync everysec` before its disk does. After a failover or a crash the
/// latest records may be gone, and their keys are new once more: some duplicates
/// pass, nothing is suppressed. `appendfsync always` closes the one gap;
/// `min-replicas-to-write` with a short `min-replicas-max-lag` narrows the other,
/// by refusing writes while the replicas lag. [`RedisConfirmer::stats`] shows when
/// it may have happened. The same holds for servers with a `maxmemory-policy` other
/// than `noeviction`, which are therefore refused.
///
/// # Replicas
///
/// A replica outside of a cluster is told when connecting, and not asked: it knows less
/// than its primary. But a primary that a `REPLICAOF` makes a replica keeps its
/// connections. Until the first key to record there, which it turns down, it may be asked
/// about known keys, and then knows nothing newer. Sentinel ends these
/// connections; who switches by hand does so with `CLIENT KILL TYPE normal`.
///
/// # Calls given up
///
/// A call that ended with [`Timeout`](StoreErrorKind::Timeout) or
/// [`Uncertain`](StoreErrorKind::Uncertain), or whose future was dropped, may reach
/// the server late, and record its keys then. Ask again with the same tokens until
/// there is an answer: it makes no difference when the first call arrives. Who
/// forgets the keys instead may do so through the same confirmer: what it sent a
/// server before runs before, or never, because each new connection has the server
/// end the one before it. It is otherwise if the server refuses `CLIENT KILL` or
/// `INFO`, if a proxy shares its connections between clients, if a server of a cluster
/// goes by two names, and so has two connections, or if another confirmer forgets the
/// keys: then a late call may record them after that, and suppress them for a window.
///
/// A call whose future was dropped has a `PING` sent after it, of which a reply of any kind
/// must come within half the timeout; otherwise the next call connects anew. So
/// callers whose deadlines are shorter than the timeout need not wait for the network to
/// declare a connection dead, as long as connecting fits into their deadlines.
///
/// # Rights
///
/// It uses `EVALSHA`, `EVAL`, `MGET`, `SET`, `UNLINK`, and in a cluster `ASKING`. Without
/// the right to `INFO`, restarts, eviction and replicas go unnoticed; without that, or
/// `CLIENT ID` and `CLIENT KILL`, calls given up are not kept from arriving.
///
/// ```no_run
/// use hapax::confirm::{Answer, AsyncConfirmer, Bucket, RedisConfirmer, Rule, Sighting, Token};
/// use hapax::Window;
/// use std::time::Duration;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let span = Duration::from_secs(600);
/// let rule = Rule::of(&Window::fixed(span)).lifetime(2 * span);
/// let confirmer =
///     RedisConfirmer::server("redis://127.0.0.1/").namespace("orders").connect().await?;
/// let sighting = Sighting { key: b"order-17", bucket: Bucket::new(23_000), token: Token::new(1) };
/// assert_eq!(confirmer.confirm(&[sighting], rule).await?, [Answer::New]);
/// # Ok(())
/// # }
/// ```
pub struct RedisConfirmer {
    nodes: Arc<Nodes>,
    prefix: Vec<u8>,
    timeout: Duration,
    retention: Option<Duration>,
}

/// What a [`RedisConfirmer`], or `RedisClaims`, has seen of its servers, since it
/// connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisStats {
    /// Connections made.
    pub connections: u64,
    /// Connections that led to another server process than the one before, at the
    /// same address: it was restarted, or another has taken its place. Writes
    /// acknowledged shortly before may be lost.
    pub restarts: u64,
    /// Slots found at another server than before: they were moved, which loses
    /// nothing, or a replica has taken over, which may.
    pub moved_slots: u64,
}

impl RedisConfirmer {
    /// In one server, as in `redis://user:password@host:6379/0` or
    /// `redis+unix:///path/to/socket`.
    pub fn server(url: impl Into<String>) -> RedisBuilder {
        RedisBuilder::server(url)
    }

    /// In a cluster that has servers at these URLs; the others are found.
    ///
    /// Keys with a hash tag, `{..}`, belong to its slot, as everywhere in a cluster:
    /// keys that share one go in one call, and to one server. Name servers as they name
    /// one another: one with two names counts as two in [`RedisStats`],
    /// and calls given up may arrive late there.
    pub fn cluster(urls: impl IntoIterator<Item = impl Into<String>>) -> RedisBuilder {
        RedisBuilder::cluster(urls)
    }

    /// Claims in the same servers, over the same connections, in a namespace of the same
    /// name: neither meets the other's keys.
    #[cfg(feature = "claims")]
    pub fn claims(&self) -> RedisClaims {
        RedisClaims::new(Arc::clone(&self.nodes), &self.prefix, self.timeout)
    }

    /// What it has seen of its servers. Costs a lock and a walk over them.
    pub fn stats(&self) -> RedisStats {
        self.nodes.stats()
    }

    /// Has a batch done: the slots at once, the calls of each in order.
    async fn run(&self, batch: &Batch<'_>) -> Result<Vec<Entry>, StoreError> {
        let slots = if self.nodes.is_cluster() { batch.by_slot() } else { batch.undivided() };
        let mut parts = Vec::with_capacity(slots.len());
        for (slot, members) in &slots {
            parts.push(self.run_slot(batch, *slot, members));
        }
        let parts = within(self.timeout, async { Ok(join_all(parts).await) }).await?;
        joined(parts)
    }

    /// Has the members of one slot done, until a call fails.
    async fn run_slot(&self, batch: &Batch<'_>, slot: u16, members: &[usize]) -> Part {
        let mut part = Part::default();
        let mut rest = members;
        let mut most = usize::MAX;
        while !rest.is_empty() {
            let (call, later) = rest.split_at(batch.call_len(rest).min(most));
            match self.nodes.call(slot, |naming| batch.command(call, naming)).await {
                // Some keys of a slot on its way have arrived and some have not: one
                // by one each is found where it is.
                Err(failure) if failure.code() == Some("TRYAGAIN") && call.len() > 1 => most = 1,
                outcome => {
                    part.take(batch, call, outcome);
                    if part.error.is_some() {
                        return part;
                    }
                    rest = later;
                }
            }
        }
        part
    }
}

impl AsyncConfirmer for RedisConfirmer {
    async fn confirm(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Vec<Answer>, StoreError> {
        check_lengths(sightings.iter().map(|sighting| sighting.key))?;
        let batch = Batch::confirm(&self.prefix, sightings, rule, self.retention);
        let answer = |entry| if let Entry::Answer(answer) = entry { Some(answer) } else { None };
        Ok(self.run(&batch).await?.into_iter().filter_map(answer).collect())
    }

    async fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        check_lengths(keys.iter().copied())?;
        let entries = self.run(&Batch::look(&self.prefix, keys)).await?;
        let held = |entry| if let Entry::Held(held) = entry { Some(held) } else { None };
        Ok(entries.into_iter().filter_map(held).collect())
    }

    async fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.run(&Batch::forget(&self.prefix, keys)).await.map(drop)
    }
}

impl fmt::Debug for RedisConfirmer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfirmer").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// What became of one slot's share of a batch.
#[derive(Default)]
struct Part {
    /// By member; a failed call's are not among them.
    entries: Vec<(usize, Entry)>,
    error: Option<StoreError>,
}

impl Part {
    fn take(&mut self, batch: &Batch<'_>, call: &[usize], outcome: Result<redis::Value, Failure>) {
        let entries =
            outcome.map_err(StoreError::from).and_then(|reply| batch.entries(call.len(), &reply));
        match entries {
            Ok(entries) => self.entries.extend(call.iter().copied().zip(entries)),
            Err(error) => self.error = Some(error),
        }
    }
}

/// The entries of all parts, in the order of the batch; or what is to be said
/// where some have none.
fn joined(parts: Vec<Part>) -> Result<Vec<Entry>, StoreError> {
    let mut entries = Vec::new();
    let mut errors = Vec::new();
    for part in parts {
        errors.extend(part.error);
        entries.extend(part.entries);
    }
    match errors.into_iter().max_by_key(StoreError::may_have_recorded) {
        None => {
            entries.sort_unstable_by_key(|(member, _)| *member);
            Ok(entries.into_iter().map(|(_, entry)| entry).collect())
        }
        Some(error) => Err(error.with_parts(!entries.is_empty())),
    }
}

/// Ends `work` when its time is over.
async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| {
        Err(StoreError::new(StoreErrorKind::Timeout, format!("not done within {timeout:?}")))
    })
}

/// Refuses keys that are too long for every confirmer.
fn check_lengths<'key>(mut keys: impl Iterator<Item = &'key [u8]>) -> Result<(), StoreError> {
    match keys.find(|key| key.len() > MAX_KEY_BYTES) {
        None => Ok(()),
        Some(key) => {
            let length = key.len();
            Err(refused(format!("a key of {length} bytes is longer than {MAX_KEY_BYTES}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Bucket;

    fn failed(kind: StoreErrorKind) -> Part {
        Part { error: Some(StoreError::new(kind, "cause")), ..Part::default() }
    }

    fn answered(answers: &[(usize, Answer)]) -> Part {
        let entry = |(member, answer): &(usize, Answer)| (*member, Entry::Answer(*answer));
        Part { entries: answers.iter().map(entry).collect(), error: None }
    }

    #[test]
    fn answers_return_to_their_places() {
        let seen = Answer::Seen(Bucket::new(3));
        let parts = vec![answered(&[(1, seen), (2, seen)]), answered(&[(0, Answer::New)])];
        assert_eq!(joined(parts).unwrap(), [Answer::New, seen, seen].map(Entry::Answer));
    }

    #[test]
    fn a_batch_that_failed_in_part_says_how_and_that_it_may_have_been_recorded() {
        use StoreErrorKind::{Full, Refused, Timeout, Unavailable};
        let of = |parts| {
            let error = joined(parts).unwrap_err();
            (error.kind(), error.may_have_recorded())
        };
        let some = || answered(&[(0, Answer::New)]);
        assert_eq!(of(vec![failed(Full)]), (Full, false));
        assert_eq!(of(vec![some(), failed(Full)]), (Full, true));
        assert_eq!(of(vec![failed(Refused), some()]), (Refused, true));
        assert_eq!(of(vec![failed(Unavailable), some()]), (Unavailable, true));
        let lost = vec![failed(Refused), failed(Timeout), failed(Unavailable)];
        assert_eq!(of(lost), (Timeout, true));
    }
}
