//! Hapax on a clock that new keys move: a window in its steady state, where as
//! many keys expire as come.

use super::hapax::{check_batch, forget_all};
use super::{BATCH, Engine, Room, SPAN};
use hapax::{Deduper, ManualClock, Mode, Timestamp, Verdict, Window};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const BUCKETS: u32 = 8;

/// The rate asked of filters.
pub(super) const FILTER_RATE: f64 = 0.01;

pub(super) struct RollingEngine {
    dedup: Deduper,
    clock: Arc<ManualClock>,
    /// New keys in a bucket.
    share: u64,
    /// New keys so far.
    recorded: AtomicU64,
}

/// How many new keys fill a bucket of a window with so many live keys.
pub(super) const fn keys_per_bucket(live_keys: u64) -> u64 {
    let share = live_keys / BUCKETS as u64;
    if share > BATCH as u64 { share } else { BATCH as u64 }
}

impl RollingEngine {
    /// Moves on by a bucket with every bucket's share of new keys.
    pub(super) fn rolling(room: Room) -> Self {
        Self::new(room, Mode::fingerprint(), keys_per_bucket(room.live_keys))
    }

    /// The same in filter mode. Made for the keys of one span, as those beside
    /// it are.
    pub(super) fn filtering(room: Room) -> Self {
        let room = Room { capacity: room.live_keys, ..room };
        Self::new(room, Mode::filter(FILTER_RATE), keys_per_bucket(room.live_keys))
    }

    /// The same, but time does not move.
    pub(super) fn standing_still(room: Room) -> Self {
        Self::new(room, Mode::fingerprint(), u64::MAX)
    }

    fn new(room: Room, mode: Mode, share: u64) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000_000_000)));
        let dedup = Deduper::builder(Window::fixed(SPAN).buckets(BUCKETS))
            .capacity(room.capacity)
            .mode(mode)
            .trusted_keys()
            .clock(Arc::clone(&clock))
            .build()
            .expect("a valid configuration");
        Self { dedup, clock, share, recorded: AtomicU64::new(0) }
    }

    /// Counts new keys, and moves the clock where they fill a bucket.
    fn count(&self, new: u64) {
        // Relaxed: a counter that nothing else is read by.
        let before = self.recorded.fetch_add(new, Ordering::Relaxed);
        if before / self.share != (before + new) / self.share {
            self.clock.advance(SPAN / BUCKETS);
        }
    }
}

impl<const N: usize> Engine<N> for RollingEngine {
    fn check_all(&self, keys: &[[u8; N]], verdicts: &mut [Verdict]) {
        check_batch(&self.dedup, keys, verdicts);
        self.count(verdicts.iter().filter(|verdict| verdict.is_unique()).count() as u64);
    }

    fn forget_all(&self, keys: &[[u8; N]]) {
        forget_all(&self.dedup, keys);
    }

    fn memory_bytes(&self) -> Option<u64> {
        Some(self.dedup.stats().memory_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::key;

    #[test]
    fn as_many_keys_expire_as_come_where_time_moves() {
        let room = Room { live_keys: 4_096, capacity: 8_192, table_bytes: 0 };
        let engines = [RollingEngine::rolling(room), RollingEngine::standing_still(room)];
        for number in (0..40_960).step_by(BATCH) {
            let keys: Vec<[u8; 16]> = (number..number + BATCH as u64).map(key).collect();
            for engine in &engines {
                engine.check_all(&keys, &mut [Verdict::Late; BATCH]);
            }
        }
        let [rolling, still] = engines.map(|engine| {
            engine.dedup.maintain(SPAN);
            engine.dedup.stats().live_keys
        });
        assert!((4_096..=4_096 * 9 / 8 + 512).contains(&rolling), "{rolling} live keys");
        assert_eq!(still, 40_960);
    }
}
