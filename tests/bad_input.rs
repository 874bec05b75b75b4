//! Guarantees 4 and 7: bad input is a typed error that records nothing and
//! moves nothing; a failed batch is a completed prefix.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod model;

use hapax::{
    BatchError, BatchErrorKind, CheckError, ConfigProblem, Deduper, MAX_BUCKETS, ManualClock,
    Timestamp, Verdict, Window,
};
use model::config::{Config, Kind, MODES};
use std::sync::Arc;
use std::time::Duration;

const YEAR_2999: Timestamp = Timestamp::from_secs(32_472_144_000);
const UNTOUCHED: Verdict = Verdict::Late;

fn event_time() -> Config {
    Config { lateness: Some(Duration::from_secs(2)), ..Config::default() }
}

fn too_far(time: Timestamp, largest_seen: Timestamp, config: &Config) -> CheckError {
    CheckError::TooFarAhead { time, largest_seen, max_ahead: config.max_ahead }
}

fn stopped(completed: usize, error: CheckError) -> Result<(), BatchError> {
    Err(BatchError { completed, source: BatchErrorKind::Check(error) })
}

fn assert_nothing_recorded(dedup: &Deduper) {
    let stats = dedup.stats();
    let counts = [stats.uniques, stats.duplicates, stats.late, stats.live_keys];
    assert_eq!(counts, [0; 4]);
}

#[test]
fn calls_without_a_time_are_refused_in_event_time() {
    let (dedup, _clock) = event_time().build();
    let mut verdicts = [UNTOUCHED; 2];
    assert_eq!(dedup.check(b"key"), Err(CheckError::TimeRequired));
    assert_eq!(dedup.contains(b"key"), Err(CheckError::TimeRequired));
    let batch = dedup.check_batch(&[b"a", b"b"], &mut verdicts);
    assert_eq!(batch, stopped(0, CheckError::TimeRequired));
    assert_nothing_recorded(&dedup);
}

#[test]
fn calls_with_a_time_are_refused_in_processing_time() {
    let (dedup, _clock) = Config::default().build();
    let (at, mut verdicts) = (Timestamp::from_secs(1), [UNTOUCHED; 2]);
    assert_eq!(dedup.check_at(b"key", at), Err(CheckError::TimeNotExpected));
    assert_eq!(dedup.contains_at(b"key", at), Err(CheckError::TimeNotExpected));
    let batch = dedup.check_batch_at(&[b"a", b"b"], &[at; 2], &mut verdicts);
    assert_eq!(batch, stopped(0, CheckError::TimeNotExpected));
    assert_nothing_recorded(&dedup);
}

#[test]
fn one_record_from_the_year_2999_moves_nothing() {
    for mode in MODES {
        let config = Config { mode, ..event_time() };
        let (dedup, _clock) = config.build();
        let largest = config.start.saturating_add(Duration::from_secs(1));
        assert_eq!(dedup.check_at(b"first", largest), Ok(Verdict::Unique));
        let refused = too_far(YEAR_2999, largest, &config);
        assert_eq!(dedup.check_at(b"bad", YEAR_2999), Err(refused.clone()));
        assert_eq!(dedup.contains_at(b"first", YEAR_2999), Err(refused));
        assert_eq!(dedup.check_at(b"first", config.start), Ok(Verdict::Duplicate));
        assert_eq!(dedup.check_at(b"bad", config.start), Ok(Verdict::Unique));
    }
}

#[test]
fn a_first_record_from_the_year_2999_moves_nothing() {
    let config = event_time();
    let (dedup, clock) = config.build();
    let refused = |largest| Err(too_far(YEAR_2999, largest, &config));
    assert_eq!(dedup.check_at(b"bad", YEAR_2999), refused(config.start));
    let later = config.start.saturating_add(Duration::from_secs(5));
    clock.set(later);
    assert_eq!(dedup.check_at(b"bad", YEAR_2999), refused(later));
    assert_nothing_recorded(&dedup);
    // However old: before the first record nothing is late.
    assert_eq!(dedup.check_at(b"bad", Timestamp::from_secs(-1)), Ok(Verdict::Unique));
}

#[test]
fn exactly_max_ahead_is_not_too_far() {
    let config = event_time();
    let (dedup, _clock) = config.build();
    let edge = config.start.saturating_add(config.max_ahead);
    let beyond = edge.saturating_add(Duration::from_micros(1));
    let refused = too_far(beyond, config.start, &config);
    assert_eq!(dedup.check_at(b"key", beyond), Err(refused));
    assert_eq!(dedup.contains_at(b"key", edge), Ok(false));
    assert_eq!(dedup.check_at(b"key", edge), Ok(Verdict::Unique));
    assert_eq!(dedup.check_at(b"key", config.start), Ok(Verdict::Late));
}

#[test]
fn max_ahead_holds_in_an_unbounded_window_too() {
    let config = Config { kind: Kind::Unbounded, ..event_time() };
    let (dedup, _clock) = config.build();
    let refused = too_far(YEAR_2999, config.start, &config);
    assert_eq!(dedup.check_at(b"key", YEAR_2999), Err(refused));
    assert_eq!(dedup.check_at(b"key", config.start), Ok(Verdict::Unique));
    assert_eq!(dedup.check_at(b"key", Timestamp::MIN), Ok(Verdict::Duplicate));
}

/// Wherever the bad record stands: at the ends, and at the edges of the
/// engine's own smaller batches.
#[test]
fn a_batch_stops_before_a_record_from_the_year_2999() {
    for mode in MODES {
        for bad in [0, 1, 255, 256, 257, 599] {
            let config = Config { mode, ..event_time() };
            let (dedup, _clock) = config.build();
            let keys: Vec<_> = (0..600_u32).map(u32::to_be_bytes).collect();
            let mut times = vec![config.start; keys.len()];
            times[bad] = YEAR_2999;
            let mut verdicts = vec![UNTOUCHED; keys.len()];
            let answer = dedup.check_batch_at(&keys, &times, &mut verdicts);
            assert_eq!(answer, stopped(bad, too_far(YEAR_2999, config.start, &config)));
            assert_eq!(verdicts[..bad], vec![Verdict::Unique; bad]);
            for (index, key) in keys.iter().enumerate() {
                assert_eq!(dedup.contains_at(key, config.start), Ok(index < bad), "{index}, {bad}");
            }
            assert_eq!(dedup.stats().uniques, bad as u64);
        }
    }
}

#[test]
fn slices_of_different_lengths_are_refused_whole() {
    let mismatch = |keys, times, verdicts| {
        let source = BatchErrorKind::LengthMismatch { keys, times, verdicts };
        Err(BatchError { completed: 0, source })
    };
    let keys = [b"a", b"b", b"c"];
    let (dedup, _clock) = Config::default().build();
    assert_eq!(dedup.check_batch(&keys, &mut [UNTOUCHED; 2]), mismatch(3, 3, 2));
    assert_eq!(dedup.check_batch(&keys, &mut [UNTOUCHED; 4]), mismatch(3, 3, 4));
    assert_eq!(dedup.check_batch(&keys, &mut []), mismatch(3, 3, 0));
    assert_nothing_recorded(&dedup);

    let (dedup, _clock) = event_time().build();
    let at = [event_time().start; 4];
    let batch = |times: usize, verdicts: usize| {
        dedup.check_batch_at(&keys, &at[..times], &mut [UNTOUCHED; 4][..verdicts])
    };
    assert_eq!(batch(2, 3), mismatch(3, 2, 3));
    assert_eq!(batch(4, 3), mismatch(3, 4, 3));
    assert_eq!(batch(3, 2), mismatch(3, 3, 2));
    assert_eq!(batch(0, 0), mismatch(3, 0, 0));
    assert_nothing_recorded(&dedup);
}

#[test]
fn a_key_twice_in_one_batch_is_unique_and_then_duplicate() {
    use Verdict::{Duplicate, Unique};
    for mode in MODES {
        let (dedup, _clock) = Config { mode, ..Config::default() }.build();
        let mut verdicts = [UNTOUCHED; 6];
        dedup.check_batch(&["a", "b", "a", "", "", "b"], &mut verdicts).unwrap();
        assert_eq!(verdicts, [Unique, Unique, Duplicate, Unique, Duplicate, Duplicate]);
        let mut none: [Verdict; 0] = [];
        assert_eq!(dedup.check_batch::<&str>(&[], &mut none), Ok(()));
    }
}

fn problems(builder: hapax::Builder) -> Vec<ConfigProblem> {
    let error = builder.build().err().unwrap();
    let text = error.to_string();
    for problem in error.problems() {
        assert!(text.contains(&problem.to_string()), "{problem:?} is not in {text:?}");
    }
    error.problems().to_vec()
}

#[test]
fn a_configuration_is_refused_with_all_its_problems() {
    let lateness = Duration::from_secs(1);
    let builder = Deduper::builder(Window::sliding(Duration::ZERO).buckets(0)).event_time(lateness);
    let found = problems(builder);
    assert!(found.contains(&ConfigProblem::Buckets(0)));
    assert!(found.contains(&ConfigProblem::ZeroSpan));
    let beyond = ConfigProblem::LatenessBeyondSpan { lateness, span: Duration::ZERO };
    assert!(found.contains(&beyond));
    assert_eq!(found.len(), 3);
}

#[test]
fn each_bound_of_a_configuration_is_kept() {
    let span = Duration::from_secs(60);
    let window = Window::fixed(span);
    let refused = |builder| problems(builder)[0].clone();
    let beyond = MAX_BUCKETS + 1;
    assert_eq!(refused(Deduper::builder(window.buckets(beyond))), ConfigProblem::Buckets(beyond));
    let lateness = span + Duration::from_nanos(1);
    assert_eq!(
        refused(Deduper::builder(window).event_time(lateness)),
        ConfigProblem::LatenessBeyondSpan { lateness, span }
    );
    assert_eq!(refused(Deduper::builder(Window::fixed(Duration::MAX))), ConfigProblem::SpanTooLong);
    let widest = Deduper::builder(window.buckets(MAX_BUCKETS)).event_time(span).capacity(1);
    assert!(widest.clock(Arc::new(ManualClock::new(YEAR_2999))).build().is_ok());
}

#[test]
fn a_limit_that_holds_not_even_an_empty_engine_is_refused_with_the_other_problems() {
    let limit = |builder: hapax::Builder| builder.memory_limit(1, hapax::OnFull::Reject);
    let too_small = |found: &[ConfigProblem]| {
        let is = |problem: &ConfigProblem| match problem {
            ConfigProblem::LimitTooSmall { limit_bytes: 1, needed_bytes } => *needed_bytes > 1,
            _ => false,
        };
        found.iter().any(is)
    };
    let sound = Window::fixed(Duration::from_secs(1));
    assert!(too_small(&problems(limit(Deduper::builder(sound)))));
    let unsound = Window::fixed(Duration::ZERO);
    let found = problems(limit(Deduper::builder(unsound)));
    assert!(found.contains(&ConfigProblem::ZeroSpan));
    assert!(too_small(&found), "{found:?}");
}

#[test]
fn the_least_limit_that_is_named_works() {
    let build = |bytes| {
        let window = Window::fixed(Duration::from_secs(1));
        let builder = Deduper::builder(window).memory_limit(bytes, hapax::OnFull::Reject);
        builder.build()
    };
    let error = build(1).err().unwrap();
    let ConfigProblem::LimitTooSmall { needed_bytes, .. } = error.problems()[0] else {
        panic!("{error}");
    };
    assert!(build(needed_bytes - 1).is_err());
    let dedup = build(needed_bytes).unwrap();
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Duplicate));
}
