//! The deduper: keys and times in, verdicts out.

mod batch;
mod builder;
mod confirmed;
mod error;
#[cfg(all(test, loom))]
mod models;
#[cfg(feature = "rayon")]
mod parallel;
mod tier;

pub use builder::Builder;
pub use error::{BatchError, BatchErrorKind, CheckError, ConfigError, ConfigProblem};

use crate::confirm::{
    Guard, NoConfirmer, Outage, OwnedStore, Ownership, Reject, Sighting, StoreError, write,
};
use crate::hash::KeyHasher;
use crate::memory::Budget;
use crate::mode::Mode;
use crate::shard::{Coming, Refusal, Rules, Shards, Tally};
use crate::stats::{FilterStats, Stats};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::time::{Bucket, Clock, Timestamp, TooFarAhead, Window};
use crate::verdict::Verdict;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tier::{Queue, Tiers, Written};

/// Answers, for each key: has it been seen within the window?
///
/// Shared by reference between any number of threads. Checks of one key are
/// linearizable: of any number of concurrent checks of a key that is not in
/// the window, exactly one gets [`Verdict::Unique`].
///
/// A check records at once. If the process crashes between the check and the
/// work, the message is not processed again by this deduper's verdict; where
/// the work fails without a crash, [`forget`](Self::forget) lets the retry in.
///
/// With a confirmer behind it ([`Builder::confirm`]) it is a `Deduper<C, P>`: the
/// store `C` knows keys beyond this process's memory or life, and the outage
/// policy `P` says what becomes of a check that it cannot answer.
pub struct Deduper<C = NoConfirmer, P = Reject> {
    /// The table; in filter mode, the filter.
    shards: Shards,
    hasher: KeyHasher,
    clock: Arc<dyn Clock>,
    window: Window,
    budget: Arc<Budget>,
    domain: Domain,
    limit_bytes: Option<u64>,
    /// The shard that `maintain` comes to next.
    next_to_maintain: AtomicUsize,
    /// Shards visited by `maintain` since it last had visited them all.
    maintained: AtomicUsize,
    behind: Option<Box<Behind<C, P>>>,
}

/// What stands behind a deduper's table.
struct Behind<C, P> {
    guard: Guard<C, P>,
    ownership: Ownership<C>,
    tiers: Tiers,
}

impl<C, P> Behind<C, P> {
    /// Has `write` record some of what is on its way to the store.
    fn write_some(
        &self,
        most_refusals: usize,
        write: impl Fn(&dyn OwnedStore, &[Sighting<'_>]) -> Result<(), StoreError>,
    ) -> Written {
        let owned = self.ownership.owned(self.guard.primary());
        let Some((queue, owned)) = self.tiers.queue().zip(owned) else { return Written::NOTHING };
        let write = |sightings: &[Sighting<'_>]| write(owned, sightings);
        self.tiers.write(queue.take(), most_refusals, write)
    }

    /// Has `write` record what is on its way to the store now, as long as `may_go_on`,
    /// asked after each write. What comes meanwhile is left: it might never end.
    ///
    /// # Errors
    ///
    /// The store's. It was shown all the same what it would not refuse, unless it failed.
    fn write_queued(
        &self,
        may_go_on: impl Fn() -> bool,
        write: impl Fn(&dyn OwnedStore, &[Sighting<'_>]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        // The oldest are written first, so these are so many as come next.
        let mut left = self.tiers.queue().map_or(0, Queue::len);
        let mut result = Ok(());
        while left > 0 {
            let written = self.write_some(usize::MAX, &write);
            left = left.saturating_sub(written.keys);
            let is_stuck = written.keys == 0 || left <= written.refused;
            let is_over = is_stuck || written.has_failed() || !may_go_on();
            result = written.result;
            if is_over {
                break;
            }
        }
        result
    }
}

impl<C, P> Drop for Behind<C, P> {
    /// A deduper that is dropped forgets nothing, if the store does not fail.
    fn drop(&mut self) {
        let _ = self.write_queued(|| true, write);
    }
}

/// Which times a deduper runs on.
#[derive(Clone, Copy, Debug)]
enum Domain {
    /// The clock's.
    Processing,
    /// The records' own.
    Event { max_ahead: Duration },
}

impl Deduper {
    /// Begins a deduper over `window`.
    pub fn builder(window: Window) -> Builder {
        Builder::new(window)
    }

    /// Checks a key at the present time, and records it if it was not known.
    ///
    /// Costs one cache line for almost every key, a lock that nobody else
    /// holds, and a reading of the clock; [`check_batch`](Self::check_batch)
    /// is several times faster a key.
    ///
    /// # Errors
    ///
    /// [`CheckError::TimeRequired`] in event time; [`CheckError::Full`] or
    /// [`CheckError::OutOfMemory`] if there is no room for a new key. Nothing
    /// is recorded then.
    pub fn check(&self, key: &[u8]) -> Result<Verdict, CheckError> {
        // The clock is read while the key's line is on its way.
        let coming = self.shards.approach(self.hasher.hash(key), key);
        self.read_clock()?;
        self.check_coming(coming, None)
    }

    /// Checks a key at the record's own time.
    ///
    /// # Errors
    ///
    /// [`CheckError::TimeNotExpected`] in processing time;
    /// [`CheckError::TooFarAhead`], which moves nothing; and those of
    /// [`check`](Self::check) for want of room.
    pub fn check_at(&self, key: &[u8], at: Timestamp) -> Result<Verdict, CheckError> {
        let coming = self.shards.approach(self.hasher.hash(key), key);
        let bucket = self.see(at)?;
        self.check_coming(coming, Some(bucket))
    }

    /// True iff [`check`](Self::check) would say `Duplicate`; records nothing.
    ///
    /// # Errors
    ///
    /// [`CheckError::TimeRequired`] in event time.
    pub fn contains(&self, key: &[u8]) -> Result<bool, CheckError> {
        if matches!(self.domain, Domain::Event { .. }) {
            return Err(CheckError::TimeRequired);
        }
        // The clock is read and not taken note of: looking moves no time.
        let bucket = self.rules().grid.bucket(self.clock.now());
        Ok(self.shards.contains(self.hasher.hash(key), key, Some(bucket)))
    }

    /// True iff [`check_at`](Self::check_at) would say `Duplicate`; records
    /// nothing and moves no watermark.
    ///
    /// # Errors
    ///
    /// [`CheckError::TimeNotExpected`] in processing time;
    /// [`CheckError::TooFarAhead`].
    pub fn contains_at(&self, key: &[u8], at: Timestamp) -> Result<bool, CheckError> {
        self.admit(at)?;
        let bucket = self.rules().grid.bucket(at);
        Ok(self.shards.contains(self.hasher.hash(key), key, Some(bucket)))
    }

    /// Forgets a key, so that its next check is `Unique`: for a message whose
    /// processing failed. True iff the key was remembered.
    ///
    /// In filter mode it does nothing and is false: the bits of a key are also
    /// those of others.
    pub fn forget(&self, key: &[u8]) -> bool {
        self.follow_clock();
        self.shards.forget(self.hasher.hash(key), key)
    }

    /// Does maintenance that checks have not come to: expires keys in shards
    /// that nobody checks, and gives memory back. Checks do a bounded share of
    /// it by themselves; call this when traffic has stopped or is uneven, and
    /// where a memory limit with [`OnFull::Reject`](crate::OnFull::Reject) is
    /// tight.
    ///
    /// With the time that is left it puts tables that grew beyond the expected
    /// [`capacity`](Builder::capacity) on huge pages, which makes checks up to
    /// 1.3 times as fast: two megabytes at a time, some milliseconds each, in
    /// which checks that come to these wait.
    ///
    /// Visits one shard after the other, each under its lock, until all were
    /// visited or `budget` has passed; the next call goes on from there. True
    /// iff all shards were visited since it was last true. A shard takes
    /// under a microsecond, or some ten to empty or shrink (13 measured, at
    /// 10,000 keys).
    pub fn maintain(&self, budget: Duration) -> bool {
        self.maintain_memory(budget)
    }

    fn check_coming(&self, coming: Coming<'_>, at: Option<Bucket>) -> Result<Verdict, CheckError> {
        let verdict = self.shards.check(coming, at);
        verdict.map_err(|refusal| self.check_error(refusal))
    }
}

impl<C, P> Deduper<C, P> {
    /// See [`Deduper::maintain`].
    fn maintain_memory(&self, budget: Duration) -> bool {
        self.follow_clock();
        let start = Instant::now();
        for _ in 0..self.shards.len() {
            // Relaxed: callers at once may visit a shard twice, no more.
            let next = self.next_to_maintain.fetch_add(1, Ordering::Relaxed);
            self.shards.maintain(next % self.shards.len());
            self.maintained.fetch_add(1, Ordering::Relaxed);
            if start.elapsed() >= budget {
                break;
            }
        }
        let is_done = self.maintained.load(Ordering::Relaxed) >= self.shards.len();
        if is_done {
            self.maintained.store(0, Ordering::Relaxed);
            while start.elapsed() < budget && self.shards.collapse_next() {}
        }
        is_done
    }

    fn check_error(&self, refusal: Refusal) -> CheckError {
        match (refusal, self.limit_bytes) {
            (Refusal::Full, Some(limit_bytes)) => CheckError::Full { limit_bytes },
            _ => CheckError::OutOfMemory,
        }
    }

    fn rules(&self) -> &Rules {
        self.shards.rules()
    }

    /// Takes note of the present time; processing time only.
    fn read_clock(&self) -> Result<(), CheckError> {
        match self.domain {
            Domain::Processing => {
                self.rules().watermark.follow(self.clock.now());
                Ok(())
            }
            Domain::Event { .. } => Err(CheckError::TimeRequired),
        }
    }

    /// Takes note of the present time where the clock is what counts; in event
    /// time only records move the watermark.
    fn follow_clock(&self) {
        let _ = self.read_clock();
    }

    /// Takes note of a record's time; its bucket.
    fn see(&self, at: Timestamp) -> Result<Bucket, CheckError> {
        self.admit(at)?;
        self.rules().watermark.advance(at);
        Ok(self.rules().grid.bucket(at))
    }

    /// Refuses a record's time that is too far ahead; event time only.
    fn admit(&self, time: Timestamp) -> Result<(), CheckError> {
        let Domain::Event { max_ahead } = self.domain else {
            return Err(CheckError::TimeNotExpected);
        };
        let admitted = self.rules().watermark.admit(time, max_ahead, || self.clock.now());
        admitted.map_err(|TooFarAhead { largest_seen }| CheckError::TooFarAhead {
            time,
            largest_seen,
            max_ahead,
        })
    }

    /// P(a new key meets its own 56 fingerprint bits among the live keys of
    /// its shard): a union bound over keys that are spread evenly.
    /// In filter mode, by the fill of each shard.
    fn false_duplicate_rate(&self, total: Tally) -> f64 {
        let shards = self.shards.len() as f64;
        match self.rules().mode {
            Mode::Verified => 0.0,
            Mode::Fingerprint => total.live_keys as f64 / shards / (1_u64 << 56) as f64,
            Mode::Filter { .. } => total.filter_rate / shards,
        }
    }
}

impl<C: Sync, P: Outage> Deduper<C, P> {
    /// A reading of the counters and sizes. Locks each shard once.
    pub fn stats(&self) -> Stats {
        self.follow_clock();
        let total = total(&self.shards);
        let stats = Stats {
            uniques: total.uniques,
            duplicates: total.duplicates + self.shards.recognised(),
            late: total.late,
            rejected: total.rejected,
            evicted: total.evicted,
            live_keys: total.live_keys,
            memory_bytes: self.budget.used_bytes(),
            memory_limit_bytes: self.limit_bytes,
            shards: self.shards.len(),
            false_duplicate_rate: self.false_duplicate_rate(total),
            effective_window: self.rules().effective_window(self.window),
            filter: filter_stats(&self.shards, total),
            confirmer: None,
        };
        match &self.behind {
            Some(behind) => self.with_confirmer(stats, behind),
            None => stats,
        }
    }
}

/// What the counters of all shards say.
fn total(shards: &Shards) -> Tally {
    (0..shards.len()).map(|index| shards.tally(index)).fold(Tally::default(), Tally::plus)
}

fn filter_stats(shards: &Shards, total: Tally) -> Option<FilterStats> {
    let layers = shards.filter_layers()?;
    let bits = layers.bytes() as f64 * 8.0;
    Some(FilterStats {
        layers: total.filter_layers,
        lines: layers.lines(),
        bits_per_key: if total.live_keys == 0 { 0.0 } else { bits / total.live_keys as f64 },
    })
}

impl<C, P> fmt::Debug for Deduper<C, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deduper")
            .field("window", &self.window)
            .field("mode", &self.rules().mode)
            .field("domain", &self.domain)
            .field("hasher", &self.hasher)
            .field("shards", &self.shards.len())
            .field("limit_bytes", &self.limit_bytes)
            .finish_non_exhaustive()
    }
}
