//! Memory maps: large, zeroed, on huge pages where the system has them; and
//! the processor's hint to fetch from them.

#![allow(unsafe_code, reason = "prefetching and some advice have no safe names")]

use memmap2::{MmapMut, MmapRaw};

/// Bytes of a huge page on most machines.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Maps zeroed memory; the map, and where in it the `bytes` begin. Where they
/// are many they begin at a huge page, and the whole huge pages in them are
/// advised to be such (worth 1.2 to 2 times on tables beyond the TLB's reach).
/// `None` if the system has no more.
pub(crate) fn map_huge<T>(bytes: usize) -> Option<(MmapRaw, *mut T)> {
    let (map, start) = map_aligned(bytes)?;
    let offset = start.addr() - map.as_mut_ptr().addr();
    advise_huge_pages(&map, offset, bytes / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES);
    Some((map, start.cast()))
}

/// As [`map_huge`], without huge pages for the present: only what is used is
/// resident, and the system clears a little at a time. (The first touch of a
/// huge page took 3.5 ms on a virtual machine.) [`collapse`] makes it huge.
pub(crate) fn map_small<T>(bytes: usize) -> Option<(MmapRaw, *mut T)> {
    let (map, start) = map_aligned(bytes)?;
    advise_huge_pages(&map, map.len(), 0);
    Some((map, start.cast()))
}

fn map_aligned(bytes: usize) -> Option<(MmapRaw, *mut u8)> {
    let padding = if bytes >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { 0 };
    let map = MmapRaw::from(MmapMut::map_anon(bytes + padding).ok()?);
    let offset = if padding == 0 { 0 } else { map.as_mut_ptr().align_offset(HUGE_PAGE_BYTES) };
    let start = map.as_mut_ptr().wrapping_add(offset);
    Some((map, start))
}

/// Asks for huge pages in a part of a map and in nothing else: one that
/// reached beyond the memory that is accounted for would be resident whole.
/// Best effort: a kernel without huge pages refuses, to no harm.
#[cfg(target_os = "linux")]
fn advise_huge_pages(map: &MmapRaw, start: usize, bytes: usize) {
    let end = start + bytes;
    let _ = map.advise_range(memmap2::Advice::NoHugePage, 0, start);
    let _ = map.advise_range(memmap2::Advice::HugePage, start, bytes);
    let _ = map.advise_range(memmap2::Advice::NoHugePage, end, map.len() - end);
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_map: &MmapRaw, _start: usize, _bytes: usize) {}

/// Puts the [`HUGE_PAGE_BYTES`] at an aligned address of a map on one huge
/// page, with what they hold (Linux 6.1; else nothing happens). Takes the time
/// of copying them, and keeps whoever reads them meanwhile waiting.
#[cfg(target_os = "linux")]
pub(crate) fn collapse<T>(start: *mut T) {
    // SAFETY: neither advice changes what memory holds; where it is not mapped,
    // or not aligned, the system refuses.
    unsafe {
        libc::madvise(start.cast(), HUGE_PAGE_BYTES, libc::MADV_HUGEPAGE);
        libc::madvise(start.cast(), HUGE_PAGE_BYTES, libc::MADV_COLLAPSE);
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn collapse<T>(_start: *mut T) {}

/// Asks the processor to fetch the line at any address, good or bad.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn prefetch<T>(address: *const T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: prefetching has no effect on memory and never faults, whatever
    // the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
}

/// Asks the processor to fetch the line at any address, good or bad.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn prefetch<T>(_address: *const T) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_maps_are_aligned_to_huge_pages() {
        let (map, start) = map_huge::<u8>(3 << 20).unwrap();
        assert_eq!(start as usize % HUGE_PAGE_BYTES, 0);
        assert!(start as usize + (3 << 20) <= map.as_mut_ptr() as usize + map.len());
    }
}
