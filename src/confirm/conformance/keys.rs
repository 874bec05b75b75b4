//! Keys that a store might cut, change, or take for one another.

use crate::confirm::MAX_KEY_BYTES;
use std::fmt;

/// Keys about as long as stores take them, up to the longest that they must.
pub(super) fn long() -> Vec<Vec<u8>> {
    let lengths = [255, 256, 767, 768, 3_072, 3_073, 8_191, 32_768, MAX_KEY_BYTES];
    // Lengths of one another's beginnings; then equal in all but the last byte.
    let mut keys: Vec<_> = lengths.map(|length| vec![b'k'; length]).into();
    keys.extend(lengths.map(|length| [vec![b'k'; length - 1], vec![b'l']].concat()));
    keys
}

/// Keys with each byte in them, alone and between zeros.
pub(super) fn binary() -> Vec<Vec<u8>> {
    let mut keys: Vec<_> = (0..=255).map(|byte| vec![byte]).collect();
    keys.extend((0..=255).map(|byte| vec![0, byte, 0]));
    keys.push((0..=255).collect());
    keys
}

/// Keys that differ by letter case, by spaces or zeros at the end, by a separator,
/// as text though not as numbers, as text though not as patterns, or in how a letter
/// is written.
pub(super) const SIMILAR: [&[u8]; 20] = [
    b"order",
    b"Order",
    b"ORDER",
    b"order ",
    b"order  ",
    b" order",
    b"order\0",
    b"order\0\0",
    b"order:1",
    b"order:1:",
    b"order::1",
    b"1",
    b"01",
    b"1.0",
    b"1e0",
    b"order*",
    b"order%",
    b"\xc3\xa9",
    b"e\xcc\x81",
    b"e",
];

/// A key for people.
pub(super) struct Shortened<'key>(pub(super) &'key [u8]);

impl fmt::Debug for Shortened<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = &self.0[..self.0.len().min(32)];
        write!(f, "\"{}\" ({} bytes)", start.escape_ascii(), self.0.len())
    }
}
