//! What all entries take.

use super::State;
use super::known::{Identified as _, Known};
use crossbeam_utils::CachePadded;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An entry's slot in the map, where that has just doubled: of hashbrown's slots, with
/// a byte of control each, 7 in 16 are then taken.
const SLOT_BYTES: usize = (size_of::<Known>() + 1) * 16 / 7;

/// An allocation's own, in bytes: the allocator's word, and what is rounded up.
const ALLOCATION_BYTES: usize = size_of::<usize>() + 15;

/// The counts that an outcome's bytes come with.
const COUNTS_BYTES: usize = 2 * size_of::<usize>();

/// A place among those that expire, in a vector that has just doubled.
const NOTE_BYTES: usize = 2 * size_of::<Known>();

/// Counts what entries take, in bytes, so that resident memory stays below. The map
/// keeps its slots until it is shrunk, so the most entries since then count.
#[derive(Debug, Default)]
pub(super) struct Room {
    // Relaxed, all of them: they count, and guard nothing.
    entries: CachePadded<AtomicUsize>,
    most_entries: AtomicUsize,
    bytes: CachePadded<AtomicUsize>,
}

impl Room {
    /// An entry has come.
    pub(super) fn enter(&self, known: &Known) {
        let outcome = of_outcome(&known.kept().entry.state);
        self.bytes.fetch_add(beside_slot(known.id().len()) + outcome, Ordering::Relaxed);
        let entries = self.entries.fetch_add(1, Ordering::Relaxed) + 1;
        if entries > self.most_entries.load(Ordering::Relaxed) {
            self.most_entries.fetch_max(entries, Ordering::Relaxed);
        }
    }

    /// An entry has changed.
    pub(super) fn change(&self, before: &State, after: &State) {
        let (before, after) = (of_outcome(before), of_outcome(after));
        if before != after {
            self.bytes.fetch_add(after, Ordering::Relaxed);
            self.bytes.fetch_sub(before, Ordering::Relaxed);
        }
    }

    /// An entry is gone.
    pub(super) fn leave(&self, id: &[u8], state: &State) {
        self.bytes.fetch_sub(beside_slot(id.len()) + of_outcome(state), Ordering::Relaxed);
        self.entries.fetch_sub(1, Ordering::Relaxed);
    }

    /// True iff so many slots are empty that giving them back is worth moving the others.
    pub(super) fn is_sparse(&self) -> bool {
        const FEW: usize = 1_024;
        let most = self.most_entries.load(Ordering::Relaxed);
        most > FEW && most / 8 > self.entries.load(Ordering::Relaxed)
    }

    /// The map has been shrunk.
    pub(super) fn shrunk(&self) {
        let entries = self.entries.load(Ordering::Relaxed);
        self.most_entries.store(entries, Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes_with(0, 0)
    }

    /// What all take with one more entry, whose identity has so many bytes.
    pub(super) fn bytes_with_another(&self, id_bytes: usize) -> usize {
        self.bytes_with(1, beside_slot(id_bytes))
    }

    fn bytes_with(&self, more_entries: usize, more_bytes: usize) -> usize {
        let entries = self.entries.load(Ordering::Relaxed) + more_entries;
        let slots = self.most_entries.load(Ordering::Relaxed).max(entries);
        slots * SLOT_BYTES + self.bytes.load(Ordering::Relaxed) + more_bytes
    }
}

const fn beside_slot(id_bytes: usize) -> usize {
    ALLOCATION_BYTES + Known::SHARED_BYTES + NOTE_BYTES + id_bytes
}

fn of_outcome(state: &State) -> usize {
    let State::Finished(outcome) = state else { return 0 };
    outcome.bytes().map_or(0, |bytes| ALLOCATION_BYTES + COUNTS_BYTES + bytes.len())
}
