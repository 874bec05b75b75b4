//! Guarantee 8: bucket tags wrap, and no dead key comes back with its tag, also
//! in shards that nobody touched for longer than a wrap; nor is a live key
//! forgotten by the clearing.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod model;

use hapax::{Deduper, KeyHash, ManualClock, Timestamp, Verdict};
use model::Model;
use model::config::{ALL_MODES, Config, FILTER, Kind, hash};
use model::random::scatter;
use model::rig::maintain_all;
use std::sync::Arc;
use std::time::Duration;

/// Which shard a key is put in: all keys of a place share one.
#[derive(Clone, Copy)]
enum Place {
    Idle = 1,
    Busy = 14,
}

/// The first byte is the place, repeated over the half of the hash that
/// chooses the shard, so that it is there wherever the shard is taken from.
fn place_hash(key: &[u8]) -> KeyHash {
    let place = u64::from(key[0]) * 0x1111_1111_1111_1111;
    KeyHash::new(u128::from(place) << 64 | u128::from(scatter(hash(key))))
}

fn key(place: Place, number: u64) -> Vec<u8> {
    let mut key = vec![place as u8];
    key.extend_from_slice(&number.to_le_bytes());
    key
}

/// One deduper with two shards in use, and the model of it.
struct Shards {
    dedup: Deduper,
    clock: Arc<ManualClock>,
    model: Model<Vec<u8>>,
    config: Config,
    now: Timestamp,
}

impl Shards {
    fn new(config: &Config) -> Self {
        let clock = Arc::new(ManualClock::new(config.start));
        let builder = config.builder().clock(Arc::clone(&clock)).hash_with(place_hash);
        let (dedup, model) = (builder.build().unwrap(), Model::new(config.rules()));
        Self { dedup, clock, model, config: config.clone(), now: config.start }
    }

    /// Checks at the present, in whichever time the configuration has.
    fn check(&mut self, key: &[u8]) -> Verdict {
        let (now, event_time) = (self.now, self.config.lateness.is_some());
        let (answer, expected) = if event_time {
            (self.dedup.check_at(key, now), self.model.check_at(key.to_vec(), now, now))
        } else {
            (self.dedup.check(key), Ok(self.model.check(key.to_vec(), now)))
        };
        assert_eq!(answer, expected, "key {key:?} at {now:?} of {:?}", self.config);
        expected.unwrap()
    }

    fn check_all(&mut self, place: Place, keys: std::ops::Range<u64>) -> Vec<Verdict> {
        keys.map(|number| self.check(&key(place, number))).collect()
    }

    fn pass(&mut self, buckets: i64) {
        let micros = self.now.as_micros() + buckets * self.config.width_micros();
        self.now = Timestamp::from_micros(micros);
        self.clock.set(self.now);
    }

    /// Lets time pass bucket by bucket while the busy shard works.
    fn pass_busily(&mut self, buckets: i64) {
        for _ in 0..buckets {
            self.pass(1);
            self.check_all(Place::Busy, 0..3);
        }
    }
}

/// The narrowest tags for several bucket counts, a little more, and the most.
fn configs() -> Vec<Config> {
    let mut configs = Vec::new();
    for (buckets, tags) in
        [(1, 6), (1, 7), (1, 255), (2, 8), (3, 10), (3, 13), (8, 20), (8, 23), (120, 244)]
    {
        let span = Duration::from_secs(u64::from(buckets));
        for kind in [Kind::Fixed, Kind::Sliding] {
            for lateness in [None, Some(Duration::ZERO), Some(span)] {
                for mode in ALL_MODES {
                    if mode == FILTER && (kind == Kind::Sliding || !(3..=8).contains(&buckets)) {
                        continue;
                    }
                    configs.push(Config {
                        mode,
                        kind,
                        span,
                        buckets,
                        lateness,
                        tags,
                        ..Config::default()
                    });
                }
            }
        }
    }
    configs
}

/// Whole wraps and their neighbours, a window before and after included.
fn wraps(config: &Config) -> impl Iterator<Item = i64> + use<> {
    let (buckets, tags) = (i64::from(config.buckets), i64::from(config.tags));
    let nearby = [-buckets - 1, -buckets, -1, 0, 1, buckets, buckets + 1];
    (1..=3).flat_map(move |wrap| nearby.map(|near| wrap * tags + near))
}

fn assert_all_new(verdicts: &[Verdict], context: &str) {
    assert!(verdicts.iter().all(|verdict| verdict.is_unique()), "dead keys came back: {context}");
}

#[test]
fn after_a_sleep_of_whole_wraps_dead_keys_stay_dead() {
    for config in configs() {
        for sleep in wraps(&config) {
            let mut shards = Shards::new(&config);
            shards.check_all(Place::Idle, 0..60);
            shards.pass(sleep);
            let verdicts = shards.check_all(Place::Idle, 0..60);
            assert_all_new(&verdicts, &format!("{sleep} buckets of {config:?}"));
            shards.check_all(Place::Idle, 0..60);
        }
    }
}

#[test]
fn a_shard_left_alone_while_another_works_brings_nothing_back() {
    for config in configs().iter().filter(|config| config.tags < 100) {
        for idle in wraps(config) {
            let mut shards = Shards::new(config);
            shards.check_all(Place::Idle, 0..60);
            shards.pass_busily(idle);
            let verdicts = shards.check_all(Place::Idle, 0..60);
            assert_all_new(&verdicts, &format!("{idle} buckets of {config:?}"));
        }
    }
}

#[test]
fn a_wide_shard_left_alone_while_another_works_brings_nothing_back() {
    for config in configs().iter().filter(|config| config.tags >= 100) {
        let mut shards = Shards::new(config);
        for round in 0..3 {
            shards.check_all(Place::Idle, 0..20);
            shards.pass_busily(i64::from(config.tags) + round - 1);
            let verdicts = shards.check_all(Place::Idle, 0..20);
            assert_all_new(&verdicts, &format!("round {round} of {config:?}"));
        }
    }
}

/// Maintenance is what clears idle shards when time passes without checks.
#[test]
fn maintained_shards_bring_nothing_back() {
    for config in configs().iter().filter(|config| config.tags < 100) {
        for sleep in wraps(config) {
            let mut shards = Shards::new(config);
            shards.check_all(Place::Idle, 0..60);
            shards.pass(sleep / 2);
            maintain_all(&shards.dedup);
            shards.pass(sleep - sleep / 2);
            shards.check_all(Place::Busy, 0..1);
            maintain_all(&shards.dedup);
            let (live, expected) = (shards.dedup.stats().live_keys, shards.model.live() as u64);
            assert_eq!(live, expected, "{sleep} buckets of {config:?}");
            assert_all_new(&shards.check_all(Place::Idle, 0..60), &format!("{config:?}"));
        }
    }
}

/// Keys of many ages in one shard over many wraps, touched at gaps that put
/// every boundary next to every other: the model says which live.
#[test]
fn clearing_forgets_no_live_key() {
    for config in configs() {
        let (buckets, tags) = (i64::from(config.buckets), i64::from(config.tags));
        let gaps = [1, tags, buckets, tags - buckets, 1, buckets - 1, tags + 1, buckets, 2 * tags];
        let mut shards = Shards::new(&config);
        for round in 0..36_u64 {
            let recent = (round * 5).saturating_sub(40);
            shards.check_all(Place::Idle, recent..round * 5 + 5);
            shards.check_all(Place::Busy, round..round + 1);
            shards.pass(gaps[(round * round) as usize % gaps.len()]);
        }
    }
}

/// A key recorded in each bucket, each found again at the last bucket of its
/// window: the cursor that clears the shard never overtakes.
#[test]
fn a_key_of_every_bucket_is_found_to_the_end_of_its_window() {
    for config in configs() {
        let buckets = u64::from(config.buckets);
        let mut shards = Shards::new(&config);
        for now in 0..3 * u64::from(config.tags) {
            shards.check_all(Place::Idle, now * 3..now * 3 + 3);
            if let Some(oldest) = now.checked_sub(buckets) {
                let verdicts = shards.check_all(Place::Idle, oldest * 3..oldest * 3 + 3);
                assert!(verdicts.iter().all(|verdict| verdict.is_duplicate()), "{config:?}");
            }
            shards.pass(1);
        }
    }
}
