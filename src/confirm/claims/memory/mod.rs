//! Claims in this process's memory.
//!
//! It owns the map of `known` identities, its limit (`room`), and how expired entries are
//! found without a scan (`expiry`). An entry is judged and written under its own lock; the
//! map's, which it takes to find one, are shared, except where identities come and go.

mod expiry;
mod known;
mod room;

use super::Status;
use super::{Answer, ClaimRequest, ClaimStore, Decision, Entry, SettleRequest, Settled, State};
use crate::confirm::{StoreError, StoreErrorKind};
use crate::time::{Clock, SystemClock, Timestamp};
use ahash::RandomState;
use dashmap::{DashMap, Entry as Slot};
use expiry::{Due, Expiries};
use known::{Hashed, Identified, Kept, Known, Sought};
use room::Room;
use std::fmt;
use std::sync::Arc;

/// Each write looks at so many entries that may have expired: two, so that the map
/// shrinks faster than it grows.
const SHARE: usize = 2;

/// So many does one [`sweep`](ClaimStore::sweep).
const SWEEP: usize = 4_096;

/// Claims in this process's memory, for one process, tests, and the time in which
/// another store cannot be reached. They do not outlive it.
///
/// An entry takes 170 to 215 bytes, and its identity's and its outcome's own. Every write
/// frees up to two that have expired; [`sweep`](ClaimStore::sweep) frees the others. The
/// map itself shrinks when seven eighths of its room are empty. What is freed goes to the
/// allocator, which may keep it for more.
#[derive(Debug)]
pub struct MemoryClaims {
    entries: DashMap<Known, (), Hashed>,
    hasher: RandomState,
    expiries: Expiries,
    clock: SharedClock,
    room: Room,
    limit_bytes: usize,
}

struct SharedClock(Arc<dyn Clock>);

impl MemoryClaims {
    /// No claims, and no limit.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::new()))
    }

    /// On another clock than the system's.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self {
            entries: DashMap::default(),
            hasher: RandomState::new(),
            expiries: Expiries::default(),
            clock: SharedClock(clock),
            room: Room::default(),
            limit_bytes: usize::MAX,
        }
    }

    /// Takes no new identities
    /// ([`Full`](StoreErrorKind::Full)) while entries take so much; those that it knows it
    /// still answers. Outcomes of claims in flight are kept though they go beyond.
    #[must_use]
    pub const fn memory_limit(mut self, bytes: usize) -> Self {
        self.limit_bytes = bytes;
        self
    }

    /// How many identities it knows, those included that have expired since and were
    /// not yet swept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True iff it knows none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What all entries take, in bytes, by an estimate that resident memory stays
    /// below; that counts room, too, that was taken before and is kept for more.
    pub fn memory_bytes(&self) -> usize {
        self.room.bytes()
    }

    /// An identity to look for.
    fn sought<'a>(&self, id: &'a [u8]) -> Sought<'a> {
        Sought { hash: self.hasher.hash_one(id), id }
    }

    /// Reads, decides and writes in one step.
    fn step<T>(
        &self,
        id: &[u8],
        now: Timestamp,
        decide: impl Fn(Option<&Entry>) -> Decision<T>,
    ) -> Result<T, StoreError> {
        let sought = self.sought(id);
        let Some(slot) = self.entries.get(&sought as &dyn Identified) else {
            return self.step_anew(sought, now, decide);
        };
        let (answer, is_written) = self.decide(slot.key(), decide);
        drop(slot);
        if is_written {
            self.free_expired(SHARE, now);
        }
        Ok(answer)
    }

    /// The same for an identity that was not known just now.
    fn step_anew<T>(
        &self,
        sought: Sought<'_>,
        now: Timestamp,
        decide: impl Fn(Option<&Entry>) -> Decision<T>,
    ) -> Result<T, StoreError> {
        let Decision { answer, write } = decide(None);
        let Some(entry) = write else { return Ok(answer) };
        let has_room = self.has_room(sought.id);
        let due = Due::of(first_look(&entry));
        let answer = match self.entries.entry(Known::new(sought, Kept { entry, due })) {
            // Somebody else was first.
            Slot::Occupied(slot) => Ok(self.decide(slot.key(), decide).0),
            Slot::Vacant(slot) => has_room.map(|()| {
                self.expiries.add(slot.key(), due);
                self.room.enter(slot.key());
                slot.insert(());
                answer
            }),
        };
        self.free_expired(SHARE, now);
        answer
    }

    /// What is decided about an entry, and whether it was written.
    fn decide<T>(
        &self,
        known: &Known,
        decide: impl Fn(Option<&Entry>) -> Decision<T>,
    ) -> (T, bool) {
        let mut kept = known.kept();
        let Decision { answer, write } = decide(Some(&kept.entry));
        let is_written = write.is_some();
        if let Some(entry) = write {
            let due = Due::of(first_look(&entry));
            if due < kept.due {
                self.expiries.add(known, due);
                kept.due = due;
            }
            self.room.change(&kept.entry.state, &entry.state);
            kept.entry = entry;
        }
        (answer, is_written)
    }

    fn has_room(&self, id: &[u8]) -> Result<(), StoreError> {
        let limit = self.limit_bytes;
        if self.room.bytes_with_another(id.len()) <= limit {
            return Ok(());
        }
        let taken = self.memory_bytes();
        let cause = format!("claims in memory take {taken} of {limit} bytes");
        Err(StoreError::new(StoreErrorKind::Full, cause))
    }

    /// Looks at up to `most` entries that may have expired.
    fn free_expired(&self, most: usize, now: Timestamp) {
        let (due, noted) = self.expiries.take(most, now);
        for known in &noted {
            self.entries.remove_if(known, |known, ()| self.is_over(known, (due, now)));
        }
        if !noted.is_empty() && self.room.is_sparse() {
            self.entries.shrink_to_fit();
            self.room.shrunk();
        }
    }

    /// True iff an entry noted for `due` is to be dropped. If it is only looked at too
    /// soon, it is noted anew.
    fn is_over(&self, known: &Known, (due, now): (Due, Timestamp)) -> bool {
        let mut kept = known.kept();
        if kept.due != due {
            return false;
        }
        let Entry { expires, state, .. } = &kept.entry;
        if *expires <= now {
            self.room.leave(known.id(), state);
            return true;
        }
        let look = Some(first_look(&kept.entry)).filter(|look| *look > now);
        let due = Due::of(look.unwrap_or(*expires));
        self.expiries.add(known, due);
        kept.due = due;
        false
    }
}

/// When to look for the first time whether an entry has expired. While it is held that
/// is the deadline: released, it lasts that long at least, and completed, too, where
/// outcomes are kept for a lease or longer. Noted for when it expires if nobody settles
/// it, each would be noted again once settled, and its first note would outlive it.
const fn first_look(entry: &Entry) -> Timestamp {
    match entry.state {
        State::Held { deadline, .. } => deadline,
        State::Finished(_) | State::Free => entry.expires,
    }
}

impl Default for MemoryClaims {
    fn default() -> Self {
        Self::new()
    }
}

impl ClaimStore for MemoryClaims {
    fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        let now = self.clock.0.now();
        self.step(id, now, |held| Entry::claim(held, request, now))
    }

    fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        let now = self.clock.0.now();
        self.step(id, now, |held| Entry::settle(held, request, now))
    }

    fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        let now = self.clock.0.now();
        let known = self.entries.get(&self.sought(id) as &dyn Identified);
        Ok(known.and_then(|known| Entry::status(Some(&known.key().kept().entry), now)))
    }

    fn sweep(&self) -> Result<bool, StoreError> {
        let now = self.clock.0.now();
        self.free_expired(SWEEP, now);
        Ok(self.expiries.has_due(now))
    }
}

impl fmt::Debug for SharedClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confirm::Token;
    use crate::confirm::claims::{Digest, Outcome, Settlement, Terms};
    use crate::time::ManualClock;
    use std::time::Duration;

    const TERMS: Terms =
        Terms { lease: Duration::from_secs(300), keep: Duration::from_secs(3_600) };

    fn claim(claims: &MemoryClaims, id: &str) -> Result<Answer, StoreError> {
        let request = ClaimRequest { token: Token::new(1), digest: Digest::of(b""), terms: TERMS };
        claims.claim(id.as_bytes(), &request)
    }

    fn settle(claims: &MemoryClaims, id: &str, settlement: Settlement<'_>) {
        let request = SettleRequest { token: Token::new(1), settlement, terms: TERMS };
        assert_eq!(claims.settle(id.as_bytes(), &request), Ok(Settled::Done));
    }

    fn store() -> (Arc<ManualClock>, MemoryClaims) {
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000_000)));
        (Arc::clone(&clock), MemoryClaims::with_clock(clock))
    }

    fn sweep(claims: &MemoryClaims) {
        while claims.sweep().unwrap() {}
    }

    #[test]
    fn what_has_expired_is_swept_and_its_memory_given_back() {
        let (clock, claims) = store();
        let ids: Vec<String> = (0..10_000).map(|id| format!("id-{id}")).collect();
        for (number, id) in ids.iter().enumerate() {
            claim(&claims, id).unwrap();
            match number % 3 {
                0 => settle(&claims, id, Settlement::Complete(&Outcome::success(vec![7; 100]))),
                1 => settle(&claims, id, Settlement::Release),
                _ => {}
            }
        }
        sweep(&claims);
        assert_eq!(claims.len(), 10_000);
        // What was released needs but a lease, what was abandoned a lease more.
        for (secs, left) in [(301, 6_667), (3_301, 3_333), (301, 0)] {
            clock.advance(Duration::from_secs(secs));
            sweep(&claims);
            assert_eq!(claims.len(), left, "after {secs} s");
        }
        assert_eq!((claims.memory_bytes(), claims.entries.capacity()), (0, 0));
    }

    #[test]
    fn writes_alone_free_what_has_expired() {
        let (clock, claims) = store();
        for id in 0..5_000 {
            claim(&claims, &format!("old-{id}")).unwrap();
        }
        clock.advance(Duration::from_secs(4_000));
        for id in 0..5_000 {
            claim(&claims, &format!("new-{id}")).unwrap();
        }
        assert_eq!(claims.len(), 5_000);
    }

    #[test]
    fn a_key_that_fails_over_and_over_is_noted_once_among_those_that_expire() {
        let (clock, claims) = store();
        for _ in 0..1_000 {
            claim(&claims, "poison").unwrap();
            settle(&claims, "poison", Settlement::Release);
            clock.advance(Duration::from_secs(1));
            assert_eq!(claims.expiries.len(), 1);
        }
        clock.advance(Duration::from_secs(7_200));
        sweep(&claims);
        assert_eq!((claims.len(), claims.expiries.len()), (0, 0));
    }

    #[test]
    fn each_entry_is_noted_once_however_it_ends() {
        let (clock, claims) = store();
        for number in 0..10_000 {
            let id = format!("id-{number}");
            claim(&claims, &id).unwrap();
            match number % 3 {
                0 => settle(&claims, &id, Settlement::Complete(&Outcome::success([]))),
                1 => settle(&claims, &id, Settlement::Release),
                _ => {}
            }
            clock.advance(Duration::from_millis(100));
            assert_eq!(claims.expiries.len(), claims.len());
        }
    }

    #[test]
    fn room_that_is_kept_for_more_entries_counts_until_it_is_given_back() {
        let (clock, claims) = store();
        for id in 0..10_000 {
            claim(&claims, &format!("id-{id}")).unwrap();
        }
        let most = claims.memory_bytes();
        clock.advance(Duration::from_secs(4_000));
        for id in 0..4_000 {
            claim(&claims, &format!("other-{id}")).unwrap();
        }
        let (kept, taken) = (claims.entries.capacity(), claims.memory_bytes());
        assert!(kept >= 10_000 && taken > most / 2, "{taken} of {most} bytes, {kept} slots");
    }

    #[test]
    fn a_full_store_refuses_new_identities_only() {
        let (clock, claims) = store();
        let claims = claims.memory_limit(2 * Room::default().bytes_with_another(1));
        claim(&claims, "a").unwrap();
        claim(&claims, "b").unwrap();
        let refused = claim(&claims, "c").unwrap_err();
        assert_eq!(refused.kind(), StoreErrorKind::Full);
        let outcome = Outcome::success(vec![0; 1_000]);
        settle(&claims, "a", Settlement::Complete(&outcome));
        assert!(matches!(claim(&claims, "a"), Ok(Answer::Finished(_))));
        let unknown = SettleRequest {
            token: Token::new(1),
            settlement: Settlement::Complete(&outcome),
            terms: TERMS,
        };
        assert_eq!(claims.settle(b"c", &unknown), Ok(Settled::Stale));
        clock.advance(Duration::from_secs(4_000));
        sweep(&claims);
        assert!(matches!(claim(&claims, "c"), Ok(Answer::Granted(_))));
    }
}
