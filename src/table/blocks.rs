//! Memory for keys: blocks of 4 KiB, cut from maps of 2 MiB, a huge page each.
//!
//! Keys of verified mode live in blocks that die with their buckets. A general
//! allocator would keep most of that memory after a flood, and mix it with the
//! program's own; here a map goes back to the system with its last block.

#![expect(unsafe_code, reason = "blocks are owned, disjoint parts of shared maps; see `Block`")]

use crate::map::map_huge;
use crate::memory::Budget;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use memmap2::MmapRaw;
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes in a block.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// What an arena keeps for each of its blocks, beside the block.
const BOOKKEEPING_BYTES: usize = 88;

/// Blocks in a map, at most: a huge page.
const MOST_BLOCKS_PER_MAP: usize = 512;

/// Blocks in a map, at least.
const LEAST_BLOCKS_PER_MAP: usize = 8;

/// Why there is no block, and so no room for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The budget is exhausted: room comes when keys are given up.
    Budget,
    /// The system grants no more, or the arena is at its largest.
    System,
}

/// The blocks of all shards of one deduper.
#[derive(Debug)]
pub(crate) struct BlockPool {
    maps: Mutex<Maps>,
    blocks_per_map: usize,
    budget: Arc<Budget>,
    is_compacting: AtomicBool,
}

#[derive(Debug, Default)]
struct Maps {
    /// By number; a number is used again after its map has gone.
    maps: Vec<Option<Map>>,
    /// The maps that have free blocks. The lowest is used first, so that the
    /// higher ones run empty.
    open: BTreeSet<u32>,
    vacant: Vec<u32>,
}

#[derive(Debug)]
struct Map {
    _memory: MmapRaw,
    first: *mut [u8; BLOCK_BYTES],
    free: Vec<u16>,
}

// SAFETY: the map is owned, and `first` merely points into it.
unsafe impl Send for Map {}

impl BlockPool {
    /// Maps are a two-hundredth of the limit, 2 MiB at most.
    pub(crate) fn new(budget: Arc<Budget>, limit_bytes: Option<u64>) -> Self {
        let share = limit_bytes.map_or(u64::MAX, |limit| limit / 200) / BLOCK_BYTES as u64;
        let blocks_per_map =
            share.clamp(LEAST_BLOCKS_PER_MAP as u64, MOST_BLOCKS_PER_MAP as u64) as usize;
        let is_compacting = AtomicBool::new(false);
        Self { maps: Mutex::default(), blocks_per_map, budget, is_compacting }
    }

    /// A block, if the budget and the system grant it.
    pub(crate) fn allocate(self: &Arc<Self>) -> Result<Block, NoRoom> {
        self.allocate_if(Budget::try_reserve)
    }

    /// A block, whatever the budget, if the system grants it.
    pub(crate) fn allocate_overdrawing(self: &Arc<Self>) -> Result<Block, NoRoom> {
        self.allocate_if(|budget, bytes| {
            budget.reserve(bytes);
            true
        })
    }

    /// Is there room for `bytes` of keys within the budget?
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let maps = self.maps.lock();
        let free: usize = maps
            .open
            .iter()
            .filter_map(|n| maps.maps[*n as usize].as_ref())
            .map(|m| m.free.len())
            .sum();
        let more = self.budget.left_bytes() / self.map_bytes();
        // One block more: the key may begin in what is left of another.
        let needed = bytes.div_ceil(BLOCK_BYTES) as u64 + 1;
        free as u64 + more.saturating_mul(self.blocks_per_map as u64) >= needed
    }

    /// Runs a compaction of an arena that holds `blocks`, unless that could
    /// overdraw the budget beyond its slack: the copies come before the
    /// originals go, so only one arena at a time may do it, and none that holds
    /// much of the whole.
    pub(crate) fn compact_within_slack(&self, blocks: usize, compact: impl FnOnce()) {
        let bytes = blocks as u64 * self.map_bytes() / self.blocks_per_map as u64;
        if bytes > self.budget.left_bytes().saturating_add(self.budget.slack_bytes()) {
            return;
        }
        // Acquire and Release make the runs follow one another; the memory
        // itself is accounted for under the lock of `maps`.
        if !self.is_compacting.swap(true, Ordering::Acquire) {
            compact();
            self.is_compacting.store(false, Ordering::Release);
        }
    }

    /// What one map takes of the budget.
    const fn map_bytes(&self) -> u64 {
        (self.blocks_per_map * (BLOCK_BYTES + BOOKKEEPING_BYTES)) as u64
    }

    fn allocate_if(
        self: &Arc<Self>,
        reserve: impl FnOnce(&Budget, u64) -> bool,
    ) -> Result<Block, NoRoom> {
        let mut maps = self.maps.lock();
        let number = match maps.open.first() {
            Some(number) => *number,
            None => self.add_map(&mut maps, reserve)?,
        };
        let map = maps.maps[number as usize].as_mut().expect("an open map is mapped");
        let index = map.free.pop().expect("an open map has free blocks");
        let data = map.first.wrapping_add(usize::from(index));
        if map.free.is_empty() {
            maps.open.remove(&number);
        }
        let data = NonNull::new(data).ok_or(NoRoom::System)?;
        Ok(Block { data, map: number, index, pool: Arc::clone(self) })
    }

    fn add_map(
        &self,
        maps: &mut Maps,
        reserve: impl FnOnce(&Budget, u64) -> bool,
    ) -> Result<u32, NoRoom> {
        if !reserve(&self.budget, self.map_bytes()) {
            return Err(NoRoom::Budget);
        }
        let Some((memory, first)) = map_huge(self.blocks_per_map * BLOCK_BYTES) else {
            self.budget.release(self.map_bytes());
            return Err(NoRoom::System);
        };
        // Popped from the end: the lowest block first.
        let free = (0..self.blocks_per_map).rev().map(|index| index as u16).collect();
        let number = maps.vacant.pop().unwrap_or_else(|| {
            maps.maps.push(None);
            maps.maps.len() as u32 - 1
        });
        maps.maps[number as usize] = Some(Map { _memory: memory, first, free });
        maps.open.insert(number);
        Ok(number)
    }

    fn free(&self, number: u32, index: u16) {
        let mut maps = self.maps.lock();
        let Some(map) = maps.maps[number as usize].as_mut() else { return };
        map.free.push(index);
        let is_empty = map.free.len() == self.blocks_per_map;
        maps.open.insert(number);
        // One empty map may stay, so that a block that comes and goes does not
        // map and unmap each time.
        if is_empty && maps.open.len() > 1 {
            maps.open.remove(&number);
            maps.maps[number as usize] = None;
            maps.vacant.push(number);
            self.budget.release(self.map_bytes());
        }
    }
}

/// A block of memory, owned; it returns to its pool when dropped.
///
/// `BlockPool` hands out each (map, index) once until it is freed, so no two
/// blocks overlap, and a map stays mapped while any block of it is out. The
/// memory came zeroed from the system or was a block before: always
/// initialised.
#[derive(Debug)]
pub(crate) struct Block {
    data: NonNull<[u8; BLOCK_BYTES]>,
    map: u32,
    index: u16,
    pool: Arc<BlockPool>,
}

// SAFETY: a block owns its memory exclusively, like a `Box<[u8; N]>`, and the
// pool that it points to is `Sync`.
unsafe impl Send for Block {}
// SAFETY: shared access only reads plain bytes.
unsafe impl Sync for Block {}

impl Block {
    pub(crate) fn bytes(&self) -> &[u8; BLOCK_BYTES] {
        // SAFETY: owned, mapped and initialised; see the type.
        unsafe { self.data.as_ref() }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; BLOCK_BYTES] {
        // SAFETY: owned, mapped and initialised; see the type.
        unsafe { self.data.as_mut() }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.pool.free(self.map, self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(limit: Option<u64>) -> Arc<BlockPool> {
        Arc::new(BlockPool::new(Arc::new(Budget::new(limit)), limit))
    }

    #[test]
    fn blocks_do_not_overlap() {
        let pool = pool(None);
        let mut blocks: Vec<Block> = (0..600).map(|_| pool.allocate().unwrap()).collect();
        for (number, block) in blocks.iter_mut().enumerate() {
            block.bytes_mut().fill(number as u8);
        }
        for (number, block) in blocks.iter().enumerate() {
            assert!(block.bytes().iter().all(|byte| *byte == number as u8));
        }
    }

    #[test]
    fn maps_go_back_with_their_last_block() {
        let pool = pool(None);
        let blocks: Vec<Block> = (0..600).map(|_| pool.allocate().unwrap()).collect();
        assert_eq!(pool.budget.used_bytes(), 2 * pool.map_bytes());
        drop(blocks);
        assert_eq!(pool.budget.used_bytes(), pool.map_bytes(), "one spare map stays");
        assert!(pool.allocate().is_ok());
    }

    #[test]
    fn the_budget_bounds_the_pool_unless_overdrawn() {
        let pool = pool(Some(4 << 20));
        let blocks: Vec<Block> = std::iter::from_fn(|| pool.allocate().ok()).collect();
        assert!(blocks.len() > 900 && blocks.len() <= 1_024);
        assert!(!pool.has_room(1));
        assert!(pool.allocate_overdrawing().is_ok());
        drop(blocks);
        assert!(pool.has_room(3 << 20));
    }
}
