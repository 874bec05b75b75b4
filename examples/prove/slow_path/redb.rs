//! redb used bare: one table, in which each key is looked for and, if it is not
//! there, put.

use crate::Failure;
use crate::keys::Key;
use redb::backends::FileBackend;
use redb::{BackendError, Database, ReadableTable as _, StorageBackend, TableDefinition};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::Path;

const KEYS: TableDefinition<'_, &[u8], u64> = TableDefinition::new("keys");

/// A database whose commits outlive the process, not the power.
pub(super) struct Redb(Database);

impl Redb {
    pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<Self, Failure> {
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        let mut builder = Database::builder();
        builder.set_cache_size(cache_bytes);
        Ok(Self(builder.create_with_backend(Unsynced(FileBackend::new(file)?))?))
    }

    /// Looks for all keys and puts those that are not there, in one transaction;
    /// how many those were. Where there is nothing to put, nothing is committed.
    pub(super) fn check_or_put(&self, keys: &[Key]) -> Result<u64, Failure> {
        let transaction = self.0.begin_write()?;
        let mut new = 0;
        {
            let mut table = transaction.open_table(KEYS)?;
            for key in keys {
                if table.get(key.as_slice())?.is_none() {
                    table.insert(key.as_slice(), 1)?;
                    new += 1;
                }
            }
        }
        if new == 0 {
            transaction.abort()?;
        } else {
            transaction.commit()?;
        }
        Ok(new)
    }
}

/// A file that is never synced.
#[derive(Debug)]
struct Unsynced(FileBackend);

impl StorageBackend for Unsynced {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.unlock_range(start, end)
    }
}
