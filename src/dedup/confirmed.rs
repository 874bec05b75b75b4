//! Checks with a confirmer behind them.
//!
//! Blocking and not, they are the same but for how questions are carried to the
//! store, and how one waits for others who ask: `carry` and `carry_async`.

use super::batch::{KEYS_PER_READING, Stop, same_length, stopped};
use super::{BatchError, Behind, CheckError, Deduper, filter_stats, total};
use crate::confirm::{Confirmer, Guard, Health, Outage, Sighting, StoreError};
use crate::filter::Layers;
use crate::shard::{Coming, Present, Shards, all, ones};
use crate::stats::{ConfirmerStats, Stats};
use crate::tier::{Check, Next, Replies, Round, Unheard};
use crate::time::{Bucket, Timestamp};
use crate::verdict::Verdict;
use event_listener::Listener as _;
use std::time::Duration;

/// The store is asked about this many keys at once, at most: enough to share
/// the price of a call or a commit, few enough that their verdicts are soon there.
const KEYS_PER_QUESTION: usize = 1_024;

impl<C: Confirmer, P: Outage<Instead: Confirmer>> Deduper<C, P> {
    /// Checks a key at the present time, and records it if it was not known.
    ///
    /// Costs what it costs without a confirmer where memory can judge the key,
    /// and a call of the confirmer elsewhere. While another check of the key asks
    /// it, this one waits.
    ///
    /// # Errors
    ///
    /// [`CheckError::TimeRequired`] in event time; [`CheckError::Unconfirmed`] and
    /// [`CheckError::Uncertain`] if the confirmer fails and the outage policy does
    /// not help.
    pub fn check(&self, key: &[u8]) -> Result<Verdict, CheckError> {
        self.check_one(key, None)
    }

    /// Checks a key at the record's own time.
    ///
    /// # Errors
    ///
    /// [`CheckError::TimeNotExpected`] in processing time;
    /// [`CheckError::TooFarAhead`], which moves nothing; and those of
    /// [`check`](Self::check) if the confirmer fails.
    pub fn check_at(&self, key: &[u8], at: Timestamp) -> Result<Verdict, CheckError> {
        self.check_one(key, Some(at))
    }

    fn check_one(&self, key: &[u8], at: Option<Timestamp>) -> Result<Verdict, CheckError> {
        let (mut verdict, mut round) = ([Verdict::Duplicate], self.round());
        if self.begin_one(&mut round, key, at, &mut verdict)? {
            self.carry(&mut round, &mut verdict).map_err(|(_, error)| error)?;
            round.finish();
        }
        Ok(verdict[0])
    }

    /// Checks `keys` in order, as if one by one, and fills in `verdicts`. Those
    /// that memory cannot judge are asked about together.
    ///
    /// # Errors
    ///
    /// A [`BatchError`] that says how many keys were completed; nothing after
    /// them is recorded, unless it is [`CheckError::Uncertain`].
    pub fn check_batch<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        same_length(keys.len(), keys.len(), verdicts.len())?;
        self.check_all(keys, None, verdicts)
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
        self.check_all(keys, Some(times), verdicts)
    }

    fn check_all<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        times: Option<&[Timestamp]>,
        verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        let mut round = self.round();
        for (number, chunk) in keys.chunks(KEYS_PER_QUESTION).enumerate() {
            let first = number * KEYS_PER_QUESTION;
            let begun = self.begin(&mut round, first, chunk, times, verdicts);
            let carried = self.carry(&mut round, verdicts);
            end_of_chunk(&mut round, begun, carried)?;
        }
        round.finish();
        Ok(())
    }

    /// Has the store answer all that a round has to ask.
    fn carry(&self, round: &mut Round<'_>, verdicts: &mut [Verdict]) -> Result<(), Stop> {
        loop {
            match round.next(verdicts) {
                Next::Done => return Ok(()),
                Next::Wait(listener) => listener.wait(),
                Next::Ask => {
                    let replies = self.ask(round);
                    round.settle(replies, verdicts).map_err(|(index, error)| (index, error.into()))?;
                }
            }
        }
    }

    fn ask(&self, round: &Round<'_>) -> Replies {
        let Behind { guard, tiers, ownership } = self.behind();
        let (questions, recordings) = (round.questions(), round.recordings());
        let judged = (!questions.is_empty()).then(|| guard.confirm(&questions, tiers.rule()));
        let owned = ownership.owned(guard.primary()).filter(|_| !recordings.is_empty());
        let recorded = owned.map(|owned| guard.record(owned, &recordings, tiers.rule()));
        Replies { judged, recorded }
    }

    /// Forgets a key, here and in the store, so that its next check is `Unique`:
    /// for a message whose processing failed.
    ///
    /// # Errors
    ///
    /// [`CheckError::Uncertain`] or [`CheckError::Unconfirmed`] if the store
    /// fails: call again, or the retry may be called a duplicate.
    pub fn forget(&self, key: &[u8]) -> Result<(), CheckError> {
        let behind = self.behind();
        self.follow_clock();
        let hash = self.hasher.hash(key);
        let hold = loop {
            match behind.tiers.hold(hash) {
                Ok(hold) => break hold,
                Err(Some(listener)) => listener.wait(),
                Err(None) => {}
            }
        };
        behind.guard.forget(&[key])?;
        self.shards.forget(hash, key);
        drop(hold);
        Ok(())
    }

    /// Does maintenance that checks have not come to, in memory and in the
    /// store: see [`Deduper::maintain`]. The store's share has no budget; it is
    /// told which keys have expired.
    ///
    /// # Errors
    ///
    /// [`CheckError::Unconfirmed`] or [`CheckError::Uncertain`] if the store
    /// fails; what it then keeps is called for again.
    pub fn maintain(&self, budget: Duration) -> Result<bool, CheckError> {
        let is_done = self.maintain_tiers(budget);
        self.behind().guard.expire(self.expired())?;
        Ok(is_done)
    }
}

impl<C, P: Outage> Deduper<C, P> {
    fn behind(&self) -> &Behind<C, P> {
        self.behind.as_ref().expect("a confirmer was given")
    }

    fn round(&self) -> Round<'_> {
        let Behind { guard, tiers, .. } = self.behind();
        Round::new(tiers, &self.shards, guard)
    }

    /// Fills memory with what an owned store holds. Keys of times ahead move the
    /// watermark: a clock that has gone back must not forget them.
    pub(super) fn recover(&self) -> Result<(), StoreError> {
        let Some(behind) = &self.behind else { return Ok(()) };
        let Some(owned) = behind.ownership.owned(behind.guard.primary()) else { return Ok(()) };
        self.follow_clock();
        let (watermark, grid) = (&self.rules().watermark, self.rules().grid);
        owned.recover(&mut |key, bucket| {
            if !grid.is_unbounded() {
                watermark.advance(grid.start(bucket));
            }
            behind.tiers.remember(&self.shards, self.hasher.hash(key), key, bucket);
        })
    }

    /// Begins the check of one key. False if memory has given its verdict.
    fn begin_one<'a>(
        &'a self,
        round: &mut Round<'a>,
        key: &'a [u8],
        at: Option<Timestamp>,
        verdict: &mut [Verdict; 1],
    ) -> Result<bool, CheckError> {
        let coming = self.shards.approach(self.hasher.hash(key), key);
        let at = self.moment(at)?;
        if self.shards.recognises(&coming, &Present::new(self.rules(), Some(at))) {
            self.shards.count_recognised(1);
            return Ok(false);
        }
        let begun = self.begin_check(round, 0, &coming, at);
        verdict[0] = begun.unwrap_or(Verdict::Duplicate);
        Ok(begun.is_none())
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
        if at < self.rules().watermark.bucket() && self.rules().is_event_time() {
            self.behind().tiers.counts.late.add(1);
            return Some(Verdict::Late);
        }
        round.begin(Check { index, hash: coming.hash(), key: coming.key(), at })
    }

    /// How the confirmer is doing, for readiness probes.
    pub fn health(&self) -> Health {
        self.behind.as_ref().map_or(Health::Serving, |behind| behind.guard.health())
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

    /// All buckets before this one have expired.
    fn expired(&self) -> Bucket {
        let rules = self.rules();
        rules.watermark.bucket().minus(rules.grid.buckets)
    }

    /// The counters with the confirmer's part.
    pub(super) fn with_confirmer(&self, stats: Stats, behind: &Behind<C, P>) -> Stats {
        let tiers = &behind.tiers;
        let counts = &tiers.counts;
        let filter = tiers.filter().map(|filter| (filter, total(filter)));
        let filter_bytes = tiers.filter().and_then(Shards::filter_layers).map_or(0, Layers::bytes);
        Stats {
            uniques: counts.uniques.sum(),
            duplicates: counts.duplicates.sum() + self.shards.recognised(),
            late: counts.late.sum(),
            evicted: 0,
            live_keys: filter.map_or(stats.live_keys, |(_, total)| total.live_keys),
            memory_bytes: stats.memory_bytes + filter_bytes,
            filter: filter.and_then(|(filter, total)| filter_stats(filter, total)),
            effective_window: self.window.span(),
            confirmer: Some(ConfirmerStats {
                asked: counts.asked.sum(),
                asked_in_vain: counts.asked_in_vain.sum(),
                recorded: counts.recorded.sum(),
                unconfirmed: counts.unconfirmed.sum(),
                spilled: stats.evicted,
                filter_rate: filter.map(|(filter, total)| total.filter_rate / filter.len() as f64),
                memory_is_whole: tiers.is_whole(),
                outages: behind.guard.stats(),
            }),
            ..stats
        }
    }
}

impl<C, P: Outage> Unheard for Guard<C, P> {
    fn unheard(&self, sighting: Sighting<'_>) {
        Self::unheard(self, std::iter::once(sighting));
    }
}

/// Notes how far a batch has come after some of its keys.
fn end_of_chunk(
    round: &mut Round<'_>,
    begun: Result<(), Stop>,
    carried: Result<(), Stop>,
) -> Result<(), BatchError> {
    // What was begun comes before what was not.
    carried.and(begun).map_err(|stop| {
        round.keep_before(stop.0);
        stopped(stop)
    })
}
