//! Bits that a filter takes for each key in its window.

use crate::keys::{Key, key};
use crate::report::{Report, Status};
use crate::{Failure, Options};
use hapax::{Deduper, ManualClock, Mode, Timestamp, Verdict, Window};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

const RATE: f64 = 1e-2;
const BUCKETS: u32 = 8;
const WIDTH: Duration = Duration::from_secs(100);
const MOST_BITS: f64 = 26.0;
const BATCH: u64 = 4_096;

/// Buckets before a window is measured: it has been full for a whole window.
const SETTLING: u64 = 2 * (BUCKETS as u64 + 1);

pub(crate) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let keys = if full { 32_000_000 } else { 4_000_000 };
    let what = format!("bits a key, 1 % over 8 buckets, {} M keys", keys / 1_000_000);
    report.take(&what, "at most 26, also where it had to grow", || {
        let (expected, grown) = (bits_per_key(keys, keys)?, bits_per_key(keys, keys / 10)?);
        let figure = format!("{expected:.1}, {grown:.1} for ten times the keys expected");
        Ok((figure, Status::of_run(expected.max(grown) <= MOST_BITS, !full)))
    });
}

/// The bits that a window with so many keys a span takes for each, halfway
/// through a bucket; made for as many as are expected.
fn bits_per_key(keys: u64, expected_keys: u64) -> Result<f64, Failure> {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(0)));
    let dedup = Deduper::builder(Window::fixed(WIDTH * BUCKETS).buckets(BUCKETS))
        .capacity(expected_keys)
        .mode(Mode::filter(RATE))
        .hash_secret([3; 32])
        .clock(Arc::clone(&clock))
        .build()?;
    let share = keys / u64::from(BUCKETS);
    for bucket in 0..SETTLING {
        record(&dedup, bucket * share..(bucket + 1) * share)?;
        clock.advance(WIDTH);
    }
    record(&dedup, SETTLING * share..SETTLING * share + share / 2)?;
    // Shards that no key of this bucket met yet.
    dedup.maintain(WIDTH);
    let stats = dedup.stats();
    Ok(stats.memory_bytes as f64 * 8.0 / stats.live_keys as f64)
}

fn record(dedup: &Deduper, numbers: Range<u64>) -> Result<(), Failure> {
    let mut verdicts = [Verdict::Late; BATCH as usize];
    for first in numbers.clone().step_by(BATCH as usize) {
        let keys: Vec<Key> = (first..numbers.end.min(first + BATCH)).map(key).collect();
        dedup.check_batch(&keys, &mut verdicts[..keys.len()])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a window of few keys for each shard, what is spared for chance
    /// weighs more.
    #[test]
    fn bits_are_those_of_the_whole_window() {
        let bits = bits_per_key(200_000, 200_000).unwrap();
        assert!((20.0..32.0).contains(&bits), "{bits}");
    }
}
