//! Large batches on all cores: the verdicts of the same checks in order.
//!
//! What a check answers depends on its shard and on the watermark, and on
//! nothing else that other checks of the batch change. So a batch is cut into
//! *stages* within which the watermark stays where it is; the keys of a stage
//! are dealt into *parts* by their shards, in order, and each part is checked
//! in order by one thread. Two keys of one shard never meet out of order.

use super::batch::{same_length, stopped};
use super::{BatchError, CheckError, Deduper};
use crate::hash::KeyHash;
use crate::memory::OnFull;
use crate::shard::Coming;
use crate::time::{Bucket, Timestamp};
use crate::verdict::Verdict;
use rayon::prelude::*;
use std::iter::zip;

/// Stages of fewer keys are not worth waking threads for.
const LEAST_KEYS: usize = 4_096;

/// The most keys in a stage: the clock is read once for it, and each of its
/// keys takes 48 bytes until it ends.
const MOST_KEYS: usize = 1 << 17;

/// More parts than threads, so that threads that are done take over from those
/// that are not.
const PARTS_PER_THREAD: usize = 4;

/// A key on its way to its check.
struct Routed<'a> {
    /// Its place in the stage.
    index: usize,
    hash: KeyHash,
    key: &'a [u8],
}

/// The keys of a stage, dealt out.
struct Dealt<'a> {
    /// Keys in each chunk but the last.
    chunk_len: usize,
    /// By chunk of the input, then by part; in input order.
    chunks: Vec<Vec<Vec<Routed<'a>>>>,
}

impl Dealt<'_> {
    fn part(&self, part: usize) -> impl Iterator<Item = &Routed<'_>> {
        self.chunks.iter().flat_map(move |parts| &parts[part])
    }

    fn part_len(&self, part: usize) -> usize {
        self.len_before(self.chunks.len(), part)
    }

    /// How many keys of a part come before a chunk.
    fn len_before(&self, chunk: usize, part: usize) -> usize {
        self.chunks[..chunk].iter().map(|parts| parts[part].len()).sum()
    }
}

/// What the checks of one part answered.
struct Answers {
    /// In order, up to the check that failed.
    verdicts: Vec<Verdict>,
    failure: Option<Failure>,
}

/// The check that ended a part early.
struct Failure {
    /// The key's place in the stage.
    index: usize,
    error: BatchError,
}

impl Deduper {
    /// Checks `keys` on the threads of the current rayon pool, with the
    /// verdicts that [`check_batch`](Self::check_batch) would give.
    ///
    /// A key that comes twice is `Unique`, then `Duplicate`, in input order.
    /// The clock is read once per 131,072 keys: they all count as checked at
    /// that reading. Needs 48 bytes for each of as many keys meanwhile. Goes
    /// the sequential way where threads gain nothing: fewer than 4,096 keys, a
    /// pool of one thread, or a memory limit with
    /// [`OnFull::Reject`](crate::OnFull::Reject), which makes running out of
    /// room an ordinary outcome. Under [`OnFull::EvictOldest`](crate::OnFull)
    /// the keys given up at the limit may be others than in order.
    ///
    /// # Errors
    ///
    /// As [`check_batch`](Self::check_batch). Keys after the failed one may
    /// have been recorded by then; they are forgotten again, so that none of
    /// them is suppressed when it is tried once more. Until then another
    /// thread may have met them as `Duplicate`; in a sliding window a key that
    /// was known before stays known from that sighting on; and the counters of
    /// [`stats`](Self::stats) keep all of these checks.
    pub fn par_check_batch<K: AsRef<[u8]> + Sync>(
        &self,
        keys: &[K],
        verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        same_length(keys.len(), keys.len(), verdicts.len())?;
        let mut done = 0;
        while done < keys.len() {
            let stage = done..keys.len().min(done + MOST_KEYS);
            self.check_stage(&keys[stage.clone()], &mut verdicts[stage.clone()])
                .map_err(|error| error.after(done))?;
            done = stage.end;
        }
        Ok(())
    }

    /// Checks `keys`, each at its own time, on the threads of the current rayon
    /// pool, with the verdicts that [`check_batch_at`](Self::check_batch_at)
    /// would give.
    ///
    /// As [`par_check_batch`](Self::par_check_batch); in parallel are records
    /// that leave the watermark in one bucket. Where it moves more often than
    /// every 4,096 records, the batch is checked sequentially.
    ///
    /// # Errors
    ///
    /// As [`par_check_batch`](Self::par_check_batch) and
    /// [`check_batch_at`](Self::check_batch_at).
    pub fn par_check_batch_at<K: AsRef<[u8]> + Sync>(
        &self,
        keys: &[K],
        times: &[Timestamp],
        verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        same_length(keys.len(), times.len(), verdicts.len())?;
        let mut done = 0;
        while done < keys.len() {
            let checked = self.check_stage_at(&keys[done..], &times[done..], &mut verdicts[done..]);
            done += checked.map_err(|error| error.after(done))?;
        }
        Ok(())
    }

    fn check_stage<K: AsRef<[u8]> + Sync>(
        &self,
        keys: &[K],
        verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        if !self.is_worth_threads(keys.len()) {
            return self.check_batch(keys, verdicts);
        }
        self.read_clock().map_err(|error| stopped((0, error)))?;
        self.check_at_once(keys, verdicts, |_| None)
    }

    /// Checks the first records of what is left; how many.
    fn check_stage_at<K: AsRef<[u8]> + Sync>(
        &self,
        keys: &[K],
        times: &[Timestamp],
        verdicts: &mut [Verdict],
    ) -> Result<usize, BatchError> {
        if !self.is_worth_threads(keys.len()) {
            return self.check_batch_at(keys, times, verdicts).map(|()| keys.len());
        }
        let steady = self.steady(times).map_err(|error| stopped((0, error)))?;
        if steady >= LEAST_KEYS {
            self.check_steady(&keys[..steady], &times[..steady], &mut verdicts[..steady])?;
            return Ok(steady);
        }
        let stage = LEAST_KEYS;
        self.check_batch_at(&keys[..stage], &times[..stage], &mut verdicts[..stage])?;
        Ok(stage)
    }

    /// Checks records that leave the watermark where it is.
    fn check_steady<K: AsRef<[u8]> + Sync>(
        &self,
        keys: &[K],
        times: &[Timestamp],
        verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        let grid = self.rules().grid;
        let checked = self.check_at_once(keys, verdicts, |index| Some(grid.bucket(times[index])));
        let completed = checked.as_ref().map_or_else(|error| error.completed, |()| keys.len());
        // Afterwards: a record that was not checked has not been seen.
        if let Some(largest) = times[..completed].par_iter().max() {
            self.rules().watermark.advance(*largest);
        }
        checked
    }

    /// How many records, from the first on, leave the watermark where the first
    /// puts it, and are not too far ahead; takes note of the first alone.
    fn steady(&self, times: &[Timestamp]) -> Result<usize, CheckError> {
        let times = &times[..times.len().min(MOST_KEYS)];
        self.see(times[0])?;
        let watermark = self.rules().watermark.bucket();
        let moves = |time: &Timestamp| {
            self.rules().watermark.after(*time) > watermark || self.admit(*time).is_err()
        };
        Ok(times.par_iter().position_first(moves).unwrap_or(times.len()))
    }

    fn is_worth_threads(&self, keys: usize) -> bool {
        keys >= LEAST_KEYS
            && rayon::current_num_threads() > 1
            && self.rules().on_full() != Some(OnFull::Reject)
    }

    /// Checks the keys of a stage, each at the bucket that `bucket_at` gives.
    fn check_at_once<K: AsRef<[u8]> + Sync>(
        &self,
        keys: &[K],
        verdicts: &mut [Verdict],
        bucket_at: impl Fn(usize) -> Option<Bucket> + Sync,
    ) -> Result<(), BatchError> {
        let parts = self.shards.len().min(rayon::current_num_threads() * PARTS_PER_THREAD);
        let dealt = self.deal(keys, parts);
        let answers: Vec<Answers> = (0..parts)
            .into_par_iter()
            .map(|part| self.check_part(&dealt, part, &bucket_at))
            .collect();
        let first = answers.iter().filter_map(|answers| answers.failure.as_ref());
        match first.min_by_key(|failure| failure.index) {
            None => {
                collect(&dealt, &answers, verdicts);
                Ok(())
            }
            Some(Failure { index, error }) => {
                self.take_back(&dealt, &answers, verdicts, *index);
                Err(BatchError { completed: *index, ..error.clone() })
            }
        }
    }

    /// Hashes the keys and deals them out by shard.
    fn deal<'a, K: AsRef<[u8]> + Sync>(&self, keys: &'a [K], parts: usize) -> Dealt<'a> {
        let chunk_len = keys.len().div_ceil(rayon::current_num_threads());
        let chunks = keys.par_chunks(chunk_len).enumerate();
        let deal = |(chunk, keys): (usize, &'a [K])| {
            let likely_len = keys.len() / parts * 5 / 4;
            let mut dealt: Vec<_> = (0..parts).map(|_| Vec::with_capacity(likely_len)).collect();
            for (index, key) in (chunk * chunk_len..).zip(keys) {
                let key = key.as_ref();
                let hash = self.hasher.hash(key);
                dealt[self.shards.part(hash, parts)].push(Routed { index, hash, key });
            }
            dealt
        };
        Dealt { chunk_len, chunks: chunks.map(deal).collect() }
    }

    fn check_part<'a>(
        &'a self,
        dealt: &'a Dealt<'a>,
        part: usize,
        bucket_at: impl Fn(usize) -> Option<Bucket>,
    ) -> Answers {
        let mut verdicts = vec![Verdict::Late; dealt.part_len(part)];
        let mut ahead = dealt.part(part);
        let approach = |coming: &mut [Coming<'a>]| {
            for (coming, routed) in zip(&mut *coming, &mut ahead) {
                *coming = self.shards.approach_apart(routed.hash, routed.key);
            }
            self.shards.prefetch_blocks(coming);
        };
        let mut buckets = dealt.part(part).map(|routed| bucket_at(routed.index));
        let checked =
            self.check_ahead(approach, &mut verdicts, |_, coming, verdicts, recognised| {
                self.check_step(coming, verdicts, recognised, |_| Ok(buckets.next().flatten()))
            });
        let failure = checked.map_err(stopped).err().and_then(|error| {
            verdicts.truncate(error.completed);
            let failed = dealt.part(part).nth(error.completed)?;
            Some(Failure { index: failed.index, error })
        });
        Answers { verdicts, failure }
    }

    /// Hands out the verdicts before `completed`, and forgets the keys that
    /// were recorded after it: one that stayed would be suppressed when it is
    /// tried again.
    #[cold]
    fn take_back(
        &self,
        dealt: &Dealt<'_>,
        answers: &[Answers],
        verdicts: &mut [Verdict],
        completed: usize,
    ) {
        for (part, answers) in answers.iter().enumerate() {
            for (routed, verdict) in zip(dealt.part(part), &answers.verdicts) {
                if routed.index < completed {
                    verdicts[routed.index] = *verdict;
                } else if verdict.is_unique() {
                    self.shards.forget(routed.hash, routed.key);
                }
            }
        }
    }
}

/// Puts the verdicts of all parts into input order.
fn collect(dealt: &Dealt<'_>, answers: &[Answers], verdicts: &mut [Verdict]) {
    let chunks = verdicts.par_chunks_mut(dealt.chunk_len).zip(&dealt.chunks).enumerate();
    chunks.for_each(|(chunk, (verdicts, parts))| {
        let first = chunk * dealt.chunk_len;
        for (part, routed) in parts.iter().enumerate() {
            let answers = &answers[part].verdicts[dealt.len_before(chunk, part)..];
            for (routed, verdict) in zip(routed, answers) {
                verdicts[routed.index - first] = *verdict;
            }
        }
    });
}
