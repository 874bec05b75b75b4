//! Batches: the same checks in the same order, with the memory fetched ahead.
//!
//! A check waits for one cache line. A batch keeps many such waits in flight:
//! a ring of keys that are hashed well before their check, and whose shard and
//! line are asked for then. On tables beyond the caches that is several times
//! as fast as a loop of single checks.

use super::{BatchError, BatchErrorKind, CheckError, Deduper};
use crate::filter::Probe;
use crate::memory::OnFull;
use crate::shard::{Coming, FilteredShards, Present, all, ones};
use crate::time::{Bucket, Timestamp};
use crate::verdict::Verdict;

/// How many keys ahead of its check a key is hashed and its memory asked for:
/// more than the line fill buffers of a core (10 to 24), few enough to stay in
/// the first-level cache.
const AHEAD: usize = 32;

/// Keys in the ring.
const RING: usize = AHEAD + STEP;

/// Keys that go on together: their lines, fetched before, are looked at, and
/// what recording them will need is fetched while the others are looked at.
const STEP: usize = 16;

/// The same in filter mode; divides [`STEP`].
const FILTER_STEP: usize = 4;

/// The clock is read once for this many keys.
pub(super) const KEYS_PER_READING: usize = 256;

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
        let step =
            |first, coming: &[Coming<'_>], verdicts: &mut [Verdict], recognised: &mut u64| {
                if first % KEYS_PER_READING == 0 {
                    self.read_clock().map_err(|error| (0, error))?;
                }
                if self.rules().on_full() == Some(OnFull::EvictOldest) {
                    // One key's check may give up others: each looks for itself.
                    return self.check_step(coming, verdicts, recognised, |_| Ok(None));
                }
                self.check_step_at_once(coming, verdicts, recognised)
            };
        self.check_ahead(self.approaching(keys), verdicts, step).map_err(stopped)
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
        let step =
            |first, coming: &[Coming<'_>], verdicts: &mut [Verdict], recognised: &mut u64| {
                self.check_step(coming, verdicts, recognised, |index| {
                    self.see(times[first + index]).map(Some)
                })
            };
        self.check_ahead(self.approaching(keys), verdicts, step).map_err(stopped)
    }

    /// Checks keys whose memory has come, all at the watermark.
    #[inline]
    fn check_step_at_once(
        &self,
        coming: &[Coming<'_>],
        verdicts: &mut [Verdict],
        recognised: &mut u64,
    ) -> Result<(), Stop> {
        if let Some(filtered) = self.shards.filtered() {
            return self.check_step_filtered(filtered, coming, verdicts, |_| Ok(None));
        }
        let known = self.shards.glimpse(coming, &Present::new(self.rules(), None));
        *recognised += u64::from(known.count_ones());
        verdicts.fill(Verdict::Duplicate);
        for index in ones(!known & all(coming.len())) {
            let outcome = self.shards.check_locked(&coming[index], None);
            verdicts[index] = outcome.map_err(|refusal| (index, self.check_error(refusal)))?;
        }
        Ok(())
    }

    /// Checks keys whose memory has come, each when `when` says.
    #[inline]
    pub(super) fn check_step(
        &self,
        coming: &[Coming<'_>],
        verdicts: &mut [Verdict],
        recognised: &mut u64,
        mut when: impl FnMut(usize) -> Result<Option<Bucket>, CheckError>,
    ) -> Result<(), Stop> {
        if let Some(filtered) = self.shards.filtered() {
            return self.check_step_filtered(filtered, coming, verdicts, when);
        }
        self.shards.glimpse(coming, &Present::new(self.rules(), None));
        for (index, (coming, verdict)) in coming.iter().zip(verdicts).enumerate() {
            let at = when(index).map_err(|error| (index, error))?;
            *verdict = if self.shards.recognises(coming, &Present::new(self.rules(), at)) {
                *recognised += 1;
                Verdict::Duplicate
            } else {
                let outcome = self.shards.check_locked(coming, at);
                outcome.map_err(|refusal| (index, self.check_error(refusal)))?
            };
        }
        Ok(())
    }
}

impl<C, P> Deduper<C, P> {
    /// Has `approach` prepare keys ahead of their checks, as many as it is given
    /// room for, and `check_step` check them, a few at a time in order, given
    /// the index of the first; it adds to the count of keys that were
    /// recognised.
    #[inline]
    pub(super) fn check_ahead<'a>(
        &self,
        mut approach: impl FnMut(&mut [Coming<'a>]),
        verdicts: &mut [Verdict],
        mut check_step: impl FnMut(usize, &[Coming<'a>], &mut [Verdict], &mut u64) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let mut recognised = 0;
        let mut ring = [Coming::NONE; RING];
        let keys_per_step = self.keys_per_step();
        ring[..AHEAD].chunks_mut(keys_per_step).for_each(&mut approach);
        let mut checked = Ok(());
        for (step, verdicts) in verdicts.chunks_mut(keys_per_step).enumerate() {
            let first = step * keys_per_step;
            approach(&mut ring[(first + AHEAD) % RING..][..keys_per_step]);
            let now = &ring[first % RING..][..verdicts.len()];
            checked = check_step(first, now, verdicts, &mut recognised);
            if let Err((index, error)) = checked {
                checked = Err((first + index, error));
                break;
            }
        }
        self.shards.count_recognised(recognised);
        checked
    }

    /// Approaches `keys` a step at a time.
    #[inline]
    pub(super) fn approaching<'a, K: AsRef<[u8]>>(
        &'a self,
        keys: &'a [K],
    ) -> impl FnMut(&mut [Coming<'a>]) {
        let mut ahead = keys.chunks(self.keys_per_step());
        move |coming| {
            if let Some(keys) = ahead.next() {
                self.approach(keys, coming);
            }
        }
    }

    /// Hashes keys and asks for their memory. A key's bytes are taken once:
    /// what a caller's `as_ref` gives may not be the same twice.
    #[inline(never)]
    fn approach<'a, K: AsRef<[u8]>>(&'a self, keys: &'a [K], coming: &mut [Coming<'a>]) {
        for (key, coming) in keys.iter().zip(&mut *coming) {
            let key = key.as_ref();
            *coming = self.shards.approach_apart(self.hasher.hash(key), key);
        }
        self.shards.prefetch_blocks(coming);
    }

    /// A filter has each key fetch several lines: sixteen keys at once were a
    /// fifth slower, presumably for want of line fill buffers.
    fn keys_per_step(&self) -> usize {
        if self.shards.filtered().is_some() { FILTER_STEP } else { STEP }
    }
}

impl Deduper {
    /// As `check_step`, in filter mode: all positions are drawn before the
    /// first lock is taken, because a lock keeps the processor from working
    /// ahead.
    #[inline(never)]
    fn check_step_filtered(
        &self,
        filtered: &FilteredShards,
        coming: &[Coming<'_>],
        verdicts: &mut [Verdict],
        mut when: impl FnMut(usize) -> Result<Option<Bucket>, CheckError>,
    ) -> Result<(), Stop> {
        debug_assert!(coming.len() <= FILTER_STEP);
        let mut probes = [Probe::NONE; FILTER_STEP];
        for (probe, coming) in probes.iter_mut().zip(coming) {
            filtered.aim(probe, coming);
        }
        for (index, ((coming, probe), verdict)) in
            coming.iter().zip(&probes).zip(verdicts).enumerate()
        {
            let at = when(index).map_err(|error| (index, error))?;
            let outcome = filtered.check(self.rules(), coming, probe, at);
            *verdict = outcome.map_err(|refusal| (index, self.check_error(refusal)))?;
        }
        Ok(())
    }
}

/// Where in a step a batch stopped, and why.
pub(super) type Stop = (usize, CheckError);

pub(super) fn same_length(keys: usize, times: usize, verdicts: usize) -> Result<(), BatchError> {
    if keys == verdicts && keys == times {
        return Ok(());
    }
    let source = BatchErrorKind::LengthMismatch { keys, times, verdicts };
    Err(BatchError { completed: 0, source })
}

#[cold]
pub(super) fn stopped((completed, error): Stop) -> BatchError {
    BatchError { completed, source: error.into() }
}
