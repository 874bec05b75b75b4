//! The shards of filter mode, in which bits are all that is kept of keys.

use super::moment::Moment;
use super::{CACHE_LINE, Coming, Refusal, Rules, Tally};
use crate::filter::{Filter, Layers, Outcome, Probe};
use crate::hash::KeyHash;
use crate::map::prefetch;
use crate::memory::{Budget, OnFull};
use crate::sync::{Mutex, MutexGuard};
use crate::time::Bucket;
use crate::verdict::Verdict;
use crossbeam_utils::CachePadded;
use std::mem::offset_of;
use std::sync::Arc;

/// All shards of one deduper in filter mode.
#[derive(Debug)]
pub(crate) struct FilteredShards {
    pub(super) layers: Arc<Layers>,
    shards: Box<[FilteredShard]>,
}

/// Begins a pair of cache lines, which are all that a check needs of it in a
/// steady stream.
type FilteredShard = CachePadded<Mutex<Filtered>>;

/// What the lock of a shard protects in filter mode, in the order of use.
#[derive(Debug)]
#[repr(C)]
struct Filtered {
    uniques: u64,
    duplicates: u64,
    filter: Filter,
    late: u64,
    rejected: u64,
    evicted: u64,
}

const _: () =
    assert!(size_of::<u64>() + offset_of!(Filtered, filter) + Filter::HOT_BYTES <= 2 * CACHE_LINE);

impl FilteredShards {
    /// `count` empty shards, if these are rules of filter mode.
    pub(super) fn new(count: u32, rules: &Rules, budget: Arc<Budget>) -> Option<Self> {
        let (layers, filters) = rules.filter?.build(count, rules.watermark.bucket(), budget);
        let shard = |filter| FilteredShard::new(Mutex::new(Filtered::new(filter)));
        Some(Self { layers, shards: filters.into_iter().map(shard).collect() })
    }

    /// The bytes of one empty shard.
    pub(super) fn bytes_per_shard(generations: u32) -> u64 {
        size_of::<FilteredShard>() as u64 + Filter::bytes_elsewhere(generations)
    }

    #[inline]
    fn locked(&self, shard: usize) -> MutexGuard<'_, Filtered> {
        self.shards[shard].lock()
    }

    /// Asks the processor to fetch the block of a key.
    #[inline]
    pub(super) fn prefetch_block(&self, coming: &Coming<'_>) {
        self.layers.prefetch(coming.shard as usize, coming.hash);
    }

    /// Goes on with the check of a key: finds out where in its block it belongs,
    /// and asks the processor to fetch what is needed of its shard.
    #[inline]
    pub(crate) fn aim(&self, probe: &mut Probe, coming: &Coming<'_>) {
        let shard = &raw const self.shards[coming.shard as usize];
        prefetch(shard);
        prefetch(shard.wrapping_byte_add(CACHE_LINE));
        self.layers.aim(probe, coming.hash);
    }

    /// Ends the check of a key that belongs where `probe` says.
    #[expect(clippy::inline_always, reason = "or a check pays for calls and spilled registers")]
    #[inline(always)]
    pub(crate) fn check(
        &self,
        rules: &Rules,
        coming: &Coming<'_>,
        probe: &Probe,
        at: Option<Bucket>,
    ) -> Result<Verdict, Refusal> {
        self.locked(coming.shard as usize).check(rules, probe, at)
    }

    /// Would a check say `Duplicate`?
    pub(super) fn contains(
        &self,
        rules: &Rules,
        shard: usize,
        hash: KeyHash,
        at: Option<Bucket>,
    ) -> bool {
        self.locked(shard).contains(rules, &self.layers.probe(hash), at)
    }

    /// The bucket in which a key is kept, if it matches a check at `at`.
    pub(super) fn recall(
        &self,
        rules: &Rules,
        shard: usize,
        hash: KeyHash,
        at: Bucket,
    ) -> Option<Bucket> {
        let mut shard = self.locked(shard);
        shard.roll(rules, Moment::new(rules, None));
        shard.find(rules, &self.layers.probe(hash), at)
    }

    /// Keeps a key in `bucket`.
    pub(super) fn remember(
        &self,
        rules: &Rules,
        shard: usize,
        hash: KeyHash,
        bucket: Bucket,
    ) -> Result<(), Refusal> {
        self.locked(shard).remember(rules, &self.layers.probe(hash), bucket)
    }

    /// Brings a shard up to date.
    pub(super) fn maintain(&self, rules: &Rules, shard: usize) {
        self.locked(shard).roll(rules, Moment::new(rules, None));
    }

    /// What the counters of one shard say, up to date with the watermark.
    pub(super) fn tally(&self, rules: &Rules, shard: usize) -> Tally {
        let mut shard = self.locked(shard);
        shard.roll(rules, Moment::new(rules, None));
        shard.tally()
    }
}

impl Filtered {
    fn new(filter: Filter) -> Self {
        Self { uniques: 0, duplicates: 0, filter, late: 0, rejected: 0, evicted: 0 }
    }

    #[expect(clippy::inline_always, reason = "or a check pays for calls and spilled registers")]
    #[inline(always)]
    fn check(
        &mut self,
        rules: &Rules,
        probe: &Probe,
        at: Option<Bucket>,
    ) -> Result<Verdict, Refusal> {
        let moment = Moment::new(rules, at);
        match self.check_plainly(rules, probe, moment) {
            Some(verdict) => Ok(verdict),
            None => self.check_in_any_case(rules, probe, moment),
        }
    }

    /// The check of a key in the newest bucket, with nothing to expire and no
    /// room to be made. `None` if there is more to it; then nothing was done.
    #[expect(clippy::inline_always, reason = "or a check pays for calls and spilled registers")]
    #[inline(always)]
    fn check_plainly(&mut self, rules: &Rules, probe: &Probe, moment: Moment) -> Option<Verdict> {
        let (at, low) = (moment.at, self.filter.low());
        let is_plain = at == self.filter.newest()
            && at >= low
            && !moment.is_late()
            && rules.low(moment.watermark) <= low;
        if !is_plain {
            return None;
        }
        match self.filter.check_in_newest(probe, rules.window_start(at).max(low))? {
            Outcome::Recorded => {
                self.uniques += 1;
                Some(Verdict::Unique)
            }
            Outcome::Found(recorded) if recorded == at || !rules.is_sliding => {
                self.duplicates += 1;
                Some(Verdict::Duplicate)
            }
            Outcome::Found(_) => None,
        }
    }

    #[inline(never)]
    fn check_in_any_case(
        &mut self,
        rules: &Rules,
        probe: &Probe,
        moment: Moment,
    ) -> Result<Verdict, Refusal> {
        if moment.is_late() {
            self.late += 1;
            return Ok(Verdict::Late);
        }
        self.roll(rules, moment);
        let Some(recorded) = self.find(rules, probe, moment.at) else {
            if let Err(refusal) = self.record(rules, probe, moment) {
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

    fn contains(&mut self, rules: &Rules, probe: &Probe, at: Option<Bucket>) -> bool {
        let moment = Moment::new(rules, at);
        self.roll(rules, moment.moved_to(moment.watermark));
        !moment.is_late() && self.find(rules, probe, moment.at).is_some()
    }

    /// Keeps a key in `bucket`, beyond the filter's rate if there is no more
    /// memory: a confirmer that is asked too often is no harm.
    fn remember(&mut self, rules: &Rules, probe: &Probe, bucket: Bucket) -> Result<(), Refusal> {
        self.roll(rules, Moment::new(rules, None).moved_to(bucket));
        let is_kept = bucket < self.filter.low()
            || self.filter.insert(probe, bucket).is_ok()
            || self.filter.overfill(probe, bucket);
        if is_kept { Ok(()) } else { Err(Refusal::OutOfMemory) }
    }

    /// A bucket that makes a check at `at` a duplicate: the latest, where that
    /// matters.
    fn find(&mut self, rules: &Rules, probe: &Probe, at: Bucket) -> Option<Bucket> {
        let from = rules.window_start(at).max(self.filter.low());
        let enough = if rules.is_sliding { at } else { from };
        self.filter.find(probe, from, enough)
    }

    fn record(&mut self, rules: &Rules, probe: &Probe, moment: Moment) -> Result<(), Refusal> {
        if self.has_recorded(probe, moment.at) {
            return Ok(());
        }
        self.record_for_want_of_room(rules, probe, moment)
    }

    /// Records a key where its bucket has not been given up, and has room. True
    /// iff it did.
    fn has_recorded(&mut self, probe: &Probe, at: Bucket) -> bool {
        at >= self.filter.low() && self.filter.insert(probe, at).is_ok()
    }

    /// Goes on to record where there was no room, or no bucket any more.
    #[cold]
    fn record_for_want_of_room(
        &mut self,
        rules: &Rules,
        probe: &Probe,
        moment: Moment,
    ) -> Result<(), Refusal> {
        while moment.at >= self.filter.low() {
            self.give_up(rules, moment)?;
            if self.has_recorded(probe, moment.at) {
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
        if self.record(rules, probe, moment).is_err() {
            self.filter.insert_beyond_room(probe, moment.at);
        }
        if recorded >= self.filter.low() {
            self.filter.move_up(recorded);
        }
    }

    /// There is no room: makes the most of what there is, then gives up old keys,
    /// if the policy says so.
    #[cold]
    fn give_up(&mut self, rules: &Rules, moment: Moment) -> Result<(), Refusal> {
        let (low, is_evicting) = (self.filter.low(), rules.on_full() == Some(OnFull::EvictOldest));
        if is_evicting && self.filter.stretch(moment.at) {
            return Ok(());
        }
        // Another shard may have raised the floor meanwhile.
        self.roll(rules, moment);
        if self.filter.low() > low {
            return Ok(());
        }
        let oldest = self.filter.buckets().find(|bucket| self.filter.keys(*bucket) > 0);
        if let Some(newest) = rules.make_way(oldest, self.filter.newest())? {
            self.evicted += u64::from(self.filter.keys(newest));
            self.filter.forget_bucket(newest);
        }
        self.roll(rules, moment);
        Ok(())
    }

    /// Brings the shard up to a moment and to the bounds that all shards
    /// share.
    #[inline]
    fn roll(&mut self, rules: &Rules, moment: Moment) {
        let low = rules.low(moment.watermark);
        if low > self.filter.low() || moment.at > self.filter.newest() {
            self.roll_to(
                low.max(self.filter.low()),
                moment.at,
                rules.window_start(moment.watermark),
            );
        }
    }

    /// Counts the keys of buckets before `low` out: expired if before `expired`,
    /// given up otherwise.
    #[cold]
    fn roll_to(&mut self, low: Bucket, newest: Bucket, expired: Bucket) {
        let given_up = self.filter.buckets().filter(|bucket| (expired..low).contains(bucket));
        self.evicted += given_up.map(|bucket| u64::from(self.filter.keys(bucket))).sum::<u64>();
        self.filter.roll_to(newest.max(self.filter.newest()), low);
    }

    fn tally(&self) -> Tally {
        let live_keys = self.filter.buckets().map(|bucket| u64::from(self.filter.keys(bucket)));
        Tally {
            uniques: self.uniques,
            duplicates: self.duplicates,
            late: self.late,
            rejected: self.rejected,
            evicted: self.evicted,
            live_keys: live_keys.sum(),
            filter_layers: self.filter.layers(),
            filter_rate: self.filter.rate(),
        }
    }
}
