//! One store, from empty to dropped.

use super::{Durability, Key, Kind, Outcome, Store, fjall, hapax, redb};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const BATCH: u64 = 256;
const BUCKETS: u64 = 8;
const PROBES: u64 = 2_000;

/// What one store showed.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Figures {
    store: String,
    durability: String,
    keys: u64,
    keys_per_second: f64,
    batch_us_median: f64,
    batch_us_p99: f64,
    batch_us_most: f64,
    written_bytes_per_key: f64,
    disk_bytes_per_key: f64,
    resident_mib_most: f64,
    miss_us: f64,
    hit_us: f64,
    drop_ms: f64,
    open_ms: f64,
}

impl Figures {
    pub(super) const HEADER: [&str; 13] = [
        "store",
        "outlives",
        "keys/s",
        "batch µs",
        "p99",
        "most",
        "written B/key",
        "disk B/key",
        "resident MiB",
        "miss µs",
        "hit µs",
        "drop ms",
        "open ms",
    ];

    pub(super) fn row(&self) -> [String; 13] {
        let whole = |figure: f64| format!("{figure:.0}");
        let fine = |figure: f64| format!("{figure:.1}");
        [
            self.store.clone(),
            self.durability.clone(),
            whole(self.keys_per_second),
            whole(self.batch_us_median),
            whole(self.batch_us_p99),
            whole(self.batch_us_most),
            whole(self.written_bytes_per_key),
            fine(self.disk_bytes_per_key),
            whole(self.resident_mib_most),
            fine(self.miss_us),
            fine(self.hit_us),
            fine(self.drop_ms),
            fine(self.open_ms),
        ]
    }
}

/// A folder that goes with its owner.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left then is for the system to clear.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(kind: Kind, durability: Durability, folder: &Path) -> Outcome<Box<dyn Store>> {
    Ok(match kind {
        Kind::Hapax => Box::new(hapax::Hapax::open(folder, durability)?),
        Kind::Redb => Box::new(redb::Redb::open(folder, durability)?),
        Kind::Fjall => Box::new(fjall::Fjall::open(folder, durability)?),
    })
}

pub(super) fn measure(
    kind: Kind,
    durability: Durability,
    keys: u64,
    folder: &Path,
) -> Outcome<Figures> {
    let folder = Folder(folder.join(format!("hapax-stores-{}", std::process::id())));
    fs::create_dir(&folder.0)?;
    let mut store = open(kind, durability, &folder.0)?;
    let keys = keys.next_multiple_of(BATCH * BUCKETS);
    let mut batches = fill(&mut *store, keys)?;
    let total: Duration = batches.iter().sum();
    batches.sort_unstable();
    let at = |share: f64| micros(batches[((batches.len() - 1) as f64 * share) as usize]);
    let mut figures = Figures {
        store: kind.to_string(),
        durability: durability.to_string(),
        keys,
        keys_per_second: keys as f64 / total.as_secs_f64(),
        batch_us_median: at(0.5),
        batch_us_p99: at(0.99),
        batch_us_most: at(1.0),
        written_bytes_per_key: own("io", "wchar:")? as f64 / keys as f64,
        disk_bytes_per_key: disk_bytes(&folder.0)? as f64 / keys as f64,
        resident_mib_most: own("status", "VmHWM:")? as f64 / 1_024.0,
        miss_us: probe(&*store, false, |number| u64::MAX - number)?,
        hit_us: probe(&*store, true, |number| scatter(number) % keys)?,
        drop_ms: timed(|| store.drop_oldest())?,
        open_ms: 0.0,
    };
    drop(store);
    figures.open_ms = timed(|| open(kind, durability, &folder.0).map(drop))?;
    Ok(figures)
}

/// Writes all keys in batches; how long each took.
fn fill(store: &mut dyn Store, keys: u64) -> Outcome<Vec<Duration>> {
    let mut batches = Vec::new();
    for first in (0..keys).step_by(BATCH as usize) {
        let batch: Vec<_> = (first..first + BATCH).map(key).collect();
        let start = Instant::now();
        store.write(first * BUCKETS / keys, &batch)?;
        batches.push(start.elapsed());
    }
    Ok(batches)
}

/// What one look-up takes, in microseconds, over keys that are all there or not.
fn probe(store: &dyn Store, are_there: bool, number: impl Fn(u64) -> u64) -> Outcome<f64> {
    let keys: Vec<_> = (0..PROBES).map(|probe| key(number(probe))).collect();
    let start = Instant::now();
    for key in &keys {
        if store.find(BUCKETS - 1, key)? != are_there {
            return Err("a look-up was answered wrongly".into());
        }
    }
    Ok(micros(start.elapsed()) / PROBES as f64)
}

/// How long `work` takes, in milliseconds.
fn timed(work: impl FnOnce() -> Outcome) -> Outcome<f64> {
    let start = Instant::now();
    work()?;
    Ok(micros(start.elapsed()) / 1_000.0)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A number out of what the system says of this process.
fn own(file: &str, field: &str) -> Outcome<u64> {
    let text = fs::read_to_string(format!("/proc/self/{file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or_else(|| format!("no {field} in /proc/self/{file}"))?.parse()?)
}

/// What the files under a folder take on disk.
fn disk_bytes(folder: &Path) -> Outcome<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let is_folder = metadata.is_dir();
        bytes += if is_folder { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}

/// Scatters the bits of a number (the output function of splitmix64).
fn scatter(number: u64) -> u64 {
    let z = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A key in no order, as they come in life.
fn key(number: u64) -> Key {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&scatter(number.wrapping_add(0x9e37_79b9_7f4a_7c15)).to_le_bytes());
    key[8..].copy_from_slice(&scatter(!number).to_le_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;

    #[test]
    fn every_store_finds_what_was_written() {
        for kind in Kind::value_variants() {
            for durability in Durability::value_variants() {
                let figures = measure(*kind, *durability, 4_096, &std::env::temp_dir()).unwrap();
                assert_eq!(figures.keys, 4_096);
            }
        }
    }
}
