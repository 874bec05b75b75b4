//! scc's `HashMap`, through its entry API.

use super::stamps::{Stamp, Stamps, is_known};
use super::{Engine, Room, one_by_one};
use hapax::Verdict;
use scc::HashMap;
use scc::hash_map::Entry;
use std::hash::BuildHasher;

pub(super) struct SccEngine<const N: usize, S: BuildHasher> {
    map: HashMap<[u8; N], Stamp, S>,
    stamps: Stamps,
}

impl<const N: usize, S: BuildHasher + Default> SccEngine<N, S> {
    pub(super) fn new(room: Room) -> Self {
        let map = HashMap::with_capacity_and_hasher(room.ample(), S::default());
        Self { map, stamps: Stamps::new() }
    }
}

impl<const N: usize, S: BuildHasher + Send + Sync> Engine<N> for SccEngine<N, S> {
    fn check_all(&self, keys: &[[u8; N]], verdicts: &mut [Verdict]) {
        let now = self.stamps.now();
        one_by_one(keys, verdicts, |key| match self.map.entry_sync(*key) {
            Entry::Occupied(mut entry) => is_known(entry.get_mut(), now),
            Entry::Vacant(entry) => {
                entry.insert_entry(now);
                false
            }
        });
    }

    fn forget_all(&self, keys: &[[u8; N]]) {
        for key in keys {
            self.map.remove_sync(key);
        }
    }
}
