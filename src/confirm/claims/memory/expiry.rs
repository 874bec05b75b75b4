//! Which entries may have expired, in order of time.

use super::known::Known;
use crate::time::Timestamp;
use parking_lot::Mutex;
use std::collections::BTreeMap;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// The second after which an entry is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due(i64);

impl Due {
    /// The first second that begins at `time` or after it.
    pub(super) fn of(time: Timestamp) -> Self {
        let micros = time.as_micros();
        Self(micros.div_euclid(MICROS_PER_SECOND) + i64::from(micros % MICROS_PER_SECOND != 0))
    }

    /// Its beginning.
    pub(super) fn time(self) -> Timestamp {
        Timestamp::from_secs(self.0)
    }
}

/// Identities by the second in which to look at them. An entry is noted anew where it
/// is to expire sooner, and when it is looked at too soon; only the note that its
/// entry knows of counts.
#[derive(Debug, Default)]
pub(super) struct Expiries(Mutex<BTreeMap<Due, Vec<Known>>>);

impl Expiries {
    /// Notes an identity, to be looked at then.
    pub(super) fn add(&self, known: &Known, due: Due) {
        self.0.lock().entry(due).or_default().push(known.clone());
    }

    /// True iff there are identities to look at now.
    pub(super) fn has_due(&self, now: Timestamp) -> bool {
        self.0.lock().first_key_value().is_some_and(|(due, _)| due.time() <= now)
    }

    /// Up to `most` identities to look at now, all noted for one second: this one.
    pub(super) fn take(&self, most: usize, now: Timestamp) -> (Due, Vec<Known>) {
        let mut notes = self.0.lock();
        let first = notes.first_entry().filter(|first| first.key().time() <= now);
        let Some(mut first) = first else { return (Due(i64::MIN), Vec::new()) };
        let due = *first.key();
        let left = first.get().len().saturating_sub(most);
        let known = if left == 0 { first.remove() } else { first.get_mut().split_off(left) };
        (due, known)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().values().map(Vec::len).sum()
    }
}
