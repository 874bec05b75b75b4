//! Table memory: pages of 64 lines, handed out to shards.
//!
//! A *slab* holds one page for every shard: slab `k` is where each shard's
//! page `k` lies. All shards are of about one size, because keys are spread
//! by a hash, so a slab is used by nearly all shards or by none. This gives
//!
//! - no allocator and no fragmentation: a shard's page `k` has one place;
//! - growth and shrinkage in place: a shard takes or drops pages at its end,
//!   the others keep their content;
//! - large maps, which huge pages need, for small tables;
//! - addresses that can be computed, and so prefetched, without the shard's
//!   lock.
//!
//! Slabs are mapped when the first shard grows into them and unmapped when the
//! last one has left. All `unsafe` of the table is in this file.

// The one place where table memory becomes references.
#![expect(unsafe_code, reason = "shards own disjoint pages of shared maps; see `Pages`")]

use super::line::Line;
use crate::memory::Budget;
use memmap2::{MmapMut, MmapRaw};
use parking_lot::Mutex;
use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Lines in a page.
pub(crate) const LINES: u32 = 64;

/// 4 KiB of table memory. A key's home line and its alternates share one, so
/// that they share an entry of the TLB.
pub(crate) type Page = [Line; LINES as usize];

const PAGE_BYTES: usize = size_of::<Page>();

/// The most pages that a shard can have: 24 million keys.
const MAX_PAGES: u32 = 1 << 16;

const HUGE_PAGE_BYTES: usize = 2 << 20;

/// The table memory of all shards of one deduper.
pub(crate) struct Slabs {
    shards: u32,
    /// Where each slab begins; null while it is not mapped.
    ///
    /// `Relaxed`: a base is stored under the lock of `extents`, and whoever
    /// reads it to reach a page has since held that lock in `acquire`. A
    /// prefetch may read any value, since it reaches nothing.
    bases: Box<[AtomicPtr<Page>]>,
    extents: Mutex<Vec<Extent>>,
    budget: Arc<Budget>,
}

/// One map: the slabs from `first` up to `end`.
struct Extent {
    first: u32,
    end: u32,
    /// Number of shards that own a page in it.
    users: u32,
    bytes: u64,
    _map: MmapRaw,
}

impl Slabs {
    /// Table memory for `shards` shards, and the (empty) share of each.
    pub(crate) fn new(shards: u32, budget: Arc<Budget>) -> (Arc<Self>, Vec<Pages>) {
        let slabs =
            Arc::new(Self { shards, bases: null_bases(), extents: Mutex::new(Vec::new()), budget });
        let empty = |shard| Pages { slabs: Arc::clone(&slabs), shard, len: 0 };
        let all = (0..shards).map(empty).collect();
        (slabs, all)
    }

    /// The bytes of one page for each of `shards` shards.
    pub(crate) const fn slab_bytes(shards: u32) -> u64 {
        shards as u64 * PAGE_BYTES as u64
    }

    /// Asks the processor to fetch a line that will be needed soon. Any
    /// arguments are fine: a wrong address fetches a line in vain.
    #[inline]
    pub(crate) fn prefetch(&self, shard: u32, page: u32, line: u32) {
        let Some(base) = self.bases.get(page as usize) else { return };
        let page = base.load(Ordering::Relaxed).wrapping_add(shard as usize);
        prefetch(page.cast::<Line>().wrapping_add(line as usize));
    }

    /// Lets one shard, which has `from` pages, have `to`. Returns how many it
    /// has then: fewer if the budget or the system grants no more.
    fn acquire(&self, from: u32, to: u32) -> u32 {
        let to = to.min(MAX_PAGES);
        let mut extents = self.extents.lock();
        let mapped = extents.last().map_or(0, |last| last.end);
        let top = if mapped < to { self.map_up_to(&mut extents, mapped, to) } else { to };
        count_users(&mut extents, from, top, |users| *users += 1);
        top
    }

    /// Takes one shard's pages from `to` up to `from` back.
    fn release(&self, from: u32, to: u32) {
        let mut extents = self.extents.lock();
        count_users(&mut extents, to, from, |users| *users -= 1);
        while let Some(unused) = extents.pop_if(|extent| extent.users == 0) {
            for base in &self.bases[unused.first as usize..unused.end as usize] {
                base.store(ptr::null_mut(), Ordering::Relaxed);
            }
            self.budget.release(unused.bytes);
        }
    }

    /// Maps the slabs from `mapped` up to `to`, or as many as are granted.
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
        let bytes = Self::slab_bytes(self.shards) * u64::from(end - first);
        if !self.budget.try_reserve(bytes) {
            return None;
        }
        let Some((map, start)) = map_aligned(bytes as usize) else {
            self.budget.release(bytes);
            return None;
        };
        for (slab, base) in self.bases[first as usize..end as usize].iter().enumerate() {
            let base_of_slab = start.wrapping_add(slab * self.shards as usize);
            base.store(base_of_slab, Ordering::Relaxed);
        }
        Some(Extent { first, end, users: 0, bytes, _map: map })
    }
}

impl fmt::Debug for Slabs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slabs").field("shards", &self.shards).finish_non_exhaustive()
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

/// As many null pointers as there can be slabs. They take memory only once
/// written: the zeroed pages come from the system untouched.
fn null_bases() -> Box<[AtomicPtr<Page>]> {
    let zeroed = vec![0_usize; MAX_PAGES as usize].into_boxed_slice();
    let bases = Box::into_raw(zeroed) as *mut [AtomicPtr<Page>];
    // SAFETY: `AtomicPtr` has the size and alignment of a pointer, and zero is
    // a valid (null) one; the box was just given up by `into_raw`.
    unsafe { Box::from_raw(bases) }
}

/// Maps zeroed memory, where large aligned to huge pages and advised to use
/// them (worth 1.2 to 2 times on tables beyond the TLB's reach).
fn map_aligned(bytes: usize) -> Option<(MmapRaw, *mut Page)> {
    let is_large = bytes >= HUGE_PAGE_BYTES;
    let padding = if is_large { HUGE_PAGE_BYTES } else { 0 };
    let map = MmapRaw::from(MmapMut::map_anon(bytes + padding).ok()?);
    let start = map.as_mut_ptr();
    let aligned =
        if is_large { start.wrapping_add(start.align_offset(HUGE_PAGE_BYTES)) } else { start };
    #[cfg(target_os = "linux")]
    if is_large {
        // Best effort: a kernel without huge pages refuses, to no harm.
        let _ = map.advise(memmap2::Advice::HugePage);
    }
    Some((map, aligned.cast()))
}

#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn prefetch<T>(address: *const T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: prefetching has no effect on memory and never faults, whatever
    // the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn prefetch<T>(_address: *const T) {}

/// One shard's share of the table memory: its pages `0..len`, owned.
///
/// `Slabs::new` makes exactly one `Pages` per shard number, it cannot be
/// cloned, and a shard's page `k` lies in slab `k` at the shard's number: so
/// two `Pages` never reach the same page, and within one, the borrow checker
/// does the rest. Slabs up to `len` stay mapped while this shard is counted as
/// a user of theirs. Pages not owned by any shard are zero.
#[derive(Debug)]
pub(crate) struct Pages {
    slabs: Arc<Slabs>,
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
        self.len = self.slabs.acquire(self.len, len);
    }

    /// Drops the pages from `len` on. They must be zero.
    pub(crate) fn shrink(&mut self, len: u32) {
        debug_assert!(len <= self.len);
        self.slabs.release(self.len, len);
        self.len = len;
    }

    /// A line of page `page`.
    #[inline]
    pub(crate) fn line(&self, page: u32, line: u32) -> &Line {
        let pointer = self.page(page);
        // SAFETY: `page` checked that this share owns the page (see the type)
        // and that its slab is mapped; zeroed memory is a valid `Page`. The
        // result borrows `self`, so no `&mut` to the page exists.
        let page = unsafe { &*pointer };
        &page[line as usize]
    }

    /// A line of page `page`, to change.
    #[inline]
    pub(crate) fn line_mut(&mut self, page: u32, line: u32) -> &mut Line {
        let pointer = self.page(page);
        // SAFETY: as in `line`; the result borrows `self` mutably, so no other
        // reference to the page exists.
        let page = unsafe { &mut *pointer };
        &mut page[line as usize]
    }

    /// Empties a page and returns what it held.
    pub(crate) fn take(&mut self, page: u32) -> Page {
        let pointer = self.page(page);
        // SAFETY: as in `line_mut`.
        std::mem::replace(unsafe { &mut *pointer }, [Line::default(); LINES as usize])
    }

    #[inline]
    fn page(&self, page: u32) -> *mut Page {
        assert!(page < self.len, "a page beyond the shard's end");
        // Relaxed: see `Slabs::bases`.
        let base = self.slabs.bases[page as usize].load(Ordering::Relaxed);
        base.wrapping_add(self.shard as usize)
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.slabs.budget
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
        let (_slabs, mut shares) = Slabs::new(4, budget(None));
        for share in &mut shares {
            share.grow(3);
        }
        for (shard, share) in shares.iter_mut().enumerate() {
            for page in 0..3 {
                assert!(share.line(page, 63).slots().all(|slot| slot == Slot::EMPTY));
                let slot = Slot::of_fingerprint((shard as u64) << 48 | u64::from(page) << 40);
                share.line_mut(page, 63).set_slot(7, slot);
            }
        }
        for (shard, share) in shares.iter().enumerate() {
            for page in 0..3 {
                let slot = Slot::of_fingerprint((shard as u64) << 48 | u64::from(page) << 40);
                assert_eq!(share.line(page, 63).slots().last(), Some(slot));
            }
        }
    }

    #[test]
    fn memory_goes_back_when_the_last_shard_leaves() {
        let budget = budget(None);
        let (_slabs, mut shares) = Slabs::new(2, Arc::clone(&budget));
        shares[0].grow(5);
        shares[1].grow(3);
        assert_eq!(budget.used_bytes(), 5 * Slabs::slab_bytes(2));
        shares[0].shrink(1);
        assert_eq!(budget.used_bytes(), 5 * Slabs::slab_bytes(2), "one map, still in use");
        shares[1].shrink(0);
        shares[0].shrink(0);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn pages_come_back_zeroed() {
        let (_slabs, mut shares) = Slabs::new(2, budget(None));
        shares[0].grow(2);
        shares[1].grow(2);
        shares[0].line_mut(1, 5).set_slot(1, MARK);
        assert_eq!(shares[0].take(1)[5].slots().next(), Some(MARK));
        shares[0].shrink(1);
        shares[0].grow(2);
        assert_eq!(shares[0].line(1, 5).slots().next(), Some(Slot::EMPTY));
    }

    #[test]
    fn the_budget_bounds_growth() {
        let (_slabs, mut shares) = Slabs::new(2, budget(Some(3 * Slabs::slab_bytes(2))));
        shares[0].grow(8);
        assert_eq!(shares[0].len(), 2, "half of half of eight fits");
        shares[0].grow(3);
        assert_eq!(shares[0].len(), 3);
        shares[0].grow(4);
        assert_eq!(shares[0].len(), 3);
        shares[1].grow(4);
        assert_eq!(shares[1].len(), 3, "slabs that are mapped are free to enter");
    }

    #[test]
    #[should_panic(expected = "beyond the shard's end")]
    fn a_page_not_owned_is_out_of_reach() {
        let (_slabs, mut shares) = Slabs::new(2, budget(None));
        shares[0].grow(1);
        shares[1].line(0, 0);
    }

    #[test]
    fn large_maps_are_aligned_to_huge_pages() {
        let (map, start) = map_aligned(3 << 20).unwrap();
        assert_eq!(start as usize % HUGE_PAGE_BYTES, 0);
        assert!(start as usize + (3 << 20) <= map.as_mut_ptr() as usize + map.len());
    }
}
