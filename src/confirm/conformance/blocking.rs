//! Lets the checks, which are plain threads, ask an asynchronous confirmer.

use crate::confirm::{
    Answer, AsyncConfirmer, Bucket, Confirmer, Record, Rule, Sighting, StoreError,
};
use std::future::Future;

/// Whoever runs futures to their end, as tokio's `Handle` does.
pub trait BlockOn: Send + Sync {
    /// Runs `future` to its end; called from many threads at once.
    fn block_on<F: Future>(&self, future: F) -> F::Output;
}

/// An asynchronous confirmer with the face of a blocking one.
///
/// For tests. Called from a task it would block the thread that is to run the
/// task.
#[derive(Debug)]
pub struct Blocking<C, R> {
    /// The confirmer.
    pub confirmer: C,
    /// What runs its futures.
    pub runtime: R,
}

impl<C: AsyncConfirmer, R: BlockOn> Confirmer for Blocking<C, R> {
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Vec<Answer>, StoreError> {
        self.runtime.block_on(self.confirmer.confirm(sightings, rule))
    }

    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.runtime.block_on(self.confirmer.look(keys))
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.runtime.block_on(self.confirmer.forget(keys))
    }

    fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        self.runtime.block_on(self.confirmer.expire(before))
    }
}
