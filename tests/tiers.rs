//! Dedupers with a confirmer behind them: the same verdicts as without, whatever
//! memory holds and however the store fails.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use hapax::confirm::{
    Answer, Breaker, Bucket, Confirmer, MemoryConfirmer, OwnedStore, Ownership, Reject, Rule, Sighting,
    StoreError, StoreErrorKind,
};
use hapax::{
    BatchErrorKind, CheckError, ConfigProblem, Deduper, ManualClock, Mode, OnFull, Timestamp,
    Verdict, Window,
};
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

const WIDTH: Duration = Duration::from_secs(10);
const BUCKETS: u32 = 4;
const SPAN: Duration = Duration::from_secs(40);

/// How the next call of a store fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Before anything is done.
    Refused,
    /// After everything was done.
    ReplyLost,
}

/// A store in memory that fails when told, and counts its calls.
#[derive(Default)]
struct Store {
    inner: MemoryConfirmer,
    faults: Mutex<Vec<Fault>>,
    judged: AtomicUsize,
    recorded: AtomicUsize,
}

impl Store {
    fn fail_next(&self, fault: Fault) {
        self.faults.lock().unwrap().push(fault);
    }

    fn run<T>(&self, call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let fault = self.faults.lock().unwrap().pop();
        if fault == Some(Fault::Refused) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "injected"));
        }
        let done = call()?;
        match fault {
            Some(_) => Err(StoreError::new(StoreErrorKind::Uncertain, "injected")),
            None => Ok(done),
        }
    }

    fn judged(&self) -> usize {
        self.judged.load(Ordering::Relaxed)
    }
}

impl Confirmer for Store {
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Vec<Answer>, StoreError> {
        self.judged.fetch_add(sightings.len(), Ordering::Relaxed);
        self.run(|| self.inner.confirm(sightings, rule))
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.run(|| self.inner.forget(keys))
    }

    fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        self.inner.expire(before)
    }
}

impl OwnedStore for Store {
    fn record(&self, sightings: &[Sighting<'_>]) -> Result<(), StoreError> {
        self.recorded.fetch_add(sightings.len(), Ordering::Relaxed);
        self.run(|| self.inner.record(sightings))
    }

    fn recover(&self, visit: &mut dyn FnMut(&[u8], Bucket)) -> Result<(), StoreError> {
        self.inner.recover(visit)
    }

    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }
}

type Tiered = Deduper<Arc<Store>>;

/// A deduper before a store, and what it is compared with: one without.
struct Rig {
    window: Window,
    mode: Mode,
    lateness: Option<Duration>,
    is_exclusive: bool,
    clock: Arc<ManualClock>,
    store: Arc<Store>,
    dedup: Tiered,
    oracle: Deduper,
}

impl Rig {
    fn new(window: Window, mode: Mode, lateness: Option<Duration>, is_exclusive: bool) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000)));
        let store = Arc::new(Store::default());
        let builder = Deduper::builder(window).capacity(1_000).mode(Mode::verified()).clock(Arc::clone(&clock));
        let builder = match lateness {
            Some(lateness) => builder.event_time(lateness),
            None => builder,
        };
        let oracle = builder.build().unwrap();
        let dedup = open(window, mode, lateness, is_exclusive, &clock, &store);
        Self { window, mode, lateness, is_exclusive, clock, store, dedup, oracle }
    }

    fn reopen(&mut self) {
        let Self { window, mode, lateness, is_exclusive, .. } = *self;
        self.dedup = open(window, mode, lateness, is_exclusive, &self.clock, &self.store);
    }

    /// Checks keys by both, in a batch, and has them agree on what is completed.
    fn check(&self, keys: &[u8]) {
        let keys: Vec<_> = keys.iter().map(|key| [*key]).collect();
        let mut verdicts = vec![Verdict::Late; keys.len()];
        let times = vec![self.clock_time(); keys.len()];
        let checked = match self.lateness {
            None => self.dedup.check_batch(&keys, &mut verdicts),
            Some(_) => self.dedup.check_batch_at(&keys, &times, &mut verdicts),
        };
        let completed = checked.map_or_else(|error| error.completed, |()| keys.len());
        for (key, verdict) in keys.iter().zip(&verdicts[..completed]) {
            let expected = match self.lateness {
                None => self.oracle.check(key),
                Some(_) => self.oracle.check_at(key, self.clock_time()),
            };
            assert_eq!(Ok(*verdict), expected, "{key:?}");
        }
        // A duplicate whose reply was lost has moved a sliding window all the same:
        // what is asked again in a later bucket is then a duplicate of it.
        if completed < keys.len() && self.window == Window::sliding(SPAN).buckets(BUCKETS) {
            let left: Vec<_> = keys[completed..].iter().map(|key| key[0]).collect();
            self.check(&left);
        }
    }

    fn clock_time(&self) -> Timestamp {
        use hapax::Clock as _;
        self.clock.now()
    }

    fn forget(&self, key: u8) {
        if self.dedup.forget(&[key]).is_ok() {
            self.oracle.forget(&[key]);
        } else {
            // It may or may not be forgotten: make it so.
            while self.dedup.forget(&[key]).is_err() {}
            self.oracle.forget(&[key]);
        }
    }
}

fn open(
    window: Window,
    mode: Mode,
    lateness: Option<Duration>,
    is_exclusive: bool,
    clock: &Arc<ManualClock>,
    store: &Arc<Store>,
) -> Tiered {
    let ownership = if is_exclusive { Ownership::Exclusive } else { Ownership::Shared };
    let builder = Deduper::builder(window).capacity(1_000)
        .mode(mode)
        .clock(Arc::clone(clock))
        .memory_limit(16 << 20, OnFull::Spill)
        .confirm(Arc::clone(store), ownership, Reject)
        .breaker(Breaker::new().failures(u32::MAX));
    let builder = match lateness {
        Some(lateness) => builder.event_time(lateness),
        None => builder,
    };
    builder.build().unwrap()
}

#[derive(Clone, Debug)]
enum Op {
    Check(Vec<u8>),
    Forget(u8),
    Fail(Fault),
    Advance(u64),
    Reopen,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = 0_u8..24;
    let fault = prop_oneof![Just(Fault::Refused), Just(Fault::ReplyLost)];
    let op = prop_oneof![
        6 => prop::collection::vec(key.clone(), 1..12).prop_map(Op::Check),
        1 => key.prop_map(Op::Forget),
        2 => fault.prop_map(Op::Fail),
        2 => (0_u64..25).prop_map(Op::Advance),
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..60)
}

fn windows() -> impl Strategy<Value = Window> {
    prop_oneof![
        Just(Window::fixed(SPAN).buckets(BUCKETS)),
        Just(Window::sliding(SPAN).buckets(BUCKETS)),
        Just(Window::unbounded()),
    ]
}

proptest! {
    #[test]
    fn the_verdicts_are_those_of_memory_alone(
        window in windows(),
        is_verified: bool,
        is_event_time: bool,
        is_exclusive: bool,
        ops in ops(),
    ) {
        let mode = if is_verified { Mode::verified() } else { Mode::fingerprint() };
        let lateness = is_event_time.then_some(WIDTH);
        let mut rig = Rig::new(window, mode, lateness, is_exclusive);
        for op in ops {
            match op {
                Op::Check(keys) => rig.check(&keys),
                Op::Forget(key) => rig.forget(key),
                Op::Fail(fault) => rig.store.fail_next(fault),
                Op::Advance(seconds) => rig.clock.advance(Duration::from_secs(seconds)),
                Op::Reopen => {
                    // Sightings whose replies were lost are known to this process
                    // alone: settle them first.
                    rig.store.faults.lock().unwrap().clear();
                    rig.check(&(0..24).collect::<Vec<_>>());
                    rig.reopen();
                }
            }
        }
    }
}
