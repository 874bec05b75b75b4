//! Batches: the same checks in the same order, with the memory fetched ahead.
//!
//! A check waits for one cache line. Hashing a stretch of keys first and
//! asking for their shards, then for their lines, before the first is checked
//! keeps many such waits in flight at once: five to eight times as fast as a
//! loop of single checks on tables beyond the caches.

use super::{BatchError, BatchErrorKind, CheckError, Deduper};
use crate::hash::KeyHash;
use crate::time::{Bucket, Timestamp};
use crate::verdict::Verdict;

/// Keys that are hashed ahead together; the clock is read once for each such
/// stretch.
const STRETCH: usize = 256;

/// How many keys ahead a line is asked for. More than the line fill buffers
/// of a core (10 to 24), few enough to stay in the first-level cache.
const AHEAD: usize = 24;

/// A stretch of keys with their hashes, on the stack.
struct Stretch<'a> {
    keys: [&'a [u8]; STRETCH],
    hashes: [KeyHash; STRETCH],
    len: usize,
}

impl Deduper {
    /// Checks `keys` in order, as if one by one, and fills in `verdicts`.
    ///
    /// A key that comes twice in a batch is `Unique`, then `Duplicate`.
    /// Allocates nothing; reads the clock once per 256 keys. Batches of 64
    /// keys and more get nearly all of the gain.
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
        for (stretch, start) in stretches(keys) {
            let stretch = self.hash_ahead(stretch);
            self.read_clock().map_err(|error| stopped(start, error))?;
            let verdicts = &mut verdicts[start..start + stretch.len];
            self.check_stretch(&stretch, verdicts, |_| Ok(None))
                .map_err(|(index, error)| stopped(start + index, error))?;
        }
        Ok(())
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
        for (stretch, start) in stretches(keys) {
            let stretch = self.hash_ahead(stretch);
            let times = &times[start..start + stretch.len];
            let verdicts = &mut verdicts[start..start + stretch.len];
            self.check_stretch(&stretch, verdicts, |index| self.see(times[index]).map(Some))
                .map_err(|(index, error)| stopped(start + index, error))?;
        }
        Ok(())
    }

    /// Hashes a stretch of keys and asks for their shards.
    #[inline]
    fn hash_ahead<'a, K: AsRef<[u8]>>(&self, keys: &'a [K]) -> Stretch<'a> {
        let mut stretch =
            Stretch { keys: [&[]; STRETCH], hashes: [KeyHash::new(0); STRETCH], len: keys.len() };
        for (index, key) in keys.iter().enumerate() {
            // Read once: what `as_ref` gives may not be the same twice.
            let key = key.as_ref();
            let hash = self.hasher.hash(key);
            self.shards.prefetch_shard(hash);
            stretch.keys[index] = key;
            stretch.hashes[index] = hash;
        }
        stretch
    }

    /// Checks a stretch in order. On an error, also how many were completed.
    #[inline]
    fn check_stretch(
        &self,
        stretch: &Stretch<'_>,
        verdicts: &mut [Verdict],
        mut bucket_at: impl FnMut(usize) -> Result<Option<Bucket>, CheckError>,
    ) -> Result<(), (usize, CheckError)> {
        let hashes = &stretch.hashes[..stretch.len];
        for hash in &hashes[..AHEAD.min(hashes.len())] {
            self.shards.prefetch_line(*hash);
        }
        for (index, verdict) in verdicts.iter_mut().enumerate() {
            if let Some(ahead) = hashes.get(index + AHEAD) {
                self.shards.prefetch_line(*ahead);
            }
            let bucket = bucket_at(index).map_err(|error| (index, error))?;
            *verdict = self
                .shards
                .check(hashes[index], stretch.keys[index], bucket)
                .map_err(|refusal| (index, self.check_error(refusal)))?;
        }
        Ok(())
    }
}

/// Cuts `keys` into stretches, each with the index that it starts at.
fn stretches<K>(keys: &[K]) -> impl Iterator<Item = (&[K], usize)> {
    keys.chunks(STRETCH).enumerate().map(|(number, keys)| (keys, number * STRETCH))
}

fn same_length(keys: usize, times: usize, verdicts: usize) -> Result<(), BatchError> {
    if keys == verdicts && keys == times {
        return Ok(());
    }
    let source = BatchErrorKind::LengthMismatch { keys, times, verdicts };
    Err(BatchError { completed: 0, source })
}

fn stopped(completed: usize, error: CheckError) -> BatchError {
    BatchError { completed, source: error.into() }
}
