//! A confirmer and what happens when it fails.

use super::books::Books;
use super::breaker::Breaker;
use super::course::Course;
use super::policy::Outage;
use super::stats::Health;
use crate::confirm::{AsyncConfirmer, Confirmer, Inline, Sighting};
use crate::stats::OutageStats;
use crate::time::Clock;
use std::sync::Arc;

/// A confirmer behind a circuit breaker and an outage policy.
///
/// The caller has at most one `confirm` in flight for a key. Calls for other keys
/// may come at any time, and no call waits for another.
///
/// Beside what the confirmer takes, a call copies its sightings (not their keys)
/// and takes two locks, shared by all, five times for a moment.
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

impl<C: Confirmer, P: Outage<Instead: Confirmer>> Guard<C, P> {
    /// Calls that block: their futures never wait, and are done
    /// [`at_once`](crate::confirm::at_once).
    pub(crate) fn inline(&self) -> Course<'_, Inline<&C>, Inline<&P::Instead>> {
        Course {
            primary: Inline(&self.primary),
            plan: self.policy.plan().map(Inline),
            books: &self.books,
        }
    }
}

impl<C: AsyncConfirmer, P: Outage<Instead: AsyncConfirmer>> Guard<C, P> {
    /// Calls that wait without blocking.
    pub(crate) fn awaiting(&self) -> Course<'_, &C, &P::Instead> {
        Course { primary: &self.primary, plan: self.policy.plan(), books: &self.books }
    }
}
