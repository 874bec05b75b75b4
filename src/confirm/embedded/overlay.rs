//! The keys written last, in memory and in the log: they overlay the tables.
//!
//! A B-tree on disk takes a page of 4 KiB for each key that is put into it at
//! random, however small the key: 5 kB written a key, at 130,000 keys a second.
//! So new keys go to a log, as one value a commit, and stay in memory besides.
//! Each commit also moves some of them to the tables, from where the last one
//! stopped, in order of keys: neighbours share pages. A *sweep* is one pass over
//! all keys. What was logged before a sweep began lies in the tables when it
//! ends, and that part of the log is dropped.

use crate::confirm::{Bucket, Record};
use std::collections::BTreeMap;
use std::ops::Bound;

/// What an overlay takes unless told otherwise, in bytes as [`weight`] counts: some 65,000
/// short keys.
pub(super) const CAP_BYTES: usize = 8 << 20;

/// What the tables hold for a key besides is no longer true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// What was written last; together with what the tables hold, the one in the
    /// later bucket counts.
    pub(super) record: Option<Record>,
    /// The key was forgotten: what the tables hold does not count.
    pub(super) purges: bool,
}

impl Entry {
    pub(super) const FORGOTTEN: Self = Self { record: None, purges: true };

    /// With a record, unless there is one in the same bucket or a later one.
    pub(super) fn with(self, record: Record) -> Self {
        match self.record {
            Some(held) if held.bucket >= record.bucket => self,
            _ => Self { record: Some(record), ..self },
        }
    }
}

/// What one commit changes.
pub(super) type Changes = BTreeMap<Vec<u8>, Entry>;

#[derive(Debug)]
pub(super) struct Overlay {
    cap_bytes: usize,
    entries: BTreeMap<Vec<u8>, Entry>,
    bytes: usize,
    /// Where the sweep stopped: the last key that it moved.
    swept: Option<Vec<u8>>,
}

/// What a commit moves to the tables.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) entries: Vec<(Vec<u8>, Entry)>,
    /// The sweep came to its end; another began.
    pub(super) ends_sweep: bool,
}

impl Overlay {
    pub(super) const fn new(cap_bytes: usize) -> Self {
        Self { cap_bytes, entries: BTreeMap::new(), bytes: 0, swept: None }
    }

    pub(super) const fn cap_bytes(&self) -> usize {
        self.cap_bytes
    }

    #[cfg(test)]
    pub(super) const fn set_cap_bytes(&mut self, bytes: usize) {
        self.cap_bytes = bytes;
    }

    /// As [`weight`] counts.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Entry> {
        self.entries.get(key).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Entry)> {
        self.entries.iter().map(|(key, entry)| (key.as_slice(), *entry))
    }

    /// What to move so that `more` bytes fit.
    pub(super) fn share(&self, more: usize) -> Share {
        let mut excess = (self.bytes + more).saturating_sub(self.cap_bytes);
        let mut share = Share::default();
        for (key, entry, is_ahead) in self.in_order_of_the_sweep() {
            if excess == 0 {
                return share;
            }
            share.ends_sweep |= !is_ahead;
            excess = excess.saturating_sub(weight(key));
            share.entries.push((key.to_vec(), entry));
        }
        share.ends_sweep = true;
        share
    }

    /// All entries in the order of the sweep, and whether it has yet to come by
    /// or goes round once more.
    fn in_order_of_the_sweep(&self) -> impl Iterator<Item = (&[u8], Entry, bool)> {
        let stopped = self.swept.as_deref();
        let ahead = (stopped.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let behind = (Bound::Unbounded, stopped.map_or(Bound::Excluded(&[][..]), Bound::Included));
        let part = |range: (Bound<&[u8]>, Bound<&[u8]>), is_ahead| {
            let entries = self.entries.range::<[u8], _>(range);
            entries.map(move |(key, entry)| (key.as_slice(), *entry, is_ahead))
        };
        part(ahead, true).chain(part(behind, false))
    }

    /// Takes out what was moved to the tables.
    pub(super) fn moved(&mut self, share: &Share) {
        for (key, _) in &share.entries {
            self.remove(key);
        }
        if let Some((last, _)) = share.entries.last() {
            self.swept = Some(last.clone());
        }
    }

    /// Begins a sweep anew: all that is held is ahead of it.
    pub(super) fn begin_sweep(&mut self) {
        self.swept = None;
    }

    /// Takes in what was logged.
    pub(super) fn extend(&mut self, changes: Changes) {
        for (key, entry) in changes {
            self.bytes += weight(&key);
            if let Some((key, _)) = self.entries.remove_entry(&key) {
                self.bytes -= weight(&key);
            }
            self.entries.insert(key, entry);
        }
    }

    /// True iff there are records in buckets before `before`.
    pub(super) fn has_before(&self, before: Bucket) -> bool {
        let mut records = self.entries.values().filter_map(|entry| entry.record);
        records.any(|record| record.bucket < before)
    }

    /// Drops records in buckets before `before`; that a key was forgotten stays.
    pub(super) fn expire(&mut self, before: Bucket) {
        let bytes = &mut self.bytes;
        self.entries.retain(|key, entry| {
            entry.record = entry.record.filter(|record| record.bucket >= before);
            let stays = entry.record.is_some() || entry.purges;
            if !stays {
                *bytes -= weight(key);
            }
            stays
        });
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some((key, _)) = self.entries.remove_entry(key) {
            self.bytes -= weight(&key);
        }
    }
}

/// As [`weight`] counts.
pub(super) fn weight_of(changes: &Changes) -> usize {
    changes.keys().map(|key| weight(key)).sum()
}

/// About what a key takes in memory, in bytes.
pub(super) const fn weight(key: &[u8]) -> usize {
    key.len() + 112
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confirm::Token;

    fn record(bucket: i64, token: u64) -> Record {
        Record { bucket: Bucket::new(bucket), token: Token::new(token) }
    }

    #[test]
    fn a_sweep_moves_every_key_once_and_says_when_it_ends() {
        let mut overlay = Overlay::new(CAP_BYTES);
        let key = |number: u32| number.to_be_bytes().to_vec();
        let each = weight(&key(0));
        let full = u32::try_from(CAP_BYTES / each).unwrap();
        let entry = Entry::default().with(record(1, 1));
        overlay.extend((0..full).map(|number| (key(number), entry)).collect());
        assert!(overlay.share(0).entries.is_empty());
        let mut moved = 0;
        // Put again behind the sweep, to be moved by the next one.
        loop {
            let share = overlay.share(100 * each);
            let first = share.entries[0].0.clone();
            let ends = share.ends_sweep;
            if !ends {
                assert_eq!(first, key(moved));
            }
            moved += u32::try_from(share.entries.len()).unwrap();
            let again = share.entries.iter().map(|(key, _)| (key.clone(), entry)).collect();
            overlay.moved(&share);
            overlay.extend(again);
            assert!(overlay.bytes <= CAP_BYTES);
            if ends {
                break;
            }
        }
        assert!((full..full + 200).contains(&moved), "{moved} of {full}");
    }

    #[test]
    fn a_share_of_all_ends_the_sweep() {
        let mut overlay = Overlay::new(2 * weight(b"a"));
        let entry = Entry::default().with(record(1, 1));
        overlay.extend([(b"a".to_vec(), entry), (b"b".to_vec(), entry)].into());
        let share = overlay.share(1);
        assert_eq!((share.entries.len(), share.ends_sweep), (1, false));
        assert!(overlay.share(1_000).ends_sweep);
    }

    #[test]
    fn expiry_keeps_what_was_forgotten() {
        let mut overlay = Overlay::new(CAP_BYTES);
        let purged = Entry::FORGOTTEN.with(record(1, 1));
        let plain = Entry::default().with(record(1, 1));
        let live = Entry::default().with(record(2, 1));
        let entries = [("purged", purged), ("plain", plain), ("live", live)];
        overlay.extend(entries.map(|(key, entry)| (key.into(), entry)).into());
        overlay.expire(Bucket::new(2));
        assert_eq!(overlay.get(b"purged"), Some(Entry::FORGOTTEN));
        assert_eq!(overlay.get(b"plain"), None);
        assert_eq!(overlay.get(b"live"), Some(live));
        overlay.expire(Bucket::new(3));
        overlay.remove(b"purged");
        assert_eq!(overlay.bytes, 0);
    }
}
