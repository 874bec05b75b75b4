//! A blocking confirmer among asynchronous ones.

use super::{Answer, AsyncConfirmer, Bucket, Confirmer, Record, Rule, Sighting, StoreError};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// A blocking confirmer with the face of an asynchronous one: an embedded store,
/// say, as the [`Fallback`](super::Fallback) of one on the network.
///
/// Each call runs to its end in one poll, so it holds up the task's thread, and
/// whatever else the runtime would have run there, for as long as the
/// confirmer takes: well below a millisecond for an embedded store at
/// `Durability::Os`, some milliseconds where it waits for a disk. Confirmers that
/// wait for a network do not belong here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inline<C>(pub C);

impl<C: Confirmer> AsyncConfirmer for Inline<C> {
    async fn confirm(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Vec<Answer>, StoreError> {
        self.0.confirm(sightings, rule)
    }

    async fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.0.look(keys)
    }

    async fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.0.forget(keys)
    }

    async fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        self.0.expire(before)
    }
}

/// What a future comes to that waits for [`Inline`] confirmers alone.
pub(crate) fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => unreachable!("blocking confirmers answer before they return"),
    }
}
