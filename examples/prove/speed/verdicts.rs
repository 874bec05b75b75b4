//! Verdicts at full size, each compared with what arithmetic says of it.

use crate::keys::{Key, key, mixed};
use crate::progress::progress_bar;
use crate::report::{Report, Status, grouped};
use crate::{Failure, Options};
use hapax::{Deduper, ManualClock, Timestamp, Verdict, Window};
use std::sync::Arc;
use std::time::Duration;

const BATCH: usize = 256;
const BUCKETS: u32 = 8;
const WIDTH: Duration = Duration::from_secs(100);

/// How many checks, over how many live keys.
struct Size {
    checks: u64,
    live_keys: u64,
}

const FULL: Size = Size { checks: 1_000_000_000, live_keys: 100_000_000 };
const SHORT: Size = Size { checks: 10_000_000, live_keys: 1_000_000 };

pub(crate) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let size = if full { FULL } else { SHORT };
    let what =
        format!("{} M checks over {} M keys", size.checks / 1_000_000, size.live_keys / 1_000_000);
    report.take(&what, "no wrong verdict", || {
        let wrong = wrong_verdicts(&size)?;
        Ok((format!("{} wrong", grouped(wrong)), Status::of_run(wrong == 0, !full)))
    });
}

/// A stream of checks whose verdicts follow from their numbers alone.
///
/// It *records* keys one after the other, in every bucket of time as many as
/// in any other, so the number of a record tells its bucket. In between it
/// repeats keys of records that are still in the window, from the newest to
/// the oldest that matches, which is eight buckets back. Odd records are of
/// new keys. Even ones go round: their keys come again nine buckets later, the
/// first bucket in which they are forgotten. So every record is `Unique`, every
/// repeat a `Duplicate`, and both meet the window's edge.
struct Stream {
    records_per_bucket: u64,
    checks: u64,
    records: u64,
}

/// One check of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected {
    key: u64,
    verdict: Verdict,
}

impl Stream {
    fn new(live_keys: u64) -> Self {
        Self {
            records_per_bucket: live_keys.div_ceil(BUCKETS.into()).next_multiple_of(2),
            checks: 0,
            records: 0,
        }
    }

    /// The bucket that the stream has come to; the next check may be the first
    /// of it.
    fn bucket(&self) -> u64 {
        self.records / self.records_per_bucket
    }

    fn next(&mut self) -> Expected {
        let random = mixed(self.checks);
        self.checks += 1;
        let oldest = self.bucket().saturating_sub(BUCKETS.into()) * self.records_per_bucket;
        let matching = self.records - oldest;
        if self.is_filling() || random.is_multiple_of(2) {
            self.records += 1;
            Expected { key: self.key_of(self.records - 1), verdict: Verdict::Unique }
        } else {
            let record = oldest + (random >> 1) % matching;
            Expected { key: self.key_of(record), verdict: Verdict::Duplicate }
        }
    }

    /// Before the window has been filled once, there are records alone.
    fn is_filling(&self) -> bool {
        self.bucket() < BUCKETS.into()
    }

    fn key_of(&self, record: u64) -> u64 {
        let round = u64::from(BUCKETS + 1) * self.records_per_bucket;
        if record.is_multiple_of(2) { record % round } else { record }
    }
}

/// How many of the stream's checks, in batches, get another verdict than they
/// should.
fn wrong_verdicts(size: &Size) -> Result<u64, Failure> {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(0)));
    let dedup = Deduper::builder(Window::fixed(WIDTH * BUCKETS).buckets(BUCKETS))
        .capacity(size.live_keys)
        .hash_secret([1; 32])
        .clock(Arc::clone(&clock))
        .build()?;
    let mut stream = Stream::new(size.live_keys);
    let mut batch = Batch::new();
    let mut wrong = 0;
    let progress = progress_bar(size.checks, "checks");
    while stream.checks < size.checks {
        let bucket = stream.bucket();
        clock.set(Timestamp::from_secs((bucket * WIDTH.as_secs()) as i64));
        batch.fill(|| {
            let goes_on = stream.bucket() == bucket && stream.checks < size.checks;
            goes_on.then(|| stream.next())
        });
        wrong += batch.wrong_verdicts(&dedup)?;
        progress.set_position(stream.checks);
    }
    progress.finish_and_clear();
    Ok(wrong)
}

/// Up to 256 checks of one bucket, and what they should give.
struct Batch {
    keys: Vec<Key>,
    expected: Vec<Verdict>,
    verdicts: Vec<Verdict>,
}

impl Batch {
    fn new() -> Self {
        let empty = || Vec::with_capacity(BATCH);
        Self { keys: Vec::with_capacity(BATCH), expected: empty(), verdicts: empty() }
    }

    /// Takes checks until there are 256, or no more.
    fn fill(&mut self, mut next: impl FnMut() -> Option<Expected>) {
        self.keys.clear();
        self.expected.clear();
        while self.keys.len() < BATCH
            && let Some(expected) = next()
        {
            self.keys.push(key(expected.key));
            self.expected.push(expected.verdict);
        }
    }

    fn wrong_verdicts(&mut self, dedup: &Deduper) -> Result<u64, Failure> {
        self.verdicts.resize(self.keys.len(), Verdict::Late);
        dedup.check_batch(&self.keys, &mut self.verdicts)?;
        let pairs = self.verdicts.iter().zip(&self.expected);
        Ok(pairs.filter(|(verdict, expected)| verdict != expected).count() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// What a map from key to bucket says: a key is known for eight buckets.
    #[test]
    fn the_arithmetic_is_that_of_a_map() {
        let mut stream = Stream::new(160);
        let mut recorded = HashMap::new();
        let (mut returned, mut at_the_edge, mut duplicates) = (0, 0, 0);
        for _ in 0..20_000 {
            let bucket = stream.bucket();
            let check = stream.next();
            let age = recorded.get(&check.key).map(|recorded| bucket - recorded);
            if age.is_some_and(|age| age <= u64::from(BUCKETS)) {
                assert_eq!(check.verdict, Verdict::Duplicate);
                duplicates += 1;
                at_the_edge += u32::from(age == Some(BUCKETS.into()));
            } else {
                assert_eq!(check.verdict, Verdict::Unique);
                returned += u32::from(age == Some(u64::from(BUCKETS) + 1));
                recorded.insert(check.key, bucket);
            }
        }
        assert!(duplicates > 9_000, "{duplicates} duplicates");
        assert!(at_the_edge > 500, "{at_the_edge} duplicates of the oldest bucket");
        assert!(returned > 4_000, "{returned} keys seen again as soon as they were forgotten");
    }

    #[test]
    fn the_engine_agrees() {
        assert_eq!(wrong_verdicts(&Size { checks: 100_000, live_keys: 5_000 }).unwrap(), 0);
    }

    #[test]
    fn a_wrong_verdict_is_counted() {
        let dedup = Deduper::builder(Window::unbounded()).capacity(16).build().unwrap();
        let mut batch = Batch::new();
        let mut once = Some(Expected { key: 1, verdict: Verdict::Duplicate });
        batch.fill(|| once.take());
        assert_eq!(batch.wrong_verdicts(&dedup).unwrap(), 1);
    }
}
