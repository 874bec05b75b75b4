//! A fast confirmer before a slow one: the one is a cache, the other alone knows.
//!
//! It owns what the cache may say and what is written to it. `batch` judges,
//! `flow` asks the two stores in their order, `state` decides whether the cache is
//! asked at all. Invariants:
//!
//! - a record in the cache is, or was, the authority's record of that key, token
//!   included, and the key has not been forgotten since; or it is a barrier;
//! - so where it matches, the authority's matches, too: a key's bucket only ever
//!   rises;
//! - what the cache does not settle the authority does, and nothing is written to
//!   the cache that the authority did not hold before.
//!
//! # A key that is forgotten
//!
//! Whatever the authority said may be under way to the cache, for as long as a
//! process can be paused or a network can dawdle. A key that was merely deleted
//! there would come back with it, and suppress the retry that was to get in. So
//! forgetting first puts a *barrier* in the record's place: one that settles
//! nothing, in a later bucket than any that may still come. A confirmer writes no
//! record over one that matches, so none gets past the barrier while it could match
//! itself. That long the key is the authority's alone.
//!
//! To the cache a barrier is a sighting, by a rule under which records in earlier
//! buckets give way ([`Rule::giving_way`]): it is raised in one step, and never
//! deleted.

mod batch;
mod flow;
mod state;
#[cfg(test)]
mod tests;

use super::inline::at_once;
use super::{
    Answer, AsyncConfirmer, Bucket, Confirmer, Inline, Record, Rule, Sighting, StoreError, Token,
};
use flow::Flow;
use parking_lot::Mutex;
use state::State;
use std::fmt;
use std::time::Duration;

/// Of barriers: they settle nothing, so ask the authority.
///
/// Any number does: a sighting that has it by chance is merely not cached.
const BARRIER: Token = Token::new(0xd3f3_225a_6261_7272);

fn is_barrier(record: Record) -> bool {
    record.token == BARRIER
}

/// A fast confirmer, the *cache*, before a slow one, the *authority*: Redis before
/// PostgreSQL, say.
///
/// The authority alone decides which sightings are new. The cache only ever
/// answers for duplicates. Whether it fails, forgets everything or is killed between
/// two steps, no verdict changes: it is asked by [`look`](Confirmer::look), written
/// after the authority, and refilled as duplicates come by.
///
/// | sighting | asks |
/// |---|---|
/// | a duplicate that the cache knows | the cache |
/// | a new key | the cache, the authority, the cache |
/// | a duplicate that the cache does not know | the cache, the authority twice, the cache |
/// | the first of a key in a later bucket of a sliding window | the cache, the authority, the cache |
///
/// So it pays where duplicates are many, and costs new keys two short calls.
///
/// # What the cache must be
///
/// *Shared by all who share the authority.* Who forgets a key in the authority behind
/// the cache's back leaves it a duplicate there.
///
/// *Bounded in time.* It is given no time limit here: it must have one of its own. A
/// cache that failed is left alone for a while ([`rest`](Self::rest)), then tried by
/// one caller.
///
/// *Without a past.* It may lose everything at any time, but must not come back as
/// it was earlier: a key forgotten in between would be a duplicate again, until its
/// window is over. A Redis used as a cache does best without files (`save ""`,
/// `appendonly no`), and without replicas that take over.
///
/// # Forgetting
///
/// [`forget`](Confirmer::forget) must reach both, and is the one call in which the
/// cache's error is the caller's: the key is then forgotten in the authority, and may
/// be a duplicate to those whom the cache still answers, until the call is repeated
/// and succeeds. It asks the authority, the cache and the authority, and for one
/// window the key's duplicates are the authority's to answer.
///
/// One gap is left: where the cache loses everything between a forget and the arrival
/// of a write that was under way before it, the forgotten key comes back.
///
/// ```
/// use hapax::confirm::{
///     Answer, Bucket, Confirmer, MemoryConfirmer, Rule, Sighting, Tiered, Token,
/// };
/// use hapax::Window;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tiered = Tiered::new(MemoryConfirmer::new(), MemoryConfirmer::new());
/// let rule = Rule::of(&Window::fixed(Duration::from_secs(600)));
/// let now = Bucket::new(23_000);
/// let seen = |token| [Sighting { key: b"order-17", bucket: now, token: Token::new(token) }];
/// assert_eq!(tiered.confirm(&seen(1), rule)?, [Answer::New]);
/// assert_eq!(tiered.confirm(&seen(2), rule)?, [Answer::Seen(now)]);
/// assert_eq!(tiered.stats().short_cut, 1);
/// # Ok(())
/// # }
/// ```
pub struct Tiered<C, A> {
    cache: C,
    authority: A,
    rest: Duration,
    state: Mutex<State>,
}

/// What a [`Tiered`] has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TieredStats {
    /// Sightings that it was asked about.
    pub sightings: u64,
    /// Those among them that the cache alone settled.
    pub short_cut: u64,
    /// Those among them for which the cache failed, or was left alone.
    pub uncached: u64,
    /// Records written to the cache, or found there when they were to be.
    pub filled: u64,
    /// Calls of the cache that failed.
    pub cache_failures: u64,
    /// The cache failed when it was last asked.
    pub is_cache_failing: bool,
}

impl<C, A> Tiered<C, A> {
    /// Puts `cache` before `authority`.
    pub fn new(cache: C, authority: A) -> Self {
        Self { cache, authority, rest: Duration::from_secs(1), state: Mutex::default() }
    }

    /// How long a cache that failed is left alone; one second unless told.
    #[must_use]
    pub const fn rest(mut self, rest: Duration) -> Self {
        self.rest = rest;
        self
    }

    /// The confirmer that short-cuts duplicates.
    pub const fn cache(&self) -> &C {
        &self.cache
    }

    /// The confirmer that decides.
    pub const fn authority(&self) -> &A {
        &self.authority
    }

    /// What it has done so far. Costs a lock.
    pub fn stats(&self) -> TieredStats {
        self.state.lock().stats()
    }

    fn flow<'flow, F, S>(&'flow self, cache: &'flow F, authority: &'flow S) -> Flow<'flow, F, S> {
        Flow { cache, authority, rest: self.rest, state: &self.state }
    }
}

impl<C: Confirmer, A: Confirmer> Confirmer for Tiered<C, A> {
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Vec<Answer>, StoreError> {
        let (cache, authority) = (Inline(&self.cache), Inline(&self.authority));
        at_once(self.flow(&cache, &authority).confirm(sightings, rule))
    }

    /// Asks the authority alone: the cache may not know yet that a key was moved up.
    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.authority.look(keys)
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        let (cache, authority) = (Inline(&self.cache), Inline(&self.authority));
        at_once(self.flow(&cache, &authority).forget(keys))
    }

    fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        let (cache, authority) = (Inline(&self.cache), Inline(&self.authority));
        at_once(self.flow(&cache, &authority).expire(before))
    }
}

impl<C: AsyncConfirmer, A: AsyncConfirmer> AsyncConfirmer for Tiered<C, A> {
    async fn confirm(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Vec<Answer>, StoreError> {
        self.flow(&self.cache, &self.authority).confirm(sightings, rule).await
    }

    /// Asks the authority alone: the cache may not know yet that a key was moved up.
    async fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.authority.look(keys).await
    }

    async fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.flow(&self.cache, &self.authority).forget(keys).await
    }

    async fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        self.flow(&self.cache, &self.authority).expire(before).await
    }
}

impl<C, A> fmt::Debug for Tiered<C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tiered").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
