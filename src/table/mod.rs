//! The exact tier: one shard's hash table of slots.
//!
//! A key belongs to one line, its *home*, in one page. It lies there if there
//! is room, else in one of three *alternate* lines of the same page, else in
//! the *stash*, a short list. The home's header says whether any of its keys
//! lie elsewhere, so nearly every look-up reads one line. A dead slot is a
//! free slot: there are no tombstones, and nothing is swept on the hot path.
//!
//! The table knows tags and how to read them ([`Ages`]); what a bucket means,
//! when a check is a duplicate and how many keys are live is the shard's.

mod blocks;
mod extents;
mod keys;
mod layout;
mod line;
mod page;
mod probe;
mod spelling;
mod stash;

pub(crate) use blocks::{Address, BlockPool, Frees, NoRoom};
pub(crate) use extents::Extents;
pub(crate) use keys::{Keys, Sight};
pub(crate) use layout::Layout;
pub(crate) use line::{Ages, Identity, Slot};
pub(crate) use page::{Glance, Vacancy};

use extents::Pages;
use layout::home_page;
use line::{Line, SLOTS};
use page::{Found, InPage, LINES, Page};
use stash::Stash;

/// Slots in a page.
pub(crate) const SLOTS_PER_PAGE: u32 = LINES * SLOTS as u32;

/// More than one key in the stash for this many lines is more than its share:
/// overflow without end would fill it, if eviction took keys from lines alone.
const STASH_SHARE: u32 = 16;

/// The pages that a table of so many keys comes to, a step of growth included.
pub(crate) fn pages_for(keys: u64) -> u32 {
    let full = keys.div_ceil(u64::from(SLOTS_PER_PAGE) * 3 / 4);
    u32::try_from(full + full / 4 + 1).unwrap_or(u32::MAX)
}

/// One shard's table. Laid out so that a look-up reads its first 24 bytes.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Table {
    pages: Pages,
    layout: Layout,
    /// The next line to be swept, counted through all pages.
    cursor: u32,
    stash: Box<Stash>,
}

/// Where a slot lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Page(InPage),
    Stash { index: usize },
}

impl Table {
    pub(crate) fn new(pages: Pages) -> Self {
        Self { pages, layout: Layout::NONE, cursor: 0, stash: Box::default() }
    }

    #[inline]
    pub(crate) const fn pages(&self) -> u32 {
        self.pages.len()
    }

    #[inline]
    pub(crate) const fn layout(&self) -> Layout {
        self.layout
    }

    const fn lines(&self) -> u32 {
        self.pages.len() * LINES
    }

    /// Finds a live slot that agrees with `want` and that `accept` takes for
    /// the key's own; or else where it can be put. The table must have a page.
    #[inline]
    pub(crate) fn find(
        &self,
        want: Slot,
        identity: Identity,
        ages: Ages,
        mut accept: impl FnMut(Slot) -> bool,
    ) -> Result<(Place, Slot), Vacancy> {
        match self.home_page(want).find(want, identity, ages, &mut accept) {
            Found::At(place, slot) => Ok((Place::Page(place), slot)),
            Found::Nowhere(vacancy) => Err(vacancy),
            Found::PerhapsStashed(vacancy) => {
                self.find_stashed(want, identity, ages, accept).ok_or(vacancy)
            }
        }
    }

    #[cold]
    fn find_stashed(
        &self,
        want: Slot,
        identity: Identity,
        ages: Ages,
        accept: impl FnMut(Slot) -> bool,
    ) -> Option<(Place, Slot)> {
        let (index, slot) = self.stash.find(want, identity, ages, accept)?;
        Some((Place::Stash { index }, slot))
    }

    /// Puts a tagged slot where it belongs. The table must have a page.
    pub(crate) fn insert(&mut self, slot: Slot, ages: Ages) {
        self.insert_into(self.layout.home(slot), slot, ages);
    }

    /// Puts a tagged slot where `find` said that it can be put; nothing may
    /// have been put into the table since.
    #[inline]
    pub(crate) fn fill(&mut self, vacancy: Vacancy, slot: Slot, ages: Ages) {
        if !self.home_page(slot).fill(vacancy, slot, ages) {
            self.stash.push(slot, self.pages.budget());
        }
    }

    /// Puts a slot into the page in which it belongs, or into the stash.
    #[inline]
    fn insert_into(&mut self, page: u32, slot: Slot, ages: Ages) {
        if !self.pages.page(page).insert(slot, ages) {
            self.stash.push(slot, self.pages.budget());
        }
    }

    /// Replaces the slot at `place` by the same key in another bucket or at
    /// another address.
    #[inline]
    pub(crate) fn replace(&mut self, place: Place, slot: Slot, ages: Ages) {
        let page = self.home_page(slot);
        match place {
            Place::Page(place) => page.replace(place, slot, ages),
            Place::Stash { index } => {
                page.note_stashed(slot, ages);
                self.stash.replace(index, slot);
            }
        }
    }

    /// Empties the slot at `place`, where `slot` was found.
    pub(crate) fn remove(&mut self, place: Place, slot: Slot) {
        match place {
            Place::Page(place) => self.home_page(slot).remove(place),
            Place::Stash { index } => self.stash.remove(index),
        }
    }

    #[inline]
    fn home_page(&self, slot: Slot) -> &Page {
        self.pages.page(self.layout.home(slot))
    }

    /// A line by its number through all pages.
    fn line(&self, line: u32) -> &Line {
        &self.pages.page(line / LINES).lines()[(line % LINES) as usize]
    }

    /// Clears dead slots in the next `1 / parts` of the lines, `times` over,
    /// and in the stash.
    ///
    /// Ends a growth first: then every line has been rewritten in the present
    /// bucket, and the next sweep may begin anywhere.
    pub(crate) fn sweep(&mut self, times: i64, parts: i64, ages: Ages) {
        self.end_growth(ages);
        self.stash.sweep(ages, self.pages.budget());
        let lines = i64::from(self.lines());
        let due = times.saturating_mul(lines.div_euclid(parts) + 1).min(lines);
        for _ in 0..due {
            self.line(self.cursor).clear_dead(ages);
            self.cursor = (self.cursor + 1) % self.lines();
        }
    }

    /// Begins to grow to `pages`, or to what is granted. The new room is there
    /// at once; the keys are moved by [`grow_on`](Self::grow_on).
    pub(crate) fn grow(&mut self, pages: u32, ages: Ages) {
        self.end_growth(ages);
        let before = self.pages.len();
        self.pages.grow(pages);
        self.layout = match self.pages.len() {
            granted if granted > before => Layout::growing(granted, before, before),
            _ => Layout::of(before),
        };
    }

    #[inline]
    pub(crate) const fn is_growing(&self) -> bool {
        self.layout.is_growing()
    }

    /// Does one page of a growth that has begun, from the last to the first;
    /// some ten microseconds. Drops dead slots.
    #[cold]
    pub(crate) fn grow_on(&mut self, ages: Ages) {
        let (page, before) = (self.layout.left() - 1, self.layout.before());
        self.layout = Layout::growing(self.layout.pages(), before, page);
        let (held, count) = self.take_page(page, ages);
        let stashed = self.stash.take_if(|slot| home_page(slot.code(), before) == page);
        let pages = self.layout.pages();
        for slot in held[..count].iter().chain(stashed.iter().filter(|s| ages.is_live(s.tag()))) {
            self.insert_into(home_page(slot.code(), pages), *slot, ages);
        }
        if page == 0 {
            self.cursor = 0;
        }
    }

    /// Does what is left of a growth.
    pub(crate) fn end_growth(&mut self, ages: Ages) {
        while self.is_growing() {
            self.grow_on(ages);
        }
    }

    /// Shrinks to `pages` in place: one sequential pass from the first page to
    /// the last; no key moves to a later page. Drops dead slots. There must be
    /// room for the live ones: none at all fit in no pages.
    pub(crate) fn shrink(&mut self, pages: u32, ages: Ages) {
        self.end_growth(ages);
        let stashed = self.stash.take(self.pages.budget());
        for page in 0..self.pages.len() {
            let (held, count) = self.take_page(page, ages);
            for slot in &held[..count] {
                self.insert_into(home_page(slot.code(), pages), *slot, ages);
            }
        }
        for slot in stashed.into_iter().filter(|slot| ages.is_live(slot.tag())) {
            self.insert_into(home_page(slot.code(), pages), slot, ages);
        }
        self.cursor = 0;
        self.pages.shrink(pages);
        self.layout = Layout::of(pages);
    }

    /// Empties a page; the live slots that it held, and how many.
    fn take_page(&self, page: u32, ages: Ages) -> ([Slot; SLOTS_PER_PAGE as usize], usize) {
        let mut held = [Slot::EMPTY; SLOTS_PER_PAGE as usize];
        let live = self.pages.page(page).lines().iter().flat_map(|line| line.take(ages));
        let count = held.iter_mut().zip(live).map(|(place, slot)| *place = slot).count();
        (held, count)
    }

    /// Empties one live slot, the next from the sweep's cursor on, or one of
    /// the stash when that has more than its share; which one it was.
    pub(crate) fn evict_one(&mut self, ages: Ages) -> Option<Slot> {
        if self.stash.len() as u32 > self.lines() / STASH_SHARE
            && let Some(slot) = self.pop_stashed(ages)
        {
            return Some(slot);
        }
        for _ in 0..self.lines() {
            let line = self.line(self.cursor);
            if let Some(slot) = line.take_live(ages) {
                return Some(slot);
            }
            // The cursor passes: the sweep will not come here soon.
            line.clear_dead(ages);
            self.cursor = (self.cursor + 1) % self.lines();
        }
        self.pop_stashed(ages)
    }

    /// Takes the last live slot out of the stash, and the dead ones behind it:
    /// buckets that were given up are swept no sooner than time goes on.
    fn pop_stashed(&mut self, ages: Ages) -> Option<Slot> {
        std::iter::from_fn(|| self.stash.pop()).find(|slot| ages.is_live(slot.tag()))
    }

    /// Visits every live slot, to read or to change its address.
    pub(crate) fn for_each_live(&mut self, ages: Ages, mut visit: impl FnMut(&mut Slot)) {
        for page in 0..self.pages.len() {
            for line in self.pages.page(page).lines() {
                line.for_each_live(ages, &mut visit);
            }
        }
        self.stash.iter_mut().filter(|slot| ages.is_live(slot.tag())).for_each(visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Budget;
    use crate::time::Bucket;
    use std::sync::Arc;

    fn table() -> Table {
        let (_extents, mut all) = Extents::new(1, 0, Arc::new(Budget::new(None)));
        Table::new(all.remove(0))
    }

    fn ages(newest: i64) -> Ages {
        Ages::new(Bucket(newest), Bucket(newest - 3), 20)
    }

    /// A slot whose bits all depend on `number`.
    fn slot(number: u64, bucket: i64, ages: Ages) -> Slot {
        let bits = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        Slot::of_fingerprint(bits.wrapping_mul(0xD6E8_FEB8_6659_FD93))
            .tagged(ages.tag(Bucket(bucket)))
    }

    fn finds(table: &Table, slot: Slot, ages: Ages) -> bool {
        table.pages() > 0
            && table
                .find(slot, Identity::FINGERPRINT, ages, |_| true)
                .is_ok_and(|(_, found)| found == slot)
    }

    #[test]
    fn every_slot_is_found_at_every_size() {
        let (mut table, ages) = (table(), ages(5));
        assert!(!finds(&table, slot(0, 5, ages), ages));
        let mut held = 0;
        for pages in [1, 2, 3, 4, 5, 6, 8, 10, 13] {
            table.grow(pages, ages);
            while held < u64::from(pages * SLOTS_PER_PAGE) * 85 / 100 {
                table.insert(slot(held, 5, ages), ages);
                held += 1;
            }
            assert!((0..held).all(|number| finds(&table, slot(number, 5, ages), ages)));
            assert!((held..2 * held).all(|number| !finds(&table, slot(number, 5, ages), ages)));
        }
        assert!(table.stash.len() > 0, "the stash was part of this test");
        for pages in [14, 20, 13, 12] {
            let resize = if pages > table.pages() { Table::grow } else { Table::shrink };
            resize(&mut table, pages, ages);
            assert!((0..held).all(|number| finds(&table, slot(number, 5, ages), ages)));
        }
    }

    #[test]
    fn a_table_answers_between_the_steps_of_its_growth() {
        let (mut table, ages) = (table(), ages(5));
        table.grow(4, ages);
        let (mut held, mut stashed) = (0, 0);
        for pages in [5, 7, 8, 11] {
            while held < u64::from(table.pages() * SLOTS_PER_PAGE) * 85 / 100 {
                table.insert(slot(held, 5, ages), ages);
                held += 1;
            }
            stashed += table.stash.len();
            table.grow(pages, ages);
            while table.is_growing() {
                table.grow_on(ages);
                (held..held + 5).for_each(|number| table.insert(slot(number, 5, ages), ages));
                held += 5;
                let other = slot(held / 2, 5, ages);
                let place = table.find(other, Identity::FINGERPRINT, ages, |_| true);
                table.remove(place.expect("it was put in").0, other);
                table.insert(other, ages);
                assert!((0..held).all(|number| finds(&table, slot(number, 5, ages), ages)));
            }
        }
        assert!(stashed > 0, "the stash was part of this test");
        let mut live = 0;
        table.for_each_live(ages, |_| live += 1);
        assert_eq!(live, held, "each once");
    }

    #[test]
    fn resizing_drops_the_dead_and_keeps_the_live() {
        let mut table = table();
        table.grow(4, ages(5));
        (0..1_000).for_each(|n| table.insert(slot(n, 2 + n as i64 % 4, ages(5)), ages(5)));
        for pages in [6, 2] {
            let resize = if pages > table.pages() { Table::grow } else { Table::shrink };
            resize(&mut table, pages, ages(7));
            let mut live = 0;
            table.for_each_live(ages(7), |_| live += 1);
            assert_eq!(live, 500);
        }
        table.shrink(0, ages(40));
        assert_eq!((table.pages(), table.stash.len()), (0, 0));
    }

    #[test]
    fn a_dead_slot_is_a_free_slot() {
        let mut table = table();
        table.grow(1, ages(0));
        for bucket in 0..300 {
            let ages = ages(bucket);
            table.sweep(1, 16, ages);
            (0..80).for_each(|n| table.insert(slot(bucket as u64 * 80 + n, bucket, ages), ages));
        }
        assert!(table.stash.len() < 8, "{} keys in the stash", table.stash.len());
    }

    #[test]
    fn equal_codes_overflow_into_the_stash_and_stay_apart() {
        let (mut table, ages) = (table(), ages(3));
        table.grow(1, ages);
        let same_code = |n: u64| Slot::of_fingerprint(7 << 42 | n << 8).tagged(ages.tag(Bucket(3)));
        (0..500).for_each(|n| table.insert(same_code(n), ages));
        assert!((0..500).all(|n| finds(&table, same_code(n), ages)));
        assert!(!finds(&table, same_code(500), ages));
        let in_lines = (1 + page::ALTERNATES as usize) * SLOTS;
        assert_eq!(table.stash.len(), 500 - in_lines);
    }

    #[test]
    fn removed_and_replaced_slots_are_as_told_wherever_they_lie() {
        let (mut table, ages) = (table(), ages(3));
        table.grow(1, ages);
        let same_code =
            |n: u64, b: i64| Slot::of_fingerprint(7 << 42 | n << 8).tagged(ages.tag(Bucket(b)));
        (0..60).for_each(|n| table.insert(same_code(n, 1), ages));
        let later = Ages::new(Bucket(6), Bucket(3), 20);
        for n in 0..60 {
            let place = table.find(same_code(n, 1), Identity::FINGERPRINT, ages, |_| true);
            table.replace(place.unwrap().0, same_code(n, 3), ages);
            assert!(
                finds(&table, same_code(n, 3), later),
                "a refreshed key outlives its old bucket"
            );
        }
        for n in 0..60 {
            let found = table.find(same_code(n, 3), Identity::FINGERPRINT, ages, |_| true);
            table.remove(found.unwrap().0, same_code(n, 3));
            assert!(!finds(&table, same_code(n, 3), ages));
        }
    }

    #[test]
    fn a_full_round_of_sweeps_visits_every_line() {
        let mut table = table();
        table.grow(3, ages(0));
        (0..600).for_each(|n| table.insert(slot(n, 0, ages(0)), ages(0)));
        (1..=3).for_each(|bucket| table.sweep(1, 16, ages(bucket)));
        (4..20).for_each(|bucket| table.sweep(1, 16, ages(bucket)));
        for line in (0..table.pages()).flat_map(|page| table.pages.page(page).lines()) {
            assert!(line.slots().all(|slot| slot == Slot::EMPTY));
        }
    }

    #[test]
    fn eviction_takes_each_key_once_wherever_it_lies() {
        let (mut table, ages) = (table(), ages(3));
        table.grow(1, ages);
        (0..440).for_each(|n| table.insert(slot(n, 3, ages), ages));
        let stashed = table.stash.len();
        let mut gone: Vec<Slot> = (0..100).filter_map(|_| table.evict_one(ages)).collect();
        assert!(gone.iter().all(|slot| !finds(&table, *slot, ages)));
        assert_eq!((0..440).filter(|n| finds(&table, slot(*n, 3, ages), ages)).count(), 340);
        assert!(stashed > 4 && table.stash.len() == 4, "the stash kept its share");
        gone.extend(std::iter::from_fn(|| table.evict_one(ages)));
        assert_eq!(gone.len(), 440);
    }

    #[test]
    fn eviction_takes_no_dead_key_from_the_stash() {
        let (mut table, before) = (table(), ages(3));
        table.grow(1, before);
        let same_code =
            |n: u64, b: i64| Slot::of_fingerprint(7 << 42 | n << 8).tagged(before.tag(Bucket(b)));
        (0..60).for_each(|n| table.insert(same_code(n, 2 + n as i64 % 2), before));
        table.for_each_live(before, |slot| {
            if *slot == same_code(59, 3) {
                *slot = Slot::EMPTY;
            }
        });
        let given_up = Ages::new(Bucket(3), Bucket(3), 20);
        let gone: Vec<Slot> = std::iter::from_fn(|| table.evict_one(given_up)).collect();
        assert_eq!(gone.len(), 29);
        assert!(gone.iter().all(|slot| given_up.is_live(slot.tag())));
    }
}
