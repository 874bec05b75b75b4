//! The slow path's contract: a *confirmer* knows for certain whether a key has
//! been seen, because it keeps whole keys, outside of this process's memory or
//! beyond its life.
//!
//! It owns what a store must hold for a key and how it answers ([`Rule`]), how
//! a store fails ([`StoreError`]), and the stores themselves. It leaves out when
//! a store is asked, and what happens to a check while it is or cannot be.
//!
//! # What a store holds
//!
//! For each key a [`Record`]: the bucket in which the key counts as seen, and
//! the token of the sighting that was [`New`](Answer::New). The *bucket*
//! decides whether the key still matches, never the store's clock: stores that
//! let records expire do so to free room. The *token* makes a lost reply
//! harmless: who asks again with the same token hears `New` again, and is not
//! taken for a duplicate of himself.
//!
//! # A confirmer of one's own
//!
//! [`Rule::decide`] is the whole decision, so a confirmer has only to read,
//! decide and write in one step that no other caller can come between. Over a
//! table `(k VARBINARY PRIMARY KEY, bucket BIGINT, token BIGINT UNSIGNED)`, that is a
//! transaction, which for each sighting
//!
//! - reads with `SELECT .. FOR UPDATE`, and decides;
//! - writes, where it is decided to, by `UPDATE` if there was a record, else by a plain
//!   `INSERT`, never an upsert: a row that is absent cannot be locked, so two callers may
//!   both find none, and an upsert would let both be `New`;
//! - after a duplicate key, a deadlock or a serialization failure is rolled back, and
//!   begins again with its first sighting. Batches that go through their sightings in the
//!   order of keys, and those of one key as they came, meet fewer deadlocks.
//!
//! Over a map behind a mutex:
//!
//! ```
//! use hapax::confirm::{Answer, Confirmer, Record, Rule, Sighting, StoreError};
//! use std::collections::HashMap;
//! use std::sync::Mutex;
//!
//! struct MapConfirmer(Mutex<HashMap<Vec<u8>, Record>>);
//!
//! impl Confirmer for MapConfirmer {
//!     fn confirm(
//!         &self,
//!         sightings: &[Sighting<'_>],
//!         rule: Rule,
//!     ) -> Result<Vec<Answer>, StoreError> {
//!         let mut records = self.0.lock().unwrap();
//!         let mut confirm_one = |sighting: &Sighting<'_>| {
//!             let decision = rule.decide(records.get(sighting.key).copied(), sighting);
//!             if let Some(record) = decision.write {
//!                 records.insert(sighting.key.to_vec(), record);
//!             }
//!             decision.answer
//!         };
//!         Ok(sightings.iter().map(&mut confirm_one).collect())
//!     }
//!
//!     fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
//!         let records = self.0.lock().unwrap();
//!         Ok(keys.iter().map(|key| records.get(*key).copied()).collect())
//!     }
//!
//!     fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
//!         let mut records = self.0.lock().unwrap();
//!         for key in keys {
//!             records.remove(*key);
//!         }
//!         Ok(())
//!     }
//! }
//! ```
//!
//! `conformance`, behind the feature of that name, holds any confirmer
//! to this contract.

#[cfg(feature = "claims")]
pub mod claims;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "embedded")]
mod embedded;
mod error;
mod inline;
mod memory;
mod outage;
mod ownership;
mod panics;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
mod rule;
mod tiered;

#[cfg(feature = "redis")]
pub use self::redis::{RedisBuilder, RedisConfirmer, RedisStats};
#[cfg(feature = "embedded")]
pub use embedded::{Durability, EmbeddedBuilder, EmbeddedConfirmer};
pub use error::{StoreError, StoreErrorKind};
pub use inline::Inline;
pub(crate) use inline::at_once;
pub use memory::MemoryConfirmer;
pub use outage::{Admit, Breaker, Fallback, Health, Outage, OutageStats, Reject};
pub use ownership::{NoConfirmer, Ownership};
#[cfg(feature = "postgres")]
pub use postgres::{PostgresBuilder, PostgresConfirmer, PostgresError};
pub use rule::{Answer, Decision, Record, Rule, Sighting, Token};
pub use tiered::{Tiered, TieredStats};

pub(crate) use outage::{AnsweredBy, Confirmed, Course, Guard, write};
#[cfg(feature = "claims")]
pub(crate) use outage::{catching, caught};

pub use crate::time::Bucket;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Every confirmer takes keys up to this length, in bytes; longer ones it may
/// refuse.
pub const MAX_KEY_BYTES: usize = 1 << 16;

/// Whoever knows for certain whether keys have been seen.
///
/// A confirmer stands for one namespace of one store; which one is a setting of
/// its own. Keys of different namespaces never meet.
///
/// Methods are called from many threads at once and may block. After an error
/// the caller asks again only if [`StoreError::is_retryable`] says so, and with
/// the same tokens.
pub trait Confirmer: Send + Sync {
    /// Answers each sighting, in order, as if they were made one by one: a key
    /// twice in one batch is `New`, then `Seen`.
    ///
    /// Each key is judged and recorded in one step, as [`Rule::decide`] says: of
    /// concurrent sightings of a key that does not match, one alone is `New`. The
    /// batch as a whole need not be one step. There are as many answers as
    /// sightings.
    ///
    /// # Errors
    ///
    /// No sighting has an answer; each may have been recorded nevertheless,
    /// unless [`StoreError::may_have_recorded`] denies it.
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Vec<Answer>, StoreError>;

    /// What is held for each key, in order; `None` where there is nothing. It
    /// records and moves nothing.
    ///
    /// A record that no longer matches may be given or left out: judging it
    /// ([`Rule::matches`]) is the caller's. Whatever was answered before the call is
    /// taken into account. There are as many entries as keys.
    ///
    /// # Errors
    ///
    /// Nothing is known of any key, and nothing has changed.
    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError>;

    /// Forgets keys, so that their next sightings are `New`: processing failed,
    /// and the retry must get in. Unknown keys are no error.
    ///
    /// # Errors
    ///
    /// Each key may or may not have been forgotten.
    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError>;

    /// Frees the room of records in buckets before `before`, none of which
    /// matches any more. It may do so later, in part, or, where records expire
    /// by themselves, not at all: that is the default.
    ///
    /// # Errors
    ///
    /// Records before `before` may or may not be there.
    fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        let _ = before;
        Ok(())
    }
}

/// [`Confirmer`] for callers that must not block: the same contract, method by
/// method.
///
/// Dropping a future is like losing its reply: the keys may have been recorded.
pub trait AsyncConfirmer: Send + Sync {
    /// See [`Confirmer::confirm`].
    fn confirm(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> impl Future<Output = Result<Vec<Answer>, StoreError>> + Send;

    /// See [`Confirmer::look`].
    fn look(
        &self,
        keys: &[&[u8]],
    ) -> impl Future<Output = Result<Vec<Option<Record>>, StoreError>> + Send;

    /// See [`Confirmer::forget`].
    fn forget(&self, keys: &[&[u8]]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// See [`Confirmer::expire`].
    fn expire(&self, before: Bucket) -> impl Future<Output = Result<(), StoreError>> + Send {
        let _ = before;
        std::future::ready(Ok(()))
    }
}

/// A confirmer whose keys one process alone writes, so that what this process
/// remembers of them is the whole truth.
///
/// Only such a store may be written behind a check's back ([`record`]), and only
/// it can give its keys back after a start ([`recover`]). It is a trait apart so
/// that a shared confirmer owes none of this.
///
/// Opening the store makes an *owner*, with a higher [`epoch`] than any before.
/// From then on every call on an earlier owner's confirmer that would write
/// fails, with [`Fenced`], and changes nothing: a process that was paused and
/// believes itself the owner still does no harm. A store may refuse to be
/// opened while its previous owner lives.
///
/// [`record`]: Self::record
/// [`recover`]: Self::recover
/// [`epoch`]: Self::epoch
/// [`Fenced`]: StoreErrorKind::Fenced
pub trait OwnedStore: Confirmer {
    /// Records sightings of keys that the caller knows not to match, without
    /// looking them up. Afterwards a key's bucket is its sighting's or a later one.
    /// Repeating the call changes nothing.
    ///
    /// # Errors
    ///
    /// Each sighting may or may not have been recorded.
    fn record(&self, sightings: &[Sighting<'_>]) -> Result<(), StoreError>;

    /// Visits every key that is recorded, with its bucket, in any order.
    ///
    /// A key may be visited several times: the largest of its buckets counts.
    /// Keys that no longer match may be among them. Keys recorded meanwhile
    /// may be missed.
    ///
    /// # Errors
    ///
    /// Some keys have not been visited.
    fn recover(&self, visit: &mut dyn FnMut(&[u8], Bucket)) -> Result<(), StoreError>;

    /// Binds the store to buckets of `width` (`None`: one bucket for ever), before it is
    /// used: the buckets that it holds mean nothing in a window with others.
    ///
    /// # Errors
    ///
    /// [`Refused`](StoreErrorKind::Refused) if it holds keys in buckets of another
    /// width; they stay as they are.
    fn bind(&self, width: Option<Duration>) -> Result<(), StoreError>;

    /// Which owner this is: higher than all that came before.
    fn epoch(&self) -> u64;
}

/// A confirmer behind a pointer is one.
macro_rules! behind_a_pointer {
    ($($pointer:ty),+) => {$(
        impl<C: Confirmer + ?Sized> Confirmer for $pointer {
            fn confirm(
                &self,
                sightings: &[Sighting<'_>],
                rule: Rule,
            ) -> Result<Vec<Answer>, StoreError> {
                (**self).confirm(sightings, rule)
            }

            fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
                (**self).look(keys)
            }

            fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
                (**self).forget(keys)
            }

            fn expire(&self, before: Bucket) -> Result<(), StoreError> {
                (**self).expire(before)
            }
        }

        impl<C: OwnedStore + ?Sized> OwnedStore for $pointer {
            fn record(&self, sightings: &[Sighting<'_>]) -> Result<(), StoreError> {
                (**self).record(sightings)
            }

            fn recover(&self, visit: &mut dyn FnMut(&[u8], Bucket)) -> Result<(), StoreError> {
                (**self).recover(visit)
            }

            fn bind(&self, width: Option<Duration>) -> Result<(), StoreError> {
                (**self).bind(width)
            }

            fn epoch(&self) -> u64 {
                (**self).epoch()
            }
        }
    )+};
}

behind_a_pointer!(&C, Arc<C>, Box<C>);

/// So is an asynchronous one.
macro_rules! async_behind_a_pointer {
    ($($pointer:ty),+) => {$(
        impl<C: AsyncConfirmer> AsyncConfirmer for $pointer {
            fn confirm(
                &self,
                sightings: &[Sighting<'_>],
                rule: Rule,
            ) -> impl Future<Output = Result<Vec<Answer>, StoreError>> + Send {
                (**self).confirm(sightings, rule)
            }

            fn look(
                &self,
                keys: &[&[u8]],
            ) -> impl Future<Output = Result<Vec<Option<Record>>, StoreError>> + Send {
                (**self).look(keys)
            }

            fn forget(&self, keys: &[&[u8]]) -> impl Future<Output = Result<(), StoreError>> + Send {
                (**self).forget(keys)
            }

            fn expire(&self, before: Bucket) -> impl Future<Output = Result<(), StoreError>> + Send {
                (**self).expire(before)
            }
        }
    )+};
}

async_behind_a_pointer!(&C, Arc<C>);
