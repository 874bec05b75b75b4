//! The log of what the overlay holds: one value for each commit, in their order.
//!
//! It owns how commits are written as bytes, how they are numbered, and which of
//! them a sweep has made obsolete. Read again from its beginning to its end, it gives
//! the overlay as it was.

use super::failure::{corrupt, opening, working};
use super::overlay::{Changes, Entry, Overlay, weight_of};
use crate::confirm::{Bucket, Record, StoreError, Token};
use redb::{ReadTransaction, ReadableTable as _, TableDefinition, TableError, WriteTransaction};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

/// A log that weighs so many times what the overlay does is long. While keys only come,
/// it weighs twice as much at most.
const LONG_LOG: usize = 3;

/// An overlay that is emptier than this part of its cap does not make the log long any
/// sooner: so small a log is read in no time.
const EMPTY: usize = 8;

/// Where the log ends, and how much of it the sweep under way makes obsolete, in bytes
/// as [`weight_of`] counts: what reading it takes in memory.
#[derive(Debug, Default)]
pub(super) struct Log {
    next: u64,
    /// The first entry from after the beginning of the sweep.
    sweep_began: u64,
    weight_before: usize,
    weight_since: usize,
}

/// What one commit does to the overlay: first the changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) changes: Changes,
    /// Drops records in buckets before this one.
    pub(super) expires: Option<Bucket>,
}

impl Commit {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.expires.is_none()
    }

    /// Does it to the overlay.
    pub(super) fn apply(self, overlay: &mut Overlay) {
        overlay.extend(self.changes);
        if let Some(before) = self.expires {
            overlay.expire(before);
        }
    }
}

impl Log {
    /// Makes the log of a new file.
    pub(super) fn make(tx: &WriteTransaction) -> Result<(), TableError> {
        tx.open_table(LOG).map(drop)
    }

    /// Reads the log into an empty overlay.
    pub(super) fn read(tx: &ReadTransaction, overlay: &mut Overlay) -> Result<Self, StoreError> {
        let mut log = Self::default();
        let table = tx.open_table(LOG).map_err(opening)?;
        for logged in table.iter().map_err(opening)? {
            let (number, bytes) = logged.map_err(opening)?;
            let damaged = || corrupt(format!("entry {} of the log", number.value()));
            let commit = decode(bytes.value()).ok_or_else(damaged)?;
            log.next = number.value().checked_add(1).ok_or_else(damaged)?;
            log.weight_before += weight_of(&commit.changes);
            commit.apply(overlay);
        }
        log.sweep_began = log.next;
        Ok(log)
    }

    pub(super) const fn weight(&self) -> usize {
        self.weight_before + self.weight_since
    }

    /// True iff the log is to be written anew: keys that are refreshed, or expire before
    /// they are moved, make it grow though the overlay has room, and so do owners who do
    /// not stay until a sweep has come round; and whoever opens the file reads all of it.
    pub(super) fn is_long(&self, overlay: &Overlay) -> bool {
        let overlay = overlay.bytes().max(overlay.cap_bytes() / EMPTY);
        self.weight() > LONG_LOG * overlay
    }

    /// Appends a commit; drops what a sweep that ends has made obsolete.
    pub(super) fn write(
        &self,
        tx: &WriteTransaction,
        commit: &Commit,
        ends_sweep: bool,
    ) -> Result<(), StoreError> {
        let mut log = tx.open_table(LOG).map_err(working)?;
        if ends_sweep {
            log.retain_in(..self.sweep_began, |_, _| false).map_err(working)?;
        }
        log.insert(self.next, encode(commit).as_slice()).map_err(working)?;
        Ok(())
    }

    /// What was given to [`write`](Self::write) is in the file. A sweep that ends makes
    /// another begin, before what is logged with it.
    pub(super) fn written(&mut self, weight: usize, ends_sweep: bool) {
        if ends_sweep {
            self.sweep_began = self.next;
            self.weight_before = self.weight_since;
            self.weight_since = 0;
        }
        self.weight_since += weight;
        self.next += 1;
    }

    /// Puts one commit of all that the overlay holds in the place of the whole log.
    pub(super) fn rewrite(
        &mut self,
        tx: &WriteTransaction,
        overlay: &Overlay,
    ) -> Result<(), redb::Error> {
        let mut log = tx.open_table(LOG)?;
        log.retain(|_, _| false)?;
        let mut bytes = Vec::new();
        overlay.iter().for_each(|(key, entry)| encode_entry(&mut bytes, key, entry));
        log.insert(self.next, bytes.as_slice())?;
        let next = self.next + 1;
        *self = Self { next, sweep_began: next, weight_before: overlay.bytes(), weight_since: 0 };
        Ok(())
    }
}

const HAS_RECORD: u8 = 1;
const PURGES: u8 = 2;
/// Of what is no entry, but an expiry.
const EXPIRES: u8 = 4;

/// A commit as a value of the log: entries, then the bucket of an expiry.
fn encode(commit: &Commit) -> Vec<u8> {
    let mut bytes = Vec::new();
    commit.changes.iter().for_each(|(key, entry)| encode_entry(&mut bytes, key, *entry));
    if let Some(before) = commit.expires {
        bytes.push(EXPIRES);
        bytes.extend(before.number().to_le_bytes());
    }
    bytes
}

/// Flags, bucket, token, length and bytes of a key.
fn encode_entry(bytes: &mut Vec<u8>, key: &[u8], entry: Entry) {
    let record = entry.record.map_or(0, |_| HAS_RECORD);
    bytes.push(record | if entry.purges { PURGES } else { 0 });
    if let Some(record) = entry.record {
        bytes.extend(record.bucket.number().to_le_bytes());
        bytes.extend(record.token.number().to_le_bytes());
    }
    bytes.extend((key.len() as u32).to_le_bytes());
    bytes.extend(key);
}

/// Reads what [`encode`] wrote; `None` if that is not what it is.
fn decode(mut bytes: &[u8]) -> Option<Commit> {
    let mut commit = Commit::default();
    while !bytes.is_empty() {
        let [flags] = take(&mut bytes)?;
        if flags == EXPIRES {
            commit.expires = Some(take_bucket(&mut bytes)?);
            return bytes.is_empty().then_some(commit);
        }
        let (key, entry) = decode_entry(flags, &mut bytes)?;
        commit.changes.insert(key, entry);
    }
    Some(commit)
}

fn decode_entry(flags: u8, bytes: &mut &[u8]) -> Option<(Vec<u8>, Entry)> {
    if flags & !(HAS_RECORD | PURGES) != 0 {
        return None;
    }
    let record = if flags & HAS_RECORD == 0 {
        None
    } else {
        let bucket = take_bucket(bytes)?;
        Some(Record { bucket, token: Token::new(u64::from_le_bytes(take(bytes)?)) })
    };
    let length = u32::from_le_bytes(take(bytes)?) as usize;
    let (key, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some((key.to_vec(), Entry { record, purges: flags & PURGES != 0 }))
}

fn take_bucket(bytes: &mut &[u8]) -> Option<Bucket> {
    Some(Bucket::new(i64::from_le_bytes(take(bytes)?)))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(bucket: i64, token: u64) -> Record {
        Record { bucket: Bucket::new(bucket), token: Token::new(token) }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            changes in prop::collection::btree_map(
                prop::collection::vec(any::<u8>(), 0..40),
                (any::<Option<(i64, u64)>>(), any::<bool>()),
                0..20,
            ),
            expires: Option<i64>,
        ) {
            let changes: Changes = changes.into_iter().map(|(key, (held, purges))| {
                (key, Entry { record: held.map(|(bucket, token)| record(bucket, token)), purges })
            }).collect();
            let commit = Commit { changes, expires: expires.map(Bucket::new) };
            prop_assert_eq!(decode(&encode(&commit)), Some(commit));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&bytes);
        }
    }
}
