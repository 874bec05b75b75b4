//! Guarantee 6: keys chosen to collide. Verified mode suppresses nothing new,
//! finds every duplicate and stays usable; fingerprint mode cannot, which is
//! why its hash is keyed.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod model;

use hapax::{Deduper, KeyHash, ManualClock, Mode, OnFull, Timestamp, Verdict};
use model::config::{Config, Hashing};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn verified(hashing: Hashing) -> Config {
    Config { mode: Mode::verified(), hashing, ..Config::default() }
}

fn check_all(dedup: &Deduper, keys: std::ops::Range<u32>) -> Vec<Verdict> {
    let keys: Vec<_> = keys.map(u32::to_be_bytes).collect();
    let mut verdicts = vec![Verdict::Late; keys.len()];
    dedup.check_batch(&keys, &mut verdicts).unwrap();
    verdicts
}

fn assert_all(verdicts: &[Verdict], expected: Verdict, context: &str) {
    let wrong = verdicts.iter().filter(|verdict| **verdict != expected).count();
    assert_eq!(wrong, 0, "{context}: verdicts that are not {expected:?}");
}

#[test]
fn verified_mode_tells_colliding_keys_apart() {
    for hashing in Hashing::CUT {
        let (dedup, _clock) = verified(hashing).build();
        let context = format!("{hashing:?}");
        assert_all(&check_all(&dedup, 0..3_000), Verdict::Unique, &context);
        assert_all(&check_all(&dedup, 0..3_000), Verdict::Duplicate, &context);
        assert_eq!(dedup.stats().live_keys, 3_000);
        assert_eq!(dedup.stats().false_duplicate_rate.to_bits(), 0.0_f64.to_bits());
    }
}

#[test]
fn verified_mode_expires_and_forgets_colliding_keys() {
    for hashing in Hashing::CUT {
        let config = verified(hashing);
        let (dedup, clock) = config.build();
        let context = format!("{hashing:?}");
        assert_all(&check_all(&dedup, 0..1_000), Verdict::Unique, &context);
        assert!((0..100_u32).all(|key| dedup.forget(&key.to_be_bytes())));
        assert_all(&check_all(&dedup, 0..100), Verdict::Unique, &context);
        assert_all(&check_all(&dedup, 100..1_000), Verdict::Duplicate, &context);
        clock.advance(config.span + config.width());
        assert_all(&check_all(&dedup, 0..1_000), Verdict::Unique, &context);
    }
}

/// Keys of every length that start alike, so that only a whole comparison
/// tells them apart.
#[test]
fn verified_mode_compares_whole_keys() {
    let (dedup, _clock) = verified(Hashing::Colliding).build();
    let long = vec![b'x'; 5_000];
    for length in [0, 1, 2, 255, 256, 257, 4_095, 4_096, 5_000] {
        assert_eq!(dedup.check(&long[..length]), Ok(Verdict::Unique), "{length}");
        assert_eq!(dedup.check(&long[..length]), Ok(Verdict::Duplicate), "{length}");
    }
    for changed in [0, 1, 2_500, 4_998, 4_999] {
        let mut other = long.clone();
        other[changed] = b'y';
        assert_eq!(dedup.check(&other), Ok(Verdict::Unique), "byte {changed}");
        assert_eq!(dedup.check(&other), Ok(Verdict::Duplicate), "byte {changed}");
    }
}

/// Usable: the engine hashes each key once however full a shard is, so that
/// growing and colliding never call the hash again.
#[test]
fn a_key_is_hashed_once_per_check() {
    let hashed = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&hashed);
    let builder = verified(Hashing::Keyed).builder().hash_with(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        KeyHash::new(7)
    });
    let dedup = builder.build().unwrap();
    let _ = (check_all(&dedup, 0..2_000), check_all(&dedup, 0..2_000));
    assert_eq!(hashed.load(Ordering::Relaxed), 4_000);
}

/// One shard cannot be made to take more than the limit either: the rest of
/// the shards stay usable, and known keys known.
#[test]
fn colliding_keys_stay_within_the_limit() {
    let limit = 8 << 20;
    let clock = ManualClock::new(Timestamp::from_secs(1_790_000_000));
    let builder = verified(Hashing::Spread).builder().memory_limit(limit, OnFull::Reject);
    let dedup = builder.clock(clock).build().unwrap();
    let long = vec![b'.'; 1_000];
    let key = |number: u32| [&long[..], &number.to_be_bytes()].concat();
    let accepted: Vec<_> = (0..12_000).filter(|n| dedup.check(&key(*n)).is_ok()).collect();
    assert!(dedup.stats().memory_bytes <= limit);
    assert!((800..8_400).contains(&accepted.len()), "{} keys of 1 kB in 8 MiB", accepted.len());
    for number in accepted {
        assert_eq!(dedup.check(&key(number)), Ok(Verdict::Duplicate));
    }
}

/// What a collision costs in fingerprint mode: a new key is suppressed. With
/// the keyed default nobody can choose keys that do this.
#[test]
fn fingerprint_mode_suppresses_colliding_keys_which_is_why_the_hash_is_keyed() {
    let (dedup, _clock) = Config { hashing: Hashing::Colliding, ..Config::default() }.build();
    assert_eq!(dedup.check(b"first"), Ok(Verdict::Unique));
    assert_eq!(dedup.check(b"never seen before"), Ok(Verdict::Duplicate));
}

/// The shard is chosen by other bits than the fingerprint's 56: that is why
/// only the live keys of one shard count in the risk.
#[test]
fn keys_of_one_fingerprint_in_different_shards_are_told_apart() {
    let builder = Config::default().builder();
    let builder = builder.hash_with(|key| KeyHash::new(u128::from(key[0]) << 64));
    let dedup = builder.build().unwrap();
    for byte in 0..u8::try_from(dedup.stats().shards).unwrap() {
        assert_eq!(dedup.check(&[byte]), Ok(Verdict::Unique), "{byte}");
    }
}

#[test]
fn fingerprint_mode_states_the_risk_it_takes() {
    let (dedup, _clock) = Config::default().build();
    let before = dedup.stats().false_duplicate_rate;
    let _ = check_all(&dedup, 0..10_000);
    let stats = dedup.stats();
    let expected = 10_000.0 / stats.shards as f64 / 2.0_f64.powi(56);
    assert!(before.abs() < f64::EPSILON * expected, "an empty engine suppresses nothing");
    let ratio = stats.false_duplicate_rate / expected;
    assert!((0.5..2.0).contains(&ratio), "{ratio} times live keys in a shard / 2^56");
}
