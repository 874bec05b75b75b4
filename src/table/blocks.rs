//! Memory for keys: blocks of 4 KiB, cut from maps of 2 MiB, a huge page each.
//!
//! Keys of verified mode live in blocks that die with their buckets. A general
//! allocator would keep most of that memory after a flood, and mix it with the
//! program's own; here a map's memory goes back to the system with its last
//! block.
//!
//! All blocks of a deduper lie in one space of addresses, so an address, which
//! is what a slot holds, leads to a key's words without the shard: past a
//! directory of maps that stays in the first-level cache. Addresses stay mapped
//! once they are, and words are atomics, so anybody may read what lies at any
//! address. Whether it was still the key's own is told by [`Frees`].

#![expect(unsafe_code, reason = "maps become references to words; see `BlockPool::words`")]

use crate::map::map_huge;
use crate::memory::Budget;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use memmap2::{MmapRaw, UncheckedAdvice};
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::Arc;
// Not those of the model checker: mapped memory is the system's.
use std::sync::atomic::{AtomicPtr, AtomicU32};

/// Bytes in a block.
const BLOCK_BYTES: usize = WORDS_PER_BLOCK * size_of::<u32>();

/// Words in a block: 4 KiB.
pub(super) const WORDS_PER_BLOCK: usize = 1 << OFFSET_BITS;

const OFFSET_BITS: u32 = 10;

/// The words of a block. Written by the shard that holds the block, under its
/// lock; read by anybody.
pub(super) type Words = [AtomicU32; WORDS_PER_BLOCK];

/// What is kept for each block beside it: its number, in its arena or in its
/// map, in vectors that may be half empty.
const BOOKKEEPING_BYTES: usize = 16;

/// Blocks in a map, at most: a huge page.
const MOST_BLOCKS_PER_MAP: usize = 512;

/// Blocks in a map, at least.
const LEAST_BLOCKS_PER_MAP: usize = 8;

/// So many maps of the largest kind have addresses: 64 GiB of keys.
const MOST_MAPS: usize = 1 << (Address::BITS - OFFSET_BITS - MOST_BLOCKS_PER_MAP.ilog2());

/// Where a word lies: `[ block: 24 | offset in the block: 10 ]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address(u64);

impl Address {
    pub(super) const BITS: u32 = 34;

    #[inline]
    pub(super) const fn of_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[inline]
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    pub(super) const fn new(block: u32, offset: usize) -> Self {
        Self((block as u64) << OFFSET_BITS | offset as u64)
    }

    /// The number of the block.
    #[inline]
    pub(crate) const fn block(self) -> u32 {
        (self.0 >> OFFSET_BITS) as u32
    }

    #[inline]
    pub(super) const fn offset(self) -> usize {
        self.0 as usize % WORDS_PER_BLOCK
    }
}

/// Why there is no block, and so no room for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// The budget is exhausted: room comes when keys are given up.
    Budget,
    /// The system grants no more, or there are no more addresses.
    System,
}

/// How often blocks were freed: what tells a reader without a lock that the
/// key at an address that it took from a slot was that slot's own.
///
/// A block is freed when no slot that is live leads to it. So who takes the
/// [`count`](Self::count), then finds a live slot and reads its key's words, and
/// then finds the [same count](Self::is_still), has read words that were
/// written before the slot and not since.
#[derive(Debug, Default)]
pub(crate) struct Frees(AtomicU64);

impl Frees {
    /// Acquire, with the Release in `note`: whatever made slots dead before
    /// blocks were freed is seen by who sees that they were.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Is the count still what it was, as of all reads of words so far?
    #[inline]
    pub(crate) fn is_still(&self, count: u64) -> bool {
        // Acquire, with the Release in `settle`: who has read a word that was
        // written to a block since it was freed sees that it was.
        fence(Ordering::Acquire);
        self.0.load(Ordering::Relaxed) == count
    }

    /// To be called before blocks are freed.
    fn note(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// To be called between taking a block, under the lock under which it was
    /// freed, and writing to it.
    fn settle() {
        fence(Ordering::Release);
    }
}

/// The blocks of all shards of one deduper.
#[derive(Debug)]
pub(crate) struct BlockPool {
    /// By the number of a map: its first block. Set once.
    places: Box<[AtomicPtr<Words>]>,
    /// Blocks in a map, as a power of two.
    map_bits: u32,
    frees: Arc<Frees>,
    maps: Mutex<Maps>,
    budget: Arc<Budget>,
    is_compacting: AtomicBool,
}

#[derive(Debug, Default)]
struct Maps {
    /// By number.
    maps: Vec<Map>,
    /// The maps that have free blocks. The lowest is used first, so that the
    /// higher ones run empty.
    open: BTreeSet<u32>,
    /// How many of these are empty, and wait to be used again.
    spare: usize,
    /// The maps that hold no memory but their addresses.
    released: Vec<u32>,
}

impl Maps {
    /// How many maps hold a block that is in use.
    fn in_use(&self) -> usize {
        self.maps.len() - self.released.len() - self.spare
    }
}

#[derive(Debug)]
struct Map {
    memory: MmapRaw,
    /// The numbers of its free blocks.
    free: Vec<u32>,
}

impl Map {
    /// Gives the memory back to the system, and keeps the addresses.
    fn release_memory(&self) {
        // SAFETY: the words read as zero afterwards, which is as good as what
        // they held; nobody holds a block in here.
        //
        // On any failure the memory merely stays.
        let _ = unsafe { self.memory.unchecked_advise(UncheckedAdvice::DontNeed) };
    }
}

impl BlockPool {
    /// Maps are a two-hundredth of the limit, 2 MiB at most.
    pub(crate) fn new(budget: Arc<Budget>, limit_bytes: Option<u64>, frees: Arc<Frees>) -> Self {
        let share = limit_bytes.map_or(u64::MAX, |limit| limit / 200) / BLOCK_BYTES as u64;
        let blocks = share.clamp(LEAST_BLOCKS_PER_MAP as u64, MOST_BLOCKS_PER_MAP as u64);
        Self {
            places: unmapped_places(),
            map_bits: blocks.ilog2(),
            frees,
            maps: Mutex::default(),
            budget,
            is_compacting: AtomicBool::new(false),
        }
    }

    /// The words of a block, whoever holds it; `None` if no such block was ever
    /// handed out. The caller may write if it holds the block.
    #[inline]
    pub(super) fn words(&self, block: u32) -> Option<&Words> {
        // Acquire: the map itself was there before.
        let first = self.places.get((block >> self.map_bits) as usize)?.load(Ordering::Acquire);
        let index = block & ((1 << self.map_bits) - 1);
        let place = NonNull::new(first)?.as_ptr().wrapping_add(index as usize);
        // SAFETY: the map holds so many blocks, is owned by `self` and never
        // unmapped before; words are aligned there, and valid and atomic
        // whatever they hold.
        Some(unsafe { &*place })
    }

    /// A block, if the budget and the system grant it; its number.
    pub(super) fn allocate(&self) -> Result<u32, NoRoom> {
        self.allocate_if(Budget::try_reserve)
    }

    /// A block, whatever the budget, if the system grants it.
    pub(super) fn allocate_overdrawing(&self) -> Result<u32, NoRoom> {
        self.allocate_if(|budget, bytes| {
            budget.reserve(bytes);
            true
        })
    }

    /// Is there room for `bytes` of keys within the budget?
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let maps = self.maps.lock();
        let free: usize =
            maps.open.iter().map(|number| maps.maps[*number as usize].free.len()).sum();
        let more = self.budget.left_bytes() / self.map_bytes();
        // One block more: the key may begin in what is left of another; and
        // some in a hundred for what blocks keep for themselves.
        let needed = (bytes + bytes / 100).div_ceil(BLOCK_BYTES) as u64 + 1;
        free as u64 + more.saturating_mul(self.blocks_per_map() as u64) >= needed
    }

    /// Runs a compaction of an arena that holds `blocks`, unless that could
    /// overdraw the budget beyond its slack: the copies come before the
    /// originals go, so only one arena at a time may do it, and none that holds
    /// much of the whole.
    pub(crate) fn compact_within_slack(&self, blocks: usize, compact: impl FnOnce()) {
        let bytes = blocks as u64 * self.map_bytes() / self.blocks_per_map() as u64;
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

    const fn blocks_per_map(&self) -> usize {
        1 << self.map_bits
    }

    /// What one map takes of the budget.
    const fn map_bytes(&self) -> u64 {
        (self.blocks_per_map() * (BLOCK_BYTES + BOOKKEEPING_BYTES)) as u64
    }

    fn allocate_if(&self, reserve: impl FnOnce(&Budget, u64) -> bool) -> Result<u32, NoRoom> {
        let mut maps = self.maps.lock();
        let number = match maps.open.first() {
            Some(number) => *number,
            None => self.open_map(&mut maps, reserve)?,
        };
        let map = &mut maps.maps[number as usize];
        let was_spare = map.free.len() == self.blocks_per_map();
        let block = map.free.pop().expect("an open map has free blocks");
        if map.free.is_empty() {
            maps.open.remove(&number);
        }
        maps.spare -= usize::from(was_spare);
        Frees::settle();
        Ok(block)
    }

    /// Gives a map memory: one that had some before, or a new one.
    fn open_map(
        &self,
        maps: &mut Maps,
        reserve: impl FnOnce(&Budget, u64) -> bool,
    ) -> Result<u32, NoRoom> {
        if !reserve(&self.budget, self.map_bytes()) {
            return Err(NoRoom::Budget);
        }
        let Some(number) = maps.released.pop().or_else(|| self.add_map(maps)) else {
            self.budget.release(self.map_bytes());
            return Err(NoRoom::System);
        };
        maps.open.insert(number);
        maps.spare += 1;
        Ok(number)
    }

    fn add_map(&self, maps: &mut Maps) -> Option<u32> {
        let number = maps.maps.len();
        let place = self.places.get(number)?;
        let (memory, first) = map_huge(self.blocks_per_map() * BLOCK_BYTES)?;
        place.store(first, Ordering::Release);
        let blocks = number << self.map_bits..(number + 1) << self.map_bits;
        // Popped from the end: the lowest block first.
        let free = blocks.rev().map(|block| block as u32).collect();
        maps.maps.push(Map { memory, free });
        Some(number as u32)
    }

    /// Takes blocks back to which no live slot leads.
    pub(super) fn free(&self, blocks: &[u32]) {
        if blocks.is_empty() {
            return;
        }
        self.frees.note();
        let mut maps = self.maps.lock();
        for block in blocks {
            self.free_one(&mut maps, *block);
        }
    }

    fn free_one(&self, maps: &mut Maps, block: u32) {
        let number = block >> self.map_bits;
        let map = &mut maps.maps[number as usize];
        map.free.push(block);
        let is_empty = map.free.len() == self.blocks_per_map();
        maps.open.insert(number);
        if is_empty {
            maps.spare += 1;
            self.release_spare(maps);
        }
    }

    /// Gives the memory of empty maps back, but for those that are likely to be
    /// used again soon.
    fn release_spare(&self, maps: &mut Maps) {
        while maps.spare > self.most_spare(maps) {
            let is_empty = |map: &Map| map.free.len() == self.blocks_per_map();
            let highest = maps.open.iter().rfind(|number| is_empty(&maps.maps[**number as usize]));
            let Some(number) = highest.copied() else { return };
            maps.maps[number as usize].release_memory();
            maps.open.remove(&number);
            maps.released.push(number);
            maps.spare -= 1;
            self.budget.release(self.map_bytes());
        }
    }

    /// One, so that a block that comes and goes does not take and give back
    /// memory each time. Without a limit, also as many as expire with one of
    /// eight buckets: the system clears memory when it is first used, which took
    /// a tenth of all checks of new keys in a rolling window. Within a limit
    /// tables may need it.
    fn most_spare(&self, maps: &Maps) -> usize {
        if self.budget.is_limited() { 1 } else { 1 + maps.in_use() / 8 }
    }
}

/// As many places as there can be maps, none mapped. They take memory only
/// once written: the zeroed memory comes from the system untouched.
fn unmapped_places() -> Box<[AtomicPtr<Words>]> {
    let zeroed = vec![0_usize; MOST_MAPS].into_boxed_slice();
    let places = Box::into_raw(zeroed) as *mut [AtomicPtr<Words>];
    // SAFETY: an atomic pointer is laid out as a word, for which zero is null;
    // the box was just given up by `into_raw`.
    unsafe { Box::from_raw(places) }
}

const _: () = assert!(size_of::<AtomicPtr<Words>>() == size_of::<usize>());
const _: () = assert!(align_of::<AtomicPtr<Words>>() == align_of::<usize>());

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(limit: Option<u64>) -> BlockPool {
        BlockPool::new(Arc::new(Budget::new(limit)), limit, Arc::default())
    }

    #[test]
    fn blocks_do_not_overlap() {
        let pool = pool(None);
        let blocks: Vec<u32> = (0..600).map(|_| pool.allocate().unwrap()).collect();
        for block in &blocks {
            let words = pool.words(*block).unwrap();
            for word in words {
                word.store(*block + 1, Ordering::Relaxed);
            }
        }
        for block in &blocks {
            let words = pool.words(*block).unwrap();
            assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == *block + 1));
        }
    }

    #[test]
    fn memory_goes_back_with_the_last_block_and_addresses_stay() {
        let pool = pool(None);
        let blocks: Vec<u32> = (0..600).map(|_| pool.allocate().unwrap()).collect();
        assert_eq!(pool.budget.used_bytes(), 2 * pool.map_bytes());
        let last = pool.words(599).unwrap();
        last[7].store(1, Ordering::Relaxed);
        pool.free(&blocks);
        assert_eq!(pool.budget.used_bytes(), pool.map_bytes(), "one of two maps stays");
        assert_eq!(last[7].load(Ordering::Relaxed), 0);
        let again: Vec<u32> = (0..600).map(|_| pool.allocate().unwrap()).collect();
        assert_eq!(pool.budget.used_bytes(), 2 * pool.map_bytes());
        assert_eq!(pool.maps.lock().maps.len(), 2, "addresses are used again");
        assert_eq!(BTreeSet::from_iter(again).len(), 600);
    }

    #[test]
    fn an_eighth_of_what_is_in_use_may_be_spare() {
        for (limit, spare) in [(None, 3), (Some(1 << 40), 1)] {
            let pool = pool(limit);
            let maps = |count: usize| count * MOST_BLOCKS_PER_MAP;
            let blocks: Vec<u32> = (0..maps(25)).map(|_| pool.allocate().unwrap()).collect();
            pool.free(&blocks[maps(16)..]);
            assert_eq!(pool.budget.used_bytes(), (16 + spare) * pool.map_bytes());
            pool.free(&blocks[..maps(16)]);
            assert_eq!(pool.budget.used_bytes(), pool.map_bytes());
        }
    }

    #[test]
    fn what_was_never_mapped_has_no_words() {
        let pool = pool(None);
        assert!(pool.words(0).is_none());
        let block = pool.allocate().unwrap();
        assert!(pool.words(block).is_some());
        assert!(pool.words(MOST_BLOCKS_PER_MAP as u32).is_none());
        assert!(pool.words(u32::MAX).is_none());
    }

    #[test]
    fn an_address_is_a_block_and_an_offset() {
        let last = Address::new((1 << 24) - 1, WORDS_PER_BLOCK - 1);
        assert_eq!(last.bits(), (1 << Address::BITS) - 1);
        assert_eq!((last.block(), last.offset()), ((1 << 24) - 1, WORDS_PER_BLOCK - 1));
    }

    #[test]
    fn frees_are_counted() {
        let frees = Arc::new(Frees::default());
        let pool = BlockPool::new(Arc::new(Budget::new(None)), None, Arc::clone(&frees));
        let before = frees.count();
        let block = pool.allocate().unwrap();
        pool.free(&[]);
        assert!(frees.is_still(before));
        pool.free(&[block]);
        assert!(!frees.is_still(before));
    }

    #[test]
    fn the_budget_bounds_the_pool_unless_overdrawn() {
        let pool = pool(Some(4 << 20));
        let blocks: Vec<u32> = std::iter::from_fn(|| pool.allocate().ok()).collect();
        assert!(blocks.len() > 900 && blocks.len() <= 1_024);
        assert!(!pool.has_room(1));
        assert!(pool.allocate_overdrawing().is_ok());
        pool.free(&blocks);
        assert!(pool.has_room(3 << 20));
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::sync::atomic::AtomicU32;
    use loom::thread;

    const DEAD: u32 = 0;
    const LIVE: u32 = 1;
    const OUR_KEY: u32 = 7;
    const ANOTHER: u32 = 8;

    /// A slot that dies, its block that is freed, and another shard that takes
    /// the block and writes to it: what a reader without a lock may take for the
    /// slot's key is that key. (With Relaxed in place of either Release or
    /// Acquire, or without either fence, this fails.)
    #[test]
    fn words_are_the_slots_own_if_nothing_was_freed() {
        loom::model(|| {
            let frees = Arc::new(Frees::default());
            let slot = Arc::new(AtomicU32::new(LIVE));
            let word = Arc::new(AtomicU32::new(ANOTHER));
            let pool = Arc::new(Mutex::new(false));
            let owner = {
                let (frees, slot, pool) =
                    (Arc::clone(&frees), Arc::clone(&slot), Arc::clone(&pool));
                thread::spawn(move || {
                    slot.store(DEAD, Ordering::Relaxed);
                    frees.note();
                    *pool.lock() = true;
                })
            };
            let taker = {
                let word = Arc::clone(&word);
                thread::spawn(move || {
                    let is_free = *pool.lock();
                    if is_free {
                        Frees::settle();
                        word.store(OUR_KEY, Ordering::Relaxed);
                    }
                })
            };
            let before = frees.count();
            if slot.load(Ordering::Relaxed) == LIVE {
                fence(Ordering::Acquire);
                let seen = word.load(Ordering::Relaxed);
                assert!(seen == ANOTHER || !frees.is_still(before), "another's key");
            }
            owner.join().unwrap();
            taker.join().unwrap();
        });
    }

    /// Who finds a slot finds what was written before it.
    #[test]
    fn words_are_there_before_their_slot() {
        loom::model(|| {
            let slot = Arc::new(AtomicU32::new(DEAD));
            let word = Arc::new(AtomicU32::new(ANOTHER));
            let writer = {
                let (slot, word) = (Arc::clone(&slot), Arc::clone(&word));
                thread::spawn(move || {
                    word.store(OUR_KEY, Ordering::Relaxed);
                    fence(Ordering::Release);
                    slot.store(LIVE, Ordering::Relaxed);
                })
            };
            if slot.load(Ordering::Relaxed) == LIVE {
                fence(Ordering::Acquire);
                assert_eq!(word.load(Ordering::Relaxed), OUR_KEY);
            }
            writer.join().unwrap();
        });
    }
}
