//! The asynchronous face: no lock is held across an await.

use super::super::{BatchError, CheckError, Deduper};
use super::Begun;
use super::carrier::{Carrier, Face};
use crate::confirm::{AsyncConfirmer, Course, Guard, Outage};
use crate::time::Timestamp;
use crate::verdict::Verdict;
use event_listener::EventListener;
use std::time::Duration;

/// The same calls for confirmers that do not block. A future that is dropped takes
/// back what it has recorded: its keys' next checks are as if nobody had called.
impl<C: AsyncConfirmer, P: Outage<Instead: AsyncConfirmer>> Deduper<C, P> {
    fn async_carrier(&self) -> Carrier<'_, C, P, Awaiting<'_, C, P>> {
        Carrier { dedup: self, face: Awaiting(&self.behind().guard) }
    }

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
        match self.begin_one(key, at)? {
            Begun::Judged(verdict) => Ok(verdict),
            Begun::Asking(round) => self.async_carrier().judge(round).await,
        }
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
        self.async_carrier().check_all(keys, None, verdicts).await
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
        self.async_carrier().check_all(keys, Some(times), verdicts).await
    }

    /// `contains` for asynchronous confirmers.
    ///
    /// # Errors
    ///
    /// Those of `contains` for blocking ones.
    pub async fn contains_async(&self, key: &[u8]) -> Result<bool, CheckError> {
        self.async_carrier().look_for(key, None).await
    }

    /// `contains_at` for asynchronous confirmers.
    ///
    /// # Errors
    ///
    /// Those of `contains_at` for blocking ones.
    pub async fn contains_at_async(&self, key: &[u8], at: Timestamp) -> Result<bool, CheckError> {
        self.async_carrier().look_for(key, Some(at)).await
    }

    /// `forget` for asynchronous confirmers.
    ///
    /// # Errors
    ///
    /// Those of `forget` for blocking ones.
    pub async fn forget_async(&self, key: &[u8]) -> Result<(), CheckError> {
        self.async_carrier().forget(key).await
    }

    /// `maintain` for asynchronous confirmers.
    ///
    /// # Errors
    ///
    /// Those of `maintain` for blocking ones.
    pub async fn maintain_async(&self, budget: Duration) -> Result<bool, CheckError> {
        self.async_carrier().maintain(budget).await
    }
}

/// Calls that wait in the caller's task.
struct Awaiting<'a, C, P>(&'a Guard<C, P>);

impl<'a, C: AsyncConfirmer, P: Outage<Instead: AsyncConfirmer>> Face for Awaiting<'a, C, P> {
    type Primary = &'a C;
    type Instead = &'a P::Instead;

    /// An owned store blocks: a task's check waits for its own key at most.
    const CHECKS_WRITE: bool = false;

    fn store(&self) -> Course<'_, Self::Primary, Self::Instead> {
        self.0.awaiting()
    }

    async fn wait(&self, listener: EventListener) {
        listener.await;
    }
}
