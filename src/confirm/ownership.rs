//! Who else writes to a store.

use super::{OwnedStore, StoreError, StoreErrorKind};
use std::fmt;
use std::time::Duration;

/// Who else writes to a confirmer's store, and so what this process may
/// conclude from what it remembers itself.
///
/// It is given where the confirmer is:
/// [`Builder::confirm`](crate::Builder::confirm).
pub struct Ownership<C> {
    owned: Option<fn(&C) -> &dyn OwnedStore>,
}

#[expect(non_upper_case_globals, reason = "they stand for the variants of an enum")]
impl<C> Ownership<C> {
    /// Other processes write to it, too: a key is new only when the store says
    /// so. Memory spares the store the duplicates of keys that were new here.
    ///
    /// Keys that were new elsewhere are asked about each time: were they
    /// remembered, and then forgotten by whoever failed to process them, this
    /// process would go on to suppress their retries.
    ///
    /// In event time no process can tell which records the others still need, because
    /// their watermarks may be behind its own by any length. So `maintain` expires
    /// nothing in the store then, nor in a [`Fallback`](super::Fallback): whoever knows the
    /// least watermark of all calls [`expire`](super::Confirmer::expire) on the confirmer
    /// now and then, with the bucket
    /// `floor(watermark in µs / Window::bucket_width in µs) - buckets`. A watermark is the
    /// largest time seen less the lateness. Stores that let records expire by
    /// themselves, as Redis does after its `retention`, need none of this.
    pub const Shared: Self = Self { owned: None };
}

#[expect(non_upper_case_globals, reason = "they stand for the variants of an enum")]
impl<C: OwnedStore> Ownership<C> {
    /// This process alone: what it remembers is the whole truth, and a key that
    /// it does not know is new without the store being asked.
    pub const Exclusive: Self = Self { owned: Some(|confirmer| confirmer) };
}

impl<C> Ownership<C> {
    /// The store, if this process is its owner.
    pub(crate) fn owned(self, confirmer: &C) -> Option<&dyn OwnedStore> {
        self.owned.map(|as_owned| as_owned(confirmer))
    }

    pub(crate) const fn is_exclusive(self) -> bool {
        self.owned.is_some()
    }
}

impl<C> Clone for Ownership<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Ownership<C> {}

impl<C> fmt::Debug for Ownership<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_exclusive() { "Exclusive" } else { "Shared" })
    }
}

/// Why a store cannot be used with a window whose buckets are not those that it holds.
pub(super) fn other_width(held: Option<Duration>, asked: Option<Duration>) -> StoreError {
    let words = |width: Option<Duration>| {
        width.map_or_else(|| "one for ever".to_owned(), |width| format!("{width:?} wide"))
    };
    let cause = format!(
        "its keys are in buckets {}, and the window's are {}: use the same span and number of \
         buckets, or another store",
        words(held),
        words(asked)
    );
    StoreError::new(StoreErrorKind::Refused, cause)
}

/// Stands for no confirmer: memory is all that a deduper has.
#[derive(Clone, Copy, Debug)]
pub enum NoConfirmer {}
