//! A confirmer and what happens when it fails.

use super::books::Books;
use super::breaker::Breaker;
use super::course::Course;
use super::policy::Outage;
use super::stats::Health;
use crate::confirm::{AsyncConfirmer, Confirmer, Inline, Rule, Sighting, Token};
use crate::stats::OutageStats;
use crate::time::Clock;
use std::iter;
use std::sync::Arc;

/// A confirmer behind a circuit breaker and an outage policy.
///
/// The caller has at most one `confirm` in flight for a key. Calls for other keys
/// may come at any time, and no call waits for another.
///
/// Beside what the confirmer takes, a call takes two locks, shared by all, four times
/// for a moment.
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

    /// The token with which to ask about a sighting in place of its own: of an earlier
    /// one of its key, of which nobody heard. Whoever takes it gives it back as
    /// [`unheard`](Self::unheard) if nobody hears of this one either.
    pub(crate) fn recall(&self, sighting: &Sighting<'_>, rule: Rule) -> Option<Token> {
        self.books.recall(sighting, rule)
    }

    /// Nobody will hear the answer to this sighting: its key's next one is asked
    /// about in its stead.
    pub(crate) fn unheard(&self, sighting: &Sighting<'_>) {
        self.books.remember(iter::once(sighting));
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
