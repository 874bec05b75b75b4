//! Shards as the memory in front of a confirmer: what they recall of keys, and
//! keys to be remembered in buckets that somebody else has decided.
//!
//! Nothing here judges a key: it is neither `Unique` nor counted.

use super::moment::Moment;
use super::state::{State, wanted};
use super::{Refusal, Rules, Shards};
use crate::hash::KeyHash;
use crate::time::Bucket;

impl Shards {
    /// The bucket in which a key is kept, if it matches a check at `at`. A
    /// filter may be mistaken in that it has the key, and in the bucket.
    pub(crate) fn recall(&self, hash: KeyHash, key: &[u8], at: Bucket) -> Option<Bucket> {
        let shard = self.index(hash);
        match &self.filtered {
            Some(filtered) => filtered.recall(&self.rules, shard, hash, at),
            None => self.locked(shard).recall(&self.rules, hash, key, at),
        }
    }

    /// Keeps a key in `bucket`, unless it is kept in a later one.
    pub(crate) fn remember(
        &self,
        hash: KeyHash,
        key: &[u8],
        bucket: Bucket,
    ) -> Result<(), Refusal> {
        let index = self.index(hash);
        if let Some(filtered) = &self.filtered {
            return filtered.remember(&self.rules, index, hash, bucket);
        }
        loop {
            let mut state = self.locked(index);
            let remembered = state.remember(&self.rules, hash, key, bucket);
            self.publish(index, &state);
            drop(state);
            match remembered {
                Err(Refusal::Short) if self.reclaim(key.len()).is_ok() => {}
                Ok(()) => return Ok(()),
                Err(refusal) => {
                    // As good as given up at once.
                    self.rules.note_thinned(bucket);
                    return Err(refusal);
                }
            }
        }
    }

    /// Has any key been given up before its time? A key that was not recalled, while
    /// this was false afterwards, has not been remembered: keys are noted to be given
    /// up before they are, under the lock that recalling takes.
    pub(crate) fn has_given_up(&self) -> bool {
        self.rules.has_given_up()
    }

    /// Takes note of the times that `others` have seen, so that no bucket of
    /// theirs is ahead of what these shards can hold.
    pub(crate) fn keep_up_with(&self, others: &Self) {
        if let Some(largest_seen) = others.rules.watermark.largest_seen() {
            self.rules.watermark.advance(largest_seen);
        }
    }
}

impl State {
    fn recall(&mut self, rules: &Rules, hash: KeyHash, key: &[u8], at: Bucket) -> Option<Bucket> {
        self.roll(rules, Moment::new(rules, None));
        let (_, slot) = self.find(rules, wanted(hash), key).ok()?;
        Some(self.ages.bucket(slot.tag())).filter(|bucket| *bucket >= rules.window_start(at))
    }

    fn remember(
        &mut self,
        rules: &Rules,
        hash: KeyHash,
        key: &[u8],
        bucket: Bucket,
    ) -> Result<(), Refusal> {
        let moment = Moment::new(rules, None).moved_to(bucket);
        self.roll(rules, moment);
        match self.find(rules, wanted(hash), key) {
            Err(vacancy) => self.record(rules, wanted(hash), key, vacancy, moment),
            Ok((place, slot)) => {
                let recorded = self.ages.bucket(slot.tag());
                if recorded < bucket {
                    self.move_up(place, slot, recorded, bucket);
                }
                Ok(())
            }
        }
    }
}
