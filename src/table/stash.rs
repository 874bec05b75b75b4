//! The stash: the keys of a shard for which no line had room.

use super::line::{Ages, Identity, Slot};
use crate::memory::Budget;

/// A list of slots, short unless the hash collides. Searched only when a home
/// line says that one of its keys may be here; that makes even a hasher that
/// always collides merely slow.
#[derive(Debug, Default)]
pub(super) struct Stash {
    slots: Vec<Slot>,
}

impl Stash {
    pub(super) const fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn find(
        &self,
        want: Slot,
        identity: Identity,
        ages: Ages,
        mut accept: impl FnMut(Slot) -> bool,
    ) -> Option<(usize, Slot)> {
        let fits = |slot: Slot| slot.agrees(want, identity) && ages.is_live(slot.tag());
        self.slots.iter().copied().enumerate().find(|(_, slot)| fits(*slot) && accept(*slot))
    }

    pub(super) fn push(&mut self, slot: Slot, budget: &Budget) {
        self.change(budget, |slots| slots.push(slot));
    }

    pub(super) fn pop(&mut self) -> Option<Slot> {
        self.slots.pop()
    }

    pub(super) fn replace(&mut self, index: usize, slot: Slot) {
        self.slots[index] = slot;
    }

    pub(super) fn remove(&mut self, index: usize) {
        self.slots.swap_remove(index);
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut()
    }

    /// Drops the dead, and gives back what is mostly unused.
    pub(super) fn sweep(&mut self, ages: Ages, budget: &Budget) {
        self.change(budget, |slots| {
            slots.retain(|slot| ages.is_live(slot.tag()));
            if slots.len() < slots.capacity() / 4 {
                slots.shrink_to(slots.len() * 2);
            }
        });
    }

    /// Takes the slots out that `is_wanted`.
    pub(super) fn take_if(&mut self, is_wanted: impl Fn(Slot) -> bool) -> Vec<Slot> {
        self.slots.extract_if(.., |slot| is_wanted(*slot)).collect()
    }

    /// Takes all slots out.
    pub(super) fn take(&mut self, budget: &Budget) -> Vec<Slot> {
        self.change(budget, std::mem::take)
    }

    fn change<R>(&mut self, budget: &Budget, change: impl FnOnce(&mut Vec<Slot>) -> R) -> R {
        let before = self.slots.capacity();
        let result = change(&mut self.slots);
        let after = self.slots.capacity();
        if after != before {
            budget.release((before * size_of::<Slot>()) as u64);
            budget.reserve((after * size_of::<Slot>()) as u64);
        }
        result
    }
}
