//! Resident memory per key, read in a process of its own.

use crate::keys::{Key, key};
use crate::report::{Report, Status, grouped};
use crate::{Failure, child};
use hapax::{Deduper, Mode, Verdict, Window};
use std::fs;
use std::ops::Range;
use std::time::Duration;

/// The name of [`grown_bytes`] as a child's work.
pub(crate) const JOB: &str = "resident";

/// Sizes between two steps of growth as well as right after one.
const SIZES: [u64; 4] = [6_300_000, 8_000_000, 10_000_000, 12_000_000];
const BAR_BYTES_PER_KEY: f64 = 16.0;
const BATCH: usize = 256;

pub(crate) fn measure(report: &mut Report) {
    for keys in SIZES {
        let what = format!("resident bytes a key at {} keys", grouped(keys));
        report.take(&what, "at most 16", || {
            let per_key = bytes_per_key_in_child(&[keys])?[0];
            Ok((format!("{per_key:.2} bytes a key"), Status::of(per_key <= BAR_BYTES_PER_KEY)))
        });
    }
}

/// [`grown_bytes`] in a process of its own, divided by the keys.
pub(crate) fn bytes_per_key_in_child(sizes: &[u64]) -> Result<Vec<f64>, Failure> {
    let grown_bytes = child::run(JOB, sizes)?;
    if grown_bytes.len() != sizes.len() {
        return Err("the child gave fewer figures than sizes".into());
    }
    Ok(grown_bytes.iter().zip(sizes).map(|(bytes, keys)| *bytes as f64 / *keys as f64).collect())
}

/// By how many bytes the process has grown when a deduper has taken in each of
/// `sizes`, ascending numbers of distinct keys.
pub(crate) fn grown_bytes(sizes: &[u64]) -> Result<Vec<u64>, Failure> {
    // The buffers come first: between the readings only the engine grows.
    let mut batches = Batches::new();
    let mut grown = Vec::with_capacity(sizes.len());
    let before = resident_bytes()?;
    let dedup = Deduper::builder(Window::fixed(Duration::from_secs(24 * 60 * 60)))
        .mode(Mode::fingerprint())
        .build()?;
    let mut recorded = 0;
    for &keys in sizes {
        batches.record(&dedup, recorded..keys)?;
        recorded = keys;
        grown.push(resident_bytes()?.saturating_sub(before));
    }
    let live_keys = dedup.stats().live_keys;
    if live_keys != recorded {
        return Err(format!("{recorded} new keys left {live_keys} live ones").into());
    }
    Ok(grown)
}

/// Buffers through which keys go to a deduper.
pub(crate) struct Batches {
    keys: Vec<Key>,
    verdicts: Vec<Verdict>,
}

impl Batches {
    pub(crate) fn new() -> Self {
        Self { keys: vec![[0; 16]; BATCH], verdicts: vec![Verdict::Late; BATCH] }
    }

    /// Checks the keys with these numbers, all of them new.
    pub(crate) fn record(&mut self, dedup: &Deduper, numbers: Range<u64>) -> Result<(), Failure> {
        for first in numbers.clone().step_by(BATCH) {
            let length = BATCH.min((numbers.end - first) as usize);
            for (slot, number) in self.keys.iter_mut().zip(first..) {
                *slot = key(number);
            }
            let (keys, verdicts) = (&self.keys[..length], &mut self.verdicts[..length]);
            dedup.check_batch(keys, verdicts)?;
            if !verdicts.iter().all(|verdict| verdict.is_unique()) {
                return Err(format!("a new key from {first} on was not unique").into());
            }
        }
        Ok(())
    }
}

/// The process's resident memory. From `smaps_rollup`, which counts pages;
/// `statm` lags behind by up to 64 pages a thread.
pub(crate) fn resident_bytes() -> Result<u64, Failure> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")
        .map_err(|error| format!("/proc/self/smaps_rollup (Linux 4.14 or later): {error}"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix("kB"))
        .ok_or("/proc/self/smaps_rollup without Rss")?
        .trim()
        .parse()?;
    Ok(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_follows_what_is_touched() {
        let before = resident_bytes().unwrap();
        let touched = vec![1_u8; 256 << 20];
        let grown = resident_bytes().unwrap() - before;
        // Other tests of this process give some of theirs back meanwhile.
        assert!(std::hint::black_box(&touched).len() as u64 <= grown + (64 << 20));
    }
}
