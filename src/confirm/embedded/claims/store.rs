//! The entries of one file, and when they expire.
//!
//! One table maps identities to entries, the other has a note of every entry, in order of
//! the minute after which it may be dropped. Where an entry is written, its note moves
//! with it, so that the notes say neither more nor less than the entries do.
//!
//! Requests are judged one by one, against what the batch has changed and what is
//! written; what it changes is written in one transaction, and no reply leaves before.

use super::super::commits::Serve;
use super::super::failure::{corrupt, working};
use super::super::file::{File, FileSettings, Kind, PAGE_BYTES, lasting_bytes};
use super::encoding::{HEAD_BYTES, decode, encode, expires};
use crate::confirm::claims::{
    Answer, ClaimRequest, Decision, Digest, Entry, Outcome, SettleRequest, Settled, Settlement,
    State, Status, Terms,
};
use crate::confirm::{StoreError, Token};
use crate::time::{Clock, Timestamp};
use redb::{ReadOnlyTable, StorageBackend, Table, TableDefinition, WriteTransaction};
use std::collections::BTreeMap;
use std::sync::Arc;

const CLAIMS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("claims");

/// For each entry the minute after which it may be dropped, and its identity.
const EXPIRIES: TableDefinition<'_, (i64, &[u8]), ()> = TableDefinition::new("expiries");

type Entries<'tx> = Table<'tx, &'static [u8], &'static [u8]>;
type Notes<'tx> = Table<'tx, (i64, &'static [u8]), ()>;

/// A commit drops so many entries that have expired for each of its requests: two, so that
/// the file shrinks faster than it grows.
const SHARE: usize = 2;

/// So many does a sweep: some milliseconds' work.
const SWEEP: usize = 512;

pub(super) enum Request {
    Claim(Box<[u8]>, ClaimRequest),
    Settle(Box<[u8]>, Settling),
    Look(Box<[u8]>),
    Sweep,
}

#[derive(Debug)]
pub(super) enum Reply {
    Answer(Answer),
    Settled(Settled),
    Status(Option<Status>),
    Swept { has_more: bool },
}

/// A settlement that owns what came of the claim.
pub(super) struct Settling {
    token: Token,
    terms: Terms,
    end: End,
}

enum End {
    Complete(Outcome),
    Release,
    Extend,
    Adopt(Digest, Outcome),
    Clear,
}

impl From<&SettleRequest<'_>> for Settling {
    fn from(request: &SettleRequest<'_>) -> Self {
        let SettleRequest { token, terms, settlement } = *request;
        let end = match settlement {
            Settlement::Complete(outcome) => End::Complete(outcome.clone()),
            Settlement::Release => End::Release,
            Settlement::Extend => End::Extend,
            Settlement::Adopt(digest, outcome) => End::Adopt(*digest, outcome.clone()),
            Settlement::Clear => End::Clear,
        };
        Self { token, terms, end }
    }
}

impl Settling {
    const fn request(&self) -> SettleRequest<'_> {
        let settlement = match &self.end {
            End::Complete(outcome) => Settlement::Complete(outcome),
            End::Release => Settlement::Release,
            End::Extend => Settlement::Extend,
            End::Adopt(digest, outcome) => Settlement::Adopt(digest, outcome),
            End::Clear => Settlement::Clear,
        };
        SettleRequest { token: self.token, settlement, terms: self.terms }
    }
}

impl Request {
    const fn may_write(&self) -> bool {
        matches!(self, Self::Claim(..) | Self::Settle(..))
    }
}

/// The minute that ends an entry's time, or the one after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due(i64);

impl Due {
    const MINUTE_MICROS: i64 = 60_000_000;

    /// The first minute that begins at `expires` or after it.
    const fn of(expires: Timestamp) -> Self {
        let micros = expires.as_micros();
        let is_within = micros.rem_euclid(Self::MINUTE_MICROS) != 0;
        Self(micros.div_euclid(Self::MINUTE_MICROS) + is_within as i64)
    }

    /// The latest that has begun.
    const fn by(now: Timestamp) -> Self {
        Self(now.as_micros().div_euclid(Self::MINUTE_MICROS))
    }
}

pub(super) struct Store {
    pub(in crate::confirm::embedded) file: File,
    clock: Arc<dyn Clock>,
    /// Something was refused for want of room: expired entries are in the way.
    is_full: bool,
}

/// What a batch changes.
#[derive(Default)]
struct Changes<'batch> {
    entries: BTreeMap<&'batch [u8], Entry>,
    /// About what they add to the file.
    added_bytes: u64,
}

/// Entries to drop.
struct Expired {
    notes: Vec<(Due, Box<[u8]>)>,
    has_more: bool,
}

impl Store {
    pub(super) fn open(
        storage: impl StorageBackend,
        settings: &FileSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let make = |tx: &WriteTransaction| {
            tx.open_table(CLAIMS)?;
            tx.open_table(EXPIRIES).map(drop)
        };
        let file = File::open(storage, settings, Kind::Claims, make)?;
        Ok(Self { file, clock, is_full: false })
    }

    /// What a request comes to, and what that changes; the inner error is the caller's alone.
    fn reply<'batch>(
        &mut self,
        request: &'batch Request,
        now: Timestamp,
        held: &Held,
        changes: &mut Changes<'batch>,
        has_more: bool,
    ) -> Result<Result<Reply, StoreError>, StoreError> {
        match request {
            Request::Claim(id, claim) => {
                let held = held.under(id, changes)?;
                let decision = Entry::claim(held.as_ref(), claim, now);
                Ok(self.take(id, held.as_ref(), decision, changes)?.map(Reply::Answer))
            }
            Request::Settle(id, settling) => {
                let held = held.under(id, changes)?;
                let decision = Entry::settle(held.as_ref(), &settling.request(), now);
                Ok(self.take(id, held.as_ref(), decision, changes)?.map(Reply::Settled))
            }
            Request::Look(id) => {
                let held = held.under(id, changes)?;
                Ok(Ok(Reply::Status(Entry::status(held.as_ref(), now))))
            }
            Request::Sweep => Ok(Ok(Reply::Swept { has_more })),
        }
    }

    /// Takes a decision, if there is room for what it writes.
    fn take<'batch, T>(
        &mut self,
        id: &'batch [u8],
        held: Option<&Entry>,
        decision: Decision<T>,
        changes: &mut Changes<'batch>,
    ) -> Result<Result<T, StoreError>, StoreError> {
        let Some(entry) = decision.write else { return Ok(Ok(decision.answer)) };
        let more = size(id, &entry).saturating_sub(held.map_or(0, |held| size(id, held)));
        let spared = if held.is_none() { self.file.quota.spare_bytes() } else { 0 };
        if more > 0 && !self.has_room(more + spared, changes)? {
            self.is_full = true;
            return Ok(Err(self.file.quota.full()));
        }
        changes.added_bytes += more;
        changes.entries.insert(id, entry);
        Ok(Ok(decision.answer))
    }

    /// True iff so many bytes fit beside what the batch adds already.
    fn has_room(&mut self, more: u64, changes: &Changes<'_>) -> Result<bool, StoreError> {
        // Two pages for each entry may be written beside those that they replace.
        let pages = 2 * (changes.entries.len() as u64 + 1);
        let more = changes.added_bytes + more + pages * PAGE_BYTES;
        self.file.has_room(more).map_err(working)
    }

    /// How many expired entries to drop, and whether to commit for their sake alone.
    fn share(&self, requests: &[Request]) -> (usize, bool) {
        let must_sweep =
            self.is_full || requests.iter().any(|request| matches!(request, Request::Sweep));
        let writes = requests.iter().filter(|request| request.may_write()).count();
        (if must_sweep { SWEEP } else { SHARE * writes }, must_sweep)
    }

    /// One transaction.
    fn write(
        &mut self,
        changes: &Changes<'_>,
        expired: &Expired,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let tx = self.file.write()?;
        let freed_bytes =
            {
                let mut entries = tx.open_table(CLAIMS).map_err(working)?;
                let mut notes = tx.open_table(EXPIRIES).map_err(working)?;
                for (id, entry) in &changes.entries {
                    put(id, entry, &mut entries, &mut notes)?;
                }
                // An entry that was written just now has a later note, and stays.
                let dropped =
                    expired.notes.iter().filter(|(_, id)| !changes.entries.contains_key(&**id));
                dropped
                    .map(|(due, id)| remove(*due, id, now, &mut entries, &mut notes))
                    .sum::<Result<u64, _>>()?
            };
        tx.commit().map_err(working)?;
        self.file.quota.take(changes.added_bytes);
        self.file.quota.release(freed_bytes);
        Ok(())
    }
}

impl Serve for Store {
    type Request = Request;
    type Reply = Reply;

    fn serve(
        &mut self,
        requests: &[Request],
    ) -> Result<Vec<Result<Reply, StoreError>>, StoreError> {
        let now = self.clock.now();
        let (most, must_sweep) = self.share(requests);
        let held = Held::open(&self.file)?;
        let expired = held.expired(most, now)?;
        self.is_full &= expired.has_more;
        let mut changes = Changes::default();
        let mut reply = |request| self.reply(request, now, &held, &mut changes, expired.has_more);
        let replies = requests.iter().map(&mut reply).collect::<Result<Vec<_>, _>>()?;
        // Readers keep the pages that they may read from being used again.
        drop(held);
        if !changes.entries.is_empty() || (must_sweep && !expired.notes.is_empty()) {
            self.write(&changes, &expired, now)?;
        }
        Ok(replies)
    }
}

/// What was written before a batch.
struct Held {
    entries: ReadOnlyTable<&'static [u8], &'static [u8]>,
    notes: ReadOnlyTable<(i64, &'static [u8]), ()>,
}

impl Held {
    fn open(file: &File) -> Result<Self, StoreError> {
        let tx = file.read()?;
        let entries = tx.open_table(CLAIMS).map_err(working)?;
        Ok(Self { entries, notes: tx.open_table(EXPIRIES).map_err(working)? })
    }

    /// An identity's entry, under what the batch has changed.
    fn under(&self, id: &[u8], changes: &Changes<'_>) -> Result<Option<Entry>, StoreError> {
        if let Some(entry) = changes.entries.get(id) {
            return Ok(Some(entry.clone()));
        }
        let bytes = self.entries.get(id).map_err(working)?;
        bytes.map(|bytes| decode(bytes.value()).ok_or_else(|| damaged(id))).transpose()
    }

    /// Up to `most` entries that have expired, the earliest.
    fn expired(&self, most: usize, now: Timestamp) -> Result<Expired, StoreError> {
        let Due(last) = Due::by(now);
        let all = self.notes.range(..(last + 1, &[][..])).map_err(working)?;
        let mut notes = Vec::new();
        for note in all.take(most + 1) {
            let (note, _) = note.map_err(working)?;
            let (due, id) = note.value();
            notes.push((Due(due), id.into()));
        }
        let has_more = notes.len() > most;
        notes.truncate(most);
        Ok(Expired { notes, has_more })
    }
}

/// Writes an entry, and moves its note.
fn put(
    id: &[u8],
    entry: &Entry,
    entries: &mut Entries<'_>,
    notes: &mut Notes<'_>,
) -> Result<(), StoreError> {
    let old = entries.insert(id, encode(entry).as_slice()).map_err(working)?;
    let old = old.map(|old| expires(old.value()).ok_or_else(|| damaged(id))).transpose()?;
    let (old, new) = (old.map(Due::of), Due::of(entry.expires));
    if old == Some(new) {
        return Ok(());
    }
    if let Some(Due(old)) = old {
        notes.remove((old, id)).map_err(working)?;
    }
    notes.insert((new.0, id), ()).map_err(working)?;
    Ok(())
}

/// Drops an entry that has expired, and its note; how many bytes that frees.
fn remove(
    Due(due): Due,
    id: &[u8],
    now: Timestamp,
    entries: &mut Entries<'_>,
    notes: &mut Notes<'_>,
) -> Result<u64, StoreError> {
    notes.remove((due, id)).map_err(working)?;
    let Some(old) = entries.remove(id).map_err(working)? else { return Err(damaged(id)) };
    if expires(old.value()).is_none_or(|expires| expires > now) {
        return Err(damaged(id));
    }
    Ok(lasting_bytes(2, 2 * id.len() + old.value().len()))
}

/// About what an entry and its note take in the file.
fn size(id: &[u8], entry: &Entry) -> u64 {
    let rest = match &entry.state {
        State::Finished(outcome) => outcome.len(),
        State::Held { .. } => 16,
        State::Free => 0,
    };
    lasting_bytes(2, 2 * id.len() + HEAD_BYTES + rest)
}

fn damaged(id: &[u8]) -> StoreError {
    corrupt(format!("the entry of \"{}\", or its note", id.escape_ascii()))
}

#[cfg(test)]
impl Store {
    /// How many entries there are, and notes of them.
    pub(super) fn lens(&self) -> (u64, u64) {
        use redb::ReadableTableMetadata as _;
        let held = Held::open(&self.file).unwrap();
        (held.entries.len().unwrap(), held.notes.len().unwrap())
    }

    /// Damages what is held for an identity.
    pub(super) fn damage(&self, id: &[u8]) {
        let tx = self.file.write().unwrap();
        tx.open_table(CLAIMS).unwrap().insert(id, &b"damaged"[..]).unwrap();
        tx.commit().unwrap();
    }
}
