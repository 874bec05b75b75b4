//! How often each first sighting was seen.

use crate::batch::Record;
use crate::error::Failure;
use crate::output::Output;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;

/// First sightings in order, each with its count. Holds all their records, and
/// their keys where a key is not how its record begins.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    sightings: Vec<Sighting>,
    /// Records and keys, end to end.
    bytes: Vec<u8>,
    /// The number of each key's latest first sighting.
    latest: HashTable<usize>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Sighting {
    count: u64,
    record: Range<usize>,
    key: Range<usize>,
    is_terminated: bool,
}

impl Tally {
    /// Adds a first sighting; later ones of its key count towards it.
    pub(crate) fn begin(&mut self, record: Record) {
        let number = self.sightings.len();
        self.add_alone(record);
        self.sightings[number].key = self.keep_key(record, number);
        let Self { sightings, bytes, latest, hasher } = self;
        let key_of = |number: &usize| &bytes[sightings[*number].key.clone()];
        let entry = latest.entry(
            hasher.hash_one(record.key),
            |number| key_of(number) == record.key,
            |number| hasher.hash_one(key_of(number)),
        );
        match entry {
            Entry::Occupied(mut earlier) => *earlier.get_mut() = number,
            Entry::Vacant(place) => drop(place.insert(number)),
        }
    }

    /// Where the key is kept: most are the beginning of their record.
    fn keep_key(&mut self, record: Record, number: usize) -> Range<usize> {
        let start = if record.bytes.starts_with(record.key) {
            self.sightings[number].record.start
        } else {
            self.bytes.extend_from_slice(record.key);
            self.bytes.len() - record.key.len()
        };
        start..start + record.key.len()
    }

    /// Adds a record that no other one will be counted to.
    pub(crate) fn add_alone(&mut self, record: Record) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(record.bytes);
        self.sightings.push(Sighting {
            count: 1,
            record: start..self.bytes.len(),
            key: 0..0,
            is_terminated: record.is_terminated,
        });
    }

    /// Counts another sighting of `key`. In fingerprint mode a key that was
    /// never begun can get here, once in a great while: it counts nowhere.
    pub(crate) fn increase(&mut self, key: &[u8]) {
        let Self { sightings, bytes, latest, hasher } = self;
        let is_key = |number: &usize| &bytes[sightings[*number].key.clone()] == key;
        if let Some(&number) = latest.find(hasher.hash_one(key), is_key) {
            sightings[number].count += 1;
        }
    }

    /// Writes all sightings, each behind its count as `uniq -c` does.
    pub(crate) fn write(&self, output: &mut Output) -> Result<(), Failure> {
        for Sighting { count, record, is_terminated, .. } in &self.sightings {
            let prefix = format!("{count:>7} ");
            let record = &self.bytes[record.clone()];
            output.write_prefixed(prefix.as_bytes(), record, *is_terminated)?;
        }
        Ok(())
    }
}
