//! A shard's key arena: the whole keys of verified mode.
//!
//! Keys are appended, as [words](super::spelling), to a chain of blocks; a key
//! that does not fit in the rest of a block goes on in the next, so keys of any
//! length waste nothing. Each block knows the latest bucket of any key in it
//! and is freed whole when that bucket is dead: nothing is freed key by key.
//!
//! ```text
//! block:  [ latest bucket: 64 | next block: 32 ] [ keys ... ]
//! ```
//!
//! One arena serves all buckets of the shard, because keys arrive in about the
//! order of their buckets; an arena per bucket would leave that many
//! half-filled blocks in each shard, and a refreshed key (sliding window) would
//! have to be copied. Keys that died before their block (forgotten, evicted, or
//! beside one that is refreshed) are garbage until the arena is *compacted*:
//! the live keys are copied into new blocks.
//!
//! Whoever holds the shard's lock may do all of this. Whoever does not may ask
//! [`Sight`] what lies at an address.

use super::blocks::{Address, BlockPool, NoRoom, WORDS_PER_BLOCK, Words};
use super::spelling::{Spelling, load, set, stored_len};
use crate::map::prefetch;
use crate::sync::atomic::{Ordering, fence};
use crate::time::Bucket;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

/// Words that a block keeps for itself.
const HEADER: usize = 3;

/// Where in a block the number of the next one is: the one on which its last
/// key goes on.
const NEXT: usize = 2;

/// Garbage below this is not worth a pass.
const LEAST_TO_COMPACT: usize = 16;

/// Bytes of a key that are fetched ahead of its check.
const FETCHED_BYTES: usize = 64;

/// A place where a key may lie, found without a lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight<'a>(&'a [AtomicU32]);

impl<'a> Sight<'a> {
    /// No place.
    pub(crate) const NOTHING: Self = Self(&[]);

    /// What lies at an address that was found in a slot.
    #[inline]
    pub(crate) fn at(pool: &'a BlockPool, address: Address) -> Self {
        let words = pool.words(address.block());
        Self(words.map_or(&[], |words| &words[address.offset()..]))
    }

    /// Asks the processor to fetch what may be a key.
    #[inline]
    pub(crate) fn prefetch(self, key: &[u8]) {
        let first = self.0.as_ptr();
        prefetch(first);
        // Four bytes of a word, and all of the length.
        prefetch(first.wrapping_byte_add(key.len().min(FETCHED_BYTES)));
    }

    /// Does a key lie here, as a whole and in one block? Says what was there
    /// since the slot was read, whosever it was: see
    /// [`Frees`](super::blocks::Frees). To be called behind
    /// [`follow_slots`](Self::follow_slots).
    #[inline]
    pub(crate) fn shows(self, key: &[u8]) -> bool {
        !self.0.is_empty() && Spelling::of(key).begins(self.0)
    }

    /// Puts reading keys after reading the slots that lead to them.
    #[inline]
    pub(crate) fn follow_slots() {
        // Acquire, with the Release in `Keys::write_here`.
        fence(Ordering::Acquire);
    }
}

/// The keys of one shard. A short key is written without its `chain`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Keys {
    pool: Arc<BlockPool>,
    pen: Pen,
    chain: Box<Chain>,
}

/// Where the next key is written.
#[derive(Debug)]
struct Pen {
    block: u32,
    /// The block's words that are written; all of them where there is no block
    /// to be written to.
    used: u16,
    /// Keys that end in the block.
    keys: u16,
    /// The block's latest bucket.
    until: Bucket,
}

impl Pen {
    const NOWHERE: Self =
        Self { block: u32::MAX, used: WORDS_PER_BLOCK as u16, keys: 0, until: Bucket(i64::MIN) };

    #[inline]
    const fn address(&self) -> Address {
        Address::new(self.block, self.used as usize)
    }

    #[inline]
    const fn left(&self) -> usize {
        WORDS_PER_BLOCK - self.used as usize
    }
}

/// The blocks of an arena.
#[derive(Debug, Default)]
struct Chain {
    /// In the order of opening.
    blocks: Vec<u32>,
    /// When this many blocks are held, the arena is looked at for garbage.
    look_at: usize,
    /// Keys stored since the arena was made, and their words, but for those in
    /// the block at the pen.
    stored_keys: u64,
    stored_words: u64,
}

impl Keys {
    pub(crate) fn new(pool: Arc<BlockPool>) -> Self {
        let chain = Box::new(Chain { look_at: LEAST_TO_COMPACT, ..Chain::default() });
        Self { pool, pen: Pen::NOWHERE, chain }
    }

    /// Stores a key seen in `bucket` where there is room without a new block;
    /// its address.
    #[inline]
    pub(crate) fn push_here(&mut self, key: &[u8], bucket: Bucket) -> Option<Address> {
        let spelling = Spelling::of(key);
        self.write_here(spelling.len(), bucket, |space| spelling.write(space))
    }

    /// Has `len` words written where there is room for all of them in the
    /// present block; their address.
    #[expect(clippy::inline_always, reason = "or each new key pays for one call more")]
    #[inline(always)]
    fn write_here(
        &mut self,
        len: usize,
        bucket: Bucket,
        write: impl FnOnce(&[AtomicU32]),
    ) -> Option<Address> {
        if len > self.pen.left() {
            return None;
        }
        let words = self.pool.words(self.pen.block)?;
        let address = self.pen.address();
        write(&words[address.offset()..address.offset() + len]);
        fence(Ordering::Release);
        self.pen.used += len as u16;
        self.pen.keys += 1;
        if bucket > self.pen.until {
            self.pen.until = bucket;
            set_until(words, bucket);
        }
        Some(address)
    }

    /// Stores a key seen in `bucket`; its address.
    #[inline]
    pub(crate) fn push(&mut self, key: &[u8], bucket: Bucket) -> Result<Address, NoRoom> {
        if let Some(address) = self.push_here(key, bucket) {
            return Ok(address);
        }
        let spelling = Spelling::of(key);
        self.push_across(BlockPool::allocate, spelling.len(), spelling.words(), bucket)
    }

    /// Stores a key of another arena even if that overdraws the budget: for a
    /// compaction, which gives back more.
    pub(crate) fn copy(
        &mut self,
        old: &Self,
        address: Address,
        bucket: Bucket,
    ) -> Result<Address, NoRoom> {
        let len = stored_len(old.words_from(address));
        let whole = old.block(address.block()).get(address.offset()..address.offset() + len);
        let copied = whole.and_then(|whole| {
            self.write_here(len, bucket, |space| {
                space.iter().zip(whole).for_each(|(to, from)| set(to, load(from)));
            })
        });
        if let Some(address) = copied {
            return Ok(address);
        }
        let words = old.words_from(address).take(len);
        self.push_across(BlockPool::allocate_overdrawing, len, words, bucket)
    }

    /// Stores `len` words, through as many new blocks as they need: all or
    /// none. Their address.
    fn push_across(
        &mut self,
        allocate: impl Fn(&BlockPool) -> Result<u32, NoRoom>,
        len: usize,
        words: impl Iterator<Item = u32>,
        bucket: Bucket,
    ) -> Result<Address, NoRoom> {
        let needed = len.saturating_sub(self.pen.left()).div_ceil(WORDS_PER_BLOCK - HEADER);
        let mut blocks = self.take_blocks(allocate, needed)?.into_iter();
        let mut start = None;
        for word in words {
            if self.pen.left() == 0 {
                self.turn_to(blocks.next().expect("as many as are needed"));
            }
            start.get_or_insert(self.pen.address());
            self.raise(self.pen.block, bucket);
            set(&self.block(self.pen.block)[usize::from(self.pen.used)], word);
            self.pen.used += 1;
        }
        fence(Ordering::Release);
        self.pen.keys += 1;
        Ok(start.expect("a key takes a word at least"))
    }

    /// Takes `needed` blocks from the pool, or none.
    fn take_blocks(
        &self,
        allocate: impl Fn(&BlockPool) -> Result<u32, NoRoom>,
        needed: usize,
    ) -> Result<Vec<u32>, NoRoom> {
        let mut blocks = Vec::with_capacity(needed);
        for _ in 0..needed {
            match allocate(&self.pool) {
                Ok(block) => blocks.push(block),
                Err(no_room) => {
                    self.pool.free(&blocks);
                    return Err(no_room);
                }
            }
        }
        Ok(blocks)
    }

    /// Goes on in a new block.
    fn turn_to(&mut self, block: u32) {
        if self.is_open() {
            set(&self.block(self.pen.block)[NEXT], block);
        }
        self.lift_pen();
        self.chain.blocks.push(block);
        set_until(self.block(block), Bucket(i64::MIN));
        self.pen = Pen { block, used: HEADER as u16, ..Pen::NOWHERE };
    }

    /// Ends the writing in the present block.
    fn lift_pen(&mut self) {
        if self.is_open() {
            self.chain.stored_keys += u64::from(self.pen.keys);
            self.chain.stored_words += u64::from(self.pen.used) - HEADER as u64;
        }
        self.pen = Pen::NOWHERE;
    }

    /// Is there a block at the pen, full or not?
    const fn is_open(&self) -> bool {
        self.pen.block != Pen::NOWHERE.block
    }

    /// Is the key at `address` this one?
    #[inline]
    pub(crate) fn is_at(&self, address: Address, key: &[u8]) -> bool {
        let spelling = Spelling::of(key);
        if address.offset() + spelling.len() <= WORDS_PER_BLOCK {
            return spelling.begins(&self.block(address.block())[address.offset()..]);
        }
        let mut stored = self.words_from(address);
        spelling.words().all(|word| stored.next() == Some(word))
    }

    /// All words from an address on, through the blocks that follow. More than
    /// those of the key that is there mean nothing.
    fn words_from(&self, address: Address) -> impl Iterator<Item = u32> {
        let (mut words, mut offset) = (self.block(address.block()), address.offset());
        std::iter::from_fn(move || {
            if offset == WORDS_PER_BLOCK {
                words = self.pool.words(load(&words[NEXT]))?;
                offset = HEADER;
            }
            offset += 1;
            Some(load(&words[offset - 1]))
        })
    }

    /// Keeps the key at `address` until `bucket` is dead.
    pub(crate) fn keep_until(&mut self, address: Address, bucket: Bucket) {
        let len = stored_len(self.words_from(address));
        let beyond = (address.offset() + len).saturating_sub(WORDS_PER_BLOCK);
        let mut block = address.block();
        self.raise(block, bucket);
        for _ in 0..beyond.div_ceil(WORDS_PER_BLOCK - HEADER) {
            block = load(&self.block(block)[NEXT]);
            self.raise(block, bucket);
        }
    }

    /// Keeps a block until `bucket` is dead.
    fn raise(&mut self, block: u32, bucket: Bucket) {
        if bucket > until(self.block(block)) {
            set_until(self.block(block), bucket);
        }
        if block == self.pen.block {
            self.pen.until = bucket.max(self.pen.until);
        }
    }

    /// Frees the blocks all of whose keys were last seen before `low`.
    pub(crate) fn free_before(&mut self, low: Bucket) {
        let pool = &self.pool;
        let is_dead = |block: &mut u32| until(held(pool, *block)) < low;
        let dead: Vec<u32> = self.chain.blocks.extract_if(.., is_dead).collect();
        self.give_back(&dead);
    }

    /// An eighth of the blocks, at least one if there is any: those that were
    /// opened first. In ascending order of their numbers.
    pub(crate) fn oldest_blocks(&self) -> Vec<u32> {
        let blocks = &self.chain.blocks;
        let mut oldest = blocks[..blocks.len().div_ceil(8)].to_vec();
        oldest.sort_unstable();
        oldest
    }

    /// Frees the [`oldest_blocks`](Self::oldest_blocks). No live key may begin
    /// in them.
    pub(crate) fn free_oldest(&mut self) {
        let eighth = self.chain.blocks.len().div_ceil(8);
        let dead: Vec<u32> = self.chain.blocks.drain(..eighth).collect();
        self.give_back(&dead);
    }

    /// Gives blocks back that were taken out of the chain.
    fn give_back(&mut self, dead: &[u32]) {
        if dead.contains(&self.pen.block) {
            self.lift_pen();
        }
        self.pool.free(dead);
        let blocks = &mut self.chain.blocks;
        if blocks.len() < blocks.capacity() / 4 {
            blocks.shrink_to(blocks.len() * 2);
        }
    }

    /// Is it time to look for garbage? Changes when a block is opened.
    #[inline]
    pub(crate) const fn should_look(&self) -> bool {
        self.held_blocks() >= self.chain.look_at
    }

    /// Is a third of the arena garbage, if it has `live` live keys of average
    /// length? Sets when to look again: after half as much again.
    pub(crate) fn is_worth_compacting(&mut self, live: u32) -> bool {
        self.look_again_later();
        let in_pen = if self.is_open() { u64::from(self.pen.used) - HEADER as u64 } else { 0 };
        let stored_words = self.chain.stored_words + in_pen;
        let stored_keys = self.chain.stored_keys + u64::from(self.pen.keys);
        let live_words = u64::from(live) * stored_words / stored_keys.max(1) + 1;
        let held_words = (self.held_blocks() * (WORDS_PER_BLOCK - HEADER)) as u64;
        self.held_blocks() >= LEAST_TO_COMPACT && live_words < held_words - held_words / 3
    }

    fn look_again_later(&mut self) {
        let held = self.held_blocks();
        self.chain.look_at = LEAST_TO_COMPACT.max(held + held / 2);
    }

    pub(crate) const fn held_blocks(&self) -> usize {
        self.chain.blocks.len()
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

    #[inline]
    fn block(&self, block: u32) -> &Words {
        held(&self.pool, block)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.pool.free(&self.chain.blocks);
    }
}

#[inline]
fn held(pool: &BlockPool, block: u32) -> &Words {
    pool.words(block).expect("a live key's blocks are held")
}

/// The latest bucket of any key in a block.
fn until(block: &Words) -> Bucket {
    let [low, high] = [&block[0], &block[1]].map(|word| u64::from(load(word)));
    Bucket((high << 32 | low).cast_signed())
}

fn set_until(block: &Words, bucket: Bucket) {
    let bits = bucket.0.cast_unsigned();
    set(&block[0], bits as u32);
    set(&block[1], (bits >> 32) as u32);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Budget;

    fn keys(limit: Option<u64>) -> Keys {
        let budget = Arc::new(Budget::new(limit));
        Keys::new(Arc::new(BlockPool::new(budget, limit, Arc::default())))
    }

    fn sample(number: usize) -> Vec<u8> {
        let lengths =
            [0, 1, 3, 4, 16, 127, 254, 255, 300, 4_080, 4_084, 4_086, 4_096, 9_000, 40_000];
        let length = lengths[number % lengths.len()];
        (0..length).map(|byte| (byte * 7 + number) as u8).collect()
    }

    #[test]
    fn every_length_equals_itself_alone_also_after_it_was_copied() {
        let mut keys = keys(None);
        let addresses: Vec<Address> =
            (0..2_000).map(|n| keys.push(&sample(n), Bucket(0)).unwrap()).collect();
        let old = keys.begin_compaction();
        let copies: Vec<Address> =
            addresses.iter().map(|at| keys.copy(&old, *at, Bucket(0)).unwrap()).collect();
        for (number, (at, copy)) in addresses.into_iter().zip(copies).enumerate() {
            let is_at = |key: &[u8]| {
                assert_eq!(old.is_at(at, key), keys.is_at(copy, key));
                keys.is_at(copy, key)
            };
            let mut key = sample(number);
            assert!(is_at(&key));
            key.push(0);
            assert!(!is_at(&key));
            key.pop();
            if let Some(last) = key.last_mut() {
                *last ^= 1;
                assert!(!is_at(&key));
            }
        }
    }

    #[test]
    fn short_keys_are_shown_without_the_arena() {
        let mut keys = keys(None);
        let key = |number: u32| [number.to_le_bytes(); 4].concat();
        let addresses: Vec<Address> =
            (0..1_000).map(|n| keys.push(&key(n), Bucket(0)).unwrap()).collect();
        let pool = keys.pool();
        let sight = |number: u32| Sight::at(&pool, addresses[number as usize]);
        let shown = (0..1_000).filter(|n| sight(*n).shows(&key(*n))).count();
        assert!((990..1_000).contains(&shown), "{shown}: some go on in the next block");
        assert!((0..1_000).all(|n| !sight(n).shows(&key(n + 1))));
        assert!(!Sight::NOTHING.shows(&[]));
    }

    #[test]
    fn blocks_are_freed_with_their_latest_bucket() {
        let mut keys = keys(None);
        let kept = keys.push(&[5; 6_000], Bucket(1)).unwrap();
        (0..200).for_each(|_| drop(keys.push(&[7; 100], Bucket(1))));
        let blocks = keys.held_blocks();
        keys.keep_until(kept, Bucket(5));
        keys.free_before(Bucket(2));
        assert!(blocks > 6 && keys.held_blocks() == 2, "the two blocks of the kept key stay");
        assert!(keys.is_at(kept, &[5; 6_000]));
        keys.free_before(Bucket(6));
        assert_eq!(keys.held_blocks(), 0);
    }

    #[test]
    fn a_key_that_goes_on_in_the_next_block_keeps_both() {
        let mut keys = keys(None);
        keys.push(&[1; 4_000], Bucket(1)).unwrap();
        let across = keys.push(&[2; 200], Bucket(3)).unwrap();
        assert_eq!(keys.held_blocks(), 2);
        keys.free_before(Bucket(3));
        assert!(keys.is_at(across, &[2; 200]));
    }

    #[test]
    fn a_block_is_kept_for_keys_that_come_after_it_was_kept() {
        let mut keys = keys(None);
        let first = keys.push(b"first", Bucket(1)).unwrap();
        keys.keep_until(first, Bucket(4));
        keys.push(b"second", Bucket(2)).unwrap();
        keys.free_before(Bucket(4));
        assert!(keys.is_at(first, b"first"));
        let third = keys.push(b"third", Bucket(5)).unwrap();
        keys.free_before(Bucket(5));
        assert!(keys.is_at(third, b"third"));
    }

    #[test]
    fn the_memory_of_freed_blocks_is_used_again() {
        let mut keys = keys(None);
        for round in 0..1_000 {
            let address = keys.push(&[3; 12_000], Bucket(round)).unwrap();
            assert!(keys.is_at(address, &[3; 12_000]));
            assert!(address.block() < 16, "block {}", address.block());
            keys.free_before(Bucket(round));
        }
    }

    #[test]
    fn the_oldest_blocks_go_first() {
        let mut keys = keys(None);
        let addresses: Vec<Address> =
            (0..64_u8).map(|n| keys.push(&[n; 4_000], Bucket(0)).unwrap()).collect();
        let oldest = keys.oldest_blocks();
        keys.free_oldest();
        assert!(oldest.binary_search(&addresses[0].block()).is_ok());
        assert!(oldest.binary_search(&addresses[9].block()).is_err());
        assert!((9..64_u8).all(|n| keys.is_at(addresses[usize::from(n)], &[n; 4_000])));
    }

    #[test]
    fn a_full_budget_refuses_whole_keys_and_a_compaction_overdraws() {
        let mut keys = keys(Some(1 << 20));
        let (kept, held) = (keys.push(b"kept", Bucket(0)).unwrap(), keys.held_blocks());
        assert_eq!(keys.push(&vec![0; 2 << 20], Bucket(0)), Err(NoRoom::Budget));
        assert_eq!(keys.held_blocks(), held, "all blocks or none");
        let long = keys.push(&vec![1; 600 << 10], Bucket(0)).unwrap();
        let old = keys.begin_compaction();
        let [kept, long] = [kept, long].map(|at| keys.copy(&old, at, Bucket(0)).unwrap());
        assert!(keys.is_at(kept, b"kept") && keys.is_at(long, &vec![1; 600 << 10]));
    }

    #[test]
    fn garbage_is_noticed() {
        let mut keys = keys(None);
        let mut stored = 0;
        while !keys.should_look() {
            keys.push(&[1; 100], Bucket(0)).unwrap();
            stored += 1;
        }
        assert!(!keys.is_worth_compacting(stored));
        assert!(!keys.should_look());
        assert!(keys.is_worth_compacting(stored / 2));
    }
}
