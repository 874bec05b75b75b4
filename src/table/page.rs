//! A page: 64 lines, within which a key has its home and its alternates.
//!
//! A key lies in its home line if there is room, else in one of three others
//! of the same page, so that one entry of the TLB serves them all. Which lines
//! these are depends on the key's code alone, not on the size of the table: a
//! key that moves to another page keeps its place in it.

use super::line::{Ages, Code, Identity, Line, Slot};
use crate::map::prefetch;

/// Lines in a page.
pub(crate) const LINES: u32 = 64;

/// How many lines besides the home may hold a key. At a load of 0.8 the home
/// is too full for 9 keys in 100; with one alternate 2 of these went on to the
/// stash, with three 3 in 1,000 do (simulated; a new key then reads 1.05 lines
/// on average).
pub(super) const ALTERNATES: u32 = 3;

/// How many of them are fetched ahead where the home line seems full: a second
/// one made half-new batches 8 % faster in a rolling window, a third one
/// nothing (measured at 10 M keys).
const LIKELY_ALTERNATES: usize = 2;

/// 4 KiB of table memory.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(crate) struct Page {
    lines: [Line; LINES as usize],
}

const _: () = assert!(size_of::<Page>() == 4096);

/// Where a slot lies in its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InPage {
    line: u8,
    index: u8,
}

/// What a look-up in a page came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    At(InPage, Slot),
    /// Not in the page; perhaps in the stash.
    PerhapsStashed(Vacancy),
    Nowhere(Vacancy),
}

/// Where a key that was not found can be put, as long as nothing else is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vacancy {
    /// A free place in its home line.
    at_home: Option<u8>,
}

impl Vacancy {
    #[inline]
    fn in_home(line: &Line, ages: Ages) -> Self {
        Self { at_home: line.free_slot(ages).map(|index| index as u8) }
    }
}

/// The lines in which keys of one code belong.
#[derive(Clone, Copy)]
struct Home {
    line: u32,
    /// Odd, so that the alternates differ from the home and from one another.
    stride: u32,
}

impl Home {
    #[inline]
    const fn of(code: Code) -> Self {
        Self { line: home_line(code), stride: (code.0 >> 6) % 32 * 2 + 1 }
    }

    #[inline]
    fn alternates(self) -> impl Iterator<Item = usize> {
        (1..=ALTERNATES).map(move |step| ((self.line + step * self.stride) % LINES) as usize)
    }
}

/// The line in which keys of `code` belong.
#[inline]
pub(super) const fn home_line(code: Code) -> u32 {
    code.0 % LINES
}

impl Page {
    /// Finds a live slot that agrees with `want` and that `accept` takes for
    /// the key's own. One line, unless the home says that some of its keys of
    /// this kind lie elsewhere.
    #[inline]
    pub(super) fn find(
        &self,
        want: Slot,
        identity: Identity,
        ages: Ages,
        accept: impl FnMut(Slot) -> bool,
    ) -> Found {
        let line = &self.lines[home_line(want.code()) as usize];
        if line.surely_lacks(want, identity) {
            return Found::Nowhere(Vacancy::in_home(line, ages));
        }
        self.find_thoroughly(want, identity, ages, accept)
    }

    /// Apart from `find` to keep that small: most keys whose shard is locked
    /// for them are new.
    #[inline(never)]
    fn find_thoroughly(
        &self,
        want: Slot,
        identity: Identity,
        ages: Ages,
        mut accept: impl FnMut(Slot) -> bool,
    ) -> Found {
        let home = Home::of(want.code());
        let line = &self.lines[home.line as usize];
        if let Some(found) = self.find_in(home.line as usize, want, identity, ages, &mut accept) {
            return found;
        }
        if line.may_have_spilled(want.code(), ages) {
            for line in home.alternates() {
                if let Some(found) = self.find_in(line, want, identity, ages, &mut accept) {
                    return found;
                }
            }
        }
        let vacancy = Vacancy::in_home(line, ages);
        if line.may_have_stashed(want.code(), ages) {
            return Found::PerhapsStashed(vacancy);
        }
        Found::Nowhere(vacancy)
    }

    #[inline]
    fn find_in(
        &self,
        line: usize,
        want: Slot,
        identity: Identity,
        ages: Ages,
        accept: &mut impl FnMut(Slot) -> bool,
    ) -> Option<Found> {
        for (index, slot) in self.lines[line].matches(want, identity, ages) {
            if accept(slot) {
                return Some(Found::At(InPage { line: line as u8, index: index as u8 }, slot));
            }
        }
        None
    }

    /// Puts a tagged slot where it belongs. False if neither its home nor any
    /// alternate has room: then the home notes that it is in the stash.
    #[inline]
    #[must_use]
    pub(super) fn insert(&self, slot: Slot, ages: Ages) -> bool {
        let line = &self.lines[home_line(slot.code()) as usize];
        self.fill(Vacancy::in_home(line, ages), slot, ages)
    }

    /// Puts a tagged slot where a look-up said that it can be put; else as
    /// `insert`.
    #[inline]
    #[must_use]
    pub(super) fn fill(&self, vacancy: Vacancy, slot: Slot, ages: Ages) -> bool {
        let home = Home::of(slot.code());
        match vacancy.at_home {
            Some(index) => {
                self.lines[home.line as usize].set_slot(index.into(), slot);
                true
            }
            None => self.insert_elsewhere(home, slot, ages),
        }
    }

    #[cold]
    fn insert_elsewhere(&self, home: Home, slot: Slot, ages: Ages) -> bool {
        for line in home.alternates() {
            if let Some(index) = self.lines[line].free_slot(ages) {
                self.lines[line].set_slot(index, slot);
                self.lines[home.line as usize].note_spilled(slot, ages);
                return true;
            }
        }
        self.note_stashed(slot, ages);
        false
    }

    /// Notes at its home that a key is in the stash.
    pub(super) fn note_stashed(&self, slot: Slot, ages: Ages) {
        self.lines[home_line(slot.code()) as usize].note_stashed(slot, ages);
    }

    /// Replaces a slot by the same key in another bucket or at another
    /// address.
    #[inline]
    pub(super) fn replace(&self, at: InPage, slot: Slot, ages: Ages) {
        self.lines[usize::from(at.line)].set_slot(at.index.into(), slot);
        let home = home_line(slot.code());
        if u32::from(at.line) != home {
            self.lines[home as usize].note_spilled(slot, ages);
        }
    }

    /// Empties a slot.
    pub(super) fn remove(&self, at: InPage) {
        self.lines[usize::from(at.line)].set_slot(at.index.into(), Slot::EMPTY);
    }

    #[inline]
    pub(super) fn lines(&self) -> &[Line; LINES as usize] {
        &self.lines
    }
}

/// What can be read of a page without its shard's lock.
///
/// Single words are read, each at a moment of its own: a slot that was found
/// was in the shard's table then, and nothing follows from one that was not.
#[derive(Clone, Copy)]
pub(crate) struct Glance<'a>(&'a Page);

impl<'a> Glance<'a> {
    pub(super) const fn new(page: &'a Page) -> Self {
        Self(page)
    }

    #[inline]
    fn home(self, want: Slot) -> &'a Line {
        &self.0.lines[home_line(want.code()) as usize]
    }

    /// Asks the processor to fetch the home line of a key.
    #[inline]
    pub(crate) fn prefetch_home(self, want: Slot) {
        prefetch(self.home(want));
    }

    /// Is a slot with the fingerprint of `want`, and live, in its home line?
    #[inline]
    pub(crate) fn holds_at_home(self, want: Slot, ages: &Ages) -> bool {
        self.home(want).holds(want, ages)
    }

    /// The first live slot of its home line with the code of `want`.
    #[inline]
    pub(crate) fn namesake_at_home(self, want: Slot, ages: &Ages) -> Option<Slot> {
        self.home(want).namesake(want, ages)
    }

    /// Does it seem that a key like `want` which belongs in the home line lies in
    /// an alternate?
    #[inline]
    pub(crate) fn seems_spilled(self, want: Slot, ages: &Ages) -> bool {
        self.home(want).may_have_spilled(want.code(), *ages)
    }

    /// The first live slot of its alternate lines with the code of `want`.
    #[inline]
    pub(crate) fn namesake_elsewhere(self, want: Slot, ages: &Ages) -> Option<Slot> {
        let mut alternates = Home::of(want.code()).alternates();
        alternates.find_map(|line| self.0.lines[line].namesake(want, ages))
    }

    /// The first slot of the first line.
    #[cfg(all(test, loom))]
    pub(super) fn first_slot(self) -> Slot {
        self.home(Slot::EMPTY).slots().next().expect("a line has slots")
    }

    /// A free place in the home line of a key that is surely not in the table.
    /// Only for whoever holds the shard's lock, as is the next.
    #[inline]
    pub(crate) fn room_at_home(self, want: Slot, identity: Identity, ages: Ages) -> Option<usize> {
        let line = self.home(want);
        if line.surely_lacks(want, identity) { line.free_slot(ages) } else { None }
    }

    /// Puts a tagged slot into a free place of its home line.
    #[inline]
    pub(crate) fn put_at_home(self, place: usize, slot: Slot) {
        self.home(slot).set_slot(place, slot);
    }

    /// Asks the processor to fetch where a key most likely lies, or would come
    /// to lie, that is not in its home line.
    #[inline]
    pub(crate) fn prefetch_alternates(self, want: Slot) {
        if self.home(want).seems_full() {
            for line in Home::of(want.code()).alternates().take(LIKELY_ALTERNATES) {
                prefetch(&raw const self.0.lines[line]);
            }
        }
    }
}
