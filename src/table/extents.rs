//! Table memory: pages of 64 lines, handed out to shards.
//!
//! An *extent* is one map that holds the next few pages of every shard: all
//! shards are of about one size, because keys are spread by a hash, so an
//! extent is used by nearly all shards or by none. This gives
//!
//! - no allocator and no fragmentation: a shard's page `k` has one place;
//! - growth and shrinkage in place: a shard takes or drops pages at its end,
//!   the others keep their content;
//! - large maps, which huge pages need, for small tables;
//! - addresses that can be computed, and so prefetched, without the shard's
//!   lock.
//!
//! Within an extent, the pages of one shard lie side by side. (Side by side by
//! page number, a shard that grew by 15 pages touched 15 huge pages, all of
//! which the system had to clear within one check: 89 ms at 26 M keys.)
//!
//! Extents are mapped when the first shard grows into them. When the last one
//! has left, their memory goes back to the system, but the addresses stay
//! theirs: whoever glances at a line without its shard's lock finds it mapped
//! whatever became of the shard meanwhile. All `unsafe` of table memory is in
//! this file.

// The one place where table memory becomes references.
#![expect(unsafe_code, reason = "shards own disjoint pages of shared maps; see `Pages`")]

use super::page::{Glance, Page};
use crate::map::{HUGE_PAGE_BYTES, collapse, map_huge, map_small};
use crate::memory::Budget;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use memmap2::{MmapRaw, UncheckedAdvice};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

const PAGE_BYTES: usize = size_of::<Page>();

/// The most pages that a shard can have: 24 million keys. A model makes few.
const MAX_PAGES: u32 = if cfg!(loom) { 4 } else { 1 << 16 };

/// Smaller extents do without huge pages: they would be resident whole when a
/// quarter of the shards has come to them, at more than 17 bytes a key with one
/// million keys, and their tables are not far beyond the reach of the TLB.
///
/// Larger ones have them from the start where so many keys were expected. Else
/// they get them by maintenance: whoever touches a huge page first waits until
/// the system has cleared it, 3.5 ms on a virtual machine.
const LEAST_ON_HUGE_PAGES: u64 = 8 << 20;

/// The table memory of all shards of one deduper.
pub(crate) struct Extents {
    shards: u32,
    /// By page number: where the shards have that page.
    places: Box<[PagePlace]>,
    extents: Mutex<Vec<Extent>>,
    /// Up to so many pages are expected of each shard.
    expected: u32,
    budget: Arc<Budget>,
}

/// Where the shards have their page of one number: the first shard's page is
/// at `first` (null until mapped), the next one's `stride` pages later. Set
/// once.
#[repr(C)]
struct PagePlace {
    first: AtomicPtr<Page>,
    stride: AtomicUsize,
}

impl PagePlace {
    #[inline]
    fn of_shard(&self, shard: u32) -> Option<NonNull<Page>> {
        // Acquire: the stride, and the map itself, were there before.
        let first = NonNull::new(self.first.load(Ordering::Acquire))?;
        let stride = self.stride.load(Ordering::Relaxed);
        NonNull::new(first.as_ptr().wrapping_add(stride * shard as usize))
    }

    fn set(&self, first: *mut Page, stride: usize) {
        self.stride.store(stride, Ordering::Relaxed);
        self.first.store(first, Ordering::Release);
    }
}

/// One map: the pages numbered `first..end` of every shard.
struct Extent {
    first: u32,
    end: u32,
    /// Number of shards that own a page in it. Without any, it holds no memory.
    users: u32,
    bytes: u64,
    start: *mut Page,
    /// From here on its memory lies on small pages, and may be collapsed.
    small_from: u64,
    map: MmapRaw,
}

// SAFETY: the map is owned, and `start` merely points into it.
unsafe impl Send for Extent {}

impl Extent {
    /// Gives the memory back to the system, and keeps the addresses.
    fn release_memory(&mut self) {
        self.small_from = 0;
        // SAFETY: no shard owns a page in here, so all of it is zero, and it
        // stays zero or becomes so again.
        //
        // On any failure the memory merely stays.
        let _ = unsafe { self.map.unchecked_advise(UncheckedAdvice::DontNeed) };
    }
}

impl Extents {
    /// Table memory for `shards` shards, and the (empty) share of each. Up to
    /// `expected` pages a shard it lies on huge pages from the start.
    pub(crate) fn new(shards: u32, expected: u32, budget: Arc<Budget>) -> (Arc<Self>, Vec<Pages>) {
        let extents = Arc::new(Self {
            shards,
            places: unmapped_places(),
            extents: Mutex::new(Vec::new()),
            expected,
            budget,
        });
        let empty = |shard| Pages { extents: Arc::clone(&extents), shard, len: 0 };
        let all = (0..shards).map(empty).collect();
        (extents, all)
    }

    /// The bytes of one page for each of `shards` shards.
    pub(crate) const fn step_bytes(shards: u32) -> u64 {
        shards as u64 * PAGE_BYTES as u64
    }

    /// A shard's page, to glance at without the shard's lock. It may belong to
    /// the shard no longer, or not yet: then it is empty.
    #[inline]
    pub(crate) fn glance(&self, shard: u32, page: u32) -> Option<Glance<'_>> {
        debug_assert!(shard < self.shards);
        let page = self.places.get(page as usize)?.of_shard(shard)?;
        // SAFETY: the extent is mapped and stays so as long as `self`; zeroed
        // memory is a valid `Page`; all writes to it, by whom ever, are atomic.
        Some(Glance::new(unsafe { page.as_ref() }))
    }

    /// Lets one shard, which has `from` pages, have `to`. Returns how many it
    /// has then: fewer if the budget or the system grants no more.
    fn acquire(&self, from: u32, to: u32) -> u32 {
        let to = to.min(MAX_PAGES);
        let mut extents = self.extents.lock();
        let mut top = self.reserve_up_to(&mut extents, to);
        if top < to && extents.last().map_or(0, |last| last.end) == top {
            top = self.map_up_to(&mut extents, top, to);
        }
        count_users(&mut extents, from, top, |users| *users += 1);
        top
    }

    /// Reserves the memory of mapped extents without users that the pages up
    /// to `to` come to lie in. Up to where there is memory then.
    fn reserve_up_to(&self, extents: &mut [Extent], to: u32) -> u32 {
        for extent in extents.iter().filter(|extent| extent.first < to && extent.users == 0) {
            if !self.budget.try_reserve(extent.bytes) {
                return extent.first;
            }
        }
        extents.last().map_or(0, |last| last.end).min(to)
    }

    /// Takes one shard's pages from `to` up to `from` back.
    fn release(&self, from: u32, to: u32) {
        let mut extents = self.extents.lock();
        count_users(&mut extents, to, from, |users| *users -= 1);
        let left =
            extents.iter_mut().rev().take_while(|extent| extent.end > to && extent.users == 0);
        for extent in left.filter(|extent| (to..from).contains(&extent.first)) {
            extent.release_memory();
            self.budget.release(extent.bytes);
        }
    }

    /// Puts two more megabytes that are in full use on a huge page. False if
    /// there are none left.
    pub(crate) fn collapse_next(&self) -> bool {
        let Some((number, start)) = self.next_to_collapse() else { return false };
        collapse(start);
        // If the last shard left meanwhile, what was collapsed goes as well.
        let mut extents = self.extents.lock();
        if extents[number].users == 0 {
            extents[number].release_memory();
        }
        true
    }

    fn next_to_collapse(&self) -> Option<(usize, *mut Page)> {
        let mut extents = self.extents.lock();
        let mut full = extents.iter_mut().enumerate().filter(|(_, extent)| {
            extent.users == self.shards
                && extent.bytes >= LEAST_ON_HUGE_PAGES
                && extent.small_from + HUGE_PAGE_BYTES as u64 <= extent.bytes
        });
        let (number, extent) = full.next()?;
        let start = extent.start.wrapping_byte_add(extent.small_from as usize);
        extent.small_from += HUGE_PAGE_BYTES as u64;
        Some((number, start))
    }

    /// Maps the pages from `mapped` up to `to`, or as many as are granted.
    fn map_up_to(&self, extents: &mut Vec<Extent>, mapped: u32, to: u32) -> u32 {
        let mut end = to;
        while end > mapped {
            if let Some(extent) = self.map_extent(mapped, end) {
                extents.push(extent);
                return end;
            }
            end = mapped + (end - mapped) / 2;
        }
        mapped
    }

    fn map_extent(&self, first: u32, end: u32) -> Option<Extent> {
        let bytes = Self::step_bytes(self.shards) * u64::from(end - first);
        if !self.budget.try_reserve(bytes) {
            return None;
        }
        let is_huge = first < self.expected && bytes >= LEAST_ON_HUGE_PAGES;
        let map = if is_huge { map_huge::<Page> } else { map_small };
        let Some((map, start)) = map(bytes as usize) else {
            self.budget.release(bytes);
            return None;
        };
        let stride = (end - first) as usize;
        for (offset, place) in self.places[first as usize..end as usize].iter().enumerate() {
            place.set(start.wrapping_add(offset), stride);
        }
        let small_from = if is_huge { bytes } else { 0 };
        Some(Extent { first, end, users: 0, bytes, start, small_from, map })
    }
}

impl fmt::Debug for Extents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extents").field("shards", &self.shards).finish_non_exhaustive()
    }
}

/// Counts one shard in or out of the extents that begin within `from..to`:
/// those that it enters, or leaves, by going from the one length to the other.
fn count_users(extents: &mut [Extent], from: u32, to: u32, mut count: impl FnMut(&mut u32)) {
    for extent in extents.iter_mut().rev().take_while(|extent| extent.end > from) {
        if (from..to).contains(&extent.first) {
            count(&mut extent.users);
        }
    }
}

/// As many places as there can be pages, none mapped. They take memory only
/// once written: the zeroed memory comes from the system untouched.
#[cfg(not(loom))]
fn unmapped_places() -> Box<[PagePlace]> {
    let zeroed = vec![[0_usize; 2]; MAX_PAGES as usize].into_boxed_slice();
    let places = Box::into_raw(zeroed) as *mut [PagePlace];
    // SAFETY: `PagePlace` is two words, laid out in order, for which zero is
    // valid; the box was just given up by `into_raw`.
    unsafe { Box::from_raw(places) }
}

#[cfg(loom)]
fn unmapped_places() -> Box<[PagePlace]> {
    let place =
        |_| PagePlace { first: AtomicPtr::new(std::ptr::null_mut()), stride: AtomicUsize::new(0) };
    (0..MAX_PAGES).map(place).collect()
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<PagePlace>() == size_of::<[usize; 2]>());

/// One shard's share of the table memory: its pages `0..len`, owned.
///
/// `Extents::new` makes exactly one `Pages` per shard number, it cannot be
/// cloned, and each (shard, page number) has a place of its own: so two `Pages`
/// never reach the same page, and within one, the borrow checker does the rest.
/// Pages up to `len` keep their memory while this shard is counted as a user of
/// their extent. Pages not owned by any shard are zero. Others may glance at
/// pages without owning them, so there is never a `&mut Page`: the words are
/// atomic, and only the owner writes them.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Pages {
    extents: Arc<Extents>,
    shard: u32,
    len: u32,
}

impl Pages {
    #[inline]
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    /// Takes more pages, zeroed, up to `len`; or fewer, if the budget or the
    /// system grants no more.
    pub(crate) fn grow(&mut self, len: u32) {
        debug_assert!(len >= self.len);
        self.len = self.extents.acquire(self.len, len);
    }

    /// Drops the pages from `len` on. They must be zero.
    pub(crate) fn shrink(&mut self, len: u32) {
        debug_assert!(len <= self.len);
        self.extents.release(self.len, len);
        self.len = len;
    }

    /// The page of this number.
    #[inline]
    pub(crate) fn page(&self, number: u32) -> &Page {
        assert!(number < self.len, "a page beyond the shard's end");
        let place = self.extents.places[number as usize].of_shard(self.shard);
        let page = place.expect("pages up to `len` are mapped");
        // SAFETY: this share owns the page (see the type), its extent is mapped
        // and stays so, and zeroed memory is a valid `Page`.
        unsafe { page.as_ref() }
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.extents.budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::line::Slot;

    const MARK: Slot = Slot::of_fingerprint(0xABCD_0000_0000_0000);

    fn budget(limit: Option<u64>) -> Arc<Budget> {
        Arc::new(Budget::new(limit))
    }

    #[test]
    fn shards_own_disjoint_pages() {
        let (_extents, mut shares) = Extents::new(4, 0, budget(None));
        for share in &mut shares {
            share.grow(3);
        }
        for (shard, share) in shares.iter_mut().enumerate() {
            for page in 0..3 {
                assert!(share.page(page).lines()[63].slots().all(|slot| slot == Slot::EMPTY));
                let slot = Slot::of_fingerprint((shard as u64) << 48 | u64::from(page) << 40);
                share.page(page).lines()[63].set_slot(7, slot);
            }
        }
        for (shard, share) in shares.iter().enumerate() {
            for page in 0..3 {
                let slot = Slot::of_fingerprint((shard as u64) << 48 | u64::from(page) << 40);
                assert_eq!(share.page(page).lines()[63].slots().last(), Some(slot));
            }
        }
    }

    #[test]
    fn memory_goes_back_when_the_last_shard_leaves() {
        let budget = budget(None);
        let (_extents, mut shares) = Extents::new(2, 0, Arc::clone(&budget));
        shares[0].grow(5);
        shares[1].grow(3);
        assert_eq!(budget.used_bytes(), 5 * Extents::step_bytes(2));
        shares[0].shrink(1);
        assert_eq!(budget.used_bytes(), 5 * Extents::step_bytes(2), "one map, still in use");
        shares[1].shrink(0);
        shares[0].shrink(0);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn pages_come_back_zeroed() {
        let (_extents, mut shares) = Extents::new(2, 0, budget(None));
        shares[0].grow(2);
        shares[1].grow(2);
        shares[0].page(1).lines()[5].set_slot(1, MARK);
        shares[0].page(1).lines()[5].set_slot(1, Slot::EMPTY);
        shares[0].shrink(1);
        shares[0].grow(2);
        assert_eq!(shares[0].page(1).lines()[5].slots().next(), Some(Slot::EMPTY));
    }

    #[test]
    fn the_budget_bounds_growth() {
        let (_extents, mut shares) = Extents::new(2, 0, budget(Some(3 * Extents::step_bytes(2))));
        shares[0].grow(8);
        assert_eq!(shares[0].len(), 2, "half of half of eight fits");
        shares[0].grow(3);
        assert_eq!(shares[0].len(), 3);
        shares[0].grow(4);
        assert_eq!(shares[0].len(), 3);
        shares[1].grow(4);
        assert_eq!(shares[1].len(), 3, "what is mapped is free to enter");
    }

    #[test]
    #[should_panic(expected = "beyond the shard's end")]
    fn a_page_not_owned_is_out_of_reach() {
        let (_extents, mut shares) = Extents::new(2, 0, budget(None));
        shares[0].grow(1);
        shares[1].page(0);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::table::line::Slot;
    use loom::thread;

    fn mark_of(shard: u32) -> Slot {
        Slot::of_fingerprint(u64::from(shard + 1) << 48)
    }

    /// Takes a page, marks it, finds the mark, and gives the page back.
    fn come_and_go(mut share: Pages) {
        let mark = mark_of(share.shard);
        share.grow(1);
        assert_eq!(share.len(), 1);
        let line = &share.page(0).lines()[0];
        assert_eq!(line.slots().next(), Some(Slot::EMPTY));
        line.set_slot(1, mark);
        assert_eq!(share.page(0).lines()[0].slots().next(), Some(mark));
        share.page(0).lines()[0].set_slot(1, Slot::EMPTY);
        share.shrink(0);
    }

    #[test]
    fn a_page_is_its_owners_while_others_come_and_go_and_glance() {
        loom::model(|| {
            let budget = Arc::new(Budget::new(None));
            let (extents, shares) = Extents::new(2, 0, Arc::clone(&budget));
            let threads: Vec<_> =
                shares.into_iter().map(|share| thread::spawn(|| come_and_go(share))).collect();
            for shard in [1, 0] {
                let seen = extents.glance(shard, 0).map(Glance::first_slot);
                assert!(seen.is_none_or(|slot| [Slot::EMPTY, mark_of(shard)].contains(&slot)));
            }
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(budget.used_bytes(), 0);
        });
    }

    #[test]
    fn of_two_that_grow_at_once_one_maps() {
        loom::model(|| {
            let budget = Arc::new(Budget::new(Some(Extents::step_bytes(2))));
            let (_extents, shares) = Extents::new(2, 0, Arc::clone(&budget));
            let grow = |mut share: Pages| {
                thread::spawn(move || {
                    share.grow(1);
                    share
                })
            };
            let threads: Vec<_> = shares.into_iter().map(grow).collect();
            let shares = threads.into_iter().map(|thread| thread.join().unwrap());
            assert!(shares.into_iter().all(|share| share.len() == 1));
            assert_eq!(budget.used_bytes(), Extents::step_bytes(2));
        });
    }
}
