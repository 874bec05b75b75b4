//! Guarantee 1: of any number of concurrent checks of a key that is not in the
//! window, exactly one gets `Unique`, in every mode.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod model;

use hapax::{Clock, Deduper, ManualClock, Mode, Timestamp, Verdict};
use model::config::{ALL_MODES, Config, FILTER, Hashing, Kind, MODES};
use model::random::Random;
use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

const THREADS: u64 = 64;
const KEYS: u64 = 100;

/// Runs `work` on all threads at once; a panic in one is a panic here.
fn race(work: impl Fn(u64) + Sync) {
    let start = Barrier::new(usize::try_from(THREADS).unwrap());
    let (start, work) = (&start, &work);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                start.wait();
                work(thread);
            });
        }
    });
}

/// How often each key was called `Unique`.
struct Winners(Vec<AtomicU32>);

impl Winners {
    fn new() -> Self {
        Self((0..KEYS).map(|_| AtomicU32::new(0)).collect())
    }

    fn note(&self, key: u64, verdict: Verdict) {
        assert_ne!(verdict, Verdict::Late);
        if verdict.is_unique() {
            self.0[key as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn assert_all(&self, expected: u32, context: &str) {
        let wins: Vec<_> = self.0.iter().map(|wins| wins.load(Ordering::Relaxed)).collect();
        assert_eq!(wins, vec![expected; wins.len()], "winners per key: {context}");
    }
}

/// The keys in an order of one's own; in even rounds all threads meet on the
/// same key at the same time, in odd ones each goes its own way.
fn order(round: u64, thread: u64) -> Vec<u64> {
    let mut keys: Vec<_> = (0..KEYS).collect();
    if round % 2 == 1 {
        Random::new(round * THREADS + thread).shuffle(&mut keys);
    }
    keys
}

fn bytes(key: u64) -> [u8; 8] {
    key.to_le_bytes()
}

/// All modes with good hashes; verified also where all hashes collide, so
/// that every race is in one line of one shard.
fn configs() -> Vec<Config> {
    let mut configs = Vec::new();
    for kind in [Kind::Fixed, Kind::Sliding] {
        for mode in ALL_MODES {
            configs.push(Config { mode, kind, tags: 20, ..Config::default() });
        }
        let (mode, hashing) = (Mode::verified(), Hashing::Colliding);
        configs.push(Config { mode, kind, hashing, ..Config::default() });
    }
    configs
}

/// Races over rotations: after each race of all keys' first checks, another
/// inside the window that nobody wins, and a step past it.
fn race_over_rotations(config: &Config, check_all: impl Fn(&Deduper, u64, u64, &Winners) + Sync) {
    let (dedup, clock) = config.build();
    for round in 0..6 {
        let first = Winners::new();
        race(|thread| check_all(&dedup, round, thread, &first));
        first.assert_all(1, &format!("round {round} of {config:?}"));

        clock.advance(config.span);
        let again = Winners::new();
        race(|thread| check_all(&dedup, round, thread, &again));
        again.assert_all(0, &format!("in the window, round {round} of {config:?}"));

        clock.advance(config.span + config.width() * u32::try_from(round * 7).unwrap());
        clock.advance(config.width());
    }
}

#[test]
fn single_checks_have_one_winner() {
    for config in configs() {
        race_over_rotations(&config, |dedup, round, thread, winners| {
            for key in order(round, thread) {
                winners.note(key, dedup.check(&bytes(key)).unwrap());
            }
        });
    }
}

#[test]
fn batches_have_one_winner() {
    for config in configs() {
        race_over_rotations(&config, |dedup, round, thread, winners| {
            let mut order = order(round, thread);
            // Every key a second time in the same batch.
            order.extend_from_within(..);
            let keys: Vec<_> = order.iter().map(|key| bytes(*key)).collect();
            let mut verdicts = vec![Verdict::Late; keys.len()];
            dedup.check_batch(&keys, &mut verdicts).unwrap();
            order.iter().zip(verdicts).for_each(|(key, verdict)| winners.note(*key, verdict));
        });
    }
}

#[test]
fn singles_and_batches_meet_with_one_winner() {
    for config in configs() {
        race_over_rotations(&config, |dedup, round, thread, winners| {
            for keys in order(round, thread).chunks(17) {
                if thread % 2 == 0 {
                    for key in keys {
                        winners.note(*key, dedup.check(&bytes(*key)).unwrap());
                    }
                    continue;
                }
                let mut verdicts = vec![Verdict::Late; keys.len()];
                let batch: Vec<_> = keys.iter().map(|key| bytes(*key)).collect();
                dedup.check_batch(&batch, &mut verdicts).unwrap();
                keys.iter().zip(verdicts).for_each(|(key, verdict)| winners.note(*key, verdict));
            }
        });
    }
}

/// Each phase is one bucket of event time, in which the threads' records come
/// in any order while the watermark rises under them.
#[test]
fn event_time_has_one_winner_while_the_watermark_rises() {
    for mode in MODES {
        let lateness = Some(Duration::from_secs(4));
        let config = Config { mode, lateness, tags: 20, ..Config::default() };
        let (dedup, _clock) = config.build();
        for phase in 0..40_u64 {
            let winners = Winners::new();
            race(|thread| check_phase(&dedup, &config, phase, thread, &winners));
            let expected = u32::from(phase % 10 == 0);
            winners.assert_all(expected, &format!("phase {phase} of {config:?}"));
        }
    }
}

/// Keys come in phases 0, 8, 10, 18, 20, ..: eight buckets on they are still
/// in the window, ten buckets on they are out of it and recorded anew.
fn check_phase(dedup: &Deduper, config: &Config, phase: u64, thread: u64, winners: &Winners) {
    let mut random = Random::new(phase * THREADS + thread);
    let width = config.width_micros();
    let begin = config.rules().bucket(config.start) * width + width;
    let bucket_begin = begin + i64::try_from(phase).unwrap() * width;
    for key in order(phase + thread % 2, thread) {
        let at = Timestamp::from_micros(bucket_begin + random.between(0, width - 1));
        match phase % 10 {
            0 | 8 => winners.note(key, dedup.check_at(&bytes(key), at).unwrap()),
            _ => assert!(!dedup.check_at(b"moves time", at).unwrap().is_late()),
        }
    }
}

#[test]
fn after_forget_one_retry_wins() {
    for config in configs().into_iter().filter(|config| config.mode != FILTER) {
        let (dedup, _clock) = config.build();
        for round in 0..6 {
            let forgotten = AtomicU64::new(0);
            race(|thread| {
                for key in order(round, thread) {
                    forgotten.fetch_add(u64::from(dedup.forget(&bytes(key))), Ordering::Relaxed);
                }
            });
            let known = if round == 0 { 0 } else { KEYS };
            assert_eq!(forgotten.into_inner(), known, "each known key is forgotten once");

            let winners = Winners::new();
            race(|thread| {
                for key in order(round, thread) {
                    winners.note(key, dedup.check(&bytes(key)).unwrap());
                }
            });
            winners.assert_all(1, &format!("round {round} of {config:?}"));
        }
    }
}

/// `Unique` to enter and `forget` to leave make a lock: nobody is let in while
/// the winner has not yet forgotten.
#[test]
fn nobody_wins_before_the_winner_forgets() {
    for mode in MODES {
        let (dedup, _clock) = Config { mode, ..Config::default() }.build();
        let (inside, wins) = (AtomicBool::new(false), AtomicU64::new(0));
        race(|_| {
            for _ in 0..300 {
                if dedup.check(b"lock").unwrap().is_unique() {
                    // Relaxed: that one value is all that is shared, and the
                    // shard's lock orders the winners.
                    assert!(!inside.swap(true, Ordering::Relaxed), "two winners at once");
                    wins.fetch_add(1, Ordering::Relaxed);
                    std::thread::yield_now();
                    inside.store(false, Ordering::Relaxed);
                    assert!(dedup.forget(b"lock"), "the winner's key is gone");
                }
            }
        });
        assert!(wins.into_inner() > 0);
        assert_eq!(dedup.check(b"lock"), Ok(Verdict::Unique));
    }
}

/// A sighting that won, and the clock before and after its check.
#[derive(Clone, Copy, Debug)]
struct Win {
    before: Timestamp,
    after: Timestamp,
}

/// While one thread drives the clock on, no key wins twice within a span.
#[test]
fn wins_of_one_key_are_a_span_apart_while_the_clock_runs() {
    for mode in MODES {
        let config = Config { mode, tags: 20, ..Config::default() };
        let (dedup, clock) = config.build();
        let wins: std::sync::Mutex<HashMap<u64, Vec<Win>>> = std::sync::Mutex::default();
        race(|thread| {
            if thread == 0 {
                drive(&clock, config.width() / 7, 2_000);
                return;
            }
            let mut random = Random::new(thread);
            for _ in 0..600 {
                let key = random.below(8);
                let before = clock.now();
                let verdict = dedup.check(&bytes(key)).unwrap();
                let after = clock.now();
                assert_ne!(verdict, Verdict::Late, "in processing time");
                if verdict.is_unique() {
                    wins.lock().unwrap().entry(key).or_default().push(Win { before, after });
                }
            }
        });
        for (key, wins) in wins.into_inner().unwrap() {
            assert_span_apart(key, wins, config.span);
        }
    }
}

fn drive(clock: &ManualClock, step: Duration, steps: u32) {
    for _ in 0..steps {
        clock.advance(step);
        std::thread::yield_now();
    }
}

fn assert_span_apart(key: u64, mut wins: Vec<Win>, span: Duration) {
    wins.sort_by_key(|win| win.before);
    for pair in wins.windows(2) {
        let (first, second) = (pair[0], pair[1]);
        let apart = second.after.max(first.after).as_micros() - first.before.as_micros();
        assert!(u128::from(apart.unsigned_abs()) > span.as_micros(), "key {key}: {pair:?}");
    }
}
