//! The contract of stores that keep *claims*: who may process a key, until when,
//! and what came of it.
//!
//! It owns what a store holds for an identity ([`Entry`]), how it decides
//! ([`Entry::claim`], [`Entry::settle`]), and the stores themselves. It leaves out
//! how an identity is named, who waits for whom, and what happens while a store
//! cannot answer. Invariants, of every store:
//!
//! - an entry is read, judged and written in one step, which no other comes
//!   between: of concurrent claims one alone is granted;
//! - times are the store's own. All who share a store share its clock, so that
//!   theirs may differ;
//! - a request repeated with its token changes nothing more: a lost reply is
//!   asked for again, and does no harm;
//! - fences of one key only rise, for as long as the store's clock does not go back
//!   by more than a lease.
//!
//! # A store of one's own
//!
//! The whole decision is in [`Entry`], so a store has only to read, decide and
//! write. Over a map behind a mutex:
//!
//! ```
//! use hapax::confirm::StoreError;
//! use hapax::confirm::claims::{
//!     Answer, ClaimRequest, ClaimStore, Entry, Settled, SettleRequest, Status,
//! };
//! use hapax::{Clock, SystemClock};
//! use std::collections::HashMap;
//! use std::sync::Mutex;
//!
//! #[derive(Default)]
//! struct MapClaims(Mutex<HashMap<Vec<u8>, Entry>>, SystemClock);
//!
//! impl ClaimStore for MapClaims {
//!     fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
//!         let mut entries = self.0.lock().unwrap();
//!         let decision = Entry::claim(entries.get(id), request, self.1.now());
//!         if let Some(entry) = decision.write {
//!             entries.insert(id.to_vec(), entry);
//!         }
//!         Ok(decision.answer)
//!     }
//!
//!     fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
//!         let mut entries = self.0.lock().unwrap();
//!         let decision = Entry::settle(entries.get(id), request, self.1.now());
//!         if let Some(entry) = decision.write {
//!             entries.insert(id.to_vec(), entry);
//!         }
//!         Ok(decision.answer)
//!     }
//!
//!     fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
//!         let entries = self.0.lock().unwrap();
//!         Ok(Entry::status(entries.get(id), self.1.now()))
//!     }
//! }
//! ```

mod digest;
mod entry;
mod memory;
mod outcome;

#[cfg(feature = "embedded")]
pub use super::embedded::{EmbeddedClaims, EmbeddedClaimsBuilder};
pub use super::outage::Guarded;
pub use digest::Digest;
pub use entry::{
    Answer, ClaimRequest, Decision, Entry, Fence, Grant, SettleRequest, Settled, Settlement, State,
    Status, Terms,
};
pub use memory::MemoryClaims;
pub use outcome::{Ending, Outcome};

#[cfg(feature = "postgres")]
pub use super::postgres::PostgresClaims;
#[cfg(feature = "redis")]
pub use super::redis::RedisClaims;

use super::{Inline, StoreError};
use std::future::Future;
use std::sync::Arc;

/// Keeps claims.
///
/// A store stands for one namespace, a setting of its own; claims of different
/// namespaces never meet. Identities are any bytes, up to
/// [`MAX_KEY_BYTES`](super::MAX_KEY_BYTES) of them.
///
/// Methods are called from many threads at once and may block. After an error
/// the caller asks again only if [`StoreError::is_retryable`] says so, and with
/// the same token.
pub trait ClaimStore: Send + Sync {
    /// Claims an identity, as [`Entry::claim`] decides.
    ///
    /// # Errors
    ///
    /// The claim may have been granted nevertheless, unless
    /// [`StoreError::may_have_recorded`] denies it.
    fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError>;

    /// Says how a claim ended, or goes on, as [`Entry::settle`] decides. What it
    /// answers lasts: an outcome is kept before the claim is free.
    ///
    /// # Errors
    ///
    /// It may have been settled nevertheless, unless
    /// [`StoreError::may_have_recorded`] denies it.
    fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError>;

    /// What is known of an identity; `None`: it is free, whether it was ever
    /// claimed or not. It changes nothing.
    ///
    /// # Errors
    ///
    /// Nothing is known.
    fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError>;

    /// Frees the room of some entries that have expired, so many that a caller
    /// who does nothing else waits for some milliseconds at most. True iff there are
    /// more. Stores whose entries expire by themselves do nothing: that is the
    /// default.
    ///
    /// # Errors
    ///
    /// Expired entries may or may not be there.
    fn sweep(&self) -> Result<bool, StoreError> {
        Ok(false)
    }
}

/// [`ClaimStore`] for callers that must not block: the same contract, method by
/// method.
///
/// Dropping a future is like losing its reply.
pub trait AsyncClaimStore: Send + Sync {
    /// See [`ClaimStore::claim`].
    fn claim(
        &self,
        id: &[u8],
        request: &ClaimRequest,
    ) -> impl Future<Output = Result<Answer, StoreError>> + Send;

    /// See [`ClaimStore::settle`].
    fn settle(
        &self,
        id: &[u8],
        request: &SettleRequest<'_>,
    ) -> impl Future<Output = Result<Settled, StoreError>> + Send;

    /// See [`ClaimStore::look`].
    fn look(&self, id: &[u8]) -> impl Future<Output = Result<Option<Status>, StoreError>> + Send;

    /// See [`ClaimStore::sweep`].
    fn sweep(&self) -> impl Future<Output = Result<bool, StoreError>> + Send {
        std::future::ready(Ok(false))
    }
}

/// A blocking store among asynchronous ones; see [`Inline`] for which ones.
impl<S: ClaimStore> AsyncClaimStore for Inline<S> {
    async fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        self.0.claim(id, request)
    }

    async fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        self.0.settle(id, request)
    }

    async fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        self.0.look(id)
    }

    async fn sweep(&self) -> Result<bool, StoreError> {
        self.0.sweep()
    }
}

/// A store behind a pointer is one.
macro_rules! behind_a_pointer {
    ($($pointer:ty),+) => {$(
        impl<S: ClaimStore + ?Sized> ClaimStore for $pointer {
            fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
                (**self).claim(id, request)
            }

            fn settle(
                &self,
                id: &[u8],
                request: &SettleRequest<'_>,
            ) -> Result<Settled, StoreError> {
                (**self).settle(id, request)
            }

            fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
                (**self).look(id)
            }

            fn sweep(&self) -> Result<bool, StoreError> {
                (**self).sweep()
            }
        }
    )+};
}

behind_a_pointer!(&S, Arc<S>, Box<S>);

/// So is an asynchronous one.
macro_rules! async_behind_a_pointer {
    ($($pointer:ty),+) => {$(
        impl<S: AsyncClaimStore> AsyncClaimStore for $pointer {
            fn claim(
                &self,
                id: &[u8],
                request: &ClaimRequest,
            ) -> impl Future<Output = Result<Answer, StoreError>> + Send {
                (**self).claim(id, request)
            }

            fn settle(
                &self,
                id: &[u8],
                request: &SettleRequest<'_>,
            ) -> impl Future<Output = Result<Settled, StoreError>> + Send {
                (**self).settle(id, request)
            }

            fn look(
                &self,
                id: &[u8],
            ) -> impl Future<Output = Result<Option<Status>, StoreError>> + Send {
                (**self).look(id)
            }

            fn sweep(&self) -> impl Future<Output = Result<bool, StoreError>> + Send {
                (**self).sweep()
            }
        }
    )+};
}

async_behind_a_pointer!(&S, Arc<S>);
