//! The Bloom filters of other crates, behind one trait, and a window of them.

use super::grid::Point;
use super::window::{Key, Window};
use bloomfilter::Bloom;
use fastbloom::BloomFilter;
use growable_bloom_filter::GrowableBloom;
use std::collections::VecDeque;

/// A Bloom filter. Secrets are fixed where a crate lets one, so that a run can
/// be repeated.
pub(crate) trait Filter {
    /// An empty filter for so many keys at a rate.
    fn new(keys: u64, rate: f64) -> Self;

    fn contains(&self, key: &Key) -> bool;

    fn insert(&mut self, key: &Key);

    /// Bits of its vector, or vectors.
    fn bits(&self) -> u64;

    /// Cache lines that a probe for a new key reads, on average, with so many
    /// keys in it: it ends at the first bit that is not set.
    fn lines(&self, keys: u64) -> f64;
}

impl Filter for Bloom<Key> {
    fn new(keys: u64, rate: f64) -> Self {
        // Its halves key two hashes, which must not be the same.
        let seed = std::array::from_fn(|byte| byte as u8);
        Self::new_for_fp_rate_with_seed(keys as usize, rate, &seed).expect("a valid rate")
    }

    fn contains(&self, key: &Key) -> bool {
        self.check(key)
    }

    fn insert(&mut self, key: &Key) {
        self.set(key);
    }

    fn bits(&self) -> u64 {
        self.len()
    }

    fn lines(&self, keys: u64) -> f64 {
        let hashes = self.number_of_hash_functions();
        bits_read(hashes, f64::from(hashes) * keys as f64 / self.len() as f64)
    }
}

impl Filter for BloomFilter {
    fn new(keys: u64, rate: f64) -> Self {
        Self::with_false_pos(rate).seed(&5).expected_items(keys as usize)
    }

    fn contains(&self, key: &Key) -> bool {
        self.contains(key)
    }

    fn insert(&mut self, key: &Key) {
        self.insert(key);
    }

    fn bits(&self) -> u64 {
        self.num_bits() as u64
    }

    fn lines(&self, keys: u64) -> f64 {
        let hashes = self.num_hashes();
        bits_read(hashes, f64::from(hashes) * keys as f64 / self.num_bits() as f64)
    }
}

/// A growing filter, and what it was made for, which it does not tell.
pub(crate) struct Growable {
    filter: GrowableBloom,
    keys: u64,
    rate: f64,
}

/// One part of a growing filter, as the crate makes it (version 2.1): each
/// twice as large as the one before, at 0.8515625 of its rate, with its bits
/// in as many slices as a key has.
struct Part {
    keys: u64,
    slices: u32,
    slice_bits: f64,
}

impl Growable {
    fn parts(&self) -> impl Iterator<Item = Part> {
        let count = (self.filter.capacity() as u64 / self.keys + 1).ilog2();
        (0..count).map(|place| {
            let keys = self.keys << place;
            let rate = self.rate * 0.851_562_5_f64.powi(place as i32);
            let slices = (1.0 / rate).log2().ceil() as u32;
            Part { keys, slices, slice_bits: (keys as f64 / 2_f64.ln()).ceil() }
        })
    }
}

impl Filter for Growable {
    fn new(keys: u64, rate: f64) -> Self {
        Self { filter: GrowableBloom::new(rate, keys as usize), keys, rate }
    }

    fn contains(&self, key: &Key) -> bool {
        self.filter.contains(key)
    }

    fn insert(&mut self, key: &Key) {
        self.filter.insert(key);
    }

    fn bits(&self) -> u64 {
        self.parts().map(|part| (f64::from(part.slices) * part.slice_bits) as u64).sum()
    }

    fn lines(&self, keys: u64) -> f64 {
        let mut left = keys;
        let lines = self.parts().map(|part| {
            let keys = left.min(part.keys);
            left -= keys;
            bits_read(part.slices, keys as f64 / part.slice_bits)
        });
        lines.sum()
    }
}

/// How many of its bits a new key's probe reads, on average, where each of the
/// filter's was set `sets` times.
fn bits_read(bits: u32, sets: f64) -> f64 {
    let set = 1.0 - (-sets).exp();
    (1.0 - set.powi(bits as i32)) / (1.0 - set)
}

/// A filter for each bucket that can be live: all are probed, the newest takes
/// the new keys, the oldest is dropped.
pub(crate) struct Rotating<F> {
    /// The newest first, each with the keys that it took.
    filters: VecDeque<(F, u64)>,
    generations: usize,
    keys_per_filter: u64,
    rate: f64,
}

impl<F: Filter> Rotating<F> {
    pub(crate) fn new(point: Point, expected_keys: u64) -> Self {
        let expected = Point { load_percent: 100, ..point };
        let mut window = Self {
            filters: VecDeque::new(),
            generations: point.generations() as usize,
            keys_per_filter: expected.keys_per_bucket(expected_keys),
            rate: point.rate / f64::from(point.generations()),
        };
        window.next_bucket();
        window
    }
}

impl<F: Filter> Window for Rotating<F> {
    fn record(&mut self, keys: &[Key]) {
        for key in keys {
            if !self.filters.iter().any(|(filter, _)| filter.contains(key)) {
                let (filter, taken) = &mut self.filters[0];
                filter.insert(key);
                *taken += 1;
            }
        }
    }

    fn known(&self, keys: &[Key]) -> u64 {
        let is_known = |key| self.filters.iter().any(|(filter, _)| filter.contains(key));
        keys.iter().filter(|key| is_known(key)).count() as u64
    }

    fn next_bucket(&mut self) {
        self.filters.truncate(self.generations - 1);
        self.filters.push_front((F::new(self.keys_per_filter, self.rate), 0));
    }

    fn predicted(&self) -> Option<f64> {
        None
    }

    fn bits(&self) -> u64 {
        self.filters.iter().map(|(filter, _)| filter.bits()).sum()
    }

    fn lines(&self) -> f64 {
        self.filters.iter().map(|(filter, keys)| filter.lines(*keys)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::key;

    fn keeps_its_keys_and_its_rate<F: Filter>() {
        let mut filter = F::new(2_000, 1e-2);
        for number in 0..2_000 {
            filter.insert(&key(number));
        }
        assert!((0..2_000).all(|number| filter.contains(&key(number))));
        let hits = (2_000..102_000).filter(|number| filter.contains(&key(*number))).count();
        assert!((500..1_300).contains(&hits), "{hits} of 100,000");
        let bits = filter.bits() as f64 / 2_000.0;
        assert!((9.0..12.0).contains(&bits), "{bits} bits a key");
        assert!((1.9..2.1).contains(&filter.lines(2_000)), "{}", filter.lines(2_000));
    }

    #[test]
    fn the_crates_are_called_as_they_should_be() {
        keeps_its_keys_and_its_rate::<Bloom<Key>>();
        keeps_its_keys_and_its_rate::<BloomFilter>();
        keeps_its_keys_and_its_rate::<Growable>();
    }

    /// The size of its vectors shows in what it writes, three digits a byte.
    #[test]
    fn a_growing_filter_is_as_large_as_is_computed() {
        let mut filter = Growable::new(1_000, 1e-3);
        for number in 0..20_000 {
            filter.insert(&key(number));
        }
        assert_eq!(filter.parts().count(), 5);
        let written = serde_json::to_value(&filter.filter).unwrap();
        let parts = written["b"].as_array().unwrap();
        let bytes: usize = parts.iter().map(|part| part["b"].as_array().unwrap().len()).sum();
        assert!((bytes as u64 * 8).abs_diff(filter.bits()) < 100);
    }

    #[test]
    fn a_bucket_is_dropped_when_it_can_no_longer_be_live() {
        let point = Point { rate: 1e-6, buckets: 2, load_percent: 100 };
        let mut window = Rotating::<BloomFilter>::new(point, 2_000);
        let keys: Vec<Key> = (0..1_000).map(key).collect();
        window.record(&keys);
        for _ in 0..2 {
            window.next_bucket();
            assert_eq!(window.known(&keys), 1_000);
        }
        window.next_bucket();
        assert_eq!(window.known(&keys), 0);
    }
}
