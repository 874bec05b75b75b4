//! What was recorded last, in memory.

use super::value::Value;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;

/// About what a key takes beside its bytes and its value: its place in the table,
/// which is half full after it has grown, and in the order.
const PLACE_BYTES: usize = 16;

/// Its places have 32 bits.
const MOST_BYTES: usize = 1 << 30;

/// Keys with their values, end to end in one stretch of memory.
#[derive(Debug)]
pub(super) struct Tail {
    /// For each key its length, its value and itself.
    bytes: Vec<u8>,
    /// Where keys begin.
    places: HashTable<u32>,
    hasher: RandomState,
    most_bytes: usize,
}

impl Tail {
    /// For about so many bytes of memory.
    pub(super) fn new(bytes: usize) -> Self {
        let most_bytes = bytes.min(MOST_BYTES);
        Self {
            // Not touched before it is used: no memory yet.
            bytes: Vec::with_capacity(most_bytes),
            places: HashTable::new(),
            hasher: RandomState::new(),
            most_bytes,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() + PLACE_BYTES * self.places.len() >= self.most_bytes
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Value> {
        let is_it = |place: &u32| key_at(&self.bytes, *place) == key;
        let place = *self.places.find(self.hasher.hash_one(key), is_it)?;
        Value::decode(&self.bytes[value_range(place)])
    }

    pub(super) fn put(&mut self, key: &[u8], value: Value) {
        let Self { bytes, places, hasher, .. } = self;
        let is_it = |place: &u32| key_at(bytes, *place) == key;
        let hash = |place: &u32| hasher.hash_one(key_at(bytes, *place));
        match places.entry(hasher.hash_one(key), is_it, hash) {
            Entry::Occupied(entry) => {
                let range = value_range(*entry.get());
                bytes[range].copy_from_slice(&value.encode());
            }
            Entry::Vacant(entry) => {
                entry.insert(bytes.len() as u32);
                bytes.extend((key.len() as u32).to_le_bytes());
                bytes.extend(value.encode());
                bytes.extend(key);
            }
        }
    }

    /// All keys in order, with their values.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (&[u8], Value)> {
        let mut places: Vec<u32> = self.places.iter().copied().collect();
        places.sort_unstable_by_key(|place| key_at(&self.bytes, *place));
        places.into_iter().filter_map(|place| {
            let value = Value::decode(&self.bytes[value_range(place)])?;
            Some((key_at(&self.bytes, place), value))
        })
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
    }
}

const LENGTH_BYTES: usize = size_of::<u32>();

const fn value_range(place: u32) -> Range<usize> {
    let start = place as usize + LENGTH_BYTES;
    start..start + Value::BYTES
}

fn key_at(bytes: &[u8], place: u32) -> &[u8] {
    let mut length = [0; LENGTH_BYTES];
    length.copy_from_slice(&bytes[place as usize..][..LENGTH_BYTES]);
    &bytes[value_range(place).end..][..u32::from_le_bytes(length) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use hapax::confirm::{Bucket, Record, Token};

    #[test]
    fn keys_come_in_order_with_what_was_put_last() {
        let value =
            |bucket| Value::Record(Record { bucket: Bucket::new(bucket), token: Token::new(0) });
        let mut tail = Tail::new(1_000);
        for (key, bucket) in [("b", 1), ("", 2), ("a", 3), ("b", 4)] {
            tail.put(key.as_bytes(), value(bucket));
        }
        let in_order: Vec<_> = tail.in_order().collect();
        assert_eq!(in_order, [(&b""[..], value(2)), (b"a", value(3)), (b"b", value(4))]);
        assert_eq!((tail.get(b"b"), tail.get(b"c")), (Some(value(4)), None));
        assert!(!tail.is_full());
        tail.put(&[0; 1_000], Value::Forgotten);
        assert!(tail.is_full());
        tail.clear();
        assert_eq!((tail.get(b"b"), tail.is_full()), (None, false));
    }
}
