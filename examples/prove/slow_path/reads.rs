//! How many new keys cause a read of the store, behind an exclusive owner's
//! filter.

use crate::keys::key;
use crate::progress::progress_bar;
use crate::report::{Report, Status, grouped};
use crate::{Failure, Options};
use hapax::confirm::{Durability, EmbeddedConfirmer, Ownership, Reject};
use hapax::{Deduper, ManualClock, OnFull, Timestamp, Verdict, Window};
use std::sync::Arc;
use std::time::Duration;

const FULL_KEYS: u64 = 10_000_000;
const SHORT_KEYS: u64 = 1_000_000;
const BATCH: u64 = 256;

const RATE: f64 = 0.01;
const BAR: f64 = 0.011;

const BUCKETS: u32 = 8;
const WIDTH: Duration = Duration::from_secs(100);

/// Enough for the filter, and for a third of the keys in the table.
const LIMIT_BYTES_PER_KEY: u64 = 10;

/// What both need however few keys there are.
const LEAST_LIMIT_BYTES: u64 = 9 << 20;

pub(super) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let keys = if full { FULL_KEYS } else { SHORT_KEYS };
    let what = format!("new keys that cause a read, {} M live", keys / 1_000_000);
    report.take(&what, "at most 1.1 % at a rate of 1 %", || {
        let Found { reads, keys } = roll_over(keys)?;
        let share = reads as f64 / keys as f64;
        let figure = format!("{:.3} % of {}", 100.0 * share, grouped(keys));
        Ok((figure, Status::of_run(share <= BAR, !full)))
    });
}

struct Found {
    reads: u64,
    keys: u64,
}

/// Fills a window with `live_keys`, and counts the reads while it rolls over
/// once.
fn roll_over(live_keys: u64) -> Result<Found, Failure> {
    let folder = tempfile::tempdir()?;
    let store = EmbeddedConfirmer::builder(folder.path().join("keys"));
    let store = store.durability(Durability::Os).open()?;
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000_000)));
    let dedup = Deduper::builder(Window::fixed(WIDTH * BUCKETS).buckets(BUCKETS))
        .capacity(live_keys)
        .clock(Arc::clone(&clock))
        .memory_limit(LEAST_LIMIT_BYTES.max(LIMIT_BYTES_PER_KEY * live_keys), OnFull::Spill)
        .confirm(store, Ownership::Exclusive, Reject)
        .filter_rate(RATE)
        .build()?;
    // Keys match in their own bucket and the next eight.
    let in_bucket = (live_keys / u64::from(BUCKETS + 1)).next_multiple_of(BATCH);
    let reads = || dedup.stats().confirmer.map_or(0, |confirmer| confirmer.asked);
    let mut before = 0;
    let progress = progress_bar(u64::from(2 * BUCKETS + 1), "buckets");
    for bucket in progress.wrap_iter(0..u64::from(2 * BUCKETS + 1)) {
        if bucket == u64::from(BUCKETS) {
            before = reads();
        }
        for first in (bucket * in_bucket..(bucket + 1) * in_bucket).step_by(BATCH as usize) {
            let keys: Vec<_> = (first..first + BATCH).map(key).collect();
            let mut verdicts = [Verdict::Late; BATCH as usize];
            dedup.check_batch(&keys, &mut verdicts)?;
            if verdicts.iter().any(|verdict| !verdict.is_unique()) {
                return Err(format!("a new key from {first} on was not unique").into());
            }
        }
        clock.advance(WIDTH);
        dedup.maintain(Duration::MAX)?;
    }
    progress.finish_and_clear();
    Ok(Found { reads: reads() - before, keys: u64::from(BUCKETS + 1) * in_bucket })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_read_for_few_new_keys() {
        let Found { reads, keys } = roll_over(100_000).unwrap();
        assert!(keys >= 100_000 && reads < keys / 50, "{reads} of {keys}");
    }
}
