//! Memory for keys: blocks of 4 KiB, cut from maps of 1 MiB.
//!
//! Keys of verified mode live in blocks that die with their buckets. A general
//! allocator would keep most of that memory after a flood, and mix it with the
//! program's own; here a map goes back to the system with its last block.

#![expect(unsafe_code, reason = "blocks are owned, disjoint parts of shared maps; see `Block`")]

use crate::memory::Budget;
use memmap2::{MmapMut, MmapRaw};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes in a block.
pub(crate) const BLOCK_BYTES: usize = 4096;

const BLOCKS_PER_MAP: usize = 256;

const MAP_BYTES: usize = BLOCKS_PER_MAP * BLOCK_BYTES;

/// The blocks of all shards of one deduper.
#[derive(Debug)]
pub(crate) struct BlockPool {
    maps: Mutex<Maps>,
    budget: Arc<Budget>,
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
    memory: MmapRaw,
    free: Vec<u8>,
}

impl BlockPool {
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { maps: Mutex::default(), budget }
    }

    /// Bytes that the pool takes from the budget at a time.
    pub(crate) const STEP_BYTES: u64 = MAP_BYTES as u64;

    /// A block, or `None` if the budget (unless `overdraw`) or the system
    /// grants no more.
    pub(crate) fn allocate(self: &Arc<Self>, overdraw: bool) -> Option<Block> {
        let mut maps = self.maps.lock();
        let number = match maps.open.first() {
            Some(number) => *number,
            None => self.add_map(&mut maps, overdraw)?,
        };
        let map = maps.maps[number as usize].as_mut()?;
        let index = map.free.pop()?;
        let data = map.memory.as_mut_ptr().wrapping_add(usize::from(index) * BLOCK_BYTES);
        if map.free.is_empty() {
            maps.open.remove(&number);
        }
        Some(Block { data: NonNull::new(data.cast())?, map: number, index, pool: Arc::clone(self) })
    }

    fn add_map(&self, maps: &mut Maps, overdraw: bool) -> Option<u32> {
        if overdraw {
            self.budget.reserve(Self::STEP_BYTES);
        } else if !self.budget.try_reserve(Self::STEP_BYTES) {
            return None;
        }
        let Ok(memory) = MmapMut::map_anon(MAP_BYTES) else {
            self.budget.release(Self::STEP_BYTES);
            return None;
        };
        // Popped from the end: the lowest block first.
        let map = Map { memory: MmapRaw::from(memory), free: (0..=u8::MAX).rev().collect() };
        let number = maps.vacant.pop().unwrap_or_else(|| {
            maps.maps.push(None);
            maps.maps.len() as u32 - 1
        });
        maps.maps[number as usize] = Some(map);
        maps.open.insert(number);
        Some(number)
    }

    fn free(&self, number: u32, index: u8) {
        let mut maps = self.maps.lock();
        let Some(map) = maps.maps[number as usize].as_mut() else { return };
        map.free.push(index);
        let is_empty = map.free.len() == BLOCKS_PER_MAP;
        maps.open.insert(number);
        // One empty map may stay, so that a block that comes and goes does not
        // map and unmap each time.
        if is_empty && maps.open.len() > 1 {
            maps.open.remove(&number);
            maps.maps[number as usize] = None;
            maps.vacant.push(number);
            self.budget.release(Self::STEP_BYTES);
        }
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
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
    index: u8,
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
        Arc::new(BlockPool::new(Arc::new(Budget::new(limit))))
    }

    #[test]
    fn blocks_do_not_overlap() {
        let pool = pool(None);
        let mut blocks: Vec<Block> = (0..600).map(|_| pool.allocate(false).unwrap()).collect();
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
        let blocks: Vec<Block> = (0..600).map(|_| pool.allocate(false).unwrap()).collect();
        assert_eq!(pool.budget.used_bytes(), 3 * BlockPool::STEP_BYTES);
        drop(blocks);
        assert_eq!(pool.budget.used_bytes(), BlockPool::STEP_BYTES, "one spare map stays");
        assert!(pool.allocate(false).is_some());
    }

    #[test]
    fn the_budget_bounds_the_pool_unless_overdrawn() {
        let pool = pool(Some(BlockPool::STEP_BYTES));
        let blocks: Vec<Block> = std::iter::from_fn(|| pool.allocate(false)).collect();
        assert_eq!(blocks.len(), BLOCKS_PER_MAP);
        assert!(pool.allocate(true).is_some());
    }
}
