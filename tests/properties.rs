//! Random operation sequences, every answer compared with the naive model.
//!
//! A failing case is shrunk, and printed with the sequence that replays it.
//! `PROPTEST_CASES` sets how many cases are tried.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod model;

use hapax::{Mode, Timestamp};
use model::config::{Config, FILTER, Hashing, Kind};
use model::rig::{Moment, Op, Rig};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::FileFailurePersistence;
use std::time::Duration;

const YEAR_MICROS: i64 = 365 * 24 * 60 * 60 * 1_000_000;

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource(
            "proptest-regressions",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_answer_is_the_models((config, ops) in case()) {
        replay(config, &ops);
    }

    #[test]
    fn every_answer_is_the_models_with_colliding_hashes((config, ops) in colliding_case()) {
        replay(config, &ops);
    }
}

fn replay(config: Config, ops: &[Op]) {
    let mut rig = Rig::new(config);
    for op in ops {
        rig.step(op);
    }
    rig.step(&Op::Maintain);
}

fn case() -> impl Strategy<Value = (Config, Vec<Op>)> {
    (config(), id()).prop_flat_map(|(config, ids)| {
        let op = op(&config, ids);
        (Just(config), prop::collection::vec(op, 1..60))
    })
}

/// Verified mode alone promises anything when hashes collide. Few keys: a
/// check is linear in them here.
fn colliding_case() -> impl Strategy<Value = (Config, Vec<Op>)> {
    (config(), select(&Hashing::CUT[..])).prop_flat_map(|(config, hashing)| {
        let config = Config { mode: Mode::verified(), hashing, ..config };
        let op = op(&config, 40);
        (Just(config), prop::collection::vec(op, 1..40))
    })
}

/// The size of the universe that keys are drawn from: small to repeat, large
/// to grow.
fn id() -> impl Strategy<Value = u64> {
    prop_oneof![Just(3_u64), Just(40), Just(400), Just(1 << 40)]
}

fn config() -> impl Strategy<Value = Config> {
    let kind = select(vec![Kind::Fixed, Kind::Sliding, Kind::Unbounded]);
    let hashing = select(vec![Hashing::Keyed, Hashing::Trusted, Hashing::FewShards]);
    let mode = select(&model::config::ALL_MODES[..]);
    let capacity = select(vec![1, 1 << 20]);
    (mode, kind, hashing, grid(), lateness(), capacity, start()).prop_map(
        |(mode, kind, hashing, (buckets, tags, span), lateness, capacity, start)| Config {
            mode,
            kind,
            hashing,
            tags,
            span,
            // A filter of such a rate is for few buckets.
            buckets: if mode == FILTER { buckets.min(24) } else { buckets },
            capacity: if mode == FILTER { 1 } else { capacity },
            start,
            lateness: lateness.map(|share| span.mul_f64(share).min(span)),
            max_ahead: span.saturating_mul(1_000).max(Duration::from_secs(1)),
        },
    )
}

/// Buckets, tags to go with them, and a span.
fn grid() -> impl Strategy<Value = (u32, u8, Duration)> {
    let buckets = prop_oneof![1_u32..4, 1_u32..=120, Just(8), Just(120)];
    let span = prop_oneof![1_u64..300, 1_000_000_u64..4_000_000_000_000, Just(600_000_000)];
    (buckets, span, 0_u32..4, any::<bool>()).prop_map(|(buckets, span, spare, narrow)| {
        let tags = if narrow { (2 * buckets + 4 + spare).min(255) } else { 255 };
        (buckets, u8::try_from(tags).unwrap(), Duration::from_micros(span))
    })
}

/// `None`: processing time; else the share of the span that is the lateness.
fn lateness() -> impl Strategy<Value = Option<f64>> {
    let share = prop_oneof![Just(0.0), 0.0..1.0, Just(1.0)];
    prop::option::of(share)
}

fn start() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        Just(0),
        Just(1_790_000_000_000_000),
        -3..3_i64,
        -100 * YEAR_MICROS..100 * YEAR_MICROS,
    ]
    .prop_map(Timestamp::from_micros)
}

fn op(config: &Config, ids: u64) -> impl Strategy<Value = Op> + use<> {
    let (id, at) = (0..ids, record_moment(config));
    let record = (id.clone(), at.clone());
    let turn = clock_moment(config);
    prop_oneof![
        8 => record.clone().prop_map(|(id, at)| Op::Check(id, at)),
        4 => batch(record.clone()),
        3 => record.prop_map(|(id, at)| Op::Contains(id, at)),
        2 => id.prop_map(Op::Forget),
        1 => Just(Op::Maintain),
        6 => turn.prop_map(Op::Turn),
        1 => clock_jump().prop_map(Op::TurnTo),
    ]
}

/// Sizes on both sides of the engine's internal batch.
fn batch(record: impl Strategy<Value = (u64, Moment)> + Clone) -> impl Strategy<Value = Op> {
    let size = prop_oneof![
        8 => 0_usize..40,
        1 => select(vec![255, 256, 257]),
        1 => select(vec![511, 512, 513, 1_000]),
    ];
    size.prop_flat_map(move |size| prop::collection::vec(record.clone(), size)).prop_map(Op::Batch)
}

/// A record's time: mostly about now, or where the rules change.
fn record_moment(config: &Config) -> impl Strategy<Value = Moment> + Clone + use<> {
    let (buckets, tags) = (i64::from(config.buckets), i64::from(config.tags));
    let steps = prop_oneof![
        20 => -1_i64..=1,
        10 => -2 * buckets - 1..=1,
        2 => 1..=buckets + 2,
        1 => select(vec![tags - 1, tags, tags + 1]),
        1 => select(vec![-tags, 1_001 * buckets, 1 << 50, -(1 << 50)]),
    ];
    (steps, any::<u8>()).prop_map(|(buckets, part)| Moment { buckets, part }).boxed()
}

/// A turn of the clock: steps on, back, over the window, round the tags.
fn clock_moment(config: &Config) -> impl Strategy<Value = Moment> + use<> {
    let (buckets, tags) = (i64::from(config.buckets), i64::from(config.tags));
    let steps = prop_oneof![
        10 => 0_i64..=1,
        4 => -3_i64..=3,
        4 => buckets - 1..=buckets + 2,
        2 => tags - 1..=tags + 1,
        2 => tags - buckets - 1..=tags + buckets + 1,
        1 => select(vec![2 * tags, 3 * tags, 1_000 * tags, -buckets, -tags]),
    ];
    (steps, any::<u8>()).prop_map(|(buckets, part)| Moment { buckets, part })
}

fn clock_jump() -> impl Strategy<Value = Timestamp> {
    let jump = prop_oneof![-200 * YEAR_MICROS..200 * YEAR_MICROS, Just(0), Just(i64::MIN)];
    jump.prop_map(Timestamp::from_micros)
}
