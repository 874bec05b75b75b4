//! Layers: the filter's memory.
//!
//! A layer is one map with an equal number of blocks for every shard, side by
//! side: all shards are of about one size, because keys are spread by a hash.
//! It is mapped when the first shard enters it and unmapped when the last one
//! has left. All `unsafe` of filter memory is in this file.

// The one place where filter memory becomes references.
#![expect(unsafe_code, reason = "shards own disjoint slices of shared maps; see `Slice`")]

use super::block::{self, LINE_BYTES, Layout, Probe};
use super::sizing::Sizing;
use crate::hash::KeyHash;
use crate::map::{map_huge, prefetch};
use crate::memory::Budget;
use memmap2::MmapRaw;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::{ptr, slice};

/// No layer has fewer blocks for a shard, unless the budget is nearly used up:
/// smaller ones would save nothing that counts.
pub(super) const FEW_BLOCKS: u32 = 64;

/// Nor fewer than these, whatever the budget.
const FEWEST_BLOCKS: u32 = 8;

/// A layer smaller than this part of the last one is not worth its line in
/// every probe: the budget is used up.
const WORTH_A_LAYER: u32 = 4;

/// The filter memory of all shards of one deduper.
#[derive(Debug)]
pub(crate) struct Layers {
    pub(super) layout: Layout,
    pub(super) sizing: Sizing,
    shards: u32,
    newest: Mutex<NewestLayer>,
    budget: Arc<Budget>,
    mapped: Arc<Mapped>,
}

/// What is known of all layers that are mapped. `Relaxed`: it is for people,
/// and for prefetching.
#[derive(Debug, Default)]
struct Mapped {
    bytes: AtomicU64,
    /// Those with even and those with odd numbers: so the two newest layers are
    /// never at the same place.
    homes: [Home; 2],
}

/// Where the blocks of a layer lie, for prefetching; may be outdated.
#[derive(Debug, Default)]
struct Home {
    /// Null: there is no layer.
    first: AtomicPtr<u8>,
    blocks: AtomicU32,
}

/// The newest layer, if any shard is still in it, and its number.
#[derive(Debug, Default)]
struct NewestLayer {
    number: u64,
    layer: Weak<Layer>,
}

/// One map, with as many blocks for each shard.
#[derive(Debug)]
struct Layer {
    number: u64,
    blocks: u32,
    first: AtomicPtr<u8>,
    /// By shard: `NEW`, `HELD` or `LEFT`.
    slices: Box<[AtomicU8]>,
    bytes: u64,
    budget: Arc<Budget>,
    mapped: Arc<Mapped>,
    _map: MmapRaw,
}

/// No slice of this shard was ever given out: its memory is zero.
const NEW: u8 = 0;
/// A slice of this shard is out.
const HELD: u8 = 1;
/// It has come back, and its memory is as it was left.
const LEFT: u8 = 2;

impl Drop for Layer {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
        self.mapped.remove(self);
    }
}

impl Mapped {
    fn add(&self, layer: &Layer) {
        self.bytes.fetch_add(layer.bytes, Ordering::Relaxed);
        let home = self.home(layer.number);
        home.blocks.store(layer.blocks, Ordering::Relaxed);
        home.first.store(layer.first.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn remove(&self, layer: &Layer) {
        self.bytes.fetch_sub(layer.bytes, Ordering::Relaxed);
        let first = layer.first.load(Ordering::Relaxed);
        let home = &self.home(layer.number).first;
        // Unless a later layer has taken the place.
        let relaxed = Ordering::Relaxed;
        let _ = home.compare_exchange(first, ptr::null_mut(), relaxed, relaxed);
    }

    fn home(&self, layer: u64) -> &Home {
        &self.homes[layer as usize % self.homes.len()]
    }
}

impl Layers {
    /// Bytes of bookkeeping for each shard.
    pub(super) const BYTES_PER_SHARD: usize = size_of::<AtomicU8>();

    /// Filter memory for so many shards; none is mapped yet.
    pub(super) fn new(shards: u32, layout: Layout, sizing: Sizing, budget: Arc<Budget>) -> Self {
        Self { layout, sizing, shards, newest: Mutex::default(), budget, mapped: Arc::default() }
    }

    /// Enters a layer later than `held`: the newest one, if its blocks a shard
    /// `fit`, else a new one of so many `blocks`, or fewer if the budget or the
    /// system grants no more. `None` if they grant too few.
    pub(super) fn enter(
        &self,
        shard: u32,
        held: Option<&Slice>,
        blocks: u32,
        fits: impl Fn(u32) -> bool,
    ) -> Option<Slice> {
        let mut newest = self.newest.lock();
        if let Some(slice) = self.slice_of_newest(&newest, shard, held, fits) {
            return Some(slice);
        }
        let least = held.map_or(0, |slice| slice.blocks() / WORTH_A_LAYER).min(blocks);
        let least = least.max(FEWEST_BLOCKS);
        let layer = Arc::new(self.map(newest.number + 1, blocks, least)?);
        *newest = NewestLayer { number: layer.number, layer: Arc::downgrade(&layer) };
        self.slice_of(layer, shard)
    }

    /// Enters the newest layer, if it is later than `held` and `fits`.
    pub(super) fn follow(
        &self,
        shard: u32,
        held: Option<&Slice>,
        fits: impl Fn(u32) -> bool,
    ) -> Option<Slice> {
        self.slice_of_newest(&self.newest.lock(), shard, held, fits)
    }

    fn slice_of_newest(
        &self,
        newest: &NewestLayer,
        shard: u32,
        held: Option<&Slice>,
        fits: impl Fn(u32) -> bool,
    ) -> Option<Slice> {
        let layer = newest.layer.upgrade()?;
        let is_later = held.is_none_or(|slice| layer.number > slice.layer.number);
        if is_later && fits(layer.blocks) { self.slice_of(layer, shard) } else { None }
    }

    /// A shard's slice of a layer, zeroed; `None` if it is out already.
    fn slice_of(&self, layer: Arc<Layer>, shard: u32) -> Option<Slice> {
        // Acquire: what the last holder wrote comes before, by the release in
        // the slice's drop.
        let before = layer.slices[shard as usize].swap(HELD, Ordering::Acquire);
        if before == HELD {
            return None;
        }
        let block_bytes = self.layout.block_bytes();
        let bytes = layer.blocks as usize * block_bytes;
        let first = layer.first.load(Ordering::Relaxed).wrapping_add(bytes * shard as usize);
        let first = AtomicPtr::new(first);
        let block_bytes = block_bytes as u32;
        let mut slice = Slice { first, blocks: layer.blocks, block_bytes, layer, shard };
        if before == LEFT {
            slice.all_mut().fill(0);
        }
        Some(slice)
    }

    /// A new layer of so many blocks a shard, or of half as many and so on,
    /// down to `least`.
    fn map(&self, number: u64, mut blocks: u32, least: u32) -> Option<Layer> {
        while blocks >= least {
            let layer = self.map_exactly(number, blocks);
            if layer.is_some() {
                return layer;
            }
            blocks /= 2;
        }
        None
    }

    fn map_exactly(&self, number: u64, blocks: u32) -> Option<Layer> {
        let shards = self.shards as usize;
        let bytes = (blocks as usize).checked_mul(self.layout.block_bytes() * shards)?;
        if !self.budget.try_reserve(bytes as u64) {
            return None;
        }
        let Some((map, first)) = map_huge(bytes) else {
            self.budget.release(bytes as u64);
            return None;
        };
        let layer = Layer {
            number,
            blocks,
            first: AtomicPtr::new(first),
            slices: (0..shards).map(|_| AtomicU8::new(NEW)).collect(),
            bytes: bytes as u64,
            budget: Arc::clone(&self.budget),
            mapped: Arc::clone(&self.mapped),
            _map: map,
        };
        self.mapped.add(&layer);
        Some(layer)
    }

    /// The bytes of all layers.
    pub(crate) fn bytes(&self) -> u64 {
        self.mapped.bytes.load(Ordering::Relaxed)
    }

    /// Lines in a block.
    pub(crate) const fn lines(&self) -> u32 {
        self.sizing.lines
    }

    /// Where a key belongs, to be looked for or recorded.
    #[inline]
    pub(crate) fn probe(&self, hash: KeyHash) -> Probe {
        self.layout.probe(hash)
    }

    /// As `probe`, in place.
    #[inline]
    pub(crate) fn aim(&self, probe: &mut Probe, hash: KeyHash) {
        self.layout.aim(probe, hash);
    }

    /// Asks the processor to fetch what a key's check will need of the two
    /// newest layers.
    #[inline]
    pub(crate) fn prefetch(&self, shard: usize, hash: KeyHash) {
        for home in &self.mapped.homes {
            let first = home.first.load(Ordering::Relaxed);
            if first.is_null() {
                continue;
            }
            let blocks = home.blocks.load(Ordering::Relaxed);
            let block = shard * blocks as usize + block::home(hash, blocks);
            let block = first.wrapping_add(block * self.layout.block_bytes());
            prefetch(block);
            for line in 1..self.sizing.lines as usize {
                prefetch(block.wrapping_add(line * LINE_BYTES));
            }
        }
    }
}

/// One shard's blocks in one layer, owned.
///
/// Each shard has blocks of its own in a layer, and `Layer::slices` lets one
/// slice of them be out at a time: so no two slices overlap, and within one,
/// the borrow checker does the rest. The layer stays mapped while any slice of
/// it is out.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Slice {
    /// Never changes; atomic because that makes a pointer `Send`.
    first: AtomicPtr<u8>,
    blocks: u32,
    block_bytes: u32,
    layer: Arc<Layer>,
    shard: u32,
}

impl Drop for Slice {
    fn drop(&mut self) {
        // Release: see `Layers::slice_of`.
        self.layer.slices[self.shard as usize].store(LEFT, Ordering::Release);
    }
}

impl Slice {
    /// How many blocks there are.
    #[inline]
    pub(super) fn blocks(&self) -> u32 {
        self.blocks
    }

    /// The block of this number.
    #[inline]
    pub(super) fn block_mut(&mut self, number: usize) -> &mut [u8] {
        assert!(number < self.blocks() as usize, "a block beyond the shard's slice");
        let block_bytes = self.block_bytes as usize;
        let block = self.first.get_mut().wrapping_add(number * block_bytes);
        // SAFETY: the block lies within this slice, which nobody else reaches
        // (see the type) and which is mapped while `layer` is held; any bytes
        // are valid. The result borrows `self` mutably.
        unsafe { slice::from_raw_parts_mut(block, block_bytes) }
    }

    /// All blocks.
    fn all_mut(&mut self) -> &mut [u8] {
        let bytes = self.blocks() as usize * self.block_bytes as usize;
        // SAFETY: as in `block_mut`.
        unsafe { slice::from_raw_parts_mut(*self.first.get_mut(), bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(shards: u32, limit: Option<u64>) -> (Layers, Arc<Budget>) {
        let budget = Arc::new(Budget::new(limit));
        let sizing = Sizing::new(1e-2, 9);
        let layout = Layout::new(&sizing, 9);
        (Layers::new(shards, layout, sizing, Arc::clone(&budget)), budget)
    }

    const BLOCK: u64 = 128;

    fn enter(layers: &Layers, shard: u32, held: Option<&Slice>, blocks: u32) -> Option<Slice> {
        layers.enter(shard, held, blocks, |there| there >= blocks)
    }

    #[test]
    fn shards_own_disjoint_slices_of_one_layer() {
        let (layers, budget) = layers(4, None);
        let mut slices: Vec<Slice> =
            (0..4).map(|shard| enter(&layers, shard, None, 10).unwrap()).collect();
        assert_eq!(budget.used_bytes(), 4 * 10 * BLOCK);
        for (mark, slice) in slices.iter_mut().enumerate() {
            assert!(slice.all_mut().iter().all(|byte| *byte == 0));
            slice.all_mut().fill(mark as u8);
        }
        for (mark, slice) in slices.iter_mut().enumerate() {
            assert!((0..10).all(|block| slice.block_mut(block) == [mark as u8; 128]));
        }
    }

    #[test]
    fn no_slice_is_given_out_twice() {
        let (layers, _) = layers(2, None);
        let _first = enter(&layers, 0, None, 10).unwrap();
        assert!(layers.follow(0, None, |_| true).is_none());
        assert!(layers.follow(1, None, |_| true).is_some());
    }

    #[test]
    fn memory_goes_back_when_the_last_shard_leaves() {
        let (layers, budget) = layers(2, None);
        let (a, b) = (enter(&layers, 0, None, 10), enter(&layers, 1, None, 10));
        drop(a);
        assert_eq!(budget.used_bytes(), 2 * 10 * BLOCK);
        drop(b);
        assert_eq!(budget.used_bytes(), 0);
        assert_eq!(enter(&layers, 1, None, 20).unwrap().blocks(), 20);
    }

    #[test]
    fn a_layer_entered_again_is_zeroed() {
        let (layers, budget) = layers(2, None);
        let _stays = enter(&layers, 0, None, 10);
        let mut slice = enter(&layers, 1, None, 10).unwrap();
        slice.all_mut().fill(7);
        drop(slice);
        let mut slice = enter(&layers, 1, None, 10).unwrap();
        assert!(slice.all_mut().iter().all(|byte| *byte == 0));
        assert_eq!(budget.used_bytes(), 2 * 10 * BLOCK);
    }

    #[test]
    fn only_a_later_layer_is_entered() {
        let (layers, _) = layers(2, None);
        let first = enter(&layers, 0, None, 10).unwrap();
        let second = enter(&layers, 0, Some(&first), 30).unwrap();
        assert_eq!(second.blocks(), 30);
        assert!(layers.follow(1, None, |blocks| blocks > 30).is_none());
        assert_eq!(layers.follow(1, None, |_| true).unwrap().blocks(), 30);
    }

    #[test]
    fn the_two_newest_layers_are_known_to_prefetching_until_they_go() {
        let (layers, _) = layers(1, None);
        let known = || {
            let homes = layers.mapped.homes.iter();
            let homes = homes.filter(|home| !home.first.load(Ordering::Relaxed).is_null());
            let mut blocks: Vec<_> =
                homes.map(|home| home.blocks.load(Ordering::Relaxed)).collect();
            blocks.sort_unstable();
            blocks
        };
        let first = enter(&layers, 0, None, 10).unwrap();
        let second = enter(&layers, 0, Some(&first), 20).unwrap();
        assert_eq!(known(), [10, 20]);
        let third = enter(&layers, 0, Some(&second), 30).unwrap();
        assert_eq!(known(), [20, 30]);
        drop(first);
        assert_eq!(known(), [20, 30], "its place is another's");
        drop(third);
        assert_eq!(known(), [20]);
        drop(second);
        assert!(known().is_empty());
    }

    #[test]
    fn the_budget_bounds_layers() {
        let (layers, budget) = layers(1, Some(100 * BLOCK));
        let first = enter(&layers, 0, None, 150).unwrap();
        assert_eq!(first.blocks(), 75, "half of what was asked for");
        let second = enter(&layers, 0, Some(&first), 76).unwrap();
        assert_eq!(second.blocks(), 19, "a quarter, and more than a quarter of the first");
        assert!(enter(&layers, 0, Some(&second), 76).is_none());
        drop(second);
        assert_eq!(budget.used_bytes(), 75 * BLOCK);
    }

    #[test]
    #[should_panic(expected = "beyond the shard's slice")]
    fn a_block_not_owned_is_out_of_reach() {
        let (layers, _) = layers(2, None);
        enter(&layers, 0, None, 10).unwrap().block_mut(10);
    }
}
