//! Which server a call goes to: the only one, or in a cluster the one that holds
//! the slot.
//!
//! Where slots are is learned from the servers' redirections alone, one round
//! trip for each slot that nobody asked about since it moved.

use super::RedisStats;
use super::failure::{Failure, refused};
use super::link::Link;
use super::script::Naming;
use crate::confirm::StoreError;
use parking_lot::Mutex;
use redis::{Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Over so many servers a call follows its slot.
const MOST_HOPS: usize = 16;

pub(super) struct Nodes {
    is_cluster: bool,
    map: Mutex<Map>,
    /// Whose turn it is to be asked about a slot that nobody knows.
    turn: AtomicUsize,
    moved_slots: AtomicU64,
    timeout: Duration,
}

struct Map {
    /// Those that were named, and those that redirections led to; never empty.
    links: Vec<Arc<Link>>,
    /// Who held a slot when we last heard of it.
    owners: HashMap<u16, Arc<Link>>,
}

impl Map {
    /// A link that is not down, if there is any: another each turn.
    fn any(&self, turn: usize) -> &Arc<Link> {
        let turn = turn % self.links.len();
        let (before, from) = self.links.split_at(turn);
        let up = from.iter().chain(before).find(|link| !link.is_down());
        up.unwrap_or(&self.links[turn])
    }
}

/// Where a call goes next.
struct Hop {
    link: Arc<Link>,
    /// The slot is on its way there: it is asked this once.
    asking: bool,
}

impl Nodes {
    /// Only the first of `urls` counts unless it is a cluster.
    pub(super) fn new(
        urls: &[String],
        is_cluster: bool,
        timeout: Duration,
    ) -> Result<Self, StoreError> {
        let link = |url: &String| {
            let server = url.as_str().into_connection_info()?;
            Link::new(server, timeout).map(Arc::new)
        };
        let invalid = |error: RedisError| refused(format!("the URL of a server: {error}"));
        let links: Vec<_> = urls.iter().map(link).collect::<Result<_, _>>().map_err(invalid)?;
        if links.is_empty() {
            return Err(refused("a cluster without servers: name one at least"));
        }
        Ok(Self {
            is_cluster,
            map: Mutex::new(Map { links, owners: HashMap::new() }),
            turn: AtomicUsize::new(0),
            moved_slots: AtomicU64::new(0),
            timeout,
        })
    }

    pub(super) const fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// Connects to the first server that can be reached.
    pub(super) async fn reach(&self) -> Result<(), StoreError> {
        let links = self.map.lock().links.clone();
        let mut reached = Ok(());
        for link in links {
            reached = link.reach().await;
            if reached.is_ok() {
                break;
            }
        }
        reached
    }

    /// Has a command about keys of `slot` done where that is.
    ///
    /// It is sent again only where it was certainly not run.
    pub(super) async fn call(
        &self,
        slot: u16,
        command: impl Fn(Naming) -> Cmd,
    ) -> Result<Value, Failure> {
        let mut hop = self.owner(slot);
        let mut hops = 0;
        loop {
            let failure = match hop.link.call(&command, hop.asking).await {
                Ok(reply) => {
                    if !hop.asking {
                        self.answered(slot, &hop.link);
                    }
                    return Ok(reply);
                }
                Err(failure) => failure,
            };
            hops += 1;
            hop = match self.after(slot, &hop.link, &failure) {
                Some(hop) if hops < MOST_HOPS => hop,
                _ => return Err(self.explained(failure)),
            };
        }
    }

    pub(super) fn stats(&self) -> RedisStats {
        let map = self.map.lock();
        RedisStats {
            connections: map.links.iter().map(|link| link.connections()).sum(),
            restarts: map.links.iter().map(|link| link.restarts()).sum(),
            // Relaxed: the count alone matters.
            moved_slots: self.moved_slots.load(Ordering::Relaxed),
        }
    }

    /// To the server that holds the slot, or one that may know which does.
    fn owner(&self, slot: u16) -> Hop {
        let map = self.map.lock();
        let known = map.owners.get(&slot).filter(|owner| !owner.is_down());
        // Relaxed: any turn will do.
        let link = known.unwrap_or_else(|| map.any(self.turn.fetch_add(1, Ordering::Relaxed)));
        Hop { link: Arc::clone(link), asking: false }
    }

    /// Where to go after a failure, if the call was not run and may be elsewhere.
    fn after(&self, slot: u16, link: &Link, failure: &Failure) -> Option<Hop> {
        match failure {
            _ if !self.is_cluster => None,
            Failure::Unreached(_) => Some(self.owner(slot)),
            Failure::Broken(_) => None,
            Failure::Replied(error) => {
                let link = self.link_to(link, error.redirect_node()?.0)?;
                let asking = error.code() == Some("ASK");
                if !asking {
                    self.note(&mut self.map.lock(), slot, &link);
                }
                Some(Hop { link, asking })
            }
        }
    }

    /// Notes who holds a slot, by an answer. An answer may be older than a
    /// redirection that came before it, and then says nothing.
    fn answered(&self, slot: u16, link: &Arc<Link>) {
        let mut map = self.map.lock();
        if map.owners.get(&slot).is_none_or(|owner| owner.is_down()) {
            self.note(&mut map, slot, link);
        }
    }

    fn note(&self, map: &mut Map, slot: u16, link: &Arc<Link>) {
        let before = map.owners.insert(slot, Arc::clone(link));
        if before.is_some_and(|before| !Arc::ptr_eq(&before, link)) {
            self.moved_slots.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What only a cluster says is no failure of this server, but of our settings.
    fn explained(&self, failure: Failure) -> Failure {
        match failure.code() {
            Some("MOVED" | "ASK" | "CROSSSLOT") if !self.is_cluster => Failure::Unreached(refused(
                "the server belongs to a cluster: set it up with `cluster` instead of `server`",
            )),
            _ => failure,
        }
    }

    /// The link to the server that `from` calls `address`.
    fn link_to(&self, from: &Link, address: &str) -> Option<Arc<Link>> {
        let (host, port) = address.rsplit_once(':')?;
        let server = moved_to(from.server(), host, port.parse().ok()?)?;
        let links = &mut self.map.lock().links;
        if let Some(link) = links.iter().find(|link| link.server().addr() == server.addr()) {
            return Some(Arc::clone(link));
        }
        let link = Arc::new(Link::new(server, self.timeout).ok()?);
        links.push(Arc::clone(&link));
        Some(link)
    }
}

/// How to reach `host` and `port`, in the same way as `from`; no host means the
/// same one.
fn moved_to(from: &ConnectionInfo, host: &str, port: u16) -> Option<ConnectionInfo> {
    let same = |own: &String| if host.is_empty() { own.clone() } else { host.to_owned() };
    let mut addr = from.addr().clone();
    match &mut addr {
        ConnectionAddr::Tcp(own_host, own_port) => (*own_host, *own_port) = (same(own_host), port),
        ConnectionAddr::TcpTls { host: own_host, port: own_port, .. } => {
            (*own_host, *own_port) = (same(own_host), port);
        }
        _ => return None,
    }
    Some(from.clone().set_addr(addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_keep_what_it_takes_to_connect() {
        let from = "redis://user:secret@10.0.0.1:6379/".into_connection_info().unwrap();
        let moved = moved_to(&from, "10.0.0.2", 6380).unwrap();
        assert_eq!(moved.addr().to_string(), "10.0.0.2:6380");
        assert_eq!(moved.redis_settings().password(), Some("secret"));
        assert_eq!(moved_to(&from, "", 6380).unwrap().addr().to_string(), "10.0.0.1:6380");
    }

    #[test]
    fn urls_that_are_none_are_refused() {
        let second = Duration::from_secs(1);
        for urls in [vec![], vec!["http://x".to_owned()], vec!["redis://h:99999".to_owned()]] {
            let refused = Nodes::new(&urls, true, second).err().map(|error| error.kind());
            assert_eq!(refused, Some(crate::confirm::StoreErrorKind::Refused), "{urls:?}");
        }
    }
}
