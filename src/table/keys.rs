//! A shard's key arena: the whole keys of verified mode.
//!
//! Keys are appended to a chain of blocks, each preceded by its length; a key
//! that does not fit in the rest of a block goes on in the next, so keys of any
//! length waste nothing. Each block knows the latest bucket of any key in it
//! and is freed whole when that bucket is dead: nothing is freed key by key.
//!
//! One arena serves all buckets of the shard, because keys arrive in about the
//! order of their buckets; an arena per bucket would leave that many
//! half-filled blocks in each shard, and a refreshed key (sliding window) would
//! have to be copied. Keys that died before their block (forgotten, evicted, or
//! beside one that is refreshed) are garbage until the arena is *compacted*:
//! the live keys are copied into new blocks.

use super::blocks::{BLOCK_BYTES, Block, BlockPool, NoRoom};
use crate::map::prefetch;
use crate::time::Bucket;
use std::ptr;
use std::sync::Arc;

/// An address is a block number and an offset within the block.
const OFFSET_BITS: u32 = BLOCK_BYTES.trailing_zeros();

const MOST_BLOCKS: usize = 1 << (u32::BITS - OFFSET_BITS);

/// Bytes of a key that are fetched ahead of its check.
const SHORT_KEY: usize = 17;

/// Garbage below this is not worth a pass.
const LEAST_TO_COMPACT: usize = 16;

/// The keys of one shard.
#[derive(Debug)]
pub(crate) struct Keys {
    pool: Arc<BlockPool>,
    /// By block number.
    blocks: Vec<Option<Link>>,
    /// Where the blocks lie, by number: for fetching ahead, which reads nothing
    /// and so needs no more than addresses, of held blocks or not.
    addresses: Vec<usize>,
    vacant: Vec<u32>,
    /// The block that is being filled, and how far.
    open: Option<Position>,
    held: usize,
    /// When this many blocks are held, the arena is looked at for garbage.
    look_at: usize,
    /// Keys stored since the arena was made, and their bytes.
    stored_keys: u64,
    stored_bytes: u64,
    /// Blocks opened since the arena was made.
    opened: u64,
}

/// One block of the chain.
#[derive(Debug)]
struct Link {
    block: Block,
    /// The latest bucket of any key in here.
    until: Bucket,
    /// The block that was opened after this one.
    next: u32,
    /// Which block of the arena this is, in the order of opening.
    sequence: u64,
}

/// A place in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    number: u32,
    offset: usize,
}

impl Position {
    #[inline]
    const fn of_address(address: u32) -> Self {
        Self { number: address >> OFFSET_BITS, offset: address as usize % BLOCK_BYTES }
    }

    const fn address(self) -> u32 {
        self.number << OFFSET_BITS | self.offset as u32
    }
}

impl Keys {
    pub(crate) const fn new(pool: Arc<BlockPool>) -> Self {
        Self {
            pool,
            blocks: Vec::new(),
            addresses: Vec::new(),
            vacant: Vec::new(),
            open: None,
            held: 0,
            look_at: LEAST_TO_COMPACT,
            stored_keys: 0,
            stored_bytes: 0,
            opened: 0,
        }
    }

    /// Stores a key seen in `bucket`; its address.
    pub(crate) fn push(&mut self, key: &[u8], bucket: Bucket) -> Result<u32, NoRoom> {
        self.push_from(BlockPool::allocate, key, bucket)
    }

    /// Stores a key even if that overdraws the budget: for a compaction, which
    /// gives back more.
    pub(crate) fn push_overdrawing(&mut self, key: &[u8], bucket: Bucket) -> Result<u32, NoRoom> {
        self.push_from(BlockPool::allocate_overdrawing, key, bucket)
    }

    fn push_from(
        &mut self,
        allocate: impl Fn(&Arc<BlockPool>) -> Result<Block, NoRoom>,
        key: &[u8],
        bucket: Bucket,
    ) -> Result<u32, NoRoom> {
        let mut buffer = [0; LONGEST_LENGTH];
        let length = leb128::write(key.len(), &mut buffer);
        let bytes = length.len() + key.len();
        let start = self.make_room(allocate, bytes, bucket)?;
        let first_byte = self.write(start, length, bucket);
        self.open = Some(self.write(first_byte, key, bucket));
        self.stored_keys += 1;
        self.stored_bytes += bytes as u64;
        Ok(start.address())
    }

    /// Chains as many new blocks as `bytes` need, all or none. Where the bytes
    /// begin.
    fn make_room(
        &mut self,
        allocate: impl Fn(&Arc<BlockPool>) -> Result<Block, NoRoom>,
        bytes: usize,
        bucket: Bucket,
    ) -> Result<Position, NoRoom> {
        // A length is never cut in two.
        let open = self.open.filter(|open| open.offset + LONGEST_LENGTH <= BLOCK_BYTES);
        let left = open.map_or(0, |open| BLOCK_BYTES - open.offset);
        let needed = bytes.saturating_sub(left).div_ceil(BLOCK_BYTES);
        if self.held + needed > MOST_BLOCKS {
            return Err(NoRoom::System);
        }
        let mut chain = open.map(|open| open.number);
        let mut start = open;
        if needed > 0 {
            let blocks: Result<Vec<Block>, NoRoom> =
                (0..needed).map(|_| allocate(&self.pool)).collect();
            for block in blocks? {
                let number = self.add(block, bucket);
                if let Some(before) = chain.replace(number) {
                    self.link_mut(before).next = number;
                }
                start = start.or(Some(Position { number, offset: 0 }));
            }
        }
        Ok(start.expect("a key takes a byte at least"))
    }

    /// Copies bytes to a position, through as many blocks as they need. Where
    /// they end.
    fn write(&mut self, start: Position, mut bytes: &[u8], bucket: Bucket) -> Position {
        let Position { mut number, mut offset } = start;
        loop {
            let link = self.link_mut(number);
            link.until = bucket.max(link.until);
            let space = &mut link.block.bytes_mut()[offset..];
            let (now, later) = bytes.split_at(bytes.len().min(space.len()));
            space[..now.len()].copy_from_slice(now);
            if later.is_empty() {
                return Position { number, offset: offset + now.len() };
            }
            (number, offset, bytes) = (link.next, 0, later);
        }
    }

    /// Asks the processor to fetch the key at `address`.
    #[inline]
    pub(crate) fn prefetch(&self, address: u32) {
        let Position { number, offset } = Position::of_address(address);
        if let Some(block) = self.addresses.get(number as usize) {
            let start = ptr::without_provenance::<u8>(block + offset);
            prefetch(start);
            // A short key may lie across two lines.
            prefetch(start.wrapping_add(SHORT_KEY));
            prefetch(&raw const self.blocks[number as usize]);
        }
    }

    /// Is the key at `address` this one?
    #[inline]
    pub(crate) fn is_at(&self, address: u32, key: &[u8]) -> bool {
        let (start, length) = self.read_length(address);
        if length != key.len() {
            return false;
        }
        let block = self.link(start.number).block.bytes();
        if let Some(whole) = block.get(start.offset..start.offset + length) {
            return whole == key;
        }
        let mut rest = key;
        self.segments(start, length).all(|segment| {
            let (now, later) = rest.split_at(segment.len());
            rest = later;
            now == segment
        })
    }

    /// Appends the key at `address` to `bytes`.
    pub(crate) fn read(&self, address: u32, bytes: &mut Vec<u8>) {
        let (start, length) = self.read_length(address);
        self.segments(start, length).for_each(|segment| bytes.extend_from_slice(segment));
    }

    /// Keeps the key at `address` until `bucket` is dead.
    pub(crate) fn keep_until(&mut self, address: u32, bucket: Bucket) {
        let (start, length) = self.read_length(address);
        let mut number = start.number;
        for _ in 0..(start.offset + length).div_ceil(BLOCK_BYTES) {
            let link = self.link_mut(number);
            link.until = bucket.max(link.until);
            number = link.next;
        }
    }

    /// The blocks' bytes that hold `length` bytes from `start` on, in order.
    #[inline]
    fn segments(&self, start: Position, length: usize) -> impl Iterator<Item = &[u8]> {
        let Position { mut number, mut offset } = start;
        let mut left = length;
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let link = self.link(number);
            let segment = &link.block.bytes()[offset..];
            let segment = &segment[..left.min(segment.len())];
            (number, offset, left) = (link.next, 0, left - segment.len());
            Some(segment)
        })
    }

    /// The first byte's position and the length of the key at `address`.
    #[inline]
    fn read_length(&self, address: u32) -> (Position, usize) {
        let Position { number, offset } = Position::of_address(address);
        let (length, bytes) = leb128::read(&self.link(number).block.bytes()[offset..]);
        (Position { number, offset: offset + bytes }, length)
    }

    /// Frees the blocks all of whose keys were last seen before `low`.
    pub(crate) fn free_before(&mut self, low: Bucket) {
        for number in 0..self.blocks.len() {
            if self.blocks[number].as_ref().is_some_and(|link| link.until < low) {
                self.free(number as u32);
            }
        }
        self.trim();
    }

    /// An eighth of the blocks, at least one if there is any: those that were
    /// opened first. In ascending order of their numbers.
    pub(crate) fn oldest_blocks(&self) -> Vec<u32> {
        let held = self.blocks.iter().zip(0..).filter_map(|(link, n)| Some((link.as_ref()?, n)));
        let mut by_age: Vec<(u64, u32)> = held.map(|(link, n)| (link.sequence, n)).collect();
        by_age.sort_unstable();
        by_age.truncate(self.held.div_ceil(8));
        let mut numbers: Vec<u32> = by_age.into_iter().map(|(_, number)| number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// The block in which the key at `address` begins.
    pub(crate) const fn block_of(address: u32) -> u32 {
        Position::of_address(address).number
    }

    /// Is it time to look for garbage?
    #[inline]
    pub(crate) const fn should_look(&self) -> bool {
        self.held >= self.look_at
    }

    /// Is a third of the arena garbage, if it has `live` live keys of average
    /// length? Sets when to look again: after half as much again.
    pub(crate) fn is_worth_compacting(&mut self, live: u32) -> bool {
        self.look_again_later();
        let average = self.stored_bytes / self.stored_keys.max(1) + 1;
        let live_bytes = u64::from(live).saturating_mul(average);
        let held_bytes = (self.held * BLOCK_BYTES) as u64;
        self.held >= LEAST_TO_COMPACT && live_bytes < held_bytes - held_bytes / 3
    }

    fn look_again_later(&mut self) {
        self.look_at = LEAST_TO_COMPACT.max(self.held + self.held / 2);
    }

    pub(crate) const fn held_blocks(&self) -> usize {
        self.held
    }

    /// Where the blocks come from.
    pub(crate) fn pool(&self) -> Arc<BlockPool> {
        Arc::clone(&self.pool)
    }

    /// Begins a compaction: an empty arena takes this one's place; the caller
    /// moves the live keys over and drops the old one.
    pub(crate) fn begin_compaction(&mut self) -> Self {
        let fresh = Self::new(Arc::clone(&self.pool));
        std::mem::replace(self, fresh)
    }

    /// Ends a compaction: sets when to look for garbage again.
    pub(crate) fn end_compaction(&mut self) {
        self.look_again_later();
    }

    fn link(&self, number: u32) -> &Link {
        self.blocks[number as usize].as_ref().expect("a live key's blocks are held")
    }

    fn link_mut(&mut self, number: u32) -> &mut Link {
        self.blocks[number as usize].as_mut().expect("a live key's blocks are held")
    }

    fn add(&mut self, block: Block, bucket: Bucket) -> u32 {
        self.opened += 1;
        self.held += 1;
        let address = block.bytes().as_ptr().addr();
        let link = Link { block, until: bucket, next: 0, sequence: self.opened };
        if let Some(number) = self.vacant.pop() {
            self.blocks[number as usize] = Some(link);
            self.addresses[number as usize] = address;
            return number;
        }
        self.blocks.push(Some(link));
        self.addresses.push(address);
        self.blocks.len() as u32 - 1
    }

    /// Frees a block. No live key may lie in it.
    pub(crate) fn free(&mut self, number: u32) {
        if self.blocks[number as usize].take().is_none() {
            return;
        }
        self.held -= 1;
        self.vacant.push(number);
        if self.open.is_some_and(|open| open.number == number) {
            self.open = None;
        }
    }

    /// Gives back the bookkeeping of freed blocks.
    fn trim(&mut self) {
        while self.blocks.pop_if(|link| link.is_none()).is_some() {}
        let numbers = self.blocks.len() as u32;
        self.addresses.truncate(self.blocks.len());
        self.vacant.retain(|number| *number < numbers);
        if self.blocks.len() < self.blocks.capacity() / 4 {
            self.blocks.shrink_to(self.blocks.len() * 2);
            self.addresses.shrink_to(self.blocks.len() * 2);
            self.vacant.shrink_to(self.blocks.len() * 2);
        }
    }
}

/// The most bytes that a length takes.
const LONGEST_LENGTH: usize = 10;

/// Lengths as unsigned LEB128: seven bits a byte, lowest first.
mod leb128 {
    pub(super) fn write(mut value: usize, buffer: &mut [u8; super::LONGEST_LENGTH]) -> &[u8] {
        let mut bytes = 0;
        while value >= 0x80 {
            buffer[bytes] = value as u8 | 0x80;
            value >>= 7;
            bytes += 1;
        }
        buffer[bytes] = value as u8;
        &buffer[..=bytes]
    }

    /// The value, and how many bytes it took.
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> (usize, usize) {
        let mut value = 0;
        for (index, byte) in bytes.iter().enumerate() {
            value |= usize::from(byte & 0x7F) << (7 * index);
            if *byte < 0x80 {
                return (value, index + 1);
            }
        }
        unreachable!("a stored length ends")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Budget;

    fn keys(limit: Option<u64>) -> Keys {
        Keys::new(Arc::new(BlockPool::new(Arc::new(Budget::new(limit)), limit)))
    }

    fn sample(number: usize) -> Vec<u8> {
        let length = [0, 1, 16, 127, 128, 300, 4_085, 4_086, 4_096, 9_000, 40_000][number % 11];
        (0..length).map(|byte| (byte * 7 + number) as u8).collect()
    }

    fn read(keys: &Keys, address: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        keys.read(address, &mut bytes);
        bytes
    }

    #[test]
    fn every_length_reads_back_and_equals_itself_alone() {
        let mut keys = keys(None);
        let addresses: Vec<u32> =
            (0..2_000).map(|n| keys.push(&sample(n), Bucket(0)).unwrap()).collect();
        for (number, address) in addresses.into_iter().enumerate() {
            let mut key = sample(number);
            assert_eq!(read(&keys, address), key);
            assert!(keys.is_at(address, &key));
            key.push(0);
            assert!(!keys.is_at(address, &key));
            key.pop();
            if let Some(last) = key.last_mut() {
                *last ^= 1;
                assert!(!keys.is_at(address, &key));
            }
        }
    }

    #[test]
    fn blocks_are_freed_with_their_latest_bucket() {
        let mut keys = keys(None);
        let kept = keys.push(&[5; 6_000], Bucket(1)).unwrap();
        (0..200).for_each(|_| drop(keys.push(&[7; 100], Bucket(1))));
        let blocks = keys.held;
        keys.keep_until(kept, Bucket(5));
        keys.free_before(Bucket(2));
        assert!(blocks > 6 && keys.held == 2, "the two blocks of the kept key stay");
        assert!(keys.is_at(kept, &[5; 6_000]));
        keys.free_before(Bucket(6));
        assert_eq!((keys.blocks.len(), keys.held), (0, 0));
    }

    #[test]
    fn a_key_that_goes_on_in_the_next_block_keeps_both() {
        let mut keys = keys(None);
        keys.push(&[1; 4_000], Bucket(1)).unwrap();
        let across = keys.push(&[2; 200], Bucket(3)).unwrap();
        assert_eq!(keys.held, 2);
        keys.free_before(Bucket(3));
        assert!(keys.is_at(across, &[2; 200]));
    }

    #[test]
    fn numbers_of_freed_blocks_are_used_again() {
        let mut keys = keys(None);
        for round in 0..100 {
            let address = keys.push(&[3; 12_000], Bucket(round)).unwrap();
            assert_eq!(read(&keys, address), [3; 12_000]);
            keys.free_before(Bucket(round));
        }
        assert!(keys.blocks.len() <= 8);
    }

    #[test]
    fn a_full_budget_refuses_whole_keys_and_a_compaction_overdraws() {
        let mut keys = keys(Some(1 << 20));
        let (kept, held) = (keys.push(b"kept", Bucket(0)).unwrap(), keys.held);
        assert_eq!(keys.push(&vec![0; 2 << 20], Bucket(0)), Err(NoRoom::Budget));
        assert_eq!(keys.held, held, "all blocks or none");
        assert!(keys.push_overdrawing(&vec![0; 2 << 20], Bucket(0)).is_ok());
        assert!(keys.is_at(kept, b"kept"));
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
