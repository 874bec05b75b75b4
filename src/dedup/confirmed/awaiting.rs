//! The asynchronous face: no lock is held across an await.

use super::super::batch::{Stop, same_length};
use super::super::tier::{Next, Replies, Round};
use super::super::{BatchError, Behind, CheckError, Deduper};
use super::{KEYS_PER_QUESTION, end_of_chunk};
use crate::confirm::{AsyncConfirmer, Outage};
use crate::time::Timestamp;
use crate::verdict::Verdict;
use std::time::{Duration, Instant};

/// The same calls for confirmers that do not block. A future that is dropped takes
/// back what it has recorded: its keys' next checks are as if nobody had called.
impl<C: AsyncConfirmer, P: Outage<Instead: AsyncConfirmer>> Deduper<C, P> {
    /// `check` for asynchronous confirmers.
    ///
    /// # Errors
    ///
    /// Those of `check` for blocking ones.
    pub async fn check_async(&self, key: &[u8]) -> Result<Verdict, CheckError> {
        self.check_one_async(key, None).await
    }

    /// `check_at` for asynchronous confirmers.
    ///
    /// # Errors
    ///
    /// Those of `check_at` for blocking ones.
    pub async fn check_at_async(&self, key: &[u8], at: Timestamp) -> Result<Verdict, CheckError> {
        self.check_one_async(key, Some(at)).await
    }

    async fn check_one_async(
        &self,
        key: &[u8],
        at: Option<Timestamp>,
    ) -> Result<Verdict, CheckError> {
        let (mut verdict, mut round) = ([Verdict::Duplicate], self.round());
        if self.begin_one(&mut round, key, at, &mut verdict)? {
            self.carry_async(&mut round, &mut verdict).await.map_err(|(_, error)| error)?;
        }
        round.finish();
        Ok(verdict[0])
    }

    /// `check_batch` for asynchronous confirmers.
    ///
    /// # Errors
    ///
    /// Those of `check_batch` for blocking ones.
    pub async fn check_batch_async<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        same_length(keys.len(), keys.len(), verdicts.len())?;
        self.check_all_async(keys, None, verdicts).await
    }

    /// `check_batch_at` for asynchronous confirmers.
    ///
    /// # Errors
    ///
    /// Those of `check_batch_at` for blocking ones.
    pub async fn check_batch_at_async<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        times: &[Timestamp],
        verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        same_length(keys.len(), times.len(), verdicts.len())?;
        self.check_all_async(keys, Some(times), verdicts).await
    }

    async fn check_all_async<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        times: Option<&[Timestamp]>,
        verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        let mut round = self.round();
        for (number, chunk) in keys.chunks(KEYS_PER_QUESTION).enumerate() {
            let first = number * KEYS_PER_QUESTION;
            let begun = self.begin(&mut round, first, chunk, times, verdicts);
            let carried = self.carry_async(&mut round, verdicts).await;
            end_of_chunk(&mut round, begun, carried)?;
        }
        round.finish();
        Ok(())
    }

    /// Has the store answer all that a round has to ask.
    async fn carry_async(
        &self,
        round: &mut Round<'_>,
        verdicts: &mut [Verdict],
    ) -> Result<(), Stop> {
        loop {
            match round.next(verdicts) {
                Next::Done => return Ok(()),
                Next::Wait(listener) => listener.await,
                Next::Ask => {
                    let replies = self.ask_async(round).await;
                    round
                        .settle(replies, verdicts)
                        .map_err(|(index, error)| (index, error.into()))?;
                }
            }
        }
    }

    async fn ask_async(&self, round: &Round<'_>) -> Replies {
        let Behind { guard, tiers, ownership } = self.behind();
        let (questions, recordings) = (round.questions(), round.recordings());
        let judged = match questions.as_slice() {
            [] => None,
            questions => Some(guard.confirm_async(questions, tiers.rule()).await),
        };
        let recorded = match ownership.owned(guard.primary()) {
            Some(owned) if !recordings.is_empty() => {
                Some(guard.record_async(owned, &recordings, tiers.rule()).await)
            }
            _ => None,
        };
        Replies { judged, recorded }
    }

    /// `contains` for asynchronous confirmers.
    ///
    /// # Errors
    ///
    /// Those of `contains` for blocking ones.
    pub async fn contains_async(&self, key: &[u8]) -> Result<bool, CheckError> {
        self.look_for_async(key, None).await
    }

    /// `contains_at` for asynchronous confirmers.
    ///
    /// # Errors
    ///
    /// Those of `contains_at` for blocking ones.
    pub async fn contains_at_async(&self, key: &[u8], at: Timestamp) -> Result<bool, CheckError> {
        self.look_for_async(key, Some(at)).await
    }

    async fn look_for_async(&self, key: &[u8], at: Option<Timestamp>) -> Result<bool, CheckError> {
        let at = self.glance_at(at)?;
        if let Some(foreseen) = self.foresee(self.hasher.hash(key), key, at) {
            return Ok(foreseen);
        }
        let found =
            self.behind().guard.look_async(&[key]).await.map_err(CheckError::Unconfirmed)?;
        Ok(self.matches(&found, at))
    }

    /// `forget` for asynchronous confirmers.
    ///
    /// # Errors
    ///
    /// Those of `forget` for blocking ones.
    pub async fn forget_async(&self, key: &[u8]) -> Result<(), CheckError> {
        let behind = self.behind();
        self.follow_clock();
        let hash = self.hasher.hash(key);
        let hold = loop {
            match behind.tiers.hold(hash) {
                Ok(hold) => break hold,
                Err(Some(listener)) => listener.await,
                Err(None) => {}
            }
        };
        // What is on its way must not arrive afterwards.
        behind.write_out()?;
        behind.guard.forget_async(&[key]).await?;
        self.shards.forget(hash, key);
        drop(hold);
        Ok(())
    }

    /// `maintain` for asynchronous confirmers.
    ///
    /// # Errors
    ///
    /// Those of `maintain` for blocking ones.
    pub async fn maintain_async(&self, budget: Duration) -> Result<bool, CheckError> {
        let start = Instant::now();
        let is_done = self.maintain_tiers(budget);
        let behind = self.behind();
        behind.write_out()?;
        let Behind { guard, tiers, .. } = behind;
        while guard.write_back_async(tiers.rule()).await? && start.elapsed() < budget {}
        guard.expire_async(self.expired()).await?;
        Ok(is_done)
    }
}
