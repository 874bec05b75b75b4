//! What the machine's memory allows: each key is hashed as Hapax hashes it, a
//! line of a table of the same size is asked for 24 keys ahead, then read,
//! changed and written. No lock, no probe, no verdict.
//!
//! All threads walk over the whole table, as Hapax's do. A word of the line is
//! changed with relaxed atomics: memory moves whole lines, so the word stands
//! for all 64 bytes.

use super::{Engine, Room};
use hapax::Verdict;
use memmap2::{MmapMut, MmapRaw};
use std::sync::atomic::{AtomicU64, Ordering};
use xxhash_rust::xxh3::xxh3_128_with_seed;

const AHEAD: usize = 24;
const RING: usize = 32;

#[repr(C, align(64))]
struct Line([AtomicU64; 8]);

pub(super) struct LimitEngine {
    map: MmapRaw,
    lines: usize,
}

impl LimitEngine {
    pub(super) fn new(room: Room) -> Self {
        let bytes = room.table_bytes as usize;
        let map = MmapMut::map_anon(bytes).expect("memory that was found free");
        advise_huge_pages(&map);
        Self { map: MmapRaw::from(map), lines: bytes / size_of::<Line>() }
    }

    #[expect(unsafe_code, reason = "a map has no safe view as atomics")]
    fn lines(&self) -> &[Line] {
        // SAFETY: the map is owned by `self`, begins at a page and so at a
        // line, and holds `lines` of them; zeroes are valid atomics, and the
        // map is reached through them alone.
        unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast(), self.lines) }
    }
}

/// A key that waits for its line.
#[derive(Clone, Copy)]
struct Waiting {
    line: usize,
    hash: u64,
}

impl Waiting {
    /// Hashes a key and asks for its line.
    #[inline]
    fn prepare(key: &[u8], lines: &[Line]) -> Self {
        let hash = xxh3_128_with_seed(key, 7);
        let line = (((hash >> 64) * lines.len() as u128) >> 64) as usize;
        prefetch(&raw const lines[line]);
        Self { line, hash: hash as u64 }
    }

    /// Reads, changes and writes the line.
    #[inline]
    fn touch(self, lines: &[Line]) -> Verdict {
        let word = &lines[self.line].0[self.hash as usize % 8];
        // Relaxed, and not one atomic step: what is in the table means nothing.
        let before = word.load(Ordering::Relaxed);
        word.store(before ^ self.hash, Ordering::Relaxed);
        if before == self.hash { Verdict::Duplicate } else { Verdict::Unique }
    }
}

impl<const N: usize> Engine<N> for LimitEngine {
    fn check_all(&self, keys: &[[u8; N]], verdicts: &mut [Verdict]) {
        let lines = self.lines();
        let mut ring = [Waiting { line: 0, hash: 0 }; RING];
        let mut coming = keys.iter().enumerate();
        for (index, key) in coming.by_ref().take(AHEAD) {
            ring[index % RING] = Waiting::prepare(key, lines);
        }
        for (index, verdict) in verdicts.iter_mut().enumerate() {
            if let Some((ahead, key)) = coming.next() {
                ring[ahead % RING] = Waiting::prepare(key, lines);
            }
            *verdict = ring[index % RING].touch(lines);
        }
    }

    fn forget_all(&self, _keys: &[[u8; N]]) {}

    fn memory_bytes(&self) -> Option<u64> {
        Some(self.map.len() as u64)
    }
}

/// Hapax asks for huge pages too. Best effort.
#[cfg(target_os = "linux")]
fn advise_huge_pages(map: &MmapMut) {
    let _ = map.advise(memmap2::Advice::HugePage);
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_map: &MmapMut) {}

#[cfg(target_arch = "x86_64")]
#[inline]
#[expect(unsafe_code, reason = "there is no safe prefetch")]
fn prefetch(line: *const Line) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: prefetching has no effect on memory and never faults, whatever
    // the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn prefetch(_line: *const Line) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::key;

    #[test]
    fn touches_lines_all_over_the_table() {
        let room = Room { live_keys: 0, capacity: 0, table_bytes: 1 << 12 };
        let limit = LimitEngine::new(room);
        let keys: Vec<[u8; 16]> = (0..1_000).map(key).collect();
        limit.check_all(&keys, &mut vec![Verdict::Late; keys.len()]);
        let is_touched = |line: &Line| line.0.iter().any(|word| word.load(Ordering::Relaxed) != 0);
        assert_eq!(limit.lines().len(), 64);
        assert!(limit.lines().iter().all(is_touched));
    }
}
