//! What calls of one guard share: its circuit, and what it remembers of keys.

use super::breaker::Breaker;
use super::journal::{Batch, Entry, Journal, Owed};
use super::stats::Health;
use super::switch::{Asking, Switch};
use super::unresolved::Unresolved;
use crate::confirm::{Answer, Bucket, Rule, Sighting, StoreError};
use crate::stats::OutageStats;
use crate::time::Clock;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;

/// The books of a guard, behind locks that are never held during a call of a
/// confirmer or of the clock.
pub(super) struct Books {
    pages: Mutex<Pages>,
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
        Self { pages: Mutex::new(pages), switch: Switch::new(breaker, clock) }
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

    /// Sightings as they are to be asked about: with the tokens of those that
    /// were lost, for the keys at the indexes that come along.
    pub(super) fn recall<'key>(
        &self,
        sightings: &[Sighting<'key>],
        rule: Rule,
    ) -> (Vec<Sighting<'key>>, Vec<usize>) {
        let mut sightings = sightings.to_vec();
        let mut recalled = Vec::new();
        let mut pages = self.pages();
        if pages.unresolved.keys() > 0 {
            for (index, sighting) in sightings.iter_mut().enumerate() {
                if let Some(token) = pages.unresolved.recall(sighting, rule) {
                    sighting.token = token;
                    recalled.push(index);
                }
            }
        }
        (sightings, recalled)
    }

    /// The outcomes of these sightings were lost.
    pub(super) fn remember<'s>(&self, sightings: impl Iterator<Item = &'s Sighting<'s>>) {
        let mut pages = self.pages();
        sightings.for_each(|sighting| pages.unresolved.remember(sighting));
    }

    /// These keys are forgotten wherever they may have been recorded.
    pub(super) fn forget_lost(&self, keys: &[&[u8]]) {
        self.pages().unresolved.forget(keys);
    }

    pub(super) fn expire(&self, before: Bucket) {
        let mut pages = self.pages();
        pages.journal.expire(before);
        pages.unresolved.expire(before);
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
    /// Those whose tokens were recalled.
    recalled: &'call [usize],
    may_have_recorded: bool,
}

impl<'call> Doubt<'call> {
    pub(super) const fn new(
        books: &'call Books,
        sightings: &'call [Sighting<'call>],
        recalled: &'call [usize],
    ) -> Self {
        Self { books, sightings, recalled, may_have_recorded: false }
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
        self.recalled = &[];
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if self.may_have_recorded {
            self.books.remember(self.sightings.iter());
        } else {
            self.books.remember(self.recalled.iter().map(|index| &self.sightings[*index]));
        }
    }
}
