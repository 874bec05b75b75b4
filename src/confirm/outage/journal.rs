//! What the primary has yet to be told.

use crate::confirm::{Answer, Bucket, Sighting, StoreError, StoreErrorKind, Token};
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

/// What an entry takes beside its key: the map's share, the key's pointer and
/// header, the debt.
const ENTRY_BYTES: usize = 120;

/// Debts written in one call at most.
const BATCH: usize = 512;

/// Keys that the primary has yet to forget or to record, each with the latest
/// that happened to it.
///
/// One caller at a time writes them to the primary, in batches. A debt that
/// changes meanwhile gets a new stamp, and stays until it has been written as it is
/// then.
#[derive(Debug)]
pub(super) struct Journal {
    debts: BTreeMap<Box<[u8]>, Debt>,
    bytes: usize,
    limit_bytes: usize,
    stamps: u64,
    /// The primary refused this key's debt: batches go on behind it.
    refused: Option<Box<[u8]>>,
    /// How many debts the next batch may hold.
    batch: usize,
    is_writing: bool,
}

/// What is owed for one key: first to forget it, then to record it.
#[derive(Clone, Copy, Debug, Default)]
struct Debt {
    forget: bool,
    record: Option<Owed>,
    stamp: u64,
}

/// A sighting that the primary has yet to see, in the latest bucket in which the
/// key was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    bucket: Bucket,
    token: Token,
    /// It was called new; otherwise it only moved a sliding window's bucket up.
    let_through: bool,
}

/// A debt as it was when its batch was taken.
#[derive(Debug)]
pub(super) struct Entry {
    key: Box<[u8]>,
    stamp: u64,
}

/// What one call writes: keys to forget come first.
#[derive(Debug)]
pub(super) enum Batch {
    Forget(Vec<Entry>),
    Record(Vec<(Entry, Owed)>),
}

/// Why a key could not be owed.
#[derive(Debug, thiserror::Error)]
#[error(
    "the journal of what the store has yet to be told has reached its limit of {limit_bytes} \
     bytes: bring the store back, or raise the limit"
)]
struct JournalFull {
    limit_bytes: usize,
}

impl Journal {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            debts: BTreeMap::new(),
            bytes: 0,
            limit_bytes,
            stamps: 0,
            refused: None,
            batch: BATCH,
            is_writing: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.debts.is_empty()
    }

    pub(super) fn keys(&self) -> usize {
        self.debts.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.debts.contains_key(key)
    }

    /// Errs unless all of these keys could be owed, each counted as often as it
    /// is given.
    pub(super) fn check_room<'key>(
        &self,
        keys: impl IntoIterator<Item = &'key [u8]>,
    ) -> Result<(), StoreError> {
        let new = keys.into_iter().filter(|key| !self.contains(key));
        let bytes: usize = new.map(entry_bytes).sum();
        if bytes == 0 || self.bytes + bytes <= self.limit_bytes {
            return Ok(());
        }
        let cause = JournalFull { limit_bytes: self.limit_bytes };
        Err(StoreError::new(StoreErrorKind::Full, cause))
    }

    /// The primary is to forget these keys, and whatever it was to record of
    /// them. All are owed, or none.
    pub(super) fn owe_forgets(&mut self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.check_room(keys.iter().copied())?;
        for key in keys {
            let debt = self.debt(key);
            debt.forget = true;
            debt.record = None;
        }
        Ok(())
    }

    /// The primary is to record these sightings. All are owed, or none.
    pub(super) fn owe_records(
        &mut self,
        sightings: &[(Sighting<'_>, bool)],
    ) -> Result<(), StoreError> {
        self.check_room(sightings.iter().map(|(sighting, _)| sighting.key))?;
        for &(Sighting { key, bucket, token }, let_through) in sightings {
            let debt = self.debt(key);
            match &mut debt.record {
                // Whoever was let through keeps his token: where the primary has
                // his sighting already, it moves up and is not counted as another's.
                Some(owed) if !let_through => owed.bucket = owed.bucket.max(bucket),
                owed => *owed = Some(Owed { bucket, token, let_through }),
            }
        }
        Ok(())
    }

    /// The debt for a key, about to change.
    fn debt(&mut self, key: &[u8]) -> &mut Debt {
        self.stamps += 1;
        if !self.contains(key) {
            self.bytes += entry_bytes(key);
            self.debts.insert(key.into(), Debt::default());
        }
        let debt = self.debts.get_mut(key).expect("inserted above");
        debt.stamp = self.stamps;
        debt
    }

    /// The next debts to write, unless somebody is writing some: then, and if
    /// there are none, `None`. [`stop_writing`](Self::stop_writing) ends it.
    pub(super) fn start_writing(&mut self) -> Option<Batch> {
        if self.is_writing || self.is_empty() {
            return None;
        }
        self.is_writing = true;
        let after = self.refused.as_deref().map_or(Unbounded, Excluded);
        if self.debts.range::<[u8], _>((after, Unbounded)).next().is_none() {
            self.refused = None;
        }
        let after = self.refused.as_deref().map_or(Unbounded, Excluded);
        let next = || self.debts.range::<[u8], _>((after, Unbounded)).take(self.batch);
        let entry = |key: &[u8], debt: &Debt| Entry { key: key.into(), stamp: debt.stamp };
        if next().any(|(_, debt)| debt.forget) {
            let forgets = next().filter(|(_, debt)| debt.forget);
            return Some(Batch::Forget(forgets.map(|(key, debt)| entry(key, debt)).collect()));
        }
        let records = next().filter_map(|(key, debt)| Some((entry(key, debt), debt.record?)));
        Some(Batch::Record(records.collect()))
    }

    pub(super) fn stop_writing(&mut self) {
        self.is_writing = false;
    }

    /// The primary has forgotten these keys.
    pub(super) fn forgotten(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.change(entry, |debt| debt.forget = false);
        }
        self.larger_batches();
    }

    /// The primary has answered for these sightings: how many it had been told
    /// of already by others, although they were let through.
    pub(super) fn recorded(&mut self, entries: &[(Entry, Owed)], answers: &[Answer]) -> u64 {
        for (entry, _) in entries {
            self.change(entry, |debt| debt.record = None);
        }
        self.larger_batches();
        let was_known = |((_, owed), answer): &(&(Entry, Owed), &Answer)| {
            owed.let_through && **answer != Answer::New
        };
        entries.iter().zip(answers).filter(was_known).count() as u64
    }

    /// The primary refused a batch: it is tried in halves, and a single debt is
    /// left for later.
    pub(super) fn refused(&mut self, batch: &Batch) {
        match batch.keys().count() {
            0 | 1 => self.refused = batch.keys().next().map(Into::into),
            several => self.batch = several / 2,
        }
    }

    fn larger_batches(&mut self) {
        self.batch = (self.batch * 2).min(BATCH);
    }

    /// Pays a part of a debt if it is still as it was.
    fn change(&mut self, entry: &Entry, pay: impl FnOnce(&mut Debt)) {
        let Some(debt) = self.debts.get_mut(&entry.key) else { return };
        if debt.stamp != entry.stamp {
            return;
        }
        pay(debt);
        if debt.is_paid() {
            self.debts.remove(&entry.key);
            self.bytes -= entry_bytes(&entry.key);
        }
    }

    /// Drops what need not be recorded any more: buckets before `before` match no
    /// longer.
    pub(super) fn expire(&mut self, before: Bucket) {
        let bytes = &mut self.bytes;
        self.debts.retain(|key, debt| {
            debt.record = debt.record.filter(|owed| owed.bucket >= before);
            if debt.is_paid() {
                *bytes -= entry_bytes(key);
            }
            !debt.is_paid()
        });
    }
}

impl Debt {
    const fn is_paid(&self) -> bool {
        !self.forget && self.record.is_none()
    }
}

impl Batch {
    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let (forgets, records) = match self {
            Self::Forget(entries) => (entries.as_slice(), [].as_slice()),
            Self::Record(entries) => ([].as_slice(), entries.as_slice()),
        };
        forgets.iter().chain(records.iter().map(|(entry, _)| entry)).map(|entry| &*entry.key)
    }
}

/// The sightings of a batch, for the primary.
pub(super) fn sightings(records: &[(Entry, Owed)]) -> Vec<Sighting<'_>> {
    records
        .iter()
        .map(|(entry, owed)| Sighting { key: &entry.key, bucket: owed.bucket, token: owed.token })
        .collect()
}

const fn entry_bytes(key: &[u8]) -> usize {
    key.len() + ENTRY_BYTES
}
