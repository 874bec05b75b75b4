//! Memory that comes back after a flood of keys has expired, while a steady
//! few keep every shard in use.

use crate::report::{Report, Status, grouped};
use crate::resident::{Batches, resident_bytes};
use crate::{Failure, Options, child};
use hapax::{Deduper, ManualClock, Timestamp, Window};
use std::sync::Arc;
use std::time::Duration;

/// The name of [`run`] as a child's work.
pub(crate) const JOB: &str = "flood";

const STEADY_KEYS: u64 = 100_000;
const FULL_FLOOD: u64 = 50_000_000;
const SHORT_FLOOD: u64 = 5_000_000;
const BAR_PERCENT: f64 = 90.0;

const BUCKETS: u32 = 8;
const WIDTH: Duration = Duration::from_secs(100);

/// One call of `maintain`, of as many as it takes.
const BUDGET: Duration = Duration::from_millis(1);

pub(crate) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let flood_keys = if full { FULL_FLOOD } else { SHORT_FLOOD };
    let what = format!("memory given back, {} M keys expired", flood_keys / 1_000_000);
    report.take(&what, "at least 90 % within a window", || {
        let bytes = child::run(JOB, &[STEADY_KEYS, flood_keys])?;
        let [before, peak, after] = bytes[..] else {
            return Err("the child gave other than three figures".into());
        };
        let percent = given_back_percent(before, peak, after);
        let mib = |bytes: u64| grouped(bytes >> 20);
        let figure = format!("{percent:.1} % ({}, {}, {} MiB)", mib(before), mib(peak), mib(after));
        Ok((figure, Status::of_run(percent >= BAR_PERCENT, !full)))
    });
}

/// Of what the flood took, the share that was given back.
fn given_back_percent(before: u64, peak: u64, after: u64) -> f64 {
    let taken = peak.saturating_sub(before).max(1);
    100.0 * (peak as f64 - after as f64) / taken as f64
}

/// With `[steady keys, flood keys]`: the resident bytes before the flood, after
/// its last key, and when the last of its keys has left the window.
pub(crate) fn run(numbers: &[u64]) -> Result<Vec<u64>, Failure> {
    let [steady_keys, flood_keys] = *numbers else {
        return Err("the flood needs two numbers".into());
    };
    let mut traffic = Traffic::new(steady_keys)?;
    for _ in 0..2 * BUCKETS {
        traffic.one_bucket()?;
    }
    let before = resident_bytes()?;
    traffic.record(flood_keys)?;
    let peak = resident_bytes()?;
    // A key is known in its own bucket and the next eight: one window and, at
    // most, the rest of its bucket.
    for _ in 0..=BUCKETS {
        traffic.one_bucket()?;
    }
    Ok(vec![before, peak, resident_bytes()?])
}

/// A stream of new keys, as many a bucket as keep the window at its size.
struct Traffic {
    dedup: Deduper,
    clock: Arc<ManualClock>,
    batches: Batches,
    keys_per_bucket: u64,
    next: u64,
}

impl Traffic {
    fn new(live_keys: u64) -> Result<Self, Failure> {
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000_000)));
        let window = Window::fixed(WIDTH * BUCKETS).buckets(BUCKETS);
        let dedup =
            Deduper::builder(window).hash_secret([1; 32]).clock(Arc::clone(&clock)).build()?;
        let keys_per_bucket = live_keys.div_ceil(BUCKETS.into());
        Ok(Self { dedup, clock, batches: Batches::new(), keys_per_bucket, next: 0 })
    }

    /// Time for one bucket, with its traffic and the upkeep that a user does.
    fn one_bucket(&mut self) -> Result<(), Failure> {
        self.clock.advance(WIDTH);
        self.record(self.keys_per_bucket)?;
        while !self.dedup.maintain(BUDGET) {}
        Ok(())
    }

    /// Records so many new keys at the present time.
    fn record(&mut self, keys: u64) -> Result<(), Failure> {
        let numbers = self.next..self.next + keys;
        self.next = numbers.end;
        self.batches.record(&self.dedup, numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_given_back_is_of_what_the_flood_took() {
        assert!((given_back_percent(10, 110, 20) - 90.0).abs() < 1e-9);
        assert!((given_back_percent(10, 110, 110) - 0.0).abs() < 1e-9);
    }

    #[test]
    fn the_window_holds_its_steady_keys() {
        let mut traffic = Traffic::new(8_000).unwrap();
        for _ in 0..3 * BUCKETS {
            traffic.one_bucket().unwrap();
        }
        // Eight whole buckets and the current one.
        assert_eq!(traffic.dedup.stats().live_keys, 9_000);
    }

    #[test]
    fn a_flood_has_left_in_the_end() {
        let mut traffic = Traffic::new(8_000).unwrap();
        traffic.record(100_000).unwrap();
        for _ in 0..BUCKETS {
            traffic.one_bucket().unwrap();
        }
        assert_eq!(traffic.dedup.stats().live_keys, 108_000);
        traffic.one_bucket().unwrap();
        assert_eq!(traffic.dedup.stats().live_keys, 9_000);
    }
}
