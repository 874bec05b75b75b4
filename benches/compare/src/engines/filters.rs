//! Eight Bloom filters of the crate fastbloom, as one would keep a window with
//! them: a key is looked for in all, and a new one goes into the newest; when
//! that is full, the oldest is emptied and becomes the newest. Each takes a
//! seventh of the window, so that the seven that are full hold all of it.
//!
//! In their favour: for the grain that Hapax keeps with eight buckets it would
//! take nine filters; a key is hashed once for all of them; and each has exactly
//! the size that it needs.

use super::rolling::FILTER_RATE;
use super::{Ahash, Engine, Room, one_by_one};
use fastbloom::BloomFilter;
use hapax::Verdict;
use parking_lot::Mutex;

const FILTERS: u64 = 8;

/// Locked once a batch: it is for one thread.
pub(super) struct FastbloomEngine(Mutex<Filters>);

struct Filters {
    filters: Vec<BloomFilter<Ahash>>,
    hasher: Ahash,
    newest: usize,
    /// New keys in the newest filter.
    taken: u64,
    /// The keys that each filter is for.
    share: u64,
}

impl FastbloomEngine {
    pub(super) fn new(room: Room) -> Self {
        let share = room.live_keys.div_ceil(FILTERS - 1);
        let rate = FILTER_RATE / FILTERS as f64;
        let hasher = Ahash::new();
        let filter = || {
            let builder = BloomFilter::with_false_pos(rate).hasher(hasher.clone());
            builder.expected_items(share as usize)
        };
        let filters = (0..FILTERS).map(|_| filter()).collect();
        Self(Mutex::new(Filters { filters, hasher, newest: 0, taken: 0, share }))
    }
}

impl Filters {
    /// Whether the key was known; if not, it is now.
    fn is_known(&mut self, key: &[u8]) -> bool {
        let hash = self.hasher.hash_one(key);
        let is_known = self.filters.iter().any(|filter| filter.contains_hash(hash));
        if !is_known {
            self.record(hash);
        }
        is_known
    }

    fn record(&mut self, hash: u64) {
        if self.taken == self.share {
            self.newest = (self.newest + 1) % self.filters.len();
            self.filters[self.newest].clear();
            self.taken = 0;
        }
        self.filters[self.newest].insert_hash(hash);
        self.taken += 1;
    }
}

impl<const N: usize> Engine<N> for FastbloomEngine {
    fn check_all(&self, keys: &[[u8; N]], verdicts: &mut [Verdict]) {
        let mut filters = self.0.lock();
        one_by_one(keys, verdicts, |key| filters.is_known(key));
    }

    /// A Bloom filter cannot forget a key.
    fn forget_all(&self, _keys: &[[u8; N]]) {}

    fn memory_bytes(&self) -> Option<u64> {
        let bits = |filter: &BloomFilter<Ahash>| filter.num_bits() as u64;
        Some(self.0.lock().filters.iter().map(bits).sum::<u64>() / 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engines::BATCH;
    use crate::stream::key;

    #[test]
    fn as_many_keys_are_dropped_as_come() {
        const SHARE: u64 = 1_000;
        let room = Room { live_keys: 7 * SHARE, capacity: 7 * SHARE, table_bytes: 0 };
        let engine = FastbloomEngine::new(room);
        let uniques = |numbers: std::ops::Range<u64>| {
            let keys: Vec<[u8; 16]> = numbers.map(key).collect();
            let mut verdicts = vec![Verdict::Late; keys.len()];
            for (keys, verdicts) in keys.chunks(BATCH).zip(verdicts.chunks_mut(BATCH)) {
                engine.check_all(keys, verdicts);
            }
            verdicts.iter().filter(|verdict| verdict.is_unique()).count() as u64
        };
        assert!(uniques(0..7 * SHARE) > 7 * SHARE * 98 / 100);
        // A few were never recorded, because they were taken for others.
        assert!(uniques(0..7 * SHARE) < SHARE / 50);
        assert!(uniques(7 * SHARE..16 * SHARE) > 9 * SHARE * 98 / 100);
        assert!(uniques(9 * SHARE..16 * SHARE) < SHARE / 20);
        assert!(uniques(0..7 * SHARE) > 7 * SHARE * 97 / 100);
    }
}
