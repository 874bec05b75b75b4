//! One store that many threads share: their requests share its commits.

use super::Durability;
use super::failure::guarded;
use super::medium::{Medium, Syncing};
use crate::confirm::{StoreError, StoreErrorKind};
use parking_lot::Mutex;
use redb::StorageBackend;
use std::mem;
use std::sync::Arc;

/// Serves requests of many callers in one go.
pub(super) trait Serve {
    /// What a caller wants done, in memory of its own: another thread may do it.
    type Request;
    /// What a caller gets.
    type Reply;

    /// Replies to all requests, in order, when what they change is written.
    ///
    /// # Errors
    ///
    /// What is in memory may not be what is on disk: nothing more can be served.
    fn serve(
        &mut self,
        requests: &[Self::Request],
    ) -> Result<Vec<Result<Self::Reply, StoreError>>, StoreError>;
}

/// A store, and what waits for its next commit.
pub(super) struct Commits<S: Serve> {
    pub(super) waiting: Mutex<Vec<Waiting<S>>>,
    pub(super) serving: Mutex<Serving<S>>,
    syncing: Syncing,
}

/// A request, and where its caller finds the reply.
type Waiting<S> = (<S as Serve>::Request, Arc<Slot<<S as Serve>::Reply>>);

type Slot<R> = Mutex<Option<Result<R, StoreError>>>;

pub(super) struct Serving<S> {
    pub(super) store: S,
    /// Why nothing is served any more.
    failed: Option<StoreError>,
}

impl<S: Serve> Commits<S> {
    /// Opens a store on a storage whose syncs are left out where answers need not outlive
    /// the machine's power.
    pub(super) fn open<B: StorageBackend>(
        storage: B,
        durability: Durability,
        open: impl FnOnce(Medium<B>) -> Result<S, StoreError>,
    ) -> Result<Self, StoreError> {
        let syncing = Syncing::default();
        let medium = Medium::new(storage, syncing.clone());
        let store = guarded(StoreErrorKind::Corrupt, || open(medium))?;
        // Opening is synced in any case: from here on the file says of itself
        // that it is to be checked if nobody closes it.
        syncing.set(durability == Durability::Synced);
        let serving = Mutex::new(Serving { store, failed: None });
        Ok(Self { waiting: Mutex::default(), serving, syncing })
    }

    /// Has `request` done, together with all that waits.
    ///
    /// Whoever gets the store serves all who wait by then; the others find their
    /// replies when they get it.
    pub(super) fn submit(&self, request: S::Request) -> Result<S::Reply, StoreError> {
        let slot = Arc::new(Slot::default());
        self.waiting.lock().push((request, Arc::clone(&slot)));
        let mut serving = self.serving.lock();
        if let Some(reply) = slot.lock().take() {
            return reply;
        }
        let (requests, slots): (Vec<_>, Vec<_>) =
            mem::take(&mut *self.waiting.lock()).into_iter().unzip();
        for (waiting, reply) in slots.iter().zip(serving.serve(&requests)) {
            *waiting.lock() = Some(reply);
        }
        slot.lock()
            .take()
            .unwrap_or_else(|| Err(StoreError::new(StoreErrorKind::Broken, "the request was lost")))
    }

    /// Works on the store alone.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&mut S) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut serving = self.serving.lock();
        match &serving.failed {
            Some(failed) => Err(failed.clone()),
            None => work(&mut serving.store),
        }
    }
}

impl<S: Serve> Serving<S> {
    fn serve(&mut self, requests: &[S::Request]) -> Vec<Result<S::Reply, StoreError>> {
        let served = match &self.failed {
            Some(failed) => Err(failed.clone()),
            None => guarded(StoreErrorKind::Broken, || self.store.serve(requests)),
        };
        served.unwrap_or_else(|error| {
            self.failed.get_or_insert_with(|| error.clone());
            requests.iter().map(|_| Err(error.clone())).collect()
        })
    }
}

impl<S: Serve> Drop for Commits<S> {
    fn drop(&mut self) {
        // Closing marks the file as whole, which must not be written before the rest.
        self.syncing.set(true);
    }
}
