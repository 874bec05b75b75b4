//! Keys as the table holds them.

use super::failure::refused;
use crate::confirm::StoreError;
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// Keys up to this length, in bytes, are stored as they are. An index entry may
/// take a third of a page, 2,704 bytes.
const LONGEST: usize = 1_024;

const DIGEST_BYTES: usize = 32;

/// What the keys of one call may take in all, in bytes. The server's messages end at
/// 1 GiB, and it holds the keys several times.
const MOST_BYTES: usize = 1 << 28;

/// The keys of one call as the table holds them.
pub(super) fn all_stored<'key>(
    keys: impl Iterator<Item = &'key [u8]>,
) -> Result<Vec<Cow<'key, [u8]>>, StoreError> {
    let all: Vec<_> = keys.map(stored).collect();
    let bytes: usize = all.iter().map(|key| key.len()).sum();
    if bytes > MOST_BYTES {
        return Err(refused(format!(
            "{bytes} bytes of keys in one call: split it, {MOST_BYTES} at most"
        )));
    }
    Ok(all)
}

/// A key as the table holds it: itself, or, if it is too long for an index, its
/// beginning and its SHA-256.
///
/// The latter is one byte longer than any key of the first kind, so neither is
/// taken for the other.
pub(super) fn stored(key: &[u8]) -> Cow<'_, [u8]> {
    if key.len() <= LONGEST {
        return Cow::Borrowed(key);
    }
    let beginning = &key[..LONGEST + 1 - DIGEST_BYTES];
    Cow::Owned([beginning, Sha256::digest(key).as_slice()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confirm::StoreErrorKind;

    #[test]
    fn keys_that_an_index_takes_are_stored_as_they_are() {
        for length in [0, 1, LONGEST] {
            let key = vec![b'k'; length];
            assert_eq!(stored(&key), key);
        }
    }

    #[test]
    fn longer_ones_stay_apart() {
        let long = vec![b'k'; LONGEST + 1];
        let longer = vec![b'k'; LONGEST + 2];
        let other = [vec![b'k'; LONGEST], vec![b'l']].concat();
        let kept: Vec<_> = [&long, &longer, &other].map(|key| stored(key)).into();
        assert!(kept.iter().all(|key| key.len() == LONGEST + 1));
        assert!(kept[0] != kept[1] && kept[0] != kept[2] && kept[1] != kept[2]);
        assert_ne!(kept[0], long);
    }

    #[test]
    fn a_call_that_the_server_could_not_take_is_refused() {
        let key = [0; LONGEST];
        let keys = |count| all_stored(std::iter::repeat_n(key.as_slice(), count));
        assert!(keys(MOST_BYTES / LONGEST).is_ok());
        let error = keys(MOST_BYTES / LONGEST + 1).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Refused);
    }
}
