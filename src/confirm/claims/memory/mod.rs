//! Claims in this process's memory.
//!
//! It owns the map, its limit (`room`), and how expired entries are found without a
//! scan (`expiry`). An entry is judged and written under the lock of its part of the map;
//! where nothing is to be written, shared with other readers.

mod expiry;
mod room;

use super::Status;
use super::{Answer, ClaimRequest, ClaimStore, Decision, Entry, SettleRequest, Settled, State};
use crate::confirm::{StoreError, StoreErrorKind};
use crate::time::{Clock, SystemClock, Timestamp};
use ahash::RandomState;
use dashmap::mapref::one::RefMut;
use dashmap::{DashMap, Entry as Slot};
use expiry::{Due, Expiries};
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
/// An entry takes 200 to 350 bytes, and its identity's and its outcome's own. Every write
/// frees up to two that have expired; [`sweep`](ClaimStore::sweep) frees the others. The
/// map itself shrinks when seven eighths of its room are empty.
#[derive(Debug)]
pub struct MemoryClaims {
    entries: DashMap<Arc<[u8]>, Kept, RandomState>,
    expiries: Expiries,
    clock: SharedClock,
    room: Room,
    limit_bytes: usize,
}

/// An entry, and when the map looks whether it has expired.
#[derive(Debug)]
struct Kept {
    entry: Entry,
    due: Due,
}

/// An entry that nobody else can read or write meanwhile.
type Known<'map> = RefMut<'map, Arc<[u8]>, Kept>;

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

    /// Reads, decides and writes in one step, for an identity that is likely known.
    fn step<T>(
        &self,
        id: &[u8],
        now: Timestamp,
        decide: impl Fn(Option<&Entry>, Timestamp) -> Decision<T>,
    ) -> Result<T, StoreError> {
        let known = self.entries.get_mut(id);
        let Some(mut known) = known else { return self.step_anew(id, now, decide) };
        let decision = decide(Some(&known.entry), now);
        Ok(self.rewrite(&mut known, decision))
    }

    /// The same for one that is likely new.
    fn step_anew<T>(
        &self,
        id: &[u8],
        now: Timestamp,
        decide: impl Fn(Option<&Entry>, Timestamp) -> Decision<T>,
    ) -> Result<T, StoreError> {
        let has_room = self.has_room(id);
        match self.entries.entry(Arc::from(id)) {
            Slot::Occupied(slot) => {
                let mut known = slot.into_ref();
                let decision = decide(Some(&known.entry), now);
                Ok(self.rewrite(&mut known, decision))
            }
            Slot::Vacant(slot) => {
                let Decision { answer, write } = decide(None, now);
                if let Some(entry) = write {
                    has_room?;
                    let due = Due::of(first_look(&entry));
                    self.expiries.add(slot.key(), due);
                    self.room.enter(id, &entry.state);
                    slot.insert(Kept { entry, due });
                }
                Ok(answer)
            }
        }
    }

    fn rewrite<T>(&self, known: &mut Known<'_>, decision: Decision<T>) -> T {
        let Decision { answer, write } = decision;
        if let Some(entry) = write {
            let due = Due::of(first_look(&entry));
            if due < known.due {
                self.expiries.add(known.key(), due);
                known.due = due;
            }
            self.room.change(&known.entry.state, &entry.state);
            known.entry = entry;
        }
        answer
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
        let (due, ids) = self.expiries.take(most, now);
        for id in &ids {
            self.entries.remove_if_mut(id, |_, kept| self.is_over(id, kept, (due, now)));
        }
        if !ids.is_empty() && self.room.is_sparse() {
            self.entries.shrink_to_fit();
            self.room.shrunk();
        }
    }

    /// True iff an entry noted for `due` is to be dropped. If it is only looked at too
    /// soon, it is noted anew.
    fn is_over(&self, id: &Arc<[u8]>, kept: &mut Kept, (due, now): (Due, Timestamp)) -> bool {
        if kept.due != due {
            return false;
        }
        let Entry { expires, state, .. } = &kept.entry;
        if *expires <= now {
            self.room.leave(id, state);
            return true;
        }
        let look = Some(first_look(&kept.entry)).filter(|look| *look > now);
        let due = Due::of(look.unwrap_or(*expires));
        self.expiries.add(id, due);
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
        let decide = |held: Option<&Entry>, now| Entry::claim(held, request, now);
        // Most retries change nothing, and need not wait for each other.
        let glance = self.entries.get(id).map(|known| decide(Some(&known.entry), now));
        let answer = match glance {
            Some(Decision { answer, write: None }) => return Ok(answer),
            Some(_) => self.step(id, now, decide),
            None => self.step_anew(id, now, decide),
        };
        self.free_expired(SHARE, now);
        answer
    }

    fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        let now = self.clock.0.now();
        let settled = self.step(id, now, |held, now| Entry::settle(held, request, now));
        self.free_expired(SHARE, now);
        settled
    }

    fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        let now = self.clock.0.now();
        Ok(self.entries.get(id).and_then(|kept| Entry::status(Some(&kept.entry), now)))
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
