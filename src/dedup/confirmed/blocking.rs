//! The blocking face: it waits in the caller's thread.

use super::super::batch::{Stop, same_length};
use super::super::tier::{Next, Queue, Replies, Round};
use super::super::{BatchError, Behind, CheckError, Deduper};
use super::{KEYS_PER_QUESTION, end_of_chunk};
use crate::confirm::{Confirmer, Outage};
use crate::time::Timestamp;
use crate::verdict::Verdict;
use event_listener::EventListener;
#[cfg(not(loom))]
use event_listener::Listener as _;
use std::time::{Duration, Instant};

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
        }
        round.finish();
        self.write_if_due();
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
            self.write_if_due();
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
                Next::Wait(listener) => wait(listener),
                Next::Ask => {
                    let replies = self.ask(round);
                    round
                        .settle(replies, verdicts)
                        .map_err(|(index, error)| (index, error.into()))?;
                }
            }
        }
    }

    /// Writes some of what is queued if there is enough of it. A failure is not this
    /// check's: the keys stay queued, and when the queue is full checks wait for
    /// the store themselves.
    fn write_if_due(&self) {
        if self.behind().tiers.queue().is_some_and(Queue::is_due) {
            let _ = self.write_some();
        }
    }

    /// Writes some of what is queued. False if there is nothing.
    fn write_some(&self) -> Result<bool, CheckError> {
        let Behind { guard, tiers, ownership } = self.behind();
        let owned = ownership.owned(guard.primary());
        let Some((queue, owned)) = tiers.queue().zip(owned) else { return Ok(false) };
        let batch = queue.take();
        if batch.is_empty() {
            return Ok(false);
        }
        guard.record(owned, &batch.sightings(), tiers.rule())?;
        tiers.arrived(batch);
        Ok(true)
    }

    /// Writes all keys to the store whose verdicts did not wait for it
    /// ([`Builder::write_behind`](crate::Builder::write_behind)).
    ///
    /// # Errors
    ///
    /// [`CheckError::Uncertain`] or [`CheckError::Unconfirmed`] if the store fails;
    /// the keys stay queued.
    pub fn flush(&self) -> Result<(), CheckError> {
        while self.write_some()? {}
        Ok(())
    }

    fn ask(&self, round: &Round<'_>) -> Replies {
        let Behind { guard, tiers, ownership } = self.behind();
        let (questions, recordings) = (round.questions(), round.recordings());
        let judged = (!questions.is_empty()).then(|| guard.confirm(&questions, tiers.rule()));
        let owned = ownership.owned(guard.primary()).filter(|_| !recordings.is_empty());
        let recorded = owned.map(|owned| guard.record(owned, &recordings, tiers.rule()));
        Replies { judged, recorded }
    }

    /// True iff [`check`](Self::check) would say `Duplicate`; records nothing. What
    /// memory does not know, the store itself is asked, whatever the outage policy.
    ///
    /// # Errors
    ///
    /// [`CheckError::TimeRequired`] in event time; [`CheckError::Unconfirmed`] if
    /// the store fails.
    pub fn contains(&self, key: &[u8]) -> Result<bool, CheckError> {
        self.look_for(key, None)
    }

    /// True iff [`check_at`](Self::check_at) would say `Duplicate`; records nothing
    /// and moves no watermark.
    ///
    /// # Errors
    ///
    /// [`CheckError::TimeNotExpected`] in processing time;
    /// [`CheckError::TooFarAhead`]; [`CheckError::Unconfirmed`] if the store fails.
    pub fn contains_at(&self, key: &[u8], at: Timestamp) -> Result<bool, CheckError> {
        self.look_for(key, Some(at))
    }

    fn look_for(&self, key: &[u8], at: Option<Timestamp>) -> Result<bool, CheckError> {
        let at = self.glance_at(at)?;
        if let Some(foreseen) = self.foresee(self.hasher.hash(key), key, at) {
            return Ok(foreseen);
        }
        let found = self.behind().guard.look(&[key]).map_err(CheckError::Unconfirmed)?;
        Ok(self.matches(&found, at))
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
                Err(Some(listener)) => wait(listener),
                Err(None) => {}
            }
        };
        // What is on its way must not arrive afterwards.
        self.flush()?;
        behind.guard.forget(&[key])?;
        self.shards.forget(hash, key);
        drop(hold);
        Ok(())
    }

    /// Does maintenance that checks have not come to: in memory, as
    /// [`Deduper::maintain`] does, and in the store, which is told what it missed in
    /// an outage, and which keys have expired. Call it now and then, or the store keeps
    /// expired keys. One call of the store may take longer than what is left of
    /// the `budget`.
    ///
    /// # Errors
    ///
    /// [`CheckError::Unconfirmed`] or [`CheckError::Uncertain`] if the store
    /// fails; what it then keeps is called for again.
    pub fn maintain(&self, budget: Duration) -> Result<bool, CheckError> {
        let start = Instant::now();
        let is_done = self.maintain_tiers(budget);
        let Behind { guard, tiers, .. } = self.behind();
        self.flush()?;
        while guard.write_back(tiers.rule())? && start.elapsed() < budget {}
        guard.expire(self.expired())?;
        Ok(is_done)
    }
}

#[cfg(not(loom))]
fn wait(listener: EventListener) {
    listener.wait();
}

#[cfg(loom)]
fn wait(listener: EventListener) {
    loom::future::block_on(listener);
}
