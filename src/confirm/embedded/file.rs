//! One redb file: what it keeps, whose it is, and how much it may take.

use super::Durability;
use super::failure::{corrupt, opening, refused, working};
use super::medium::open_file;
use super::quota::{LEAST_BYTES, Quota};
use crate::confirm::{StoreError, StoreErrorKind};
use redb::backends::FileBackend;
use redb::{
    Database, ReadTransaction, ReadableDatabase as _, ReadableTable, StorageBackend,
    TableDefinition, TableError, WriteTransaction,
};
use std::path::{Path, PathBuf};

/// What the file is: its format, what it keeps, its owner, and whatever else its keeper
/// notes.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("hapax");
const FORMAT: u64 = 1;

/// A page of the file.
pub(super) const PAGE_BYTES: u64 = 4_096;

/// What a file keeps. One that does not say keeps keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Kind {
    Keys = 0,
    Claims = 1,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Keys => "a confirmer's keys",
            Self::Claims => "claims",
        }
    }

    fn of(number: u64) -> Result<Self, StoreError> {
        [Self::Keys, Self::Claims].into_iter().find(|kind| *kind as u64 == number).ok_or_else(
            || refused(format!("the file keeps what no version up to this one did: {number}")),
        )
    }
}

/// What is asked of a file.
#[derive(Clone, Debug)]
pub(super) struct FileSettings {
    pub(super) path: PathBuf,
    pub(super) durability: Durability,
    pub(super) cache_bytes: usize,
    pub(super) disk_limit_bytes: Option<u64>,
}

impl FileSettings {
    pub(super) fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            durability: Durability::Synced,
            cache_bytes: 64 << 20,
            disk_limit_bytes: None,
        }
    }

    /// Opens the file, or creates it.
    pub(super) fn storage(&self) -> Result<FileBackend, StoreError> {
        if self.disk_limit_bytes.is_some_and(|limit| limit < LEAST_BYTES) {
            return Err(refused("a disk limit under 16 MiB has no room to work in"));
        }
        open_file(&self.path)
    }
}

/// A file and its owner.
pub(super) struct File {
    pub(super) db: Database,
    pub(super) quota: Quota,
    epoch: u64,
    #[cfg(test)]
    kind: Kind,
}

impl File {
    /// Becomes the owner of a file that keeps this; an empty one is made so, with the tables
    /// that `make` opens.
    pub(super) fn open(
        storage: impl StorageBackend,
        settings: &FileSettings,
        kind: Kind,
        make: impl FnOnce(&WriteTransaction) -> Result<(), TableError>,
    ) -> Result<Self, StoreError> {
        let mut builder = Database::builder();
        // Whoever owns a file reads all of it after a start anyway, and without the
        // check damage would come to light in an answer.
        builder.set_cache_size(settings.cache_bytes).set_check_integrity_on_open(true);
        let db = builder.create_with_backend(storage).map_err(opening)?;
        let tx = db.begin_write().map_err(opening)?;
        let epoch = own(&tx, kind)?;
        make(&tx).map_err(opening)?;
        tx.commit().map_err(opening)?;
        Ok(Self {
            db,
            quota: Quota::new(settings.disk_limit_bytes),
            epoch,
            #[cfg(test)]
            kind,
        })
    }

    /// Higher than that of every owner before.
    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Begins to read, unless there was another owner since.
    pub(super) fn read(&self) -> Result<ReadTransaction, StoreError> {
        let tx = self.db.begin_read().map_err(working)?;
        self.check_owner(&tx.open_table(META).map_err(working)?)?;
        Ok(tx)
    }

    /// Begins to write, unless there was another owner since.
    pub(super) fn write(&self) -> Result<WriteTransaction, StoreError> {
        let tx = self.db.begin_write().map_err(working)?;
        self.check_owner(&tx.open_table(META).map_err(working)?)?;
        Ok(tx)
    }

    /// Refuses to go on for an owner after which there was another.
    fn check_owner(&self, meta: &impl ReadableTable<&'static str, u64>) -> Result<(), StoreError> {
        match meta.get("epoch").map_err(working)?.map(|epoch| epoch.value()) {
            Some(epoch) if epoch == self.epoch => Ok(()),
            Some(epoch) => {
                let cause = format!("owner {epoch} came after owner {}", self.epoch);
                Err(StoreError::new(StoreErrorKind::Fenced, cause))
            }
            None => Err(corrupt("the file has lost its owner's epoch")),
        }
    }

    /// True iff so many bytes fit under the limit.
    pub(super) fn has_room(&mut self, more: u64) -> Result<bool, redb::Error> {
        let db = &self.db;
        self.quota.allows(more, || used_bytes(db))
    }

    /// Lets there have been another owner, which no lock kept out.
    #[cfg(test)]
    pub(super) fn be_followed(&self) {
        let tx = self.db.begin_write().unwrap();
        own(&tx, self.kind).unwrap();
        tx.commit().unwrap();
    }
}

/// About what keys take for good: in a log, and in pages that are half full.
pub(super) const fn lasting_bytes(keys: usize, bytes: usize) -> u64 {
    (3 * (bytes + 32 * keys)) as u64
}

/// What the file's pages take; reads all inner pages of all tables.
fn used_bytes(db: &Database) -> Result<u64, redb::Error> {
    let tx = db.begin_write()?;
    let stats = tx.stats()?;
    tx.abort()?;
    Ok(stats.allocated_pages() * stats.page_size() as u64)
}

/// Makes a new owner of the file, and of an empty one a store.
fn own(tx: &WriteTransaction, kind: Kind) -> Result<u64, StoreError> {
    let is_empty = tx.list_tables().map_err(opening)?.next().is_none();
    let mut meta = tx.open_table(META).map_err(opening)?;
    let read = |field| meta.get(field).map(|value| value.map(|value| value.value()));
    match read("format").map_err(opening)? {
        Some(FORMAT) => check_kind(read("kind").map_err(opening)?.unwrap_or(0), kind)?,
        None if is_empty => {}
        None => return Err(corrupt("this file is not a store of hapax")),
        Some(newer) => {
            return Err(refused(format!(
                "the file has format {newer}, and this version reads format {FORMAT}"
            )));
        }
    }
    let epoch = read("epoch").map_err(opening)?.unwrap_or(0) + 1;
    meta.insert("format", FORMAT).map_err(opening)?;
    meta.insert("kind", kind as u64).map_err(opening)?;
    meta.insert("epoch", epoch).map_err(opening)?;
    Ok(epoch)
}

fn check_kind(held: u64, wanted: Kind) -> Result<(), StoreError> {
    let held = Kind::of(held)?;
    if held == wanted {
        return Ok(());
    }
    let (held, wanted) = (held.name(), wanted.name());
    Err(refused(format!("the file keeps {held}: give {wanted} a file of their own")))
}
