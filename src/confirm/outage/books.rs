//! What calls of one guard share: its circuit, and what it remembers of keys.

use super::breaker::Breaker;
use super::journal::{Batch, Entry, Journal, Owed};
use super::stats::Health;
use super::switch::{Asking, Switch};
use super::unresolved::Unresolved;
use crate::confirm::{Answer, Bucket, Rule, Sighting, StoreError, Token};
use crate::stats::OutageStats;
use crate::time::Clock;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The books of a guard, behind locks that are never held during a call of a
/// confirmer or of the clock.
pub(super) struct Books {
    pages: Mutex<Pages>,
    /// As many as the pages hold: new keys need not lock them to learn that there are
    /// none.
    unresolved_keys: AtomicUsize,
    pub(super) switch: Switch,
}

struct Pages {
    journal: Journal,
    unresolved: Unresolved,
    /// What the journal and the switch do not count themselves.
    counts: OutageStats,
}

impl Books {
    pub(super) fn new(breaker: Breaker, journal_limit_bytes: usize, clock: Arc<dyn Clock>) -> Self {
        let pages = Pages {
            journal: Journal::new(journal_limit_bytes),
            unresolved: Unresolved::default(),
            counts: OutageStats::default(),
        };
        Self {
            pages: Mutex::new(pages),
            unresolved_keys: AtomicUsize::new(0),
            switch: Switch::new(breaker, clock),
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock()
    }

    /// Debts to write, and the right to; `None` if there are none, if somebody
    /// writes already, or if the primary is left alone.
    pub(super) fn start_writing(&self) -> Option<(Writing<'_>, Asking<'_>, Batch)> {
        let batch = self.pages().journal.start_writing()?;
        let writing = Writing { books: self };
        Some((writing, self.switch.ask().ok()?, batch))
    }

    /// The primary has forgotten keys, as it was owed.
    pub(super) fn forgotten(&self, entries: &[Entry]) {
        let mut pages = self.pages();
        pages.journal.forgotten(entries);
        pages.counts.written_back += entries.len() as u64;
    }

    /// The primary has answered for sightings that it was owed.
    pub(super) fn recorded(&self, entries: &[(Entry, Owed)], answers: &[Answer]) {
        let mut pages = self.pages();
        let twice = pages.journal.recorded(entries, answers);
        pages.counts.written_back += entries.len() as u64;
        pages.counts.let_through_twice += twice;
    }

    /// The primary refused what it was owed.
    pub(super) fn refused(&self, batch: &Batch) {
        let mut pages = self.pages();
        pages.journal.refused(batch);
        pages.counts.write_backs_refused += 1;
    }

    /// Which of these keys are in the journal.
    pub(super) fn owed<'key>(&self, keys: impl Iterator<Item = &'key [u8]>) -> Vec<bool> {
        let pages = self.pages();
        keys.map(|key| pages.journal.contains(key)).collect()
    }

    /// Errs unless the journal can take all of these keys.
    pub(super) fn check_room(&self, sightings: &[Sighting<'_>]) -> Result<(), StoreError> {
        self.pages().journal.check_room(sightings.iter().map(|sighting| sighting.key))
    }

    pub(super) fn owe_forgets(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.pages().journal.owe_forgets(keys)
    }

    /// The primary is to record these sightings, which have their answers.
    pub(super) fn owe_records(&self, sightings: &[Sighting<'_>]) -> Result<(), StoreError> {
        let owed: Vec<_> = sightings.iter().map(|sighting| (*sighting, false)).collect();
        self.pages().journal.owe_records(&owed)
    }

    /// Takes note of what the fallback alone answered.
    pub(super) fn answered_by_fallback(
        &self,
        sightings: &[Sighting<'_>],
        answers: &[Answer],
        rule: Rule,
    ) -> Result<(), StoreError> {
        let owed = sightings.iter().zip(answers).filter_map(|(sighting, answer)| match answer {
            Answer::New => Some((*sighting, true)),
            Answer::Seen(_) => rule.is_sliding().then_some((*sighting, false)),
        });
        let mut pages = self.pages();
        pages.journal.owe_records(&owed.collect::<Vec<_>>())?;
        pages.counts.answered_by_fallback += answers.len() as u64;
        Ok(())
    }

    /// Takes note of what nobody answered.
    pub(super) fn admitted(&self, answers: &[Answer]) {
        let new = answers.iter().filter(|answer| **answer == Answer::New);
        self.pages().counts.admitted += new.count() as u64;
    }

    pub(super) fn fallback_failed(&self) {
        self.pages().counts.fallback_failures += 1;
    }

    /// Takes out the token of a lost sighting with which to ask about this one.
    pub(super) fn recall(&self, sighting: &Sighting<'_>, rule: Rule) -> Option<Token> {
        // Relaxed: whoever has the key to himself comes after whoever lost it.
        if self.unresolved_keys.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.with_unresolved(|unresolved| unresolved.recall(sighting, rule))
    }

    /// The outcomes of these sightings were lost.
    pub(super) fn remember<'s>(&self, sightings: impl Iterator<Item = &'s Sighting<'s>>) {
        self.with_unresolved(|unresolved| {
            sightings.for_each(|sighting| unresolved.remember(sighting));
        });
    }

    /// These keys are forgotten wherever they may have been recorded.
    pub(super) fn forget_lost(&self, keys: &[&[u8]]) {
        self.with_unresolved(|unresolved| unresolved.forget(keys));
    }

    pub(super) fn expire(&self, before: Bucket) {
        self.pages().journal.expire(before);
        self.with_unresolved(|unresolved| unresolved.expire(before));
    }

    fn with_unresolved<T>(&self, change: impl FnOnce(&mut Unresolved) -> T) -> T {
        let mut pages = self.pages();
        let changed = change(&mut pages.unresolved);
        self.unresolved_keys.store(pages.unresolved.keys(), Ordering::Relaxed);
        changed
    }

    pub(super) fn health(&self) -> Health {
        let owed_keys = self.pages().journal.keys();
        self.switch.health(owed_keys)
    }

    pub(super) fn stats(&self) -> OutageStats {
        let Pages { journal, unresolved, counts } = &*self.pages();
        OutageStats {
            failures: self.switch.failures(),
            openings: self.switch.openings(),
            journal_keys: journal.keys(),
            journal_bytes: journal.bytes(),
            unresolved_keys: unresolved.keys(),
            unresolved_given_up: unresolved.given_up(),
            ..*counts
        }
    }
}

/// The turn to write debts.
pub(super) struct Writing<'books> {
    books: &'books Books,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.books.pages().journal.stop_writing();
    }
}

/// What will be remembered of sightings, should their caller get no answer.
pub(super) struct Doubt<'call> {
    books: &'call Books,
    sightings: &'call [Sighting<'call>],
    may_have_recorded: bool,
}

impl<'call> Doubt<'call> {
    pub(super) const fn new(books: &'call Books, sightings: &'call [Sighting<'call>]) -> Self {
        Self { books, sightings, may_have_recorded: false }
    }

    /// A store is about to be asked. Says what is true if it turns out to have
    /// recorded nothing.
    pub(super) const fn begin(&mut self) -> bool {
        let before = self.may_have_recorded;
        self.may_have_recorded = true;
        before
    }

    /// It did record nothing.
    pub(super) const fn end(&mut self, before: bool) {
        self.may_have_recorded = before;
    }

    pub(super) const fn may_have_recorded(&self) -> bool {
        self.may_have_recorded
    }

    /// The caller gets his answers.
    pub(super) const fn resolved(&mut self) {
        self.sightings = &[];
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if self.may_have_recorded {
            self.books.remember(self.sightings.iter());
        }
    }
}
