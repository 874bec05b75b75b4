//! What a key is called in the files: its place in their order, and in their index.

use sha2::{Digest as _, Sha256};

/// Longer keys go by a digest. An index holds the names of the last keys of blocks, and a
/// key that fills a block alone is the last one: whole, they would all lie in memory.
const LONGEST: usize = 32;

/// A name, and what of the key it does not say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'key> {
    key: &'key [u8],
    /// One byte longer than any key that goes by itself, so that no key has another's name.
    digest: [u8; LONGEST + 1],
}

impl<'key> Name<'key> {
    pub(super) fn of(key: &'key [u8]) -> Self {
        let mut digest = [0; LONGEST + 1];
        if key.len() > LONGEST {
            digest[..LONGEST].copy_from_slice(&Sha256::digest(key));
        }
        Self { key, digest }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        if self.key.len() > LONGEST { &self.digest } else { self.key }
    }

    /// The whole key, if the name is a digest: it is kept besides, and compared, so that no
    /// chance makes a new key a known one.
    pub(super) const fn rest(&self) -> &'key [u8] {
        if self.key.len() > LONGEST { self.key } else { &[] }
    }

    /// Another long key's, if chance would have it.
    #[cfg(test)]
    pub(super) const fn shared_with<'other>(&self, key: &'other [u8]) -> Name<'other> {
        Name { key, digest: self.digest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_no_two_keys_share_one() {
        let long = [b'k'; 5_000];
        let keys = [&long[..0], &long[..32], &long[..33], &long[..34], &long];
        let names: Vec<_> = keys.iter().map(|key| Name::of(key)).collect();
        let digest_as_key = names[2].as_bytes();
        assert_ne!(Name::of(digest_as_key).as_bytes(), digest_as_key);
        for (index, name) in names.iter().enumerate() {
            assert!(name.as_bytes().len() <= LONGEST + 1);
            assert!(names[..index].iter().all(|other| other.as_bytes() != name.as_bytes()));
            let said = if name.rest().is_empty() { name.as_bytes() } else { name.rest() };
            assert_eq!(said, keys[index]);
        }
    }
}
