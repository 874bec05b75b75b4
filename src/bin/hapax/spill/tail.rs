//! What was recorded last, in memory.

use super::name::Name;
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
    /// For each key the lengths of its name and of what is kept of it, and both.
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

    pub(super) fn get(&self, name: &Name<'_>) -> Option<Value> {
        let is_it = |place: &u32| name_at(&self.bytes, *place) == name.as_bytes();
        let place = *self.places.find(self.hasher.hash_one(name.as_bytes()), is_it)?;
        let (value, rest) = Value::decode(&self.bytes[kept_range(&self.bytes, place)])?;
        (rest == name.rest()).then_some(value)
    }

    pub(super) fn put(&mut self, name: &Name<'_>, value: Value) {
        let Self { bytes, places, hasher, .. } = self;
        let is_it = |place: &u32| name_at(bytes, *place) == name.as_bytes();
        let hash = |place: &u32| hasher.hash_one(name_at(bytes, *place));
        match places.entry(hasher.hash_one(name.as_bytes()), is_it, hash) {
            Entry::Occupied(entry) => {
                let start = kept_range(bytes, *entry.get()).start;
                bytes[start..start + Value::BYTES].copy_from_slice(&value.encode());
            }
            Entry::Vacant(entry) => {
                entry.insert(bytes.len() as u32);
                let kept_len = Value::BYTES + name.rest().len();
                bytes.extend((name.as_bytes().len() as u32).to_le_bytes());
                bytes.extend((kept_len as u32).to_le_bytes());
                bytes.extend(name.as_bytes());
                bytes.extend(value.encode());
                bytes.extend(name.rest());
            }
        }
    }

    /// All names in order, with what is kept by them.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut places: Vec<u32> = self.places.iter().copied().collect();
        places.sort_unstable_by_key(|place| name_at(&self.bytes, *place));
        places
            .into_iter()
            .map(|place| (name_at(&self.bytes, place), &self.bytes[kept_range(&self.bytes, place)]))
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
    }
}

const LENGTH_BYTES: usize = size_of::<u32>();

fn name_range(bytes: &[u8], place: u32) -> Range<usize> {
    let start = place as usize + 2 * LENGTH_BYTES;
    start..start + length_at(bytes, place as usize)
}

fn kept_range(bytes: &[u8], place: u32) -> Range<usize> {
    let start = name_range(bytes, place).end;
    start..start + length_at(bytes, place as usize + LENGTH_BYTES)
}

fn length_at(bytes: &[u8], at: usize) -> usize {
    let mut length = [0; LENGTH_BYTES];
    length.copy_from_slice(&bytes[at..][..LENGTH_BYTES]);
    u32::from_le_bytes(length) as usize
}

fn name_at(bytes: &[u8], place: u32) -> &[u8] {
    &bytes[name_range(bytes, place)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use hapax::confirm::{Bucket, Record, Token};

    fn value(bucket: i64) -> Value {
        Value::Record(Record { bucket: Bucket::new(bucket), token: Token::new(0) })
    }

    #[test]
    fn keys_come_in_order_with_what_was_put_last() {
        let mut tail = Tail::new(1_000);
        let long = [b'z'; 100];
        for (key, bucket) in
            [(&b"b"[..], 1), (b"", 2), (b"a", 3), (&long, 5), (b"b", 4), (&long, 6)]
        {
            tail.put(&Name::of(key), value(bucket));
        }
        let kept = |bucket, rest: &[u8]| [&value(bucket).encode()[..], rest].concat();
        let in_order: Vec<_> =
            tail.in_order().map(|(name, kept)| (name.to_vec(), kept.to_vec())).collect();
        let mut expected = vec![
            (b"".to_vec(), kept(2, b"")),
            (b"a".to_vec(), kept(3, b"")),
            (b"b".to_vec(), kept(4, b"")),
            (Name::of(&long).as_bytes().to_vec(), kept(6, &long)),
        ];
        expected.sort();
        assert_eq!(in_order, expected);
        let get = |tail: &Tail, key: &[u8]| tail.get(&Name::of(key));
        assert_eq!((get(&tail, b"b"), get(&tail, b"c")), (Some(value(4)), None));
        assert_eq!(get(&tail, &long), Some(value(6)));
        assert!(!tail.is_full());
        tail.put(&Name::of(&[0; 1_000]), Value::Forgotten);
        assert!(tail.is_full());
        tail.clear();
        assert_eq!((get(&tail, b"b"), tail.is_full()), (None, false));
    }
    #[test]
    fn a_key_is_not_taken_for_another_of_its_name() {
        let (key, other) = ([b'a'; 100], [b'b'; 100]);
        let mut tail = Tail::new(1_000);
        tail.put(&Name::of(&key), value(1));
        assert_eq!(tail.get(&Name::of(&key).shared_with(&other)), None);
    }
}
