//! The front tier: one shard's filter, which knows a key by a few bits.
//!
//! A filter answers "not in the window" for certain and "in the window" with a
//! probability of error that was asked for. Its memory is *layers* of *blocks*;
//! a block has one *generation* for each bucket that can be live at once, and
//! one probe answers for all of them (`block`). Time passes by giving the
//! oldest generation to the new bucket: blocks are cleared when they are next
//! touched, so a rotation is a few counters and a bounded sweep.
//!
//! A bucket that outgrows its layer goes on in a new, larger one, where it may
//! use a smaller share of the rate (`sizing`); later buckets begin in the
//! newest layer, and an older one goes when its last bucket is dead. When a
//! bucket begins, a layer that has proved too small or far too large is
//! replaced by one that fits what the buckets really hold.
//!
//! The filter knows buckets, not what they mean: when a check is a duplicate,
//! and which policy holds at the memory limit, is the shard's.
//!
//! # Invariants
//!
//! - At most `generations` successive buckets are live, up to `newest`.
//! - A line's tag is exact, because each is touched before `tags` buckets have
//!   passed; where as many as there are generations pass at once, all is dead,
//!   and let go.
//! - Only the newest slice takes keys.

mod block;
mod fills;
mod layer;
mod sizing;

use crate::memory::Budget;
use crate::time::Bucket;

pub(crate) use block::Probe;
pub(crate) use layer::Layers;

use block::{Layout, Newest, PAIR_BYTES};
use fills::{Fill, Fills};
use layer::{FEW_BLOCKS, Slice};
use sizing::Sizing;
use std::mem::offset_of;
use std::sync::Arc;

/// A layer that fits what buckets hold has this much room to spare ...
const SPARE: f64 = 1.1;
/// ... and is replaced when it has more than this, after a whole window.
const TOO_LARGE: f64 = 1.5;

/// A bucket that outgrows its layer gets a layer for as many keys again.
const GROWTH: f64 = 1.0;
/// Where there is one bucket for ever, its layers stay, and each costs every
/// probe a cache miss: fewer and larger ones.
const GROWTH_FOR_EVER: f64 = 3.0;

/// A bucket beyond its room looks for more once in so many parts of its keys: at every key
/// the look was a fifth of all work in a filter that was full for good.
const OVERFILL: u32 = 64;

/// What every filter of one deduper is built for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// P(a new key is called known), per check, over all live buckets.
    pub(crate) rate: f64,
    /// Buckets that can be live at once.
    pub(crate) generations: u32,
    /// Number of tags: line tags wrap after so many buckets.
    pub(crate) tags: u8,
    /// Keys that a bucket is expected to hold in one shard; `None`: unknown,
    /// begin small.
    pub(crate) keys: Option<f64>,
}

/// One shard's filter, in the order of use: its first `HOT_BYTES` are all that
/// a check needs in a steady stream.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Filter {
    newest_bucket: Bucket,
    /// Buckets before this one are dead.
    low: Bucket,
    newest: Newest,
    layers: Arc<Layers>,
    /// In the order in which they were entered.
    older: Vec<Held>,
    /// Takes the new keys. In a steady stream it is the only one.
    held: Option<Held>,
    shard: u32,
    /// Blocks of a layer that is entered where no other is held.
    first_blocks: u32,
    /// By generation: keys that are also in a later one.
    moved_up: Box<[u32]>,
}

/// A slice of a layer, and how many keys each generation has in it.
#[derive(Debug)]
#[repr(C)]
struct Held {
    slice: Slice,
    fills: Fills,
    /// The bucket in which it was entered.
    entered: Bucket,
    /// The next block to be swept.
    cursor: usize,
}

/// What the check of a key came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The latest bucket that has it, as far as the filter knows.
    Found(Bucket),
    /// It was not known, and is now.
    Recorded,
}

/// There was no memory for another layer; the key was not recorded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl Plan {
    /// What so many generations cost at a rate: bits of filter memory per live
    /// key, in a steady stream of expected size.
    pub(crate) fn bits_per_key(rate: f64, generations: u32) -> f64 {
        Sizing::new(rate, generations).bits_per_key(generations)
    }

    /// The filters of so many shards, as of the bucket `newest`, and their
    /// layers.
    pub(crate) fn build(
        self,
        shards: u32,
        newest: Bucket,
        budget: Arc<Budget>,
    ) -> (Arc<Layers>, Vec<Filter>) {
        let sizing = Sizing::new(self.rate, self.generations);
        let layout = Layout::new(&sizing, self.generations);
        let first_blocks = self.keys.map_or(FEW_BLOCKS, |keys| sizing.blocks(0, keys) as u32 + 1);
        let layers = Arc::new(Layers::new(shards, layout, sizing, budget));
        let filter = |shard| {
            let layers = Arc::clone(&layers);
            let mut filter = Filter {
                newest: Newest { tag: 0, generation: 0, tags: self.tags },
                newest_bucket: newest,
                low: newest,
                older: Vec::new(),
                held: None,
                layers,
                shard,
                first_blocks,
                moved_up: vec![0; self.generations as usize].into(),
            };
            filter.turn_to(newest);
            filter
        };
        let filters = (0..shards).map(filter).collect();
        (layers, filters)
    }
}

impl Held {
    /// The age of the youngest bucket that has the key here, if one does.
    #[expect(clippy::inline_always, reason = "or a check pays for calls and spilled registers")]
    #[inline(always)]
    fn find(&mut self, layout: &Layout, newest: Newest, probe: &Probe) -> Option<u32> {
        let block = self.slice.block_mut(probe.block(self.slice.blocks()));
        layout.freshen(block, newest);
        layout.youngest(block, probe, newest)
    }
}

/// What a check in the newest bucket needs beside a block.
struct InNewest<'a> {
    layout: &'a Layout,
    newest: Newest,
    newest_bucket: Bucket,
    fill: &'a mut Fill,
}

impl InNewest<'_> {
    #[expect(clippy::inline_always, reason = "or a check pays for calls and spilled registers")]
    #[inline(always)]
    fn check(&mut self, block: &mut [u8], probe: &Probe, from: Bucket) -> Option<Outcome> {
        self.layout.freshen(block, self.newest);
        let youngest = self.layout.youngest(block, probe, self.newest);
        let found = youngest.map(|age| self.newest_bucket.minus(age.into()));
        if let Some(bucket) = found.filter(|bucket| *bucket >= from) {
            return Some(Outcome::Found(bucket));
        }
        if !self.fill.has_room() {
            return None;
        }
        self.fill.keys += 1;
        self.layout.insert(block, probe, self.newest.generation.into());
        Some(Outcome::Recorded)
    }
}

impl Filter {
    /// So many of its bytes, from the first on, are all that a check needs.
    pub(crate) const HOT_BYTES: usize =
        offset_of!(Self, held) + size_of::<Slice>() + size_of::<Fill>();

    /// Bytes that one shard's filter takes elsewhere, apart from its layers.
    pub(crate) fn bytes_elsewhere(generations: u32) -> u64 {
        let by_generation = generations as usize * (size_of::<Fill>() + size_of::<u32>());
        (by_generation + Layers::BYTES_PER_SHARD) as u64
    }

    /// Checks a key in the newest bucket: finds it in a bucket from `from` on, or
    /// records it. `None` if that takes more than one slice or more room than
    /// there is; then nothing was done.
    #[expect(clippy::inline_always, reason = "or a check pays for calls and spilled registers")]
    #[inline(always)]
    pub(crate) fn check_in_newest(&mut self, probe: &Probe, from: Bucket) -> Option<Outcome> {
        let held = self.held.as_mut().filter(|_| self.older.is_empty())?;
        let block = held.slice.block_mut(probe.block(held.slice.blocks()));
        let mut newest = InNewest {
            layout: &self.layers.layout,
            newest: self.newest,
            newest_bucket: self.newest_bucket,
            fill: held.fills.newest_mut(),
        };
        match <&mut [u8; PAIR_BYTES]>::try_from(&mut *block) {
            // The same, compiled for a length that is known.
            Ok(pair) => newest.check(pair, probe, from),
            Err(_) => newest.check(block, probe, from),
        }
    }

    /// The latest bucket from `from` on that has the key, as far as the filter
    /// knows; or an earlier one that is `enough`.
    pub(crate) fn find(&mut self, probe: &Probe, from: Bucket, enough: Bucket) -> Option<Bucket> {
        let found = self.held.as_mut()?.find(&self.layers.layout, self.newest, probe);
        let found = found.map(|age| self.newest_bucket.minus(age.into()));
        let found = found.filter(|bucket| *bucket >= from);
        if self.older.is_empty() || found >= Some(enough) {
            return found;
        }
        self.find_in_older(probe, from, enough, found)
    }

    /// Goes on to find a key in the older slices.
    #[inline(never)]
    fn find_in_older(
        &mut self,
        probe: &Probe,
        from: Bucket,
        enough: Bucket,
        mut found: Option<Bucket>,
    ) -> Option<Bucket> {
        for held in self.older.iter_mut().rev() {
            let here = held.find(&self.layers.layout, self.newest, probe);
            let here = here.map(|age| self.newest_bucket.minus(age.into()));
            found = found.max(here.filter(|bucket| *bucket >= from));
            if found >= Some(enough) {
                break;
            }
        }
        found
    }

    /// Records a key in a live bucket.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] if that needs another layer, and there is no memory for it.
    #[expect(clippy::inline_always, reason = "or a check pays for calls and spilled registers")]
    #[inline(always)]
    pub(crate) fn insert(&mut self, probe: &Probe, at: Bucket) -> Result<(), NoRoom> {
        let generation = self.generation(at);
        if !self.held.as_ref().is_some_and(|held| held.fills.of(generation).has_room()) {
            self.make_room(generation)?;
        }
        self.insert_in_newest(probe, generation);
        Ok(())
    }

    #[expect(clippy::inline_always, reason = "or a check pays for calls and spilled registers")]
    #[inline(always)]
    fn insert_in_newest(&mut self, probe: &Probe, generation: u32) {
        let Some(held) = &mut self.held else { return };
        held.fills.of_mut(generation).keys += 1;
        let block = held.slice.block_mut(probe.block(held.slice.blocks()));
        self.layers.layout.freshen(block, self.newest);
        self.layers.layout.insert(block, probe, generation);
    }

    /// Records a key in a live bucket, whether that has room or not: the rate
    /// suffers. False iff there is not a single layer.
    pub(crate) fn insert_beyond_room(&mut self, probe: &Probe, at: Bucket) -> bool {
        self.insert_in_newest(probe, self.generation(at));
        self.held.is_some()
    }

    /// As [`insert_beyond_room`](Self::insert_beyond_room), where whatever comes next is
    /// also to be recorded: it has room until there are one part in [`OVERFILL`] more.
    pub(crate) fn overfill(&mut self, probe: &Probe, at: Bucket) -> bool {
        let generation = self.generation(at);
        if let Some(held) = &mut self.held {
            let fill = held.fills.of_mut(generation);
            fill.room = fill.keys.saturating_add(fill.keys / OVERFILL);
        }
        self.insert_beyond_room(probe, at)
    }

    /// Takes note that a key of one bucket was recorded in a later one, too.
    pub(crate) fn move_up(&mut self, from: Bucket) {
        // A filter may be mistaken in the bucket of a key.
        if self.keys(from) > 0 {
            self.moved_up[self.generation(from) as usize] += 1;
        }
    }

    /// How many keys were last recorded in a live bucket.
    pub(crate) fn keys(&self, bucket: Bucket) -> u32 {
        let generation = self.generation(bucket);
        self.keys_in(generation) - self.moved_up[generation as usize]
    }

    /// The live buckets, from the oldest on.
    pub(crate) fn buckets(&self) -> impl DoubleEndedIterator<Item = Bucket> + use<> {
        let newest = self.newest_bucket;
        (0..self.live_buckets()).rev().map(move |age| newest.minus(age.into()))
    }

    fn live_buckets(&self) -> u32 {
        (self.newest_bucket.since(self.low) + 1).clamp(0, self.generations()) as u32
    }

    /// The newest bucket.
    #[inline]
    pub(crate) const fn newest(&self) -> Bucket {
        self.newest_bucket
    }

    /// Buckets before this one are dead.
    #[inline]
    pub(crate) const fn low(&self) -> Bucket {
        self.low
    }

    /// Moves on to a later newest bucket, or a later lowest one.
    pub(crate) fn roll_to(&mut self, newest: Bucket, low: Bucket) {
        let steps = newest.since(self.newest_bucket);
        self.low = low;
        self.leave_layers(steps >= self.generations());
        if steps > 0 {
            // Tags are read as they were: `newest` moves afterwards.
            self.sweep(steps);
            self.turn_to(newest);
            self.empty_generations(steps);
            self.fit();
        }
    }

    /// Leaves the layers that were entered in a bucket that is dead and have no
    /// live key; or all of them.
    fn leave_layers(&mut self, are_all_dead: bool) {
        let (layout, newest, low) = (&self.layers.layout, self.newest, self.low);
        let live = 0..self.live_buckets();
        let is_live = |held: &Held| {
            let keys = |age| held.fills.of(layout.generation(newest, age)).keys;
            !are_all_dead && (held.entered >= low || live.clone().any(|age| keys(age) > 0))
        };
        self.older.retain(is_live);
        self.held = self.held.take().filter(is_live);
    }

    /// Sweeps a share of the blocks for each of `steps` buckets, so that each
    /// is touched before its tags come round: `steps` buckets pass at once, up
    /// to all generations but one, and so that many tags are held back.
    fn sweep(&mut self, steps: i64) {
        let rounds = usize::from(self.newest.tags) - self.generations() as usize;
        for held in self.older.iter_mut().chain(&mut self.held) {
            let blocks = held.slice.blocks() as usize;
            let share = blocks / rounds + 1;
            for _ in 0..blocks.min(share * steps as usize) {
                let block = held.slice.block_mut(held.cursor);
                self.layers.layout.freshen(block, self.newest);
                held.cursor = (held.cursor + 1) % blocks;
            }
        }
    }

    fn turn_to(&mut self, newest: Bucket) {
        self.newest_bucket = newest;
        self.newest.tag = newest.0.rem_euclid(self.newest.tags.into()) as u8;
        self.newest.generation = newest.0.rem_euclid(self.generations()) as u16;
        for held in self.older.iter_mut().chain(&mut self.held) {
            held.fills.turn_to(self.newest.generation.into());
        }
    }

    /// The generations of the `steps` newest buckets have no keys yet.
    fn empty_generations(&mut self, steps: i64) {
        for age in 0..steps.min(self.generations()) {
            self.empty(self.generation(self.newest_bucket.minus(age)));
        }
    }

    /// Counts no keys in a generation any more.
    fn empty(&mut self, generation: u32) {
        self.moved_up[generation as usize] = 0;
        for held in self.older.iter_mut().chain(&mut self.held) {
            *held.fills.of_mut(generation) = Fill::default();
        }
    }

    /// Where the newest slice has proved too small, or far too large for a
    /// whole window, enters a layer that fits the fullest bucket.
    fn fit(&mut self) {
        let Some(Held { slice, entered, .. }) = &self.held else { return };
        let sizing = &self.layers.sizing;
        let keys = (0..self.generations() as u32).map(|generation| self.keys_in(generation));
        let fullest = keys.max().unwrap_or(0);
        let needed = sizing.blocks(0, f64::from(fullest));
        let most = (needed * TOO_LARGE).max(FEW_BLOCKS.into()) as u32;
        let is_enough = |blocks| sizing.room(0, blocks, sizing.rate()) >= fullest;
        let fits = |blocks| is_enough(blocks) && blocks <= most;
        let is_judged = self.newest_bucket.since(*entered) >= self.generations();
        let stays = is_enough(slice.blocks()) && (slice.blocks() <= most || !is_judged);
        let better = if stays {
            self.layers.follow(self.shard, Some(slice), fits)
        } else {
            let blocks = ((needed * SPARE) as u32).max(FEW_BLOCKS);
            self.layers.enter(self.shard, Some(slice), blocks, fits)
        };
        if let Some(slice) = better {
            self.hold(slice);
        }
    }

    /// Lets a generation take more keys: within its share of the rate, or in a
    /// new layer.
    #[cold]
    fn make_room(&mut self, generation: u32) -> Result<(), NoRoom> {
        if self.widen(generation) {
            return Ok(());
        }
        let held = self.held.as_ref().map(|held| &held.slice);
        let blocks = held.map_or(self.first_blocks, |_| self.more_blocks(generation));
        let blocks = blocks.max(FEW_BLOCKS);
        let entered = self.layers.enter(self.shard, held, blocks, |there| there >= blocks / 4 * 3);
        self.hold(entered.ok_or(NoRoom)?);
        if self.widen(generation) { Ok(()) } else { Err(NoRoom) }
    }

    /// The blocks of the next layer for a bucket that outgrew its last one.
    fn more_blocks(&self, generation: u32) -> u32 {
        let is_for_ever = self.generations() == 1;
        let growth = if is_for_ever { GROWTH_FOR_EVER } else { GROWTH };
        let keys = f64::from(self.keys_in(generation)) * growth;
        let layers = self.slices().filter(|held| held.fills.of(generation).keys > 0);
        self.layers.sizing.blocks(layers.count(), keys) as u32
    }

    /// Sets the room of a generation in the newest slice: by its share of the
    /// rate, or by what all others leave of it, if that is less. True iff it
    /// has room then.
    fn widen(&mut self, generation: u32) -> bool {
        let left = self.rate_left(generation);
        let older = self.older.iter();
        let place = older.filter(|held| held.fills.of(generation).keys > 0).count();
        let Some(held) = &mut self.held else { return false };
        let fill = held.fills.of_mut(generation);
        fill.room = self.layers.sizing.room(place, held.slice.blocks(), left);
        fill.has_room()
    }

    /// Lets a bucket use all of the rate that others leave. True iff it has
    /// room then. For want of memory: later buckets will find less left.
    pub(crate) fn stretch(&mut self, at: Bucket) -> bool {
        let generation = self.generation(at);
        let left = self.rate_left(generation);
        let Some(held) = &mut self.held else { return false };
        let fill = held.fills.of_mut(generation);
        fill.room = self.layers.sizing.room_at(left, held.slice.blocks());
        fill.has_room()
    }

    /// What the rate asked for leaves to a generation in the newest slice.
    fn rate_left(&self, generation: u32) -> f64 {
        let own = self.held.as_ref().map_or(0.0, |held| self.rate_in(held, generation));
        self.layers.sizing.rate() - (self.rate() - own)
    }

    /// P(a new key is called known), at the present fill.
    pub(crate) fn rate(&self) -> f64 {
        let generations = self.buckets().map(|bucket| self.generation(bucket));
        generations.flat_map(|own| self.slices().map(move |held| self.rate_in(held, own))).sum()
    }

    fn rate_in(&self, held: &Held, generation: u32) -> f64 {
        self.layers.sizing.rate_of(held.fills.of(generation).keys, held.slice.blocks())
    }

    /// Gives up the keys of one bucket.
    pub(crate) fn forget_bucket(&mut self, bucket: Bucket) {
        let generation = self.generation(bucket);
        self.empty(generation);
        for held in self.older.iter_mut().chain(&mut self.held) {
            for block in 0..held.slice.blocks() as usize {
                let block = held.slice.block_mut(block);
                self.layers.layout.freshen(block, self.newest);
                self.layers.layout.clear(block, generation);
            }
        }
    }

    /// How many layers a look-up may read.
    pub(crate) fn layers(&self) -> usize {
        self.slices().count()
    }

    fn hold(&mut self, slice: Slice) {
        let fills = Fills::new(self.generations() as u32, self.newest.generation.into());
        let held = Held { slice, fills, entered: self.newest_bucket, cursor: 0 };
        self.older.extend(self.held.replace(held));
    }

    fn slices(&self) -> impl Iterator<Item = &Held> {
        self.older.iter().chain(&self.held)
    }

    fn keys_in(&self, generation: u32) -> u32 {
        self.slices().map(|held| held.fills.of(generation).keys).sum()
    }

    #[inline]
    fn generation(&self, bucket: Bucket) -> u32 {
        let age = self.newest_bucket.since(bucket) as u32;
        self.layers.layout.generation(self.newest, age)
    }

    fn generations(&self) -> i64 {
        self.layers.layout.generations().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::KeyHash;
    use proptest::prelude::*;
    use siphasher::sip128::SipHasher13;
    use std::collections::HashMap;

    const PLAN: Plan = Plan { rate: 1e-2, generations: 9, tags: 255, keys: None };

    /// One filter, and the shard's part in its time: the window's lower end
    /// follows the newest bucket.
    struct Rig {
        filter: Filter,
        generations: i64,
        now: Bucket,
        budget: Arc<Budget>,
    }

    impl Rig {
        fn new(plan: Plan, limit: Option<u64>) -> Self {
            let budget = Arc::new(Budget::new(limit));
            let (_, mut filters) = plan.build(1, Bucket(-3), Arc::clone(&budget));
            let (filter, generations) = (filters.remove(0), plan.generations.into());
            Self { filter, generations, now: Bucket(-3), budget }
        }

        fn low(&self) -> Bucket {
            self.now.minus(self.generations - 1)
        }

        fn advance(&mut self, steps: i64) {
            self.now = self.now.plus(steps);
            self.filter.roll_to(self.now, self.low());
        }

        fn probe(&self, key: u64) -> Probe {
            self.filter.layers.probe(hash(key))
        }

        fn knows(&mut self, key: u64) -> bool {
            let probe = self.probe(key);
            self.filter.find(&probe, self.low(), self.low()).is_some()
        }

        /// Checks a key as a fixed window does. True iff it was new.
        fn check(&mut self, key: u64) -> bool {
            let probe = self.probe(key);
            let is_new = self.filter.find(&probe, self.low(), self.low()).is_none();
            if is_new {
                self.filter.insert(&probe, self.now).unwrap();
            }
            is_new
        }

        fn fill(&mut self, keys: impl IntoIterator<Item = u64>) {
            for key in keys {
                self.check(key);
            }
        }

        /// The share of new keys that are called known.
        fn measured(&mut self, keys: u64) -> f64 {
            let known = (0..keys).filter(|key| self.knows(u64::MAX - key)).count();
            known as f64 / keys as f64
        }
    }

    /// A hash that no test's key shares with another: a pseudo-random function.
    fn hash(key: u64) -> KeyHash {
        let hash = SipHasher13::new_with_key(&[7; 16]).hash(&key.to_le_bytes());
        KeyHash::new(hash.as_u128())
    }

    /// Within three deviations and `slack` of what was predicted.
    fn assert_near(measured: f64, predicted: f64, probes: u64, slack: f64, what: &str) {
        let deviation = (predicted / probes as f64).sqrt();
        let most = predicted * slack + 3.0 * deviation;
        assert!((measured - predicted).abs() < most, "{what}: {measured} for {predicted}");
    }

    #[test]
    fn the_measured_rate_is_the_predicted_one_and_that_asked_for() {
        for (rate, generations) in [(1e-1, 9), (1e-2, 9), (1e-2, 1), (1e-3, 18), (1e-2, 60)] {
            let plan = Plan { rate, generations, keys: Some(20_000.0), ..PLAN };
            let mut rig = Rig::new(plan, None);
            for bucket in 0..u64::from(generations) {
                rig.advance(i64::from(generations > 1));
                rig.fill((0..20_000).map(|key| bucket << 32 | key));
            }
            let what = format!("{rate} over {generations}");
            let (measured, predicted) = (rig.measured(200_000), rig.filter.rate());
            assert_near(measured, predicted, 200_000, 0.05, &what);
            assert!(predicted <= rate && predicted > rate / 2.0, "{what}: {predicted}");
            assert_eq!(rig.filter.layers(), 1);
        }
    }

    #[test]
    fn ten_times_the_expected_keys_keep_the_rate() {
        for (generations, layers) in [(9, 1), (1, 4)] {
            let plan = Plan { generations, keys: Some(5_000.0), ..PLAN };
            let mut rig = Rig::new(plan, None);
            for bucket in 0..2 * u64::from(generations) {
                rig.advance(i64::from(generations > 1));
                rig.fill((0..50_000).map(|key| bucket << 32 | key));
                let (measured, predicted) = (rig.measured(20_000), rig.filter.rate());
                assert!(predicted <= PLAN.rate, "{predicted} in bucket {bucket}");
                assert_near(measured, predicted, 20_000, 0.05, "growing");
            }
            assert!(rig.filter.layers() <= layers, "{} layers", rig.filter.layers());
        }
    }

    #[test]
    fn a_steady_stream_of_unknown_size_comes_to_fit() {
        let mut rig = Rig::new(PLAN, None);
        for bucket in 0..25 {
            rig.advance(1);
            rig.fill((0..30_000).map(|key| bucket << 32 | key));
        }
        let bits = rig.budget.used_bytes() as f64 * 8.0 / (8.5 * 30_000.0);
        assert!(bits < 26.0, "{bits} bits a key");
        assert_eq!(rig.filter.layers(), 1);
    }

    #[test]
    fn memory_goes_back_after_a_flood() {
        let mut rig = Rig::new(PLAN, None);
        let trickle = |rig: &mut Rig, buckets: u64| {
            for bucket in 0..buckets {
                rig.advance(1);
                rig.fill((0..100).map(|key| bucket << 32 | key));
            }
            rig.budget.used_bytes()
        };
        let before = trickle(&mut rig, 20);
        rig.fill((0..300_000).map(|key| 1 << 60 | key));
        assert!(rig.budget.used_bytes() > 20 * before);
        let after = trickle(&mut rig, 30);
        assert!(after <= before, "{after} bytes, {before} before");
        rig.advance(9);
        assert_eq!(rig.budget.used_bytes(), 0);
    }

    #[test]
    fn a_filter_beyond_its_room_forgets_nothing_and_grows_when_it_can() {
        let plan = Plan { generations: 1, ..PLAN };
        let mut rig = Rig::new(plan, Some(64 << 10));
        assert!(rig.budget.try_reserve(32 << 10));
        let remember = |rig: &mut Rig, keys: std::ops::Range<u64>| {
            for key in keys {
                let probe = rig.probe(key);
                let is_kept = rig.filter.insert(&probe, rig.now).is_ok();
                assert!(is_kept || rig.filter.overfill(&probe, rig.now));
            }
        };
        remember(&mut rig, 0..100_000);
        let (layers, rate) = (rig.filter.layers(), rig.filter.rate());
        assert!(rate > PLAN.rate, "{rate}");
        rig.budget.release(32 << 10);
        remember(&mut rig, 100_000..103_000);
        assert_eq!(rig.filter.layers(), layers + 1);
        assert!((0..103_000).all(|key| rig.knows(key)));
    }

    #[test]
    fn at_the_limit_a_bucket_stretches_into_what_others_leave_and_no_further() {
        let mut rig = Rig::new(PLAN, Some(64 << 10));
        rig.advance(1);
        let mut key = 0;
        let mut fill = |rig: &mut Rig| {
            let before = key;
            loop {
                key += 1;
                let probe = rig.probe(key);
                if rig.filter.find(&probe, rig.low(), rig.low()).is_none()
                    && rig.filter.insert(&probe, rig.now).is_err()
                {
                    return key - before;
                }
            }
        };
        let share = fill(&mut rig);
        assert!(rig.filter.rate() < PLAN.rate / 8.0);
        assert!(rig.filter.stretch(rig.now));
        assert!(fill(&mut rig) > share / 5);
        assert!(!rig.filter.stretch(rig.now));
        assert!(rig.filter.rate() > PLAN.rate * 0.9 && rig.filter.rate() <= PLAN.rate);
        rig.advance(1);
        assert!(fill(&mut rig) < share / 2, "the bucket before has used up the rate");
        rig.filter.roll_to(rig.now, rig.now);
        assert!(fill(&mut rig) >= share / 2, "it was given up");
        assert!(rig.filter.rate() <= PLAN.rate);
    }

    #[test]
    fn a_forgotten_bucket_is_gone_and_the_others_are_not() {
        let mut rig = Rig::new(PLAN, None);
        for bucket in 0..3 {
            rig.advance(1);
            rig.fill((0..5_000).map(|key| bucket << 32 | key));
        }
        rig.filter.forget_bucket(rig.now);
        assert!((0..5_000).all(|key| rig.knows(key) && rig.knows(1 << 32 | key)));
        assert!((0..5_000).filter(|key| rig.knows(2 << 32 | key)).count() < 50);
    }

    /// Without a hostile secret, chosen keys are as good as random ones: keys
    /// chosen to meet in one block under another secret are spread under ours.
    #[test]
    fn keys_chosen_under_another_secret_do_not_raise_the_rate() {
        let plan = Plan { keys: Some(20_000.0), ..PLAN };
        let mut rig = Rig::new(plan, None);
        let home = |key: u64| {
            let theirs = SipHasher13::new_with_key(&[8; 16]).hash(&key.to_le_bytes());
            block::home(KeyHash::new(theirs.as_u128()), 4_000)
        };
        let chosen = (0..).filter(|key| home(*key) < 80).take(20_000);
        rig.fill(chosen);
        assert_near(rig.measured(200_000), rig.filter.rate(), 200_000, 0.05, "chosen keys");
        assert_eq!(rig.filter.layers(), 1);
    }

    /// What the naive model is told to do.
    #[derive(Clone, Debug)]
    enum Step {
        Check {
            key: u64,
            back: i64,
        },
        Advance(i64),
        /// New keys, in percent of those that the smallest layer takes in a
        /// bucket: one that opens layers is small where generations are many.
        Flood(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => (0..400_u64, 0..4_i64).prop_map(|(key, back)| Step::Check { key, back }),
            3 => (0..3_i64).prop_map(Step::Advance),
            1 => (0..30_i64).prop_map(Step::Advance),
            1 => (0..600_u64).prop_map(Step::Flood),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Over any sequence of checks (also in buckets before the newest, also
        /// refreshing), floods that open layers, rests and wraps of the tags,
        /// no key of a live bucket is ever missing; and nothing but chance
        /// keeps a key beyond its bucket.
        #[test]
        fn nothing_live_is_forgotten(
            generations in prop::sample::select(vec![1_u32, 4, 9, 60]),
            is_sliding in any::<bool>(),
            steps in prop::collection::vec(step(), 1..120),
        ) {
            let plan = Plan { rate: 1e-4, generations, tags: generations as u8 + 5, keys: None };
            let mut rig = Rig::new(plan, None);
            let smallest: u64 = rig.filter.layers.sizing.room(0, FEW_BLOCKS, plan.rate).into();
            let mut model: HashMap<u64, Bucket> = HashMap::new();
            let (mut flood, mut known_wrongly) = (1_000_000_u64, 0);
            for step in steps {
                match step {
                    Step::Advance(buckets) => rig.advance(if generations == 1 { 0 } else { buckets }),
                    Step::Flood(percent) => {
                        let keys = percent * smallest / 100;
                        rig.fill(flood..flood + keys);
                        flood += keys;
                    }
                    Step::Check { key, back } => {
                        let at = rig.now.minus(back.min(i64::from(generations) - 1));
                        let probe = rig.probe(key);
                        let enough = if is_sliding { at } else { rig.low() };
                        let found = rig.filter.find(&probe, rig.low(), enough);
                        let recorded = model.get(&key).copied().filter(|b| *b >= rig.low());
                        if let Some(recorded) = recorded {
                            prop_assert!(found >= Some(recorded.min(enough)), "{key} was forgotten");
                        } else {
                            known_wrongly += u32::from(found.is_some());
                        }
                        if found.is_none_or(|found| is_sliding && found < at) {
                            rig.filter.insert(&probe, at).unwrap();
                            let bucket = recorded.map_or(at, |recorded| recorded.max(at));
                            model.insert(key, bucket);
                        }
                    }
                }
                prop_assert!(rig.filter.rate() <= plan.rate);
            }
            prop_assert!(known_wrongly <= 1);
            for (key, bucket) in model {
                prop_assert!(bucket < rig.low() || rig.knows(key));
            }
        }
    }
}
