//! Gates and leases: who gets in, who waits, and what a failing store does to them.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use hapax::claim::{
    Claim, ClaimError, Failures, Gate, GateError, Identity, Lease, LeaseError, RunError,
};
use hapax::confirm::claims::{
    Answer, AsyncClaimStore, ClaimRequest, ClaimStore, Digest, Ending, MemoryClaims, Outcome,
    SettleRequest, Settled, Status,
};
use hapax::confirm::{StoreError, StoreErrorKind};
use hapax::{ManualClock, Timestamp};
use std::future::Future as _;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

const LEASE: Duration = Duration::from_secs(300);
const KEEP: Duration = Duration::from_secs(86_400);

fn key() -> Identity {
    Identity::new("acct-7", "POST /charges", "order-17")
}

fn payload() -> Digest {
    Digest::of(b"amount=10")
}

fn charged() -> Outcome {
    Outcome::success(*b"charged 10")
}

/// What a store does with its next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// It answers.
    Well,
    /// It cannot be reached.
    Away,
    /// It acts, and its reply is lost.
    Mute,
    /// It panics.
    Mad,
}

/// A store that is not always well; clones are one.
#[derive(Clone)]
struct Moody {
    store: Arc<MemoryClaims>,
    moods: Arc<Mutex<Vec<Mood>>>,
    calls: Arc<AtomicUsize>,
}

impl Moody {
    fn over(clock: &Arc<ManualClock>) -> Self {
        let store = MemoryClaims::with_clock(Arc::clone(clock) as Arc<_>);
        Self { store: Arc::new(store), moods: Arc::default(), calls: Arc::default() }
    }

    /// What its next calls do.
    fn will(&self, moods: &[Mood]) {
        *self.moods.lock().unwrap() = moods.iter().rev().copied().collect();
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn call<T>(
        &self,
        act: impl FnOnce(&MemoryClaims) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mood = self.moods.lock().unwrap().pop().unwrap_or(Mood::Well);
        match mood {
            Mood::Well => act(&self.store),
            Mood::Away => Err(StoreError::new(StoreErrorKind::Unavailable, "away")),
            Mood::Mute => {
                act(&self.store)?;
                Err(StoreError::new(StoreErrorKind::Timeout, "mute"))
            }
            Mood::Mad => panic!("mad"),
        }
    }
}

impl ClaimStore for Moody {
    fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        self.call(|store| store.claim(id, request))
    }

    fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        self.call(|store| store.settle(id, request))
    }

    fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        self.call(|store| store.look(id))
    }

    fn sweep(&self) -> Result<bool, StoreError> {
        self.call(ClaimStore::sweep)
    }
}

/// The same for asynchronous callers: each call waits for a turn of the runtime before
/// it acts, and for another before it answers.
#[derive(Clone)]
struct Yielding(Moody);

impl AsyncClaimStore for Yielding {
    async fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        tokio::task::yield_now().await;
        let answer = ClaimStore::claim(&self.0, id, request);
        tokio::task::yield_now().await;
        answer
    }

    async fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        tokio::task::yield_now().await;
        let settled = ClaimStore::settle(&self.0, id, request);
        tokio::task::yield_now().await;
        settled
    }

    async fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        ClaimStore::look(&self.0, id)
    }
}

/// A clock, a store on it, and a gate that remembers nothing by itself.
fn stage() -> (Arc<ManualClock>, Moody, Gate<Moody>) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000_000)));
    let store = Moody::over(&clock);
    let gate = Gate::builder(store.clone()).remember(0).build().unwrap();
    (clock, store, gate)
}

fn lease<S>(claim: Claim<S>) -> Lease<S> {
    match claim {
        Claim::Granted(lease) => lease,
        Claim::Replay(outcome) => panic!("replayed {outcome:?}"),
        Claim::InFlight(in_flight) => panic!("{in_flight:?}"),
        Claim::Mismatch => panic!("mismatch"),
    }
}

fn is_in_flight(gate: &Gate<Moody>) -> bool {
    matches!(gate.claim(&key(), payload()).unwrap(), Claim::InFlight(_))
}

fn replayed(gate: &Gate<Moody>) -> Outcome {
    match gate.claim(&key(), payload()).unwrap() {
        Claim::Replay(outcome) => outcome,
        _ => panic!("not finished"),
    }
}

fn is_free(gate: &Gate<Moody>) -> bool {
    gate.lookup(&key()).unwrap().is_none()
}

#[test]
fn one_is_granted_and_all_others_get_its_outcome() {
    let (_, _, gate) = stage();
    let (runs, start) = (AtomicUsize::new(0), Barrier::new(64));
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                start.wait();
                match gate.claim_or_wait(&key(), payload(), Duration::from_secs(60)).unwrap() {
                    Claim::Granted(mut lease) => {
                        runs.fetch_add(1, Ordering::SeqCst);
                        lease.complete(charged()).unwrap();
                    }
                    Claim::Replay(outcome) => assert_eq!(outcome, charged()),
                    Claim::InFlight(_) | Claim::Mismatch => panic!("gave up"),
                }
            });
        }
    });
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(gate.stats().granted, 1);
    assert_eq!(gate.stats().replayed, 63);
}

#[test]
fn who_waits_gives_up_when_told() {
    let (_, _, gate) = stage();
    let _held = lease(gate.claim(&key(), payload()).unwrap());
    let start = Instant::now();
    let patience = Duration::from_millis(30);
    let waited = gate.claim_or_wait(&key(), payload(), patience).unwrap();
    assert!(matches!(waited, Claim::InFlight(_)));
    assert!(start.elapsed() >= patience);
}

#[test]
fn a_lease_that_is_dropped_frees_its_key() {
    let (_, _, gate) = stage();
    drop(lease(gate.claim(&key(), payload()).unwrap()));
    let second = lease(gate.claim(&key(), Digest::of(b"corrected")).unwrap());
    assert_eq!((second.attempt(), second.is_takeover()), (2, false));
}

#[test]
fn a_panic_frees_the_key() {
    let (_, _, gate) = stage();
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        gate.run(&key(), b"amount=10", || -> Result<Vec<u8>, ()> { panic!("in the work") })
    }));
    assert!(ran.is_err());
    assert!(is_free(&gate));
}

#[test]
fn who_is_late_is_refused_once_another_has_taken_over() {
    let (clock, _, gate) = stage();
    let mut first = lease(gate.claim(&key(), payload()).unwrap());
    clock.advance(LEASE);
    let mut second = lease(gate.claim(&key(), payload()).unwrap());
    assert!(second.is_takeover() && second.fence() > first.fence());
    assert_eq!(first.complete(charged()), Err(LeaseError::Stale));
    drop(first);
    assert!(is_in_flight(&gate), "what is stale frees nothing");
    assert_eq!(second.complete(charged()), Ok(()));
    assert_eq!(gate.stats().stale, 1);
    assert_eq!(gate.stats().taken_over, 1);
}

#[test]
fn an_extended_lease_is_not_taken_over() {
    let (clock, _, gate) = stage();
    let mut lease = lease(gate.claim(&key(), payload()).unwrap());
    for _ in 0..5 {
        clock.advance(LEASE.saturating_sub(Duration::from_secs(1)));
        lease.extend().unwrap();
        assert!(is_in_flight(&gate));
    }
    lease.complete(charged()).unwrap();
}

#[test]
fn outcomes_are_kept_as_long_as_told() {
    let (clock, _, gate) = stage();
    lease(gate.claim(&key(), payload()).unwrap()).complete(charged()).unwrap();
    clock.advance(KEEP.saturating_sub(Duration::from_micros(1)));
    assert_eq!(replayed(&gate), charged());
    clock.advance(Duration::from_micros(1));
    assert_eq!(lease(gate.claim(&key(), payload()).unwrap()).attempt(), 1);
}

#[test]
fn failures_free_the_key_or_are_remembered() {
    let (_, store, gate) = stage();
    lease(gate.claim(&key(), payload()).unwrap()).fail(Outcome::failure(*b"declined")).unwrap();
    assert!(is_free(&gate));
    let gate = Gate::builder(store).failures(Failures::Remember).build().unwrap();
    lease(gate.claim(&key(), payload()).unwrap()).fail(Outcome::failure(*b"declined")).unwrap();
    assert_eq!(replayed(&gate), Outcome::failure(*b"declined"));
    let ran = gate.run(&key(), b"amount=10", || Ok::<_, ()>(vec![]));
    assert_eq!(ran, Err(RunError::FailedBefore(Outcome::failure(*b"declined"))));
}

#[test]
fn what_is_too_large_leaves_a_tombstone() {
    let (_, store, _) = stage();
    let gate = Gate::builder(store).max_outcome(4).build().unwrap();
    lease(gate.claim(&key(), payload()).unwrap()).complete(Outcome::success(*b"12345")).unwrap();
    assert_eq!(replayed(&gate), Outcome::tombstone(Ending::Success));
    assert_eq!(gate.stats().tombstones, 1);
}

#[test]
fn finished_keys_are_answered_without_the_store() {
    let (clock, store, _) = stage();
    let gate = Gate::builder(store.clone()).clock(Arc::clone(&clock) as Arc<_>).build().unwrap();
    lease(gate.claim(&key(), payload()).unwrap()).complete(charged()).unwrap();
    store.will(&[Mood::Away; 10]);
    let calls = store.calls();
    clock.advance(KEEP.saturating_sub(Duration::from_secs(1)));
    assert_eq!(replayed(&gate), charged());
    assert!(matches!(gate.claim(&key(), Digest::of(b"amount=99")).unwrap(), Claim::Mismatch));
    assert_eq!(store.calls(), calls);
    clock.advance(Duration::from_secs(1));
    assert!(gate.claim(&key(), payload()).is_err(), "expired here, too");
}

#[test]
fn what_others_finished_is_soon_asked_for_again() {
    let (clock, store, other) = stage();
    let gate = Gate::builder(store.clone()).clock(Arc::clone(&clock) as Arc<_>).build().unwrap();
    lease(other.claim(&key(), payload()).unwrap()).complete(charged()).unwrap();
    clock.advance(KEEP.saturating_sub(Duration::from_secs(100)));
    assert_eq!(replayed(&gate), charged());
    let calls = store.calls();
    assert_eq!(replayed(&gate), charged());
    assert_eq!(store.calls(), calls);
    clock.advance(Duration::from_secs(100));
    lease(gate.claim(&key(), payload()).unwrap());
}

#[test]
fn an_operator_frees_keys_in_flight_and_finished_ones() {
    let (clock, store, _) = stage();
    let gate = Gate::builder(store).clock(clock as Arc<_>).build().unwrap();
    let mut first = lease(gate.claim(&key(), payload()).unwrap());
    gate.release(&key()).unwrap();
    assert_eq!(first.complete(charged()), Err(LeaseError::Stale));
    lease(gate.claim(&key(), payload()).unwrap()).complete(charged()).unwrap();
    gate.release(&key()).unwrap();
    assert_eq!(gate.lookup(&key()), Ok(None));
    lease(gate.claim(&key(), payload()).unwrap());
}

#[test]
fn a_claim_whose_reply_was_lost_is_asked_for_again() {
    let (_, store, gate) = stage();
    store.will(&[Mood::Mute]);
    assert_eq!(lease(gate.claim(&key(), payload()).unwrap()).attempt(), 1);
}

#[test]
fn a_claim_that_nobody_heard_of_goes_to_the_next() {
    for moods in [[Mood::Mute, Mood::Mute], [Mood::Mute, Mood::Away], [Mood::Mute, Mood::Mad]] {
        let (_, store, gate) = stage();
        store.will(&moods);
        let lost = gate.claim(&key(), payload());
        assert!(matches!(lost, Err(ClaimError::Store(_))), "{moods:?}");
        store.will(&[Mood::Away]);
        assert!(gate.claim(&key(), payload()).is_err());
        // Whatever its payload: nobody has begun to work.
        let mut first = lease(gate.claim(&key(), Digest::of(b"amount=20")).unwrap());
        assert_eq!((first.attempt(), first.is_takeover()), (1, false));
        assert!(matches!(
            gate.claim(&key(), Digest::of(b"amount=20")).unwrap(),
            Claim::InFlight(_)
        ));
        first.complete(charged()).unwrap();
    }
}

#[test]
fn a_store_that_panics_is_an_error() {
    let (_, store, gate) = stage();
    store.will(&[Mood::Mad]);
    let Err(ClaimError::Store(error)) = gate.claim(&key(), payload()) else { panic!("granted") };
    assert_eq!(error.kind(), StoreErrorKind::Faulty);
    let mut lease = lease(gate.claim(&key(), payload()).unwrap());
    store.will(&[Mood::Mad]);
    assert!(matches!(lease.complete(charged()), Err(LeaseError::Store(_))));
    assert_eq!(lease.complete(charged()), Ok(()));
}

#[test]
fn an_outcome_that_may_be_stored_is_not_followed_by_a_release() {
    for moods in [[Mood::Mute, Mood::Away].as_slice(), &[Mood::Away]] {
        let (clock, store, gate) = stage();
        let mut lost = lease(gate.claim(&key(), payload()).unwrap());
        store.will(moods);
        assert!(matches!(lost.complete(charged()), Err(LeaseError::Store(_))));
        drop(lost);
        if moods[0] == Mood::Mute {
            assert_eq!(replayed(&gate), charged());
            continue;
        }
        assert!(is_in_flight(&gate), "free before its deadline");
        clock.advance(LEASE);
        assert!(lease(gate.claim(&key(), payload()).unwrap()).is_takeover());
    }
}

#[test]
fn a_completion_can_be_tried_again() {
    let (_, store, gate) = stage();
    let mut lease = lease(gate.claim(&key(), payload()).unwrap());
    store.will(&[Mood::Mute, Mood::Mute]);
    assert!(matches!(lease.complete(charged()), Err(LeaseError::Store(_))));
    assert_eq!(lease.complete(charged()), Ok(()));
    assert_eq!(replayed(&gate), charged());
}

#[test]
fn what_cannot_be_built_is_refused() {
    let build = |lease, keep| {
        Gate::builder(MemoryClaims::new()).lease(lease).keep(keep).build().unwrap_err()
    };
    let none = Duration::ZERO;
    assert_eq!(build(none, KEEP), GateError::LeaseTooShort(none));
    let keep = Duration::from_secs(1);
    assert_eq!(build(LEASE, keep), GateError::KeepTooShort { lease: LEASE, keep });
}

#[test]
fn identities_too_long_for_a_store_are_refused() {
    let (_, store, gate) = stage();
    let long = Identity::new("acct-7", "POST /charges", vec![b'k'; 1 << 16]);
    let refused = gate.claim(&long, payload()).unwrap_err();
    assert!(matches!(refused, ClaimError::TooLong(_)));
    assert_eq!(store.calls(), 0);
}

#[test]
fn terms_without_end_do_not_overflow() {
    let store = MemoryClaims::new();
    let gate = Gate::builder(store).lease(Duration::MAX).keep(Duration::MAX).build().unwrap();
    let mut lease = lease(gate.claim(&key(), payload()).unwrap());
    lease.extend().unwrap();
    assert!(lease.remaining() > KEEP);
    lease.complete(charged()).unwrap();
}

fn tasks() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

fn yielding() -> (Moody, Gate<Yielding>) {
    let (_, store, _) = stage();
    let gate = Gate::builder(Yielding(store.clone())).remember(0).build().unwrap();
    (store, gate)
}

#[test]
fn tasks_wait_for_each_other() {
    let (_, gate) = yielding();
    tasks().block_on(async {
        let runs = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let (gate, runs) = (gate.clone(), Arc::clone(&runs));
                tokio::spawn(async move {
                    let patience = Duration::from_secs(60);
                    let claim = gate.claim_or_wait_async(&key(), payload(), patience).await;
                    match claim.unwrap() {
                        Claim::Granted(mut lease) => {
                            runs.fetch_add(1, Ordering::SeqCst);
                            tokio::task::yield_now().await;
                            lease.complete_async(charged()).await.unwrap();
                        }
                        Claim::Replay(outcome) => assert_eq!(outcome, charged()),
                        Claim::InFlight(_) | Claim::Mismatch => panic!("gave up"),
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_lease_that_a_task_drops_frees_its_key() {
    let (_, gate) = yielding();
    tasks().block_on(async {
        drop(lease(gate.claim_async(&key(), payload()).await.unwrap()));
        let patience = Duration::from_secs(60);
        let claim = gate.claim_or_wait_async(&key(), payload(), patience).await.unwrap();
        assert!(!lease(claim).is_takeover());
    });
}

#[test]
fn a_claim_that_is_given_up_midway_goes_to_the_next() {
    for polls in 1..3 {
        let (store, gate) = yielding();
        {
            let (key, mut context) = (key(), Context::from_waker(Waker::noop()));
            let mut claim = pin!(gate.claim_async(&key, payload()));
            for _ in 0..polls {
                assert!(claim.as_mut().poll(&mut context).is_pending());
            }
        }
        assert_eq!(store.calls(), polls - 1);
        tasks().block_on(async {
            let next = lease(gate.claim_async(&key(), payload()).await.unwrap());
            assert_eq!((next.attempt(), next.is_takeover()), (1, false));
        });
    }
}

#[test]
fn a_completion_that_is_given_up_midway_frees_nothing() {
    let (_, gate) = yielding();
    tasks().block_on(async {
        let mut held = lease(gate.claim_async(&key(), payload()).await.unwrap());
        {
            let mut context = Context::from_waker(Waker::noop());
            let mut completion = pin!(held.complete_async(charged()));
            let polled: Poll<_> = completion.as_mut().poll(&mut context);
            assert!(polled.is_pending());
        }
        drop(held);
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
        let claim = gate.claim_async(&key(), payload()).await.unwrap();
        assert!(matches!(claim, Claim::InFlight(_)));
    });
}

#[test]
fn work_runs_once_for_tasks() {
    let (_, gate) = yielding();
    tasks().block_on(async {
        let work = || async { Ok::<_, ()>(b"charged 10".to_vec()) };
        for _ in 0..3 {
            assert_eq!(gate.run_async(&key(), b"amount=10", work).await, Ok(charged()));
        }
        let other = gate.run_async(&key(), b"amount=99", work).await;
        assert_eq!(other, Err(RunError::Mismatch));
        assert_eq!(gate.stats().granted, 1);
        let failed = Identity::new("acct-7", "POST /charges", "order-18");
        let decline = || async { Err::<Vec<u8>, _>("declined") };
        for _ in 0..2 {
            let ran = gate.run_async(&failed, b"amount=10", decline).await;
            assert_eq!(ran, Err(RunError::Failed("declined")));
        }
    });
}
