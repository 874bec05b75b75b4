//! Guarantee 2: a key stays known for at least the span after it was recorded,
//! and for less than the span and one bucket width (in event time, and the
//! lateness). From every offset within a bucket, for many widths.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod model;

use hapax::{Deduper, ManualClock, Timestamp, Verdict};
use model::config::{ALL_MODES, Config, FILTER, Kind};
use std::sync::Arc;
use std::time::Duration;

/// Spans and bucket counts, with and without a remainder, all widths small
/// enough to try every offset.
const GRIDS: [(u64, u32); 9] =
    [(1, 1), (1, 120), (7, 1), (7, 3), (8, 8), (100, 7), (100, 33), (97, 96), (240, 120)];

/// Small, before the epoch, and of this century.
const ORIGINS: [i64; 3] = [0, -1_000_003, 1_790_000_000_000_000];

fn micros(count: u64) -> Duration {
    Duration::from_micros(count)
}

fn every_case(kind: Kind, lateness: Option<Duration>, try_case: impl Fn(&Config, Timestamp)) {
    for (span, buckets) in GRIDS {
        let modes = ALL_MODES.into_iter().filter(|mode| *mode != FILTER || buckets <= 8);
        for mode in modes {
            let lateness = lateness.map(|lateness| lateness.min(micros(span)));
            let config =
                Config { mode, kind, span: micros(span), buckets, lateness, ..Config::default() };
            for origin in ORIGINS {
                for offset in 0..config.width_micros() {
                    try_case(&config, Timestamp::from_micros(origin + offset));
                }
            }
        }
    }
}

fn known_after(dedup: &Deduper, clock: &ManualClock, recorded: Timestamp, age: Duration) -> bool {
    clock.set(recorded.saturating_add(age));
    dedup.contains(b"key").unwrap()
}

/// The last age at which the key must be known, and the first at which it must
/// not be. The width is rounded up to whole microseconds, so where it does not
/// divide the span, the upper bound counts from the span that whole buckets
/// cover: less than a microsecond for each bucket beyond the span asked for.
fn bounds(config: &Config) -> (Duration, Duration) {
    let covered = config.width() * config.buckets;
    assert!(covered < config.span + micros(1) * config.buckets);
    (config.span, covered + config.width())
}

#[test]
fn in_processing_time_a_key_is_known_for_the_span_and_less_than_a_bucket_more() {
    every_case(Kind::Fixed, None, |config, recorded| {
        let (dedup, clock) = Config { start: recorded, ..config.clone() }.build();
        let (known, forgotten) = bounds(config);
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
        assert!(known_after(&dedup, &clock, recorded, known), "{config:?} from {recorded:?}");
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Duplicate));
        assert!(!known_after(&dedup, &clock, recorded, forgotten), "{config:?} from {recorded:?}");
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
    });
}

#[test]
fn a_sliding_window_counts_from_the_latest_sighting() {
    every_case(Kind::Sliding, None, |config, recorded| {
        let (dedup, clock) = Config { start: recorded, ..config.clone() }.build();
        let (known, forgotten) = bounds(config);
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
        let again = recorded.saturating_add(known);
        clock.set(again);
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Duplicate));
        assert!(known_after(&dedup, &clock, again, known), "{config:?} from {recorded:?}");
        assert!(!known_after(&dedup, &clock, again, forgotten), "{config:?} from {recorded:?}");
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
    });
}

#[test]
fn a_fixed_window_is_not_prolonged_by_duplicates() {
    every_case(Kind::Fixed, None, |config, recorded| {
        let (dedup, clock) = Config { start: recorded, ..config.clone() }.build();
        let (known, forgotten) = bounds(config);
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
        for age in [Duration::ZERO, config.width(), known / 2, known] {
            clock.set(recorded.saturating_add(age));
            assert_eq!(dedup.check(b"key"), Ok(Verdict::Duplicate), "{config:?} at {age:?}");
        }
        assert!(!known_after(&dedup, &clock, recorded, forgotten), "{config:?} from {recorded:?}");
    });
}

#[test]
fn in_event_time_a_record_within_the_span_is_a_duplicate_while_time_is_open() {
    for lateness in [micros(0), micros(5), micros(240)] {
        every_case(Kind::Fixed, Some(lateness), |config, recorded| {
            let (dedup, _clock) = Config { start: recorded, ..config.clone() }.build();
            let (known, forgotten) = bounds(config);
            assert_eq!(dedup.check_at(b"key", recorded), Ok(Verdict::Unique));
            let last = recorded.saturating_add(known);
            assert_eq!(dedup.check_at(b"key", last), Ok(Verdict::Duplicate), "{config:?}");
            let first_after = recorded.saturating_add(forgotten);
            assert_eq!(dedup.contains_at(b"key", first_after), Ok(false), "{config:?}");
            assert_eq!(dedup.check_at(b"key", first_after), Ok(Verdict::Unique), "{config:?}");
        });
    }
}

/// Until the lateness has passed too, a late record may still come that was
/// within the span: the key is kept for it, and freed then.
#[test]
fn in_event_time_a_key_is_kept_for_late_records_and_then_freed() {
    for lateness in [micros(0), micros(5), micros(240)] {
        every_case(Kind::Fixed, Some(lateness), |config, recorded| {
            let (dedup, _clock) = Config { start: recorded, ..config.clone() }.build();
            let lateness = config.lateness.unwrap();
            let (known, forgotten) = bounds(config);
            let in_time = recorded.saturating_add(known);
            assert_eq!(dedup.check_at(b"key", recorded), Ok(Verdict::Unique));

            let _ = dedup.check_at(b"other", in_time.saturating_add(lateness)).unwrap();
            assert_eq!(dedup.check_at(b"key", in_time), Ok(Verdict::Duplicate), "{config:?}");

            let closed = recorded.saturating_add(forgotten).saturating_add(lateness);
            let _ = dedup.check_at(b"other", closed).unwrap();
            assert!(!dedup.forget(b"key"), "not freed: {config:?} from {recorded:?}");
        });
    }
}

#[test]
fn a_record_is_late_from_one_bucket_below_the_watermark() {
    for lateness in [micros(0), micros(5), micros(240)] {
        every_case(Kind::Fixed, Some(lateness), |config, recorded| {
            let (dedup, _clock) = Config { start: recorded, ..config.clone() }.build();
            let _ = dedup.check_at(b"first", recorded).unwrap();
            let rules = config.rules();
            let closed_before = recorded.saturating_sub(config.lateness.unwrap());
            let edge = rules.bucket(closed_before) * config.width_micros();
            let (open, late) = (Timestamp::from_micros(edge), Timestamp::from_micros(edge - 1));
            assert_eq!(dedup.check_at(b"late", late), Ok(Verdict::Late), "{config:?}");
            assert_eq!(dedup.contains_at(b"first", late), Ok(false));
            assert_eq!(dedup.check_at(b"late", open), Ok(Verdict::Unique), "{config:?}");
        });
    }
}

#[test]
fn an_unbounded_window_never_forgets() {
    for mode in ALL_MODES {
        let config = Config { mode, kind: Kind::Unbounded, ..Config::default() };
        let (dedup, clock) = config.build();
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
        for time in [Timestamp::MIN, Timestamp::from_secs(0), Timestamp::MAX] {
            Arc::clone(&clock).set(time);
            assert!(dedup.maintain(Duration::from_secs(1)));
            assert_eq!(dedup.check(b"key"), Ok(Verdict::Duplicate));
        }
        assert_eq!(dedup.stats().effective_window, None);
    }
}
