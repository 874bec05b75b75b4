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
mod filtered;
mod head;
mod moment;
mod pace;
mod recall;
mod room;
mod rules;
mod state;

pub(crate) use filtered::FilteredShards;
pub(crate) use head::Present;
pub(crate) use rules::Rules;

use crate::filter::{Layers, Plan};
use crate::hash::KeyHash;
use crate::map::prefetch;
use crate::memory::Budget;
use crate::mode::Mode;
use crate::stats::StripedCounter;
use crate::sync::{Mutex, MutexGuard};
use crate::table::{Ages, BlockPool, Extents, Glance, Keys, Layout, Sight, Slot, Table, pages_for};
use crate::time::Bucket;
use crate::verdict::Verdict;
use crossbeam_utils::CachePadded;
use head::Heads;
use moment::Moment;
use pace::Pace;
use state::{CACHE_LINE, State, wanted};
use std::sync::Arc;

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
    count: usize,
    /// None in filter mode.
    shards: Box<[Shard]>,
    heads: Heads,
    /// In filter mode.
    filtered: Option<FilteredShards>,
    /// Duplicates that were recognised without a lock.
    recognised: StripedCounter,
}

/// The most keys that are [looked at](Shards::glimpse) at once.
const MOST_AT_ONCE: usize = 32;

/// A key on its way to its check.
#[derive(Clone, Copy)]
pub(crate) struct Coming<'a> {
    hash: KeyHash,
    shard: u32,
    /// The page in which the key belongs by `layout`, if its shard has any.
    page: Option<Glance<'a>>,
    layout: Layout,
    key: &'a [u8],
}

impl<'a> Coming<'a> {
    pub(crate) const NONE: Self =
        Self { hash: KeyHash::new(0), shard: 0, page: None, layout: Layout::NONE, key: &[] };

    pub(crate) const fn hash(&self) -> KeyHash {
        self.hash
    }

    pub(crate) const fn key(&self) -> &'a [u8] {
        self.key
    }

    #[inline]
    fn want(&self) -> Slot {
        wanted(self.hash)
    }
}

/// A shard begins a pair of cache lines, which processors fetch together: a
/// duplicate needs the first line alone, a new key the first two.
type Shard = CachePadded<Mutex<State>>;

/// What a shard's counters say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) uniques: u64,
    pub(crate) duplicates: u64,
    pub(crate) late: u64,
    pub(crate) rejected: u64,
    pub(crate) evicted: u64,
    pub(crate) live_keys: u64,
    /// Filter mode: the layers of one shard, at most.
    pub(crate) filter_layers: usize,
    /// Filter mode: P(a new key is called `Duplicate`), summed over shards.
    pub(crate) filter_rate: f64,
}

impl Tally {
    /// The sum of two.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            uniques: self.uniques + other.uniques,
            duplicates: self.duplicates + other.duplicates,
            late: self.late + other.late,
            rejected: self.rejected + other.rejected,
            evicted: self.evicted + other.evicted,
            live_keys: self.live_keys + other.live_keys,
            filter_layers: self.filter_layers.max(other.filter_layers),
            filter_rate: self.filter_rate + other.filter_rate,
        }
    }
}

impl Shards {
    /// `count` (a power of two) empty shards, for `capacity` keys in all if that
    /// is known.
    pub(crate) fn new(
        count: u32,
        capacity: Option<u64>,
        rules: Rules,
        budget: Arc<Budget>,
    ) -> Self {
        let frees = Arc::clone(&rules.frees);
        let pool = Arc::new(BlockPool::new(Arc::clone(&budget), rules.limit_bytes(), frees));
        let filtered = FilteredShards::new(count, &rules, Arc::clone(&budget));
        let expected = capacity.map_or(0, |keys| pages_for(keys.div_ceil(count.into())));
        let tables = if filtered.is_some() { 0 } else { count };
        let (extents, all_pages) = Extents::new(tables, expected, budget);
        let shard = |(pages, number)| {
            let keys = || Keys::new(Arc::clone(&pool));
            let keys = (rules.mode == Mode::Verified).then(keys);
            let state = State::new(Table::new(pages), keys, &rules, Pace::of(number, count));
            Shard::new(Mutex::new(state))
        };
        let shards = all_pages.into_iter().zip(0..).map(shard).collect();
        Self {
            rules,
            extents,
            pool,
            reclaiming: Mutex::new(()),
            count: count as usize,
            shards,
            heads: Heads::new(tables),
            filtered,
            recognised: StripedCounter::default(),
        }
    }

    /// The bytes that `count` empty shards take.
    pub(crate) fn fixed_bytes(count: u32, rules: &Rules) -> u64 {
        let shard = || {
            let counts = rules.reach() as u64 * 4 + 16;
            (size_of::<Shard>() + Heads::BYTES_PER_SHARD) as u64 + counts
        };
        let filtered = |plan: Plan| FilteredShards::bytes_per_shard(plan.generations);
        u64::from(count) * rules.filter.map_or_else(shard, filtered)
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Begins the check of a key: where it belongs, and asks the processor to
    /// fetch its home line, or its block.
    #[inline]
    pub(crate) fn approach<'a>(&'a self, hash: KeyHash, key: &'a [u8]) -> Coming<'a> {
        let coming = self.approach_apart(hash, key);
        self.prefetch_blocks(std::slice::from_ref(&coming));
        coming
    }

    /// Asks the processor to fetch the blocks of several keys, in filter mode.
    #[inline]
    pub(crate) fn prefetch_blocks(&self, coming: &[Coming<'_>]) {
        if let Some(filtered) = &self.filtered {
            for coming in coming {
                filtered.prefetch_block(coming);
            }
        }
    }

    /// As `approach`, but in filter mode [`prefetch_blocks`](Self::prefetch_blocks)
    /// is to be called for several keys at once: a processor that waits for one
    /// address to be translated has then begun with the others.
    #[inline]
    pub(crate) fn approach_apart<'a>(&'a self, hash: KeyHash, key: &'a [u8]) -> Coming<'a> {
        let shard = self.index(hash);
        let coming = Coming { hash, shard: shard as u32, key, ..Coming::NONE };
        if self.filtered.is_some() {
            return coming;
        }
        let layout = self.heads.layout(shard);
        let page = self.extents.glance(shard as u32, layout.home(coming.want()));
        if let Some(page) = page {
            page.prefetch_home(coming.want());
        }
        Coming { page, layout, ..coming }
    }

    /// Goes on with the checks of keys, [`MOST_AT_ONCE`], whose home lines have come:
    /// says which of them it [`recognises`](Self::recognises) at `present`, a
    /// bit for each, and asks the processor to fetch what the others will need.
    #[inline(never)]
    pub(crate) fn glimpse(&self, coming: &[Coming<'_>], present: &Present) -> u32 {
        match self.rules.mode {
            Mode::Verified => self.glimpse_keys(coming, present),
            _ => self.glimpse_fingerprints(coming, present),
        }
    }

    #[inline]
    fn glimpse_fingerprints(&self, coming: &[Coming<'_>], present: &Present) -> u32 {
        let mut known = 0;
        for (index, coming) in coming.iter().enumerate() {
            if self.sees_fingerprint(coming, present) {
                known |= 1 << index;
            } else {
                self.fetch_for_recording(coming);
            }
        }
        known
    }

    /// Finds the slots that may be the keys' own, asks for the keys to which they
    /// lead, and compares these when they have come.
    #[inline]
    fn glimpse_keys(&self, coming: &[Coming<'_>], present: &Present) -> u32 {
        let mut sights = [Sight::NOTHING; MOST_AT_ONCE];
        let spilled = self.look_at_home(coming, present, &mut sights);
        for index in ones(spilled) {
            sights[index] = self.look_elsewhere(&coming[index], present);
        }
        Sight::follow_slots();
        let mut known = 0;
        for (index, (coming, sight)) in coming.iter().zip(sights).enumerate() {
            known |= u32::from(sight.shows(coming.key)) << index;
        }
        if self.rules.frees.is_still(present.frees) { known } else { 0 }
    }

    /// Where keys may lie by their home lines, and which may by another line, a
    /// bit for each; asks for what is to be read then.
    #[inline]
    fn look_at_home<'a>(
        &'a self,
        coming: &[Coming<'_>],
        present: &Present,
        sights: &mut [Sight<'a>],
    ) -> u32 {
        let mut spilled = 0;
        for (index, (coming, sight)) in coming.iter().zip(sights).enumerate() {
            let want = coming.want();
            let (namesake, has_spilled) = self.read_page(coming, present, |page, ages| {
                let namesake = page.namesake_at_home(want, ages);
                (namesake, namesake.is_none() && page.seems_spilled(want, ages))
            });
            spilled |= u32::from(has_spilled) << index;
            match namesake {
                Some(slot) => *sight = self.sight(slot, coming.key),
                None => self.fetch_for_recording(coming),
            }
        }
        spilled
    }

    /// Where a key may lie by the lines beside its home.
    fn look_elsewhere(&self, coming: &Coming<'_>, present: &Present) -> Sight<'_> {
        let namesake = self
            .read_page(coming, present, |page, ages| page.namesake_elsewhere(coming.want(), ages));
        namesake.map_or(Sight::NOTHING, |slot| self.sight(slot, coming.key))
    }

    /// Where a slot leads to; asks for what is there, which may be `key`.
    #[inline]
    fn sight(&self, slot: Slot, key: &[u8]) -> Sight<'_> {
        let sight = Sight::at(&self.pool, slot.address());
        sight.prefetch(key);
        sight
    }

    /// Asks the processor to fetch what recording a key will need.
    #[inline]
    fn fetch_for_recording(&self, coming: &Coming<'_>) {
        if let Some(page) = coming.page {
            page.prefetch_alternates(coming.want());
        }
        self.prefetch_shard(coming.shard as usize);
    }

    #[inline]
    fn prefetch_shard(&self, shard: usize) {
        let shard = &raw const self.shards[shard];
        prefetch(shard);
        prefetch(shard.wrapping_byte_add(CACHE_LINE));
    }

    /// Is this surely a duplicate, with nothing to be written? Tells by one
    /// word, read without the lock, and in verified mode by the key to which it
    /// leads; what these cannot tell is left to the check under the lock.
    ///
    /// The word says that the key was in the table, and in which bucket, at the
    /// moment of reading: that is when the check takes place.
    #[inline]
    pub(crate) fn recognises(&self, coming: &Coming<'_>, present: &Present) -> bool {
        match self.rules.mode {
            Mode::Fingerprint => self.sees_fingerprint(coming, present),
            Mode::Verified => self.sees_key(coming, present),
            Mode::Filter { .. } => false,
        }
    }

    #[expect(clippy::inline_always, reason = "or each key of a batch pays for a call")]
    #[inline(always)]
    fn sees_fingerprint(&self, coming: &Coming<'_>, present: &Present) -> bool {
        self.read_page(coming, present, |page, ages| page.holds_at_home(coming.want(), ages))
    }

    #[inline(never)]
    fn sees_key(&self, coming: &Coming<'_>, present: &Present) -> bool {
        let want = coming.want();
        let namesake =
            self.read_page(coming, present, |page, ages| page.namesake_at_home(want, ages));
        let sight = namesake.map_or(Sight::NOTHING, |slot| Sight::at(&self.pool, slot.address()));
        Sight::follow_slots();
        sight.shows(coming.key) && self.rules.frees.is_still(present.frees)
    }

    /// What `read` finds in the key's page, by what tags mean at `present`;
    /// nothing if there is no page.
    #[expect(clippy::inline_always, reason = "or each key of a batch pays for a call")]
    #[inline(always)]
    fn read_page<R: Default>(
        &self,
        coming: &Coming<'_>,
        present: &Present,
        read: impl FnOnce(Glance<'_>, &Ages) -> R,
    ) -> R {
        let Some(page) = coming.page else { return R::default() };
        // Before the page: see `Heads::newest`.
        let newest = self.heads.newest(coming.shard as usize);
        present.with_ages(newest, &self.rules, |ages| read(page, ages))
    }

    /// Counts duplicates that were recognised.
    pub(crate) fn count_recognised(&self, count: u64) {
        self.recognised.add(count);
    }

    /// How many duplicates were recognised without a lock.
    pub(crate) fn recognised(&self) -> u64 {
        self.recognised.sum()
    }

    /// Ends the check of one key: at `at`, or at the watermark (the latest
    /// clock reading). Records it if it is new.
    #[inline]
    pub(crate) fn check(&self, coming: Coming<'_>, at: Option<Bucket>) -> Result<Verdict, Refusal> {
        if self.filtered.is_none() {
            if self.recognises(&coming, &Present::new(&self.rules, at)) {
                self.recognised.add(1);
                return Ok(Verdict::Duplicate);
            }
            self.fetch_for_recording(&coming);
        }
        self.check_locked(&coming, at)
    }

    /// Ends the check of a key under its shard's lock: at `at`, or at the
    /// watermark (the latest clock reading). Records it if it is new.
    #[inline(never)]
    pub(crate) fn check_locked(
        &self,
        coming: &Coming<'_>,
        at: Option<Bucket>,
    ) -> Result<Verdict, Refusal> {
        match self.try_check(coming, at) {
            Err(Refusal::Short) => self.check_after_reclaim(coming, at),
            outcome => outcome,
        }
    }

    #[expect(clippy::inline_always, reason = "or each new key pays for one call more")]
    #[inline(always)]
    fn try_check(&self, coming: &Coming<'_>, at: Option<Bucket>) -> Result<Verdict, Refusal> {
        if let Some(filtered) = &self.filtered {
            return self.check_filtered(filtered, coming, at);
        }
        let index = coming.shard as usize;
        let mut state = self.shards[index].lock();
        if let Some(page) = coming.page
            && state.is_plain(&self.rules, coming.layout, at)
            && let Some(verdict) = state.check_at_home(&self.rules, page, coming.want(), coming.key)
        {
            return Ok(verdict);
        }
        let verdict = state.check(&self.rules, coming.want(), coming.key, at);
        self.publish(index, &state);
        verdict
    }

    /// The check of a key that found no room: other threads may take what is
    /// reclaimed, so perhaps more than once.
    #[cold]
    fn check_after_reclaim(
        &self,
        coming: &Coming<'_>,
        at: Option<Bucket>,
    ) -> Result<Verdict, Refusal> {
        loop {
            self.reclaim(coming.key.len()).inspect_err(|_| {
                self.locked(coming.shard as usize).rejected += 1;
            })?;
            match self.try_check(coming, at) {
                Err(Refusal::Short) => {}
                outcome => return outcome,
            }
        }
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
            newest = newest.max(Some(state.ages.newest()));
            let here = state.counts.oldest(state.low);
            oldest = here.into_iter().chain(oldest).min();
        });
        oldest.zip(newest)
    }

    fn for_each(&self, mut visit: impl FnMut(&mut State)) {
        for index in 0..self.shards.len() {
            let mut state = self.locked(index);
            visit(&mut state);
            self.publish(index, &state);
        }
    }

    /// Would a check say `Duplicate`?
    pub(crate) fn contains(&self, hash: KeyHash, key: &[u8], at: Option<Bucket>) -> bool {
        let shard = self.index(hash);
        match &self.filtered {
            Some(filtered) => filtered.contains(&self.rules, shard, hash, at),
            None => self.locked(shard).contains(&self.rules, hash, key, at),
        }
    }

    /// Forgets a key. True iff it was kept; never in filter mode.
    pub(crate) fn forget(&self, hash: KeyHash, key: &[u8]) -> bool {
        self.filtered.is_none() && self.locked(self.index(hash)).forget(&self.rules, hash, key)
    }

    /// Does all maintenance of one shard that is due.
    pub(crate) fn maintain(&self, index: usize) {
        if let Some(filtered) = &self.filtered {
            return filtered.maintain(&self.rules, index);
        }
        let mut state = self.locked(index);
        state.maintain(&self.rules);
        self.publish(index, &state);
    }

    /// Puts two more megabytes of tables on a huge page. False if there are
    /// none left that are in full use.
    pub(crate) fn collapse_next(&self) -> bool {
        self.extents.collapse_next()
    }

    /// What the counters of one shard say, up to date with the watermark.
    pub(crate) fn tally(&self, index: usize) -> Tally {
        if let Some(filtered) = &self.filtered {
            return filtered.tally(&self.rules, index);
        }
        let mut state = self.locked(index);
        state.roll(&self.rules, Moment::new(&self.rules, None));
        self.publish(index, &state);
        state.tally()
    }

    /// The filter's layers, in filter mode.
    pub(crate) fn filter_layers(&self) -> Option<&Layers> {
        self.filtered.as_ref().map(|filtered| &*filtered.layers)
    }

    /// The shards, in filter mode.
    #[inline]
    pub(crate) fn filtered(&self) -> Option<&FilteredShards> {
        self.filtered.as_ref()
    }

    #[inline(never)]
    fn check_filtered(
        &self,
        filtered: &FilteredShards,
        coming: &Coming<'_>,
        at: Option<Bucket>,
    ) -> Result<Verdict, Refusal> {
        filtered.check(&self.rules, coming, &filtered.layers.probe(coming.hash), at)
    }

    #[inline]
    fn publish(&self, index: usize, state: &State) {
        self.heads.publish(index, state.table.layout(), state.ages.newest());
    }

    fn locked(&self, index: usize) -> MutexGuard<'_, State> {
        self.shards[index].lock()
    }

    /// Which of `parts` groups of shards that follow one another a key is in.
    #[cfg(feature = "rayon")]
    pub(crate) fn part(&self, hash: KeyHash, parts: usize) -> usize {
        (self.index(hash) * parts) >> self.len().trailing_zeros()
    }

    /// The number of shards is a power of two: the low bits choose.
    #[inline]
    fn index(&self, hash: KeyHash) -> usize {
        hash.high() as usize & (self.count - 1)
    }
}

/// The bits that are set, from the lowest on.
#[inline]
pub(crate) fn ones(mut bits: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let index = bits.trailing_zeros() as usize;
        let is_left = bits != 0;
        bits &= bits.wrapping_sub(1);
        is_left.then_some(index)
    })
}

/// A bit for each of up to 32 keys, at least one.
#[inline]
pub(crate) const fn all(keys: usize) -> u32 {
    u32::MAX >> (u32::BITS - keys as u32)
}
