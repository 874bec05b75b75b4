//! Blocking confirmers on the way of asynchronous ones: nothing ever waits.

use crate::confirm::{
    Answer, AsyncConfirmer, Bucket, Confirmer, Record, Rule, Sighting, StoreError,
};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// A blocking confirmer whose futures are ready when first polled.
pub(super) struct AtOnce<'confirmer, C>(pub(super) &'confirmer C);

impl<C: Confirmer> AsyncConfirmer for AtOnce<'_, C> {
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

/// What a future comes to that waits for [`AtOnce`] alone.
pub(super) fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("all that it waits for is ready"),
    }
}
