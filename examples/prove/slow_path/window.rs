//! A window larger than memory, behind an exclusively owned embedded store,
//! beside redb used bare: each in a process of its own, in turns.

use super::redb::Redb;
use crate::child::{self, InTurns};
use crate::comparison::times;
use crate::keys::{Key, key, mixed};
use crate::progress::progress_bar;
use crate::report::{Report, Status, grouped};
use crate::resident::resident_bytes;
use crate::{Failure, Options};
use hapax::confirm::{Durability, EmbeddedConfirmer, Ownership, Reject};
use hapax::{Deduper, ManualClock, OnFull, Timestamp, Verdict, Window};
use std::cell::LazyCell;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The name of [`work`] as a child's work.
pub(crate) const ROUNDS: &str = "rounds";

const FULL_KEYS: u64 = 50_000_000;
const SHORT_KEYS: u64 = 1_000_000;
const BATCH: u64 = 256;

/// Rounds, in each of which a part of the window's keys come, and then some of
/// the latest again.
const ROUND_COUNT: u64 = 64;

/// From this part of the window, the latest, keys come again: memory has room for
/// several times as many.
const RECENT: u64 = 16;

/// New keys of a round for each that comes again.
const NEW_PER_DUPLICATE: u64 = 4;

/// At 50 M keys; a shortened run has less in proportion.
const LIMIT_MIB: u64 = 512;

/// What of it the store's pages take.
const CACHE_MIB: u64 = 64;

/// What of it is neither the engine's nor the store's pages: the keys that the store
/// wrote last, and the program.
const REST_MIB: u64 = 24;

const SPAN: Duration = Duration::from_secs(640);
const BUCKETS: u32 = 8;

const HAPAX: u64 = 0;
const REDB: u64 = 1;

pub(super) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let keys = if full { FULL_KEYS } else { SHORT_KEYS };
    let sums = LazyCell::new(|| run(keys).map_err(|failure| failure.to_string()));
    let sums = || sums.as_ref().map_err(Clone::clone);
    let millions = keys / 1_000_000;
    let mut ratio = |what: &str, least: f64, of: fn(&Sums) -> [f64; 2]| {
        let what = format!("{what}, window of {millions} M, over redb bare");
        report.take(&what, &format!("at least {}", times(least)), || {
            let [ours, theirs] = of(sums()?);
            let figure =
                format!("{} ({} / {} keys/s)", times(ours / theirs), whole(ours), whole(theirs));
            Ok((figure, Status::of_run(ours / theirs >= least, !full)))
        });
    };
    ratio("new keys", 2.0, |sums| sums.new);
    ratio("recent duplicates", 20.0, |sums| sums.duplicates);
    let limit = LIMIT_MIB * keys / FULL_KEYS;
    let what = format!("resident memory, window of {millions} M");
    report.take(&what, &format!("at most {LIMIT_MIB} MiB at 50 M"), || {
        let resident_mib = sums()?.resident_bytes >> 20;
        let figure = format!("{resident_mib} MiB, limit {limit} MiB");
        // The program's own memory does not shrink with a shortened run.
        Ok((figure, Status::of_run(!full || resident_mib <= limit, !full)))
    });
}

fn whole(rate: f64) -> String {
    grouped(rate as u64)
}

/// Keys a second, of Hapax and of redb, and the most memory that the one had.
struct Sums {
    new: [f64; 2],
    duplicates: [f64; 2],
    resident_bytes: u64,
}

fn run(keys: u64) -> Result<Sums, Failure> {
    let mut hapax = InTurns::start(ROUNDS, &[HAPAX, keys])?;
    let mut redb = InTurns::start(ROUNDS, &[REDB, keys])?;
    let (mut new_nanos, mut duplicate_nanos, mut resident_bytes) = ([0; 2], [0; 2], 0);
    let progress = progress_bar(ROUND_COUNT, "rounds");
    for _ in progress.wrap_iter(0..ROUND_COUNT) {
        let figures = [hapax.next()?, redb.next()?];
        for (engine, figures) in figures.iter().enumerate() {
            let [new, duplicates, _] = figures[..] else {
                return Err("three figures a round".into());
            };
            new_nanos[engine] += new;
            duplicate_nanos[engine] += duplicates;
        }
        resident_bytes = resident_bytes.max(figures[0][2]);
    }
    progress.finish_and_clear();
    let rates = |nanos: [u64; 2], keys: u64| nanos.map(|nanos| keys as f64 * 1e9 / nanos as f64);
    Ok(Sums {
        new: rates(new_nanos, round_len(keys) * ROUND_COUNT),
        duplicates: rates(duplicate_nanos, round_len(keys) / NEW_PER_DUPLICATE * ROUND_COUNT),
        resident_bytes,
    })
}

/// New keys of a round, in whole batches.
const fn round_len(keys: u64) -> u64 {
    (keys / ROUND_COUNT).next_multiple_of(BATCH * NEW_PER_DUPLICATE)
}

/// With `[engine, keys]`: nanoseconds for a round's new keys and for those that
/// come again, and resident bytes.
pub(super) fn work(numbers: &[u64]) -> Result<Vec<u64>, Failure> {
    let [engine, keys] = *numbers else { return Err("two numbers are needed".into()) };
    let folder = tempfile::tempdir()?;
    let engine: Box<dyn Engine> = match engine {
        HAPAX => Box::new(Tiers::open(folder.path(), keys)?),
        _ => Box::new(Redb::open(&folder.path().join("keys"), scaled(CACHE_MIB, keys))?),
    };
    let mut recorded = 0;
    child::rounds(|| {
        let next = recorded + round_len(keys);
        let new_nanos = engine.timed(recorded..next, true)?;
        let recent = round_len(keys).max(keys / RECENT).min(next);
        let again = (0..round_len(keys) / NEW_PER_DUPLICATE)
            .map(|number| next - 1 - mixed(next + number) % recent);
        let duplicate_nanos = engine.timed(again, false)?;
        recorded = next;
        engine.advance(SPAN / ROUND_COUNT as u32);
        Ok(vec![new_nanos, duplicate_nanos, resident_bytes()?])
    })
}

/// So many MiB at 50 M keys, in bytes.
const fn scaled(mib: u64, keys: u64) -> usize {
    ((mib << 20) * keys / FULL_KEYS) as usize
}

/// Keys in, and how many of them were new.
trait Engine {
    fn check(&self, keys: &[Key]) -> Result<u64, Failure>;

    /// Lets time pass.
    fn advance(&self, time: Duration) {
        let _ = time;
    }
}

impl Engine for Redb {
    fn check(&self, keys: &[Key]) -> Result<u64, Failure> {
        self.check_or_put(keys)
    }
}

/// A deduper and its clock.
struct Tiers {
    dedup: Deduper<EmbeddedConfirmer>,
    clock: Arc<ManualClock>,
}

impl Tiers {
    fn open(folder: &Path, keys: u64) -> Result<Self, Failure> {
        let store = EmbeddedConfirmer::builder(folder.join("keys"));
        let store = store.durability(Durability::Os).cache(scaled(CACHE_MIB, keys)).open()?;
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000_000)));
        let limit_bytes = scaled(LIMIT_MIB - CACHE_MIB - REST_MIB, keys) as u64;
        let dedup = Deduper::builder(Window::fixed(SPAN).buckets(BUCKETS))
            .capacity(keys)
            .clock(Arc::clone(&clock))
            .memory_limit(limit_bytes, OnFull::Spill)
            .confirm(store, Ownership::Exclusive, Reject)
            .build()?;
        Ok(Self { dedup, clock })
    }
}

impl Engine for Tiers {
    fn check(&self, keys: &[Key]) -> Result<u64, Failure> {
        let mut verdicts = [Verdict::Late; BATCH as usize];
        let verdicts = &mut verdicts[..keys.len()];
        self.dedup.check_batch(keys, verdicts)?;
        Ok(verdicts.iter().filter(|verdict| verdict.is_unique()).count() as u64)
    }

    fn advance(&self, time: Duration) {
        self.clock.advance(time);
    }
}

impl dyn Engine {
    /// Checks keys in batches, all of which are new or none; the time in nanoseconds.
    fn timed(&self, mut numbers: impl Iterator<Item = u64>, are_new: bool) -> Result<u64, Failure> {
        let mut time = Duration::ZERO;
        loop {
            let keys: Vec<_> = numbers.by_ref().take(BATCH as usize).map(key).collect();
            if keys.is_empty() {
                return Ok(time.as_nanos() as u64);
            }
            let start = Instant::now();
            let new = self.check(&keys)?;
            time += start.elapsed();
            if new != if are_new { keys.len() as u64 } else { 0 } {
                return Err("a wrong verdict".into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_engines_give_the_right_verdicts() {
        let folder = tempfile::tempdir().unwrap();
        let engines: [Box<dyn Engine>; 2] = [
            Box::new(Tiers::open(folder.path(), SHORT_KEYS).unwrap()),
            Box::new(Redb::open(&folder.path().join("redb"), 1 << 20).unwrap()),
        ];
        for engine in engines {
            engine.timed(0..1_000, true).unwrap();
            engine.timed(500..1_000, false).unwrap();
            assert!(engine.timed(999..1_001, true).is_err());
        }
    }
}
