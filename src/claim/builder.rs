//! Setting up a gate.

use super::error::GateError;
use super::finished::Finished;
use super::gate::Gate;
use crate::confirm::claims::Terms;
use crate::time::{Clock, SystemClock};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What becomes of failures that a holder reports
/// ([`Lease::fail`](super::Lease::fail)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failures {
    /// The key is free for a retry.
    #[default]
    Free,
    /// They are kept like successes, and replayed: for work that must not be tried
    /// twice, however it ended.
    Remember,
}

/// Sets up a [`Gate`].
#[derive(Clone)]
#[must_use = "nothing is built until `build`"]
pub struct GateBuilder<S> {
    store: S,
    terms: Terms,
    failures: Failures,
    max_outcome_bytes: usize,
    remembered_bytes: usize,
    clock: Option<Arc<dyn Clock>>,
}

impl<S> GateBuilder<S> {
    pub(super) const fn new(store: S) -> Self {
        let terms = Terms { lease: Duration::from_secs(300), keep: Duration::from_secs(86_400) };
        Self {
            store,
            terms,
            failures: Failures::Free,
            max_outcome_bytes: 1 << 20,
            remembered_bytes: 32 << 20,
            clock: None,
        }
    }

    /// After so long without a word of the holder another may take over; five minutes
    /// unless told. Longer than the work ever takes, or
    /// [`extend`](super::Lease::extend) it.
    pub const fn lease(mut self, lease: Duration) -> Self {
        self.terms.lease = lease;
        self
    }

    /// How long outcomes are kept; a day unless told. Longer than anybody retries.
    pub const fn keep(mut self, keep: Duration) -> Self {
        self.terms.keep = keep;
        self
    }

    /// What becomes of failures; [`Failures::Free`] unless told.
    pub const fn failures(mut self, failures: Failures) -> Self {
        self.failures = failures;
        self
    }

    /// The largest answer that is kept, in bytes; 1 MiB unless told. In place of a
    /// larger one a tombstone is, which still stops a second run.
    pub const fn max_outcome(mut self, bytes: usize) -> Self {
        self.max_outcome_bytes = bytes;
        self
    }

    /// How much of finished keys to remember in this process, so that retries are
    /// answered without the store, also while it cannot be reached; 32 MiB unless told,
    /// nothing with 0. Worth nothing in front of
    /// [`MemoryClaims`](crate::confirm::claims::MemoryClaims).
    ///
    /// A finished key that an operator clears in another process stays finished here
    /// for as long as it is remembered.
    pub const fn remember(mut self, bytes: usize) -> Self {
        self.remembered_bytes = bytes;
        self
    }

    /// By which to know how long finished keys are remembered, and leases last; the
    /// system's unless told. Stores have clocks of their own.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// [`GateError`] if the lease or the time for which outcomes are kept is too
    /// short.
    pub fn build(self) -> Result<Gate<S>, GateError> {
        let Terms { lease, keep } = self.terms;
        if lease < Duration::from_millis(1) {
            return Err(GateError::LeaseTooShort(lease));
        }
        if keep < lease {
            return Err(GateError::KeepTooShort { lease, keep });
        }
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let finished = Finished::new(self.remembered_bytes, keep, Arc::clone(&clock));
        let Self { store, terms, failures, max_outcome_bytes, .. } = self;
        Ok(Gate::new(store, terms, failures, max_outcome_bytes, finished, clock))
    }
}

impl<S> fmt::Debug for GateBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GateBuilder")
            .field("terms", &self.terms)
            .field("failures", &self.failures)
            .field("max_outcome_bytes", &self.max_outcome_bytes)
            .field("remembered_bytes", &self.remembered_bytes)
            .finish_non_exhaustive()
    }
}
