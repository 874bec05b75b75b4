//! The circuit to a store, as all calls share it.

use super::breaker::{Breaker, Circuit, Permit};
use super::failure::is_failure;
use super::stats::Health;
use crate::confirm::StoreError;
use crate::time::Clock;
#[cfg(feature = "claims")]
use crate::time::Timestamp;
use parking_lot::Mutex;
use std::sync::Arc;

/// A circuit behind a lock that is never held during a call of the store or of the
/// clock.
pub(super) struct Switch {
    wired: Mutex<Wired>,
    clock: Arc<dyn Clock>,
}

struct Wired {
    circuit: Circuit,
    failures: u64,
}

impl Switch {
    pub(super) fn new(breaker: Breaker, clock: Arc<dyn Clock>) -> Self {
        let wired = Wired { circuit: Circuit::new(breaker), failures: 0 };
        Self { wired: Mutex::new(wired), clock }
    }

    /// The breaker's time.
    #[cfg(feature = "claims")]
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The right to ask the store, or why it is left alone.
    pub(super) fn ask(&self) -> Result<Asking<'_>, StoreError> {
        let now = self.clock.now();
        let permit = self.wired.lock().circuit.permit(now)?;
        Ok(Asking { switch: self, permit: Some(permit) })
    }

    /// The right to ask the store, unless it is being left alone: no probe.
    pub(super) fn ask_if_closed(&self) -> Option<Asking<'_>> {
        let permit = self.wired.lock().circuit.permit_if_closed()?;
        Some(Asking { switch: self, permit: Some(permit) })
    }

    /// How a store is doing that has yet to be told of so many keys.
    pub(super) fn health(&self, owed_keys: usize) -> Health {
        match (self.wired.lock().circuit.open(), owed_keys) {
            (Some((since, cause)), _) => Health::Degraded { since, cause },
            (None, 0) => Health::Serving,
            (None, owed_keys) => Health::Returning { owed_keys },
        }
    }

    pub(super) fn openings(&self) -> u64 {
        self.wired.lock().circuit.openings()
    }

    pub(super) fn failures(&self) -> u64 {
        self.wired.lock().failures
    }
}

/// The right to ask the store once. Dropped without a report, by a caller
/// that went away, it says nothing of the store.
pub(super) struct Asking<'switch> {
    switch: &'switch Switch,
    permit: Option<Permit>,
}

impl Asking<'_> {
    /// What came of asking, where there is `another` to ask or not.
    pub(super) fn report<T>(self, result: &Result<T, StoreError>, another: bool) {
        match result {
            Err(error) if is_failure(error, another) => self.failed(error),
            _ => self.succeeded(),
        }
    }

    fn succeeded(mut self) {
        if let Some(permit) = self.permit.take() {
            self.switch.wired.lock().circuit.succeeded(permit);
        }
    }

    fn failed(mut self, error: &StoreError) {
        let now = self.switch.clock.now();
        if let Some(permit) = self.permit.take() {
            let mut wired = self.switch.wired.lock();
            wired.failures += 1;
            wired.circuit.failed(permit, error, now);
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.switch.wired.lock().circuit.abandoned(permit);
        }
    }
}
