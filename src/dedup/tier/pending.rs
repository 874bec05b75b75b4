//! Keys about which the confirmer is being asked: one asks, the others wait. And
//! keys that are on their way to it.

use crate::hash::KeyHash;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::time::Bucket;
use ahash::RandomState;
use crossbeam_utils::CachePadded;
use event_listener::{Event, EventListener};
use std::collections::HashMap;
use std::sync::Arc;

/// Threads that ask about different keys rarely meet. A model checker meets all.
const STRIPES: usize = if cfg!(loom) { 1 } else { 256 };

/// The keys that are pending. A key that is asked about is known by its hash alone:
/// two that share one wait for each other. What is on its way is known by its bytes,
/// or a new key would be called a duplicate for its hash.
#[derive(Debug)]
pub(super) struct Pending {
    stripes: Box<[CachePadded<Stripe>]>,
}

#[derive(Debug, Default)]
struct Stripe {
    keys: Mutex<HashMap<KeyHash, Standing, RandomState>>,
    settled: Event,
}

/// Why a key is here.
#[derive(Debug, Default)]
struct Standing {
    /// Somebody asks about it.
    is_asked: bool,
    /// How often it is in the queue to the store, ...
    in_queue: u32,
    /// ... the latest bucket in which it is there, ...
    latest: Option<Bucket>,
    /// ... and its bytes. Of keys that share a hash one at a time is queued.
    key: Option<Arc<[u8]>>,
    /// What is queued for it bears this.
    mark: Option<Mark>,
}

impl Standing {
    /// The bucket in which a key is on its way to the store, if it is.
    fn queued(&self, key: &[u8]) -> Option<Bucket> {
        self.latest.filter(|_| self.in_queue > 0 && self.is_of(key))
    }

    fn is_of(&self, key: &[u8]) -> bool {
        self.key.as_deref() == Some(key)
    }
}

/// From when on a key counted on its way to the store before it was queued once more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before(Option<Bucket>);

/// Whether what is queued for a key has been disowned: shared by all that was
/// queued since the last time.
#[derive(Clone, Debug, Default)]
pub(super) struct Mark(Arc<AtomicBool>);

impl Mark {
    // Relaxed: set and counted with under the stripe's lock. Who looks without it
    // saves a write that has become needless, no more.
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True iff what bears it need not be written.
    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What became of a wish to ask about a key.
pub(super) enum Attempt<T> {
    /// Nobody needs to.
    Settled,
    /// The caller is to ask.
    Held(T),
    /// Somebody else does.
    Busy,
}

impl Pending {
    pub(super) fn new() -> Self {
        Self { stripes: (0..STRIPES).map(|_| CachePadded::default()).collect() }
    }

    /// Makes a key the caller's to ask about if `need` still says so, told in
    /// which bucket it is on its way to the store, and nobody else does.
    pub(super) fn hold<T>(
        &self,
        hash: KeyHash,
        key: &[u8],
        need: impl FnOnce(Option<Bucket>) -> Option<T>,
    ) -> Attempt<T> {
        let mut keys = self.stripe(hash).keys.lock();
        let standing = keys.get(&hash);
        if standing.is_some_and(|standing| standing.is_asked) {
            return Attempt::Busy;
        }
        // Under the lock: whoever asked before has remembered the outcome
        // before he let go of the key.
        let queued = standing.and_then(|standing| standing.queued(key));
        let Some(need) = need(queued) else { return Attempt::Settled };
        keys.entry(hash).or_default().is_asked = true;
        Attempt::Held(need)
    }

    /// Lets go of a key.
    pub(super) fn release(&self, hash: KeyHash) {
        self.change(hash, |standing| standing.is_asked = false);
        self.stripe(hash).settled.notify(usize::MAX);
    }

    /// A key that is held will be on its way to the store, where it counts from
    /// `bucket` on, and what it is to bear there. `None`, and it must not, while another
    /// key of its hash is.
    pub(super) fn queue(
        &self,
        hash: KeyHash,
        key: &Arc<[u8]>,
        bucket: Bucket,
    ) -> Option<(Before, Mark)> {
        self.change(hash, |standing| {
            if standing.in_queue > 0 && !standing.is_of(key) {
                return None;
            }
            let before = standing.queued(key);
            standing.latest = before.max(Some(bucket));
            standing.key = Some(Arc::clone(key));
            standing.in_queue += 1;
            Some((Before(before), standing.mark.get_or_insert_default().clone()))
        })
    }

    /// It has not been sent after all.
    pub(super) fn unqueue(&self, hash: KeyHash, before: Before) {
        self.change(hash, |standing| {
            standing.latest = before.0;
            standing.in_queue = standing.in_queue.saturating_sub(1);
        });
    }

    /// The bucket in which a key is on its way to the store, if it is.
    pub(super) fn on_its_way(&self, hash: KeyHash, key: &[u8]) -> Option<Bucket> {
        self.stripe(hash).keys.lock().get(&hash)?.queued(key)
    }

    /// A key that was on its way has arrived.
    pub(super) fn arrived(&self, hash: KeyHash, mark: &Mark) {
        self.change(hash, |standing| {
            // What was disowned meanwhile is no longer among those counted.
            let arrived = u32::from(!mark.is_set());
            standing.in_queue = standing.in_queue.saturating_sub(arrived);
        });
    }

    /// A key may be on its way: it is not to count for that, nor to arrive if
    /// that can be helped.
    pub(super) fn disown(&self, hash: KeyHash, key: &[u8]) {
        self.change(hash, |standing| {
            if !standing.is_of(key) {
                return;
            }
            standing.in_queue = 0;
            if let Some(mark) = standing.mark.take() {
                mark.set();
            }
        });
    }

    fn change<T>(&self, hash: KeyHash, change: impl FnOnce(&mut Standing) -> T) -> T {
        let mut keys = self.stripe(hash).keys.lock();
        let standing = keys.entry(hash).or_default();
        let changed = change(standing);
        if !standing.is_asked && standing.in_queue == 0 {
            keys.remove(&hash);
        }
        changed
    }

    /// What to wait for until a key may no longer be pending; `None` if it is not.
    pub(super) fn listen(&self, hash: KeyHash) -> Option<EventListener> {
        let stripe = self.stripe(hash);
        // Listening comes first, or the news might come between.
        let listener = stripe.settled.listen();
        let is_asked = stripe.keys.lock().get(&hash).is_some_and(|standing| standing.is_asked);
        is_asked.then_some(listener)
    }

    fn stripe(&self, hash: KeyHash) -> &Stripe {
        &self.stripes[hash.high() as usize % STRIPES]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// What is on its way has been heard of: another key's failure must not stop it.
    #[test]
    fn a_key_is_not_disowned_with_another_of_its_hash() {
        let (pending, hash, bucket) = (Pending::new(), KeyHash::new(7), Bucket::new(1));
        let (_, mark) = pending.queue(hash, &Arc::from(*b"queued"), bucket).unwrap();
        pending.disown(hash, b"other");
        assert!(!mark.is_set());
        assert_eq!(pending.on_its_way(hash, b"queued"), Some(bucket));
        pending.disown(hash, b"queued");
        assert!(mark.is_set());
        assert_eq!(pending.on_its_way(hash, b"queued"), None);
    }
}
