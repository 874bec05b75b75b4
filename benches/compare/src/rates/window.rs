//! A window of any engine: recorded in, moved on, and probed.

use super::bloom::{Growable, Rotating};
use super::grid::Point;
use bloomfilter::Bloom;
use clap::ValueEnum;
use fastbloom::BloomFilter;
use hapax::{Deduper, ManualClock, Mode, Stats, Timestamp, Verdict};
use std::sync::Arc;
use std::time::Duration;

pub(crate) type Key = [u8; 16];

const WIDTH: Duration = Duration::from_secs(60);

/// A window in its newest bucket.
pub(crate) trait Window {
    /// Checks keys that are new, and so records them, save those that it calls
    /// known.
    fn record(&mut self, keys: &[Key]);

    /// How many of the keys it calls known; records nothing.
    fn known(&self, keys: &[Key]) -> u64;

    /// Moves on by a bucket.
    fn next_bucket(&mut self);

    /// P(a new key is called known) now, by its own account.
    fn predicted(&self) -> Option<f64>;

    /// Bits of its memory.
    fn bits(&self) -> u64;

    /// Cache lines that a probe for a new key reads.
    fn lines(&self) -> f64;
}

/// The engines by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Hapax in filter mode
    Hapax,
    /// The crate bloomfilter, a filter for each bucket
    Bloomfilter,
    /// The crate fastbloom, a filter for each bucket
    Fastbloom,
    /// The crate growable-bloom-filter, a filter for each bucket
    GrowableBloomFilter,
}

impl Kind {
    pub(crate) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// The name on the command line and in reports.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value().expect("no kind is hidden");
        value.get_name().to_owned()
    }

    /// An empty window of the point's shape, made for so many keys.
    pub(crate) fn build(self, point: Point, expected_keys: u64) -> Box<dyn Window> {
        match self {
            Self::Hapax => Box::new(Hapax::new(point, expected_keys)),
            Self::Bloomfilter => Box::new(Rotating::<Bloom<Key>>::new(point, expected_keys)),
            Self::Fastbloom => Box::new(Rotating::<BloomFilter>::new(point, expected_keys)),
            Self::GrowableBloomFilter => Box::new(Rotating::<Growable>::new(point, expected_keys)),
        }
    }
}

struct Hapax {
    dedup: Deduper,
    clock: Arc<ManualClock>,
}

impl Hapax {
    fn new(point: Point, expected_keys: u64) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(0)));
        let window = hapax::Window::fixed(WIDTH * point.buckets).buckets(point.buckets);
        let dedup = Deduper::builder(window)
            .capacity(expected_keys)
            .mode(Mode::filter(point.rate))
            .hash_secret([5; 32])
            .clock(Arc::clone(&clock))
            .build()
            .expect("a valid configuration");
        Self { dedup, clock }
    }

    fn stats(&self) -> Stats {
        self.dedup.stats()
    }
}

impl Window for Hapax {
    fn record(&mut self, keys: &[Key]) {
        let mut verdicts = vec![Verdict::Late; keys.len()];
        self.dedup.check_batch(keys, &mut verdicts).expect("no limit is set");
    }

    fn known(&self, keys: &[Key]) -> u64 {
        let is_known = |key: &Key| self.dedup.contains(key).expect("in processing time");
        keys.iter().filter(|key| is_known(key)).count() as u64
    }

    fn next_bucket(&mut self) {
        self.clock.advance(WIDTH);
    }

    fn predicted(&self) -> Option<f64> {
        Some(self.stats().false_duplicate_rate)
    }

    fn bits(&self) -> u64 {
        self.stats().memory_bytes * 8
    }

    fn lines(&self) -> f64 {
        let filter = self.stats().filter.expect("in filter mode");
        filter.layers as f64 * f64::from(filter.lines)
    }
}
