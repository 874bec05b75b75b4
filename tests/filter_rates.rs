//! Guarantee 3 in filter mode: new keys are called `Duplicate` as often as is
//! predicted, and no more often than was asked for, at any load.
//!
//! Nothing is left to chance: secrets and keys are fixed. An allowance of four
//! deviations of the count is for the choice of these.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use hapax::{Deduper, KeyHash, ManualClock, Mode, Timestamp, Verdict, Window};
use siphasher::sip128::SipHasher13;
use std::sync::Arc;
use std::time::Duration;

const WIDTH: Duration = Duration::from_secs(60);

/// New keys are numbered from here, beyond all that are recorded.
const FIRST_NEW: u64 = 1 << 40;

/// A measured rate may exceed the predicted one by this part of it.
const SLACK: f64 = 1.1;

struct Rig {
    dedup: Deduper,
    clock: Arc<ManualClock>,
    rate: f64,
    next: u64,
}

impl Rig {
    fn new(rate: f64, buckets: u32, expected_keys: u64) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(0)));
        let dedup = Deduper::builder(Window::fixed(WIDTH * buckets).buckets(buckets))
            .capacity(expected_keys)
            .mode(Mode::filter(rate))
            .hash_secret(*b"a secret that lets tests replay.")
            .clock(Arc::clone(&clock))
            .build()
            .unwrap();
        Self { dedup, clock, rate, next: 0 }
    }

    /// Records so many new keys in the newest bucket.
    fn fill(&mut self, keys: u64) {
        record(&self.dedup, self.next..self.next + keys);
        self.next += keys;
    }

    /// Holds what is measured against what is predicted and was asked for.
    fn assert_rates(&self, probes: u64, what: &str) {
        let predicted = self.dedup.stats().false_duplicate_rate;
        assert!(predicted <= self.rate, "{what}: {predicted} predicted for {}", self.rate);
        let known = known(&self.dedup, probes);
        let allowed = most_known(predicted * SLACK, probes).min(most_known(self.rate, probes));
        assert!(known <= allowed, "{what}: {known} of {probes} new keys, {allowed} predicted");
    }
}

/// So many of the probes at a rate, and four deviations more.
fn most_known(rate: f64, probes: u64) -> f64 {
    let expected = rate * probes as f64;
    expected + 4.0 * expected.max(1.0).sqrt()
}

fn record(dedup: &Deduper, numbers: impl Iterator<Item = u64>) {
    let keys: Vec<_> = numbers.map(u64::to_le_bytes).collect();
    let mut verdicts = vec![Verdict::Late; keys.len()];
    dedup.check_batch(&keys, &mut verdicts).unwrap();
}

/// How many of so many new keys are called known.
fn known(dedup: &Deduper, probes: u64) -> f64 {
    let new = FIRST_NEW..FIRST_NEW + probes;
    new.filter(|number| dedup.contains(&number.to_le_bytes()).unwrap()).count() as f64
}

/// Fills a window one and a half times over, and probes it when it is full for
/// the first time, in the middle of a rotation, and at the end.
fn keeps_its_rates(rate: f64, buckets: u32, expected_keys: u64, load_percent: u64) {
    let mut rig = Rig::new(rate, buckets, expected_keys);
    let share = (expected_keys * load_percent).div_ceil(100 * u64::from(buckets));
    let generations = buckets + 1;
    let last = generations + generations / 2;
    for bucket in 1..=last {
        rig.fill(share / 2);
        let what = format!("{rate} over {buckets} buckets at {load_percent} %, bucket {bucket}");
        if bucket == generations + 1 {
            rig.assert_rates(10_000, &format!("{what}, half full"));
        }
        rig.fill(share - share / 2);
        if bucket == generations || bucket == last {
            rig.assert_rates(10_000, &what);
        }
        rig.clock.advance(WIDTH);
    }
}

fn keeps_its_rates_at_any_load(rate: f64, buckets: u32, expected_keys: u64) {
    for load_percent in [10, 50, 100, 200, 1_000] {
        keeps_its_rates(rate, buckets, expected_keys, load_percent);
    }
}

#[test]
fn one_in_ten_over_one_bucket() {
    keeps_its_rates_at_any_load(1e-1, 1, 15_000);
}

#[test]
fn one_in_ten_over_eight_buckets() {
    keeps_its_rates_at_any_load(1e-1, 8, 25_000);
}

#[test]
fn one_in_a_hundred_over_eight_buckets() {
    keeps_its_rates_at_any_load(1e-2, 8, 25_000);
}

#[test]
fn one_in_a_hundred_over_sixty_four_buckets() {
    keeps_its_rates_at_any_load(1e-2, 64, 15_000);
}

#[test]
fn one_in_a_thousand_over_eight_buckets() {
    keeps_its_rates_at_any_load(1e-3, 8, 25_000);
}

#[test]
fn one_in_a_million_over_eight_buckets() {
    keeps_its_rates_at_any_load(1e-6, 8, 15_000);
}

/// A hash whose secret somebody knows.
fn known_hash(key: &[u8]) -> u128 {
    SipHasher13::new_with_key(&[8; 16]).hash(key).as_u128()
}

/// Numbers whose keys, under the known secret, all meet in an eighth of the
/// blocks.
fn chosen_numbers() -> impl Iterator<Item = u64> {
    (0..).filter(|number: &u64| known_hash(&number.to_le_bytes()) as u64 >> 61 == 0)
}

/// What chosen keys could do to a filter whose secret is known: they fill some
/// of its blocks far beyond what their number says.
#[test]
fn keys_chosen_under_the_secret_itself_raise_the_rate() {
    let builder = Deduper::builder(Window::unbounded()).mode(Mode::filter(1e-2));
    let builder = builder.hash_with(|key| KeyHash::new(known_hash(key)));
    let dedup = builder.capacity(200_000).build().unwrap();
    record(&dedup, chosen_numbers().take(200_000));
    assert!(known(&dedup, 20_000) > 1_000.0, "the choice of keys is none");
}

#[test]
fn a_million_keys_chosen_under_another_secret_do_not_raise_the_rate() {
    let mut rig = Rig::new(1e-2, 1, 1_000_000);
    record(&rig.dedup, chosen_numbers().take(1_000_000));
    rig.assert_rates(50_000, "chosen keys");
    rig.clock.advance(WIDTH);
    rig.fill(10_000);
    rig.assert_rates(50_000, "chosen keys, and others");
}
