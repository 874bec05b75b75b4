//! Keys to 128-bit hashes, and composite keys to bytes.
//!
//! The hash is computed once per check; shard, fingerprint and placement are
//! cut from it. Two different keys with equal hashes are one key to the
//! fingerprint mode, so a collision is a *suppressed message*, not a slow
//! bucket: the default hash is keyed with a secret that no sender knows.

use siphasher::sip128::{Hasher128, SipHasher13};
use std::fmt;
use std::hash::Hasher as _;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// The 128-bit hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash(u128);

impl KeyHash {
    /// Wraps a 128-bit hash that a caller computed itself, for
    /// [`Builder::hash_with`](crate::Builder::hash_with).
    pub const fn new(hash: u128) -> Self {
        Self(hash)
    }

    /// The half that chooses the shard.
    pub(crate) const fn high(self) -> u64 {
        (self.0 >> 64) as u64
    }

    /// The half that becomes the fingerprint.
    pub(crate) const fn low(self) -> u64 {
        self.0 as u64
    }
}

/// How one deduper hashes its keys; chosen once, by the builder.
pub(crate) enum KeyHasher {
    /// SipHash-1-3 with 128 bits of output: a keyed pseudo-random function.
    /// Aumasson and Bernstein 2012; 1-3 is the variant of Rust's own maps.
    Keyed(SipHasher13),
    /// XXH3-128: two to three times faster, and not safe against chosen keys,
    /// whatever the seed.
    Trusted(u64),
    /// The caller's own function.
    Custom(CustomHash),
}

/// A caller's hash function.
pub(crate) type CustomHash = Box<dyn Fn(&[u8]) -> KeyHash + Send + Sync>;

impl KeyHasher {
    /// A keyed hasher; all 32 bytes of `secret` matter.
    pub(crate) fn keyed(secret: &[u8; 32]) -> Self {
        Self::Keyed(SipHasher13::new_with_key(&condense(secret).to_le_bytes()))
    }

    /// The trusted-key hasher, seeded from `secret`.
    pub(crate) fn trusted(secret: &[u8; 32]) -> Self {
        Self::Trusted(condense(secret) as u64)
    }

    /// Hashes one key. Never allocates; linear in the key's length.
    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        match self {
            Self::Keyed(sip) => KeyHash(sip.hash(key).as_u128()),
            Self::Trusted(seed) => KeyHash(xxh3_128_with_seed(key, *seed)),
            Self::Custom(hash) => hash(key),
        }
    }
}

impl fmt::Debug for KeyHasher {
    /// Names the hash and never its secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keyed(_) => "SipHash-1-3-128",
            Self::Trusted(_) => "XXH3-128",
            Self::Custom(_) => "custom",
        })
    }
}

/// Sixteen key bytes that depend on all 32 secret ones.
fn condense(secret: &[u8; 32]) -> u128 {
    let (key, rest) = secret.split_at(16);
    let mut sip = SipHasher13::new_with_key(key.try_into().expect("half of 32 bytes is 16"));
    sip.write(rest);
    sip.finish128().as_u128()
}

/// Encodes several parts into one key without ambiguity: ("ab", "cd") never
/// equals ("a", "bcd"), and a composite of one part differs from a composite
/// of two, whatever bytes they hold.
///
/// Each part is preceded by its length in LEB128, so the encoding can be read
/// back part by part: no two lists of parts share an encoding. Allocates one
/// vector; linear in the parts' length.
///
/// ```
/// let key = hapax::composite(&["tenant-7", "orders", "17"]);
/// assert_ne!(key, hapax::composite(&["tenant-7", "order", "s17"]));
/// ```
#[must_use]
pub fn composite<P: AsRef<[u8]>>(parts: &[P]) -> Vec<u8> {
    let mut key = Vec::with_capacity(parts.iter().map(|part| part.as_ref().len() + 2).sum());
    for part in parts {
        let part = part.as_ref();
        push_length(&mut key, part.len());
        key.extend_from_slice(part);
    }
    key
}

/// Appends `length` as unsigned LEB128: seven bits a byte, lowest first.
fn push_length(key: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        key.push(length as u8 | 0x80);
        length >>= 7;
    }
    key.push(length as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_secret_byte_changes_both_hashes() {
        let secret = [7; 32];
        for byte in 0..32 {
            let mut other = secret;
            other[byte] ^= 1;
            assert_ne!(KeyHasher::keyed(&secret).hash(b"k"), KeyHasher::keyed(&other).hash(b"k"));
            assert_ne!(
                KeyHasher::trusted(&secret).hash(b"k"),
                KeyHasher::trusted(&other).hash(b"k")
            );
        }
    }

    #[test]
    fn debug_hides_the_secret() {
        assert_eq!(format!("{:?}", KeyHasher::keyed(&[9; 32])), "SipHash-1-3-128");
    }

    proptest! {
        #[test]
        fn composites_are_injective(
            a in prop::collection::vec(prop::collection::vec(0_u8..3, 0..4), 0..4),
            b in prop::collection::vec(prop::collection::vec(0_u8..3, 0..4), 0..4),
        ) {
            prop_assert_eq!(a == b, composite(&a) == composite(&b));
        }

        #[test]
        fn long_parts_stay_apart(a in 120_usize..140, b in 120_usize..140) {
            let whole = vec![b'x'; a + b];
            let split = composite(&[&whole[..a], &whole[a..]]);
            let other = composite(&[&whole[..b], &whole[b..]]);
            prop_assert_eq!(a == b, split == other);
        }
    }
}
