//! A shard: one lock, and all that it protects.
//!
//! Everything in here is single-threaded under the shard's lock: look-up,
//! recording, rotation, growth, eviction. Each operation reads the watermark
//! and the floor *under the lock*, so a shard sees them only ever rise, and a
//! check's place in time is the moment when it holds the lock.
//!
//! # Invariants
//!
//! - Every slot's bucket is one of the last `tags` up to `newest`: that is
//!   what makes tags readable. `roll` sweeps dead slots in time.
//! - Live slots lie in `low..=newest`, and `counts` counts them exactly.
//! - The key of every live slot is held by the arena (verified mode).

mod counts;
mod rules;

pub(crate) use rules::Rules;

use crate::hash::KeyHash;
use crate::memory::{Budget, OnFull};
use crate::mode::Mode;
use crate::table::{
    Ages, BlockPool, Extents, Keys, NoRoom, Place, SLOTS_PER_PAGE, Slot, Table, home, prefetch,
};
use crate::time::Bucket;
use crate::verdict::Verdict;
use counts::Counts;
use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Why a new key could not be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The memory limit is reached and the policy is to reject, or the key
    /// alone is too long for the limit.
    Full,
    /// The system gave no more memory, or the table is at its largest.
    OutOfMemory,
    /// Memory for the key must be reclaimed from all shards first; the check
    /// is to be repeated then.
    Short,
}

/// All shards of one deduper.
#[derive(Debug)]
pub(crate) struct Shards {
    rules: Rules,
    extents: Arc<Extents>,
    pool: Arc<BlockPool>,
    /// Held by the one thread that reclaims memory for keys.
    reclaiming: Mutex<()>,
    shards: Box<[CachePadded<Shard>]>,
}

#[derive(Debug)]
struct Shard {
    state: Mutex<State>,
    /// The table's pages, for prefetching without the lock; may be outdated.
    pages: AtomicU32,
}

/// What a shard's counters say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) uniques: u64,
    pub(crate) duplicates: u64,
    pub(crate) late: u64,
    pub(crate) rejected: u64,
    pub(crate) evicted: u64,
    pub(crate) live_keys: u64,
}

impl Tally {
    /// The sum of two.
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self {
            uniques: self.uniques + other.uniques,
            duplicates: self.duplicates + other.duplicates,
            late: self.late + other.late,
            rejected: self.rejected + other.rejected,
            evicted: self.evicted + other.evicted,
            live_keys: self.live_keys + other.live_keys,
        }
    }
}

impl Shards {
    /// `count` (a power of two) empty shards.
    pub(crate) fn new(count: u32, rules: Rules, budget: Arc<Budget>) -> Self {
        let pool = Arc::new(BlockPool::new(Arc::clone(&budget), rules.limit_bytes()));
        let (extents, all_pages) = Extents::new(count, budget);
        let shards = all_pages
            .into_iter()
            .enumerate()
            .map(|(number, pages)| {
                let keys = (rules.mode == Mode::Verified).then(|| Keys::new(Arc::clone(&pool)));
                let state = State::new(Table::new(pages), keys, &rules, number as u32);
                CachePadded::new(Shard { state: Mutex::new(state), pages: AtomicU32::new(0) })
            })
            .collect();
        Self { rules, extents, pool, reclaiming: Mutex::new(()), shards }
    }

    /// The bytes that `count` empty shards take.
    pub(crate) fn fixed_bytes(count: u32, rules: &Rules) -> u64 {
        let counts = rules.reach() as u64 * 4 + 16;
        u64::from(count) * (size_of::<CachePadded<Shard>>() as u64 + counts)
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.len()
    }

    /// Checks a key at `at`, or at the watermark (the latest clock reading),
    /// and records it if it is new.
    #[inline]
    pub(crate) fn check(
        &self,
        hash: KeyHash,
        key: &[u8],
        at: Option<Bucket>,
    ) -> Result<Verdict, Refusal> {
        loop {
            match self.try_check(hash, key, at) {
                Err(Refusal::Short) => self.reclaim(key.len()).inspect_err(|_| {
                    self.locked(self.index(hash)).tally.rejected += 1;
                })?,
                outcome => return outcome,
            }
        }
    }

    #[inline]
    fn try_check(&self, hash: KeyHash, key: &[u8], at: Option<Bucket>) -> Result<Verdict, Refusal> {
        let shard = self.shard(hash);
        let mut state = shard.state.lock();
        let pages = state.table.pages();
        let verdict = state.check(&self.rules, hash, key, at);
        if state.table.pages() != pages {
            shard.publish(&state);
        }
        verdict
    }

    /// Makes room for a key of `bytes` by giving up the oldest buckets of all
    /// shards, or their oldest keys if only the newest bucket is left.
    ///
    /// A shard gives up what is below the floor when it comes to it; here they
    /// are all made to, because the memory of keys is shared by all shards and
    /// may lie in those that nobody checks. Holds one shard's lock at a time.
    #[cold]
    fn reclaim(&self, bytes: usize) -> Result<(), Refusal> {
        if self.rules.limit_bytes().is_some_and(|limit| bytes as u64 > limit / 2) {
            return Err(Refusal::Full);
        }
        let _alone = self.reclaiming.lock();
        let mut span = self.roll_all();
        while !self.pool.has_room(bytes) {
            match span {
                None => return self.reclaim_tables(bytes),
                Some((oldest, newest)) if oldest < newest => self.rules.give_up(oldest),
                Some((_, newest)) => {
                    self.rules.note_thinned(newest);
                    self.for_each(State::evict_oldest_blocks);
                }
            }
            span = self.roll_all();
        }
        Ok(())
    }

    /// Makes room for a key of `bytes` where no key is left: what is missing
    /// is held by tables, which otherwise shrink no sooner than time goes on.
    fn reclaim_tables(&self, bytes: usize) -> Result<(), Refusal> {
        self.for_each(State::shrink_if_empty);
        if self.pool.has_room(bytes) { Ok(()) } else { Err(Refusal::Full) }
    }

    /// Brings all shards up to date. The earliest bucket that holds a key, and
    /// the latest that any shard knows of; `None` if there are no keys.
    fn roll_all(&self) -> Option<(Bucket, Bucket)> {
        let (mut oldest, mut newest) = (None, None);
        self.for_each(|state| {
            state.roll(&self.rules, Moment::new(&self.rules, None));
            newest = newest.max(Some(state.newest));
            let here = state.counts.oldest(state.low);
            oldest = here.into_iter().chain(oldest).min();
        });
        oldest.zip(newest)
    }

    fn for_each(&self, mut visit: impl FnMut(&mut State)) {
        for index in 0..self.shards.len() {
            let mut state = self.locked(index);
            visit(&mut state);
            self.shards[index].publish(&state);
        }
    }

    /// Would a check say `Duplicate`?
    pub(crate) fn contains(&self, hash: KeyHash, key: &[u8], at: Option<Bucket>) -> bool {
        self.locked(self.index(hash)).contains(&self.rules, hash, key, at)
    }

    /// Forgets a key. True iff it was kept.
    pub(crate) fn forget(&self, hash: KeyHash, key: &[u8]) -> bool {
        self.locked(self.index(hash)).forget(&self.rules, hash, key)
    }

    /// Does all maintenance of one shard that is due.
    pub(crate) fn maintain(&self, index: usize) {
        let mut state = self.locked(index);
        state.maintain(&self.rules);
        self.shards[index].publish(&state);
    }

    /// What the counters of one shard say, up to date with the watermark.
    pub(crate) fn tally(&self, index: usize) -> Tally {
        let mut state = self.locked(index);
        state.roll(&self.rules, Moment::new(&self.rules, None));
        self.shards[index].publish(&state);
        state.tally()
    }

    /// Asks the processor to fetch the shard of a key.
    #[inline]
    pub(crate) fn prefetch_shard(&self, hash: KeyHash) {
        prefetch(self.shard(hash));
    }

    /// Asks the processor to fetch the home line of a key.
    #[inline]
    pub(crate) fn prefetch_line(&self, hash: KeyHash) {
        let index = self.index(hash);
        let pages = self.shards[index].pages.load(Ordering::Relaxed);
        let (page, line) = home(wanted(hash).code(), pages);
        self.extents.prefetch(index as u32, page, line);
    }

    fn locked(&self, index: usize) -> MutexGuard<'_, State> {
        self.shards[index].state.lock()
    }

    #[inline]
    fn shard(&self, hash: KeyHash) -> &Shard {
        &self.shards[self.index(hash)]
    }

    /// The number of shards is a power of two: the low bits choose.
    #[inline]
    fn index(&self, hash: KeyHash) -> usize {
        hash.high() as usize & (self.shards.len() - 1)
    }
}

impl Shard {
    fn publish(&self, state: &State) {
        // Relaxed: only prefetches read it, and they may read anything.
        self.pages.store(state.table.pages(), Ordering::Relaxed);
    }
}

/// The slot that a key is looked for with.
#[inline]
fn wanted(hash: KeyHash) -> Slot {
    Slot::of_fingerprint(hash.low())
}

/// What a shard's lock protects.
#[derive(Debug)]
struct State {
    table: Table,
    /// How the tags are read: `newest` and `low`, ready for use.
    ages: Ages,
    /// The latest bucket that this shard knows of.
    newest: Bucket,
    /// Buckets before this one are dead.
    low: Bucket,
    counts: Counts,
    /// More live keys than this need more pages.
    room: u32,
    /// Live keys per page at which this shard grows.
    load: u32,
    tally: Tally,
    keys: Option<Keys>,
}

/// Live keys per page of 448 slots at which shards grow: each at its own
/// point between 334 and 365 (0.75 to 0.82), so that they do not all grow at
/// once. Beyond about 0.85 the stash would fill.
const LEAST_LOAD: u32 = 334;
const LOAD_SPREAD_BITS: u32 = 5;

/// A shard shrinks when less than this share of its room is used ...
const SHRINK_BELOW: u32 = 3;
/// ... to pages that are this full: far from growing and from shrinking.
const SHRUNK_LOAD: u32 = SLOTS_PER_PAGE * 6 / 10;

/// When a check takes place.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// The watermark, read once under the lock: a second reading might be
    /// newer, and the key would be recorded in a bucket that is already past.
    watermark: Bucket,
    at: Bucket,
}

impl Moment {
    /// At `at`, or at the watermark: in processing time that is the bucket of
    /// the latest clock reading.
    #[inline]
    fn new(rules: &Rules, at: Option<Bucket>) -> Self {
        let watermark = rules.watermark.bucket();
        Self { watermark, at: at.unwrap_or(watermark) }
    }

    const fn is_late(self) -> bool {
        self.at.0 < self.watermark.0
    }
}

impl State {
    fn new(table: Table, keys: Option<Keys>, rules: &Rules, number: u32) -> Self {
        let newest = rules.watermark.bucket();
        let low = rules.window_start(newest);
        Self {
            table,
            ages: Ages::new(newest, low, rules.tags),
            newest,
            low,
            counts: Counts::new(newest, rules.reach() as usize),
            room: 0,
            load: LEAST_LOAD + (number.reverse_bits() >> (u32::BITS - LOAD_SPREAD_BITS)),
            tally: Tally::default(),
            keys,
        }
    }

    #[inline]
    fn check(
        &mut self,
        rules: &Rules,
        hash: KeyHash,
        key: &[u8],
        at: Option<Bucket>,
    ) -> Result<Verdict, Refusal> {
        let moment = Moment::new(rules, at);
        if moment.is_late() {
            self.tally.late += 1;
            return Ok(Verdict::Late);
        }
        self.roll(rules, moment);
        let want = wanted(hash);
        let Some((place, slot)) = self.find(rules, want, key) else {
            if let Err(refusal) = self.record(rules, want, key, moment) {
                self.tally.rejected += u64::from(refusal == Refusal::Full);
                return Err(refusal);
            }
            self.tally.uniques += 1;
            return Ok(Verdict::Unique);
        };
        let recorded = self.ages.bucket(slot.tag());
        let is_match = recorded >= rules.window_start(moment.at);
        if recorded < moment.at && (rules.is_sliding || !is_match) {
            self.move_up(place, slot, recorded, moment.at);
        }
        Ok(if is_match {
            self.tally.duplicates += 1;
            Verdict::Duplicate
        } else {
            self.tally.uniques += 1;
            Verdict::Unique
        })
    }

    fn contains(&mut self, rules: &Rules, hash: KeyHash, key: &[u8], at: Option<Bucket>) -> bool {
        let moment = Moment::new(rules, at);
        self.roll(rules, Moment { at: moment.watermark, ..moment });
        !moment.is_late()
            && self.find(rules, wanted(hash), key).is_some_and(|(_, slot)| {
                self.ages.bucket(slot.tag()) >= rules.window_start(moment.at)
            })
    }

    fn forget(&mut self, rules: &Rules, hash: KeyHash, key: &[u8]) -> bool {
        self.roll(rules, Moment::new(rules, None));
        let Some((place, slot)) = self.find(rules, wanted(hash), key) else { return false };
        self.table.remove(place, slot.code());
        self.counts.remove(self.ages.bucket(slot.tag()));
        true
    }

    #[inline]
    fn find(&self, rules: &Rules, want: Slot, key: &[u8]) -> Option<(Place, Slot)> {
        match &self.keys {
            None => self.table.find(want, rules.identity(), self.ages, |_| true),
            Some(keys) => self
                .table
                .find(want, rules.identity(), self.ages, |slot| keys.is_at(slot.address(), key)),
        }
    }

    /// Moves a key up to a later bucket.
    #[inline]
    fn move_up(&mut self, place: Place, slot: Slot, from: Bucket, to: Bucket) {
        self.table.replace(place, slot.tagged(self.ages.tag(to)), self.ages);
        self.counts.remove(from);
        self.counts.add(to);
        if let Some(keys) = &mut self.keys {
            keys.keep_until(slot.address(), to);
        }
    }

    /// Records a key that is not in the window.
    #[inline]
    fn record(
        &mut self,
        rules: &Rules,
        want: Slot,
        key: &[u8],
        moment: Moment,
    ) -> Result<(), Refusal> {
        if moment.at >= self.low && self.counts.live() >= self.room {
            self.make_room(rules, moment)?;
        }
        if moment.at < self.low {
            // The record's own bucket was given up, before or just now: no
            // later key is given up for it, and no memory taken.
            self.tally.evicted += 1;
            return Ok(());
        }
        let address = self.store_key(rules, key, moment)?;
        let slot = want.tagged(self.ages.tag(moment.at));
        let slot = address.map_or(slot, |address| slot.at_address(address));
        self.table.insert(slot, self.ages);
        self.counts.add(moment.at);
        Ok(())
    }

    /// Puts the whole key into the arena, in verified mode.
    #[inline]
    fn store_key(
        &mut self,
        rules: &Rules,
        key: &[u8],
        moment: Moment,
    ) -> Result<Option<u32>, Refusal> {
        let Some(keys) = &mut self.keys else { return Ok(None) };
        if keys.should_look() {
            self.compact_if_worth();
        }
        self.push_key(rules, key, moment).map(Some)
    }

    fn push_key(&mut self, rules: &Rules, key: &[u8], moment: Moment) -> Result<u32, Refusal> {
        if let Some(keys) = &mut self.keys
            && let Ok(address) = keys.push(key, moment.at)
        {
            return Ok(address);
        }
        self.compact_if_worth();
        let keys = self.keys.as_mut().expect("verified mode has an arena");
        keys.push(key, moment.at).map_err(|no_room| match (no_room, rules.on_full()) {
            // Giving up keys would not help: the check would never end.
            (NoRoom::System, _) | (_, None) => Refusal::OutOfMemory,
            (NoRoom::Budget, Some(OnFull::Reject)) => Refusal::Full,
            (NoRoom::Budget, Some(OnFull::EvictOldest)) => Refusal::Short,
        })
    }

    /// Brings the shard up to a moment and to the bounds that all shards
    /// share.
    #[inline]
    fn roll(&mut self, rules: &Rules, moment: Moment) {
        let expired = rules.window_start(moment.watermark);
        let low = expired.max(rules.floor());
        if low > self.low || moment.at > self.newest {
            self.roll_to(rules, low.max(self.low), moment.at.max(self.newest), expired);
        }
    }

    #[cold]
    fn roll_to(&mut self, rules: &Rules, low: Bucket, newest: Bucket, expired: Bucket) {
        self.drop_buckets_before(low, expired);
        self.ages = Ages::new(self.newest, low, rules.tags);
        let steps = newest.since(self.newest);
        if steps > 0 {
            // Read with the tags as they were: `newest` moves afterwards.
            self.table.sweep(steps, rules.clearing_steps(), self.ages);
            self.newest = newest;
            self.counts.advance(newest);
            self.ages = Ages::new(newest, low, rules.tags);
            self.shrink_if_empty();
        }
    }

    /// Counts the buckets before `low` out: expired if before `expired`, given
    /// up otherwise.
    fn drop_buckets_before(&mut self, low: Bucket, expired: Bucket) {
        let dead = low.since(self.low).min(self.counts.reach());
        for bucket in (0..dead).map(|step| self.low.plus(step)) {
            let keys = u64::from(self.counts.drop_bucket(bucket));
            if bucket >= expired {
                self.tally.evicted += keys;
            }
        }
        self.low = low;
        if dead > 0
            && let Some(keys) = &mut self.keys
        {
            keys.free_before(low);
        }
    }

    /// Makes room in the table for one more key.
    #[cold]
    fn make_room(&mut self, rules: &Rules, moment: Moment) -> Result<(), Refusal> {
        while self.counts.live() >= self.room {
            let pages = self.table.pages();
            self.table.grow(pages + (pages / 4).max(1), self.ages);
            if self.table.pages() == pages {
                self.give_up(rules, moment)?;
            }
            self.room = self.table.pages() * self.load;
        }
        Ok(())
    }

    /// The table cannot grow: gives up old keys if the policy says so.
    #[cold]
    fn give_up(&mut self, rules: &Rules, moment: Moment) -> Result<(), Refusal> {
        match rules.on_full() {
            None => Err(Refusal::OutOfMemory),
            Some(OnFull::Reject) => Err(Refusal::Full),
            Some(OnFull::EvictOldest) => self.evict_oldest(rules, moment),
        }
    }

    /// Gives up this shard's oldest bucket, and with it that of all shards; or
    /// single keys if only the newest bucket is left.
    fn evict_oldest(&mut self, rules: &Rules, moment: Moment) -> Result<(), Refusal> {
        let live = self.counts.live();
        // Another shard may have raised the floor meanwhile.
        self.roll(rules, moment);
        if self.counts.live() < live {
            return Ok(());
        }
        match self.counts.oldest(self.low) {
            // Not a key left, and still no room.
            None => return Err(Refusal::OutOfMemory),
            Some(oldest) if oldest < self.newest => {
                rules.give_up(oldest);
                self.roll(rules, moment);
            }
            Some(newest) => {
                rules.note_thinned(newest);
                self.evict_one();
            }
        }
        Ok(())
    }

    /// Gives up one key. In verified mode its bytes become garbage.
    fn evict_one(&mut self) {
        if let Some(slot) = self.table.evict_one(self.ages) {
            self.counts.remove(self.ages.bucket(slot.tag()));
            self.tally.evicted += 1;
        }
    }

    /// Gives up the keys that begin in the oldest blocks of the arena, and the
    /// blocks with them.
    fn evict_oldest_blocks(&mut self) {
        let Some(keys) = &mut self.keys else { return };
        let oldest = keys.oldest_blocks();
        let (ages, counts) = (self.ages, &mut self.counts);
        let before = counts.live();
        self.table.for_each_live(ages, |slot| {
            if oldest.binary_search(&Keys::block_of(slot.address())).is_ok() {
                counts.remove(ages.bucket(slot.tag()));
                *slot = Slot::EMPTY;
            }
        });
        for number in oldest {
            keys.free(number);
        }
        self.tally.evicted += u64::from(before - self.counts.live());
    }

    /// Compacts the arena if enough of it is garbage.
    fn compact_if_worth(&mut self) {
        if let Some(keys) = &mut self.keys
            && keys.is_worth_compacting(self.counts.live())
        {
            let (pool, blocks) = (keys.pool(), keys.held_blocks());
            pool.compact_within_slack(blocks, || self.compact());
        }
    }

    /// Copies the live keys into new blocks and frees the old ones.
    fn compact(&mut self) {
        let Some(keys) = &mut self.keys else { return };
        let old = keys.begin_compaction();
        let (ages, counts) = (self.ages, &mut self.counts);
        let (mut key, mut lost) = (Vec::new(), 0);
        self.table.for_each_live(ages, |slot| {
            let bucket = ages.bucket(slot.tag());
            key.clear();
            old.read(slot.address(), &mut key);
            if let Ok(address) = keys.push_overdrawing(&key, bucket) {
                *slot = slot.at_address(address);
            } else {
                // The system itself is out of memory: the key is given up.
                *slot = Slot::EMPTY;
                counts.remove(bucket);
                lost += 1;
            }
        });
        keys.end_compaction();
        self.tally.evicted += lost;
    }

    fn shrink_if_empty(&mut self) {
        let live = self.counts.live();
        let pages = live.div_ceil(SHRUNK_LOAD);
        if live < self.room / SHRINK_BELOW && pages < self.table.pages() {
            self.table.shrink(pages, self.ages);
            self.room = pages * self.load;
        }
    }

    fn maintain(&mut self, rules: &Rules) {
        self.roll(rules, Moment::new(rules, None));
        self.shrink_if_empty();
        self.compact_if_worth();
    }

    const fn tally(&self) -> Tally {
        Tally { live_keys: self.counts.live() as u64, ..self.tally }
    }
}
