//! Keys about which the confirmer is being asked: one asks, the others wait.

use crate::hash::KeyHash;
use ahash::RandomState;
use crossbeam_utils::CachePadded;
use event_listener::{Event, EventListener};
use parking_lot::Mutex;
use std::collections::HashSet;

/// Threads that ask about different keys rarely meet.
const STRIPES: usize = 256;

/// The keys that are pending. A key is known by its hash alone: two that share
/// one wait for each other.
#[derive(Debug)]
pub(super) struct Pending {
    stripes: Box<[CachePadded<Stripe>]>,
}

#[derive(Debug, Default)]
struct Stripe {
    keys: Mutex<HashSet<KeyHash, RandomState>>,
    settled: Event,
}

/// What became of a wish to ask about a key.
pub(super) enum Claim<T> {
    /// Nobody needs to.
    Settled,
    /// The caller is to ask.
    Granted(T),
    /// Somebody else does.
    Busy,
}

impl Pending {
    pub(super) fn new() -> Self {
        Self { stripes: (0..STRIPES).map(|_| CachePadded::default()).collect() }
    }

    /// Makes a key the caller's to ask about if `is_needed` still says so and
    /// nobody else does.
    pub(super) fn claim<T>(
        &self,
        hash: KeyHash,
        is_needed: impl FnOnce() -> Option<T>,
    ) -> Claim<T> {
        let mut keys = self.stripe(hash).keys.lock();
        if keys.contains(&hash) {
            return Claim::Busy;
        }
        // Under the lock: whoever asked before has remembered the outcome
        // before he let go of the key.
        let Some(need) = is_needed() else { return Claim::Settled };
        keys.insert(hash);
        Claim::Granted(need)
    }

    /// Lets go of a key.
    pub(super) fn release(&self, hash: KeyHash) {
        let stripe = self.stripe(hash);
        stripe.keys.lock().remove(&hash);
        stripe.settled.notify(usize::MAX);
    }

    /// What to wait for until a key may no longer be pending; `None` if it is not.
    pub(super) fn listen(&self, hash: KeyHash) -> Option<EventListener> {
        let stripe = self.stripe(hash);
        // Listening comes first, or the news might come between.
        let listener = stripe.settled.listen();
        stripe.keys.lock().contains(&hash).then_some(listener)
    }

    fn stripe(&self, hash: KeyHash) -> &Stripe {
        &self.stripes[hash.high() as usize % STRIPES]
    }
}
