//! Claim stores that fail as told, and guarded ones over them, blocking and asynchronous.

use crate::confirm::claims::{
    Answer, AsyncClaimStore, ClaimRequest, ClaimStore, Digest, Guarded, MemoryClaims, Outcome,
    SettleRequest, Settled, Settlement, Status, Terms,
};
use crate::confirm::outage::{Admit, Breaker, Fallback, Health, OutageStats, Reject};
use crate::confirm::{StoreError, StoreErrorKind, Token};
use crate::time::{ManualClock, Timestamp};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

pub(super) const TERMS: Terms =
    Terms { lease: Duration::from_secs(10), keep: Duration::from_secs(100_000) };

/// What a call of a store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    /// Fails in this way and does nothing.
    Fails(StoreErrorKind),
    /// Does everything; the reply is lost.
    Lost,
    /// Does everything, then panics.
    Panics,
}

impl Mood {
    pub(super) const DOWN: Self = Self::Fails(StoreErrorKind::Unavailable);
    /// Fails in this way and does nothing, without its knowing.
    pub(super) const SLOW: Self = Self::Fails(StoreErrorKind::Timeout);
}

/// Claims in memory, with moods. Clones are one.
#[derive(Clone)]
pub(super) struct Moody(Arc<Inner>);

struct Inner {
    claims: MemoryClaims,
    mood: Mutex<Mood>,
    /// What the next calls do, before the mood decides.
    next: Mutex<VecDeque<Mood>>,
    /// Between the work of the next call and its reply.
    after: Mutex<Option<After>>,
    calls: AtomicU64,
}

type After = Box<dyn FnOnce() + Send>;

impl Moody {
    pub(super) fn new(clock: Arc<ManualClock>) -> Self {
        Self(Arc::new(Inner {
            claims: MemoryClaims::with_clock(clock),
            mood: Mutex::new(Mood::Well),
            next: Mutex::default(),
            after: Mutex::default(),
            calls: AtomicU64::new(0),
        }))
    }

    pub(super) fn is(&self, mood: Mood) {
        *self.0.mood.lock() = mood;
        self.0.next.lock().clear();
    }

    /// The next calls do this, one each.
    pub(super) fn next(&self, moods: impl IntoIterator<Item = Mood>) {
        self.0.next.lock().extend(moods);
    }

    /// Something happens between its next work and its reply.
    pub(super) fn after_next(&self, after: impl FnOnce() + Send + 'static) {
        *self.0.after.lock() = Some(Box::new(after));
    }

    /// How many calls it has had.
    pub(super) fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::SeqCst)
    }

    /// The claims themselves, which never fail.
    pub(super) fn claims(&self) -> &MemoryClaims {
        &self.0.claims
    }

    fn act<T>(&self, act: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.0.calls.fetch_add(1, Ordering::SeqCst);
        let next = self.0.next.lock().pop_front();
        let mood = next.unwrap_or(*self.0.mood.lock());
        match mood {
            Mood::Well => {
                let done = act();
                let after = self.0.after.lock().take();
                if let Some(after) = after {
                    after();
                }
                done
            }
            Mood::Fails(kind) => Err(StoreError::new(kind, "as told")),
            Mood::Lost => act().and_then(|_| Err(StoreError::new(StoreErrorKind::Timeout, "lost"))),
            Mood::Panics => {
                let _ = act();
                std::panic::resume_unwind(Box::new("as told"));
            }
        }
    }
}

impl ClaimStore for Moody {
    fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        self.act(|| self.claims().claim(id, request))
    }

    fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        self.act(|| self.claims().settle(id, request))
    }

    fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        self.act(|| self.claims().look(id))
    }

    fn sweep(&self) -> Result<bool, StoreError> {
        self.act(|| self.claims().sweep())
    }
}

/// An asynchronous store that makes its callers wait once before it acts and
/// once after.
#[derive(Clone)]
struct Waiting(Moody);

async fn wait() {
    let mut waited = false;
    poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending })
        .await;
}

async fn between_waits<T>(act: impl FnOnce() -> T + Send) -> T {
    wait().await;
    let done = act();
    wait().await;
    done
}

impl AsyncClaimStore for Waiting {
    async fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        between_waits(|| self.0.claim(id, request)).await
    }

    async fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        between_waits(|| self.0.settle(id, request)).await
    }

    async fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        between_waits(|| self.0.look(id)).await
    }

    async fn sweep(&self) -> Result<bool, StoreError> {
        between_waits(|| self.0.sweep()).await
    }
}

/// No call takes longer than this.
const MOST_POLLS: usize = 2_000;

/// Polls a future at most so many times: what it had to say by then.
fn polled<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut poll = || future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    (0..polls).find_map(|_| match poll() {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    })
}

/// A guarded store of either kind; each call gives up after so many polls, unless it is done
/// by then. A blocking one is.
trait Faced: Send + Sync {
    fn claim(&self, polls: usize, id: &[u8], request: &ClaimRequest) -> Heard<Answer>;
    fn settle(&self, polls: usize, id: &[u8], request: &SettleRequest<'_>) -> Heard<Settled>;
    fn look(&self, id: &[u8]) -> Heard<Option<Status>>;
    fn sweep(&self) -> Heard<bool>;
    fn health(&self) -> Health;
    fn stats(&self) -> OutageStats;
}

/// What was heard of a call, if anything.
pub(super) type Heard<T> = Option<Result<T, StoreError>>;

macro_rules! faced {
    ($($policy:ty, $waiting:ty);+) => {$(
        impl Faced for Guarded<Moody, $policy> {
            fn claim(&self, _: usize, id: &[u8], request: &ClaimRequest) -> Heard<Answer> {
                Some(ClaimStore::claim(self, id, request))
            }
            fn settle(
                &self,
                _: usize,
                id: &[u8],
                request: &SettleRequest<'_>,
            ) -> Heard<Settled> {
                Some(ClaimStore::settle(self, id, request))
            }
            fn look(&self, id: &[u8]) -> Heard<Option<Status>> {
                Some(ClaimStore::look(self, id))
            }
            fn sweep(&self) -> Heard<bool> {
                Some(ClaimStore::sweep(self))
            }
            fn health(&self) -> Health {
                self.health()
            }
            fn stats(&self) -> OutageStats {
                self.stats()
            }
        }

        impl Faced for Guarded<Waiting, $waiting> {
            fn claim(&self, polls: usize, id: &[u8], request: &ClaimRequest) -> Heard<Answer> {
                polled(polls, AsyncClaimStore::claim(self, id, request))
            }
            fn settle(
                &self,
                polls: usize,
                id: &[u8],
                request: &SettleRequest<'_>,
            ) -> Heard<Settled> {
                polled(polls, AsyncClaimStore::settle(self, id, request))
            }
            fn look(&self, id: &[u8]) -> Heard<Option<Status>> {
                polled(MOST_POLLS, AsyncClaimStore::look(self, id))
            }
            fn sweep(&self) -> Heard<bool> {
                polled(MOST_POLLS, AsyncClaimStore::sweep(self))
            }
            fn health(&self) -> Health {
                self.health()
            }
            fn stats(&self) -> OutageStats {
                self.stats()
            }
        }
    )+};
}

faced!(Reject, Reject; Admit, Admit; Fallback<Moody>, Fallback<Waiting>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    Reject,
    Admit,
    Fallback,
}

/// A guarded store with everything around it.
pub(super) struct Stage {
    guarded: Box<dyn Faced>,
    pub(super) primary: Moody,
    pub(super) fallback: Moody,
    pub(super) clock: Arc<ManualClock>,
}

/// Opens after three failures, for 1 s, then 2 s.
const BREAKER: Breaker =
    Breaker::new().failures(3).delay(Duration::from_secs(1), Duration::from_secs(2));

fn faced<S, F: Send + Sync>(
    policy: Policy,
    (primary, fallback): (S, F),
    journal_bytes: usize,
    clock: &Arc<ManualClock>,
) -> Box<dyn Faced>
where
    Guarded<S, Reject>: Faced + 'static,
    Guarded<S, Admit>: Faced + 'static,
    Guarded<S, Fallback<F>>: Faced + 'static,
{
    let clock = clock.clone();
    let other = Fallback::new(fallback).journal_limit(journal_bytes);
    match policy {
        Policy::Reject => Box::new(Guarded::with(primary, Reject, BREAKER, clock)),
        Policy::Admit => Box::new(Guarded::with(primary, Admit, BREAKER, clock)),
        Policy::Fallback => Box::new(Guarded::with(primary, other, BREAKER, clock)),
    }
}

pub(super) fn outcome() -> Outcome {
    Outcome::success(*b"done")
}

impl Stage {
    pub(super) fn new(policy: Policy, is_async: bool, journal_bytes: usize) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000_000)));
        let (primary, fallback) = (Moody::new(clock.clone()), Moody::new(clock.clone()));
        let guarded = if is_async {
            let stores = (Waiting(primary.clone()), Waiting(fallback.clone()));
            faced(policy, stores, journal_bytes, &clock)
        } else {
            faced(policy, (primary.clone(), fallback.clone()), journal_bytes, &clock)
        };
        Self { guarded, primary, fallback, clock }
    }

    pub(super) fn claim(&self, id: &str, token: u64) -> Result<Answer, StoreError> {
        self.claim_in_part(MOST_POLLS, id, token).expect("a claim hangs")
    }

    /// Gives up after so many polls.
    pub(super) fn claim_in_part(&self, polls: usize, id: &str, token: u64) -> Heard<Answer> {
        self.guarded.claim(polls, id.as_bytes(), &request(token, b"payload"))
    }

    pub(super) fn claim_with(
        &self,
        id: &str,
        token: u64,
        payload: &[u8],
    ) -> Result<Answer, StoreError> {
        self.guarded
            .claim(MOST_POLLS, id.as_bytes(), &request(token, payload))
            .expect("a claim hangs")
    }

    pub(super) fn settle(
        &self,
        id: &str,
        token: u64,
        settlement: Settlement<'_>,
    ) -> Result<Settled, StoreError> {
        self.settle_in_part(MOST_POLLS, id, token, settlement).expect("a settlement hangs")
    }

    pub(super) fn settle_in_part(
        &self,
        polls: usize,
        id: &str,
        token: u64,
        settlement: Settlement<'_>,
    ) -> Heard<Settled> {
        let request = SettleRequest { token: Token::new(token), settlement, terms: TERMS };
        self.guarded.settle(polls, id.as_bytes(), &request)
    }

    pub(super) fn complete(&self, id: &str, token: u64) -> Result<Settled, StoreError> {
        self.settle(id, token, Settlement::Complete(&outcome()))
    }

    pub(super) fn look(&self, id: &str) -> Result<Option<Status>, StoreError> {
        self.guarded.look(id.as_bytes()).expect("a look hangs")
    }

    pub(super) fn sweep(&self) -> Result<bool, StoreError> {
        self.guarded.sweep().expect("a sweep hangs")
    }

    /// Sweeps until there is nothing more to do.
    pub(super) fn sweep_all(&self) {
        for _ in 0..1_000 {
            if !self.sweep().unwrap() {
                return;
            }
        }
        panic!("sweeping does not end");
    }

    pub(super) fn health(&self) -> Health {
        self.guarded.health()
    }

    pub(super) fn stats(&self) -> OutageStats {
        self.guarded.stats()
    }

    pub(super) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Lets the primary be away, and its breaker open.
    pub(super) fn open(&self) {
        self.primary.is(Mood::DOWN);
        (0..3).for_each(|_| drop(self.look("opening").unwrap_err()));
        assert!(matches!(self.health(), Health::Degraded { .. }));
    }

    /// Lets all be well again, and the breaker try.
    pub(super) fn recover(&self) {
        self.primary.is(Mood::Well);
        self.fallback.is(Mood::Well);
        self.advance(2);
        let _ = self.look("a probe").unwrap();
    }

    /// What the primary itself knows of a key.
    pub(super) fn in_primary(&self, id: &str) -> Option<Status> {
        self.primary.claims().look(id.as_bytes()).unwrap()
    }
}

pub(super) fn request(token: u64, payload: &[u8]) -> ClaimRequest {
    ClaimRequest { token: Token::new(token), digest: Digest::of(payload), terms: TERMS }
}

/// Runs a test over both kinds of store.
pub(super) fn both(policy: Policy, test: impl Fn(Stage)) {
    test(Stage::new(policy, false, 1 << 20));
    test(Stage::new(policy, true, 1 << 20));
}

/// Runs a test over both policies that answer without the primary, and both kinds of store.
pub(super) fn standing_in(test: impl Fn(Policy, Stage)) {
    for policy in [Policy::Admit, Policy::Fallback] {
        both(policy, |stage| test(policy, stage));
    }
}
