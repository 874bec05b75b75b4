//! Memory maps: large, zeroed, on huge pages where the system has them; and
//! the processor's hint to fetch from them.

#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "prefetching is an instruction without a safe name")
)]

use memmap2::{MmapMut, MmapRaw};

const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Maps zeroed memory; the map, and where in it the `bytes` begin. Where they
/// are many they begin at a huge page, and the whole huge pages in them are
/// advised to be such (worth 1.2 to 2 times on tables beyond the TLB's reach).
/// `None` if the system has no more.
pub(crate) fn map_aligned<T>(bytes: usize) -> Option<(MmapRaw, *mut T)> {
    let padding = if bytes >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { 0 };
    let map = MmapRaw::from(MmapMut::map_anon(bytes + padding).ok()?);
    let start = if padding == 0 { 0 } else { map.as_mut_ptr().align_offset(HUGE_PAGE_BYTES) };
    advise_huge_pages(&map, start, bytes / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES);
    let first = map.as_mut_ptr().wrapping_add(start).cast();
    Some((map, first))
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
        let (map, start) = map_aligned::<u8>(3 << 20).unwrap();
        assert_eq!(start as usize % HUGE_PAGE_BYTES, 0);
        assert!(start as usize + (3 << 20) <= map.as_mut_ptr() as usize + map.len());
    }
}
