//! What calls of one guarded claim store share: its circuit, and its journal.

use super::super::breaker::Breaker;
use super::super::switch::Switch;
use super::super::{Health, OutageStats};
use super::journal::{Debt, Grantor, Holder, Journal};
use crate::confirm::claims::{ClaimRequest, Grant, Terms};
use crate::confirm::{StoreError, StoreErrorKind, Token};
use crate::time::{Clock, Timestamp};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::time::Duration;

/// The books, behind locks that are never held during a call of a store or of the clock.
pub(super) struct Books {
    pages: Mutex<Pages>,
    pub(super) switch: Switch,
}

struct Pages {
    journal: Journal,
    /// What the journal and the switch do not count themselves.
    counts: OutageStats,
}

impl Books {
    pub(super) fn new(breaker: Breaker, journal_limit_bytes: usize, clock: Arc<dyn Clock>) -> Self {
        let journal = Journal::new(journal_limit_bytes);
        let pages = Mutex::new(Pages { journal, counts: OutageStats::default() });
        Self { pages, switch: Switch::new(breaker, clock) }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock()
    }

    /// True iff a key is the stand-in's to answer.
    pub(super) fn is_noted(&self, id: &[u8]) -> bool {
        self.pages().journal.contains(id)
    }

    /// Who granted a lease.
    pub(super) fn grantor(&self, id: &[u8], token: Token) -> Grantor {
        self.pages().journal.grantor(id, token)
    }

    /// Notes a key that is about to be claimed of the stand-in.
    pub(super) fn start_claim<'books>(
        &'books self,
        id: &'books [u8],
        terms: Terms,
    ) -> Result<Turn<'books>, StoreError> {
        let until = self.forgotten_by(terms);
        self.pages().journal.begin(id)?;
        Ok(Turn { books: self, id, unheard: Unheard::Claim { until } })
    }

    /// A lease is about to be settled in the stand-in.
    pub(super) fn start_settlement<'books>(
        &'books self,
        id: &'books [u8],
        token: Token,
    ) -> Turn<'books> {
        let unheard = match self.pages().journal.hold(id) {
            Some(_) => Unheard::Settlement(token),
            None => Unheard::Ended,
        };
        Turn { books: self, id, unheard }
    }

    /// A key is about to be cleared; which note of it, if there is one.
    pub(super) fn start_clearing<'books>(
        &'books self,
        id: &'books [u8],
    ) -> Result<(Turn<'books>, Option<u64>), StoreError> {
        let mut pages = self.pages();
        if pages.journal.is_telling(id) {
            let cause = "the store is just being told what came of the key: clear it again";
            return Err(StoreError::new(StoreErrorKind::Unavailable, cause));
        }
        let stamp = pages.journal.hold(id);
        let unheard = if stamp.is_some() { Unheard::Nothing } else { Unheard::Ended };
        Ok((Turn { books: self, id, unheard }, stamp))
    }

    pub(super) fn cleared(&self, id: &[u8], stamp: u64) {
        self.pages().journal.cleared(id, stamp);
    }

    /// Takes note of who answered in place of the primary.
    pub(super) fn answered_instead(&self, by_fallback: bool, is_grant: bool) {
        let counts = &mut self.pages().counts;
        if by_fallback {
            counts.answered_by_fallback += 1;
        } else if is_grant {
            counts.admitted += 1;
        }
    }

    pub(super) fn fallback_failed(&self) {
        self.pages().counts.fallback_failures += 1;
    }

    /// Looks at `most` notes for something that has to be told by now.
    pub(super) fn age(&self, most: usize) {
        if self.pages().journal.keys() > 0 {
            let now = self.switch.now();
            self.pages().journal.age(most, now);
        }
    }

    /// Something to tell the primary; `None` if there is nothing, or somebody tells it
    /// already.
    pub(super) fn start_telling(&self) -> Option<Telling<'_>> {
        let debt = self.pages().journal.start_telling()?;
        Some(Telling { books: self, debt })
    }

    /// True iff there is something to tell the primary.
    pub(super) fn owes(&self) -> bool {
        self.pages().journal.owes()
    }

    pub(super) fn health(&self) -> Health {
        let owed_keys = self.pages().journal.keys();
        self.switch.health(owed_keys)
    }

    pub(super) fn stats(&self) -> OutageStats {
        let Pages { journal, counts } = &*self.pages();
        OutageStats {
            failures: self.switch.failures(),
            openings: self.switch.openings(),
            journal_keys: journal.keys(),
            journal_bytes: journal.bytes(),
            ..*counts
        }
    }

    /// When the stand-in has surely forgotten a claim made now.
    fn forgotten_by(&self, terms: Terms) -> Timestamp {
        self.switch.now().saturating_add(terms.lease).saturating_add(terms.keep)
    }
}

/// A question to the stand-in. Dropped before its answer was heard, by a caller that went
/// away, it leaves what a lost reply does.
pub(super) struct Turn<'books> {
    books: &'books Books,
    id: &'books [u8],
    unheard: Unheard,
}

/// What may have happened if no answer is heard.
#[derive(Clone, Copy, Debug)]
enum Unheard {
    Claim {
        until: Timestamp,
    },
    Settlement(Token),
    Nothing,
    /// It is not noted, or not any more.
    Ended,
}

impl Turn<'_> {
    /// It was answered, or certainly not asked, and nothing has changed.
    pub(super) fn unchanged(mut self) {
        self.unheard = Unheard::Nothing;
    }

    /// The stand-in has granted the key.
    pub(super) fn granted(mut self, request: &ClaimRequest, grant: &Grant) {
        let ClaimRequest { token, digest, terms } = *request;
        let holder = Holder { token, digest, terms, is_settled: false };
        let until = self.books.forgotten_by(terms);
        self.books.pages().journal.granted(self.id, holder, grant.is_takeover, until);
        self.unheard = Unheard::Nothing;
    }

    /// The lease goes on.
    pub(super) fn extended(mut self, token: Token, terms: Terms) {
        let until = self.books.forgotten_by(terms);
        self.books.pages().journal.extended(self.id, token, until);
        self.unheard = Unheard::Nothing;
    }

    /// The stand-in says that the key is not this holder's any more.
    pub(super) fn lost(mut self, token: Token) {
        self.books.pages().journal.lost(self.id, token);
        self.unheard = Unheard::Nothing;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let journal = &mut self.books.pages().journal;
        match self.unheard {
            Unheard::Claim { until } => journal.unheard(self.id, until),
            Unheard::Settlement(token) => journal.settled(self.id, token),
            Unheard::Nothing => {}
            Unheard::Ended => return,
        }
        journal.end(self.id);
    }
}

/// The turn to tell the primary what came of a key.
pub(super) struct Telling<'books> {
    books: &'books Books,
    pub(super) debt: Debt,
}

impl Telling<'_> {
    /// The primary knows, or there is nothing for it to know.
    pub(super) fn paid(self, has_told: bool, was_let_through_twice: bool) {
        let pages = &mut *self.books.pages();
        if pages.journal.paid(&self.debt) {
            pages.counts.written_back += u64::from(has_told);
            pages.counts.let_through_twice += u64::from(was_let_through_twice);
        }
    }

    /// Somebody is at it in the stand-in: there is nothing to tell yet.
    pub(super) fn goes_on(self, remaining: Duration) {
        let until = self.debt.until.max(self.after(remaining));
        self.books.pages().journal.postpone(&self.debt, until);
    }

    /// Somebody is at it in the primary.
    pub(super) fn met_another(self, remaining: Duration) {
        let until = self.after(remaining);
        self.books.pages().journal.postpone(&self.debt, until);
    }

    fn after(&self, remaining: Duration) -> Timestamp {
        self.books.switch.now().saturating_add(remaining)
    }

    /// The primary refused to hear of it.
    pub(super) fn refused(self) {
        self.books.pages().counts.write_backs_refused += 1;
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        self.books.pages().journal.stop_telling();
    }
}
