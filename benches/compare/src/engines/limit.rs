//! What the machine's memory allows: each key is hashed as Hapax hashes it, a
//! line of a table of the same size is asked for 24 keys ahead, then read,
//! changed and written; or a few adjacent lines, as a filter's blocks have. No
//! lock, no probe, no verdict.
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
    /// Adjacent lines for each key.
    adjacent: usize,
}

impl LimitEngine {
    /// With so many adjacent lines for each key.
    pub(super) fn new(room: Room, adjacent: usize) -> Self {
        let bytes = room.table_bytes as usize;
        let map = MmapMut::map_anon(bytes).expect("memory that was found free");
        advise_huge_pages(&map);
        Self { map: MmapRaw::from(map), lines: bytes / size_of::<Line>(), adjacent }
    }

    #[expect(unsafe_code, reason = "a map has no safe view as atomics")]
    fn lines(&self) -> &[Line] {
        // SAFETY: the map is owned by `self`, begins at a page and so at a
        // line, and holds `lines` of them; zeroes are valid atomics, and the
        // map is reached through them alone.
        unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast(), self.lines) }
    }

    /// As many keys as there are in a batch, with their lines.
    fn touch_all<const N: usize, const ADJACENT: usize>(
        &self,
        keys: &[[u8; N]],
        verdicts: &mut [Verdict],
    ) {
        let (blocks, _) = self.lines().as_chunks::<ADJACENT>();
        let mut ring = [Waiting { block: 0, hash: 0 }; RING];
        let mut coming = keys.iter().enumerate();
        for (index, key) in coming.by_ref().take(AHEAD) {
            ring[index % RING] = Waiting::prepare(key, blocks);
        }
        for (index, verdict) in verdicts.iter_mut().enumerate() {
            if let Some((ahead, key)) = coming.next() {
                ring[ahead % RING] = Waiting::prepare(key, blocks);
            }
            *verdict = ring[index % RING].touch(blocks);
        }
    }
}

/// A key that waits for its lines.
#[derive(Clone, Copy)]
struct Waiting {
    block: usize,
    hash: u64,
}

impl Waiting {
    /// Hashes a key and asks for its lines.
    #[inline]
    fn prepare<const ADJACENT: usize>(key: &[u8], blocks: &[[Line; ADJACENT]]) -> Self {
        let hash = xxh3_128_with_seed(key, 7);
        let block = (((hash >> 64) * blocks.len() as u128) >> 64) as usize;
        for line in &blocks[block] {
            prefetch(line);
        }
        Self { block, hash: hash as u64 }
    }

    /// Reads, changes and writes the lines.
    #[inline]
    fn touch<const ADJACENT: usize>(self, blocks: &[[Line; ADJACENT]]) -> Verdict {
        let mut is_known = false;
        for line in &blocks[self.block] {
            let word = &line.0[self.hash as usize % 8];
            // Relaxed, and not one atomic step: what is in the table means
            // nothing.
            let before = word.load(Ordering::Relaxed);
            word.store(before ^ self.hash, Ordering::Relaxed);
            is_known |= before == self.hash;
        }
        if is_known { Verdict::Duplicate } else { Verdict::Unique }
    }
}

impl<const N: usize> Engine<N> for LimitEngine {
    fn check_all(&self, keys: &[[u8; N]], verdicts: &mut [Verdict]) {
        match self.adjacent {
            1 => self.touch_all::<N, 1>(keys, verdicts),
            2 => self.touch_all::<N, 2>(keys, verdicts),
            other => unreachable!("no limit is of {other} lines a key"),
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
        for adjacent in [1, 2] {
            let limit = LimitEngine::new(room, adjacent);
            let keys: Vec<[u8; 16]> = (0..1_000).map(key).collect();
            limit.check_all(&keys, &mut vec![Verdict::Late; keys.len()]);
            let is_touched =
                |line: &Line| line.0.iter().any(|word| word.load(Ordering::Relaxed) != 0);
            assert_eq!(limit.lines().len(), 64);
            assert!(limit.lines().iter().all(is_touched));
        }
    }
}
