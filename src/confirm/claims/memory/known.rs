//! An identity and what is kept of it, in one allocation.

use super::expiry::Due;
use crate::confirm::claims::Entry;
use parking_lot::{Mutex, MutexGuard};
use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use triomphe::ThinArc;

/// What the map compares: an identity, and its hash first.
pub(super) trait Identified {
    /// Of the identity.
    fn hash(&self) -> u64;

    fn id(&self) -> &[u8];
}

/// An identity to be looked for.
#[derive(Clone, Copy)]
pub(super) struct Sought<'a> {
    pub(super) hash: u64,
    pub(super) id: &'a [u8],
}

/// An identity that the map knows. Clones are the same one.
///
/// The map's slots hold pointers, and hashes, so that growing it reads no entry: slots
/// stay small enough for the caches, and entries of keys that came one after the other
/// lie side by side. With entries in the slots, and identities in allocations of their
/// own, claiming and completing two million keys took half as long again.
#[derive(Clone)]
pub(super) struct Known {
    hash: u64,
    shared: ThinArc<Mutex<Kept>, u8>,
}

/// An entry, and when the map looks whether it has expired.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) entry: Entry,
    pub(super) due: Due,
}

impl Known {
    /// What one takes outside of its slot and beside its identity's own bytes, whose
    /// length and whose count come with it.
    pub(super) const SHARED_BYTES: usize = size_of::<Mutex<Kept>>() + 2 * size_of::<usize>();

    pub(super) fn new(Sought { hash, id }: Sought<'_>, kept: Kept) -> Self {
        Self { hash, shared: ThinArc::from_header_and_slice(Mutex::new(kept), id) }
    }

    /// What is kept, for one caller at a time.
    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.shared.header.header.lock()
    }
}

impl Identified for Known {
    fn hash(&self) -> u64 {
        self.hash
    }

    fn id(&self) -> &[u8] {
        &self.shared.slice
    }
}

impl Identified for Sought<'_> {
    fn hash(&self) -> u64 {
        self.hash
    }

    fn id(&self) -> &[u8] {
        self.id
    }
}

impl<'a> Borrow<dyn Identified + 'a> for Known {
    fn borrow(&self) -> &(dyn Identified + 'a) {
        self
    }
}

impl Hash for dyn Identified + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(Identified::hash(self));
    }
}

impl PartialEq for dyn Identified + '_ {
    fn eq(&self, other: &Self) -> bool {
        Identified::hash(self) == Identified::hash(other) && self.id() == other.id()
    }
}

impl Eq for dyn Identified + '_ {}

impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        let other: &dyn Identified = other;
        other == self as &dyn Identified
    }
}

impl Eq for Known {}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Known(\"{}\")", self.id().escape_ascii())
    }
}

/// Hands on the hash that it is given.
#[derive(Debug, Default)]
pub(super) struct Given(u64);

pub(super) type Hashed = BuildHasherDefault<Given>;

impl Hasher for Given {
    fn write(&mut self, _: &[u8]) {
        unreachable!("an identity brings its hash")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
