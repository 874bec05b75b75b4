//! Lets the checks, which are plain threads, ask an asynchronous store.

#[cfg(feature = "claims")]
use crate::confirm::claims::{self, AsyncClaimStore, ClaimRequest, ClaimStore, SettleRequest};
use crate::confirm::{
    Answer, AsyncConfirmer, Bucket, Confirmer, Record, Rule, Sighting, StoreError,
};
use std::future::Future;

/// Whoever runs futures to their end, as tokio's `Handle` does.
pub trait BlockOn: Send + Sync {
    /// Runs `future` to its end; called from many threads at once.
    fn block_on<F: Future>(&self, future: F) -> F::Output;
}

/// An asynchronous confirmer, or claim store, with the face of a blocking one.
///
/// For tests. Called from a task it would block the thread that is to run the
/// task.
#[derive(Debug)]
pub struct Blocking<S, R> {
    /// What is asked.
    pub store: S,
    /// What runs its futures.
    pub runtime: R,
}

impl<S: AsyncConfirmer, R: BlockOn> Confirmer for Blocking<S, R> {
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Vec<Answer>, StoreError> {
        self.runtime.block_on(self.store.confirm(sightings, rule))
    }

    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.runtime.block_on(self.store.look(keys))
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.runtime.block_on(self.store.forget(keys))
    }

    fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        self.runtime.block_on(self.store.expire(before))
    }
}

#[cfg(feature = "claims")]
impl<S: AsyncClaimStore, R: BlockOn> ClaimStore for Blocking<S, R> {
    fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<claims::Answer, StoreError> {
        self.runtime.block_on(self.store.claim(id, request))
    }

    fn settle(
        &self,
        id: &[u8],
        request: &SettleRequest<'_>,
    ) -> Result<claims::Settled, StoreError> {
        self.runtime.block_on(self.store.settle(id, request))
    }

    fn look(&self, id: &[u8]) -> Result<Option<claims::Status>, StoreError> {
        self.runtime.block_on(self.store.look(id))
    }

    fn sweep(&self) -> Result<bool, StoreError> {
        self.runtime.block_on(self.store.sweep())
    }
}
