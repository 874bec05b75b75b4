//! Keys about which the confirmer is being asked: one asks, the others wait.

use crate::confirm::Token;
use crate::hash::KeyHash;
use crate::time::Bucket;
use ahash::RandomState;
use crossbeam_utils::CachePadded;
use event_listener::{Event, EventListener};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};

/// Threads that ask about different keys rarely meet.
const STRIPES: usize = 256;

/// Of how many sightings without a reply each stripe keeps the tokens: 65,536
/// in all, about 4 MB.
const MOST_LOST: usize = 256;

/// The keys that are pending. A key is known by its hash alone: two that share
/// one wait for each other.
#[derive(Debug)]
pub(super) struct Pending {
    stripes: Box<[CachePadded<Stripe>]>,
}

#[derive(Debug, Default)]
struct Stripe {
    keys: Mutex<Keys>,
    settled: Event,
}

#[derive(Debug, Default)]
struct Keys {
    pending: HashSet<KeyHash, RandomState>,
    /// Sightings that may have been recorded though nobody got a verdict.
    lost: HashMap<KeyHash, Lost, RandomState>,
}

/// A sighting whose reply was lost: asked about again, it is no duplicate of
/// itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost {
    pub(super) token: Token,
    pub(super) bucket: Bucket,
}

/// What became of a wish to ask about a key.
pub(super) enum Claim<T> {
    /// Nobody needs to.
    Settled,
    /// The caller is to ask; an earlier sighting of his has had no reply.
    Granted(T, Option<Lost>),
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
        if keys.pending.contains(&hash) {
            return Claim::Busy;
        }
        // Under the lock: whoever asked before has remembered the outcome
        // before he let go of the key.
        let Some(need) = is_needed() else { return Claim::Settled };
        keys.pending.insert(hash);
        Claim::Granted(need, keys.lost.remove(&hash))
    }

    /// Lets go of a key, and keeps what may have been recorded for nothing.
    pub(super) fn release(&self, hash: KeyHash, lost: Option<Lost>) {
        let stripe = self.stripe(hash);
        {
            let mut keys = stripe.keys.lock();
            keys.pending.remove(&hash);
            if let Some(lost) = lost {
                keys.keep(hash, lost);
            }
        }
        stripe.settled.notify(usize::MAX);
    }

    /// Keeps the token of a sighting whose verdict reached nobody.
    pub(super) fn keep(&self, hash: KeyHash, lost: Lost) {
        self.stripe(hash).keys.lock().keep(hash, lost);
    }

    /// What to wait for until a key may no longer be pending; `None` if it is not.
    pub(super) fn listen(&self, hash: KeyHash) -> Option<EventListener> {
        let stripe = self.stripe(hash);
        // Listening comes first, or the news might come between.
        let listener = stripe.settled.listen();
        stripe.keys.lock().pending.contains(&hash).then_some(listener)
    }

    fn stripe(&self, hash: KeyHash) -> &Stripe {
        &self.stripes[hash.high() as usize % STRIPES]
    }
}

impl Keys {
    fn keep(&mut self, hash: KeyHash, lost: Lost) {
        if self.lost.len() >= MOST_LOST
            && let Some(oldest) = self.lost.iter().min_by_key(|(_, lost)| lost.bucket)
        {
            let oldest = *oldest.0;
            self.lost.remove(&oldest);
        }
        self.lost.insert(hash, lost);
    }
}
