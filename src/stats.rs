//! What an operator can see of a deduper.

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
}

impl Stats {
    /// The share of checks so far that were answered `Duplicate`: 0 to 1.
    pub fn suppression_rate(&self) -> f64 {
        let checks = self.uniques + self.duplicates + self.late;
        if checks == 0 { 0.0 } else { self.duplicates as f64 / checks as f64 }
    }
}
