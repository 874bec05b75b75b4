//! Many checks against the naive model: long runs of seeded random traffic
//! over rotating random configurations.
//!
//! - `HAPAX_PROPERTY_CHECKS`: how many checks in all; 100 million in a release
//!   build is the full run.
//! - `HAPAX_PROPERTY_SEED`: the first configuration's seed. A failure prints
//!   the seed of the configuration that failed; with it here and one check
//!   more than none asked for, that configuration runs first.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod model;

use hapax::{Mode, Timestamp};
use model::config::{Config, Hashing, Kind, MODES};
use model::random::Random;
use model::rig::{Moment, Op, Rig};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn long_runs_answer_as_the_model_does() {
    let checks = setting("HAPAX_PROPERTY_CHECKS", 300_000);
    let runs = plan(checks, setting("HAPAX_PROPERTY_SEED", 1));
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(runs.len()) {
            scope.spawn(|| {
                while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run.go();
                }
            });
        }
    });
    let done: u64 = runs.iter().map(|run| run.checks).sum();
    println!("{done} checks over {} configurations answered as the model does", runs.len());
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.replace('_', "").parse().unwrap())
}

/// One configuration and how many checks it gets.
#[derive(Debug)]
struct Run {
    seed: u64,
    size: Size,
    checks: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    /// Some hundred live keys, many rotations.
    Small,
    /// Some ten thousand live keys.
    Medium,
    /// Up to a million live keys: tables grow many times.
    Large,
}

/// Splits the checks into runs. No run takes more than a fortieth, so that even a
/// short soak sees many configurations.
fn plan(checks: u64, first_seed: u64) -> Vec<Run> {
    let mut left = checks;
    let mut runs = Vec::new();
    for seed in first_seed.. {
        if left == 0 {
            break;
        }
        let (size, wanted) = match seed % 8 {
            1..=5 => (Size::Small, 60_000),
            6 | 7 => (Size::Medium, 600_000),
            _ => (Size::Large, 5_000_000),
        };
        let checks = left.min(wanted).min(checks / 40 + 1);
        runs.push(Run { seed, size, checks });
        left -= checks;
    }
    runs
}

impl Run {
    fn go(&self) {
        let mut random = Random::new(self.seed);
        let config = config(self.size, &mut random);
        let reported = ReportOnPanic(self, &config);
        let mut rig = Rig::new(config.clone());
        let mut traffic = Traffic::new(self.size, &config, random);
        let mut left = self.checks;
        while left > 0 {
            let op = traffic.op(left);
            left -= checks_in(&op);
            rig.step(&op);
            if rig.model.kept() > traffic.trim_above {
                rig.trim_model();
                traffic.trim_above = 2 * rig.model.kept() + 1_000;
            }
        }
        rig.step(&Op::Maintain);
        drop(reported);
    }
}

/// Says which run failed: the panic itself knows only the operation.
struct ReportOnPanic<'a>(&'a Run, &'a Config);

impl Drop for ReportOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: HAPAX_PROPERTY_SEED={} replays {:?}", self.0.seed, self);
        }
    }
}

impl std::fmt::Debug for ReportOnPanic<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} of {:?}", self.0, self.1)
    }
}

fn checks_in(op: &Op) -> u64 {
    match op {
        Op::Check(..) => 1,
        Op::Batch(records) => records.len() as u64,
        _ => 0,
    }
}

fn config(size: Size, random: &mut Random) -> Config {
    let buckets = match random.below(4) {
        0 => random.between(1, 3),
        1 => random.pick(&[8, 120]),
        _ => random.between(1, 120),
    };
    let buckets = u32::try_from(buckets).unwrap();
    let span = Duration::from_micros(random.pick(&[1, 97, 10_000, 600_000_000, 1 << 45]));
    let mode = random.pick(&MODES);
    Config {
        mode,
        kind: random.pick(&[
            Kind::Fixed,
            Kind::Fixed,
            Kind::Sliding,
            Kind::Sliding,
            Kind::Unbounded,
        ]),
        span,
        buckets,
        lateness: random
            .one_in(2)
            .then(|| span.mul_f64(random.pick(&[0.0, 0.1, 0.7, 1.0])).min(span)),
        max_ahead: span.saturating_mul(1_000).max(Duration::from_secs(1)),
        tags: tags(buckets, random),
        capacity: random.pick(&[1, 100_000, 10_000_000]),
        hashing: hashing(size, mode, random),
        start: Timestamp::from_micros(random.pick(&[
            0,
            1_790_000_000_000_000,
            -1_790_000_000_000_001,
        ])),
    }
}

fn tags(buckets: u32, random: &mut Random) -> u8 {
    let narrowest = u8::try_from(2 * buckets + 4).unwrap();
    random.pick(&[narrowest, narrowest.saturating_add(1), narrowest.saturating_add(9), 255])
}

/// Bad hashes only where the mode bears them and the keys are few.
fn hashing(size: Size, mode: Mode, random: &mut Random) -> Hashing {
    if size == Size::Small && mode == Mode::verified() && random.one_in(4) {
        return random.pick(&Hashing::CUT);
    }
    random.pick(&[Hashing::Keyed, Hashing::Keyed, Hashing::Trusted, Hashing::FewShards])
}

/// Makes operations in moods: each keeps to one way of drawing keys and one
/// pace of time for a while, so that floods, lulls and repeats come in turn.
struct Traffic {
    random: Random,
    config: Config,
    universe: u64,
    mood: Mood,
    fresh_id: u64,
    trim_above: usize,
}

#[derive(Clone, Copy)]
struct Mood {
    ops_left: u64,
    /// One key in so many is new; else drawn from the universe.
    fresh_one_in: u64,
    /// Of 256 parts of a bucket, the most that time moves per operation.
    pace: u64,
    /// How many buckets a record may be behind.
    behind: i64,
    largest_batch: u64,
}

impl Traffic {
    fn new(size: Size, config: &Config, mut random: Random) -> Self {
        let universe = match size {
            Size::Small if config.hashing == Hashing::Keyed => random.pick(&[1, 10, 300]),
            Size::Small => 60,
            Size::Medium => 30_000,
            Size::Large => 1_000_000,
        };
        let mood = Mood { ops_left: 0, fresh_one_in: 1, pace: 0, behind: 0, largest_batch: 1 };
        let config = config.clone();
        Self { random, config, universe, mood, fresh_id: 1 << 40, trim_above: 10_000 }
    }

    fn op(&mut self, checks_left: u64) -> Op {
        if self.mood.ops_left == 0 {
            self.mood = self.new_mood();
            return self.between_moods();
        }
        self.mood.ops_left -= 1;
        match self.random.below(16) {
            0 => Op::Contains(self.id(), self.moment()),
            1 => Op::Forget(self.id()),
            2..6 => Op::Check(self.id(), self.moment()),
            6..9 => {
                Op::Turn(Moment { buckets: 0, part: self.random.below(self.mood.pace + 1) as u8 })
            }
            _ => self.batch(checks_left),
        }
    }

    fn new_mood(&mut self) -> Mood {
        let random = &mut self.random;
        let buckets = i64::from(self.config.buckets);
        let small = self.universe <= 1_000;
        let flood = !small || self.config.hashing == Hashing::Keyed;
        Mood {
            ops_left: random.below(if small { 30 } else { 200 }),
            fresh_one_in: if flood { random.pick(&[1, 2, 10, 1_000]) } else { 1_000 },
            pace: random.pick(&[0, 0, 1, 10, 255]),
            behind: random.pick(&[0, 0, 1, buckets, 2 * buckets]),
            largest_batch: random.pick(if small {
                &[2, 2, 10, 300]
            } else {
                &[40, 600, 1_000, 3_000]
            }),
        }
    }

    /// A lull, a jump, or maintenance; rarely enough that live keys gather.
    fn between_moods(&mut self) -> Op {
        let (buckets, tags) = (i64::from(self.config.buckets), i64::from(self.config.tags));
        let lull = if self.universe > 1_000 { 10 } else { 2 };
        if !self.random.one_in(lull) {
            return if self.random.one_in(4) { Op::Maintain } else { self.batch(1) };
        }
        let wraps = self.random.between(1, 3);
        let steps =
            [1, -1, -buckets, buckets, buckets + 1, wraps * tags, wraps * tags - 1, 100 * tags];
        let moment =
            Moment { buckets: self.random.pick(&steps), part: self.random.below(256) as u8 };
        if self.config.lateness.is_some() { Op::Check(self.id(), moment) } else { Op::Turn(moment) }
    }

    fn batch(&mut self, checks_left: u64) -> Op {
        let edges = [0, 1, 255, 256, 257, 512];
        let size = match self.random.below(8) {
            0 => self.random.pick(&edges),
            _ => self.random.below(self.mood.largest_batch),
        };
        let size = size.min(checks_left);
        Op::Batch((0..size).map(|_| (self.id(), self.moment())).collect())
    }

    fn id(&mut self) -> u64 {
        if self.random.one_in(self.mood.fresh_one_in) {
            self.fresh_id += 1;
            return self.fresh_id;
        }
        // Half of all draws come from a tenth of the keys.
        let keys = if self.random.one_in(2) { self.universe.div_ceil(10) } else { self.universe };
        self.random.below(keys)
    }

    fn moment(&mut self) -> Moment {
        let random = &mut self.random;
        let ahead = i64::from(random.below(512) < self.mood.pace / 64);
        let far = random.one_in(100_000);
        let buckets = if far { 1 << 50 } else { ahead - random.between(0, self.mood.behind) };
        Moment { buckets, part: random.below(self.mood.pace + 1) as u8 }
    }
}
