//! Checks where a filter is all that is kept of keys.

use super::state::{Moment, State};
use super::{Refusal, Rules};
use crate::filter::Probe;
use crate::hash::KeyHash;
use crate::memory::OnFull;
use crate::time::Bucket;
use crate::verdict::Verdict;

impl State {
    /// A check in filter mode.
    #[inline]
    pub(super) fn check_filtered(
        &mut self,
        rules: &Rules,
        hash: KeyHash,
        at: Option<Bucket>,
    ) -> Result<Verdict, Refusal> {
        let moment = Moment::new(rules, at);
        if moment.is_late() {
            self.late += 1;
            return Ok(Verdict::Late);
        }
        self.roll(rules, moment);
        let (probe, found) = self.find_filtered(rules, hash, moment.at);
        let Some(recorded) = found else {
            if let Err(refusal) = self.record_filtered(rules, &probe, moment) {
                self.rejected += u64::from(refusal == Refusal::Full);
                return Err(refusal);
            }
            self.uniques += 1;
            return Ok(Verdict::Unique);
        };
        if rules.is_sliding && recorded < moment.at {
            self.refresh(rules, &probe, recorded, moment);
        }
        self.duplicates += 1;
        Ok(Verdict::Duplicate)
    }

    pub(super) fn contains_filtered(&mut self, rules: &Rules, hash: KeyHash, at: Bucket) -> bool {
        self.find_filtered(rules, hash, at).1.is_some()
    }

    /// Where the key belongs, and a bucket that makes a check at `at` a
    /// duplicate: the latest, where that matters.
    fn find_filtered(
        &mut self,
        rules: &Rules,
        hash: KeyHash,
        at: Bucket,
    ) -> (Probe, Option<Bucket>) {
        let from = rules.window_start(at).max(self.low);
        let enough = if rules.is_sliding { at } else { from };
        let filter = self.filter();
        let probe = filter.probe(hash);
        (probe, filter.find(&probe, from, enough))
    }

    fn record_filtered(
        &mut self,
        rules: &Rules,
        probe: &Probe,
        moment: Moment,
    ) -> Result<(), Refusal> {
        while moment.at >= self.low {
            if self.filter().insert(probe, moment.at).is_ok() {
                self.counts.add(moment.at);
                return Ok(());
            }
            self.give_up_filtered(rules, moment)?;
        }
        // The record's own bucket was given up, before or just now.
        self.evicted += 1;
        Ok(())
    }

    /// Records a known key in a later bucket. At the memory limit that may take
    /// the filter beyond its rate: a known key must not be forgotten early.
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
