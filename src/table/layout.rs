//! Which page a key belongs in, also while the table grows.

use super::line::{Code, Slot};

/// How keys are spread over a table's pages.
///
/// A table grows in place and page by page, from the last to the first: the
/// first `left` pages still hold their keys as a table of `before` pages does,
/// the others as one of `pages`. Because pages keep the order of the keys, no
/// key moves to an earlier page, so the two never meet in one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(super) pages: u32,
    pub(super) before: u32,
    pub(super) left: u32,
}

const PAGES_BITS: u32 = 20;
const PAGES: u64 = (1 << PAGES_BITS) - 1;

impl Layout {
    /// The number of the page in which a key belongs. The table must have one.
    #[inline]
    pub(crate) fn home(self, slot: Slot) -> u32 {
        let before = home_page(slot.code(), self.before);
        if before < self.left { before } else { home_page(slot.code(), self.pages) }
    }

    /// All of it in one word.
    #[inline]
    pub(crate) fn to_word(self) -> u64 {
        u64::from(self.pages)
            | u64::from(self.before) << PAGES_BITS
            | u64::from(self.left) << (2 * PAGES_BITS)
    }

    #[inline]
    pub(crate) const fn of_word(word: u64) -> Self {
        Self {
            pages: (word & PAGES) as u32,
            before: (word >> PAGES_BITS & PAGES) as u32,
            left: (word >> (2 * PAGES_BITS) & PAGES) as u32,
        }
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
        let layout = Layout { pages: 65_536, before: 52_429, left: 52_428 };
        assert_eq!(Layout::of_word(layout.to_word()), layout);
    }

    #[test]
    fn pages_of_the_old_kind_and_of_the_new_do_not_meet() {
        let (pages, before) = (10, 8);
        for left in 0..=before {
            let layout = Layout { pages, before, left };
            for code in (0..1 << 24).step_by(997) {
                let slot = Slot::of_fingerprint(code << 40);
                let is_old = home_page(slot.code(), before) < left;
                assert_eq!(layout.home(slot) < left, is_old);
            }
        }
    }
}
