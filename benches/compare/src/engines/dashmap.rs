//! dashmap, through its entry API.

use super::stamps::{Reading, Stamp, Stamps, is_known};
use super::{Engine, Room, one_by_one};
use dashmap::{DashMap, Entry};
use hapax::Verdict;
use std::hash::BuildHasher;

pub(super) struct DashmapEngine<const N: usize, S> {
    map: DashMap<[u8; N], Stamp, S>,
    stamps: Stamps,
    reading: Reading,
}

impl<const N: usize, S: BuildHasher + Clone + Default> DashmapEngine<N, S> {
    pub(super) fn new(room: Room, reading: Reading) -> Self {
        let map = DashMap::with_capacity_and_hasher(room.ample(), S::default());
        Self { map, stamps: Stamps::new(), reading }
    }

    #[inline]
    fn is_known(&self, key: &[u8; N], now: Stamp) -> bool {
        match self.map.entry(*key) {
            Entry::Occupied(mut entry) => is_known(entry.get_mut(), now),
            Entry::Vacant(entry) => {
                entry.insert(now);
                false
            }
        }
    }
}

impl<const N: usize, S> Engine<N> for DashmapEngine<N, S>
where
    S: BuildHasher + Clone + Default + Send + Sync,
{
    fn check_all(&self, keys: &[[u8; N]], verdicts: &mut [Verdict]) {
        match self.reading {
            Reading::PerBatch => {
                let now = self.stamps.now();
                one_by_one(keys, verdicts, |key| self.is_known(key, now));
            }
            Reading::PerKey => {
                one_by_one(keys, verdicts, |key| self.is_known(key, self.stamps.now()));
            }
        }
    }

    fn forget_all(&self, keys: &[[u8; N]]) {
        for key in keys {
            self.map.remove(key);
        }
    }
}
