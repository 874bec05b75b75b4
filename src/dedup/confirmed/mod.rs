//! Checks with a confirmer behind them.
//!
//! What is asked, and what becomes of the answers, is here and in `tier`. The
//! `carrier` brings questions to the store and answers back: once, as a future. The
//! faces, `blocking` and `awaiting`, differ in how they call the store, and how they
//! wait for others who ask.

mod awaiting;
mod blocking;
mod carrier;
#[cfg(test)]
mod tests;

use super::batch::{KEYS_PER_READING, Stop};
use super::builder::CLOCK_SKEW;
use super::tier::{Check, Queue, Round, Unheard};
use super::{Behind, CheckError, Deduper, Domain, filter_stats, total};
use crate::confirm::{Guard, Health, Outage, Record, Rule, Sighting, StoreError, Token};
use crate::filter::Layers;
use crate::hash::KeyHash;
use crate::shard::{Coming, Present, Shards, all, ones};
use crate::stats::{ConfirmerStats, Stats};
use crate::time::{Bucket, Timestamp};
use crate::verdict::Verdict;
use std::time::Duration;

/// How the check of one key goes on.
enum Begun<'a> {
    /// Memory has given its verdict.
    Judged(Verdict),
    /// With questions to the store.
    Asking(Round<'a>),
}

impl<C: Sync, P: Outage> Deduper<C, P> {
    fn behind(&self) -> &Behind<C, P> {
        self.behind.as_ref().expect("a confirmer was given")
    }

    fn round(&self) -> Round<'_> {
        let Behind { guard, tiers, .. } = self.behind();
        Round::new(tiers, &self.shards, guard)
    }

    /// How a check that now asks would come out, as far as memory can tell.
    fn foresee(&self, hash: KeyHash, key: &[u8], at: Bucket) -> Option<bool> {
        if self.is_late(at) {
            return Some(false);
        }
        self.behind().tiers.foresee(&self.shards, hash, key, at)
    }

    /// The bucket at which to look for a key, of which nobody takes note.
    fn glance_at(&self, at: Option<Timestamp>) -> Result<Bucket, CheckError> {
        let rules = self.rules();
        match at {
            Some(at) => {
                self.admit(at)?;
                Ok(rules.grid.bucket(at))
            }
            None if rules.is_event_time() => Err(CheckError::TimeRequired),
            None => Ok(rules.grid.bucket(self.clock.now()).max(rules.watermark.bucket())),
        }
    }

    /// Does a key that the store holds as `found` match in bucket `at`?
    fn matches(&self, found: &[Option<Record>], at: Bucket) -> bool {
        let rule = self.behind().tiers.rule();
        found.iter().flatten().any(|record| rule.matches(record.bucket, at))
    }

    /// Fills memory with what an owned store holds. Keys of times ahead move the
    /// watermark: a clock that has gone back must not forget them.
    pub(super) fn recover(&self) -> Result<(), StoreError> {
        let Some(behind) = &self.behind else { return Ok(()) };
        let Some(owned) = behind.ownership.owned(behind.guard.primary()) else { return Ok(()) };
        owned.bind(self.window.bucket_width())?;
        self.follow_clock();
        let (watermark, grid) = (&self.rules().watermark, self.rules().grid);
        owned.recover(&mut |key, bucket| {
            // A bucket that no time lies in is none that was recorded.
            let bucket = if grid.is_unbounded() {
                Bucket::new(0)
            } else {
                watermark.advance(grid.start(bucket));
                grid.bucket(grid.start(bucket))
            };
            behind.tiers.remember(&self.shards, self.hasher.hash(key), key, bucket);
        })
    }

    /// Begins the check of one key.
    fn begin_one<'a>(
        &'a self,
        key: &'a [u8],
        at: Option<Timestamp>,
    ) -> Result<Begun<'a>, CheckError> {
        let coming = self.shards.approach(self.hasher.hash(key), key);
        let at = self.moment(at)?;
        if self.shards.recognises(&coming, &Present::new(self.rules(), Some(at))) {
            self.shards.count_recognised(1);
            return Ok(Begun::Judged(Verdict::Duplicate));
        }
        let mut round = self.round();
        let Some(verdict) = self.begin_check(&mut round, 0, &coming, at) else {
            return Ok(Begun::Asking(round));
        };
        round.finish();
        Ok(Begun::Judged(verdict))
    }

    /// The bucket in which a check takes place.
    fn moment(&self, at: Option<Timestamp>) -> Result<Bucket, CheckError> {
        match at {
            Some(at) => self.see(at),
            None => self.read_clock().map(|()| self.rules().watermark.bucket()),
        }
    }

    /// Begins the checks of some keys of a batch, of which `first` is the first.
    ///
    /// # Errors
    ///
    /// The keys before the index that it gives have begun.
    fn begin<'a, K: AsRef<[u8]>>(
        &'a self,
        round: &mut Round<'a>,
        first: usize,
        keys: &'a [K],
        times: Option<&[Timestamp]>,
        verdicts: &mut [Verdict],
    ) -> Result<(), Stop> {
        let verdicts = &mut verdicts[first..][..keys.len()];
        let mut now = Ok(Bucket::new(0));
        let step = |step, coming: &[Coming<'a>], verdicts: &mut [Verdict], recognised: &mut u64| {
            let Some(times) = times else {
                if step % KEYS_PER_READING == 0 {
                    now = self.moment(None);
                }
                let now = now.clone().map_err(|error| (0, error))?;
                *recognised += self.begin_step(round, first + step, coming, now, verdicts);
                return Ok(());
            };
            for (index, coming) in coming.iter().enumerate() {
                let number = first + step + index;
                let at = self.moment(Some(times[number])).map_err(|error| (index, error))?;
                if self.shards.recognises(coming, &Present::new(self.rules(), Some(at))) {
                    *recognised += 1;
                    verdicts[index] = Verdict::Duplicate;
                    continue;
                }
                let begun = self.begin_check(round, number, coming, at);
                verdicts[index] = begun.unwrap_or(Verdict::Duplicate);
            }
            Ok(())
        };
        let begun = self.check_ahead(self.approaching(keys), verdicts, step);
        begun.map_err(|(completed, error)| (first + completed, error))
    }

    /// Begins checks that all take place at `now`; how many keys were
    /// recognised as duplicates.
    fn begin_step<'a>(
        &'a self,
        round: &mut Round<'a>,
        first: usize,
        coming: &[Coming<'a>],
        now: Bucket,
        verdicts: &mut [Verdict],
    ) -> u64 {
        let known = self.shards.glimpse(coming, &Present::new(self.rules(), Some(now)));
        verdicts.fill(Verdict::Duplicate);
        for index in ones(!known & all(coming.len())) {
            let begun = self.begin_check(round, first + index, &coming[index], now);
            verdicts[index] = begun.unwrap_or(Verdict::Duplicate);
        }
        known.count_ones().into()
    }

    /// Begins a check of a key; its verdict, if there is one already.
    fn begin_check<'a>(
        &'a self,
        round: &mut Round<'a>,
        index: usize,
        coming: &Coming<'a>,
        at: Bucket,
    ) -> Option<Verdict> {
        if self.is_late(at) {
            self.behind().tiers.counts.late.add(1);
            return Some(Verdict::Late);
        }
        round.begin(Check { index, hash: coming.hash(), key: coming.key(), at })
    }

    /// How the confirmer is doing, for readiness probes.
    pub fn health(&self) -> Health {
        self.behind.as_ref().map_or(Health::Serving, |behind| behind.guard.health())
    }

    fn is_late(&self, at: Bucket) -> bool {
        self.rules().is_event_time() && at < self.rules().watermark.bucket()
    }

    /// Maintenance of memory alone.
    fn maintain_tiers(&self, budget: Duration) -> bool {
        let is_done = self.maintain_memory(budget);
        if let (true, Some(filter)) = (is_done, self.behind().tiers.filter()) {
            filter.keep_up_with(&self.shards);
            (0..filter.len()).for_each(|index| filter.maintain(index));
        }
        is_done
    }

    /// All buckets before this one have expired for everybody who uses the store;
    /// `None` if that cannot be told from here.
    fn expired(&self) -> Option<Bucket> {
        let rules = self.rules();
        let watermark = match (self.behind().ownership.is_exclusive(), self.domain) {
            (true, _) => rules.watermark.bucket(),
            (false, Domain::Processing) => {
                rules.grid.bucket(self.clock.now().saturating_sub(CLOCK_SKEW))
            }
            // Others may be behind by any length of their records' time.
            (false, Domain::Event { .. }) => return None,
        };
        Some(watermark.minus(rules.grid.buckets))
    }

    /// The counters with the confirmer's part.
    pub(super) fn with_confirmer(&self, mut stats: Stats, behind: &Behind<C, P>) -> Stats {
        let tiers = &behind.tiers;
        let counts = &tiers.counts;
        let filter = tiers.filter().map(|filter| (filter, total(filter)));
        let filter_bytes = tiers.filter().and_then(Shards::filter_layers).map_or(0, Layers::bytes);
        stats.confirmer = Some(ConfirmerStats {
            asked: counts.asked.sum(),
            asked_in_vain: counts.asked_in_vain.sum(),
            recorded: counts.recorded.sum(),
            queued: tiers.queue().map_or(0, Queue::len),
            unconfirmed: counts.unconfirmed.sum(),
            spilled: stats.evicted,
            filter_rate: filter.map(|(filter, total)| total.filter_rate / filter.len() as f64),
            memory_is_whole: tiers.is_whole(),
            outages: behind.guard.stats(),
        });
        stats.uniques = counts.uniques.sum();
        stats.duplicates = counts.duplicates.sum() + self.shards.recognised();
        stats.late = counts.late.sum();
        stats.evicted = 0;
        stats.effective_window = self.window.span();
        stats.memory_bytes += filter_bytes;
        if let Some((filter, total)) = filter {
            stats.live_keys = total.live_keys;
            stats.filter = filter_stats(filter, total);
        }
        stats
    }
}

impl<C: Sync, P: Outage> Unheard for Guard<C, P> {
    fn unheard(&self, sighting: &Sighting<'_>) {
        Self::unheard(self, sighting);
    }

    fn recall(&self, sighting: &Sighting<'_>, rule: Rule) -> Option<Token> {
        Self::recall(self, sighting, rule)
    }
}
