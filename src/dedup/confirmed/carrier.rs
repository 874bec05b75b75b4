//! How calls reach the store, and how its answers come back.

use super::super::batch::{Stop, same_length, stopped};
use super::super::tier::{Next, Queue, REFUSALS_PER_CHECK, Replies, Round};
use super::super::{BatchError, Behind, CheckError, Deduper};
use crate::confirm::{AsyncConfirmer, Course, Outage, OwnedStore, Sighting, StoreError};
use crate::time::Timestamp;
use crate::verdict::Verdict;
use event_listener::EventListener;
use std::time::{Duration, Instant};

/// The store is asked about this many keys at once, at most: enough to share
/// the price of a call or a commit, few enough that their verdicts are soon there.
const KEYS_PER_QUESTION: usize = 1_024;

/// What blocking and asynchronous callers do each in their own way.
pub(super) trait Face {
    /// The confirmer.
    type Primary: AsyncConfirmer;
    /// Who answers in its place.
    type Instead: AsyncConfirmer;

    /// Do checks write what is queued?
    const CHECKS_WRITE: bool;

    /// The store, behind its guard.
    fn store(&self) -> Course<'_, Self::Primary, Self::Instead>;

    /// Waits until the outcome of somebody else's question is known.
    async fn wait(&self, listener: EventListener);
}

/// Carries the calls of one face of a deduper. With a face that blocks, no future
/// ever waits: they are done [`at_once`](crate::confirm::at_once).
pub(super) struct Carrier<'a, C, P, F> {
    pub(super) dedup: &'a Deduper<C, P>,
    pub(super) face: F,
}

impl<C: Sync, P: Outage, F: Face> Carrier<'_, C, P, F> {
    /// Brings the check of one key to its end.
    pub(super) async fn judge(&self, mut round: Round<'_>) -> Result<Verdict, CheckError> {
        let mut verdict = [Verdict::Duplicate];
        self.carry(&mut round, &mut verdict).await.map_err(|(_, error)| error)?;
        round.finish();
        Ok(verdict[0])
    }

    pub(super) async fn check_all<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        times: Option<&[Timestamp]>,
        verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        same_length(keys.len(), times.map_or(keys.len(), <[_]>::len), verdicts.len())?;
        let mut round = self.dedup.round();
        for (number, chunk) in keys.chunks(KEYS_PER_QUESTION).enumerate() {
            let first = number * KEYS_PER_QUESTION;
            let begun = self.dedup.begin(&mut round, first, chunk, times, verdicts);
            let carried = self.carry(&mut round, verdicts).await;
            self.write_if_due();
            // What was begun comes before what was not.
            if let Err((completed, error)) = carried.and(begun) {
                let is_in_doubt = round.keep_before(completed);
                let error = if is_in_doubt { error.in_doubt() } else { error };
                return Err(stopped((completed, error)));
            }
        }
        round.finish();
        Ok(())
    }

    /// Has the store answer all that a round has to ask.
    async fn carry(&self, round: &mut Round<'_>, verdicts: &mut [Verdict]) -> Result<(), Stop> {
        loop {
            match round.next(verdicts) {
                Next::Done => return Ok(()),
                Next::Wait(listener) => self.face.wait(listener).await,
                Next::Ask => {
                    let replies = self.ask(round).await;
                    round
                        .settle(replies, verdicts)
                        .map_err(|(index, error)| (index, error.into()))?;
                }
            }
        }
    }

    async fn ask(&self, round: &Round<'_>) -> Replies {
        let Behind { guard, tiers, ownership } = self.dedup.behind();
        let (store, rule) = (self.face.store(), tiers.rule());
        let (questions, recordings) = (round.questions(), round.recordings());
        let judged = match questions.as_slice() {
            [] => None,
            questions => Some(store.confirm(questions, rule).await),
        };
        // What was recorded behind a key without a verdict would have to be taken back.
        let goes_on = !matches!(judged, Some(Err(_)));
        let recorded = match ownership.owned(guard.primary()) {
            Some(owned) if goes_on && !recordings.is_empty() => {
                Some(store.record(owned, &recordings, &round.wins(), rule).await)
            }
            _ => None,
        };
        Replies { judged, recorded }
    }

    pub(super) async fn look_for(
        &self,
        key: &[u8],
        at: Option<Timestamp>,
    ) -> Result<bool, CheckError> {
        let at = self.dedup.glance_at(at)?;
        if let Some(foreseen) = self.dedup.foresee(self.dedup.hasher.hash(key), key, at) {
            return Ok(foreseen);
        }
        let found = self.face.store().look(&[key]).await.map_err(CheckError::Unconfirmed)?;
        Ok(self.dedup.matches(&found, at))
    }

    pub(super) async fn forget(&self, key: &[u8]) -> Result<(), CheckError> {
        let Deduper { shards, hasher, .. } = self.dedup;
        self.dedup.follow_clock();
        let hash = hasher.hash(key);
        let hold = loop {
            match self.dedup.behind().tiers.hold(hash, key) {
                Ok(hold) => break hold,
                Err(Some(listener)) => self.face.wait(listener).await,
                Err(None) => {}
            }
        };
        // What is on its way must not arrive afterwards.
        self.flush()?;
        self.face.store().forget(&[key]).await?;
        shards.forget(hash, key);
        drop(hold);
        Ok(())
    }

    pub(super) async fn maintain(&self, budget: Duration) -> Result<bool, CheckError> {
        let start = Instant::now();
        let is_done = self.dedup.maintain_tiers(budget);
        let flushed = self.flush_while(|| start.elapsed() < budget);
        let (store, rule) = (self.face.store(), self.dedup.behind().tiers.rule());
        while store.write_back(rule).await? && start.elapsed() < budget {}
        if let Some(before) = self.dedup.expired() {
            store.expire(before).await?;
        }
        flushed?;
        Ok(is_done)
    }

    /// Writes all that is queued now.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.flush_while(|| true)
    }

    /// Writes what is queued now, some at least, as long as `may_go_on`.
    fn flush_while(&self, may_go_on: impl Fn() -> bool) -> Result<(), StoreError> {
        self.dedup.behind().write_queued(may_go_on, self.writer())
    }

    /// Writes some of what is queued if there is enough of it. A failure is not this
    /// check's: the keys stay queued, and when the queue is full checks wait for
    /// the store themselves.
    pub(super) fn write_if_due(&self) {
        let behind = self.dedup.behind();
        if F::CHECKS_WRITE && behind.tiers.queue().is_some_and(Queue::is_due) {
            behind.write_some(REFUSALS_PER_CHECK, self.writer());
        }
    }

    /// It waits for no one but the store: the queue is locked meanwhile.
    fn writer(&self) -> impl Fn(&dyn OwnedStore, &[Sighting<'_>]) -> Result<(), StoreError> {
        let store = self.face.store();
        move |owned, sightings| store.write(owned, sightings)
    }
}
