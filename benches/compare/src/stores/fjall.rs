//! fjall, with a keyspace for each bucket.

use super::{Durability, Key, Outcome, Store};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::Path;

pub(super) struct Fjall {
    db: Database,
    /// By bucket, those that were opened.
    spaces: Vec<Keyspace>,
    mode: PersistMode,
}

impl Fjall {
    pub(super) fn open(folder: &Path, durability: Durability) -> Outcome<Self> {
        let builder = Database::builder(folder.join("keys.fjall"));
        let builder = builder.cache_size(64 << 20).max_journaling_size(128 << 20);
        let db = builder.worker_threads(1).manual_journal_persist(true).open()?;
        let mode = match durability {
            Durability::Os => PersistMode::Buffer,
            Durability::Synced => PersistMode::SyncData,
        };
        Ok(Self { db, spaces: Vec::new(), mode })
    }

    fn options() -> KeyspaceCreateOptions {
        KeyspaceCreateOptions::default().max_memtable_size(16 << 20).manual_journal_persist(true)
    }
}

impl Store for Fjall {
    fn write(&mut self, bucket: u64, keys: &[Key]) -> Outcome {
        if self.spaces.len() as u64 <= bucket {
            self.spaces.push(self.db.keyspace(&format!("bucket-{bucket}"), Self::options)?);
        }
        let mut batch = self.db.batch().durability(Some(self.mode));
        for key in keys {
            batch.insert(&self.spaces[bucket as usize], key.as_slice(), 1_u64.to_le_bytes());
        }
        Ok(batch.commit()?)
    }

    fn find(&self, newest: u64, key: &Key) -> Outcome<bool> {
        for space in self.spaces[..=newest as usize].iter().rev() {
            if space.contains_key(key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn drop_oldest(&mut self) -> Outcome {
        Ok(self.db.delete_keyspace(self.spaces.remove(0))?)
    }
}
