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
use super::log::{Commit, Log};
use super::overlay::{Changes, Entry, Overlay, Share, weight_of};
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

    pub(super) fn forget<'key>(keys: impl Iterator<Item = &'key [u8]>) -> Self {
        Self::Forget(keys.map(<[u8]>::to_vec).collect())
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

impl Store {
    pub(super) fn open(
        storage: impl StorageBackend,
        settings: &FileSettings,
        overlay_bytes: usize,
    ) -> Result<Self, StoreError> {
        let mut store = Self {
            file: File::open(storage, settings, Kind::Keys, Log::make)?,
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

    #[cfg(test)]
    pub(super) const fn overlay_bytes(&self) -> usize {
        self.overlay.bytes()
    }

    #[cfg(test)]
    pub(super) const fn set_overlay_bytes(&mut self, bytes: usize) {
        self.overlay.set_cap_bytes(bytes);
    }

    #[cfg(test)]
    pub(super) fn buckets(&self) -> BTreeSet<Bucket> {
        self.buckets.clone()
    }

    /// Finds the tables, and reads the log into the overlay.
    fn load(&mut self) -> Result<(), StoreError> {
        let tx = self.file.db.begin_read().map_err(opening)?;
        for table in tx.list_tables().map_err(opening)? {
            self.buckets.extend(bucket_of(table.name()));
        }
        self.log = Log::read(&tx, &mut self.overlay)?;
        tx.close().map_err(opening)?;
        let share = self.overlay.share(0);
        if (!share.entries.is_empty() || self.log.is_long(&self.overlay))
            && self.has_room_anew(&share).map_err(opening)?
        {
            let tx = self.file.db.begin_write().map_err(opening)?;
            self.write_anew(tx, &share).map_err(opening)?;
        }
        Ok(())
    }

    /// True iff a log written anew fits under the limit beside the old one.
    fn has_room_anew(&mut self, share: &Share) -> Result<bool, redb::Error> {
        self.file.has_room(written_bytes(share.entries.len(), self.overlay.bytes()))
    }

    /// Writes the log anew, and moves a share of the overlay to the tables. A sweep under way
    /// begins anew, too: it passed by keys that are in the new log.
    fn write_anew(&mut self, tx: WriteTransaction, share: &Share) -> Result<(), redb::Error> {
        self.overlay.moved(share);
        let buckets = self.buckets.clone();
        self.buckets = move_to_tables(&tx, share, Bucket::new(i64::MIN), buckets)?;
        self.log.rewrite(&tx, &self.overlay)?;
        self.overlay.begin_sweep();
        self.file.quota.release(u64::MAX);
        Ok(tx.commit()?)
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
        self.file.has_room(written_bytes(keys, bytes)).map_err(working)
    }

    /// Writes changes, and drops what lies in buckets before `before`.
    fn commit(&mut self, changes: Changes, before: Option<Bucket>) -> Result<(), StoreError> {
        let expires = before.filter(|before| self.has_before(*before));
        let commit = Commit { changes, expires };
        if commit.is_empty() {
            return Ok(());
        }
        let weight = weight_of(&commit.changes);
        let share = self.overlay.share(weight);
        self.buckets = self.write(&commit, &share)?;

        let bytes = commit.changes.keys().map(Vec::len).sum();
        self.file.quota.take(lasting_bytes(commit.changes.len(), bytes));
        if expires.is_some() {
            self.file.quota.release(u64::MAX);
        }
        self.log.written(weight, share.ends_sweep);
        self.overlay.moved(&share);
        commit.apply(&mut self.overlay);
        self.shorten_log()
    }

    /// True iff something lies in buckets before this one.
    fn has_before(&self, before: Bucket) -> bool {
        self.buckets.range(..before).next().is_some() || self.overlay.has_before(before)
    }

    /// Writes in one transaction, and returns the buckets that have tables then.
    fn write(&self, commit: &Commit, share: &Share) -> Result<BTreeSet<Bucket>, StoreError> {
        let low = commit.expires.unwrap_or(Bucket::new(i64::MIN));
        let tx = self.file.write()?;
        for bucket in self.buckets.range(..low) {
            tx.delete_table(table(&name_of(*bucket))).map_err(working)?;
        }
        let live = self.buckets.range(low..).copied().collect();
        let buckets = move_to_tables(&tx, share, low, live).map_err(working)?;
        self.log.write(&tx, commit, share.ends_sweep)?;
        tx.commit().map_err(working)?;
        Ok(buckets)
    }

    /// Writes a long log anew: after what was logged, so each time for at least twice as much.
    fn shorten_log(&mut self) -> Result<(), StoreError> {
        let nothing = Share::default();
        if self.log.is_long(&self.overlay) && self.has_room_anew(&nothing).map_err(working)? {
            let tx = self.file.write()?;
            self.write_anew(tx, &nothing).map_err(working)?;
        }
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

/// What writing so many keys may take at first: a page for each may be written beside the
/// one that it replaces.
const fn written_bytes(keys: usize, bytes: usize) -> u64 {
    lasting_bytes(keys, bytes) + keys as u64 * PAGE_BYTES
}

/// Puts a share of the overlay into the tables of `buckets`, but for records in buckets
/// before `low`, and returns which tables there are then.
fn move_to_tables(
    tx: &WriteTransaction,
    share: &Share,
    low: Bucket,
    mut buckets: BTreeSet<Bucket>,
) -> Result<BTreeSet<Bucket>, redb::Error> {
    let mut tables: BTreeMap<Bucket, Table<'_, &[u8], u64>> = BTreeMap::new();
    for (key, entry) in &share.entries {
        if entry.purges {
            for bucket in &buckets {
                opened(tx, &mut tables, *bucket)?.remove(key.as_slice())?;
            }
        }
        if let Some(record) = entry.record.filter(|record| record.bucket >= low) {
            let table = opened(tx, &mut tables, record.bucket)?;
            table.insert(key.as_slice(), record.token.number())?;
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
) -> Result<&'tables mut Table<'tx, &'static [u8], u64>, redb::Error> {
    use std::collections::btree_map::Entry::{Occupied, Vacant};
    match tables.entry(bucket) {
        Occupied(entry) => Ok(entry.into_mut()),
        Vacant(entry) => Ok(entry.insert(tx.open_table(table(&name_of(bucket)))?)),
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
