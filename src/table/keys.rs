//! A shard's key arena: the whole keys of verified mode.
//!
//! Keys are appended to blocks. Each block knows the latest bucket of any key
//! in it and is freed whole when that bucket is dead: nothing is freed key by
//! key. One arena serves all buckets of the shard, because keys arrive in
//! about the order of their buckets; an arena per bucket would leave that many
//! half-filled blocks in each shard, and a refreshed key (sliding window)
//! would have to be copied. Keys that died before their block (forgotten,
//! evicted, or beside one that is refreshed) are garbage until the arena is
//! *compacted*: the shard then copies the live keys into new blocks.

use super::blocks::{BLOCK_BYTES, Block, BlockPool};
use crate::time::Bucket;
use std::sync::Arc;

/// A key longer than this has an allocation of its own: in blocks it would
/// waste too much at their ends.
const LONGEST_IN_BLOCK: usize = 1024;

/// A key in a block is preceded by its length in two bytes.
const LENGTH_BYTES: usize = 2;

/// An address is a block number and an offset within the block.
const OFFSET_BITS: u32 = BLOCK_BYTES.trailing_zeros();

const MOST_BLOCKS: usize = 1 << (u32::BITS - OFFSET_BITS);

/// What the bookkeeping of one block takes.
const ENTRY_BYTES: u64 = size_of::<Option<Stored>>() as u64;

/// Garbage below this is not worth a pass.
const LEAST_TO_COMPACT: u64 = 16 * BLOCK_BYTES as u64;

/// No room: the budget, the system or the address space is exhausted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// The keys of one shard.
#[derive(Debug)]
pub(crate) struct Keys {
    pool: Arc<BlockPool>,
    /// By block number.
    blocks: Vec<Option<Stored>>,
    vacant: Vec<u32>,
    /// The block that is being filled, and how far.
    open: Option<(u32, usize)>,
    held_bytes: u64,
    /// When this much is held, the arena is looked at for garbage.
    look_at_bytes: u64,
    /// Keys stored since the arena was made, and their bytes.
    stored_keys: u64,
    stored_bytes: u64,
}

#[derive(Debug)]
struct Stored {
    /// The latest bucket of any key in here.
    until: Bucket,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    Block(Block),
    Long(Box<[u8]>),
}

impl Stored {
    fn held_bytes(&self) -> u64 {
        match &self.bytes {
            Bytes::Block(_) => BLOCK_BYTES as u64,
            Bytes::Long(key) => key.len() as u64,
        }
    }
}

impl Keys {
    pub(crate) const fn new(pool: Arc<BlockPool>) -> Self {
        Self {
            pool,
            blocks: Vec::new(),
            vacant: Vec::new(),
            open: None,
            held_bytes: 0,
            look_at_bytes: LEAST_TO_COMPACT,
            stored_keys: 0,
            stored_bytes: 0,
        }
    }

    /// Stores a key seen in `bucket`; its address.
    pub(crate) fn push(&mut self, key: &[u8], bucket: Bucket) -> Result<u32, NoRoom> {
        self.push_with(key, bucket, false)
    }

    fn push_with(&mut self, key: &[u8], bucket: Bucket, overdraw: bool) -> Result<u32, NoRoom> {
        let address = self.place(key, bucket, overdraw)?;
        self.stored_keys += 1;
        self.stored_bytes += (LENGTH_BYTES + key.len()) as u64;
        Ok(address)
    }

    fn place(&mut self, key: &[u8], bucket: Bucket, overdraw: bool) -> Result<u32, NoRoom> {
        if key.len() > LONGEST_IN_BLOCK {
            let number = self.add_long(key, bucket, overdraw)?;
            return Ok(number << OFFSET_BITS);
        }
        let needed = LENGTH_BYTES + key.len();
        let (number, offset) = match self.open {
            Some((number, used)) if used + needed <= BLOCK_BYTES => (number, used),
            _ => (self.add_block(bucket, overdraw)?, 0),
        };
        self.open = Some((number, offset + needed));
        if let Some(Stored { until, bytes: Bytes::Block(block) }) =
            &mut self.blocks[number as usize]
        {
            *until = bucket.max(*until);
            let (length, rest) = block.bytes_mut()[offset..].split_at_mut(LENGTH_BYTES);
            length.copy_from_slice(&(key.len() as u16).to_le_bytes());
            rest[..key.len()].copy_from_slice(key);
        }
        Ok(number << OFFSET_BITS | offset as u32)
    }

    /// The key at `address`.
    pub(crate) fn get(&self, address: u32) -> &[u8] {
        match &self.blocks[(address >> OFFSET_BITS) as usize] {
            Some(Stored { bytes: Bytes::Block(block), .. }) => {
                let offset = address as usize % BLOCK_BYTES;
                let (length, rest) = block.bytes()[offset..].split_at(LENGTH_BYTES);
                &rest[..usize::from(u16::from_le_bytes([length[0], length[1]]))]
            }
            Some(Stored { bytes: Bytes::Long(key), .. }) => key,
            None => unreachable!("a live slot's key is in a block that is held"),
        }
    }

    /// Keeps the key at `address` until `bucket` is dead.
    pub(crate) fn keep_until(&mut self, address: u32, bucket: Bucket) {
        if let Some(stored) = &mut self.blocks[(address >> OFFSET_BITS) as usize] {
            stored.until = bucket.max(stored.until);
        }
    }

    /// Frees the blocks all of whose keys were last seen before `low`.
    pub(crate) fn free_before(&mut self, low: Bucket) {
        for number in 0..self.blocks.len() {
            if self.blocks[number].as_ref().is_some_and(|stored| stored.until < low) {
                self.free(number as u32);
            }
        }
        while self.blocks.pop_if(|stored| stored.is_none()).is_some() {}
        let numbers = self.blocks.len() as u32;
        self.vacant.retain(|number| *number < numbers);
        if self.blocks.len() < self.blocks.capacity() / 4 {
            self.blocks.shrink_to(self.blocks.len() * 2);
            self.vacant.shrink_to(self.blocks.len() * 2);
        }
    }

    /// Is it time to look for garbage?
    #[inline]
    pub(crate) const fn should_look(&self) -> bool {
        self.held_bytes >= self.look_at_bytes
    }

    /// Is a third of the arena garbage, if it has `live` live keys of average
    /// length? Sets when to look again: after half as much again.
    pub(crate) fn is_worth_compacting(&mut self, live: u32) -> bool {
        self.look_again_later();
        let live_bytes = u64::from(live) * self.stored_bytes / self.stored_keys.max(1);
        self.held_bytes >= LEAST_TO_COMPACT && live_bytes < self.held_bytes - self.held_bytes / 3
    }

    fn look_again_later(&mut self) {
        self.look_at_bytes = LEAST_TO_COMPACT.max(self.held_bytes + self.held_bytes / 2);
    }

    /// Begins a compaction: an empty arena takes this one's place; the caller
    /// moves the live keys over and drops the old one.
    pub(crate) fn begin_compaction(&mut self) -> Self {
        let fresh = Self::new(Arc::clone(&self.pool));
        std::mem::replace(self, fresh)
    }

    /// Stores a key even if that overdraws the budget: for when memory is
    /// about to be given back, by a compaction or an eviction.
    pub(crate) fn push_overdrawing(&mut self, key: &[u8], bucket: Bucket) -> Result<u32, NoRoom> {
        self.push_with(key, bucket, true)
    }

    /// Ends a compaction: sets when to look for garbage again.
    pub(crate) fn end_compaction(&mut self) {
        self.look_again_later();
    }

    fn add_block(&mut self, bucket: Bucket, overdraw: bool) -> Result<u32, NoRoom> {
        let number = self.next_number()?;
        let block = self.pool.allocate(overdraw).ok_or(NoRoom)?;
        self.put(number, Stored { until: bucket, bytes: Bytes::Block(block) });
        self.pool.budget().reserve(ENTRY_BYTES);
        Ok(number)
    }

    fn add_long(&mut self, key: &[u8], bucket: Bucket, overdraw: bool) -> Result<u32, NoRoom> {
        let number = self.next_number()?;
        let bytes = key.len() as u64 + ENTRY_BYTES;
        if overdraw {
            self.pool.budget().reserve(bytes);
        } else if !self.pool.budget().try_reserve(bytes) {
            return Err(NoRoom);
        }
        self.put(number, Stored { until: bucket, bytes: Bytes::Long(key.into()) });
        Ok(number)
    }

    fn next_number(&self) -> Result<u32, NoRoom> {
        match self.vacant.last() {
            Some(number) => Ok(*number),
            None if self.blocks.len() < MOST_BLOCKS => Ok(self.blocks.len() as u32),
            None => Err(NoRoom),
        }
    }

    fn put(&mut self, number: u32, stored: Stored) {
        self.held_bytes += stored.held_bytes();
        if self.vacant.pop().is_none() {
            self.blocks.push(None);
        }
        self.blocks[number as usize] = Some(stored);
    }

    fn free(&mut self, number: u32) {
        let Some(stored) = self.blocks[number as usize].take() else { return };
        self.held_bytes -= stored.held_bytes();
        let long_bytes = match &stored.bytes {
            Bytes::Block(_) => 0,
            Bytes::Long(key) => key.len() as u64,
        };
        self.pool.budget().release(ENTRY_BYTES + long_bytes);
        self.vacant.push(number);
        if self.open.is_some_and(|(open, _)| open == number) {
            self.open = None;
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        for number in 0..self.blocks.len() {
            self.free(number as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Budget;

    fn keys(limit: Option<u64>) -> Keys {
        Keys::new(Arc::new(BlockPool::new(Arc::new(Budget::new(limit)))))
    }

    fn sample(number: usize) -> Vec<u8> {
        let length = [0, 1, 16, 300, LONGEST_IN_BLOCK, LONGEST_IN_BLOCK + 1, 9_000][number % 7];
        vec![number as u8; length]
    }

    #[test]
    fn every_length_reads_back() {
        let mut keys = keys(None);
        let addresses: Vec<u32> =
            (0..2_000).map(|n| keys.push(&sample(n), Bucket(0)).unwrap()).collect();
        for (number, address) in addresses.into_iter().enumerate() {
            assert_eq!(keys.get(address), sample(number));
        }
    }

    #[test]
    fn blocks_are_freed_with_their_latest_bucket() {
        let mut keys = keys(None);
        let kept = keys.push(b"kept", Bucket(1)).unwrap();
        while keys.blocks.len() < 3 {
            keys.push(&[7; 100], Bucket(1)).unwrap();
        }
        keys.keep_until(kept, Bucket(5));
        keys.push(&[8; 5_000], Bucket(5)).unwrap();
        keys.free_before(Bucket(2));
        assert_eq!(
            keys.blocks.iter().flatten().count(),
            2,
            "the kept key's block and the long one"
        );
        assert_eq!(keys.get(kept), b"kept");
        keys.free_before(Bucket(6));
        assert_eq!((keys.blocks.len(), keys.held_bytes), (0, 0));
    }

    #[test]
    fn numbers_of_freed_blocks_are_used_again() {
        let mut keys = keys(None);
        for round in 0..100 {
            let address = keys.push(&[3; 2_000], Bucket(round)).unwrap();
            assert_eq!(keys.get(address), [3; 2_000]);
            keys.free_before(Bucket(round));
        }
        assert!(keys.blocks.len() <= 2);
    }

    #[test]
    fn a_full_budget_refuses_and_a_compaction_overdraws() {
        let mut keys = keys(Some(BlockPool::STEP_BYTES / 2));
        assert_eq!(keys.push(b"k", Bucket(0)), Err(NoRoom));
        assert_eq!(keys.push(&vec![0; 1 << 20], Bucket(0)), Err(NoRoom));
        assert!(keys.push_overdrawing(b"k", Bucket(0)).is_ok());
    }

    #[test]
    fn all_bytes_go_back_to_the_budget() {
        let mut keys = keys(None);
        let pool = Arc::clone(&keys.pool);
        (0..500).for_each(|n| drop(keys.push(&sample(n), Bucket(0))));
        drop(keys);
        assert_eq!(pool.budget().used_bytes(), BlockPool::STEP_BYTES, "one spare map stays");
    }

    #[test]
    fn garbage_is_noticed() {
        let mut keys = keys(None);
        while !keys.should_look() {
            keys.push(&[1; 100], Bucket(0)).unwrap();
        }
        let stored = keys.stored_keys as u32;
        assert!(!keys.is_worth_compacting(stored));
        assert!(!keys.should_look());
        assert!(keys.is_worth_compacting(stored / 2));
    }
}
