//! What one shard's lock protects: look-up, recording and rotation.

use super::counts::Counts;
use super::moment::Moment;
use super::pace::Pace;
use super::{Refusal, Rules, Tally};
use crate::hash::KeyHash;
use crate::memory::OnFull;
use crate::mode::Mode;
use crate::table::{
    Address, Ages, Glance, Identity, Keys, Layout, NoRoom, Place, Slot, Table, Vacancy,
};
use crate::time::Bucket;
use crate::verdict::Verdict;

/// The slot that a key is looked for with.
#[inline]
pub(super) fn wanted(hash: KeyHash) -> Slot {
    Slot::of_fingerprint(hash.low())
}

/// What a shard's lock protects, in the order of use: behind the lock's word,
/// the first cache line ends with the table's pages, and the second with what
/// recording a key changes.
#[derive(Debug)]
#[repr(C)]
pub(super) struct State {
    /// How the tags are read: `newest` and `low`, ready for use.
    pub(super) ages: Ages,
    /// Buckets before this one are dead.
    pub(super) low: Bucket,
    /// More live keys than this need more pages.
    pub(super) room: u32,
    /// When this shard grows, and by how much.
    pub(super) pace: Pace,
    pub(super) table: Table,
    pub(super) uniques: u64,
    pub(super) keys: Option<Keys>,
    pub(super) counts: Counts,
    pub(super) duplicates: u64,
    pub(super) late: u64,
    pub(super) rejected: u64,
    pub(super) evicted: u64,
}

/// Bytes in a cache line.
pub(super) const CACHE_LINE: usize = 64;

const _: () = assert!(std::mem::offset_of!(State, table) + size_of::<u64>() + 24 == CACHE_LINE);
const _: () = assert!(
    std::mem::offset_of!(State, counts) + size_of::<u64>() + Counts::HOT_BYTES <= 2 * CACHE_LINE
);

impl State {
    pub(super) fn new(table: Table, keys: Option<Keys>, rules: &Rules, pace: Pace) -> Self {
        let newest = rules.watermark.bucket();
        let low = rules.window_start(newest);
        Self {
            ages: Ages::new(newest, low, rules.tags),
            low,
            room: 0,
            pace,
            table,
            counts: Counts::new(newest, rules.reach() as usize),
            uniques: 0,
            keys,
            duplicates: 0,
            late: 0,
            rejected: 0,
            evicted: 0,
        }
    }

    /// Is there nothing to do for a check at `at` but to look for the key and to
    /// record it, in the shard's newest bucket, where there is room; and is the
    /// table laid out by `layout`?
    #[inline]
    pub(super) fn is_plain(&self, rules: &Rules, layout: Layout, at: Option<Bucket>) -> bool {
        let moment = Moment::new(rules, at);
        moment.at == self.ages.newest()
            && moment.at >= self.low
            && !moment.is_late()
            && self.is_up_to_date(rules, moment)
            && layout == self.table.layout()
            && !layout.is_growing()
            && self.counts.live() < self.room
    }

    /// Does what a check that is plain most often comes to, as duplicates have
    /// been recognised without the lock: puts the key into its home line. `None`
    /// if it comes to more; then nothing was done.
    #[expect(clippy::inline_always, reason = "or each new key pays for one call more")]
    #[inline(always)]
    pub(super) fn check_at_home(
        &mut self,
        rules: &Rules,
        page: Glance<'_>,
        want: Slot,
        key: &[u8],
    ) -> Option<Verdict> {
        match rules.mode {
            Mode::Verified => self.record_key_at_home(page, want, key),
            _ => self.record_at_home(page, want, Identity::FINGERPRINT, |_| Some(want)),
        }
    }

    #[inline(never)]
    fn record_key_at_home(&mut self, page: Glance<'_>, want: Slot, key: &[u8]) -> Option<Verdict> {
        self.record_at_home(page, want, Identity::CODE, |state| {
            let newest = state.ages.newest();
            Some(want.at_address(state.keys.as_mut()?.push_here(key, newest)?))
        })
    }

    /// Puts a key that is surely not in the table into its home line, if that
    /// has room, with the slot that `store` makes for it.
    #[inline]
    fn record_at_home(
        &mut self,
        page: Glance<'_>,
        want: Slot,
        identity: Identity,
        store: impl FnOnce(&mut Self) -> Option<Slot>,
    ) -> Option<Verdict> {
        let place = page.room_at_home(want, identity, self.ages)?;
        let slot = store(self)?;
        page.put_at_home(place, self.ages.newest_slot(slot));
        self.counts.add_newest();
        self.uniques += 1;
        Some(Verdict::Unique)
    }

    #[inline]
    fn is_up_to_date(&self, rules: &Rules, moment: Moment) -> bool {
        rules.low(moment.watermark) <= self.low
    }

    #[inline]
    pub(super) fn check(
        &mut self,
        rules: &Rules,
        want: Slot,
        key: &[u8],
        at: Option<Bucket>,
    ) -> Result<Verdict, Refusal> {
        let moment = Moment::new(rules, at);
        if moment.is_late() {
            self.late += 1;
            return Ok(Verdict::Late);
        }
        self.roll(rules, moment);
        match self.find(rules, want, key) {
            Ok((place, slot)) => Ok(self.check_known(rules, place, slot, moment)),
            Err(vacancy) => self.check_new(rules, want, key, vacancy, moment),
        }
    }

    /// The verdict on a key that the table holds.
    #[inline(never)]
    fn check_known(&mut self, rules: &Rules, place: Place, slot: Slot, moment: Moment) -> Verdict {
        let recorded = self.ages.bucket(slot.tag());
        let is_match = recorded >= rules.window_start(moment.at);
        if recorded < moment.at && (rules.is_sliding || !is_match) {
            self.move_up(place, slot, recorded, moment.at);
        }
        if is_match {
            self.duplicates += 1;
            Verdict::Duplicate
        } else {
            self.uniques += 1;
            Verdict::Unique
        }
    }

    /// The verdict on a key that the table does not hold.
    #[inline]
    fn check_new(
        &mut self,
        rules: &Rules,
        want: Slot,
        key: &[u8],
        vacancy: Option<Vacancy>,
        moment: Moment,
    ) -> Result<Verdict, Refusal> {
        if let Err(refusal) = self.record(rules, want, key, vacancy, moment) {
            self.rejected += u64::from(refusal == Refusal::Full);
            return Err(refusal);
        }
        self.uniques += 1;
        Ok(Verdict::Unique)
    }

    pub(super) fn contains(
        &mut self,
        rules: &Rules,
        hash: KeyHash,
        key: &[u8],
        at: Option<Bucket>,
    ) -> bool {
        let moment = Moment::new(rules, at);
        self.roll(rules, moment.moved_to(moment.watermark));
        !moment.is_late()
            && self.find(rules, wanted(hash), key).is_ok_and(|(_, slot)| {
                self.ages.bucket(slot.tag()) >= rules.window_start(moment.at)
            })
    }

    pub(super) fn forget(&mut self, rules: &Rules, hash: KeyHash, key: &[u8]) -> bool {
        self.roll(rules, Moment::new(rules, None));
        let Ok((place, slot)) = self.find(rules, wanted(hash), key) else { return false };
        self.table.remove(place, slot);
        self.counts.remove(self.ages.bucket(slot.tag()));
        true
    }

    /// Where the key is, or else where it can be put if the table has room.
    #[inline]
    pub(super) fn find(
        &self,
        rules: &Rules,
        want: Slot,
        key: &[u8],
    ) -> Result<(Place, Slot), Option<Vacancy>> {
        if self.table.pages() == 0 {
            return Err(None);
        }
        let is_key = |slot: Slot| match rules.mode {
            Mode::Fingerprint | Mode::Filter { .. } => true,
            Mode::Verified => {
                self.keys.as_ref().is_some_and(|keys| keys.is_at(slot.address(), key))
            }
        };
        self.table.find(want, rules.identity(), self.ages, is_key).map_err(Some)
    }

    /// Moves a key up to a later bucket.
    #[inline]
    pub(super) fn move_up(&mut self, place: Place, slot: Slot, from: Bucket, to: Bucket) {
        self.table.replace(place, slot.tagged(self.ages.tag(to)), self.ages);
        self.counts.remove(from);
        self.counts.add(to);
        if let Some(keys) = &mut self.keys {
            keys.keep_until(slot.address(), to);
        }
    }

    /// Records a key that is not in the window.
    #[inline]
    pub(super) fn record(
        &mut self,
        rules: &Rules,
        want: Slot,
        key: &[u8],
        mut vacancy: Option<Vacancy>,
        moment: Moment,
    ) -> Result<(), Refusal> {
        if moment.at >= self.low && self.counts.live() >= self.room {
            vacancy = None;
            self.make_room(rules, moment)?;
        }
        if moment.at < self.low {
            // The record's own bucket was given up, before or just now: no
            // later key is given up for it, and no memory taken.
            self.evicted += 1;
            return Ok(());
        }
        let address = self.store_key(rules, key, moment)?;
        let slot = want.tagged(self.ages.tag(moment.at));
        let slot = address.map_or(slot, |address| slot.at_address(address));
        match vacancy {
            Some(vacancy) => self.table.fill(vacancy, slot, self.ages),
            None => self.table.insert(slot, self.ages),
        }
        if self.table.is_growing() {
            self.table.grow_on(self.ages);
        }
        if moment.at == self.ages.newest() {
            self.counts.add_newest();
        } else {
            self.counts.add(moment.at);
        }
        Ok(())
    }

    /// Puts the whole key into the arena, in verified mode.
    #[inline]
    fn store_key(
        &mut self,
        rules: &Rules,
        key: &[u8],
        moment: Moment,
    ) -> Result<Option<Address>, Refusal> {
        let Some(keys) = &mut self.keys else { return Ok(None) };
        if keys.should_look() {
            self.compact_if_worth(rules);
        }
        self.push_key(rules, key, moment).map(Some)
    }

    fn push_key(&mut self, rules: &Rules, key: &[u8], moment: Moment) -> Result<Address, Refusal> {
        if let Some(keys) = &mut self.keys
            && let Ok(address) = keys.push(key, moment.at)
        {
            return Ok(address);
        }
        self.compact_if_worth(rules);
        let keys = self.keys.as_mut().expect("verified mode has an arena");
        keys.push(key, moment.at).map_err(|no_room| match (no_room, rules.on_full()) {
            // Giving up keys would not help: the check would never end.
            (NoRoom::System, _) | (_, None) => Refusal::OutOfMemory,
            (NoRoom::Budget, Some(OnFull::Reject)) => Refusal::Full,
            (NoRoom::Budget, Some(OnFull::EvictOldest | OnFull::Spill)) => Refusal::Short,
        })
    }

    /// Brings the shard up to a moment and to the bounds that all shards
    /// share.
    #[inline]
    pub(super) fn roll(&mut self, rules: &Rules, moment: Moment) {
        let expired = rules.window_start(moment.watermark);
        let low = expired.max(rules.floor());
        if low > self.low || moment.at > self.ages.newest() {
            self.roll_to(rules, low.max(self.low), moment.at.max(self.ages.newest()), expired);
        }
    }

    #[cold]
    fn roll_to(&mut self, rules: &Rules, low: Bucket, newest: Bucket, expired: Bucket) {
        self.drop_buckets_before(low, expired);
        self.ages = Ages::new(self.ages.newest(), low, rules.tags);
        let steps = newest.since(self.ages.newest());
        if steps > 0 {
            // Read with the tags as they were: `newest` moves afterwards.
            self.table.sweep(steps, rules.clearing_steps(), self.ages);
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
                self.evicted += keys;
            }
        }
        self.low = low;
        if dead > 0
            && let Some(keys) = &mut self.keys
        {
            keys.free_before(low);
        }
    }

    pub(super) fn maintain(&mut self, rules: &Rules) {
        self.roll(rules, Moment::new(rules, None));
        self.table.end_growth(self.ages);
        self.shrink_if_empty();
        self.compact_if_worth(rules);
    }

    pub(super) fn tally(&self) -> Tally {
        Tally {
            uniques: self.uniques,
            duplicates: self.duplicates,
            late: self.late,
            rejected: self.rejected,
            evicted: self.evicted,
            live_keys: self.counts.live().into(),
            ..Tally::default()
        }
    }
}
