//! redb, with a table for each bucket into which keys are put as they come.

use super::{Durability, Key, Outcome, Store};
use redb::backends::FileBackend;
use redb::{BackendError, Database, ReadableDatabase as _, StorageBackend, TableDefinition};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::Path;

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

pub(super) struct Redb(Database);

fn table(name: &str) -> TableDefinition<'_, &'static [u8], u64> {
    TableDefinition::new(name)
}

impl Redb {
    pub(super) fn open(folder: &Path, durability: Durability) -> Outcome<Self> {
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        let file = FileBackend::new(options.open(folder.join("keys.redb"))?)?;
        let mut builder = Database::builder();
        builder.set_cache_size(64 << 20);
        Ok(Self(match durability {
            Durability::Os => builder.create_with_backend(Unsynced(file))?,
            Durability::Synced => builder.create_with_backend(file)?,
        }))
    }
}

impl Store for Redb {
    fn write(&mut self, bucket: u64, keys: &[Key]) -> Outcome {
        let tx = self.0.begin_write()?;
        {
            let mut table = tx.open_table(table(&bucket.to_string()))?;
            for key in keys {
                table.insert(key.as_slice(), 1)?;
            }
        }
        Ok(tx.commit()?)
    }

    fn find(&self, newest: u64, key: &Key) -> Outcome<bool> {
        let tx = self.0.begin_read()?;
        for bucket in (0..=newest).rev() {
            if tx.open_table(table(&bucket.to_string()))?.get(key.as_slice())?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn drop_oldest(&mut self) -> Outcome {
        let tx = self.0.begin_write()?;
        tx.delete_table(table("0"))?;
        Ok(tx.commit()?)
    }
}
