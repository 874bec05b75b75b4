//! How a key is written: as words of four bytes.
//!
//! ```text
//! under 255 bytes:  [ length: 8 | the first three bytes ] [ the next four ] ...
//! longer:           [ 255: 8 | length: 24 ] [ length: 32 ] [ the first four ] ...
//! ```
//!
//! If the key ends within a word, the last one holds its last four bytes, some
//! of them once more; keys of under four bytes are one word with zeros. The
//! length comes first, so no key begins with what another one is.

use std::sync::atomic::{AtomicU32, Ordering};

/// The first length that does not fit beside a key's first three bytes.
const LONG: usize = 0xFF;

/// A key as words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spelling<'a> {
    head: u32,
    /// The rest of a long key's length.
    length: Option<u32>,
    body: &'a [[u8; 4]],
    tail: Option<u32>,
}

impl<'a> Spelling<'a> {
    #[inline]
    pub(super) fn of(key: &'a [u8]) -> Self {
        let length = key.len() as u64;
        let Some((first, _)) = key.split_first_chunk().filter(|_| key.len() < LONG) else {
            return Self::of_unusual(key);
        };
        let head = u32::from_le_bytes(*first) << 8 | length as u32;
        Self { head, length: None, ..Self::of_rest(&key[3..], key) }
    }

    /// Keys that are very short or long.
    #[cold]
    fn of_unusual(key: &'a [u8]) -> Self {
        if key.len() >= LONG {
            let length = key.len() as u64;
            let head = (length as u32) << 8 | LONG as u32;
            return Self { head, length: Some((length >> 24) as u32), ..Self::of_rest(key, key) };
        }
        let mut head = [0; 4];
        head[0] = key.len() as u8;
        head[1..=key.len()].copy_from_slice(key);
        Self { head: u32::from_le_bytes(head), ..Self::of_rest(&[], key) }
    }

    /// `rest` of the key, without its head.
    #[inline]
    fn of_rest(rest: &'a [u8], key: &'a [u8]) -> Self {
        let (body, beyond) = rest.as_chunks();
        let last = key.last_chunk().filter(|_| !beyond.is_empty());
        let tail = last.map(|bytes| u32::from_le_bytes(*bytes));
        Self { head: 0, length: None, body, tail }
    }

    /// How many words it takes.
    #[inline]
    pub(super) fn len(&self) -> usize {
        1 + usize::from(self.length.is_some()) + self.body.len() + usize::from(self.tail.is_some())
    }

    #[inline]
    pub(super) fn words(&self) -> impl Iterator<Item = u32> + use<'a> {
        let head = std::iter::once(self.head).chain(self.length);
        head.chain(self.body.iter().map(|bytes| u32::from_le_bytes(*bytes))).chain(self.tail)
    }

    /// Is the key what these words begin with?
    #[inline]
    pub(super) fn begins(&self, words: &[AtomicU32]) -> bool {
        let Some((head, rest)) = words.get(..self.len()).and_then(<[_]>::split_first) else {
            return false;
        };
        let rest = match (self.length, rest) {
            (None, _) => rest,
            (Some(length), [first, rest @ ..]) if load(first) == length => rest,
            _ => return false,
        };
        let mut body = rest.iter().zip(self.body);
        load(head) == self.head
            && body.all(|(word, bytes)| load(word) == u32::from_le_bytes(*bytes))
            && self.tail.is_none_or(|tail| rest.last().is_some_and(|word| load(word) == tail))
    }

    /// Writes the key into these words, as many as it takes.
    #[inline]
    pub(super) fn write(&self, words: &[AtomicU32]) {
        let Some((head, mut rest)) = words.split_first() else { return };
        set(head, self.head);
        if let (Some(length), [first, behind @ ..]) = (self.length, rest) {
            set(first, length);
            rest = behind;
        }
        for (space, bytes) in rest.iter().zip(self.body) {
            set(space, u32::from_le_bytes(*bytes));
        }
        if let (Some(last), Some(tail)) = (rest.last(), self.tail) {
            set(last, tail);
        }
    }
}

/// How many words the key takes that begins with these.
pub(super) fn stored_len(mut words: impl Iterator<Item = u32>) -> usize {
    let head = words.next().unwrap_or(0);
    let short = (head % 256) as usize;
    if short < LONG {
        return 1 + short.saturating_sub(3).div_ceil(4);
    }
    let length = u64::from(words.next().unwrap_or(0)) << 24 | u64::from(head >> 8);
    2 + (length as usize).div_ceil(4)
}

#[inline]
pub(super) fn load(word: &AtomicU32) -> u32 {
    word.load(Ordering::Relaxed)
}

/// To be called by whoever holds the word's block.
#[inline]
pub(super) fn set(word: &AtomicU32, value: u32) {
    word.store(value, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spelled(key: &[u8]) -> Vec<u32> {
        Spelling::of(key).words().collect()
    }

    #[test]
    fn sixteen_bytes_take_five_words() {
        let key: [u8; 16] = std::array::from_fn(|byte| byte as u8);
        let words = [0x0201_0010, 0x0605_0403, 0x0a09_0807, 0x0e0d_0c0b, 0x0f0e_0d0c];
        assert_eq!(spelled(&key), words);
    }

    #[test]
    fn every_length_is_counted_right() {
        for length in (0..600).chain([1 << 16, 1 << 24, (1 << 24) + 3]) {
            let key = vec![0xA5; length];
            let spelling = Spelling::of(&key);
            assert_eq!(spelling.words().count(), spelling.len(), "{length} bytes");
            assert_eq!(stored_len(spelling.words()), spelling.len(), "{length} bytes");
            assert!(spelling.len() <= 2 + length.div_ceil(4));
        }
    }

    proptest! {
        /// No key is spelled as another one, or as one's beginning.
        #[test]
        fn spellings_differ_as_keys_do(
            key in prop::collection::vec(0_u8..2, 0..300),
            other in prop::collection::vec(0_u8..2, 0..300),
            flipped in any::<prop::sample::Index>(),
        ) {
            let is_other = |other: &[u8]| !spelled(other).starts_with(&spelled(&key));
            prop_assert!(key == other || is_other(&other));
            let mut near = key.clone();
            near.push(0);
            prop_assert!(is_other(&near));
            if !key.is_empty() {
                near.pop();
                near[flipped.index(key.len())] ^= 1;
                prop_assert!(is_other(&near));
            }
        }
    }
}
