//! The keys of a round, made before it is timed.
//!
//! A key is made from its number, so that a hundred million known keys need no
//! memory of their own, and those to be forgotten can be made again.

use crate::cell::{Mix, Skew};
use rand::Rng;
use rand::rngs::SmallRng;
use rand_distr::{Distribution, Zipf};
use std::ops::Range;

/// The finalizer of `SplitMix64` (Steele, Lea and Flood 2014): a bijection, so
/// that different numbers make different keys.
const fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The key of a number; different for different numbers if `N` is 8 or more.
pub(crate) fn key<const N: usize>(number: u64) -> [u8; N] {
    let mut key = [0; N];
    let mut word = number;
    for part in key.chunks_mut(8) {
        word = mixed(word);
        part.copy_from_slice(&word.to_le_bytes()[..part.len()]);
    }
    key
}

/// Which keys are known while a stream runs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Known {
    /// The numbers below `live_keys`.
    Fixed { live_keys: u64 },
    /// The `live_keys` numbers before the next new one.
    Trailing { live_keys: u64 },
}

/// One thread's keys for one pass.
#[derive(Debug)]
pub(crate) struct Stream<const N: usize> {
    pub(crate) keys: Vec<[u8; N]>,
    /// The numbers of the new ones among them.
    pub(crate) new: Range<u64>,
}

impl<const N: usize> Stream<N> {
    /// Draws `checks` keys, the new ones numbered from `first_new`.
    pub(crate) fn draw(
        mix: Mix,
        known: Known,
        first_new: u64,
        checks: u64,
        random: &mut SmallRng,
    ) -> Self {
        let mut choice = Choice::new(mix, known);
        let mut next_new = first_new;
        let keys = (0..checks).map(|_| key(choice.draw(&mut next_new, random))).collect();
        Self { keys, new: first_new..next_new }
    }

    /// How many of the keys are new.
    pub(crate) const fn news(&self) -> u64 {
        self.new.end - self.new.start
    }
}

/// How the next key is chosen.
struct Choice {
    new_share: f64,
    known: Known,
    zipf: Option<Zipf<f64>>,
}

impl Choice {
    fn new(mix: Mix, known: Known) -> Self {
        let (Known::Fixed { live_keys } | Known::Trailing { live_keys }) = known;
        let zipf = match mix.skew {
            Skew::Uniform => None,
            Skew::Zipf => Some(Zipf::new(live_keys as f64, 1.0).expect("one key or more")),
        };
        Self { new_share: mix.new_share, known, zipf }
    }

    fn draw(&mut self, next_new: &mut u64, random: &mut SmallRng) -> u64 {
        if random.random_bool(self.new_share) {
            *next_new += 1;
            return *next_new - 1;
        }
        match self.known {
            Known::Fixed { live_keys } => self.rank(live_keys, random),
            Known::Trailing { live_keys } => *next_new - 1 - self.rank(live_keys, random),
        }
    }

    /// Which of the known keys: 0 is the most frequent one.
    fn rank(&self, live_keys: u64, random: &mut SmallRng) -> u64 {
        match &self.zipf {
            None => random.random_range(0..live_keys),
            Some(zipf) => (zipf.sample(random) as u64).clamp(1, live_keys) - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use std::collections::{HashMap, HashSet};

    const LIVE: u64 = 10_000;
    const FIRST_NEW: u64 = 1 << 40;
    const FIXED: Known = Known::Fixed { live_keys: LIVE };

    fn draw(new_share: f64, skew: Skew, known: Known) -> Stream<16> {
        let mix = Mix { new_share, skew };
        Stream::draw(mix, known, FIRST_NEW, 20_000, &mut SmallRng::seed_from_u64(1))
    }

    /// Each key's number, with how often it came.
    fn counts(stream: &Stream<16>, numbers: impl Iterator<Item = u64>) -> HashMap<u64, usize> {
        let numbers: HashMap<[u8; 16], u64> = numbers.map(|number| (key(number), number)).collect();
        let mut counts = HashMap::new();
        for key in &stream.keys {
            *counts.entry(numbers[key]).or_default() += 1;
        }
        counts
    }

    #[test]
    fn keys_of_all_sizes_differ() {
        assert_eq!((0..1_000).map(key::<8>).collect::<HashSet<_>>().len(), 1_000);
        assert_eq!((0..1_000).map(key::<36>).collect::<HashSet<_>>().len(), 1_000);
        assert_eq!(key::<36>(5)[..16], key::<16>(5));
    }

    #[test]
    fn streams_have_the_mix_asked_for() {
        for new_share in [0.0, 0.5, 1.0] {
            let stream = draw(new_share, Skew::Uniform, FIXED);
            let counts = counts(&stream, (0..LIVE).chain(stream.new.clone()));
            let new = counts.iter().filter(|(number, _)| **number >= FIRST_NEW);
            assert_eq!(new.clone().count() as u64, stream.news());
            assert!(new.clone().all(|(_, count)| *count == 1));
            assert!((stream.news() as f64 / 20_000.0 - new_share).abs() < 0.02);
        }
    }

    #[test]
    fn uniform_known_keys_come_from_all_of_them() {
        let stream = draw(0.0, Skew::Uniform, FIXED);
        let counts = counts(&stream, 0..LIVE);
        assert!(counts.len() as u64 > LIVE * 8 / 10);
        assert!(counts.values().all(|count| *count < 20));
    }

    #[test]
    fn zipf_ranks_are_in_range_and_fall_off() {
        let stream = draw(0.0, Skew::Zipf, FIXED);
        let counts = counts(&stream, 0..LIVE);
        // 1 / the 10,000th harmonic number is 0.102.
        assert!((1_700..2_400).contains(&counts[&0]));
        assert!(counts[&0] > counts[&1] && counts[&1] > counts[&9]);
    }

    #[test]
    fn trailing_keys_are_the_latest() {
        let stream = draw(0.5, Skew::Uniform, Known::Trailing { live_keys: LIVE });
        let mut next = FIRST_NEW;
        for found in &stream.keys {
            if *found == key(next) {
                next += 1;
            } else {
                assert!((next - LIVE..next).any(|number| key(number) == *found));
                if next > FIRST_NEW + 50 {
                    break;
                }
            }
        }
    }
}
