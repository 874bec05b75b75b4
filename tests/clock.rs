//! Guarantee 8: the clock may misbehave. No panic, no early forgetting, and
//! time that never goes back.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod model;

use hapax::{Clock, Deduper, ManualClock, Timestamp, Verdict, Window};
use model::config::{ALL_MODES, Config};
use model::rig::maintain_all;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

fn both_modes(test: impl Fn(Config)) {
    for mode in ALL_MODES {
        test(Config { mode, ..Config::default() });
    }
}

#[test]
fn a_clock_that_goes_back_forgets_nothing() {
    both_modes(|config| {
        let (dedup, clock) = config.build();
        assert_eq!(dedup.check(b"before"), Ok(Verdict::Unique));
        clock.set(config.start.saturating_sub(CENTURY));
        assert_eq!(dedup.check(b"before"), Ok(Verdict::Duplicate));
        assert_eq!(dedup.check(b"meanwhile"), Ok(Verdict::Unique));
        maintain_all(&dedup);
        assert_eq!(dedup.contains(b"before"), Ok(true));
        // Recorded at the latest reading, not a century ago.
        clock.set(config.start.saturating_add(config.span));
        assert_eq!(dedup.check(b"before"), Ok(Verdict::Duplicate));
        assert_eq!(dedup.check(b"meanwhile"), Ok(Verdict::Duplicate));
    });
}

#[test]
fn a_clock_that_stays_back_lets_nothing_expire_and_nothing_fail() {
    both_modes(|config| {
        let (dedup, clock) = config.build();
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
        for step in 1..400_i64 {
            clock.set(Timestamp::from_secs(config.start.as_micros() / 1_000_000 - step));
            assert_eq!(dedup.check(b"key"), Ok(Verdict::Duplicate));
            assert_eq!(dedup.check(&step.to_be_bytes()), Ok(Verdict::Unique));
        }
        assert_eq!(dedup.stats().live_keys, 400);
    });
}

#[test]
fn a_clock_that_jumps_a_century_ahead_expires_all_and_goes_on() {
    both_modes(|config| {
        let (dedup, clock) = config.build();
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
        clock.advance(CENTURY);
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
        // Back again: the time already reached stays the time.
        clock.set(config.start);
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Duplicate));
        clock.set(config.start.saturating_add(CENTURY).saturating_add(config.span));
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Duplicate));
        clock.advance(config.width());
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
    });
}

#[test]
fn looking_moves_no_time() {
    both_modes(|config| {
        let (dedup, clock) = config.build();
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
        clock.advance(CENTURY);
        assert_eq!(dedup.contains(b"key"), Ok(false));
        clock.set(config.start);
        assert_eq!(dedup.contains(b"key"), Ok(true));
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Duplicate));
    });
}

/// An uptime shorter than the window, and dates before the epoch, where
/// subtracting the span from the present goes below zero.
#[test]
fn windows_that_reach_before_the_epoch_work() {
    both_modes(|config| {
        for start in [0, 1, -1, 5_000_000, -5_000_000, -7_777_777_777_777_777] {
            let config = Config { start: Timestamp::from_micros(start), ..config.clone() };
            let (dedup, clock) = config.build();
            assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique), "start {start}");
            clock.advance(config.span);
            assert_eq!(dedup.check(b"key"), Ok(Verdict::Duplicate), "start {start}");
            clock.advance(config.width());
            assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique), "start {start}");
        }
    });
}

#[test]
fn the_ends_of_time_are_times_like_any() {
    both_modes(|config| {
        for start in [Timestamp::MIN, Timestamp::MAX] {
            let (dedup, clock) = Config { start, ..config.clone() }.build();
            assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
            assert_eq!(dedup.check(b"key"), Ok(Verdict::Duplicate));
            clock.set(Timestamp::MAX);
            assert_eq!(dedup.check(b"key").unwrap().is_unique(), start == Timestamp::MIN);
            clock.set(Timestamp::MIN);
            assert_eq!(dedup.check(b"key"), Ok(Verdict::Duplicate));
            maintain_all(&dedup);
        }
    });
}

/// A clock that moves on by two spans with each reading.
struct Restless(AtomicI64);

impl Clock for Restless {
    fn now(&self) -> Timestamp {
        Timestamp::from_secs(self.0.fetch_add(16, Ordering::Relaxed))
    }
}

/// So that a long batch is no older at its end than a short one.
#[test]
fn a_batch_reads_the_clock_for_every_256_keys() {
    both_modes(|config| {
        let dedup = config.builder().clock(Restless(AtomicI64::new(0))).build().unwrap();
        let mut verdicts = [Verdict::Late; 600];
        dedup.check_batch(&[b"key"; 600], &mut verdicts).unwrap();
        for (index, verdict) in verdicts.into_iter().enumerate() {
            assert_eq!(verdict.is_unique(), index % 256 == 0, "{verdict:?} of key {index}");
        }
    });
}

#[test]
fn a_look_never_loses_a_known_key_to_a_clock_that_runs() {
    let width = Duration::from_secs(1);
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_790_000_000)));
    let dedup = Deduper::builder(Window::sliding(120 * width).buckets(120))
        .capacity(1)
        .clock(Arc::clone(&clock))
        .build()
        .unwrap();
    assert_eq!(dedup.check(b"known"), Ok(Verdict::Unique));
    let is_running = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while is_running.load(Ordering::Relaxed) {
                assert_eq!(dedup.contains(b"known"), Ok(true));
            }
        });
        for _ in 0..200_000 {
            clock.advance(width);
            assert_eq!(dedup.check(b"known"), Ok(Verdict::Duplicate));
        }
        is_running.store(false, Ordering::Relaxed);
    });
}
