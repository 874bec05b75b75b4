//! Room for keys: growth, eviction, compaction and shrinkage of one shard.

use super::moment::Moment;
use super::state::State;
use super::{Refusal, Rules};
use crate::table::{SLOTS_PER_PAGE, Slot};

/// A shard shrinks when less than one part in this many of its room is used ...
const SHRINK_BELOW: u32 = 3;
/// ... to pages that are this full: far from growing and from shrinking.
const SHRUNK_LOAD: u32 = SLOTS_PER_PAGE * 6 / 10;

impl State {
    /// Makes room in the table for one more key.
    #[cold]
    pub(super) fn make_room(&mut self, rules: &Rules, moment: Moment) -> Result<(), Refusal> {
        while self.counts.live() >= self.room {
            let pages = self.table.pages();
            self.table.grow(self.pace.after(pages), self.ages);
            if self.table.pages() == pages {
                self.give_up(rules, moment)?;
            }
            self.room = self.pace.room(self.table.pages());
        }
        Ok(())
    }

    /// The table cannot grow: gives up old keys if the policy says so, single
    /// ones if only the newest bucket is left.
    #[cold]
    fn give_up(&mut self, rules: &Rules, moment: Moment) -> Result<(), Refusal> {
        let live = self.counts.live();
        // Another shard may have raised the floor meanwhile.
        self.roll(rules, moment);
        if self.counts.live() < live {
            return Ok(());
        }
        if rules.make_way(self.counts.oldest(self.low), self.ages.newest())?.is_some() {
            self.evict_one();
        }
        self.roll(rules, moment);
        Ok(())
    }

    /// Gives up one key. In verified mode its bytes become garbage.
    fn evict_one(&mut self) {
        if let Some(slot) = self.table.evict_one(self.ages) {
            self.counts.remove(self.ages.bucket(slot.tag()));
            self.evicted += 1;
        }
    }

    /// Gives up the keys that begin in the oldest blocks of the arena, and the
    /// blocks with them.
    pub(super) fn evict_oldest_blocks(&mut self) {
        let Some(keys) = &mut self.keys else { return };
        let oldest = keys.oldest_blocks();
        let (ages, counts) = (self.ages, &mut self.counts);
        let before = counts.live();
        self.table.for_each_live(ages, |slot| {
            if oldest.binary_search(&slot.address().block()).is_ok() {
                counts.remove(ages.bucket(slot.tag()));
                *slot = Slot::EMPTY;
            }
        });
        keys.free_oldest();
        self.evicted += u64::from(before - self.counts.live());
    }

    /// Compacts the arena if enough of it is garbage.
    pub(super) fn compact_if_worth(&mut self, rules: &Rules) {
        if let Some(keys) = &mut self.keys
            && keys.is_worth_compacting(self.counts.live())
        {
            let (pool, blocks) = (keys.pool(), keys.held_blocks());
            pool.compact_within_slack(blocks, || self.compact(rules));
        }
    }

    /// Copies the live keys into new blocks and frees the old ones.
    fn compact(&mut self, rules: &Rules) {
        let Some(keys) = &mut self.keys else { return };
        let old = keys.begin_compaction();
        let (ages, counts) = (self.ages, &mut self.counts);
        let mut lost = 0;
        self.table.for_each_live(ages, |slot| {
            let bucket = ages.bucket(slot.tag());
            if let Ok(address) = keys.copy(&old, slot.address(), bucket) {
                *slot = slot.at_address(address);
            } else {
                // The system itself is out of memory: the key is given up.
                rules.note_thinned(bucket);
                *slot = Slot::EMPTY;
                counts.remove(bucket);
                lost += 1;
            }
        });
        keys.end_compaction();
        self.evicted += lost;
    }

    pub(super) fn shrink_if_empty(&mut self) {
        let live = self.counts.live();
        let pages = live.div_ceil(SHRUNK_LOAD);
        if live < self.room / SHRINK_BELOW && pages < self.table.pages() {
            self.table.shrink(pages, self.ages);
            self.room = self.pace.room(pages);
        }
    }
}
