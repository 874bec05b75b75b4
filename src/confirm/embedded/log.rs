//! The log of what the overlay holds: one value for each commit, in their order.
//!
//! It owns how commits are written as bytes, how they are numbered, and which of
//! them a sweep has made obsolete. What has expired is noted beside it, as of a
//! number: read again, the log gives the overlay as it was.

use super::failure::{corrupt, opening, working};
use super::file::META;
use super::overlay::{Changes, Entry, Overlay, weight_of};
use crate::confirm::{Bucket, Record, StoreError, Token};
use redb::{ReadTransaction, TableDefinition, TableError, WriteTransaction};
use std::ops::RangeBounds;

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

/// In [`META`], of the last expiry: the bucket, and the number of the next commit.
const EXPIRED_BEFORE: &str = "expired before";
const EXPIRED_AT: &str = "expired at";

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

/// What one commit writes of the overlay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Commit<'changes> {
    pub(super) changes: &'changes Changes,
    pub(super) ends_sweep: bool,
    /// Drops what lies in buckets before this one, of these changes and all before.
    pub(super) expires: Option<Bucket>,
}

impl Log {
    /// Makes the log of a new file.
    pub(super) fn make(tx: &WriteTransaction) -> Result<(), TableError> {
        tx.open_table(LOG).map(drop)
    }

    /// Reads the log into an empty overlay.
    ///
    /// An expiry drops what was logged before it and no more: the clock of the next
    /// owner may be far behind, and keys that it records in buckets which have expired
    /// once are to last like any others.
    pub(super) fn read(tx: &ReadTransaction, overlay: &mut Overlay) -> Result<Self, StoreError> {
        let expiry = Expiry::read(tx)?;
        let mut log = Self { next: expiry.at, ..Self::default() };
        log.replay(tx, ..expiry.at, overlay)?;
        overlay.expire(expiry.before);
        log.replay(tx, expiry.at.., overlay)?;
        log.sweep_began = log.next;
        Ok(log)
    }

    fn replay(
        &mut self,
        tx: &ReadTransaction,
        numbers: impl RangeBounds<u64>,
        overlay: &mut Overlay,
    ) -> Result<(), StoreError> {
        let table = tx.open_table(LOG).map_err(opening)?;
        for logged in table.range(numbers).map_err(opening)? {
            let (number, bytes) = logged.map_err(opening)?;
            let damaged = || corrupt(format!("entry {} of the log", number.value()));
            let changes = decode(bytes.value()).ok_or_else(damaged)?;
            self.next = self.next.max(number.value().checked_add(1).ok_or_else(damaged)?);
            self.weight_before += weight_of(&changes);
            overlay.extend(changes);
        }
        Ok(())
    }

    pub(super) const fn weight(&self) -> usize {
        self.weight_before + self.weight_since
    }

    /// True iff the log is to be shortened though the overlay has room: keys that are
    /// refreshed, or expire before they are moved, would make it grow, and whoever opens
    /// the file reads them all.
    pub(super) fn is_long(&self, overlay: &Overlay) -> bool {
        let overlay = overlay.bytes().max(overlay.cap_bytes() / EMPTY);
        self.weight() > LONG_LOG * overlay
    }

    pub(super) fn write(
        &self,
        tx: &WriteTransaction,
        commit: Commit<'_>,
    ) -> Result<(), StoreError> {
        let mut log = tx.open_table(LOG).map_err(working)?;
        if commit.ends_sweep {
            log.retain_in(..self.sweep_began, |_, _| false).map_err(working)?;
        }
        if !commit.changes.is_empty() {
            log.insert(self.next, encode_changes(commit.changes).as_slice()).map_err(working)?;
        }
        match commit.expires {
            Some(before) => Expiry { before, at: self.next + 1 }.write(tx),
            None => Ok(()),
        }
    }

    /// Writes the log anew: as one commit of all that it gives.
    ///
    /// Sweeps shorten the log, but an owner who does not stay until one has come round
    /// leaves it longer than he found it.
    pub(super) fn rewrite(
        &mut self,
        tx: &WriteTransaction,
        overlay: &Overlay,
    ) -> Result<(), redb::Error> {
        let mut log = tx.open_table(LOG)?;
        log.retain(|_, _| false)?;
        log.insert(self.next, encode(overlay.iter()).as_slice())?;
        self.next += 1;
        self.sweep_began = self.next;
        self.weight_before = overlay.bytes();
        Ok(())
    }

    /// What was given to [`write`](Self::write) is in the file. A sweep that ends makes
    /// another begin, before what is logged with it.
    pub(super) fn written(&mut self, commit: Commit<'_>) {
        if commit.ends_sweep {
            self.sweep_began = self.next;
            self.weight_before = self.weight_since;
            self.weight_since = 0;
        }
        self.weight_since += weight_of(commit.changes);
        self.next += 1;
    }
}

/// The last expiry.
struct Expiry {
    before: Bucket,
    /// Of the first commit after it.
    at: u64,
}

impl Expiry {
    /// In a file in which nothing has expired yet.
    const NONE: Self = Self { before: Bucket::new(i64::MIN), at: 0 };

    fn read(tx: &ReadTransaction) -> Result<Self, StoreError> {
        let meta = tx.open_table(META).map_err(opening)?;
        let read = |name| meta.get(name).map(|noted| noted.map(|noted| noted.value()));
        let before = read(EXPIRED_BEFORE).map_err(opening)?;
        let at = read(EXPIRED_AT).map_err(opening)?;
        Ok(before.zip(at).map_or(Self::NONE, |(before, at)| Self {
            before: Bucket::new(before.cast_signed()),
            at,
        }))
    }

    fn write(&self, tx: &WriteTransaction) -> Result<(), StoreError> {
        let mut meta = tx.open_table(META).map_err(working)?;
        meta.insert(EXPIRED_BEFORE, self.before.number().cast_unsigned()).map_err(working)?;
        meta.insert(EXPIRED_AT, self.at).map_err(working)?;
        Ok(())
    }
}

const HAS_RECORD: u8 = 1;
const PURGES: u8 = 2;

/// Entries as a value of the log: for each key flags, bucket, token, length and
/// bytes.
fn encode<'key>(entries: impl Iterator<Item = (&'key [u8], Entry)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, entry) in entries {
        let record = entry.record.map_or(0, |_| HAS_RECORD);
        bytes.push(record | if entry.purges { PURGES } else { 0 });
        if let Some(record) = entry.record {
            bytes.extend(record.bucket.number().to_le_bytes());
            bytes.extend(record.token.number().to_le_bytes());
        }
        bytes.extend((key.len() as u32).to_le_bytes());
        bytes.extend(key);
    }
    bytes
}

fn encode_changes(changes: &Changes) -> Vec<u8> {
    encode(changes.iter().map(|(key, entry)| (key.as_slice(), *entry)))
}

/// Reads what [`encode`] wrote; `None` if that is not what it is.
fn decode(mut bytes: &[u8]) -> Option<Changes> {
    let mut changes = Changes::new();
    while !bytes.is_empty() {
        let [flags] = take(&mut bytes)?;
        if flags & !(HAS_RECORD | PURGES) != 0 {
            return None;
        }
        let record = if flags & HAS_RECORD == 0 {
            None
        } else {
            let bucket = Bucket::new(i64::from_le_bytes(take(&mut bytes)?));
            let token = Token::new(u64::from_le_bytes(take(&mut bytes)?));
            Some(Record { bucket, token })
        };
        let length = u32::from_le_bytes(take(&mut bytes)?) as usize;
        let (key, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        changes.insert(key.to_vec(), Entry { record, purges: flags & PURGES != 0 });
    }
    Some(changes)
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
            )
        ) {
            let changes: Changes = changes.into_iter().map(|(key, (held, purges))| {
                (key, Entry { record: held.map(|(bucket, token)| record(bucket, token)), purges })
            }).collect();
            prop_assert_eq!(decode(&encode_changes(&changes)), Some(changes));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&bytes);
        }
    }
}
