//! Dedupers with a confirmer behind them: the same verdicts as without, whatever
//! memory holds and however the store fails.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use hapax::confirm::{
    Admit, Answer, AsyncConfirmer, Breaker, Bucket, Confirmer, Fallback, MAX_KEY_BYTES,
    MemoryConfirmer, Outage, OwnedStore, Ownership, Record, Reject, Rule, Sighting, StoreError,
    StoreErrorKind,
};
use hapax::{
    BatchErrorKind, CheckError, ConfigProblem, Deduper, KeyHash, ManualClock, Mode, OnFull,
    Timestamp, Verdict, Window,
};
use proptest::prelude::*;
use std::future::Future as _;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

const WIDTH: Duration = Duration::from_secs(10);
const BUCKETS: u32 = 4;
const SPAN: Duration = Duration::from_secs(40);

/// How the next call of a store fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Not at all.
    Nothing,
    /// Before anything is done.
    Refused,
    /// After everything was done.
    ReplyLost,
}

/// A store in memory that fails when told, counts its calls, and takes neither
/// long keys nor those that begin with [`UNWELCOME`].
#[derive(Default)]
struct Store {
    inner: MemoryConfirmer,
    faults: Mutex<Vec<Fault>>,
    judged: AtomicUsize,
    recorded: AtomicUsize,
}

const UNWELCOME: &[u8] = b"unwelcome";

fn check_welcome(sightings: &[Sighting<'_>]) -> Result<(), StoreError> {
    let is_welcome = |sighting: &Sighting<'_>| {
        sighting.key.len() <= MAX_KEY_BYTES && !sighting.key.starts_with(UNWELCOME)
    };
    if sightings.iter().all(is_welcome) {
        return Ok(());
    }
    Err(StoreError::new(StoreErrorKind::Refused, "injected"))
}

impl Store {
    fn fail_next(&self, fault: Fault) {
        self.faults.lock().unwrap().push(fault);
    }

    /// Calls fail in these ways, one after the other.
    fn fail(&self, faults: &[Fault]) {
        self.faults.lock().unwrap().extend(faults.iter().rev());
    }

    fn run<T>(&self, call: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let fault = self.faults.lock().unwrap().pop();
        if fault == Some(Fault::Refused) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "injected"));
        }
        let done = call()?;
        match fault {
            Some(Fault::ReplyLost) => Err(StoreError::new(StoreErrorKind::Uncertain, "injected")),
            _ => Ok(done),
        }
    }

    fn judged(&self) -> usize {
        self.judged.load(Ordering::Relaxed)
    }
}

impl Confirmer for Store {
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Vec<Answer>, StoreError> {
        self.judged.fetch_add(sightings.len(), Ordering::Relaxed);
        check_welcome(sightings)?;
        self.run(|| self.inner.confirm(sightings, rule))
    }

    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.run(|| self.inner.look(keys))
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
        check_welcome(sightings)?;
        self.recorded.fetch_add(sightings.len(), Ordering::Relaxed);
        self.run(|| self.inner.record(sightings))
    }

    fn recover(&self, visit: &mut dyn FnMut(&[u8], Bucket)) -> Result<(), StoreError> {
        self.inner.recover(visit)
    }

    fn bind(&self, width: Option<Duration>) -> Result<(), StoreError> {
        self.inner.bind(width)
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
    write_behind: usize,
    clock: Arc<ManualClock>,
    store: Arc<Store>,
    dedup: Tiered,
    oracle: Deduper,
}

impl Rig {
    fn new(
        window: Window,
        mode: Mode,
        lateness: Option<Duration>,
        is_exclusive: bool,
        write_behind: usize,
    ) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000)));
        let store = Arc::new(Store::default());
        let builder = Deduper::builder(window)
            .capacity(1_000)
            .mode(Mode::verified())
            .clock(Arc::clone(&clock));
        let builder = match lateness {
            Some(lateness) => builder.event_time(lateness),
            None => builder,
        };
        let oracle = builder.build().unwrap();
        let dedup = open(window, mode, lateness, is_exclusive, write_behind, &clock, &store);
        Self { window, mode, lateness, is_exclusive, write_behind, clock, store, dedup, oracle }
    }

    fn reopen(&mut self) {
        let Self { window, mode, lateness, is_exclusive, write_behind, .. } = *self;
        // Dropped first: its queue is written then.
        self.dedup = shared(&Arc::default());
        self.dedup =
            open(window, mode, lateness, is_exclusive, write_behind, &self.clock, &self.store);
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
    write_behind: usize,
    clock: &Arc<ManualClock>,
    store: &Arc<Store>,
) -> Tiered {
    let ownership = if is_exclusive { Ownership::Exclusive } else { Ownership::Shared };
    let builder = Deduper::builder(window)
        .capacity(1_000)
        .mode(mode)
        .clock(Arc::clone(clock))
        .memory_limit(16 << 20, OnFull::Spill)
        .write_behind(write_behind)
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
        write_behind in prop_oneof![Just(0_usize), 1_usize..30],
        ops in ops(),
    ) {
        let mode = if is_verified { Mode::verified() } else { Mode::fingerprint() };
        let lateness = is_event_time.then_some(WIDTH);
        let mut rig = Rig::new(window, mode, lateness, is_exclusive, write_behind);
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

fn shared(store: &Arc<Store>) -> Tiered {
    let builder = Deduper::builder(Window::unbounded()).capacity(1_000);
    builder.confirm(Arc::clone(store), Ownership::Shared, Reject).build().unwrap()
}

fn owner(store: &Arc<Store>) -> Tiered {
    let builder = Deduper::builder(Window::unbounded()).capacity(1_000);
    builder.confirm(Arc::clone(store), Ownership::Exclusive, Reject).build().unwrap()
}

/// How often each of `keys` keys is `Unique` when several threads check all of
/// them, in batches, each in an order of its own.
fn winners(dedups: &[Tiered], threads: usize, keys: u32) -> Vec<usize> {
    let wins: Vec<_> = (0..keys).map(|_| AtomicUsize::new(0)).collect();
    let start = Barrier::new(dedups.len() * threads);
    thread::scope(|scope| {
        for (number, dedup) in dedups.iter().cycle().take(dedups.len() * threads).enumerate() {
            let (wins, start) = (&wins, &start);
            scope.spawn(move || {
                // `keys` is a power of two: multiples of an odd number are all of them.
                let step = 2 * number as u32 + 1;
                let order: Vec<_> = (0..keys).map(|key| key * step % keys).collect();
                start.wait();
                for batch in order.chunks(37) {
                    let bytes: Vec<_> = batch.iter().map(|key| key.to_le_bytes()).collect();
                    let mut verdicts = vec![Verdict::Late; bytes.len()];
                    dedup.check_batch(&bytes, &mut verdicts).unwrap();
                    for (key, verdict) in batch.iter().zip(verdicts) {
                        let won = usize::from(verdict == Verdict::Unique);
                        wins[*key as usize].fetch_add(won, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    wins.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn a_new_key_has_one_winner_among_all_that_share_a_store() {
    let store = Arc::new(Store::default());
    let dedups: Vec<_> = (0..4).map(|_| shared(&store)).collect();
    let wins = winners(&dedups, 4, 2_048);
    assert!(wins.iter().all(|wins| *wins == 1));
}

#[test]
fn a_new_key_has_one_winner_among_the_threads_of_an_owner() {
    let store = Arc::new(Store::default());
    let wins = winners(&[owner(&store)], 8, 2_048);
    assert!(wins.iter().all(|wins| *wins == 1));
    assert_eq!(store.judged(), 0, "an owner whose memory holds all has nothing to ask");
}

/// A store that holds its callers up until it is let go.
struct Held {
    inner: MemoryConfirmer,
    arrived: AtomicUsize,
    is_open: AtomicBool,
    fails: AtomicBool,
}

impl Held {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryConfirmer::new(),
            arrived: AtomicUsize::new(0),
            is_open: AtomicBool::new(false),
            fails: AtomicBool::new(false),
        })
    }

    fn wait_for_caller(&self) {
        while self.arrived.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
    }
}

impl Confirmer for Held {
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Vec<Answer>, StoreError> {
        if sightings.iter().all(|sighting| sighting.key == b"other") {
            return self.inner.confirm(sightings, rule);
        }
        self.arrived.fetch_add(1, Ordering::SeqCst);
        while !self.is_open.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        if self.fails.swap(false, Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "injected"));
        }
        self.inner.confirm(sightings, rule)
    }

    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.inner.look(keys)
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.inner.forget(keys)
    }
}

/// Two checks of one key while the store is held up: the first one's and the
/// second one's outcome.
fn two_checks(store: &Arc<Held>) -> [Result<Verdict, CheckError>; 2] {
    let builder = Deduper::builder(Window::unbounded()).capacity(1_000);
    let dedup = builder.confirm(Arc::clone(store), Ownership::Shared, Reject).build().unwrap();
    thread::scope(|scope| {
        let first = scope.spawn(|| dedup.check(b"key"));
        store.wait_for_caller();
        let second = scope.spawn(|| dedup.check(b"key"));
        assert_eq!(dedup.check(b"other"), Ok(Verdict::Unique), "other keys are served");
        thread::sleep(Duration::from_millis(20));
        assert!(!second.is_finished(), "a pending key has no verdict");
        assert_eq!(store.arrived.load(Ordering::SeqCst), 1, "one call for one key");
        store.is_open.store(true, Ordering::SeqCst);
        [first, second].map(|check| check.join().unwrap())
    })
}

#[test]
fn a_key_that_is_being_confirmed_is_waited_for() {
    assert_eq!(two_checks(&Held::new()), [Ok(Verdict::Unique), Ok(Verdict::Duplicate)]);
}

#[test]
fn a_key_whose_confirmation_failed_is_not_held_against_who_waited() {
    let store = Held::new();
    store.fails.store(true, Ordering::SeqCst);
    let [first, second] = two_checks(&store);
    assert!(matches!(first, Err(CheckError::Unconfirmed(_))), "{first:?}");
    assert_eq!(second, Ok(Verdict::Unique));
}

#[test]
fn what_the_table_gives_up_the_store_answers() {
    const KEYS: u32 = 600_000;
    let store = Arc::new(Store::default());
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000)));
    let dedup = Deduper::builder(Window::fixed(SPAN).buckets(BUCKETS))
        .capacity(KEYS.into())
        .clock(Arc::clone(&clock))
        .memory_limit(9 << 20, OnFull::Spill)
        .confirm(Arc::clone(&store), Ownership::Exclusive, Reject)
        .build()
        .unwrap();
    let keys: Vec<_> = (0..KEYS).map(u32::to_le_bytes).collect();
    let mut verdicts = vec![Verdict::Late; keys.len()];
    let in_a_bucket = keys.len().div_ceil(BUCKETS as usize);
    for (keys, verdicts) in keys.chunks(in_a_bucket).zip(verdicts.chunks_mut(in_a_bucket)) {
        dedup.check_batch(keys, verdicts).unwrap();
        clock.advance(WIDTH);
    }
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Unique));
    let stats = dedup.stats().confirmer.unwrap();
    assert!(stats.spilled > u64::from(KEYS) / 10, "{stats:?}");
    assert!(stats.memory_is_whole);
    // A filter at 1 %: some new keys are asked about, few.
    assert!(stats.asked_in_vain as f64 <= 0.011 * f64::from(KEYS), "{stats:?}");
    assert_eq!(stats.asked, stats.asked_in_vain);
    dedup.check_batch(&keys, &mut verdicts).unwrap();
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Duplicate));
    assert!(dedup.stats().memory_bytes <= (9 << 20) / 100 * 105);
}

fn behind(store: &Arc<Store>, keys: usize) -> Tiered {
    Deduper::builder(Window::unbounded())
        .capacity(1_000)
        .write_behind(keys)
        .confirm(Arc::clone(store), Ownership::Exclusive, Reject)
        .build()
        .unwrap()
}

#[test]
fn verdicts_need_not_wait_for_the_store() {
    let store = Arc::new(Store::default());
    let dedup = behind(&store, 2);
    store.fail_next(Fault::Refused);
    assert_eq!(dedup.check(b"one"), Ok(Verdict::Unique));
    assert_eq!(dedup.check(b"one"), Ok(Verdict::Duplicate));
    assert_eq!(dedup.stats().confirmer.unwrap().queued, 1);
    assert_eq!(store.recorded.load(Ordering::Relaxed), 0);
    assert!(dedup.flush().is_err(), "the store fails once");
    assert_eq!(dedup.stats().confirmer.unwrap().queued, 1);
    dedup.flush().unwrap();
    assert_eq!(dedup.stats().confirmer.unwrap().queued, 0);
    assert_eq!(dedup.check(b"one"), Ok(Verdict::Duplicate));
}

fn admitting(store: &Arc<Store>) -> Deduper<Arc<Store>, Admit> {
    Deduper::builder(Window::unbounded())
        .capacity(1_000)
        .write_behind(2)
        .confirm(Arc::clone(store), Ownership::Exclusive, Admit)
        .build()
        .unwrap()
}

#[test]
fn what_is_queued_waits_for_the_store_whatever_the_policy() {
    let store = Arc::new(Store::default());
    let dedup = admitting(&store);
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
    store.fail_next(Fault::Refused);
    assert!(dedup.flush().is_err(), "the store fails once");
    assert_eq!(dedup.stats().confirmer.unwrap().queued, 1);
    dedup.flush().unwrap();
    drop(dedup);
    assert_eq!(owner(&store).check(b"key"), Ok(Verdict::Duplicate));
}

#[test]
fn what_is_queued_comes_after_what_is_to_be_forgotten() {
    let store = Arc::new(Store::default());
    let dedup = admitting(&store);
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
    dedup.flush().unwrap();
    store.fail_next(Fault::Refused);
    dedup.forget(b"key").unwrap();
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
    dedup.flush().unwrap();
    dedup.maintain(Duration::from_secs(1)).unwrap();
    drop(dedup);
    assert_eq!(owner(&store).check(b"key"), Ok(Verdict::Duplicate));
}

#[test]
fn checks_write_what_is_queued_when_there_is_enough() {
    let store = Arc::new(Store::default());
    let dedup = behind(&store, 2);
    assert_eq!(dedup.check(b"one"), Ok(Verdict::Unique));
    assert_eq!(dedup.stats().confirmer.unwrap().queued, 1);
    assert_eq!(dedup.check(b"two"), Ok(Verdict::Unique));
    assert_eq!(dedup.stats().confirmer.unwrap().queued, 0);
    dedup.check_batch(&[b"three", b"fours"], &mut [Verdict::Late; 2]).unwrap();
    assert_eq!(dedup.stats().confirmer.unwrap().queued, 0);
    assert_eq!(store.recorded.load(Ordering::Relaxed), 4);
}

#[test]
fn a_full_queue_has_checks_wait_for_the_store() {
    let store = Arc::new(Store::default());
    let dedup = behind(&store, 2);
    // Two are queued, then written as enough; of the rest some go the long way.
    for key in 0_u8..10 {
        assert_eq!(dedup.check(&[key]), Ok(Verdict::Unique));
        assert!(dedup.stats().confirmer.unwrap().queued <= 2);
    }
    store.faults.lock().unwrap().extend([Fault::Refused; 2]);
    let checks: Vec<_> = (10_u8..13).map(|key| dedup.check(&[key])).collect();
    assert!(checks.iter().any(Result::is_ok), "{checks:?}");
    for key in 0..13 {
        let known = dedup.check(&[key]).unwrap();
        let failed = key >= 10 && checks[usize::from(key) - 10].is_err();
        assert_eq!(known, if failed { Verdict::Unique } else { Verdict::Duplicate }, "{key}");
    }
}

#[test]
fn a_refresh_that_found_the_queue_full_is_not_lost() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000)));
    let store = Arc::new(Store::default());
    let build = || {
        Deduper::builder(Window::sliding(SPAN).buckets(BUCKETS))
            .capacity(1_000)
            .clock(Arc::clone(&clock))
            .write_behind(2)
            .confirm(Arc::clone(&store), Ownership::Exclusive, Reject)
            .build()
            .unwrap()
    };
    let dedup = build();
    // As long as the store fails, nothing leaves the queue.
    store.faults.lock().unwrap().extend([Fault::Refused; 3]);
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
    assert_eq!(dedup.check(b"other"), Ok(Verdict::Unique));
    clock.advance(2 * WIDTH);
    let mut failed = 0;
    while dedup.check(b"key").is_err() {
        failed += 1;
    }
    assert!(failed > 0);
    drop(dedup);
    clock.advance(3 * WIDTH);
    assert_eq!(build().check(b"key"), Ok(Verdict::Duplicate));
}

#[test]
fn what_is_on_its_way_arrives_when_the_deduper_is_dropped() {
    let store = Arc::new(Store::default());
    let dedup = behind(&store, 1_000);
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
    drop(dedup);
    assert_eq!(owner(&store).check(b"key"), Ok(Verdict::Duplicate));
}

#[test]
fn a_key_forgotten_on_its_way_does_not_arrive() {
    let store = Arc::new(Store::default());
    let dedup = behind(&store, 1_000);
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
    dedup.forget(b"key").unwrap();
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
    dedup.forget(b"key").unwrap();
    drop(dedup);
    assert_eq!(owner(&store).check(b"key"), Ok(Verdict::Unique));
}

/// The store for asynchronous callers.
struct Both(Arc<Store>);

impl AsyncConfirmer for Both {
    async fn confirm(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Vec<Answer>, StoreError> {
        self.0.confirm(sightings, rule)
    }

    async fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.0.look(keys)
    }

    async fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.0.forget(keys)
    }
}

impl Confirmer for Both {
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Vec<Answer>, StoreError> {
        self.0.confirm(sightings, rule)
    }

    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.0.look(keys)
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.0.forget(keys)
    }
}

impl OwnedStore for Both {
    fn record(&self, sightings: &[Sighting<'_>]) -> Result<(), StoreError> {
        self.0.record(sightings)
    }

    fn recover(&self, visit: &mut dyn FnMut(&[u8], Bucket)) -> Result<(), StoreError> {
        self.0.recover(visit)
    }

    fn bind(&self, width: Option<Duration>) -> Result<(), StoreError> {
        self.0.bind(width)
    }

    fn epoch(&self) -> u64 {
        self.0.epoch()
    }
}

#[test]
fn a_key_forgotten_on_its_way_does_not_arrive_for_tasks_either() {
    let dedup = Deduper::builder(Window::unbounded())
        .capacity(1_000)
        .write_behind(1_000)
        .confirm(Both(Arc::default()), Ownership::Exclusive, Reject)
        .build()
        .unwrap();
    let calls = async {
        assert_eq!(dedup.check_async(b"key").await, Ok(Verdict::Unique));
        dedup.forget_async(b"key").await.unwrap();
        assert_eq!(dedup.check_async(b"key").await, Ok(Verdict::Unique));
    };
    let polled = pin!(calls).poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_ready());
}

#[test]
fn what_the_table_gives_up_on_its_way_is_known() {
    const KEYS: u32 = 600_000;
    let store = Arc::new(Store::default());
    let dedup = Deduper::builder(Window::unbounded())
        .capacity(KEYS.into())
        .memory_limit(9 << 20, OnFull::Spill)
        .write_behind(KEYS as usize)
        .confirm(Arc::clone(&store), Ownership::Exclusive, Reject)
        .breaker(Breaker::new().failures(u32::MAX))
        .build()
        .unwrap();
    // The store fails all the while, so that all stay on their way.
    store.faults.lock().unwrap().extend(vec![Fault::Refused; 10_000]);
    let keys: Vec<_> = (0..KEYS).map(u32::to_le_bytes).collect();
    let mut verdicts = vec![Verdict::Late; keys.len()];
    // A few false alarms of the filter have to ask, and fail.
    let failed: Vec<_> = keys.iter().filter(|key| dedup.check(*key).is_err()).collect();
    assert!(failed.len() < keys.len() / 50, "{}", failed.len());
    store.faults.lock().unwrap().clear();
    assert!(dedup.stats().confirmer.unwrap().spilled > 0);
    dedup.check_batch(&keys, &mut verdicts).unwrap();
    let uniques = verdicts.iter().filter(|verdict| verdict.is_unique()).count();
    assert_eq!(uniques, failed.len());
}

#[test]
fn a_key_whose_reply_was_lost_is_not_held_against_its_third_check() {
    use Fault::{Nothing, Refused, ReplyLost};
    let store = Arc::new(Store::default());
    let [here, there] = [shared(&store), shared(&store)];
    assert_eq!(there.check(b"known"), Ok(Verdict::Unique));
    store.fail(&[ReplyLost, ReplyLost]);
    assert!(matches!(here.check(b"key"), Err(CheckError::Uncertain(_))));
    // The key has its answer when the one before it fails.
    store.fail(&[Nothing, Refused]);
    let keys = [&b"known"[..], b"known", b"key"];
    let error = here.check_batch(&keys, &mut [Verdict::Late; 3]).unwrap_err();
    assert_eq!(error.completed, 1);
    assert_eq!(here.check(b"key"), Ok(Verdict::Unique));
    assert_eq!(here.check(b"key"), Ok(Verdict::Duplicate));
}

/// A store that never answers for one key.
struct Stuck(Arc<Store>);

impl AsyncConfirmer for Stuck {
    async fn confirm(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Vec<Answer>, StoreError> {
        if sightings.iter().any(|sighting| sighting.key == b"stuck") {
            std::future::pending::<()>().await;
        }
        self.0.confirm(sightings, rule)
    }

    async fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.0.look(keys)
    }

    async fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.0.forget(keys)
    }
}

#[test]
fn a_key_whose_reply_was_lost_is_not_held_against_it_when_a_future_is_dropped() {
    let store = Arc::new(Store::default());
    let dedup = Deduper::builder(Window::unbounded())
        .capacity(1_000)
        .confirm(Stuck(Arc::clone(&store)), Ownership::Shared, Reject)
        .build()
        .unwrap();
    // More than are asked about at once.
    let others: Vec<_> = (0_u32..2_000).map(u32::to_le_bytes).collect();
    let mut keys: Vec<&[u8]> = others.iter().map(|key| &key[..]).collect();
    (keys[0], keys[1_999]) = (b"key", b"stuck");
    let mut verdicts = vec![Verdict::Late; keys.len()];
    let mut context = Context::from_waker(Waker::noop());
    store.fail(&[Fault::ReplyLost, Fault::ReplyLost]);
    assert!(matches!(pin!(dedup.check_async(b"key")).poll(&mut context), Poll::Ready(Err(_))));
    assert!(pin!(dedup.check_batch_async(&keys, &mut verdicts)).poll(&mut context).is_pending());
    let checked = pin!(dedup.check_async(b"key")).poll(&mut context);
    assert_eq!(checked, Poll::Ready(Ok(Verdict::Unique)));
}

#[test]
fn a_duplicate_whose_moving_up_is_in_doubt_stays_one() {
    let store = Arc::new(Store::default());
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000)));
    let dedup = Deduper::builder(Window::sliding(SPAN).buckets(BUCKETS))
        .capacity(600_000)
        .clock(Arc::clone(&clock))
        .memory_limit(9 << 20, OnFull::Spill)
        .confirm(Arc::clone(&store), Ownership::Exclusive, Reject)
        .build()
        .unwrap();
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
    clock.advance(WIDTH);
    store.fail(&[Fault::ReplyLost, Fault::ReplyLost]);
    assert!(matches!(dedup.check(b"key"), Err(CheckError::Uncertain(_))));
    // The table gives up the bucket in which it knows the key.
    let others: Vec<_> = (0..600_000_u32).map(u32::to_le_bytes).collect();
    dedup.check_batch(&others, &mut vec![Verdict::Late; others.len()]).unwrap();
    assert!(dedup.stats().confirmer.unwrap().spilled > 0);
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Duplicate));
}

/// A deduper whose table has given up keys, all of which are in the store, and one
/// of those that the store has to be asked about.
fn spilled(store: &Arc<Store>, write_behind: usize) -> (Tiered, [u8; 4]) {
    const KEYS: u32 = 600_000;
    let dedup = Deduper::builder(Window::unbounded())
        .capacity(KEYS.into())
        .hash_secret([7; 32])
        .memory_limit(9 << 20, OnFull::Spill)
        .write_behind(write_behind)
        .confirm(Arc::clone(store), Ownership::Exclusive, Reject)
        .breaker(Breaker::new().failures(u32::MAX))
        .build()
        .unwrap();
    let keys: Vec<_> = (0..KEYS).map(u32::to_le_bytes).collect();
    dedup.check_batch(&keys, &mut vec![Verdict::Late; keys.len()]).unwrap();
    dedup.flush().unwrap();
    store.fail_next(Fault::Refused);
    let asked = keys.into_iter().find(|key| dedup.check(key).is_err()).unwrap();
    (dedup, asked)
}

#[test]
fn a_key_taken_back_on_its_way_is_not_held_against_its_retry() {
    let store = Arc::new(Store::default());
    let (dedup, asked) = spilled(&store, 1_000);
    store.fail_next(Fault::Refused);
    let error = dedup.check_batch(&[asked, *b"new!"], &mut [Verdict::Late; 2]).unwrap_err();
    assert_eq!(error.completed, 0);
    dedup.flush().unwrap();
    assert_eq!(dedup.stats().confirmer.unwrap().queued, 0);
    assert_eq!(dedup.check(b"new!"), Ok(Verdict::Unique));
    assert_eq!(dedup.check(b"new!"), Ok(Verdict::Duplicate));
    store.fail_next(Fault::Refused);
    dedup.check_batch(&[asked, *b"more"], &mut [Verdict::Late; 2]).unwrap_err();
    drop(dedup);
    let next = owner(&store);
    assert_eq!(next.check(b"more"), Ok(Verdict::Unique), "it does not arrive");
    assert_eq!(next.check(b"new!"), Ok(Verdict::Duplicate));
}

fn is_uncertain(error: &BatchErrorKind) -> bool {
    matches!(error, BatchErrorKind::Check(CheckError::Uncertain(_)))
}

#[test]
fn a_batch_that_recorded_more_than_it_completed_says_so() {
    let store = Arc::new(Store::default());
    let [here, there] = [shared(&store), shared(&store)];
    assert_eq!(there.check(b"known"), Ok(Verdict::Unique));
    store.fail(&[Fault::Nothing, Fault::Refused]);
    let keys = [&b"known"[..], b"known", b"new"];
    let error = here.check_batch(&keys, &mut [Verdict::Late; 3]).unwrap_err();
    assert_eq!(error.completed, 1);
    assert!(is_uncertain(&error.source), "{error:?}");
    // Of these, one has its verdict and the other was never recorded.
    store.fail(&[Fault::Nothing, Fault::Refused]);
    let error = here.check_batch(&keys[..2], &mut [Verdict::Late; 2]).unwrap_err();
    assert_eq!(error.completed, 1);
    assert!(!is_uncertain(&error.source), "{error:?}");
}

#[test]
fn nothing_is_recorded_when_the_store_cannot_judge() {
    let store = Arc::new(Store::default());
    let (dedup, asked) = spilled(&store, 0);
    let recorded = store.recorded.load(Ordering::Relaxed);
    store.fail_next(Fault::Refused);
    let error = dedup.check_batch(&[asked, *b"new!"], &mut [Verdict::Late; 2]).unwrap_err();
    assert_eq!((error.completed, store.recorded.load(Ordering::Relaxed)), (0, recorded));
    assert!(!is_uncertain(&error.source), "{error:?}");
    assert_eq!(dedup.check(b"new!"), Ok(Verdict::Unique));
    // What was judged is known when recording fails.
    let false_alarm = (600_000..700_000).map(u32::to_le_bytes).find(|key| {
        store.fail_next(Fault::Refused);
        let judged = store.judged();
        dedup.check(key).is_err() && store.judged() > judged
    });
    for (judged, is_recorded) in [(asked, false), (false_alarm.unwrap(), true)] {
        store.fail(&[Fault::Nothing, Fault::Refused]);
        let error = dedup.check_batch(&[*b"more", judged], &mut [Verdict::Late; 2]).unwrap_err();
        assert_eq!((error.completed, is_uncertain(&error.source)), (0, is_recorded), "{error:?}");
        let verdict = if is_recorded { Verdict::Unique } else { Verdict::Duplicate };
        assert_eq!(dedup.check(&judged), Ok(verdict));
    }
}

#[test]
fn an_owner_whose_clock_went_back_forgets_nothing() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000)));
    let store = Arc::new(Store::default());
    let build = || {
        Deduper::builder(Window::fixed(SPAN).buckets(BUCKETS))
            .capacity(1_000)
            .clock(Arc::clone(&clock))
            .confirm(Arc::clone(&store), Ownership::Exclusive, Reject)
            .build()
            .unwrap()
    };
    assert_eq!(build().check(b"key"), Ok(Verdict::Unique));
    clock.set(Timestamp::from_secs(500));
    let dedup = build();
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Duplicate));
    clock.set(Timestamp::from_secs(1_040));
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Duplicate));
    clock.set(Timestamp::from_secs(1_050));
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
}

#[test]
fn a_store_is_not_used_with_other_buckets() {
    let store = Arc::new(Store::default());
    let build = |buckets| {
        Deduper::builder(Window::fixed(SPAN).buckets(buckets))
            .capacity(1_000)
            .confirm(Arc::clone(&store), Ownership::Exclusive, Reject)
            .build()
    };
    assert_eq!(build(4).unwrap().check(b"key"), Ok(Verdict::Unique));
    let refused = build(8).unwrap_err();
    assert!(matches!(refused.problems(), [ConfigProblem::Recovery(_)]), "{refused}");
    assert_eq!(build(4).unwrap().check(b"key"), Ok(Verdict::Duplicate));
}

#[test]
fn an_owner_that_has_been_replaced_is_told_so() {
    let store = Arc::new(MemoryConfirmer::new());
    let builder = || Deduper::builder(Window::unbounded()).capacity(1_000);
    let dedup =
        builder().confirm(Arc::clone(&store), Ownership::Exclusive, Reject).build().unwrap();
    assert_eq!(dedup.check(b"before"), Ok(Verdict::Unique));
    let next = builder().confirm(store.take_over(), Ownership::Exclusive, Reject).build().unwrap();
    let fenced = dedup.check(b"after").unwrap_err();
    assert!(
        matches!(fenced, CheckError::Unconfirmed(error) if error.kind() == StoreErrorKind::Fenced)
    );
    assert_eq!(next.check(b"before"), Ok(Verdict::Duplicate));
    assert_eq!(next.check(b"after"), Ok(Verdict::Unique));
}

#[test]
fn a_forgotten_key_gets_in_again_everywhere() {
    let store = Arc::new(Store::default());
    let [here, there] = [shared(&store), shared(&store)];
    assert_eq!(here.check(b"key"), Ok(Verdict::Unique));
    assert_eq!(there.check(b"key"), Ok(Verdict::Duplicate));
    assert_eq!(there.contains(b"key"), Ok(true));
    here.forget(b"key").unwrap();
    assert_eq!(there.contains(b"key"), Ok(false));
    assert_eq!(there.check(b"key"), Ok(Verdict::Unique));
    assert_eq!(here.check(b"key"), Ok(Verdict::Duplicate));
}

#[test]
fn looking_for_a_key_records_nothing() {
    for dedup in [shared(&Arc::default()), owner(&Arc::default())] {
        assert_eq!(dedup.contains(b"key"), Ok(false));
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
        assert_eq!(dedup.contains(b"key"), Ok(true));
    }
}

#[test]
fn what_comes_late_is_not_looked_for() {
    let dedup = Deduper::builder(Window::fixed(SPAN).buckets(BUCKETS))
        .capacity(1_000)
        .clock(ManualClock::new(Timestamp::from_secs(1_000)))
        .event_time(Duration::ZERO)
        .confirm(MemoryConfirmer::new(), Ownership::Shared, Reject)
        .build()
        .unwrap();
    let [early, late] = [1_000, 1_030].map(Timestamp::from_secs);
    assert_eq!(dedup.check_at(b"key", early), Ok(Verdict::Unique));
    assert_eq!(dedup.contains_at(b"key", early), Ok(true));
    assert_eq!(dedup.check_at(b"other", late), Ok(Verdict::Unique));
    assert_eq!(dedup.check_at(b"key", early), Ok(Verdict::Late));
    assert_eq!(dedup.contains_at(b"key", early), Ok(false));
}

#[test]
fn a_failed_batch_is_a_completed_prefix() {
    let store = Arc::new(Store::default());
    let dedup = shared(&store);
    assert_eq!(dedup.check(b"known"), Ok(Verdict::Unique));
    store.fail_next(Fault::Refused);
    let keys = [&b"known"[..], b"new", b"known"];
    let mut verdicts = [Verdict::Late; 3];
    let error = dedup.check_batch(&keys, &mut verdicts).unwrap_err();
    assert_eq!((error.completed, verdicts[0]), (1, Verdict::Duplicate));
    assert!(matches!(error.source, BatchErrorKind::Check(CheckError::Unconfirmed(_))));
    assert_eq!(dedup.check(b"new"), Ok(Verdict::Unique));
}

#[test]
fn a_key_too_long_for_memory_is_known_to_the_store() {
    let dedup = Deduper::builder(Window::unbounded())
        .capacity(1_000)
        .mode(Mode::verified())
        .memory_limit(8 << 20, OnFull::Spill)
        .confirm(MemoryConfirmer::new(), Ownership::Exclusive, Reject)
        .build()
        .unwrap();
    let key = vec![7; 5 << 20];
    assert_eq!(dedup.check(&key), Ok(Verdict::Unique));
    assert_eq!(dedup.check(&key), Ok(Verdict::Duplicate));
}

#[test]
fn a_limit_that_cannot_hold_table_and_filter_is_refused() {
    for bytes in [4_500_000, (8 << 20) - 1] {
        let small = Deduper::builder(Window::unbounded())
            .capacity(450_000)
            .memory_limit(bytes, OnFull::Spill)
            .confirm(MemoryConfirmer::new(), Ownership::Exclusive, Reject)
            .build()
            .unwrap_err();
        let needed_bytes = 8 << 20;
        let problem = ConfigProblem::LimitTooSmall { limit_bytes: bytes, needed_bytes };
        assert_eq!(small.problems(), [problem]);
    }
    for capacity in [1, 450_000, 1 << 40] {
        let least = Deduper::builder(Window::unbounded())
            .capacity(capacity)
            .memory_limit(8 << 20, OnFull::Spill)
            .confirm(MemoryConfirmer::new(), Ownership::Exclusive, Reject)
            .build();
        assert!(least.is_ok(), "{capacity}");
    }
}

#[test]
fn settings_that_do_not_go_together_are_refused() {
    let builder = || Deduper::builder(Window::unbounded());
    let alone = builder().memory_limit(1 << 30, OnFull::Spill).build().unwrap_err();
    assert_eq!(alone.problems(), [ConfigProblem::SpillPolicy]);
    let both = builder()
        .memory_limit(1 << 30, OnFull::Reject)
        .mode(Mode::filter(0.01))
        .filter_rate(2.0)
        .confirm(MemoryConfirmer::new(), Ownership::Shared, Reject)
        .build()
        .unwrap_err();
    assert_eq!(
        both.problems(),
        [
            ConfigProblem::SpillPolicy,
            ConfigProblem::FilterRate(2.0),
            ConfigProblem::FilterWithConfirmer
        ]
    );
}

/// A process that shares a store with others, and has its own clock.
fn one_of_several(store: &Arc<Store>, lateness: Option<Duration>) -> (Tiered, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000)));
    let builder = Deduper::builder(Window::fixed(SPAN).buckets(BUCKETS))
        .capacity(1_000)
        .clock(Arc::clone(&clock))
        .confirm(Arc::clone(store), Ownership::Shared, Reject);
    let builder = match lateness {
        Some(lateness) => builder.event_time(lateness),
        None => builder,
    };
    (builder.build().unwrap(), clock)
}

#[test]
fn a_process_whose_clock_is_ahead_leaves_others_their_records() {
    let store = Arc::new(Store::default());
    let [(winner, _), (other, _), (ahead, clock)] = [(); 3].map(|()| one_of_several(&store, None));
    assert_eq!(winner.check(b"key"), Ok(Verdict::Unique));
    clock.advance(Duration::from_secs(60));
    ahead.maintain(Duration::ZERO).unwrap();
    assert_eq!(other.check(b"key"), Ok(Verdict::Duplicate));
    // Dead for all whose clocks are no more than a minute apart.
    clock.advance(SPAN + WIDTH);
    ahead.maintain(Duration::ZERO).unwrap();
    assert_eq!(store.look(&[b"key"]), Ok(vec![None]));
}

#[test]
fn a_process_whose_records_are_ahead_leaves_others_theirs() {
    let store = Arc::new(Store::default());
    let [(winner, _), (other, _), (ahead, _)] =
        [(); 3].map(|()| one_of_several(&store, Some(Duration::ZERO)));
    let [here, there] = [1_000, 4_600].map(Timestamp::from_secs);
    assert_eq!(winner.check_at(b"key", here), Ok(Verdict::Unique));
    assert_eq!(ahead.check_at(b"another", there), Ok(Verdict::Unique));
    ahead.maintain(Duration::ZERO).unwrap();
    assert_eq!(other.check_at(b"key", here), Ok(Verdict::Duplicate));
}

/// Keys that were won here, checked in later buckets while the store cannot answer.
fn known_in_an_outage<P: Outage<Instead: Confirmer>>(outage: P) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000)));
    let store = Arc::new(Store::default());
    let dedup = Deduper::builder(Window::sliding(SPAN).buckets(BUCKETS))
        .capacity(1_000)
        .clock(Arc::clone(&clock))
        .confirm(Arc::clone(&store), Ownership::Shared, outage)
        .build()
        .unwrap();
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
    for _ in 0..2 * BUCKETS {
        clock.advance(WIDTH);
        store.fail_next(Fault::Refused);
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Duplicate));
        assert!(store.faults.lock().unwrap().is_empty(), "the store is asked to move it up");
    }
    store.fail_next(Fault::Refused);
    assert_eq!(dedup.check(b"new"), Ok(Verdict::Unconfirmed));
}

#[test]
fn a_key_that_memory_knows_is_let_through_by_no_outage() {
    known_in_an_outage(Admit);
    known_in_an_outage(Fallback::new(MemoryConfirmer::new()));
}

#[test]
fn a_key_forgotten_elsewhere_is_new_when_the_store_says_so() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000)));
    let store = Arc::new(Store::default());
    let dedup = Deduper::builder(Window::sliding(SPAN).buckets(BUCKETS))
        .capacity(1_000)
        .clock(Arc::clone(&clock))
        .confirm(Arc::clone(&store), Ownership::Shared, Admit)
        .build()
        .unwrap();
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
    store.forget(&[b"key"]).unwrap();
    clock.advance(WIDTH);
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
}

fn refusal<T>(result: Result<T, CheckError>) -> bool {
    let Err(CheckError::Unconfirmed(error)) = result else { return false };
    error.kind() == StoreErrorKind::Refused
}

#[test]
fn a_key_too_long_for_the_store_is_not_queued() {
    let store = Arc::new(Store::default());
    let dedup = behind(&store, 1_000);
    let long = vec![7; MAX_KEY_BYTES + 1];
    assert!(refusal(dedup.check(&long)));
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
    dedup.flush().unwrap();
    assert_eq!(dedup.stats().confirmer.unwrap().queued, 0);
    assert!(refusal(dedup.check(&long)), "it was not recorded");
    assert_eq!(dedup.check(&long[1..]), Ok(Verdict::Unique));
    dedup.flush().unwrap();
}

#[test]
fn a_queued_key_that_the_store_refuses_holds_no_other_up() {
    let store = Arc::new(Store::default());
    let dedup = behind(&store, 1_000);
    let is_unwelcome = |key: u8| key % 30 == 7;
    let queued_key = |key: u8| {
        if is_unwelcome(key) { [UNWELCOME, &[key]].concat() } else { vec![key] }
    };
    let keys: Vec<_> = (0..100).map(queued_key).collect();
    let mut verdicts = vec![Verdict::Late; keys.len()];
    dedup.check_batch(&keys, &mut verdicts).unwrap();
    assert!(verdicts.iter().all(|verdict| *verdict == Verdict::Unique));
    assert!(refusal(dedup.flush()));
    let found = store.look(&keys.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    for (key, found) in (0..100).zip(&found) {
        assert_eq!(found.is_none(), is_unwelcome(key), "{key}");
    }
    assert_eq!(dedup.stats().confirmer.unwrap().queued, 4);
    // Those that came later are not held up either, and maintenance goes on.
    assert_eq!(dedup.check(b"later"), Ok(Verdict::Unique));
    assert!(refusal(dedup.maintain(Duration::from_secs(1))));
    assert_eq!(dedup.stats().confirmer.unwrap().queued, 4);
    assert_eq!(dedup.check(&keys[7]), Ok(Verdict::Duplicate), "it is still on its way");
}

#[test]
fn many_refused_keys_hold_no_other_up() {
    let store = Arc::new(Store::default());
    let dedup = behind(&store, 1_000);
    for key in 0..50_u8 {
        assert_eq!(dedup.check(&[UNWELCOME, &[key]].concat()), Ok(Verdict::Unique));
    }
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
    assert!(refusal(dedup.flush()));
    assert_eq!(dedup.stats().confirmer.unwrap().queued, 50);
    assert!(store.look(&[b"key"]).unwrap()[0].is_some());
}

#[test]
fn a_batch_is_completed_up_to_the_key_that_the_store_refuses() {
    for dedup in [shared(&Arc::default()), owner(&Arc::default())] {
        for place in 0..9 {
            let mut keys: Vec<_> = (0..9).map(|key| vec![place, key]).collect();
            keys[usize::from(place)] = UNWELCOME.to_vec();
            let mut verdicts = vec![Verdict::Late; keys.len()];
            let error = dedup.check_batch(&keys, &mut verdicts).unwrap_err();
            assert_eq!(error.completed, usize::from(place));
            assert!(verdicts[..error.completed].iter().all(|verdict| verdict.is_unique()));
            for (index, key) in keys.iter().enumerate().filter(|(_, key)| *key != UNWELCOME) {
                let is_new = dedup.check(key).unwrap().is_unique();
                assert_eq!(is_new, index > error.completed, "{index} of {place}");
            }
        }
    }
}

/// An owned store that has its deduper queue more keys whenever it writes some.
#[derive(Default)]
struct Fed {
    inner: MemoryConfirmer,
    dedup: OnceLock<Arc<Deduper<Arc<Self>>>>,
    keys_per_write: u32,
    fed: AtomicUsize,
}

impl Fed {
    /// No test waits for ever.
    const MOST: usize = 200_000;

    fn feed(&self) {
        let Some(dedup) = self.dedup.get() else { return };
        for _ in 0..self.keys_per_write {
            let number = self.fed.fetch_add(1, Ordering::Relaxed);
            if number < Self::MOST {
                assert_eq!(dedup.check(&number.to_le_bytes()), Ok(Verdict::Unique));
            }
        }
    }

    /// A deduper with one key on its way.
    fn deduper(keys_per_write: u32) -> (Arc<Deduper<Arc<Self>>>, Arc<Self>) {
        let store = Arc::new(Self { keys_per_write, ..Self::default() });
        let dedup = Deduper::builder(Window::unbounded())
            .capacity(1_000)
            .write_behind(1 << 20)
            .confirm(Arc::clone(&store), Ownership::Exclusive, Reject)
            .build()
            .unwrap();
        let dedup = Arc::new(dedup);
        assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique));
        assert!(store.dedup.set(Arc::clone(&dedup)).is_ok());
        (dedup, store)
    }
}

impl Confirmer for Fed {
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Vec<Answer>, StoreError> {
        self.inner.confirm(sightings, rule)
    }

    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.inner.look(keys)
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.inner.forget(keys)
    }
}

impl OwnedStore for Fed {
    fn record(&self, sightings: &[Sighting<'_>]) -> Result<(), StoreError> {
        self.feed();
        self.inner.record(sightings)
    }

    fn recover(&self, visit: &mut dyn FnMut(&[u8], Bucket)) -> Result<(), StoreError> {
        self.inner.recover(visit)
    }

    fn bind(&self, width: Option<Duration>) -> Result<(), StoreError> {
        self.inner.bind(width)
    }

    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }
}

#[test]
fn what_is_queued_meanwhile_keeps_no_flush_from_its_end() {
    let (dedup, store) = Fed::deduper(1);
    dedup.flush().unwrap();
    assert_eq!(store.fed.load(Ordering::Relaxed), 1);
    assert!(store.look(&[b"key"]).unwrap()[0].is_some());
    dedup.forget(b"key").unwrap();
    assert_eq!(store.fed.load(Ordering::Relaxed), 2);
    assert_eq!(store.look(&[b"key"]), Ok(vec![None]));
}

#[test]
fn maintenance_writes_no_longer_than_its_budget() {
    let (dedup, store) = Fed::deduper(5_000);
    for writes in 1..=3 {
        dedup.maintain(Duration::ZERO).unwrap();
        assert_eq!(store.fed.load(Ordering::Relaxed), writes * 5_000, "one write a call");
    }
}

#[test]
fn a_key_is_not_taken_for_another_one_on_its_way() {
    let store = Arc::new(Store::default());
    let dedup = Deduper::builder(Window::unbounded())
        .capacity(1_000)
        .mode(Mode::verified())
        .hash_with(|_| KeyHash::new(7))
        .write_behind(1_000)
        .confirm(Arc::clone(&store), Ownership::Exclusive, Reject)
        .build()
        .unwrap();
    for key in [b"one", b"two", b"six"] {
        assert_eq!(dedup.contains(key), Ok(false));
        assert_eq!(dedup.check(key), Ok(Verdict::Unique));
        assert_eq!(dedup.check(key), Ok(Verdict::Duplicate));
        assert_eq!(dedup.contains(key), Ok(true));
    }
    dedup.flush().unwrap();
    let mut verdicts = [Verdict::Late; 5];
    dedup.check_batch(&[b"two", b"new", b"ten", b"new", b"one"], &mut verdicts).unwrap();
    assert_eq!(verdicts.map(Verdict::is_unique), [false, true, true, false, false]);
    drop(dedup);
    let next = owner(&store);
    for key in [b"one", b"two", b"six", b"new", b"ten"] {
        assert_eq!(next.check(key), Ok(Verdict::Duplicate));
    }
}
