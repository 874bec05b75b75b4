//! Which page a key belongs in, also while the table grows.

use super::line::{Code, Slot};

/// How keys are spread over a table's pages, in one word:
/// `[ left: 20 | before: 20 | pages: 20 ]`.
///
/// A table grows in place and page by page, from the last to the first: the
/// first `left` pages still hold their keys as a table of `before` pages does,
/// the others as one of `pages`. Because pages keep the order of the keys, no
/// key moves to an earlier page, so the two never meet in one page. Both are
/// zero while the table does not grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout(u64);

const BITS: u32 = 20;
const PAGES: u64 = (1 << BITS) - 1;

impl Layout {
    /// That of a table without pages.
    pub(crate) const NONE: Self = Self::of(0);

    #[inline]
    pub(super) const fn of(pages: u32) -> Self {
        Self(pages as u64)
    }

    #[inline]
    pub(super) const fn growing(pages: u32, before: u32, left: u32) -> Self {
        match left {
            0 => Self::of(pages),
            _ => Self(pages as u64 | (before as u64) << BITS | (left as u64) << (2 * BITS)),
        }
    }

    #[inline]
    pub(crate) const fn is_growing(self) -> bool {
        self.0 > PAGES
    }

    #[inline]
    pub(super) const fn pages(self) -> u32 {
        (self.0 & PAGES) as u32
    }

    #[inline]
    pub(super) const fn before(self) -> u32 {
        (self.0 >> BITS & PAGES) as u32
    }

    #[inline]
    pub(super) const fn left(self) -> u32 {
        (self.0 >> (2 * BITS)) as u32
    }

    /// The number of the page in which a key belongs. The table must have one.
    #[inline]
    pub(crate) fn home(self, slot: Slot) -> u32 {
        if self.is_growing() {
            let before = home_page(slot.code(), self.before());
            if before < self.left() {
                return before;
            }
        }
        home_page(slot.code(), self.pages())
    }

    #[inline]
    pub(crate) const fn to_word(self) -> u64 {
        self.0
    }

    #[inline]
    pub(crate) const fn of_word(word: u64) -> Self {
        Self(word)
    }
}

/// The page in which keys of `code` belong, in a table of `pages`.
///
/// Multiply-shift (Lemire 2019) on the code's upper bits, so that pages keep
/// their order when the table grows; the low bits choose the line.
#[inline]
pub(super) fn home_page(code: Code, pages: u32) -> u32 {
    ((u64::from(code.0) * u64::from(pages)) >> Code::BITS) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_holds_a_layout() {
        let layout = Layout::growing(65_536, 52_429, 52_428);
        assert_eq!((layout.pages(), layout.before(), layout.left()), (65_536, 52_429, 52_428));
        assert_eq!(Layout::growing(7, 6, 0), Layout::of(7));
    }

    #[test]
    fn pages_of_the_old_kind_and_of_the_new_do_not_meet() {
        let (pages, before) = (10, 8);
        for left in 0..=before {
            let layout = Layout::growing(pages, before, left);
            for code in (0..1_u64 << Code::BITS).step_by(997) {
                let slot = Slot::of_fingerprint(code << (u64::BITS - Code::BITS));
                let is_old = home_page(slot.code(), before) < left;
                assert_eq!(layout.home(slot) < left, is_old);
            }
        }
    }
}
