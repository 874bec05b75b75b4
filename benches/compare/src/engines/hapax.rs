//! Hapax itself, on the system's clock.

use super::{Engine, Room, one_by_one};
use hapax::{Builder, Deduper, Verdict, Window};

/// How the engine is called.
#[derive(Clone, Copy, Debug)]
pub(super) enum Calls {
    /// `check_batch` with the whole batch.
    Batch,
    /// `check` for each key.
    Single,
}

pub(super) struct HapaxEngine {
    dedup: Deduper,
    calls: Calls,
}

impl HapaxEngine {
    pub(super) fn new(
        window: Window,
        room: Room,
        calls: Calls,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let builder = Deduper::builder(window).capacity(room.capacity);
        let dedup = configure(builder).build().expect("a valid configuration");
        Self { dedup, calls }
    }
}

impl<const N: usize> Engine<N> for HapaxEngine {
    fn check_all(&self, keys: &[[u8; N]], verdicts: &mut [Verdict]) {
        match self.calls {
            Calls::Batch => check_batch(&self.dedup, keys, verdicts),
            Calls::Single => one_by_one(keys, verdicts, |key| {
                !self.dedup.check(key).expect("no limit is set").is_unique()
            }),
        }
    }

    fn forget_all(&self, keys: &[[u8; N]]) {
        forget_all(&self.dedup, keys);
    }

    fn memory_bytes(&self) -> Option<u64> {
        Some(self.dedup.stats().memory_bytes)
    }
}

/// Checks a batch without a memory limit.
pub(super) fn check_batch<const N: usize>(
    dedup: &Deduper,
    keys: &[[u8; N]],
    verdicts: &mut [Verdict],
) {
    dedup.check_batch(keys, verdicts).expect("no limit is set");
}

/// Forgets every key.
pub(super) fn forget_all<const N: usize>(dedup: &Deduper, keys: &[[u8; N]]) {
    for key in keys {
        dedup.forget(key);
    }
}
