//! What a check costs, one at a time and in batches of 256; with the feature
//! `rayon` also in batches of 131,072 on all cores.
//!
//! Each benchmark holds a steady state: the window is full from the start, and
//! the clock moves on by a bucket whenever a bucket's share of new keys has
//! been recorded, so that as many keys expire as come. The window holds
//! `HAPAX_BENCH_KEYS` live keys, 1,000,000 unless told; take 10,000,000 or more
//! to go far beyond the processor's cache:
//!
//! ```text
//! HAPAX_BENCH_KEYS=10000000 cargo bench --bench engine
//! ```

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use hapax::{Builder, Deduper, ManualClock, Mode, Timestamp, Verdict, Window};
use std::sync::Arc;
use std::time::Duration;

const BATCH: usize = 256;
const BUCKETS: u32 = 8;
const SPAN: Duration = Duration::from_secs(800);

type Key = [u8; 16];

/// Which share of the keys was seen before.
#[derive(Clone, Copy)]
enum Mix {
    New,
    Half,
    Duplicates,
}

impl Mix {
    const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Half => "half",
            Self::Duplicates => "duplicates",
        }
    }

    const fn is_new(self, index: usize) -> bool {
        match self {
            Self::New => true,
            Self::Half => index.is_multiple_of(2),
            Self::Duplicates => false,
        }
    }
}

/// A deduper with a full window, and the stream that keeps it full.
struct Steady {
    dedup: Deduper,
    clock: Arc<ManualClock>,
    live_keys: u64,
    next: u64,
    random: u64,
}

impl Steady {
    fn new(live_keys: u64, configure: impl FnOnce(Builder) -> Builder) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000_000)));
        let builder = Deduper::builder(Window::fixed(SPAN).buckets(BUCKETS))
            .capacity(live_keys)
            .clock(Arc::clone(&clock));
        let dedup = configure(builder).build().expect("a valid configuration");
        let mut steady = Self { dedup, clock, live_keys, next: 0, random: 1 };
        for _ in 0..live_keys.div_ceil(BATCH as u64) {
            let keys = steady.keys(Mix::New);
            let _: [Verdict; BATCH] = steady.check_batch(&keys);
        }
        steady
    }

    /// The next keys of the stream. Old ones come from the younger half of the
    /// window, so that none has expired.
    fn keys(&mut self, mix: Mix) -> Vec<Key> {
        self.many_keys(mix, BATCH)
    }

    fn many_keys(&mut self, mix: Mix, count: usize) -> Vec<Key> {
        (0..count)
            .map(|index| {
                let number = if mix.is_new(index) { self.new_number() } else { self.old_number() };
                key(number)
            })
            .collect()
    }

    fn new_number(&mut self) -> u64 {
        let share = (self.live_keys / u64::from(BUCKETS)).max(1);
        if self.next.is_multiple_of(share) {
            self.clock.advance(SPAN / BUCKETS);
        }
        self.next += 1;
        self.next - 1
    }

    fn old_number(&mut self) -> u64 {
        self.random = mixed(self.random);
        self.next - 1 - self.random % (self.live_keys / 2).clamp(1, self.next)
    }

    fn check_batch(&self, keys: &[Key]) -> [Verdict; BATCH] {
        let mut verdicts = [Verdict::Late; BATCH];
        self.dedup.check_batch(keys, &mut verdicts).expect("no limit is set");
        verdicts
    }

    fn check_each(&self, keys: &[Key]) -> usize {
        let verdict = |key: &Key| self.dedup.check(key).expect("no limit is set");
        keys.iter().filter(|key| verdict(key).is_unique()).count()
    }
}

/// The finalizer of `SplitMix64`: a bijection, so that different numbers stay
/// different.
const fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn key(number: u64) -> Key {
    (u128::from(number) << 64 | u128::from(mixed(number))).to_le_bytes()
}

fn live_keys() -> u64 {
    match std::env::var("HAPAX_BENCH_KEYS") {
        Ok(keys) => keys.parse().expect("HAPAX_BENCH_KEYS is a number"),
        Err(_) => 1_000_000,
    }
}

/// One mode with one hash, over every mix, one by one and in batches.
fn checks(criterion: &mut Criterion, name: &str, configure: fn(Builder) -> Builder) {
    let live_keys = live_keys();
    let mut steady = Steady::new(live_keys, configure);
    let mut group = criterion.benchmark_group(format!("{name}/{live_keys} keys"));
    group.throughput(Throughput::Elements(BATCH as u64));
    for mix in [Mix::New, Mix::Half, Mix::Duplicates] {
        group.bench_function(BenchmarkId::new("check", mix.name()), |bencher| {
            let shared = std::cell::RefCell::new(&mut steady);
            bencher.iter_batched(
                || shared.borrow_mut().keys(mix),
                |keys| shared.borrow().check_each(&keys),
                BatchSize::NumIterations(1),
            );
        });
        group.bench_function(BenchmarkId::new("check_batch", mix.name()), |bencher| {
            let shared = std::cell::RefCell::new(&mut steady);
            bencher.iter_batched(
                || shared.borrow_mut().keys(mix),
                |keys| shared.borrow().check_batch(&keys),
                BatchSize::NumIterations(1),
            );
        });
    }
    group.finish();
}

/// One stage of `par_check_batch`, on as many threads as there are cores, and
/// the same keys on one.
#[cfg(feature = "rayon")]
fn parallel_checks(criterion: &mut Criterion) {
    const KEYS: usize = 1 << 17;
    let live_keys = live_keys();
    let steady = std::cell::RefCell::new(Steady::new(live_keys, |builder| builder));
    let mut group = criterion.benchmark_group(format!("large batches/{live_keys} keys"));
    group.throughput(Throughput::Elements(KEYS as u64));
    group.sample_size(20);
    let keys = || (steady.borrow_mut().many_keys(Mix::Half, KEYS), vec![Verdict::Late; KEYS]);
    group.bench_function("check_batch", |bencher| {
        let check = |(keys, verdicts): &mut (Vec<Key>, Vec<Verdict>)| {
            steady.borrow().dedup.check_batch(keys, verdicts).expect("no limit is set");
        };
        bencher.iter_batched_ref(keys, check, BatchSize::NumIterations(1));
    });
    group.bench_function("par_check_batch", |bencher| {
        let check = |(keys, verdicts): &mut (Vec<Key>, Vec<Verdict>)| {
            steady.borrow().dedup.par_check_batch(keys, verdicts).expect("no limit is set");
        };
        bencher.iter_batched_ref(keys, check, BatchSize::NumIterations(1));
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    checks(&mut criterion, "fingerprint, keyed hash", |builder| builder);
    checks(&mut criterion, "fingerprint, trusted keys", Builder::trusted_keys);
    checks(&mut criterion, "verified, keyed hash", |builder| builder.mode(Mode::verified()));
    checks(&mut criterion, "verified, trusted keys", |builder| {
        builder.mode(Mode::verified()).trusted_keys()
    });
    checks(&mut criterion, "filter of 1 %, trusted keys", |builder| {
        builder.mode(Mode::filter(1e-2)).trusted_keys()
    });
    #[cfg(feature = "rayon")]
    parallel_checks(&mut criterion);
    criterion.final_summary();
}
