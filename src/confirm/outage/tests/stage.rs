//! Confirmers that fail as told, and guards over them, blocking and asynchronous.

use crate::confirm::outage::{Admit, Breaker, Confirmed, Fallback, Guard, Health};
use crate::confirm::outage::{Outage, OutageStats, Reject};
use crate::confirm::{
    Answer, AsyncConfirmer, Bucket, Confirmer, MemoryConfirmer, Record, Rule, Sighting, StoreError,
    StoreErrorKind, Token, at_once,
};
use crate::time::{ManualClock, Timestamp, Window};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What a call of a confirmer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    /// Fails in this way and does nothing.
    Fails(StoreErrorKind),
    /// Does everything, and says that a part of it failed in this way.
    Partly(StoreErrorKind),
    /// Does everything; the reply is lost.
    Lost,
    /// Does everything, then panics.
    Panics,
    /// Answers too little.
    Short,
    /// Has seen everything, before any window.
    Ancient,
}

impl Mood {
    pub(super) const DOWN: Self = Self::Fails(StoreErrorKind::Unavailable);
    /// Fails in this way and does nothing, without its knowing.
    pub(super) const SLOW: Self = Self::Fails(StoreErrorKind::Timeout);
}

/// A store in memory with moods.
#[derive(Clone)]
pub(super) struct Moody(Arc<Inner>);

struct Inner {
    memory: MemoryConfirmer,
    mood: Mutex<Mood>,
    /// What the next calls do, before the mood decides.
    next: Mutex<VecDeque<Mood>>,
    /// A key that it refuses.
    refused: Mutex<Option<Vec<u8>>>,
    /// What happens between its next work and its reply.
    after: Mutex<Option<After>>,
    calls: AtomicU64,
}

type After = Box<dyn FnOnce() + Send>;

impl Moody {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner {
            memory: MemoryConfirmer::new(),
            mood: Mutex::new(Mood::Well),
            next: Mutex::default(),
            refused: Mutex::default(),
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

    pub(super) fn refuses(&self, key: Option<&[u8]>) {
        *self.0.refused.lock() = key.map(Into::into);
    }

    /// Something happens between its next work and its reply.
    pub(super) fn after_next(&self, after: impl FnOnce() + Send + 'static) {
        *self.0.after.lock() = Some(Box::new(after));
    }

    /// How many calls it has had.
    pub(super) fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::SeqCst)
    }

    /// The store itself, which never fails.
    pub(super) fn memory(&self) -> &MemoryConfirmer {
        &self.0.memory
    }

    fn act<T>(
        &self,
        act: impl FnOnce() -> Result<T, StoreError>,
        nonsense: impl FnOnce(Mood) -> T,
    ) -> Result<T, StoreError> {
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
            Mood::Partly(kind) => {
                act().and_then(|_| Err(StoreError::new(kind, "as told").with_parts(true)))
            }
            Mood::Lost => act().and_then(|_| Err(StoreError::new(StoreErrorKind::Timeout, "lost"))),
            Mood::Panics => {
                let _ = act();
                std::panic::resume_unwind(Box::new("as told"));
            }
            Mood::Short | Mood::Ancient => act().map(|_| nonsense(mood)),
        }
    }

    fn check_key(&self, key: &[u8]) -> Result<(), StoreError> {
        match &*self.0.refused.lock() {
            Some(refused) if refused == key => {
                Err(StoreError::new(StoreErrorKind::Refused, "not this key"))
            }
            _ => Ok(()),
        }
    }
}

impl Confirmer for Moody {
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Vec<Answer>, StoreError> {
        let act = || {
            sightings.iter().try_for_each(|sighting| self.check_key(sighting.key))?;
            self.memory().confirm(sightings, rule)
        };
        self.act(act, |mood| match mood {
            Mood::Short => vec![Answer::New; sightings.len() - 1],
            _ => vec![Answer::Seen(Bucket::new(-1_000_000)); sightings.len()],
        })
    }

    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.act(|| self.memory().look(keys), |_| Vec::new())
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        let act = || {
            keys.iter().try_for_each(|key| self.check_key(key))?;
            self.memory().forget(keys)
        };
        self.act(act, |_| ())
    }

    fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        self.act(|| self.memory().expire(before), |_| ())
    }
}

/// An asynchronous confirmer that makes its callers wait once before it acts and
/// once after.
#[derive(Clone)]
pub(super) struct Waiting(pub(super) Moody);

async fn wait() {
    let mut waited = false;
    poll_fn(|_| if std::mem::replace(&mut waited, true) { Poll::Ready(()) } else { Poll::Pending })
        .await;
}

impl AsyncConfirmer for Waiting {
    async fn confirm(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Vec<Answer>, StoreError> {
        wait().await;
        let answers = self.0.confirm(sightings, rule);
        wait().await;
        answers
    }

    async fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        wait().await;
        self.0.look(keys)
    }

    async fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        wait().await;
        let done = self.0.forget(keys);
        wait().await;
        done
    }

    async fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        wait().await;
        self.0.expire(before)
    }
}

/// Runs a future to its end.
pub(super) fn finish<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(output) = polled {
            return output;
        }
    }
}

/// Polls a future at most so many times: what it had to say by then.
pub(super) fn drop_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut poll = || future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    (0..polls).find_map(|_| match poll() {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    })
}

type InPart = Option<Result<Confirmed, StoreError>>;

/// A guard of either kind.
pub(super) trait Guarded: Send + Sync {
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Confirmed, StoreError>;
    /// Gives up after so many polls, unless it is done by then; a blocking one is.
    fn confirm_in_part(&self, polls: usize, sightings: &[Sighting<'_>], rule: Rule) -> InPart;
    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError>;
    fn expire(&self, before: Bucket) -> Result<(), StoreError>;
    fn write_back(&self, rule: Rule) -> Result<bool, StoreError>;
    fn health(&self) -> Health;
    fn stats(&self) -> OutageStats;
}

/// Calls as a deduper does: in the name of lost sightings, whose tokens are kept if
/// nobody `hears` of these either.
fn recalling<'key, C, P: Outage, T>(
    guard: &Guard<C, P>,
    sightings: &[Sighting<'key>],
    rule: Rule,
    call: impl FnOnce(&[Sighting<'key>]) -> T,
    hears: impl FnOnce(&T) -> bool,
) -> T {
    let (mut sightings, mut recalled) = (sightings.to_vec(), Vec::new());
    for sighting in &mut sightings {
        if let Some(token) = guard.recall(sighting, rule) {
            sighting.token = token;
            recalled.push(*sighting);
        }
    }
    let result = call(&sightings);
    if !hears(&result) {
        for sighting in &recalled {
            guard.unheard(sighting);
        }
    }
    result
}

fn hears_in_part(result: &InPart) -> bool {
    matches!(result, Some(Ok(_)))
}

macro_rules! guarded {
    ($($policy:ty, $waiting:ty);+) => {$(
        impl Guarded for Guard<Moody, $policy> {
            fn confirm(
                &self,
                sightings: &[Sighting<'_>],
                rule: Rule,
            ) -> Result<Confirmed, StoreError> {
                let call = |sightings: &[_]| at_once(self.inline().confirm(sightings, rule));
                recalling(self, sightings, rule, call, Result::is_ok)
            }
            fn confirm_in_part(
                &self,
                _: usize,
                sightings: &[Sighting<'_>],
                rule: Rule,
            ) -> InPart {
                let call = |sightings: &[_]| Some(at_once(self.inline().confirm(sightings, rule)));
                recalling(self, sightings, rule, call, hears_in_part)
            }
            fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
                at_once(self.inline().forget(keys))
            }
            fn expire(&self, before: Bucket) -> Result<(), StoreError> {
                at_once(self.inline().expire(before))
            }
            fn write_back(&self, rule: Rule) -> Result<bool, StoreError> {
                at_once(self.inline().write_back(rule))
            }
            fn health(&self) -> Health {
                self.health()
            }
            fn stats(&self) -> OutageStats {
                self.stats()
            }
        }

        impl Guarded for Guard<Waiting, $waiting> {
            fn confirm(
                &self,
                sightings: &[Sighting<'_>],
                rule: Rule,
            ) -> Result<Confirmed, StoreError> {
                let call = |sightings: &[_]| finish(self.awaiting().confirm(sightings, rule));
                recalling(self, sightings, rule, call, Result::is_ok)
            }
            fn confirm_in_part(
                &self,
                polls: usize,
                sightings: &[Sighting<'_>],
                rule: Rule,
            ) -> InPart {
                let confirm = async |sightings: &[_]| self.awaiting().confirm(sightings, rule).await;
                let call = |sightings: &[_]| drop_after(polls, confirm(sightings));
                recalling(self, sightings, rule, call, hears_in_part)
            }
            fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
                finish(self.awaiting().forget(keys))
            }
            fn expire(&self, before: Bucket) -> Result<(), StoreError> {
                finish(self.awaiting().expire(before))
            }
            fn write_back(&self, rule: Rule) -> Result<bool, StoreError> {
                finish(self.awaiting().write_back(rule))
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

guarded!(Reject, Reject; Admit, Admit; Fallback<Moody>, Fallback<Waiting>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    Reject,
    Admit,
    Fallback,
}

/// A guard with everything around it.
pub(super) struct Stage {
    pub(super) guard: Box<dyn Guarded>,
    pub(super) primary: Moody,
    pub(super) fallback: Moody,
    pub(super) clock: Arc<ManualClock>,
    pub(super) rule: Rule,
    tokens: AtomicU64,
}

pub(super) const NOW: i64 = 1_000;

pub(super) fn fixed() -> Rule {
    Rule::of(&Window::fixed(Duration::from_secs(8)))
}

pub(super) fn sliding() -> Rule {
    Rule::of(&Window::sliding(Duration::from_secs(8)))
}

/// Opens after three failures, for 1 s, then 2 s.
pub(super) const BREAKER: Breaker =
    Breaker::new().failures(3).delay(Duration::from_secs(1), Duration::from_secs(2));

impl Stage {
    pub(super) fn new(policy: Policy, is_async: bool, journal_bytes: usize) -> Self {
        let (primary, fallback) = (Moody::new(), Moody::new());
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(0)));
        let guard: Box<dyn Guarded> = if is_async {
            let primary = Waiting(primary.clone());
            let other = Fallback::new(Waiting(fallback.clone())).journal_limit(journal_bytes);
            match policy {
                Policy::Reject => Box::new(Guard::new(primary, Reject, BREAKER, clock.clone())),
                Policy::Admit => Box::new(Guard::new(primary, Admit, BREAKER, clock.clone())),
                Policy::Fallback => Box::new(Guard::new(primary, other, BREAKER, clock.clone())),
            }
        } else {
            let primary = primary.clone();
            let other = Fallback::new(fallback.clone()).journal_limit(journal_bytes);
            match policy {
                Policy::Reject => Box::new(Guard::new(primary, Reject, BREAKER, clock.clone())),
                Policy::Admit => Box::new(Guard::new(primary, Admit, BREAKER, clock.clone())),
                Policy::Fallback => Box::new(Guard::new(primary, other, BREAKER, clock.clone())),
            }
        };
        Self { guard, primary, fallback, clock, rule: fixed(), tokens: AtomicU64::new(1) }
    }

    pub(super) fn sighting<'key>(&self, key: &'key [u8], bucket: i64) -> Sighting<'key> {
        let token = Token::new(self.tokens.fetch_add(1, Ordering::Relaxed));
        Sighting { key, bucket: Bucket::new(bucket), token }
    }

    /// Confirms one new sighting of each key.
    pub(super) fn confirm(&self, keys: &[&str]) -> Result<Confirmed, StoreError> {
        self.confirm_in(NOW, keys)
    }

    pub(super) fn confirm_in(&self, bucket: i64, keys: &[&str]) -> Result<Confirmed, StoreError> {
        let sightings: Vec<_> =
            keys.iter().map(|key| self.sighting(key.as_bytes(), bucket)).collect();
        self.guard.confirm(&sightings, self.rule)
    }

    pub(super) fn forget(&self, key: &str) -> Result<(), StoreError> {
        self.guard.forget(&[key.as_bytes()])
    }

    /// What the primary itself says to one new sighting.
    pub(super) fn primary_says(&self, bucket: i64, key: &str) -> Answer {
        let sighting = self.sighting(key.as_bytes(), bucket);
        self.primary.memory().confirm(&[sighting], self.rule).unwrap()[0]
    }

    pub(super) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Lets the breaker open.
    pub(super) fn open(&self) {
        self.primary.is(Mood::DOWN);
        (0..3).for_each(|_| drop(self.confirm(&["opening"])));
        assert!(matches!(self.guard.health(), Health::Degraded { .. }));
    }

    /// Lets the primary answer again, and its breaker try it.
    pub(super) fn recover(&self) {
        self.primary.is(Mood::Well);
        self.fallback.is(Mood::Well);
        self.advance(2);
    }

    /// Calls until the guard is serving.
    pub(super) fn settle(&self) {
        self.recover();
        for _ in 0..10_000 {
            if self.guard.health() == Health::Serving {
                return;
            }
            if !self.guard.write_back(self.rule).unwrap() {
                let _ = self.confirm(&["a probe"]);
            }
        }
        panic!("it does not converge: {:?}", self.guard.health());
    }
}

/// Runs a test over both kinds of guard.
pub(super) fn both(policy: Policy, test: impl Fn(Stage)) {
    test(Stage::new(policy, false, 1 << 20));
    test(Stage::new(policy, true, 1 << 20));
}

/// Runs a test over all policies and both kinds of guard.
pub(super) fn all(test: impl Fn(Policy, Stage)) {
    for policy in [Policy::Reject, Policy::Admit, Policy::Fallback] {
        both(policy, |stage| test(policy, stage));
    }
}

pub(super) const NEW: Answer = Answer::New;

pub(super) const fn seen(bucket: i64) -> Answer {
    Answer::Seen(Bucket::new(bucket))
}
