//! The time-limited right to process a key.

use super::Identity;
use super::builder::Failures;
use super::error::LeaseError;
use super::gate::Inner;
use crate::confirm::claims::{AsyncClaimStore, ClaimStore, Digest, Fence, Grant, Outcome};
use crate::confirm::{Inline, Token, at_once};
use crate::time::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// The right to process a key until it is settled, or taken over after the deadline.
///
/// [`complete`](Self::complete) it with what came of the work, or
/// [`fail`](Self::fail) it. Dropped, also by a panic, it frees the key for a retry: at once over a
/// blocking store, and over an asynchronous one in a task of the tokio runtime in
/// which it is dropped; outside of one, the key is free after the deadline. After
/// a call that failed, dropping it frees nothing: the outcome may be stored.
pub struct Lease<S> {
    gate: Arc<Inner<S>>,
    id: Identity,
    digest: Digest,
    token: Token,
    grant: Grant,
    is_confirmed: bool,
    deadline: Timestamp,
    state: LeaseState,
    hold: Hold<S>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseState {
    Held,
    Settled,
    /// It may have been settled: nobody heard.
    InDoubt,
}

/// How a lease that is dropped frees its key.
pub(super) struct Hold<S> {
    abandon: fn(&Arc<Inner<S>>, &Identity, Token),
}

impl<S: ClaimStore> Hold<S> {
    pub(super) const fn blocking() -> Self {
        Self {
            abandon: |gate, id, token| {
                let _ = at_once(gate.free(Inline(gate.store()), (id.as_bytes(), token)));
            },
        }
    }
}

impl<S: AsyncClaimStore + 'static> Hold<S> {
    pub(super) const fn asynchronous() -> Self {
        Self {
            abandon: |gate, id, token| {
                let Ok(runtime) = Handle::try_current() else { return };
                let (gate, id) = (Arc::clone(gate), id.clone());
                runtime.spawn(async move { gate.free(gate.store(), (id.as_bytes(), token)).await });
            },
        }
    }
}

impl<S> Lease<S> {
    pub(super) fn new(
        gate: Arc<Inner<S>>,
        (id, digest, token): (Identity, Digest, Token),
        (grant, is_confirmed): (Grant, bool),
        deadline: Timestamp,
        hold: Hold<S>,
    ) -> Self {
        let state = LeaseState::Held;
        Self { gate, id, digest, token, grant, is_confirmed, deadline, state, hold }
    }

    /// What was claimed.
    pub const fn identity(&self) -> &Identity {
        &self.id
    }

    /// Larger than that of every holder before: for whoever the work writes to, to
    /// refuse those that come late.
    pub const fn fence(&self) -> Fence {
        self.grant.fence
    }

    /// The how manieth it is to try, from 1, since the key was last free for long or
    /// finished.
    pub const fn attempt(&self) -> u32 {
        self.grant.attempt
    }

    /// True iff the holder before was never heard of again: how much of the work it did
    /// nobody knows.
    pub const fn is_takeover(&self) -> bool {
        self.grant.is_takeover
    }

    /// False iff the store could not be asked, and the outage policy let the key
    /// through.
    pub const fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    /// How long it lasts, at least; nothing once another may have taken over.
    pub fn remaining(&self) -> Duration {
        self.deadline.since(self.gate.now())
    }

    /// Notes what came of settling it.
    fn settled(&mut self, result: Result<(), LeaseError>) -> Result<(), LeaseError> {
        self.state = match result {
            Ok(()) | Err(LeaseError::Stale) => LeaseState::Settled,
            Err(LeaseError::Store(_)) => LeaseState::InDoubt,
        };
        result
    }

    /// Notes what came of extending it, asked for at `asked`.
    fn extended(
        &mut self,
        asked: Timestamp,
        result: Result<(), LeaseError>,
    ) -> Result<(), LeaseError> {
        match result {
            Ok(()) => self.deadline = asked.saturating_add(self.gate.terms().lease),
            Err(LeaseError::Stale) => self.state = LeaseState::Settled,
            Err(LeaseError::Store(_)) => {}
        }
        result
    }

    fn key(&self) -> (&[u8], Token) {
        (self.id.as_bytes(), self.token)
    }

    fn keeps_failures(&self) -> bool {
        self.gate.failures() == Failures::Remember
    }
}

/// For blocking stores.
impl<S: ClaimStore> Lease<S> {
    /// Keeps what came of the work, for all who ask again, and ends the lease.
    ///
    /// # Errors
    ///
    /// [`LeaseError::Stale`] if another has taken over: do not act on what this run came
    /// to. [`LeaseError::Store`] if the store failed: call again, or it stays claimed until
    /// the deadline.
    pub fn complete(&mut self, outcome: Outcome) -> Result<(), LeaseError> {
        let completed = at_once(self.gate.complete(
            Inline(self.gate.store()),
            self.key(),
            self.digest,
            outcome,
        ));
        self.settled(completed)
    }

    /// Ends the lease after a failure: the key is free, or the failure is kept, as the gate
    /// was told ([`Failures`]).
    ///
    /// # Errors
    ///
    /// As [`complete`](Self::complete).
    pub fn fail(&mut self, failure: Outcome) -> Result<(), LeaseError> {
        if self.keeps_failures() { self.complete(failure) } else { self.free() }
    }

    /// Ends the lease and frees the key for a retry.
    ///
    /// # Errors
    ///
    /// As [`complete`](Self::complete).
    pub fn free(&mut self) -> Result<(), LeaseError> {
        let freed = at_once(self.gate.free(Inline(self.gate.store()), self.key()));
        self.settled(freed)
    }

    /// Begins the lease anew, for work that takes longer.
    ///
    /// # Errors
    ///
    /// As [`complete`](Self::complete); where the store failed the lease is as it was.
    pub fn extend(&mut self) -> Result<(), LeaseError> {
        let asked = self.gate.now();
        let extended = at_once(self.gate.extend(Inline(self.gate.store()), self.key()));
        self.extended(asked, extended)
    }
}

/// For asynchronous stores. A future that is dropped is like a store that failed.
impl<S: AsyncClaimStore + 'static> Lease<S> {
    /// `complete` for asynchronous stores.
    ///
    /// # Errors
    ///
    /// Those of `complete` for blocking ones.
    pub async fn complete_async(&mut self, outcome: Outcome) -> Result<(), LeaseError> {
        self.state = LeaseState::InDoubt;
        let completed =
            self.gate.complete(self.gate.store(), self.key(), self.digest, outcome).await;
        self.settled(completed)
    }

    /// `fail` for asynchronous stores.
    ///
    /// # Errors
    ///
    /// Those of `complete` for blocking ones.
    pub async fn fail_async(&mut self, failure: Outcome) -> Result<(), LeaseError> {
        if self.keeps_failures() {
            self.complete_async(failure).await
        } else {
            self.free_async().await
        }
    }

    /// `free` for asynchronous stores.
    ///
    /// # Errors
    ///
    /// Those of `complete` for blocking ones.
    pub async fn free_async(&mut self) -> Result<(), LeaseError> {
        self.state = LeaseState::InDoubt;
        let freed = self.gate.free(self.gate.store(), self.key()).await;
        self.settled(freed)
    }

    /// `extend` for asynchronous stores.
    ///
    /// # Errors
    ///
    /// Those of `extend` for blocking ones.
    pub async fn extend_async(&mut self) -> Result<(), LeaseError> {
        let asked = self.gate.now();
        let extended = self.gate.extend(self.gate.store(), self.key()).await;
        self.extended(asked, extended)
    }
}

impl<S> Drop for Lease<S> {
    fn drop(&mut self) {
        if self.state == LeaseState::Held {
            (self.hold.abandon)(&self.gate, &self.id, self.token);
        }
    }
}

impl<S> fmt::Debug for Lease<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("identity", &self.id)
            .field("grant", &self.grant)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
