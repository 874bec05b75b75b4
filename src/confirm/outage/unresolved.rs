//! Sightings that nobody knows the outcome of.

use crate::confirm::{Bucket, Rule, Sighting, Token};
use std::collections::HashMap;
use std::mem;

/// What half of them may take, in bytes.
const HALF_BYTES: usize = 4 << 20;

/// What an entry takes beside its key.
const ENTRY_BYTES: usize = 64;

/// The tokens of sightings whose request was lost on its way, or whose reply was: a
/// store may have recorded them, and their callers heard of an error.
///
/// The next sighting of such a key is asked about with the lost one's token.
/// Where a store recorded that, the answer is `New`, as it must be, since nobody
/// has processed the key; with a token of its own it would be called a duplicate
/// of a sighting that came to nothing.
///
/// Kept in two halves: when the younger is full, the older is given up.
#[derive(Debug, Default)]
pub(super) struct Unresolved {
    young: Half,
    old: Half,
    given_up: u64,
}

#[derive(Debug, Default)]
struct Half {
    lost: HashMap<Box<[u8]>, Lost>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Lost {
    bucket: Bucket,
    token: Token,
}

impl Unresolved {
    pub(super) fn keys(&self) -> usize {
        self.young.lost.len() + self.old.lost.len()
    }

    /// How many were given up for want of room.
    pub(super) const fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Takes out the token with which to ask about a sighting, unless what was
    /// lost no longer matches.
    pub(super) fn recall(&mut self, sighting: &Sighting<'_>, rule: Rule) -> Option<Token> {
        let lost = self.take(sighting.key)?;
        rule.matches(lost.bucket, sighting.bucket).then_some(lost.token)
    }

    /// The outcome of a sighting was lost.
    pub(super) fn remember(&mut self, sighting: &Sighting<'_>) {
        if self.young.bytes > HALF_BYTES {
            self.given_up += self.old.lost.len() as u64;
            self.old = mem::take(&mut self.young);
        }
        self.young.remember(sighting);
    }

    /// These keys are forgotten: any token will do for them.
    pub(super) fn forget(&mut self, keys: &[&[u8]]) {
        for key in keys {
            self.take(key);
        }
    }

    /// Drops what no longer matches.
    pub(super) fn expire(&mut self, before: Bucket) {
        self.young.expire(before);
        self.old.expire(before);
    }

    fn take(&mut self, key: &[u8]) -> Option<Lost> {
        if self.keys() == 0 {
            return None;
        }
        self.young.take(key).or_else(|| self.old.take(key))
    }
}

impl Half {
    /// Of two sightings of a key in one batch the first one's outcome counts.
    fn remember(&mut self, sighting: &Sighting<'_>) {
        if self.lost.contains_key(sighting.key) {
            return;
        }
        let lost = Lost { bucket: sighting.bucket, token: sighting.token };
        self.lost.insert(sighting.key.into(), lost);
        self.bytes += sighting.key.len() + ENTRY_BYTES;
    }

    fn take(&mut self, key: &[u8]) -> Option<Lost> {
        let lost = self.lost.remove(key)?;
        self.bytes -= key.len() + ENTRY_BYTES;
        Some(lost)
    }

    fn expire(&mut self, before: Bucket) {
        let bytes = &mut self.bytes;
        self.lost.retain(|key, lost| {
            let is_kept = lost.bucket >= before;
            if !is_kept {
                *bytes -= key.len() + ENTRY_BYTES;
            }
            is_kept
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Window;
    use std::time::Duration;

    const KEY_BYTES: usize = 1 << 16;

    fn sighting(key: &[u8], token: u64) -> Sighting<'_> {
        Sighting { key, bucket: Bucket::new(5), token: Token::new(token) }
    }

    #[test]
    fn the_oldest_are_given_up_when_there_are_too_many() {
        let rule = Rule::of(&Window::fixed(Duration::from_secs(8)));
        let keys: Vec<_> = (0..200_u8).map(|number| vec![number; KEY_BYTES]).collect();
        let mut unresolved = Unresolved::default();
        for (key, token) in keys.iter().zip(0..) {
            unresolved.remember(&sighting(key, token));
            assert!(unresolved.keys() * KEY_BYTES <= 2 * (HALF_BYTES + 2 * KEY_BYTES));
        }
        let kept = unresolved.keys();
        assert!(kept * KEY_BYTES > HALF_BYTES);
        assert_eq!(unresolved.given_up() as usize + kept, keys.len());
        for (key, token) in keys.iter().zip(0_u64..).skip(keys.len() - kept) {
            let recalled = unresolved.recall(&sighting(key, 1_000), rule);
            assert_eq!(recalled, Some(Token::new(token)));
        }
        assert_eq!((unresolved.keys(), unresolved.young.bytes, unresolved.old.bytes), (0, 0, 0));
    }

    #[test]
    fn what_no_longer_matches_is_dropped() {
        let mut unresolved = Unresolved::default();
        unresolved.remember(&sighting(b"a", 1));
        unresolved.expire(Bucket::new(5));
        assert_eq!(unresolved.keys(), 1);
        unresolved.expire(Bucket::new(6));
        assert_eq!((unresolved.keys(), unresolved.young.bytes), (0, 0));
    }
}
