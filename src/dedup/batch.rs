//! Batches: the same checks in the same order, with the memory fetched ahead.
//!
//! A check waits for one cache line. A batch keeps many such waits in flight:
//! a ring of keys that are hashed well before their check, and whose shard and
//! line are asked for then. On tables beyond the caches that is several times
//! as fast as a loop of single checks.

use super::{BatchError, BatchErrorKind, CheckError, Deduper};
use crate::hash::KeyHash;
use crate::time::{Bucket, Timestamp};
use crate::verdict::Verdict;

/// How many keys ahead of its check a key is hashed and its memory asked for:
/// more than the line fill buffers of a core (10 to 24), few enough to stay in
/// the first-level cache.
const AHEAD: usize = 24;

/// Keys in the ring; a power of two, more than `AHEAD`.
const RING: usize = 32;

/// The clock is read once for this many keys.
const KEYS_PER_READING: usize = 256;

/// A key that waits for its check.
#[derive(Clone, Copy)]
struct Waiting<'a> {
    hash: KeyHash,
    key: &'a [u8],
}

impl Deduper {
    /// Checks `keys` in order, as if one by one, and fills in `verdicts`.
    ///
    /// A key that comes twice in a batch is `Unique`, then `Duplicate`.
    /// Allocates nothing; reads the clock once per 256 keys.
    ///
    /// # Errors
    ///
    /// A [`BatchError`] that says how many keys were completed; nothing after
    /// them is recorded.
    pub fn check_batch<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        same_length(keys.len(), keys.len(), verdicts.len())?;
        self.check_ahead(keys, verdicts, |index| {
            if index % KEYS_PER_READING == 0 {
                self.read_clock()?;
            }
            Ok(None)
        })
    }

    /// Checks `keys` in order, each at its own time, and fills in `verdicts`.
    ///
    /// # Errors
    ///
    /// As [`check_batch`](Self::check_batch).
    pub fn check_batch_at<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        times: &[Timestamp],
        verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        same_length(keys.len(), times.len(), verdicts.len())?;
        self.check_ahead(keys, verdicts, |index| self.see(times[index]).map(Some))
    }

    /// Checks `keys` in order, at the bucket that `bucket_at` gives for each
    /// just before its check.
    #[inline]
    fn check_ahead<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        verdicts: &mut [Verdict],
        bucket_at: impl Fn(usize) -> Result<Option<Bucket>, CheckError>,
    ) -> Result<(), BatchError> {
        let mut ring = [Waiting { hash: KeyHash::new(0), key: &[] }; RING];
        let mut coming = keys.iter().enumerate();
        for (index, key) in coming.by_ref().take(AHEAD) {
            ring[index % RING] = self.prepare(key.as_ref());
        }
        for (index, verdict) in verdicts.iter_mut().enumerate() {
            if let Some((ahead, key)) = coming.next() {
                ring[ahead % RING] = self.prepare(key.as_ref());
            }
            let Waiting { hash, key } = ring[index % RING];
            let checked = bucket_at(index).and_then(|bucket| {
                self.shards.check(hash, key, bucket).map_err(|r| self.check_error(r))
            });
            match checked {
                Ok(outcome) => *verdict = outcome,
                Err(error) => return Err(stopped(index, error)),
            }
        }
        Ok(())
    }

    /// Hashes a key and asks for its memory. The key's bytes are taken once:
    /// what a caller's `as_ref` gives may not be the same twice.
    #[inline]
    fn prepare<'a>(&self, key: &'a [u8]) -> Waiting<'a> {
        let hash = self.hasher.hash(key);
        self.shards.prefetch(hash);
        Waiting { hash, key }
    }
}

fn same_length(keys: usize, times: usize, verdicts: usize) -> Result<(), BatchError> {
    if keys == verdicts && keys == times {
        return Ok(());
    }
    let source = BatchErrorKind::LengthMismatch { keys, times, verdicts };
    Err(BatchError { completed: 0, source })
}

#[cold]
fn stopped(completed: usize, error: CheckError) -> BatchError {
    BatchError { completed, source: error.into() }
}
