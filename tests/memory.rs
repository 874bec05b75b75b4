//! Guarantee 5: memory is capped when told so, what happens at the cap is what
//! was chosen, and after a flood the memory is given back.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod model;

use hapax::{BatchErrorKind, CheckError, Deduper, ManualClock, Mode, OnFull, Timestamp, Verdict};
use model::config::{Config, Kind, MODES};
use model::rig::maintain_all;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const LIMIT: u64 = 5 << 20;
const SLACK: u64 = LIMIT / 20;
const FULL: CheckError = CheckError::Full { limit_bytes: LIMIT };

fn capped(config: &Config, on_full: OnFull) -> (Deduper, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(config.start));
    let builder = config.builder().clock(Arc::clone(&clock)).memory_limit(LIMIT, on_full);
    (builder.build().unwrap(), clock)
}

fn of(mode: Mode) -> Config {
    Config { mode, ..Config::default() }
}

fn key(number: u64) -> [u8; 16] {
    u128::from(number).to_be_bytes()
}

fn knows(dedup: &Deduper, number: u64) -> bool {
    dedup.contains(&key(number)).unwrap()
}

/// New keys in batches until one is refused, watching the memory; gives how
/// many were taken.
fn fill(dedup: &Deduper) -> u64 {
    let mut taken = 0;
    loop {
        let keys: Vec<_> = (taken..taken + 256).map(key).collect();
        let mut verdicts = vec![Verdict::Late; keys.len()];
        let answer = dedup.check_batch(&keys, &mut verdicts);
        assert!(dedup.stats().memory_bytes <= LIMIT);
        let Err(error) = answer else {
            assert!(verdicts.iter().all(|verdict| verdict.is_unique()));
            taken += 256;
            continue;
        };
        assert_eq!(error.source, BatchErrorKind::Check(FULL));
        assert!(verdicts[..error.completed].iter().all(|verdict| verdict.is_unique()));
        return taken + error.completed as u64;
    }
}

/// Checks new keys without refusal, watching the memory.
fn flood(dedup: &Deduper, keys: Range<u64>) {
    let keys: Vec<_> = keys.map(key).collect();
    let mut verdicts = vec![Verdict::Late; 256];
    for keys in keys.chunks(256) {
        let verdicts = &mut verdicts[..keys.len()];
        dedup.check_batch(keys, verdicts).unwrap();
        assert!(verdicts.iter().all(|verdict| verdict.is_unique()));
        assert_within_limit(dedup);
    }
}

/// How many 16-byte keys the limit is sure to hold: a third of what the stated
/// bytes per key allow, for tables between two sizes.
fn surely_held(mode: Mode) -> u64 {
    let bytes_per_key = if mode == Mode::verified() { 16 + 20 } else { 15 };
    LIMIT / bytes_per_key / 3
}

#[test]
fn at_the_cap_reject_knows_the_known_and_refuses_the_new() {
    for mode in MODES {
        let (dedup, _clock) = capped(&of(mode), OnFull::Reject);
        let taken = fill(&dedup);
        assert!(taken > surely_held(mode), "{taken} keys in {mode:?}");
        assert!((0..taken).all(|number| knows(&dedup, number)), "{mode:?}");

        // Shards fill unevenly: some still take a key where others refuse.
        let news = 1 << 40..(1 << 40) + 20_000;
        let answers: Vec<_> = news.clone().map(|number| dedup.check(&key(number))).collect();
        let refused = answers.iter().filter(|answer| **answer == Err(FULL)).count();
        let unique = answers.iter().filter(|answer| **answer == Ok(Verdict::Unique)).count();
        assert_eq!(refused + unique, answers.len());
        assert!(refused > 0);
        for (number, answer) in news.zip(answers) {
            assert_eq!(knows(&dedup, number), answer.is_ok(), "a refused key is not recorded");
        }
        for number in 0..taken {
            assert_eq!(dedup.check(&key(number)), Ok(Verdict::Duplicate), "{mode:?}");
        }
        let stats = dedup.stats();
        assert_eq!(stats.rejected, refused as u64 + 1, "the refused batch counts one");
        assert_eq!((stats.evicted, stats.uniques), (0, taken + unique as u64));
        assert_eq!(stats.live_keys, stats.uniques);
        assert_eq!(stats.memory_limit_bytes, Some(LIMIT));
        assert_within_limit(&dedup);
    }
}

#[test]
fn a_batch_stops_at_the_key_that_found_no_room() {
    for mode in MODES {
        let (dedup, _clock) = capped(&of(mode), OnFull::Reject);
        let taken = fill(&dedup);
        let refused =
            (taken..2 * taken).find(|number| dedup.check(&key(*number)) == Err(FULL)).unwrap();
        let keys = [0, 1, 0, refused, 2, 1 << 40].map(key);
        let mut verdicts = [Verdict::Late; 6];
        let error = dedup.check_batch(&keys, &mut verdicts).unwrap_err();
        assert_eq!((error.completed, error.source), (3, BatchErrorKind::Check(FULL)));
        assert_eq!(verdicts[..3], [Verdict::Duplicate; 3]);
        assert!(!knows(&dedup, refused) && !knows(&dedup, 1 << 40));
    }
}

#[test]
fn forgetting_or_expiry_makes_room_at_the_cap() {
    for mode in MODES {
        let config = of(mode);
        let (dedup, clock) = capped(&config, OnFull::Reject);
        let taken = fill(&dedup);
        clock.advance(config.span + config.width());
        let again = (0..taken).filter(|number| dedup.check(&key(*number)).is_ok()).count() as u64;
        assert!(again > taken / 2, "{again} of {taken} keys fit again in {mode:?}");
        assert_within_limit(&dedup);
    }
}

#[test]
fn forgetting_makes_room_in_the_table() {
    let (dedup, _clock) = capped(&of(Mode::fingerprint()), OnFull::Reject);
    let taken = fill(&dedup);
    assert!((0..taken).all(|number| dedup.forget(&key(number))));
    let again = (0..taken).filter(|number| dedup.check(&key(*number)).is_ok()).count() as u64;
    assert!(again > taken / 2, "{again} of {taken}");
}

/// A bucket's share of keys such that four buckets, of the window's eight,
/// fill the limit. Measured once: it takes a flood.
fn quarter(mode: Mode) -> u64 {
    static FINGERPRINT: OnceLock<u64> = OnceLock::new();
    static VERIFIED: OnceLock<u64> = OnceLock::new();
    let share = if mode == Mode::verified() { &VERIFIED } else { &FINGERPRINT };
    *share.get_or_init(|| fill(&capped(&of(mode), OnFull::Reject).0) / 4)
}

/// The slack is there for eviction, which may take a little more memory before
/// it gives back; `fill`, where nothing is evicted, grants none.
fn assert_within_limit(dedup: &Deduper) {
    let bytes = dedup.stats().memory_bytes;
    assert!(bytes <= LIMIT + SLACK, "{bytes} bytes under a limit of {LIMIT}");
}

#[test]
fn evict_oldest_gives_up_whole_buckets_oldest_first() {
    for mode in MODES {
        let config = of(mode);
        let (dedup, clock) = capped(&config, OnFull::EvictOldest);
        let share = quarter(mode);
        for bucket in 0..20 {
            flood(&dedup, bucket * share..(bucket + 1) * share);
            let known: Vec<_> = (0..=bucket).map(|b| known_share(&dedup, b, share)).collect();
            let whole = sampled(0..share).count() as u64;
            let first_known = known.iter().position(|known| *known == whole).unwrap();
            assert!(known[..first_known].iter().all(|known| *known == 0), "{known:?}");
            assert!(known[first_known..].iter().all(|known| *known == whole), "{known:?}");
            assert_window_kept(&dedup, bucket, first_known as u64, &config);
            clock.advance(config.width());
        }
        let stats = dedup.stats();
        assert!(stats.evicted > 0);
        assert_eq!(stats.rejected, 0);
        assert_eq!(stats.uniques, stats.live_keys + stats.evicted, "no key expired by itself");
    }
}

/// How many of every seventh key of a bucket are known.
fn known_share(dedup: &Deduper, bucket: u64, share: u64) -> u64 {
    sampled(bucket * share..(bucket + 1) * share).filter(|n| knows(dedup, *n)).count() as u64
}

fn sampled(keys: Range<u64>) -> impl Iterator<Item = u64> {
    keys.step_by(7)
}

/// The effective window reaches back over known buckets alone, and over at
/// least all but the oldest of them.
fn assert_window_kept(dedup: &Deduper, bucket: u64, first_known: u64, config: &Config) {
    let effective = dedup.stats().effective_window.unwrap();
    let known_buckets = u32::try_from(bucket - first_known).unwrap();
    if dedup.stats().evicted == 0 {
        assert_eq!(effective, config.span);
        return;
    }
    assert!(effective < config.span);
    assert!(effective <= config.width() * known_buckets, "{effective:?}, {known_buckets} buckets");
    assert!(effective + config.width() >= config.width() * known_buckets);
}

#[test]
fn after_eviction_the_effective_window_recovers() {
    for mode in MODES {
        let config = of(mode);
        let (dedup, clock) = capped(&config, OnFull::EvictOldest);
        let share = quarter(mode);
        for bucket in 0..6 {
            flood(&dedup, bucket * share..(bucket + 1) * share);
            clock.advance(config.width());
        }
        assert!(dedup.stats().effective_window.unwrap() < config.span);
        clock.advance(config.span + config.width());
        flood(&dedup, 1 << 40..(1 << 40) + 1);
        assert_eq!(dedup.stats().effective_window, Some(config.span));
    }
}

/// With only the current bucket left, keys go one by one, and each is known at
/// least until others have come.
#[test]
fn evict_oldest_within_one_bucket_gives_up_single_keys() {
    for (mode, kind) in
        MODES.into_iter().flat_map(|mode| [(mode, Kind::Fixed), (mode, Kind::Unbounded)])
    {
        let config = Config { mode, kind, ..Config::default() };
        let (dedup, _clock) = capped(&config, OnFull::EvictOldest);
        let full = 4 * quarter(mode);
        for number in 0..full + full / 4 {
            assert_eq!(dedup.check(&key(number)), Ok(Verdict::Unique), "{config:?}");
            assert_eq!(dedup.check(&key(number)), Ok(Verdict::Duplicate), "{config:?}");
            if number % 64 == 0 {
                assert_within_limit(&dedup);
            }
        }
        let stats = dedup.stats();
        assert_within_limit(&dedup);
        assert!(stats.evicted > 0);
        assert_eq!(stats.effective_window, Some(Duration::ZERO), "{config:?}");
        assert_eq!(stats.live_keys + stats.evicted, stats.uniques);
        assert!(stats.live_keys > full / 2, "{} of {full} keys left", stats.live_keys);
        let known = (0..full + full / 4).filter(|number| knows(&dedup, *number)).count() as u64;
        assert_eq!(known, stats.live_keys);
    }
}

/// Sliding: keys seen again belong to the newest bucket, and outlive those of
/// their age.
/// A bucket may be given up for a key that comes shortly before one of its own
/// in a batch.
#[test]
fn a_batch_that_gives_up_keys_answers_as_one_by_one() {
    let config = Config::default();
    let (batched, clock) = capped(&config, OnFull::EvictOldest);
    let (single, clock_of_single) = capped(&config, OnFull::EvictOldest);
    let quarter = quarter(config.mode);
    let mut given_up = 0;
    for first in (0..6 * quarter).step_by(128) {
        let now = config.start.saturating_add(config.width() * (first / quarter) as u32);
        clock.set(now);
        clock_of_single.set(now);
        // New keys, each followed by one of about the age at which keys go.
        let old = |new: u64| new.saturating_sub(2 * quarter + new * 7_919 % (3 * quarter));
        let keys: Vec<_> = (first..first + 128).flat_map(|new| [new, old(new)]).map(key).collect();
        let mut verdicts = vec![Verdict::Late; keys.len()];
        batched.check_batch(&keys, &mut verdicts).unwrap();
        let one_by_one: Vec<_> = keys.iter().map(|key| single.check(key).unwrap()).collect();
        assert_eq!(verdicts, one_by_one, "keys from {first} on");
        given_up += verdicts.iter().skip(1).step_by(2).filter(|v| v.is_unique()).count();
    }
    assert!(given_up > 0 && batched.stats().evicted > 0, "keys were given up in this test");
}

#[test]
fn evict_oldest_spares_keys_that_were_seen_again() {
    for mode in MODES {
        let config = Config { kind: Kind::Sliding, ..of(mode) };
        let (dedup, clock) = capped(&config, OnFull::EvictOldest);
        let share = quarter(mode);
        let regulars = 0..share / 4;
        flood(&dedup, 0..share);
        for bucket in 1..8 {
            clock.advance(config.width());
            for number in regulars.clone() {
                assert_eq!(dedup.check(&key(number)), Ok(Verdict::Duplicate), "{mode:?}");
            }
            flood(&dedup, bucket * share..bucket * share + share / 2);
        }
        assert!(dedup.stats().evicted > 0);
    }
}

/// A sighting in a sliding window moves a key to the newest bucket, and where
/// whole keys are kept, its bytes too: at the cap that must not add up.
#[test]
fn refreshing_keys_at_the_cap_stays_within_the_limit() {
    for (mode, on_full) in MODES
        .into_iter()
        .flat_map(|mode| [OnFull::Reject, OnFull::EvictOldest].map(|on_full| (mode, on_full)))
    {
        let config = Config { kind: Kind::Sliding, ..of(mode) };
        let (dedup, clock) = capped(&config, on_full);
        let full = 4 * quarter(mode);
        let held: Vec<_> = (0..full).filter(|number| dedup.check(&key(*number)).is_ok()).collect();
        for bucket in 0..10 {
            clock.advance(config.width());
            for number in held.iter().skip(bucket % 3).step_by(3) {
                let answer = dedup.check(&key(*number));
                if on_full == OnFull::Reject {
                    assert_eq!(answer, Ok(Verdict::Duplicate), "bucket {bucket}, {mode:?}");
                }
            }
            assert_within_limit(&dedup);
        }
    }
}

/// Checks keys of very different lengths, some longer than any block of memory
/// that the engine hands out at a time, while time passes; gives the failures
/// and the most memory that was held.
fn check_long_keys(config: &Config, on_full: OnFull) -> (Vec<CheckError>, u64) {
    let (dedup, clock) = capped(config, on_full);
    let mut key = vec![b'.'; 1_100_000];
    let (mut failures, mut highest_bytes) = (Vec::new(), 0);
    for number in 0..400_usize {
        let length = [9, 300, 5_000, 70_000, 1_100_000][number % 5];
        key[..8].copy_from_slice(&number.to_be_bytes());
        match dedup.check(&key[..length]) {
            Ok(_) => assert_eq!(dedup.check(&key[..length]), Ok(Verdict::Duplicate), "{length}"),
            Err(error) => failures.push(error),
        }
        highest_bytes = highest_bytes.max(dedup.stats().memory_bytes);
        clock.advance(config.width() / 16);
    }
    (failures, highest_bytes)
}

#[test]
fn long_keys_that_find_no_room_are_rejected() {
    for mode in MODES {
        let (failures, highest_bytes) = check_long_keys(&of(mode), OnFull::Reject);
        assert!(failures.iter().all(|error| *error == FULL), "{failures:?}");
        assert!(highest_bytes <= LIMIT + SLACK, "{highest_bytes} bytes under a limit of {LIMIT}");
    }
}

#[test]
fn evicting_for_long_keys_stays_within_the_limit() {
    for mode in MODES {
        let (_, highest_bytes) = check_long_keys(&of(mode), OnFull::EvictOldest);
        assert!(highest_bytes <= LIMIT + SLACK, "{highest_bytes} bytes under a limit of {LIMIT}");
    }
}

/// Also where the key's own shard holds nothing, and others must give up.
#[test]
fn evict_oldest_finds_room_for_long_keys() {
    for mode in MODES {
        let (failures, _) = check_long_keys(&of(mode), OnFull::EvictOldest);
        assert_eq!(failures, [], "{mode:?}");
    }
}

/// Short keys have large tables, which must make room too. Beyond half the
/// limit a key is refused, counted, and displaces nothing.
#[test]
fn a_key_of_half_the_limit_finds_room_and_a_longer_one_displaces_nothing() {
    let (dedup, _clock) = capped(&of(Mode::verified()), OnFull::EvictOldest);
    let short = |number: u32| [1, 2, 3].map(|byte| number.to_be_bytes()[byte]);
    (0..300_000).for_each(|number| assert!(dedup.check(&short(number)).unwrap().is_unique()));
    let (half, live_keys) = (usize::try_from(LIMIT / 2).unwrap(), dedup.stats().live_keys);
    assert_eq!(dedup.check(&vec![b'.'; half + 1]), Err(FULL));
    assert_eq!((dedup.stats().rejected, dedup.stats().live_keys), (1, live_keys));
    assert_eq!(dedup.check(&vec![b'.'; half]), Ok(Verdict::Unique));
    assert_eq!(dedup.check(&vec![b'.'; half]), Ok(Verdict::Duplicate));
    assert_within_limit(&dedup);
}

#[test]
fn in_event_time_eviction_keeps_the_limit_and_the_newest() {
    for mode in MODES {
        let config = Config { lateness: Some(Duration::from_secs(4)), ..of(mode) };
        let (dedup, _clock) = capped(&config, OnFull::EvictOldest);
        let share = quarter(mode);
        for bucket in 0..12_u64 {
            let at = config.start.saturating_add(config.width() * u32::try_from(bucket).unwrap());
            let numbers = bucket * share..(bucket + 1) * share;
            for number in numbers.clone() {
                assert_eq!(dedup.check_at(&key(number), at), Ok(Verdict::Unique));
            }
            assert_within_limit(&dedup);
            let duplicates = numbers
                .filter(|number| dedup.check_at(&key(*number), at) == Ok(Verdict::Duplicate));
            assert_eq!(duplicates.count() as u64, share, "bucket {bucket} of {mode:?}");
        }
        assert!(dedup.stats().evicted > 0);
    }
}

/// A shard that gave up more than has expired is up to date with the watermark,
/// although nobody has come to it since that moved.
#[test]
fn after_eviction_a_late_record_is_late_in_every_shard() {
    for mode in MODES {
        let config = Config { lateness: Some(Duration::ZERO), ..of(mode) };
        let (dedup, _clock) = capped(&config, OnFull::EvictOldest);
        let share = quarter(mode);
        let at = |bucket: u64| config.start.saturating_add(config.width() * bucket as u32);
        for number in 0..12 * share {
            assert_eq!(dedup.check_at(&key(number), at(number / share)), Ok(Verdict::Unique));
        }
        assert!(dedup.stats().evicted > 0);
        assert_eq!(dedup.check_at(&key(12 * share), at(12)), Ok(Verdict::Unique));
        for number in 12 * share + 1..12 * share + 1_000 {
            assert_eq!(dedup.check_at(&key(number), at(11)), Ok(Verdict::Late));
        }
    }
}

/// Records that may still come, of a bucket that was given up for want of
/// room: they are not kept, and nothing later is given up for them.
#[test]
fn records_of_a_bucket_that_was_given_up_displace_no_later_ones() {
    for mode in MODES {
        let config = Config { lateness: Some(Duration::from_secs(8)), ..of(mode) };
        let (dedup, _clock) = capped(&config, OnFull::EvictOldest);
        let share = quarter(mode);
        let at = |bucket: u32| config.start.saturating_add(config.width() * bucket);
        for number in 0..6 * share {
            let bucket = u32::try_from(number / share).unwrap();
            assert_eq!(dedup.check_at(&key(number), at(bucket)), Ok(Verdict::Unique));
        }
        let before = dedup.stats();
        assert!(before.evicted >= share, "the first bucket was given up");
        for number in 6 * share..10 * share {
            assert_eq!(dedup.check_at(&key(number), at(0)), Ok(Verdict::Unique));
        }
        let after = dedup.stats();
        assert_eq!(after.live_keys, before.live_keys, "{mode:?}");
        assert_eq!(after.evicted - before.evicted, 4 * share, "each is counted");
        assert_eq!(after.memory_bytes, before.memory_bytes);
    }
}

/// So many that the fixed structures weigh little beside them.
#[test]
fn after_a_flood_has_expired_memory_is_given_back() {
    for mode in MODES {
        let (dedup, clock) = of(mode).build();
        let count = 1_000_000_u32;
        for start in (0..count).step_by(1_000) {
            let keys: Vec<_> = (start..start + 1_000).map(|n| key(n.into())).collect();
            dedup.check_batch(&keys, &mut vec![Verdict::Late; keys.len()]).unwrap();
        }
        let flooded = dedup.stats().memory_bytes;
        assert!(flooded > u64::from(count) * 8, "{flooded} bytes for {count} keys");
        clock.advance(2 * of(mode).span);
        maintain_all(&dedup);
        let stats = dedup.stats();
        assert!(stats.memory_bytes < flooded / 10, "{} of {flooded} left", stats.memory_bytes);
        assert_eq!(stats.live_keys, 0);
        assert_eq!(dedup.check(&key(1)), Ok(Verdict::Unique));
    }
}

/// Without `maintain`: the checks of a new bucket give it back.
#[test]
fn checks_alone_give_memory_back() {
    for mode in MODES {
        let (dedup, clock) = of(mode).build();
        (0..300_000).for_each(|number| drop(dedup.check(&key(number))));
        let flooded = dedup.stats().memory_bytes;
        clock.advance(2 * of(mode).span);
        (0..1_000).for_each(|number| drop(dedup.check(&key(number))));
        let left = dedup.stats().memory_bytes;
        assert!(left < flooded / 2, "{left} of {flooded} left in {mode:?}");
    }
}

#[test]
fn after_an_event_time_flood_memory_is_given_back() {
    for mode in MODES {
        let config = Config { lateness: Some(Duration::from_secs(1)), ..of(mode) };
        let (dedup, _clock) = config.build();
        let at = |seconds| config.start.saturating_add(Duration::from_secs(seconds));
        let times: Vec<Timestamp> = vec![at(0); 1_000];
        assert_eq!(dedup.check_at(b"first", at(0)), Ok(Verdict::Unique));
        let fixed = dedup.stats().memory_bytes;
        for start in (0..100_000).step_by(1_000) {
            let keys: Vec<_> = (start..start + 1_000).map(key).collect();
            dedup.check_batch_at(&keys, &times, &mut vec![Verdict::Late; keys.len()]).unwrap();
        }
        let flooded = dedup.stats().memory_bytes - fixed;
        assert_eq!(dedup.check_at(b"later", at(60)), Ok(Verdict::Unique));
        maintain_all(&dedup);
        let stats = dedup.stats();
        let left = stats.memory_bytes - fixed;
        assert!(left < flooded / 10, "{left} of {flooded} left");
        assert_eq!(stats.live_keys, 1);
    }
}

#[test]
fn maintenance_in_the_smallest_steps_comes_to_an_end() {
    let (dedup, clock) = capped(&of(Mode::fingerprint()), OnFull::Reject);
    let shards = dedup.stats().shards;
    for number in 0..1_000 {
        assert_eq!(dedup.check(&key(number)), Ok(Verdict::Unique));
    }
    clock.advance(Duration::from_secs(86_400));
    let steps = (1..10_000).find(|_| dedup.maintain(Duration::ZERO)).unwrap();
    assert_eq!(steps, shards, "a step visits one shard, and none twice");
    assert_eq!(dedup.stats().live_keys, 0);
}
