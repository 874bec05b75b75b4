//! What an operator can see of a deduper.

use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// A reading of one deduper's counters and sizes.
///
/// Taken shard by shard while checks go on, so the figures of one reading may
/// be a few checks apart from one another.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Checks that answered `Unique` since the start.
    pub uniques: u64,
    /// Checks that answered `Duplicate` since the start.
    pub duplicates: u64,
    /// Checks that answered `Late` since the start.
    pub late: u64,
    /// New keys refused because the memory limit was reached (`OnFull::Reject`),
    /// or because one alone would take over half of it.
    pub rejected: u64,
    /// Live keys given up before their time to stay within the memory limit
    /// (`OnFull::EvictOldest`).
    pub evicted: u64,
    /// Keys that the window still remembers.
    pub live_keys: u64,
    /// Bytes that the engine holds: tables, key arenas, fixed structures.
    pub memory_bytes: u64,
    /// The memory limit, if one was given.
    pub memory_limit_bytes: Option<u64>,
    /// Number of shards.
    pub shards: usize,
    /// P(a new key is called `Duplicate`), per check, at the present fill.
    pub false_duplicate_rate: f64,
    /// Every key recorded within this span is still remembered; shorter than
    /// the window's span only after eviction. `None`: unbounded.
    pub effective_window: Option<Duration>,
    /// In filter mode, and where a filter stands before a confirmer.
    pub filter: Option<FilterStats>,
    /// With a confirmer.
    pub confirmer: Option<ConfirmerStats>,
}

/// What an operator can see of a confirmer's part in the verdicts.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ConfirmerStats {
    /// Keys that the store had to judge.
    pub asked: u64,
    /// Of these, keys that were new: a filter was mistaken, or, where the store
    /// is shared, memory could not know.
    pub asked_in_vain: u64,
    /// Keys that the store only had to write down, without looking for them.
    pub recorded: u64,
    /// Keys on their way to the store.
    pub queued: usize,
    /// Checks that answered `Unconfirmed`.
    pub unconfirmed: u64,
    /// Keys that the table left to the store to stay within the memory limit.
    pub spilled: u64,
    /// P(the store is asked about a new key in vain), at the present fill of the
    /// filter, if there is one.
    pub filter_rate: Option<f64>,
    /// False once memory had no room at all for something that the store knows:
    /// since then it is asked about every key that the table does not recall.
    pub memory_is_whole: bool,
    /// When it failed, and what became of checks then.
    pub outages: OutageStats,
}

/// Counters of a confirmer's outages since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutageStats {
    /// Requests that the confirmer did not answer.
    pub failures: u64,
    /// How often it was left alone because of them.
    pub openings: u64,
    /// Keys let through that nobody vouched for (`Admit`).
    pub admitted: u64,
    /// Sightings that the fallback answered alone.
    pub answered_by_fallback: u64,
    /// Requests that the fallback did not answer either.
    pub fallback_failures: u64,
    /// Keys that the confirmer has yet to be told of.
    pub journal_keys: usize,
    /// What they take in memory, in bytes.
    pub journal_bytes: usize,
    /// Keys that it was told of when it was back.
    pub written_back: u64,
    /// Those among them that it knew already: let through twice.
    pub let_through_twice: u64,
    /// Requests with such keys that it refused; they are tried again.
    pub write_backs_refused: u64,
    /// Keys whose last sighting ended in an error, and may have been recorded:
    /// their next check settles it.
    pub unresolved_keys: usize,
    /// Those of which there were too many to keep. A check of such a key may call it
    /// a duplicate although nobody has processed it.
    pub unresolved_given_up: u64,
}

/// What an operator can see of a filter. Its rate at the present fill is
/// [`Stats::false_duplicate_rate`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct FilterStats {
    /// Layers that a check may read: 1 in a steady stream, more while or after
    /// a bucket outgrew its layer.
    pub layers: usize,
    /// Adjacent cache lines that a check reads in each layer.
    pub lines: u32,
    /// Bits of filter memory for each live key.
    pub bits_per_key: f64,
}

impl Stats {
    /// The share of checks so far that were answered `Duplicate`: 0 to 1.
    pub fn suppression_rate(&self) -> f64 {
        let checks = self.uniques + self.duplicates + self.late;
        if checks == 0 { 0.0 } else { self.duplicates as f64 / checks as f64 }
    }
}

/// A counter that many threads raise at once, each in a cache line of its own
/// (as far as there are enough).
#[derive(Debug, Default)]
pub(crate) struct StripedCounter([CachePadded<AtomicU64>; STRIPES]);

/// Few where a model checker runs: its threads have small stacks.
const STRIPES: usize = if cfg!(loom) { 1 } else { 16 };

impl StripedCounter {
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.0[this_stripe()].fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn sum(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.load(Ordering::Relaxed)).sum()
    }
}

/// The stripe of the calling thread: threads take turns.
#[inline]
fn this_stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static STRIPE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES;
    }
    STRIPE.with(|stripe| *stripe)
}
