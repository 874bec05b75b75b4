//! moka's sync cache, whose own time-to-live is the window.
//!
//! No capacity is set: bounding it would cost moka more.

use super::{Engine, Room, SPAN, one_by_one};
use hapax::Verdict;
use moka::sync::Cache;
use std::hash::BuildHasher;

pub(super) struct MokaEngine<const N: usize, S> {
    cache: Cache<[u8; N], (), S>,
}

impl<const N: usize, S> MokaEngine<N, S>
where
    S: BuildHasher + Clone + Default + Send + Sync + 'static,
{
    pub(super) fn new(room: Room) -> Self {
        let cache = Cache::builder()
            .initial_capacity(room.ample())
            .time_to_live(SPAN)
            .build_with_hasher(S::default());
        Self { cache }
    }
}

impl<const N: usize, S> Engine<N> for MokaEngine<N, S>
where
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    fn check_all(&self, keys: &[[u8; N]], verdicts: &mut [Verdict]) {
        one_by_one(keys, verdicts, |key| !self.cache.entry_by_ref(key).or_insert(()).is_fresh());
    }

    fn forget_all(&self, keys: &[[u8; N]]) {
        for key in keys {
            self.cache.invalidate(key);
        }
        self.cache.run_pending_tasks();
    }
}
