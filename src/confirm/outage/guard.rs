//! A confirmer and what happens when it fails.

use super::books::Books;
use super::breaker::Breaker;
use super::call::caught;
use super::course::{Confirmed, Course};
use super::policy::Outage;
use super::stats::Health;
use crate::confirm::inline::at_once;
use crate::confirm::{
    Answer, AsyncConfirmer, Bucket, Confirmer, Inline, OwnedStore, Record, Rule, Sighting,
    StoreError,
};
use crate::stats::OutageStats;
use crate::time::Clock;
use std::sync::Arc;

/// A confirmer behind a circuit breaker and an outage policy.
///
/// The caller has at most one `confirm` in flight for a key. Calls for other keys
/// may come at any time, and no call waits for another.
///
/// Beside what the confirmer takes, a call copies its sightings (not their keys)
/// and takes one lock, shared by all, five times for a moment.
pub(crate) struct Guard<C, P> {
    primary: C,
    policy: P,
    books: Books,
}

impl<C, P> Guard<C, P> {
    /// The confirmer itself, for what only its kind can do.
    pub(crate) const fn primary(&self) -> &C {
        &self.primary
    }
}

impl<C, P: Outage> Guard<C, P> {
    /// `clock` tells the breaker the time.
    pub(crate) fn new(primary: C, policy: P, breaker: Breaker, clock: Arc<dyn Clock>) -> Self {
        let books = Books::new(breaker, policy.journal_limit_bytes(), clock);
        Self { primary, policy, books }
    }

    /// Nobody will hear the answers to these sightings: their keys' next ones are
    /// asked about in their stead.
    pub(crate) fn unheard<'key>(&self, sightings: impl Iterator<Item = Sighting<'key>>) {
        sightings.for_each(|sighting| self.books.remember(std::iter::once(&sighting)));
    }

    pub(crate) fn health(&self) -> Health {
        self.books.health()
    }

    pub(crate) fn stats(&self) -> OutageStats {
        self.books.stats()
    }
}

/// Blocking calls: the same course over confirmers that never wait.
impl<C: Confirmer, P: Outage<Instead: Confirmer>> Guard<C, P> {
    /// Answers sightings, as [`Confirmer::confirm`] does, or as the policy says.
    ///
    /// # Errors
    ///
    /// Nobody has an answer. What may have been recorded is not held against the
    /// keys' next sightings.
    pub(crate) fn confirm(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Confirmed, StoreError> {
        at_once(self.inline().confirm(sightings, rule))
    }

    /// Records sightings of keys that are surely new in the store that is `owned`,
    /// the primary's own, or as the policy says.
    ///
    /// # Errors
    ///
    /// As [`confirm`](Self::confirm).
    pub(crate) fn record(
        &self,
        owned: &dyn OwnedStore,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Confirmed, StoreError> {
        let primary = Inline(Recording(owned));
        let plan = self.policy.plan().map(Inline);
        at_once(Course { primary, plan, books: &self.books }.confirm(sightings, rule))
    }

    /// What the primary holds for keys, whatever the policy.
    ///
    /// # Errors
    ///
    /// The primary's.
    pub(crate) fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        at_once(caught(async { self.primary.look(keys) }))
    }

    /// Forgets keys, in the primary as soon as it can be told.
    ///
    /// # Errors
    ///
    /// Each key may or may not have been forgotten: forget them again.
    pub(crate) fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        at_once(self.inline().forget(keys))
    }

    /// Frees the room of records in buckets before `before`.
    ///
    /// # Errors
    ///
    /// The primary, or the fallback, did not.
    pub(crate) fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        at_once(self.inline().expire(before))
    }

    /// Tells the primary some of what it is owed, where no checks come that would.
    /// True iff it is worth calling again at once.
    ///
    /// # Errors
    ///
    /// The primary's, if it is fenced off.
    pub(crate) fn write_back(&self, rule: Rule) -> Result<bool, StoreError> {
        at_once(self.inline().write_back(rule))
    }

    fn inline(&self) -> Course<'_, Inline<&C>, Inline<&P::Instead>> {
        Course {
            primary: Inline(&self.primary),
            plan: self.policy.plan().map(Inline),
            books: &self.books,
        }
    }
}

/// Records sightings in a store that is owned, and nothing else: a panic becomes an
/// error.
pub(crate) fn write(owned: &dyn OwnedStore, sightings: &[Sighting<'_>]) -> Result<(), StoreError> {
    at_once(caught(async { owned.record(sightings) }))
}

/// An owned store of which nothing is asked: what it is shown is new.
struct Recording<'a>(&'a dyn OwnedStore);

impl Confirmer for Recording<'_> {
    fn confirm(&self, sightings: &[Sighting<'_>], _: Rule) -> Result<Vec<Answer>, StoreError> {
        self.0.record(sightings)?;
        Ok(vec![Answer::New; sightings.len()])
    }

    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.0.look(keys)
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.0.forget(keys)
    }
}

/// Asynchronous twins. Dropping a future is like losing its reply.
impl<C: AsyncConfirmer, P: Outage<Instead: AsyncConfirmer>> Guard<C, P> {
    /// See [`confirm`](Self::confirm).
    pub(crate) async fn confirm_async(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Confirmed, StoreError> {
        self.course().confirm(sightings, rule).await
    }

    /// See [`record`](Self::record); the store that is owned blocks meanwhile.
    pub(crate) async fn record_async(
        &self,
        owned: &dyn OwnedStore,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Confirmed, StoreError> {
        let primary = Inline(Recording(owned));
        Course { primary, plan: self.policy.plan(), books: &self.books }
            .confirm(sightings, rule)
            .await
    }

    /// See [`look`](Self::look).
    pub(crate) async fn look_async(
        &self,
        keys: &[&[u8]],
    ) -> Result<Vec<Option<Record>>, StoreError> {
        caught(async { self.primary.look(keys).await }).await
    }

    /// See [`forget`](Self::forget).
    pub(crate) async fn forget_async(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.course().forget(keys).await
    }

    /// See [`expire`](Self::expire).
    pub(crate) async fn expire_async(&self, before: Bucket) -> Result<(), StoreError> {
        self.course().expire(before).await
    }

    /// See [`write_back`](Self::write_back).
    pub(crate) async fn write_back_async(&self, rule: Rule) -> Result<bool, StoreError> {
        self.course().write_back(rule).await
    }

    fn course(&self) -> Course<'_, &C, &P::Instead> {
        Course { primary: &self.primary, plan: self.policy.plan(), books: &self.books }
    }
}
