//! Any sequence of calls, against a naive model: a map from key to bucket.
//!
//! Every window kind, mode, hash and time domain, with few buckets and as few
//! tags as allowed, so that tags wrap after some dozens of buckets. In verified
//! mode the hash may be cut to a few bits or be the same for every key.

#![no_main]

use arbitrary::Arbitrary;
use hapax::{
    BatchErrorKind, CheckError, Deduper, KeyHash, ManualClock, Mode, Timestamp, Verdict, Window,
};
use libfuzzer_sys::fuzz_target;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// What the clock shows at the start, in microseconds.
const START_MICROS: i64 = 1_000_000;

#[derive(Arbitrary, Debug)]
struct Case {
    configuration: Configuration,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
struct Configuration {
    kind: Kind,
    span_micros: u16,
    buckets: u8,
    /// In 256ths of the span; none: processing time.
    lateness: Option<u8>,
    max_ahead_micros: u16,
    storage: Storage,
    /// More tags than the fewest that work.
    spare_tags: u8,
}

#[derive(Arbitrary, Debug, Clone, Copy, PartialEq)]
enum Kind {
    Fixed,
    Sliding,
    Unbounded,
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Storage {
    Fingerprint,
    FingerprintTrusted,
    Verified,
    VerifiedNarrowHash,
    VerifiedConstantHash,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// Time moves by a part of the span, or jumps back, and a key is checked.
    Check {
        key: u8,
        moves_micros: i16,
    },
    /// Like `Check`, far ahead.
    Leap {
        key: u8,
        moves_micros: i32,
    },
    /// Asks before it checks.
    Contains {
        key: u8,
    },
    Batch {
        keys: Vec<u8>,
    },
    Forget {
        key: u8,
    },
    Maintain {
        micros: u8,
    },
}

fuzz_target!(|case: Case| {
    let mut run = Run::new(case.configuration);
    for step in case.steps.into_iter().take(500) {
        run.take(step);
    }
    run.compare_counters();
});

/// The deduper, its model, and the time of the next check.
struct Run {
    dedup: Deduper,
    clock: Arc<ManualClock>,
    model: Model,
    now_micros: i64,
}

impl Run {
    fn new(configuration: Configuration) -> Self {
        let model = Model::new(configuration);
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(START_MICROS)));
        let mut builder = Deduper::builder(model.window())
            .capacity(64)
            .clock(Arc::clone(&clock))
            .max_ahead(micros(model.max_ahead_micros))
            .tags(fewest_tags(model.buckets).saturating_add(configuration.spare_tags));
        builder = match configuration.storage {
            Storage::Fingerprint => builder.mode(Mode::fingerprint()),
            Storage::FingerprintTrusted => builder.trusted_keys(),
            Storage::Verified => builder.mode(Mode::verified()),
            Storage::VerifiedNarrowHash => builder.mode(Mode::verified()).hash_with(narrow_hash),
            Storage::VerifiedConstantHash => {
                builder.mode(Mode::verified()).hash_with(|_| KeyHash::new(0))
            }
        };
        if let Some(lateness_micros) = model.lateness_micros {
            builder = builder.event_time(micros(lateness_micros));
        }
        let dedup = builder.build().expect("the model makes only valid configurations");
        let mut run = Self { dedup, clock, model, now_micros: START_MICROS };
        if run.model.lateness_micros.is_none() {
            // Only checks tell the model what the clock shows; other calls read it too.
            let _ = run.check(0);
        }
        run
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Check { key, moves_micros } => self.moved_check(key, i64::from(moves_micros)),
            Step::Leap { key, moves_micros } => self.moved_check(key, i64::from(moves_micros)),
            Step::Contains { key } => {
                let known = self.contains(key);
                let verdict = self.check(key);
                assert_eq!(known, verdict.map(Verdict::is_duplicate));
            }
            Step::Batch { keys } => self.batch(&keys),
            Step::Forget { key } => {
                let known = self.dedup.forget(&bytes(key));
                if let Some(expected) = self.model.forget(key) {
                    assert_eq!(known, expected, "forget {key}");
                }
            }
            Step::Maintain { micros } => {
                self.dedup.maintain(Duration::from_micros(micros.into()));
            }
        }
    }

    /// Only a check moves time, so that no other call reads the clock first.
    fn moved_check(&mut self, key: u8, moves_micros: i64) {
        self.now_micros += moves_micros;
        self.clock.set(Timestamp::from_micros(self.now_micros));
        let _ = self.check(key);
    }

    fn check(&mut self, key: u8) -> Result<Verdict, CheckError> {
        let at = Timestamp::from_micros(self.now_micros);
        let verdict = match self.model.lateness_micros {
            Some(_) => self.dedup.check_at(&bytes(key), at),
            None => self.dedup.check(&bytes(key)),
        };
        self.expect(key, &verdict);
        verdict
    }

    fn contains(&self, key: u8) -> Result<bool, CheckError> {
        let at = Timestamp::from_micros(self.now_micros);
        match self.model.lateness_micros {
            Some(_) => self.dedup.contains_at(&bytes(key), at),
            None => self.dedup.contains(&bytes(key)),
        }
    }

    fn batch(&mut self, keys: &[u8]) {
        let owned: Vec<_> = keys.iter().map(|key| bytes(*key)).collect();
        let mut verdicts = vec![Verdict::Late; keys.len()];
        let result = match self.model.lateness_micros {
            Some(_) => {
                let times = vec![Timestamp::from_micros(self.now_micros); keys.len()];
                self.dedup.check_batch_at(&owned, &times, &mut verdicts)
            }
            None => self.dedup.check_batch(&owned, &mut verdicts),
        };
        let completed = result.as_ref().map_or_else(|error| error.completed, |()| keys.len());
        for (key, verdict) in keys.iter().zip(&verdicts).take(completed) {
            self.expect(*key, &Ok(*verdict));
        }
        if let Err(error) = result {
            let BatchErrorKind::Check(source) = error.source else { panic!("{error}") };
            self.expect(keys[completed], &Err(source));
        }
    }

    /// Compares one verdict with the model's, which takes the check in.
    fn expect(&mut self, key: u8, verdict: &Result<Verdict, CheckError>) {
        let expected = self.model.check(key, self.now_micros);
        match (verdict, expected) {
            (Ok(verdict), Some(expected)) => assert_eq!(*verdict, expected, "key {key}"),
            (Err(CheckError::TooFarAhead { .. }), None) => {}
            (verdict, expected) => panic!("{verdict:?}, but the model says {expected:?}"),
        }
    }

    fn compare_counters(&self) {
        let stats = self.dedup.stats();
        assert_eq!(stats.uniques, self.model.uniques);
        assert_eq!(stats.duplicates, self.model.duplicates);
        assert_eq!(stats.late, self.model.late);
        assert_eq!((stats.rejected, stats.evicted), (0, 0));
    }
}

/// The guarantees about windows in their plainest form.
struct Model {
    kind: Kind,
    span_micros: i64,
    buckets: i64,
    /// None: processing time.
    lateness_micros: Option<i64>,
    max_ahead_micros: i64,
    largest_seen_micros: Option<i64>,
    recorded: HashMap<u8, i64>,
    uniques: u64,
    duplicates: u64,
    late: u64,
}

impl Model {
    fn new(configuration: Configuration) -> Self {
        let span_micros = i64::from(configuration.span_micros) + 1;
        Self {
            kind: configuration.kind,
            span_micros,
            buckets: match configuration.kind {
                Kind::Unbounded => 1,
                _ => i64::from(configuration.buckets % 12) + 1,
            },
            lateness_micros: configuration
                .lateness
                .map(|lateness| span_micros * i64::from(lateness) / 255),
            max_ahead_micros: i64::from(configuration.max_ahead_micros) * 64,
            largest_seen_micros: None,
            recorded: HashMap::new(),
            uniques: 0,
            duplicates: 0,
            late: 0,
        }
    }

    fn window(&self) -> Window {
        match self.kind {
            Kind::Fixed => Window::fixed(micros(self.span_micros)),
            Kind::Sliding => Window::sliding(micros(self.span_micros)),
            Kind::Unbounded => Window::unbounded(),
        }
        .buckets(self.buckets as u32)
    }

    fn bucket(&self, at_micros: i64) -> i64 {
        let width_micros = (self.span_micros + self.buckets - 1) / self.buckets;
        if self.kind == Kind::Unbounded { 0 } else { at_micros.div_euclid(width_micros) }
    }

    fn watermark(&self) -> i64 {
        let largest_seen_micros = self.largest_seen_micros.unwrap_or(i64::MIN / 2);
        self.bucket(largest_seen_micros - self.lateness_micros.unwrap_or(0))
    }

    /// `None`: too far ahead.
    fn check(&mut self, key: u8, at_micros: i64) -> Option<Verdict> {
        // The clock goes with the checks, so before the first it shows that one's time.
        let largest_seen_micros = self.largest_seen_micros.unwrap_or(at_micros);
        if self.lateness_micros.is_some() && at_micros > largest_seen_micros + self.max_ahead_micros
        {
            return None;
        }
        self.largest_seen_micros = Some(largest_seen_micros.max(at_micros));
        let mut bucket = self.bucket(at_micros);
        if self.lateness_micros.is_none() {
            bucket = bucket.max(self.watermark());
        } else if bucket < self.watermark() {
            self.late += 1;
            return Some(Verdict::Late);
        }
        Some(self.record(key, bucket))
    }

    fn record(&mut self, key: u8, bucket: i64) -> Verdict {
        let known = self.recorded.get(&key).copied();
        match known {
            Some(first) if bucket - first <= self.buckets => {
                if self.kind == Kind::Sliding {
                    self.recorded.insert(key, first.max(bucket));
                }
                self.duplicates += 1;
                Verdict::Duplicate
            }
            _ => {
                self.recorded.insert(key, bucket);
                self.uniques += 1;
                Verdict::Unique
            }
        }
    }

    /// Whether the key was known; `None` where its slot may have been reused.
    fn forget(&mut self, key: u8) -> Option<bool> {
        match self.recorded.remove(&key) {
            Some(bucket) if self.watermark() - bucket > self.buckets => None,
            known => Some(known.is_some()),
        }
    }
}

/// Live buckets, both ends of the lateness, and a bucket to clear.
fn fewest_tags(buckets: i64) -> u8 {
    2 * buckets as u8 + 4
}

fn micros(micros: i64) -> Duration {
    Duration::from_micros(micros.unsigned_abs())
}

/// Different keys of different lengths; the first is empty.
fn bytes(key: u8) -> Vec<u8> {
    if key == 0 { Vec::new() } else { vec![key; 1 + usize::from(key % 40)] }
}

/// All but two bits of the fingerprint are the same for every key.
fn narrow_hash(key: &[u8]) -> KeyHash {
    KeyHash::new(u128::from(key.last().copied().unwrap_or(0) & 3))
}
