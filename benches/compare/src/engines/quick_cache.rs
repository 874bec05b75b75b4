//! `quick_cache`, with room enough that its eviction seldom comes into play.

use super::stamps::{Stamp, Stamps, is_known};
use super::{Ahash, Engine, Room, one_by_one};
use hapax::Verdict;
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle, EntryAction, EntryResult};

type Lifecycle<const N: usize> = DefaultLifecycle<[u8; N], Stamp>;

pub(super) struct QuickCacheEngine<const N: usize> {
    cache: Cache<[u8; N], Stamp, UnitWeighter, Ahash, Lifecycle<N>>,
    stamps: Stamps,
}

impl<const N: usize> QuickCacheEngine<N> {
    pub(super) fn new(room: Room) -> Self {
        let items = room.ample();
        let cache = Cache::with(
            items,
            items as u64,
            UnitWeighter,
            Ahash::default(),
            DefaultLifecycle::default(),
        );
        Self { cache, stamps: Stamps::new() }
    }
}

impl<const N: usize> Engine<N> for QuickCacheEngine<N> {
    fn check_all(&self, keys: &[[u8; N]], verdicts: &mut [Verdict]) {
        let now = self.stamps.now();
        one_by_one(keys, verdicts, |key| {
            let retain =
                |_: &[u8; N], recorded: &mut Stamp| EntryAction::Retain(is_known(recorded, now));
            match self.cache.entry(key, None, retain) {
                EntryResult::Retained(is_known) => is_known,
                EntryResult::Vacant(guard) => {
                    // Fails only where the key was removed meanwhile.
                    let _ = guard.insert(now);
                    false
                }
                _ => unreachable!("entries are only retained, and nobody sets a timeout"),
            }
        });
    }

    fn forget_all(&self, keys: &[[u8; N]]) {
        for key in keys {
            self.cache.remove(key);
        }
    }
}
