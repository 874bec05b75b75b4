//! Checks where a filter is all that is kept of keys.

use super::state::{CACHE_LINE, Moment, State};
use super::{Coming, Refusal, Rules, Shards};
use crate::filter::{Layers, Probe};
use crate::hash::KeyHash;
use crate::map::prefetch;
use crate::memory::OnFull;
use crate::time::Bucket;
use crate::verdict::Verdict;

impl Shards {
    /// Asks the processor to fetch all but the block that a check in filter mode
    /// needs.
    #[inline]
    pub(crate) fn prefetch_filtered(&self, layers: &Layers, coming: &Coming<'_>) {
        let shard = coming.shard as usize;
        layers.prefetch_filter(shard);
        self.prefetch_shard(shard);
        prefetch((&raw const self.shards[shard]).wrapping_byte_add(2 * CACHE_LINE));
    }

    /// Ends the check of a key in filter mode, that belongs where `probe` says.
    #[inline(never)]
    pub(crate) fn check_filtered(
        &self,
        coming: &Coming<'_>,
        probe: &Probe,
        at: Option<Bucket>,
    ) -> Result<Verdict, Refusal> {
        self.locked(coming.shard as usize).check_filtered(&self.rules, probe, at)
    }
}

impl State {
    /// A check in filter mode.
    #[inline]
    fn check_filtered(
        &mut self,
        rules: &Rules,
        probe: &Probe,
        at: Option<Bucket>,
    ) -> Result<Verdict, Refusal> {
        let moment = Moment::new(rules, at);
        if moment.is_late() {
            self.late += 1;
            return Ok(Verdict::Late);
        }
        self.roll(rules, moment);
        let Some(recorded) = self.find_filtered(rules, probe, moment.at) else {
            if let Err(refusal) = self.record_filtered(rules, probe, moment) {
                self.rejected += u64::from(refusal == Refusal::Full);
                return Err(refusal);
            }
            self.uniques += 1;
            return Ok(Verdict::Unique);
        };
        if rules.is_sliding && recorded < moment.at {
            self.refresh(rules, probe, recorded, moment);
        }
        self.duplicates += 1;
        Ok(Verdict::Duplicate)
    }

    pub(super) fn contains_filtered(&mut self, rules: &Rules, hash: KeyHash, at: Bucket) -> bool {
        let probe = self.filter().probe(hash);
        self.find_filtered(rules, &probe, at).is_some()
    }

    /// As `contains_filtered`, with the bucket.
    pub(super) fn recall_filtered(
        &mut self,
        rules: &Rules,
        hash: KeyHash,
        at: Bucket,
    ) -> Option<Bucket> {
        let probe = self.filter().probe(hash);
        self.find_filtered(rules, &probe, at)
    }

    /// Keeps a key in the bucket of `moment`, beyond the filter's rate if there
    /// is no more memory: a confirmer that is asked too often is no harm.
    pub(super) fn remember_filtered(
        &mut self,
        hash: KeyHash,
        moment: Moment,
    ) -> Result<(), Refusal> {
        if moment.at < self.low {
            return Ok(());
        }
        let probe = self.filter().probe(hash);
        let has_room = self.filter().insert(&probe, moment.at).is_ok()
            || self.filter().insert_beyond_room(&probe, moment.at);
        self.counts.add(moment.at);
        if has_room { Ok(()) } else { Err(Refusal::OutOfMemory) }
    }

    /// A bucket that makes a check at `at` a duplicate: the latest, where that
    /// matters.
    #[inline]
    fn find_filtered(&mut self, rules: &Rules, probe: &Probe, at: Bucket) -> Option<Bucket> {
        let from = rules.window_start(at).max(self.low);
        let enough = if rules.is_sliding { at } else { from };
        self.filter().find(probe, from, enough)
    }

    #[expect(clippy::inline_always, reason = "or a check pays for calls and spilled registers")]
    #[inline(always)]
    fn record_filtered(
        &mut self,
        rules: &Rules,
        probe: &Probe,
        moment: Moment,
    ) -> Result<(), Refusal> {
        if moment.at >= self.low && self.filter().insert(probe, moment.at).is_ok() {
            self.counts.add(moment.at);
            return Ok(());
        }
        self.record_for_want_of_room(rules, probe, moment)
    }

    /// Goes on to record where there was no room, or no bucket any more.
    #[cold]
    fn record_for_want_of_room(
        &mut self,
        rules: &Rules,
        probe: &Probe,
        moment: Moment,
    ) -> Result<(), Refusal> {
        while moment.at >= self.low {
            self.give_up_filtered(rules, moment)?;
            if moment.at >= self.low && self.filter().insert(probe, moment.at).is_ok() {
                self.counts.add(moment.at);
                return Ok(());
            }
        }
        // The record's own bucket was given up, before or just now.
        self.evicted += 1;
        Ok(())
    }

    /// Records a known key in a later bucket. At the memory limit that may take
    /// the filter beyond its rate: a known key must not be forgotten early.
    #[inline(never)]
    fn refresh(&mut self, rules: &Rules, probe: &Probe, recorded: Bucket, moment: Moment) {
        if self.record_filtered(rules, probe, moment).is_err() {
            self.filter().insert_beyond_room(probe, moment.at);
            self.counts.add(moment.at);
        }
        if recorded >= self.low {
            self.counts.take(recorded);
        }
    }

    /// The filter has no room: makes the most of it, then gives up old keys, if
    /// the policy says so.
    #[cold]
    fn give_up_filtered(&mut self, rules: &Rules, moment: Moment) -> Result<(), Refusal> {
        if rules.on_full() == Some(OnFull::EvictOldest) && self.filter().stretch(moment.at) {
            return Ok(());
        }
        self.give_up(rules, moment, Self::forget_bucket)
    }

    fn forget_bucket(&mut self, bucket: Bucket) {
        self.filter().forget_bucket(bucket);
        self.evicted += u64::from(self.counts.drop_bucket(bucket));
    }
}
