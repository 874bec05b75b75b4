//! `par_check_batch` answers what `check_batch` answers, whatever the mode, the
//! window, the times and the size.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod model;

use hapax::{
    BatchError, BatchErrorKind, Builder, CheckError, Deduper, ManualClock, OnFull, Timestamp,
    Verdict,
};
use model::config::{Config, Hashing, Kind, MODES};
use model::random::scatter;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::FileFailurePersistence;
use rayon::ThreadPool;
use std::sync::Arc;
use std::time::Duration;

const THREADS: usize = 4;

/// Sizes around those at which the parallel way begins, and a new stage.
const SIZES: [usize; 10] = [0, 1, 25, 4_095, 4_096, 4_097, 9_000, 16_384, 30_000, 140_000];

/// The verdict that tests put where none should be written.
const UNTOUCHED: Verdict = Verdict::Late;

/// A batch: which keys, and each record's time in buckets after the start.
#[derive(Clone, Debug)]
struct Batch {
    size: usize,
    /// Keys are drawn from this many.
    ids: u64,
    /// Buckets that the times go over.
    stretch: f64,
    /// Buckets that a record may be behind or before its turn.
    disorder: f64,
    /// One record far beyond `max_ahead`, if its index is in the batch.
    too_far: usize,
    seed: u64,
}

impl Batch {
    fn random(&self, index: usize, salt: u64) -> u64 {
        scatter(self.seed ^ salt ^ scatter(index as u64))
    }

    fn keys(&self) -> Vec<[u8; 8]> {
        (0..self.size).map(|index| (self.random(index, 0) % self.ids).to_be_bytes()).collect()
    }

    fn times(&self, config: &Config) -> Vec<Timestamp> {
        (0..self.size).map(|index| self.time(index, config)).collect()
    }

    fn time(&self, index: usize, config: &Config) -> Timestamp {
        if index == self.too_far {
            return Timestamp::MAX;
        }
        let part = (self.random(index, 1) % 1_000) as f64 / 500.0 - 1.0;
        let turn = self.stretch * index as f64 / self.size as f64;
        let buckets = (turn + part * self.disorder).max(0.0);
        config.start.saturating_add(config.width().mul_f64(buckets))
    }
}

/// The same deduper twice: one for each way.
struct Twins {
    config: Config,
    parallel: Deduper,
    sequential: Deduper,
    clocks: [Arc<ManualClock>; 2],
}

impl Twins {
    fn new(config: Config) -> Self {
        let (parallel, clock) = config.build();
        let (sequential, other) = config.build();
        Self { config, parallel, sequential, clocks: [clock, other] }
    }

    fn turn(&self, span: Duration) {
        for clock in &self.clocks {
            clock.advance(span);
        }
    }

    fn check(&self, batch: &Batch) {
        let keys = batch.keys();
        let (mut verdicts, mut expected) =
            (vec![UNTOUCHED; keys.len()], vec![UNTOUCHED; keys.len()]);
        if self.config.lateness.is_some() {
            let times = batch.times(&self.config);
            let result = self.parallel.par_check_batch_at(&keys, &times, &mut verdicts);
            assert_eq!(result, self.sequential.check_batch_at(&keys, &times, &mut expected));
        } else {
            let result = self.parallel.par_check_batch(&keys, &mut verdicts);
            assert_eq!(result, self.sequential.check_batch(&keys, &mut expected));
        }
        let differs = (0..keys.len()).find(|index| verdicts[*index] != expected[*index]);
        assert_eq!(differs, None, "{:?}", differs.map(|at| (verdicts[at], expected[at])));
        assert_eq!(counts(&self.parallel), counts(&self.sequential));
        assert_eq!(
            self.parallel.stats().effective_window,
            self.sequential.stats().effective_window
        );
    }
}

fn counts(dedup: &Deduper) -> [u64; 4] {
    let stats = dedup.stats();
    [stats.uniques, stats.duplicates, stats.late, stats.live_keys]
}

fn pool() -> ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(THREADS).build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource(
            "proptest-regressions",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_verdict_is_that_of_the_order(
        config in config(),
        batches in prop::collection::vec((batch(), 0.0..3.0), 1..4),
    ) {
        let twins = Twins::new(config);
        pool().install(|| {
            for (batch, turn) in &batches {
                twins.check(batch);
                twins.turn(twins.config.width().mul_f64(*turn));
            }
        });
    }
}

fn config() -> impl Strategy<Value = Config> {
    let kind = select(vec![Kind::Fixed, Kind::Sliding, Kind::Unbounded]);
    let hashing = select(vec![Hashing::Keyed, Hashing::Trusted, Hashing::FewShards]);
    let lateness = prop::option::of(select(vec![0.0, 0.3, 1.0]));
    let grid = (select(vec![1_u32, 2, 8]), any::<bool>());
    (select(&MODES[..]), kind, hashing, lateness, grid, select(vec![1, 1 << 18])).prop_map(
        |(mode, kind, hashing, lateness, (buckets, narrow), capacity)| {
            let span = Duration::from_secs(8);
            Config {
                mode,
                kind,
                hashing,
                buckets,
                tags: if narrow { u8::try_from(2 * buckets + 4).unwrap() } else { 255 },
                span,
                lateness: lateness.map(|share| span.mul_f64(share)),
                capacity,
                ..Config::default()
            }
        },
    )
}

fn batch() -> impl Strategy<Value = Batch> {
    let size = prop_oneof![4 => select(&SIZES[..8]), 1 => select(&SIZES[8..])];
    let ids = select(vec![1, 5, 3_000, 20_000, 1 << 40]);
    // Up to many buckets: then the watermark moves often, and stages are short.
    let stretch = select(vec![0.0, 0.7, 3.0, 40.0]);
    let disorder = select(vec![0.0, 0.5, 10.0]);
    let too_far = prop_oneof![3 => Just(usize::MAX), 1 => 0..20_000_usize];
    (size, ids, stretch, disorder, too_far, any::<u64>()).prop_map(
        |(size, ids, stretch, disorder, too_far, seed)| Batch {
            size,
            ids,
            stretch,
            disorder,
            too_far,
            seed,
        },
    )
}

#[test]
fn every_size_in_every_mode() {
    for mode in MODES {
        for size in SIZES {
            let twins = Twins::new(Config { mode, ..Config::default() });
            let ids = (size as u64 / 2).max(1);
            let batch =
                Batch { size, ids, stretch: 0.0, disorder: 0.0, too_far: usize::MAX, seed: 7 };
            pool().install(|| twins.check(&batch));
            pool().install(|| twins.check(&batch));
        }
    }
}

#[test]
fn slices_of_different_length_are_refused() {
    let (dedup, _clock) = Config::default().build();
    let result = dedup.par_check_batch(&[b"a", b"b"], &mut [UNTOUCHED]);
    let source = BatchErrorKind::LengthMismatch { keys: 2, times: 2, verdicts: 1 };
    assert_eq!(result, Err(BatchError { completed: 0, source }));
}

#[test]
fn the_wrong_kind_of_time_is_refused() {
    let keys = vec![*b"key"; 5_000];
    let (times, mut verdicts) = (vec![Timestamp::from_secs(1); 5_000], vec![UNTOUCHED; 5_000]);
    let stopped =
        |error: CheckError| Err(BatchError { completed: 0, source: BatchErrorKind::Check(error) });
    pool().install(|| {
        let (processing, _clock) = Config::default().build();
        let result = processing.par_check_batch_at(&keys, &times, &mut verdicts);
        assert_eq!(result, stopped(CheckError::TimeNotExpected));
        let lateness = Some(Duration::from_secs(1));
        let (event, _clock) = Config { lateness, ..Config::default() }.build();
        let result = event.par_check_batch(&keys, &mut verdicts);
        assert_eq!(result, stopped(CheckError::TimeRequired));
    });
}

const LIMIT_BYTES: u64 = 4 << 20;

fn limited(on_full: OnFull) -> Builder {
    Config { mode: hapax::Mode::verified(), ..Config::default() }
        .builder()
        .memory_limit(LIMIT_BYTES, on_full)
}

/// A key that alone is too long for the limit is refused under any policy. The
/// other keys need no memory by then: none is given up.
#[test]
fn a_failed_batch_is_a_completed_prefix_and_nothing_after_it() {
    const FAILING: usize = 3_000;
    const REPEATED: usize = FAILING + 20;
    let key = |number: usize| number.to_be_bytes().to_vec();
    let dedup = limited(OnFull::EvictOldest).build().unwrap();
    let known = FAILING + 500..FAILING + 1_000;
    for number in known.clone() {
        assert_eq!(dedup.check(&key(number)), Ok(Verdict::Unique));
    }
    let mut keys: Vec<Vec<u8>> = (0..4_200).map(key).collect();
    keys[FAILING] = vec![0; LIMIT_BYTES as usize];
    keys[REPEATED] = key(5);
    let mut verdicts = vec![UNTOUCHED; keys.len()];
    let result = pool().install(|| dedup.par_check_batch(&keys, &mut verdicts));
    let source = BatchErrorKind::Check(CheckError::Full { limit_bytes: LIMIT_BYTES });
    assert_eq!(result, Err(BatchError { completed: FAILING, source }));
    assert!(verdicts[..FAILING].iter().all(|verdict| *verdict == Verdict::Unique));
    assert!(verdicts[FAILING..].iter().all(|verdict| *verdict == UNTOUCHED));
    assert_eq!(dedup.stats().evicted, 0);
    for (index, key) in keys.iter().enumerate() {
        let is_kept = index < FAILING || known.contains(&index) || index == REPEATED;
        assert_eq!(dedup.contains(key), Ok(is_kept), "key {index}");
    }
}

#[test]
fn at_a_limit_that_rejects_the_first_keys_are_those_that_fit() {
    let keys: Vec<[u8; 8]> = (0..400_000_u64).map(u64::to_be_bytes).collect();
    let completed = |verdicts: &mut [Verdict], parallel: bool| {
        let dedup = limited(OnFull::Reject).hash_secret([7; 32]).build().unwrap();
        let result = if parallel {
            pool().install(|| dedup.par_check_batch(&keys, verdicts))
        } else {
            dedup.check_batch(&keys, verdicts)
        };
        assert_eq!(dedup.stats().live_keys as usize, result.as_ref().unwrap_err().completed);
        result.unwrap_err()
    };
    let mut verdicts = [vec![UNTOUCHED; keys.len()], vec![UNTOUCHED; keys.len()]];
    let [parallel, sequential] = &mut verdicts;
    assert_eq!(completed(parallel, true), completed(sequential, false));
    assert_eq!(parallel, sequential);
}

/// Guarantee 1, between batches that run at once.
#[test]
fn of_batches_at_once_each_key_has_one_winner() {
    for mode in MODES {
        let (dedup, _clock) = Config { mode, ..Config::default() }.build();
        let keys: Vec<[u8; 8]> =
            (0..60_000_u64).map(|index| (index % 20_000).to_be_bytes()).collect();
        let uniques = || {
            let mut verdicts = vec![UNTOUCHED; keys.len()];
            dedup.par_check_batch(&keys, &mut verdicts).unwrap();
            verdicts.iter().filter(|verdict| verdict.is_unique()).count()
        };
        let (one, other) = pool().install(|| rayon::join(uniques, uniques));
        assert_eq!(one + other, 20_000);
    }
}
