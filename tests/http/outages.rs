//! A store that fails.

use crate::api::{Api, LEASE, created, gate, post, status};
use hapax::claim::{ClaimError, LeaseError};
use hapax::confirm::claims::{
    Answer, ClaimRequest, ClaimStore, MemoryClaims, SettleRequest, Settled, Settlement, Status,
};
use hapax::confirm::{Inline, StoreError, StoreErrorKind};
use hapax::http::IdempotencyLayer;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;

/// Claims in memory, of which some steps fail as told.
#[derive(Default)]
struct Failing {
    claims: MemoryClaims,
    claims_fail: Mutex<Option<StoreErrorKind>>,
    settlements_fail: Mutex<Option<StoreErrorKind>>,
    settlements: AtomicU64,
}

impl Failing {
    fn fail_claims(&self, kind: Option<StoreErrorKind>) {
        *self.claims_fail.lock().unwrap() = kind;
    }

    fn fail_settlements(&self, kind: Option<StoreErrorKind>) {
        *self.settlements_fail.lock().unwrap() = kind;
    }
}

fn told(failure: &Mutex<Option<StoreErrorKind>>) -> Result<(), StoreError> {
    let kind = *failure.lock().unwrap();
    kind.map_or(Ok(()), |kind| Err(StoreError::new(kind, "on purpose")))
}

impl ClaimStore for Failing {
    fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        told(&self.claims_fail)?;
        self.claims.claim(id, request)
    }

    fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        if !matches!(request.settlement, Settlement::Extend) {
            self.settlements.fetch_add(1, Ordering::Relaxed);
            told(&self.settlements_fail)?;
        }
        self.claims.settle(id, request)
    }

    fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        self.claims.look(id)
    }
}

fn failing() -> (Arc<Failing>, IdempotencyLayer<Inline<Arc<Failing>>>) {
    let store = Arc::new(Failing::default());
    (Arc::clone(&store), IdempotencyLayer::single_tenant(gate(Inline(store))))
}

#[tokio::test]
async fn nothing_is_done_that_could_not_be_claimed() {
    use StoreErrorKind::{
        Broken, Corrupt, Faulty, Fenced, Full, Refused, Timeout, Unavailable, Uncertain,
    };
    let (store, layer) = failing();
    let api = Api::counting(layer);
    for kind in [Timeout, Unavailable, Uncertain, Fenced, Corrupt, Full, Refused, Broken, Faulty] {
        store.fail_claims(Some(kind));
        let reply = api.send(post("k")).await;
        reply.assert_problem(503, "store-unavailable");
        let comes_back = matches!(kind, Timeout | Unavailable | Uncertain);
        assert_eq!(reply.header("retry-after"), comes_back.then_some("5"), "{kind:?}");
        let error: &ClaimError = reply.extensions.get().unwrap();
        assert!(matches!(error, ClaimError::Store(error) if error.kind() == kind));
    }
    assert_eq!(api.runs(), 0);
    store.fail_claims(None);
    api.send(post("k")).await.assert_fresh(201, "run 1");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_kept_is_given_and_kept_later() {
    let (store, layer) = failing();
    let api = Api::counting(layer);
    store.fail_settlements(Some(StoreErrorKind::Unavailable));
    let first = api.send(post("k")).await;
    first.assert_fresh(201, "run 1");
    assert!(matches!(first.extensions.get(), Some(LeaseError::Store(_))));
    sleep(LEASE / 10).await;
    api.send(post("k")).await.assert_problem(409, "in-flight");
    store.fail_settlements(None);
    sleep(LEASE / 10).await;
    api.send(post("k")).await.assert_replay(201, "run 1");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_cannot_be_freed_is_freed_later() {
    let (store, layer) = failing();
    let api = Api::new(layer, |run, _| async move {
        if run == 1 { status(500, "no") } else { created("yes") }
    });
    store.fail_settlements(Some(StoreErrorKind::Unavailable));
    api.send(post("k")).await.assert_fresh(500, "no");
    api.send(post("k")).await.assert_problem(409, "in-flight");
    store.fail_settlements(None);
    sleep(LEASE / 10).await;
    api.send(post("k")).await.assert_fresh(201, "yes");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_stays_away_is_asked_until_the_lease_ends() {
    for (kind, most) in [(StoreErrorKind::Unavailable, 50), (StoreErrorKind::Broken, 1)] {
        let (store, layer) = failing();
        let api = Api::counting(layer);
        store.fail_settlements(Some(kind));
        api.send(post("k")).await.assert_fresh(201, "run 1");
        sleep(LEASE + Duration::from_secs(1)).await;
        let asked = store.settlements.load(Ordering::Relaxed);
        assert!((most / 2..=most).contains(&asked), "{asked}");
        sleep(LEASE).await;
        assert_eq!(store.settlements.load(Ordering::Relaxed), asked);
    }
}
