//! The engine and the model side by side: every operation goes to both, and
//! every answer is compared.

use super::Model;
use super::config::Config;
use super::random::scatter;
use hapax::{
    BatchError, BatchErrorKind, CheckError, Deduper, ManualClock, Mode, Timestamp, Verdict,
};
use std::sync::Arc;
use std::time::Duration;

/// A time relative to the present: whole buckets and 256ths of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub buckets: i64,
    pub part: u8,
}

impl Moment {
    pub const NOW: Self = Self { buckets: 0, part: 0 };
}

#[derive(Clone, Debug)]
pub enum Op {
    Check(u64, Moment),
    /// Keys and their times; in processing time the times are ignored.
    Batch(Vec<(u64, Moment)>),
    Contains(u64, Moment),
    Forget(u64),
    Maintain,
    /// Turns the clock, relative to what it shows; the only way time passes in
    /// processing time.
    Turn(Moment),
    TurnTo(Timestamp),
}

pub struct Rig {
    pub dedup: Deduper,
    pub model: Model<u64>,
    clock: Arc<ManualClock>,
    config: Config,
    counts: Counts,
    keys: KeyBuffer,
}

/// What `stats()` must have counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    uniques: u64,
    duplicates: u64,
    late: u64,
}

impl Counts {
    fn add(&mut self, verdict: Verdict) {
        *match verdict {
            Verdict::Unique => &mut self.uniques,
            Verdict::Duplicate => &mut self.duplicates,
            Verdict::Late => &mut self.late,
            Verdict::Unconfirmed => unreachable!("there is no confirmer"),
        } += 1;
    }
}

impl Rig {
    pub fn new(config: Config) -> Self {
        let (dedup, clock) = config.build();
        let model = Model::new(config.rules());
        Self { dedup, model, clock, config, counts: Counts::default(), keys: KeyBuffer::default() }
    }

    /// Does one operation on both sides.
    ///
    /// # Panics
    ///
    /// If they answer differently.
    pub fn step(&mut self, op: &Op) {
        match op {
            Op::Check(id, moment) => self.check(*id, *moment),
            Op::Batch(records) => self.batch(records),
            Op::Contains(id, moment) => self.contains(*id, *moment),
            Op::Forget(id) => self.forget(*id),
            Op::Maintain => self.maintain(),
            Op::Turn(moment) => self.clock.set(self.moment(self.now(), *moment)),
            Op::TurnTo(time) => self.clock.set(*time),
        }
    }

    fn check(&mut self, id: u64, moment: Moment) {
        let at = self.moment(self.present(), moment);
        let key = key(id);
        let answer = if self.is_event_time() {
            self.dedup.check_at(&key, at)
        } else {
            self.dedup.check(&key)
        };
        let expected = self.model_check(id, at);
        assert_eq!(answer, expected, "check of key {id} at {at:?}");
        if let Ok(verdict) = expected {
            self.counts.add(verdict);
        }
    }

    fn batch(&mut self, records: &[(u64, Moment)]) {
        let present = self.present();
        let times: Vec<_> = records.iter().map(|(_, at)| self.moment(present, *at)).collect();
        let mut verdicts = vec![Verdict::Late; records.len()];
        self.keys.fill(records.iter().map(|(id, _)| *id));
        let keys = self.keys.slices();
        let answer = if self.is_event_time() {
            self.dedup.check_batch_at(&keys, &times, &mut verdicts)
        } else {
            self.dedup.check_batch(&keys, &mut verdicts)
        };
        let completed = self.compare_verdicts(records, &times, &verdicts);
        assert_eq!(answer, completed);
    }

    /// Compares verdicts up to where the batch must have stopped, and gives
    /// what the batch must have returned.
    fn compare_verdicts(
        &mut self,
        records: &[(u64, Moment)],
        times: &[Timestamp],
        verdicts: &[Verdict],
    ) -> Result<(), BatchError> {
        for (completed, (&(id, _), &at)) in records.iter().zip(times).enumerate() {
            let expected = self
                .model_check(id, at)
                .map_err(|error| BatchError { completed, source: BatchErrorKind::Check(error) })?;
            let length = records.len();
            assert_eq!(verdicts[completed], expected, "#{completed}/{length}, key {id} at {at:?}");
            self.counts.add(expected);
        }
        Ok(())
    }

    fn contains(&mut self, id: u64, moment: Moment) {
        let (key, clock) = (key(id), self.now());
        let at = self.moment(self.present(), moment);
        if self.is_event_time() {
            let expected = self.model.contains_at(&id, at, clock);
            assert_eq!(self.dedup.contains_at(&key, at), expected, "contains key {id} at {at:?}");
        } else {
            let expected = self.model.contains(&id, clock);
            assert_eq!(self.dedup.contains(&key), Ok(expected), "contains key {id}");
        }
    }

    fn forget(&mut self, id: u64) {
        self.see_clock();
        // A filter forgets no single key.
        let forgets = !self.is_filter() && self.model.forget(&id);
        assert_eq!(self.dedup.forget(&key(id)), forgets, "forget key {id}");
    }

    fn is_filter(&self) -> bool {
        matches!(self.config.mode, Mode::Filter { .. })
    }

    fn maintain(&mut self) {
        self.see_clock();
        maintain_all(&self.dedup);
        let stats = self.dedup.stats();
        let live = self.model.live() as u64;
        // A filter counts a key twice that is seen again when it is kept and no
        // longer matches.
        let may_count_twice = self.is_filter() && self.is_event_time() && stats.live_keys > live;
        assert!(stats.live_keys == live || may_count_twice, "live keys after maintenance");
        let counted =
            Counts { uniques: stats.uniques, duplicates: stats.duplicates, late: stats.late };
        assert_eq!(counted, self.counts, "verdicts counted");
        assert_eq!((stats.rejected, stats.evicted), (0, 0), "there is no limit");
        assert_eq!(stats.effective_window, self.config.window().span(), "nothing was evicted");
    }

    /// Drops the model's freed keys; the engine is not asked.
    pub fn trim_model(&mut self) {
        self.model.live();
    }

    fn model_check(&mut self, id: u64, at: Timestamp) -> Result<Verdict, CheckError> {
        let clock = self.now();
        if self.is_event_time() {
            self.model.check_at(id, at, clock)
        } else {
            Ok(self.model.check(id, clock))
        }
    }

    /// `forget` and `maintain` read the clock, where time is the clock's.
    fn see_clock(&mut self) {
        if !self.is_event_time() {
            self.model.see(self.now());
        }
    }

    fn is_event_time(&self) -> bool {
        self.config.lateness.is_some()
    }

    fn now(&self) -> Timestamp {
        hapax::Clock::now(&self.clock)
    }

    /// What moments of records are relative to.
    fn present(&self) -> Timestamp {
        self.model.largest().unwrap_or_else(|| self.now())
    }

    fn moment(&self, from: Timestamp, moment: Moment) -> Timestamp {
        let width = self.config.width_micros();
        let part = i128::from(width) * i128::from(moment.part) / 256;
        let micros = width.saturating_mul(moment.buckets);
        let micros = from.as_micros().saturating_add(micros);
        Timestamp::from_micros(micros.saturating_add(i64::try_from(part).unwrap()))
    }
}

/// Maintains until nothing is left to do, which must come to pass.
pub fn maintain_all(dedup: &Deduper) {
    let done = (0..10_000).any(|_| dedup.maintain(Duration::from_millis(10)));
    assert!(done, "maintenance never ends");
}

/// The bytes of key number `id`. Different numbers give different keys, of 0,
/// 1, 8, 16, 300 and 5,000 bytes; the long ones differ only in their last 8.
pub fn key(id: u64) -> Vec<u8> {
    let mut key = Vec::new();
    push_key(&mut key, id);
    key
}

fn push_key(buffer: &mut Vec<u8>, id: u64) {
    let short = [id as u8];
    match id {
        0 => {}
        1..8 => buffer.extend_from_slice(&short),
        _ => {
            buffer.resize(buffer.len() + padding(id), b'.');
            buffer.extend_from_slice(&id.to_le_bytes());
        }
    }
}

fn padding(id: u64) -> usize {
    match scatter(id) % 512 {
        0 => 4_992,
        1..8 => 292,
        8..200 => 0,
        _ => 8,
    }
}

/// The keys of one batch in one allocation.
#[derive(Default)]
pub struct KeyBuffer {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl KeyBuffer {
    pub fn fill(&mut self, ids: impl Iterator<Item = u64>) {
        self.bytes.clear();
        self.ends.clear();
        for id in ids {
            push_key(&mut self.bytes, id);
            self.ends.push(self.bytes.len());
        }
    }

    pub fn slices(&self) -> Vec<&[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[*start..*end]).collect()
    }
}
