//! In which order the two stores are asked.

use super::BARRIER;
use super::batch::{Batch, Fill};
use super::state::State;
use crate::confirm::{
    Answer, AsyncConfirmer, Bucket, Record, Rule, Sighting, StoreError, StoreErrorKind,
};
use parking_lot::Mutex;
use std::future::Future;
use std::time::Duration;

/// How often a barrier is raised, each time over a record later than the last.
const BARRIER_TRIES: usize = 16;

pub(super) struct Flow<'flow, C, A> {
    pub(super) cache: &'flow C,
    pub(super) authority: &'flow A,
    pub(super) rest: Duration,
    pub(super) state: &'flow Mutex<State>,
}

impl<C: AsyncConfirmer, A: AsyncConfirmer> Flow<'_, C, A> {
    pub(super) async fn confirm(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Vec<Answer>, StoreError> {
        if sightings.is_empty() {
            return Ok(Vec::new());
        }
        self.state.lock().asked(sightings, rule);
        let held = self.look_in_cache(sightings).await;
        let is_cached = held.is_some();
        let held = held.unwrap_or_else(|| vec![None; sightings.len()]);

        let mut batch = Batch::of(sightings, rule, &held);
        let left = batch.left();
        self.state.lock().settled(sightings.len() - left.len());
        if left.is_empty() {
            return Ok(batch.into_answers());
        }
        let answers = self.authority.confirm(&left, rule).await?;
        batch.answer(&complete(answers, left.len())?);
        if is_cached {
            self.fill_cache(batch.fill(), rule).await;
        }
        Ok(batch.into_answers())
    }

    /// What the cache holds for the keys; `None` if it does not say.
    async fn look_in_cache(&self, sightings: &[Sighting<'_>]) -> Option<Vec<Option<Record>>> {
        let may_ask = self.state.lock().may_ask(self.rest);
        let held = if may_ask {
            let keys: Vec<_> = sightings.iter().map(|sighting| sighting.key).collect();
            self.asking_cache(keys.len(), self.cache.look(&keys)).await.ok()
        } else {
            None
        };
        if held.is_none() {
            self.state.lock().uncached(sightings.len());
        }
        held
    }

    /// The answers stand, whatever comes of this: what the cache is not told now,
    /// the next duplicate tells it.
    async fn fill_cache(&self, fill: Fill<'_>, rule: Rule) {
        let Fill { mut sightings, unknown } = fill;
        if !unknown.is_empty() {
            let held = self.authority.look(&unknown).await.unwrap_or_default();
            sightings.extend(unknown.into_iter().zip(held).filter_map(|(key, held)| {
                held.map(|Record { bucket, token }| Sighting { key, bucket, token })
            }));
        }
        if sightings.is_empty() {
            return;
        }
        let filling = self.cache.confirm(&sightings, rule);
        if self.asking_cache(sightings.len(), filling).await.is_ok() {
            self.state.lock().filled(sightings.len());
        }
    }

    /// The cache first, so that at no time it knows a key that the authority has
    /// forgotten, unless it cannot be reached: then the authority forgets
    /// nevertheless, for the cache may well have lost everything.
    pub(super) async fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        let held = complete(self.authority.look(keys).await?, keys.len())?;
        let raised = self.raise(self.barriers(keys, &held)).await;
        // A key that it did not hold it may hold by now: that is a later sighting's.
        let known: Vec<_> =
            keys.iter().zip(&held).filter_map(|(key, held)| held.and(Some(*key))).collect();
        if !known.is_empty() {
            self.authority.forget(&known).await?;
        }
        raised
    }

    /// For each key a barrier later than any record of it that may be under way.
    fn barriers<'key>(&self, keys: &[&'key [u8]], held: &[Option<Record>]) -> Vec<Sighting<'key>> {
        let latest = self.state.lock().latest();
        let last = |held: &Option<Record>| held.map_or(latest, |held| held.bucket.max(latest));
        keys.iter().zip(held).map(|(key, held)| barrier(key, last(held))).collect()
    }

    /// Puts barriers in the place of what the cache holds, each in one step. It is
    /// asked even while it rests.
    async fn raise(&self, mut barriers: Vec<Sighting<'_>>) -> Result<(), StoreError> {
        let rule = self.state.lock().rule().giving_way();
        for _ in 0..BARRIER_TRIES {
            let raising = self.cache.confirm(&barriers, rule);
            let answers = self.asking_cache(barriers.len(), raising).await?;
            let left = barriers.iter().zip(answers).filter_map(|(left, answer)| match answer {
                Answer::New => None,
                Answer::Seen(bucket) => Some(barrier(left.key, bucket)),
            });
            barriers = left.collect();
            if barriers.is_empty() {
                return Ok(());
            }
        }
        let cause = "others keep telling the cache of later sightings of the keys";
        Err(StoreError::new(StoreErrorKind::Timeout, cause))
    }

    pub(super) async fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        let may_ask = self.state.lock().may_ask(self.rest);
        if may_ask {
            // Records that stay take room, and nothing else.
            let _ = self.noted(self.cache.expire(before).await);
        }
        self.authority.expire(before).await
    }

    /// The cache's reply, which must have so many entries.
    async fn asking_cache<T>(
        &self,
        entries: usize,
        call: impl Future<Output = Result<Vec<T>, StoreError>>,
    ) -> Result<Vec<T>, StoreError> {
        self.noted(call.await.and_then(|reply| complete(reply, entries)))
    }

    /// Remembers how the cache fared.
    fn noted<T>(&self, reply: Result<T, StoreError>) -> Result<T, StoreError> {
        let mut state = self.state.lock();
        match &reply {
            Ok(_) => state.cache_answered(),
            Err(error) => state.cache_failed(error.kind()),
        }
        reply
    }
}

/// What stops records of the key in buckets up to `last`.
fn barrier(key: &[u8], last: Bucket) -> Sighting<'_> {
    let bucket = Bucket::new(last.number().saturating_add(1));
    Sighting { key, bucket, token: BARRIER }
}

/// A reply with an entry for each that was asked about.
fn complete<T>(reply: Vec<T>, asked: usize) -> Result<Vec<T>, StoreError> {
    if reply.len() == asked {
        return Ok(reply);
    }
    let cause = format!("the confirmer gave {} entries for {asked}", reply.len());
    Err(StoreError::new(StoreErrorKind::Faulty, cause))
}
