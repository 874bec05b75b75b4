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
mod room;
mod rules;
mod state;

pub(crate) use rules::Rules;

use crate::hash::KeyHash;
use crate::memory::Budget;
use crate::mode::Mode;
use crate::table::{BlockPool, Extents, Keys, Table, home, prefetch};
use crate::time::Bucket;
use crate::verdict::Verdict;
use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};
use state::{CACHE_LINE, Moment, State, wanted};
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
    shards: Box<[Shard]>,
    /// How many pages each shard has, for prefetching without its lock; may be
    /// outdated. Apart from the shards, so that it stays in the first-level
    /// cache. `Relaxed`: a prefetch may read anything.
    pages: Box<[AtomicU32]>,
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
        let shard = |(pages, number)| {
            let keys = || Box::new(Keys::new(Arc::clone(&pool)));
            let keys = (rules.mode == Mode::Verified).then(keys);
            Shard::new(Mutex::new(State::new(Table::new(pages), keys, &rules, number)))
        };
        let shards = all_pages.into_iter().zip(0..).map(shard).collect();
        let pages = (0..count).map(|_| AtomicU32::new(0)).collect();
        Self { rules, extents, pool, reclaiming: Mutex::new(()), shards, pages }
    }

    /// The bytes that `count` empty shards take.
    pub(crate) fn fixed_bytes(count: u32, rules: &Rules) -> u64 {
        let counts = rules.reach() as u64 * 4 + 16;
        u64::from(count) * ((size_of::<Shard>() + size_of::<AtomicU32>()) as u64 + counts)
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
        match self.try_check(hash, key, at) {
            Err(Refusal::Short) => self.check_after_reclaim(hash, key, at),
            outcome => outcome,
        }
    }

    #[inline]
    fn try_check(&self, hash: KeyHash, key: &[u8], at: Option<Bucket>) -> Result<Verdict, Refusal> {
        let index = self.index(hash);
        let mut state = self.shards[index].lock();
        let room = state.room;
        let verdict = state.check(&self.rules, hash, key, at);
        if state.room != room {
            self.publish(index, &state);
        }
        verdict
    }

    /// The check of a key that found no room: other threads may take what is
    /// reclaimed, so perhaps more than once.
    #[cold]
    fn check_after_reclaim(
        &self,
        hash: KeyHash,
        key: &[u8],
        at: Option<Bucket>,
    ) -> Result<Verdict, Refusal> {
        loop {
            self.reclaim(key.len()).inspect_err(|_| {
                self.locked(self.index(hash)).rejected += 1;
            })?;
            match self.try_check(hash, key, at) {
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
        self.publish(index, &state);
    }

    /// What the counters of one shard say, up to date with the watermark.
    pub(crate) fn tally(&self, index: usize) -> Tally {
        let mut state = self.locked(index);
        state.roll(&self.rules, Moment::new(&self.rules, None));
        self.publish(index, &state);
        state.tally()
    }

    /// Asks the processor to fetch what the check of a key will need: its
    /// shard and its home line.
    #[inline]
    pub(crate) fn prefetch(&self, hash: KeyHash) {
        let index = self.index(hash);
        let shard = &raw const self.shards[index];
        prefetch(shard);
        prefetch(shard.wrapping_byte_add(CACHE_LINE));
        let pages = self.pages[index].load(Ordering::Relaxed);
        let (page, line) = home(wanted(hash), pages);
        self.extents.prefetch(index as u32, page, line);
    }

    fn publish(&self, index: usize, state: &State) {
        self.pages[index].store(state.table.pages(), Ordering::Relaxed);
    }

    fn locked(&self, index: usize) -> MutexGuard<'_, State> {
        self.shards[index].lock()
    }

    /// The number of shards is a power of two: the low bits choose.
    #[inline]
    fn index(&self, hash: KeyHash) -> usize {
        hash.high() as usize & (self.shards.len() - 1)
    }
}
