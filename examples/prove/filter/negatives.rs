//! Keys that the filter forgets while they are in the window: none, whatever
//! buckets pass and layers open.

use crate::keys::{Key, key, mixed};
use crate::progress::progress_bar;
use crate::report::{Report, Status, grouped};
use crate::{Failure, Options};
use hapax::{Deduper, ManualClock, Mode, Timestamp, Verdict, Window};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

const BATCH: usize = 256;
const BUCKETS: u32 = 8;
const WIDTH: Duration = Duration::from_secs(100);
const RATE: f64 = 1e-4;

/// Every so many-th bucket is a flood of so many times as many records: the
/// filter grows, and shrinks again.
const CALM_BUCKETS: u64 = 25;
const FLOOD: u64 = 4;

/// How many checks of known keys, and how many records in a bucket.
#[derive(Clone, Copy)]
struct Size {
    known: u64,
    records_per_bucket: u64,
}

const FULL: Size = Size { known: 1_000_000_000, records_per_bucket: 2_000_000 };
const SHORT: Size = Size { known: 10_000_000, records_per_bucket: 50_000 };

pub(crate) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let size = if full { FULL } else { SHORT };
    let what = format!("{} M checks of keys in the window", size.known / 1_000_000);
    report.take(&what, "0 forgotten", || {
        // Half each: in a sliding window keys move from bucket to bucket.
        let half = Size { known: size.known / 2, ..size };
        let span = WIDTH * BUCKETS;
        let fixed = forgotten(Window::fixed(span), half)?;
        let sliding = forgotten(Window::sliding(span), half)?;
        let layers = fixed.most_layers.max(sliding.most_layers);
        let forgotten = fixed.forgotten + sliding.forgotten;
        let buckets = fixed.buckets + sliding.buckets;
        let figure =
            format!("{} forgotten, {buckets} buckets, up to {layers} layers", grouped(forgotten));
        Ok((figure, Status::of_run(forgotten == 0, !full)))
    });
}

/// A stream of records of new keys, and in between checks of keys whose
/// records are still in the window, up to its oldest bucket.
struct Stream {
    records_per_bucket: u64,
    /// The first record of each bucket that can be live, the newest last.
    starts: VecDeque<u64>,
    bucket: u64,
    records: u64,
    checks: u64,
}

/// One check: of a record's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Check {
    record: u64,
    is_known: bool,
}

impl Stream {
    fn new(records_per_bucket: u64) -> Self {
        Self { records_per_bucket, starts: VecDeque::from([0]), bucket: 0, records: 0, checks: 0 }
    }

    /// Whether the newest bucket has all its records.
    fn is_full(&self) -> bool {
        let calm = self.bucket % CALM_BUCKETS != CALM_BUCKETS - 1;
        let times = if calm { 1 } else { FLOOD };
        let newest = self.starts[self.starts.len() - 1];
        self.records - newest >= times * self.records_per_bucket
    }

    fn next_bucket(&mut self) {
        self.bucket += 1;
        self.starts.push_back(self.records);
        if self.starts.len() > BUCKETS as usize + 1 {
            self.starts.pop_front();
        }
    }

    /// Every other check records a new key.
    fn next(&mut self) -> Check {
        let random = mixed(self.checks);
        self.checks += 1;
        let oldest = self.starts[0];
        if self.records == oldest || random.is_multiple_of(2) {
            self.records += 1;
            Check { record: self.records - 1, is_known: false }
        } else {
            let record = oldest + (random >> 1) % (self.records - oldest);
            Check { record, is_known: true }
        }
    }
}

/// What a run came to.
struct Outcome {
    forgotten: u64,
    buckets: u64,
    most_layers: usize,
}

fn forgotten(window: Window, size: Size) -> Result<Outcome, Failure> {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(0)));
    // Expects a tenth of the keys that come.
    let dedup = Deduper::builder(window.buckets(BUCKETS))
        .capacity(size.records_per_bucket * u64::from(BUCKETS) / 10)
        .mode(Mode::filter(RATE))
        .hash_secret([1; 32])
        .clock(Arc::clone(&clock))
        .build()?;
    let mut stream = Stream::new(size.records_per_bucket);
    let mut ledger = Ledger::default();
    let mut most_layers = 0;
    let progress = progress_bar(size.known, "checks of known keys");
    let mut batch = Batch::default();
    while ledger.known < size.known {
        if stream.is_full() {
            most_layers = most_layers.max(dedup.stats().filter.map_or(0, |filter| filter.layers));
            clock.advance(WIDTH);
            stream.next_bucket();
        }
        batch.fill(&mut stream);
        batch.run(&dedup, &mut ledger)?;
        progress.set_position(ledger.known);
    }
    progress.finish_and_clear();
    Ok(Outcome { forgotten: ledger.forgotten, buckets: stream.bucket, most_layers })
}

/// What became of the checks.
#[derive(Default)]
struct Ledger {
    known: u64,
    forgotten: u64,
    /// Records that were called known, and so not recorded: the filter need
    /// not know them later.
    not_recorded: HashSet<u64>,
}

impl Ledger {
    fn note(&mut self, check: Check, verdict: Verdict) {
        let is_called_known = verdict == Verdict::Duplicate;
        if check.is_known {
            self.known += 1;
            let is_forgotten = !is_called_known && !self.not_recorded.remove(&check.record);
            self.forgotten += u64::from(is_forgotten);
        } else if is_called_known {
            self.not_recorded.insert(check.record);
        }
    }
}

/// Up to 256 checks within one bucket.
#[derive(Default)]
struct Batch {
    keys: Vec<Key>,
    checks: Vec<Check>,
    verdicts: Vec<Verdict>,
}

impl Batch {
    fn fill(&mut self, stream: &mut Stream) {
        self.keys.clear();
        self.checks.clear();
        while self.checks.len() < BATCH && !stream.is_full() {
            let check = stream.next();
            self.keys.push(key(check.record));
            self.checks.push(check);
        }
    }

    fn run(&mut self, dedup: &Deduper, ledger: &mut Ledger) -> Result<(), Failure> {
        self.verdicts.resize(self.keys.len(), Verdict::Late);
        dedup.check_batch(&self.keys, &mut self.verdicts)?;
        for (check, verdict) in self.checks.iter().zip(&self.verdicts) {
            ledger.note(*check, *verdict);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn keys_that_should_be_known_are_in_the_window_up_to_its_oldest_bucket() {
        let mut stream = Stream::new(20);
        let mut recorded = HashMap::new();
        let (mut known, mut at_the_edge) = (0, 0);
        for _ in 0..20_000 {
            if stream.is_full() {
                stream.next_bucket();
            }
            let Check { record, is_known } = stream.next();
            if is_known {
                let age = stream.bucket - recorded[&record];
                assert!(age <= u64::from(BUCKETS));
                known += 1;
                at_the_edge += u32::from(age == u64::from(BUCKETS));
            } else {
                assert_eq!(recorded.insert(record, stream.bucket), None);
            }
        }
        assert!(known > 9_000, "{known} checks of known keys");
        assert!(at_the_edge > 500, "{at_the_edge} of the oldest bucket");
    }

    #[test]
    fn a_forgotten_key_is_counted_unless_it_was_never_recorded() {
        let mut ledger = Ledger::default();
        let new = |record| Check { record, is_known: false };
        let known = |record| Check { record, is_known: true };
        ledger.note(new(1), Verdict::Unique);
        ledger.note(new(2), Verdict::Duplicate);
        ledger.note(known(2), Verdict::Unique);
        assert_eq!(ledger.forgotten, 0);
        ledger.note(known(1), Verdict::Unique);
        assert_eq!(ledger.forgotten, 1);
        ledger.note(known(2), Verdict::Unique);
        assert_eq!((ledger.forgotten, ledger.known), (2, 3), "it was recorded by now");
    }

    #[test]
    fn the_engine_forgets_nothing_and_grows() {
        let size = Size { known: 50_000, records_per_bucket: 4_000 };
        let outcome = forgotten(Window::fixed(WIDTH * BUCKETS), size).unwrap();
        assert_eq!(outcome.forgotten, 0);
        assert!(outcome.buckets > 8);
    }
}
