//! Resident memory per key, each size in a process of its own.

use crate::Failure;
use crate::report::{Report, Status, grouped};
use hapax::{Deduper, Mode, Verdict, Window};
use std::fs;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// The argument that makes this program the child for one size.
pub(crate) const CHILD_FLAG: &str = "--resident-child";

/// Sizes between two steps of growth as well as right after one.
const SIZES: [u64; 4] = [6_300_000, 8_000_000, 10_000_000, 12_000_000];
const BAR_BYTES_PER_KEY: f64 = 16.0;
const BATCH: usize = 256;

pub(crate) fn measure(report: &mut Report) {
    for keys in SIZES {
        let what = format!("resident bytes a key at {} keys", grouped(keys));
        report.take(&what, "at most 16", || {
            let grown_bytes = in_child(keys)?;
            let per_key = grown_bytes as f64 / keys as f64;
            Ok((format!("{per_key:.2} bytes a key"), Status::of(per_key <= BAR_BYTES_PER_KEY)))
        });
    }
}

fn in_child(keys: u64) -> Result<u64, Failure> {
    let output =
        Command::new(std::env::current_exe()?).args([CHILD_FLAG, &keys.to_string()]).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// Prints by how many bytes the process grew while a deduper took in `keys`
/// distinct keys.
pub(crate) fn child(keys: u64) -> ExitCode {
    match grown_bytes(keys) {
        Ok(bytes) => {
            println!("{bytes}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn grown_bytes(keys: u64) -> Result<u64, Failure> {
    // The buffers come first: between the two readings only the engine grows.
    let mut batch = vec![[0; 16]; BATCH];
    let mut verdicts = vec![Verdict::Late; BATCH];
    let before = resident_bytes()?;
    let dedup = Deduper::builder(Window::fixed(Duration::from_secs(24 * 60 * 60)))
        .mode(Mode::fingerprint())
        .build()?;
    let mut uniques = 0;
    for first in (0..keys).step_by(BATCH) {
        let length = BATCH.min((keys - first) as usize);
        for (slot, number) in batch.iter_mut().zip(first..) {
            *slot = key(number);
        }
        dedup.check_batch(&batch[..length], &mut verdicts[..length])?;
        uniques += verdicts[..length].iter().filter(|verdict| verdict.is_unique()).count() as u64;
    }
    let after = resident_bytes()?;
    if uniques != keys || dedup.stats().live_keys != keys {
        let live = dedup.stats().live_keys;
        return Err(format!("{keys} keys gave {uniques} uniques and {live} live keys").into());
    }
    Ok(after.saturating_sub(before))
}

/// The 16-byte key with this number: distinct, and not in numeric order.
fn key(number: u64) -> [u8; 16] {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (u128::from(number) << 64 | u128::from(scattered)).to_le_bytes()
}

/// The process's resident memory. From `smaps_rollup`, which counts pages;
/// `statm` lags behind by up to 64 pages a thread.
fn resident_bytes() -> Result<u64, Failure> {
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
        let touched = vec![1_u8; 64 << 20];
        let grown = resident_bytes().unwrap() - before;
        assert!(std::hint::black_box(&touched).len() as u64 <= grown + (4 << 20));
    }
}
