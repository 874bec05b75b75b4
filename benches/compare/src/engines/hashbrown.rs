//! What one writes by hand: 256 mutexes over hashbrown tables, each key hashed
//! once.

use super::stamps::{Stamp, Stamps, is_known};
use super::{Engine, Room, one_by_one};
use hapax::Verdict;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::Mutex;
use std::hash::BuildHasher;

const SHARDS: usize = 256;

type Table<const N: usize> = HashTable<([u8; N], Stamp)>;

pub(super) struct HashbrownEngine<const N: usize, S> {
    shards: Vec<Mutex<Table<N>>>,
    hasher: S,
    stamps: Stamps,
}

impl<const N: usize, S: BuildHasher + Default> HashbrownEngine<N, S> {
    pub(super) fn new(room: Room) -> Self {
        let share = room.ample().div_ceil(SHARDS);
        let table = || Mutex::new(HashTable::with_capacity(share));
        let shards = std::iter::repeat_with(table).take(SHARDS).collect();
        Self { shards, hasher: S::default(), stamps: Stamps::new() }
    }
}

impl<const N: usize, S: BuildHasher> HashbrownEngine<N, S> {
    /// The shard of a hash. The table takes its place from the lowest bits and
    /// its tag from the top seven, so these lie between.
    #[inline]
    fn shard(&self, hash: u64) -> &Mutex<Table<N>> {
        &self.shards[(hash >> 48) as usize % SHARDS]
    }
}

impl<const N: usize, S: BuildHasher + Send + Sync> Engine<N> for HashbrownEngine<N, S> {
    fn check_all(&self, keys: &[[u8; N]], verdicts: &mut [Verdict]) {
        let now = self.stamps.now();
        one_by_one(keys, verdicts, |key| {
            let hash = self.hasher.hash_one(key);
            let mut table = self.shard(hash).lock();
            let rehash = |(key, _): &([u8; N], Stamp)| self.hasher.hash_one(key);
            match table.entry(hash, |(other, _)| other == key, rehash) {
                Entry::Occupied(mut entry) => is_known(&mut entry.get_mut().1, now),
                Entry::Vacant(entry) => {
                    entry.insert((*key, now));
                    false
                }
            }
        });
    }

    fn forget_all(&self, keys: &[[u8; N]]) {
        for key in keys {
            let hash = self.hasher.hash_one(key);
            let mut table = self.shard(hash).lock();
            if let Ok(entry) = table.find_entry(hash, |(other, _)| other == key) {
                entry.remove();
            }
        }
    }
}
