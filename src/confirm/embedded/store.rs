//! The records of one file: a table for each bucket, under the overlay.
//!
//! A bucket's table maps keys to tokens and is dropped whole when the bucket has
//! expired. A key may lie in several tables: its record is the one in the latest
//! bucket, and those before it are garbage that goes with their tables.
//!
//! Everything happens in [`Store::serve`]: requests are judged one by one
//! against overlay and tables, their changes are written in one transaction, and
//! only when that has succeeded does memory follow. So where a transaction fails,
//! memory says what the file said before.

use super::commits::Serve;
use super::failure::{corrupt, opening, working};
use super::file::{File, FileSettings, Kind, META, PAGE_BYTES, lasting_bytes};
use super::overlay::{Changes, Entry, Overlay, Share, decode, encode, weight};
use crate::confirm::ownership::other_width;
use crate::confirm::{Answer, Bucket, Record, Rule, Sighting, StoreError, Token};
use redb::{
    ReadOnlyTable, ReadableDatabase as _, ReadableTable as _, StorageBackend, Table,
    TableDefinition, TableHandle as _, WriteTransaction,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The width of the one bucket of an unbounded window.
const FOR_EVER: u64 = u64::MAX;

/// What the overlay holds, one value for each commit, in their order.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

/// What a caller wants done, in memory of its own: another thread may do it.
#[derive(Debug)]
pub(super) enum Request {
    Confirm(Vec<Owned>, Rule),
    Look(Vec<Vec<u8>>),
    Record(Vec<Owned>),
    Forget(Vec<Vec<u8>>),
    Expire(Bucket),
}

/// A sighting that owns its key.
#[derive(Debug)]
pub(super) struct Owned {
    key: Vec<u8>,
    record: Record,
}

/// What a caller gets.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Answers(Vec<Answer>),
    Records(Vec<Option<Record>>),
    Done,
}

impl Request {
    pub(super) fn confirm(sightings: &[Sighting<'_>], rule: Rule) -> Self {
        Self::Confirm(sightings.iter().map(Owned::from).collect(), rule)
    }

    pub(super) fn record(sightings: &[Sighting<'_>]) -> Self {
        Self::Record(sightings.iter().map(Owned::from).collect())
    }

    pub(super) fn look(keys: &[&[u8]]) -> Self {
        Self::Look(keys.iter().map(|key| key.to_vec()).collect())
    }

    pub(super) fn forget(keys: &[&[u8]]) -> Self {
        Self::Forget(keys.iter().map(|key| key.to_vec()).collect())
    }

    /// How many keys it may record, and their bytes.
    fn size(&self) -> (usize, usize) {
        match self {
            Self::Confirm(sightings, _) | Self::Record(sightings) => {
                (sightings.len(), sightings.iter().map(|sighting| sighting.key.len()).sum())
            }
            Self::Look(_) | Self::Forget(_) | Self::Expire(_) => (0, 0),
        }
    }
}

impl From<&Sighting<'_>> for Owned {
    fn from(sighting: &Sighting<'_>) -> Self {
        Self { key: sighting.key.to_vec(), record: sighting.into() }
    }
}

impl Owned {
    fn sighting(&self) -> Sighting<'_> {
        Sighting { key: &self.key, bucket: self.record.bucket, token: self.record.token }
    }
}

pub(super) struct Store {
    pub(super) file: File,
    overlay: Overlay,
    /// Those that have a table.
    buckets: BTreeSet<Bucket>,
    log: Log,
}

/// A log that weighs so many times what the overlay does is long. While keys only come,
/// it weighs twice as much at most.
const LONG_LOG: usize = 3;

/// An overlay that is emptier than this part of its cap does not make the log long any
/// sooner: so small a log is read in no time.
const EMPTY: usize = 8;

/// Where the log ends, and how much of it the sweep under way makes obsolete, in bytes
/// as [`weight`] counts: what reading it takes in memory.
#[derive(Debug, Default)]
struct Log {
    next: u64,
    /// The first entry from after the beginning of the sweep.
    sweep_began: u64,
    weight_before: usize,
    weight_since: usize,
}

impl Store {
    pub(super) fn open(
        storage: impl StorageBackend,
        settings: &FileSettings,
        overlay_bytes: usize,
    ) -> Result<Self, StoreError> {
        let make = |tx: &WriteTransaction| tx.open_table(LOG).map(drop);
        let mut store = Self {
            file: File::open(storage, settings, Kind::Keys, make)?,
            overlay: Overlay::new(overlay_bytes),
            buckets: BTreeSet::new(),
            log: Log::default(),
        };
        store.load()?;
        Ok(store)
    }

    #[cfg(test)]
    pub(super) const fn log_weight(&self) -> usize {
        self.log.weight()
    }

    /// Finds the tables, and reads the log into the overlay.
    fn load(&mut self) -> Result<(), StoreError> {
        let tx = self.file.db.begin_read().map_err(opening)?;
        for table in tx.list_tables().map_err(opening)? {
            self.buckets.extend(bucket_of(table.name()));
        }
        let log = tx.open_table(LOG).map_err(opening)?;
        for entry in log.iter().map_err(opening)? {
            let (number, bytes) = entry.map_err(opening)?;
            let changes = decode(bytes.value())
                .ok_or_else(|| corrupt(format!("entry {} of the log", number.value())))?;
            self.log.weight_before += weight_of(&changes);
            self.log.next = number.value() + 1;
            self.overlay.extend(changes);
        }
        self.log.sweep_began = self.log.next;
        Ok(())
    }

    /// Notes how wide buckets are, unless there are keys in others.
    pub(super) fn bind(&mut self, width: Option<Duration>) -> Result<(), StoreError> {
        let micros = width.map_or(FOR_EVER, |width| width.as_micros() as u64);
        let tx = self.file.write()?;
        {
            let mut meta = tx.open_table(META).map_err(working)?;
            let held = meta.get("width").map_err(working)?.map(|held| held.value());
            if held == Some(micros) {
                return Ok(());
            }
            if let Some(held) = held
                && self.has_keys()?
            {
                let held = (held != FOR_EVER).then(|| Duration::from_micros(held));
                return Err(other_width(held, width));
            }
            meta.insert("width", micros).map_err(working)?;
        }
        tx.commit().map_err(working)
    }

    fn has_keys(&self) -> Result<bool, StoreError> {
        let mut has_keys = false;
        self.recover(&mut |_, _| has_keys = true)?;
        Ok(has_keys)
    }

    /// Answers sightings, and says what is to be written for that.
    fn judge(
        &self,
        sightings: &[Owned],
        rule: Rule,
        changes: &Changes,
        tables: &mut Tables,
    ) -> Result<(Vec<Answer>, Changes), StoreError> {
        let mut own = Changes::new();
        let mut answers = Vec::with_capacity(sightings.len());
        for sighting in sightings {
            let entry = self.entry(&sighting.key, &[&own, changes]);
            let at = sighting.record.bucket.number();
            let oldest = Bucket::new(at.saturating_sub(i64::from(rule.buckets())));
            let held = self.held(entry, &sighting.key, oldest, tables)?;
            let decision = rule.decide(held, &sighting.sighting());
            if let Some(record) = decision.write {
                own.insert(sighting.key.clone(), entry.with(record));
            }
            answers.push(decision.answer);
        }
        Ok((answers, own))
    }

    fn look(
        &self,
        keys: &[Vec<u8>],
        changes: &Changes,
        tables: &mut Tables,
    ) -> Result<Vec<Option<Record>>, StoreError> {
        let oldest = Bucket::new(i64::MIN);
        let mut held = |key: &Vec<u8>| self.held(self.entry(key, &[changes]), key, oldest, tables);
        keys.iter().map(&mut held).collect()
    }

    fn entries_of(&self, sightings: &[Owned], changes: &Changes) -> Changes {
        let mut own = Changes::new();
        for Owned { key, record } in sightings {
            let entry = self.entry(key, &[&own, changes]);
            own.insert(key.clone(), entry.with(*record));
        }
        own
    }

    /// What lies over the tables for a key: changes that are yet to be written,
    /// the last ones first, or the overlay.
    fn entry(&self, key: &[u8], changes: &[&Changes]) -> Entry {
        let pending = changes.iter().find_map(|changes| changes.get(key).copied());
        pending.or_else(|| self.overlay.get(key)).unwrap_or_default()
    }

    /// The key's record, under its entry. Tables of buckets before `oldest`, whose
    /// records cannot match, are left out, which makes no difference to a judgement.
    fn held(
        &self,
        entry: Entry,
        key: &[u8],
        oldest: Bucket,
        tables: &mut Tables,
    ) -> Result<Option<Record>, StoreError> {
        if entry.purges {
            return Ok(entry.record);
        }
        let after = |record: Record| Bucket::new(record.bucket.number().saturating_add(1));
        let from = entry.record.map_or(oldest, |record| after(record).max(oldest));
        if self.buckets.range(from..).next().is_none() {
            return Ok(entry.record);
        }
        let found = tables.opened(self)?.find(key, from)?;
        Ok(found.or(entry.record))
    }

    /// True iff what the requests may add fits under the limit.
    fn has_room(&mut self, requests: &[Request]) -> Result<bool, StoreError> {
        let sizes = requests.iter().map(Request::size);
        let (keys, bytes) = sizes.fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1));
        // A page for each key may be written beside the one that it replaces.
        let more = lasting_bytes(keys, bytes) + keys as u64 * PAGE_BYTES;
        self.file.has_room(more)
    }

    /// Writes changes, and drops what lies in buckets before `before`.
    fn commit(&mut self, changes: Changes, before: Option<Bucket>) -> Result<(), StoreError> {
        let expired: BTreeSet<_> = before
            .map(|before| self.buckets.range(..before).copied().collect())
            .unwrap_or_default();
        if !changes.is_empty() || !expired.is_empty() {
            self.write(changes, &expired)?;
        }
        if let Some(before) = before {
            self.overlay.expire(before);
        }
        if !expired.is_empty() {
            self.file.quota.release(u64::MAX);
        }
        Ok(())
    }

    /// True iff the log is to be shortened though the overlay has room: keys that are
    /// refreshed, or expire before they are moved, would make it grow, and whoever opens
    /// the file read them all.
    fn has_long_log(&self) -> bool {
        let overlay = self.overlay.bytes().max(self.overlay.cap_bytes() / EMPTY);
        self.log.weight() > LONG_LOG * overlay
    }

    /// One transaction, and memory after it.
    fn write(&mut self, changes: Changes, expired: &BTreeSet<Bucket>) -> Result<(), StoreError> {
        let added = weight_of(&changes);
        let least = if self.has_long_log() { 4 * added } else { 0 };
        let share = self.overlay.share(added, least);
        let logged = encode(&changes);

        let tx = self.file.write()?;
        for bucket in expired {
            tx.delete_table(table(&name_of(*bucket))).map_err(working)?;
        }
        let buckets: BTreeSet<_> = self.buckets.difference(expired).copied().collect();
        let buckets = move_to_tables(&tx, &share, buckets)?;
        self.log.write(&tx, &logged, share.ends_sweep)?;
        tx.commit().map_err(working)?;

        self.log.written(added, share.ends_sweep);
        self.buckets = buckets;
        self.file.quota.take(lasting_bytes(changes.len(), changes.keys().map(Vec::len).sum()));
        self.overlay.moved(share);
        self.overlay.extend(changes);
        Ok(())
    }

    /// Visits every key that is recorded; a key in several tables several times.
    pub(super) fn recover(&self, visit: &mut dyn FnMut(&[u8], Bucket)) -> Result<(), StoreError> {
        for (key, entry) in self.overlay.iter() {
            if let Some(record) = entry.record {
                visit(key, record.bucket);
            }
        }
        let mut tables = Tables::default();
        for (bucket, table) in &tables.opened(self)?.newest_first {
            for each in table.iter().map_err(working)? {
                let (key, _) = each.map_err(working)?;
                let is_purged = self.overlay.get(key.value()).is_some_and(|entry| entry.purges);
                if !is_purged {
                    visit(key.value(), *bucket);
                }
            }
        }
        Ok(())
    }
}

impl Serve for Store {
    type Request = Request;
    type Reply = Reply;

    /// In one transaction.
    fn serve(
        &mut self,
        requests: &[Request],
    ) -> Result<Vec<Result<Reply, StoreError>>, StoreError> {
        let has_room = self.has_room(requests)?;
        let mut tables = Tables::default();
        let mut changes = Changes::new();
        let mut expires = None;
        let mut replies = Vec::with_capacity(requests.len());
        for request in requests {
            let (reply, own) = match request {
                Request::Confirm(sightings, rule) => {
                    let (answers, own) = self.judge(sightings, *rule, &changes, &mut tables)?;
                    (Reply::Answers(answers), own)
                }
                Request::Look(keys) => {
                    (Reply::Records(self.look(keys, &changes, &mut tables)?), Changes::new())
                }
                Request::Record(sightings) => (Reply::Done, self.entries_of(sightings, &changes)),
                Request::Forget(keys) => {
                    changes.extend(keys.iter().map(|key| (key.clone(), Entry::FORGOTTEN)));
                    (Reply::Done, Changes::new())
                }
                Request::Expire(before) => {
                    expires = expires.max(Some(*before));
                    (Reply::Done, Changes::new())
                }
            };
            if has_room || own.is_empty() {
                changes.extend(own);
                replies.push(Ok(reply));
            } else {
                replies.push(Err(self.file.quota.full()));
            }
        }
        // Readers keep the pages that they may read from being used again.
        drop(tables);
        self.commit(changes, expires)?;
        Ok(replies)
    }
}

fn weight_of(changes: &Changes) -> usize {
    changes.keys().map(|key| weight(key)).sum()
}

/// Puts a share of the overlay into the tables of `buckets`, and returns which
/// there are then.
fn move_to_tables(
    tx: &WriteTransaction,
    share: &Share,
    mut buckets: BTreeSet<Bucket>,
) -> Result<BTreeSet<Bucket>, StoreError> {
    let mut tables: BTreeMap<Bucket, Table<'_, &[u8], u64>> = BTreeMap::new();
    for (key, entry) in &share.entries {
        if entry.purges {
            for bucket in &buckets {
                opened(tx, &mut tables, *bucket)?.remove(key.as_slice()).map_err(working)?;
            }
        }
        if let Some(record) = entry.record {
            let table = opened(tx, &mut tables, record.bucket)?;
            table.insert(key.as_slice(), record.token.number()).map_err(working)?;
            buckets.insert(record.bucket);
        }
    }
    Ok(buckets)
}

/// The table of a bucket, opened or made once in a transaction.
fn opened<'tables, 'tx>(
    tx: &'tx WriteTransaction,
    tables: &'tables mut BTreeMap<Bucket, Table<'tx, &'static [u8], u64>>,
    bucket: Bucket,
) -> Result<&'tables mut Table<'tx, &'static [u8], u64>, StoreError> {
    use std::collections::btree_map::Entry::{Occupied, Vacant};
    match tables.entry(bucket) {
        Occupied(entry) => Ok(entry.into_mut()),
        Vacant(entry) => Ok(entry.insert(tx.open_table(table(&name_of(bucket))).map_err(working)?)),
    }
}

impl Log {
    const fn weight(&self) -> usize {
        self.weight_before + self.weight_since
    }

    fn write(
        &self,
        tx: &WriteTransaction,
        logged: &[u8],
        ends_sweep: bool,
    ) -> Result<(), StoreError> {
        let mut log = tx.open_table(LOG).map_err(working)?;
        if ends_sweep {
            log.retain_in(..self.sweep_began, |_, _| false).map_err(working)?;
        }
        if !logged.is_empty() {
            log.insert(self.next, logged).map_err(working)?;
        }
        Ok(())
    }

    /// A sweep that ends makes another begin, before what is logged with it.
    const fn written(&mut self, weight: usize, ends_sweep: bool) {
        if ends_sweep {
            self.sweep_began = self.next;
            self.weight_before = self.weight_since;
            self.weight_since = 0;
        }
        self.weight_since += weight;
        self.next += 1;
    }
}

/// The tables of all buckets as they were when first asked for.
#[derive(Default)]
struct Tables(Option<Opened>);

struct Opened {
    newest_first: Vec<(Bucket, ReadOnlyTable<&'static [u8], u64>)>,
}

impl Tables {
    fn opened(&mut self, store: &Store) -> Result<&Opened, StoreError> {
        if self.0.is_none() {
            self.0 = Some(Opened::new(store)?);
        }
        self.0.as_ref().ok_or_else(|| corrupt("no tables"))
    }
}

impl Opened {
    fn new(store: &Store) -> Result<Self, StoreError> {
        let tx = store.file.read()?;
        let mut newest_first = Vec::new();
        for bucket in store.buckets.iter().rev() {
            newest_first.push((*bucket, tx.open_table(table(&name_of(*bucket))).map_err(working)?));
        }
        Ok(Self { newest_first })
    }

    /// The key's record in the latest bucket that is not before `from`.
    fn find(&self, key: &[u8], from: Bucket) -> Result<Option<Record>, StoreError> {
        let tables = self.newest_first.iter().take_while(|(bucket, _)| *bucket >= from);
        for (bucket, table) in tables {
            if let Some(token) = table.get(key).map_err(working)? {
                return Ok(Some(Record { bucket: *bucket, token: Token::new(token.value()) }));
            }
        }
        Ok(None)
    }
}

const PREFIX: &str = "bucket ";

fn name_of(bucket: Bucket) -> String {
    format!("{PREFIX}{}", bucket.number())
}

fn bucket_of(name: &str) -> Option<Bucket> {
    name.strip_prefix(PREFIX)?.parse().ok().map(Bucket::new)
}

const fn table(name: &str) -> TableDefinition<'_, &'static [u8], u64> {
    TableDefinition::new(name)
}
