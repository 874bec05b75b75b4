//! The checks themselves: what keeps the contract passes, and each way to break
//! it fails the check that is named for it.

use super::{ClaimHarness, check_claims};
use crate::confirm::StoreError;
use crate::confirm::claims::{
    Answer, AsyncClaimStore, ClaimRequest, ClaimStore, MemoryClaims, SettleRequest, Settled, Status,
};
use crate::confirm::conformance::tests::{Polling, yield_once};
use crate::confirm::conformance::{Blocking, Outcome, Report};
use crate::time::{Clock, ManualClock, SystemClock, Timestamp};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

fn manual_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_secs(1_790_000_000)))
}

/// Stores in memory, without means to make trouble.
struct InMemory<C> {
    clock: Arc<C>,
    stores: Mutex<HashMap<String, Arc<MemoryClaims>>>,
}

impl<C: Clock + 'static> InMemory<C> {
    fn with(clock: Arc<C>) -> Self {
        Self { clock, stores: Mutex::default() }
    }

    fn store(&self, namespace: &str) -> Arc<MemoryClaims> {
        let new = || Arc::new(MemoryClaims::with_clock(Arc::clone(&self.clock) as Arc<dyn Clock>));
        Arc::clone(self.stores.lock().entry(namespace.to_owned()).or_insert_with(new))
    }
}

impl ClaimHarness for InMemory<ManualClock> {
    type Store = Arc<MemoryClaims>;

    fn open(&self, namespace: &str) -> Result<Arc<MemoryClaims>, StoreError> {
        Ok(self.store(namespace))
    }

    fn clock(&self) -> Option<&ManualClock> {
        Some(&self.clock)
    }
}

fn not_run(report: &Report) -> Vec<&'static str> {
    let not_run = report.outcomes().filter(|(_, outcome)| **outcome == Outcome::NotRun);
    not_run.map(|(name, _)| name).collect()
}

#[test]
fn claims_in_memory_keep_the_contract() {
    let report = check_claims(&InMemory::with(manual_clock()));
    report.assert();
    assert_eq!(not_run(&report), ["restart_keeps_all", "lost_reply", "cut_off"]);
}

/// Claims in memory that yield once before they answer.
struct Yielding(Arc<MemoryClaims>);

impl AsyncClaimStore for Yielding {
    async fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        yield_once().await;
        self.0.claim(id, request)
    }

    async fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        yield_once().await;
        self.0.settle(id, request)
    }

    async fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        yield_once().await;
        self.0.look(id)
    }

    async fn sweep(&self) -> Result<bool, StoreError> {
        yield_once().await;
        self.0.sweep()
    }
}

/// On the system's clock, as a server is.
impl ClaimHarness for InMemory<SystemClock> {
    type Store = Blocking<Yielding, Polling>;

    fn open(&self, namespace: &str) -> Result<Self::Store, StoreError> {
        Ok(Blocking { store: Yielding(self.store(namespace)), runtime: Polling })
    }
}

#[test]
fn an_asynchronous_store_in_real_time_is_checked_through_blocking() {
    check_claims(&InMemory::with(Arc::new(SystemClock::new()))).assert();
}
