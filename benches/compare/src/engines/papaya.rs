//! papaya, through `compute`, pinned once a batch.

use super::stamps::{Stamp, Stamps, is_within};
use super::{Engine, Room, one_by_one};
use hapax::Verdict;
use papaya::{Compute, HashMap, Operation};
use std::hash::BuildHasher;

pub(super) struct PapayaEngine<const N: usize, S> {
    map: HashMap<[u8; N], Stamp, S>,
    stamps: Stamps,
}

impl<const N: usize, S: BuildHasher + Default> PapayaEngine<N, S> {
    pub(super) fn new(room: Room) -> Self {
        let map = HashMap::with_capacity_and_hasher(room.ample(), S::default());
        Self { map, stamps: Stamps::new() }
    }
}

impl<const N: usize, S: BuildHasher + Send + Sync> Engine<N> for PapayaEngine<N, S> {
    fn check_all(&self, keys: &[[u8; N]], verdicts: &mut [Verdict]) {
        let now = self.stamps.now();
        let map = self.map.pin();
        one_by_one(keys, verdicts, |key| {
            let outcome = map.compute(*key, |entry| match entry {
                Some((_, recorded)) if is_within(*recorded, now) => Operation::Abort(()),
                _ => Operation::Insert(now),
            });
            matches!(outcome, Compute::Aborted(()))
        });
    }

    fn forget_all(&self, keys: &[[u8; N]]) {
        let map = self.map.pin();
        for key in keys {
            map.remove(key);
        }
    }
}
