//! Whatever happens to the cache, and in whatever order steps of several callers
//! come, the authority's word holds.

use super::{BARRIER, Tiered};
use crate::confirm::{
    Answer, AsyncConfirmer, Bucket, Confirmer, MemoryConfirmer, Record, Rule, Sighting, StoreError,
    StoreErrorKind, Token,
};
use crate::time::Window;
use parking_lot::Mutex;
use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

mod schedule;

const NOW: i64 = 1_000;
const BUCKETS: i64 = 8;
const SPAN: Duration = Duration::from_secs(480);
/// Longer than any test.
const LONG: Duration = Duration::from_secs(86_400);

fn fixed() -> Rule {
    Rule::of(&Window::fixed(SPAN).buckets(8))
}

fn sliding() -> Rule {
    Rule::of(&Window::sliding(SPAN).buckets(8))
}

fn sighting(key: &[u8], bucket: i64, token: u64) -> Sighting<'_> {
    Sighting { key, bucket: Bucket::new(bucket), token: Token::new(token) }
}

fn seen(bucket: i64) -> Answer {
    Answer::Seen(Bucket::new(bucket))
}

fn record(bucket: i64, token: u64) -> Record {
    Record { bucket: Bucket::new(bucket), token: Token::new(token) }
}

/// A store in memory with which all can go wrong.
#[derive(Default)]
struct Store {
    records: Mutex<MemoryConfirmer>,
    /// Every call fails so, and does nothing.
    fails: Mutex<Option<StoreErrorKind>>,
    /// The reply to the next confirmation is lost.
    loses_reply: AtomicBool,
    /// Nothing is recorded any more.
    is_full: AtomicBool,
    /// Replies lack their last entry.
    is_short: AtomicBool,
    confirms: AtomicUsize,
    looks: AtomicUsize,
}

impl Store {
    fn fail(&self, kind: impl Into<Option<StoreErrorKind>>) {
        *self.fails.lock() = kind.into();
    }

    fn lose_all(&self) {
        *self.records.lock() = MemoryConfirmer::new();
    }

    /// Calls so far.
    fn confirms(&self) -> usize {
        self.confirms.load(Ordering::SeqCst)
    }

    fn calls(&self) -> usize {
        self.confirms() + self.looks.load(Ordering::SeqCst)
    }

    fn held(&self, key: &[u8]) -> Option<Record> {
        self.records.lock().look(&[key]).unwrap()[0]
    }

    fn reached(&self) -> Result<(), StoreError> {
        self.fails.lock().map_or(Ok(()), |kind| Err(StoreError::new(kind, "as told")))
    }

    fn shortened<T>(&self, mut reply: Vec<T>) -> Vec<T> {
        if self.is_short.load(Ordering::SeqCst) {
            reply.pop();
        }
        reply
    }
}

impl Confirmer for Store {
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Vec<Answer>, StoreError> {
        self.confirms.fetch_add(1, Ordering::SeqCst);
        self.reached()?;
        if self.is_full.load(Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Full, "as told"));
        }
        let answers = self.records.lock().confirm(sightings, rule)?;
        if self.loses_reply.swap(false, Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Uncertain, "the reply was lost"));
        }
        Ok(self.shortened(answers))
    }

    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.reached()?;
        Ok(self.shortened(self.records.lock().look(keys)?))
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.reached()?;
        self.records.lock().forget(keys)
    }

    fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        self.reached()?;
        self.records.lock().expire(before)
    }
}

/// A cache and an authority.
type Stores = (Arc<Store>, Arc<Store>);

/// A tiered confirmer over two stores, with the means to make them trouble.
struct Bench {
    cache: Arc<Store>,
    authority: Arc<Store>,
    tiered: Tiered<Arc<Store>, Arc<Store>>,
}

impl Bench {
    /// With a cache that rests so long when it has failed.
    fn resting(rest: Duration) -> Self {
        let (cache, authority) = Stores::default();
        let tiered = Tiered::new(Arc::clone(&cache), Arc::clone(&authority)).rest(rest);
        Self { cache, authority, tiered }
    }

    fn new() -> Self {
        Self::resting(LONG)
    }

    fn ask(&self, rule: Rule, key: &str, bucket: i64, token: u64) -> Answer {
        self.tiered.confirm(&[sighting(key.as_bytes(), bucket, token)], rule).unwrap()[0]
    }
}

#[test]
fn the_cache_answers_for_duplicates() {
    let bench = Bench::new();
    assert_eq!(bench.ask(fixed(), "k", NOW, 1), Answer::New);
    assert_eq!(bench.authority.confirms(), 1);
    for at in [NOW, NOW - 30, NOW + BUCKETS] {
        assert_eq!(bench.ask(fixed(), "k", at, 2), seen(NOW));
    }
    assert_eq!(bench.authority.calls(), 1);
    assert_eq!(bench.ask(fixed(), "k", NOW + BUCKETS + 1, 3), Answer::New);
    assert_eq!(bench.ask(fixed(), "k", NOW + BUCKETS + 1, 4), seen(NOW + BUCKETS + 1));
    assert_eq!(bench.authority.calls(), 2);
    let stats = bench.tiered.stats();
    assert_eq!((stats.sightings, stats.short_cut, stats.uncached, stats.filled), (6, 4, 0, 2));
}

#[test]
fn the_authority_moves_a_key_and_the_cache_follows() {
    let bench = Bench::new();
    assert_eq!(bench.ask(sliding(), "k", NOW, 1), Answer::New);
    for step in 1..5 {
        let at = NOW + step * BUCKETS;
        let before = bench.authority.calls();
        assert_eq!(bench.ask(sliding(), "k", at, 2), seen(at));
        assert_eq!(bench.authority.calls(), before + 1);
        assert_eq!(bench.ask(sliding(), "k", at, 3), seen(at));
        assert_eq!(bench.ask(sliding(), "k", at - 1, 4), seen(at));
        assert_eq!(bench.authority.calls(), before + 1);
        assert_eq!(bench.cache.held(b"k"), Some(record(at, 1)));
        assert_eq!(bench.ask(sliding(), "k", NOW, 1), Answer::New, "the winner, asking again");
    }
}

#[test]
fn a_crash_between_authority_and_cache_loses_no_key_and_no_winner() {
    for rule in [fixed(), sliding()] {
        let bench = Bench::new();
        let own = [sighting(b"k", NOW, 1)];
        // The winner has recorded the key, and is gone before he told the cache.
        bench.authority.confirm(&own, rule).unwrap();
        assert_eq!(bench.ask(rule, "k", NOW, 2), seen(NOW));
        assert_eq!(bench.cache.held(b"k"), Some(record(NOW, 1)), "refilled, in the winner's name");
        let before = bench.authority.calls();
        assert_eq!(bench.ask(rule, "k", NOW, 3), seen(NOW));
        assert_eq!(bench.authority.calls(), before);
        // He comes back.
        assert_eq!(bench.tiered.confirm(&own, rule).unwrap(), [Answer::New]);
        assert_eq!(bench.ask(rule, "k", NOW, 2), seen(NOW));
    }
}

#[test]
fn a_lost_reply_of_the_authority_is_no_duplicate_when_asked_again() {
    let bench = Bench::new();
    bench.authority.loses_reply.store(true, Ordering::SeqCst);
    let own = [sighting(b"k", NOW, 1)];
    let error = bench.tiered.confirm(&own, fixed()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Uncertain);
    assert_eq!(bench.ask(fixed(), "k", NOW, 2), seen(NOW));
    assert_eq!(bench.tiered.confirm(&own, fixed()).unwrap(), [Answer::New]);
}

#[test]
fn a_lost_reply_of_the_cache_changes_nothing() {
    let bench = Bench::resting(Duration::ZERO);
    bench.cache.loses_reply.store(true, Ordering::SeqCst);
    assert_eq!(bench.ask(fixed(), "k", NOW, 1), Answer::New);
    assert_eq!(bench.ask(fixed(), "k", NOW, 1), Answer::New);
    assert_eq!(bench.ask(fixed(), "k", NOW, 2), seen(NOW));
}

#[test]
fn a_cache_that_lost_everything_is_refilled() {
    let bench = Bench::new();
    let keys: Vec<_> = (0..100).map(|number| format!("key {number}")).collect();
    let sightings =
        |token| -> Vec<_> { keys.iter().map(|key| sighting(key.as_bytes(), NOW, token)).collect() };
    bench.tiered.confirm(&sightings(1), fixed()).unwrap();
    bench.cache.lose_all();
    assert_eq!(bench.tiered.confirm(&sightings(2), fixed()).unwrap(), [seen(NOW); 100]);
    let before = bench.authority.calls();
    assert_eq!(bench.tiered.confirm(&sightings(3), fixed()).unwrap(), [seen(NOW); 100]);
    assert_eq!(bench.authority.calls(), before);
    assert_eq!(bench.tiered.confirm(&sightings(1), fixed()).unwrap(), [Answer::New; 100]);
}

#[test]
fn the_authority_is_asked_only_for_what_the_cache_leaves() {
    let bench = Bench::new();
    bench.ask(fixed(), "known", NOW, 1);
    let batch = [
        sighting(b"known", NOW, 2),
        sighting(b"new", NOW, 3),
        sighting(b"known", NOW, 4),
        sighting(b"new", NOW, 5),
    ];
    let before = bench.authority.calls();
    let answers = bench.tiered.confirm(&batch, fixed()).unwrap();
    assert_eq!(answers, [seen(NOW), Answer::New, seen(NOW), seen(NOW)]);
    assert_eq!(bench.authority.calls(), before + 1, "what was won in the batch needs no look");
    assert_eq!(bench.tiered.stats().short_cut, 2);
}

#[test]
fn one_key_through_time_in_a_batch_is_judged_in_order() {
    for rule in [fixed(), sliding()] {
        let (bench, plain) = (Bench::new(), MemoryConfirmer::new());
        let first = [sighting(b"k", NOW, 1)];
        bench.tiered.confirm(&first, rule).unwrap();
        plain.confirm(&first, rule).unwrap();
        let buckets = [NOW, NOW + BUCKETS + 1, NOW + 3, NOW + BUCKETS + 2, NOW + 40, NOW];
        let batch: Vec<_> =
            buckets.iter().zip(2..).map(|(at, token)| sighting(b"k", *at, token)).collect();
        let expected = plain.confirm(&batch, rule).unwrap();
        assert_eq!(bench.tiered.confirm(&batch, rule).unwrap(), expected);
    }
}

#[test]
fn a_cache_that_fails_is_left_alone_for_a_while() {
    let bench = Bench::new();
    bench.ask(fixed(), "known", NOW, 1);
    bench.cache.fail(StoreErrorKind::Timeout);
    let calls = bench.cache.calls();
    for token in 2..10 {
        assert_eq!(bench.ask(fixed(), "known", NOW, token), seen(NOW));
    }
    assert_eq!(bench.ask(fixed(), "new", NOW, 10), Answer::New);
    assert_eq!(bench.cache.calls(), calls + 1);
    let stats = bench.tiered.stats();
    assert_eq!((stats.cache_failures, stats.uncached), (1, 9));
    assert!(stats.is_cache_failing);
}

#[test]
fn a_full_cache_still_answers_for_what_it_holds() {
    let bench = Bench::new();
    bench.ask(fixed(), "known", NOW, 1);
    bench.cache.is_full.store(true, Ordering::SeqCst);
    assert_eq!(bench.ask(fixed(), "new", NOW, 2), Answer::New);
    let before = bench.authority.calls();
    assert_eq!(bench.ask(fixed(), "known", NOW, 3), seen(NOW));
    assert_eq!(bench.authority.calls(), before);
    assert_eq!(bench.tiered.stats().cache_failures, 1);
    assert_eq!(bench.tiered.forget(&[b"known"]).unwrap_err().kind(), StoreErrorKind::Full);
}

#[test]
fn a_cache_that_is_back_is_used_again() {
    let bench = Bench::resting(Duration::ZERO);
    bench.cache.fail(StoreErrorKind::Unavailable);
    assert_eq!(bench.ask(fixed(), "k", NOW, 1), Answer::New);
    assert_eq!(bench.ask(fixed(), "k", NOW, 2), seen(NOW));
    assert_eq!(bench.tiered.stats().cache_failures, 2);
    bench.cache.fail(None);
    assert_eq!(bench.ask(fixed(), "k", NOW, 3), seen(NOW));
    let before = bench.authority.calls();
    assert_eq!(bench.ask(fixed(), "k", NOW, 4), seen(NOW));
    assert_eq!(bench.authority.calls(), before);
    assert!(!bench.tiered.stats().is_cache_failing);
}

#[test]
fn a_cache_that_answers_nonsense_has_failed() {
    let bench = Bench::resting(Duration::ZERO);
    bench.cache.is_short.store(true, Ordering::SeqCst);
    assert_eq!(bench.ask(fixed(), "k", NOW, 1), Answer::New);
    assert_eq!(bench.ask(fixed(), "k", NOW, 2), seen(NOW));
    assert_eq!(bench.tiered.stats().cache_failures, 2);
}

#[test]
fn errors_of_the_authority_are_the_callers() {
    use StoreErrorKind::{Faulty, Fenced, Full, Refused, Timeout};
    let bench = Bench::new();
    bench.ask(fixed(), "known", NOW, 1);
    for kind in [Timeout, Fenced, Full, Refused] {
        bench.authority.fail(kind);
        let unknown = [sighting(b"k", NOW, 2)];
        assert_eq!(bench.tiered.confirm(&unknown, fixed()).unwrap_err().kind(), kind);
        assert_eq!(bench.tiered.look(&[b"known"]).unwrap_err().kind(), kind);
        assert_eq!(bench.tiered.forget(&[b"known"]).unwrap_err().kind(), kind);
        assert_eq!(bench.tiered.expire(Bucket::new(NOW)).unwrap_err().kind(), kind);
        assert_eq!(bench.ask(fixed(), "known", NOW, 3), seen(NOW), "the cache goes on");
    }
    bench.authority.fail(None);
    bench.authority.is_short.store(true, Ordering::SeqCst);
    let unknown = [sighting(b"k", NOW, 2)];
    assert_eq!(bench.tiered.confirm(&unknown, fixed()).unwrap_err().kind(), Faulty);
    assert_eq!(bench.tiered.forget(&[b"known"]).unwrap_err().kind(), Faulty);
    assert!(!bench.tiered.stats().is_cache_failing);
}

#[test]
fn a_forgotten_key_is_the_authoritys_alone_for_one_window() {
    let bench = Bench::new();
    assert_eq!(bench.ask(fixed(), "k", NOW, 1), Answer::New);
    bench.tiered.forget(&[b"k", b"never seen"]).unwrap();
    assert_eq!(bench.ask(fixed(), "k", NOW + 1, 2), Answer::New);
    let before = bench.authority.confirms();
    assert_eq!(bench.ask(fixed(), "k", NOW + 1, 3), seen(NOW + 1));
    assert_eq!(bench.ask(fixed(), "k", NOW + 1, 3), seen(NOW + 1));
    assert_eq!(bench.authority.confirms(), before + 2);
    let after = NOW + 1 + BUCKETS + 1;
    assert_eq!(bench.ask(fixed(), "k", after, 4), Answer::New);
    let before = bench.authority.confirms();
    assert_eq!(bench.ask(fixed(), "k", after, 5), seen(after));
    assert_eq!(bench.authority.confirms(), before);
}

#[test]
fn forgetting_again_raises_the_barrier_once_more() {
    let bench = Bench::new();
    let later = NOW + BUCKETS + 5;
    bench.ask(fixed(), "k", NOW, 1);
    bench.tiered.forget(&[b"k"]).unwrap();
    // Somebody's clock is ahead, and what he tells the cache is under way.
    let ahead = [sighting(b"k", later, 2)];
    bench.authority.confirm(&ahead, fixed()).unwrap();
    bench.tiered.forget(&[b"k"]).unwrap();
    bench.cache.confirm(&ahead, fixed()).unwrap();
    assert_eq!(bench.ask(fixed(), "k", later, 3), Answer::New);
}

#[test]
fn forgetting_overtakes_whatever_the_cache_holds() {
    let bench = Bench::new();
    bench.ask(fixed(), "k", NOW, 1);
    bench.cache.confirm(&[sighting(b"k", NOW + 50, 2)], fixed()).unwrap();
    bench.tiered.forget(&[b"k"]).unwrap();
    bench.cache.confirm(&[sighting(b"k", NOW + 50, 2)], fixed()).unwrap();
    assert_eq!(bench.ask(fixed(), "k", NOW + 50, 3), Answer::New);
}

#[test]
fn whoever_forgets_needs_not_have_asked_before() {
    let bench = Bench::new();
    let own = [sighting(b"k", NOW, 1)];
    bench.authority.confirm(&own, fixed()).unwrap();
    bench.tiered.forget(&[b"k"]).unwrap();
    bench.cache.confirm(&own, fixed()).unwrap();
    assert_eq!(bench.ask(fixed(), "k", NOW, 2), Answer::New);
}

#[test]
fn a_forget_that_the_cache_did_not_hear_says_so() {
    let bench = Bench::new();
    bench.ask(fixed(), "k", NOW, 1);
    bench.cache.fail(StoreErrorKind::Unavailable);
    let error = bench.tiered.forget(&[b"k"]).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert_eq!(bench.authority.held(b"k"), None, "forgotten, for those who do without the cache");
    bench.cache.fail(None);
    // Though the cache rests.
    bench.tiered.forget(&[b"k"]).unwrap();
    assert_eq!(bench.ask(fixed(), "k", NOW, 2), Answer::New);
}

#[test]
fn a_crash_between_cache_and_authority_forgets_nothing() {
    let bench = Bench::new();
    bench.ask(fixed(), "k", NOW, 1);
    // The barrier stands, and whoever raised it is gone.
    let barrier = Sighting { token: BARRIER, ..sighting(b"k", NOW + 1, 0) };
    bench.cache.confirm(&[barrier], fixed().giving_way()).unwrap();
    assert_eq!(bench.ask(fixed(), "k", NOW, 2), seen(NOW));
    assert_eq!(bench.ask(fixed(), "k", NOW, 1), Answer::New);
    bench.tiered.forget(&[b"k"]).unwrap();
    assert_eq!(bench.ask(fixed(), "k", NOW, 3), Answer::New);
}

#[test]
fn expiry_reaches_both_and_the_caches_failure_does_not_count() {
    let bench = Bench::new();
    bench.ask(fixed(), "k", NOW, 1);
    bench.tiered.expire(Bucket::new(NOW + 1)).unwrap();
    assert_eq!((bench.cache.held(b"k"), bench.authority.held(b"k")), (None, None));
    bench.ask(fixed(), "k", NOW, 2);
    bench.cache.fail(StoreErrorKind::Broken);
    bench.tiered.expire(Bucket::new(NOW + 1)).unwrap();
    assert_eq!(bench.authority.held(b"k"), None);
    assert_eq!(bench.tiered.stats().cache_failures, 1);
}

#[test]
fn nothing_is_asked_for_nothing() {
    let bench = Bench::new();
    assert_eq!(bench.tiered.confirm(&[], fixed()).unwrap(), []);
    bench.tiered.forget(&[]).unwrap();
    assert_eq!((bench.cache.calls(), bench.authority.calls()), (0, 0));
}

/// A store whose calls take two steps: they arrive with the first, and their
/// replies with the second.
struct Stepping {
    store: Arc<Store>,
    /// Confirmations that have set out.
    sent: AtomicUsize,
    /// Those given up on their way, which arrive all the same.
    late: Mutex<Vec<Late>>,
}

struct Late {
    sightings: Vec<(Vec<u8>, Bucket, Token)>,
    rule: Rule,
}

/// Makes a confirmation late when it is dropped on its way.
struct OnItsWay<'store> {
    to: &'store Stepping,
    call: Option<Late>,
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        self.to.late.lock().extend(self.call.take());
    }
}

impl Stepping {
    fn new(store: &Arc<Store>) -> Arc<Self> {
        let store = Arc::clone(store);
        Arc::new(Self { store, sent: AtomicUsize::new(0), late: Mutex::default() })
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }

    /// The earliest bucket of calls that are yet to arrive.
    fn oldest_late(&self) -> Option<i64> {
        let late = self.late.lock();
        let buckets = late.iter().flat_map(|late| &late.sightings);
        buckets.map(|(_, bucket, _)| bucket.number()).min()
    }

    /// Lets the calls arrive that were given up.
    fn arrive(&self) {
        for Late { sightings, rule } in mem::take(&mut *self.late.lock()) {
            let sightings: Vec<_> = sightings
                .iter()
                .map(|(key, bucket, token)| Sighting { key, bucket: *bucket, token: *token })
                .collect();
            // Nobody waits for the reply.
            let _ = self.store.confirm(&sightings, rule);
        }
    }
}

impl AsyncConfirmer for Arc<Stepping> {
    async fn confirm(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Vec<Answer>, StoreError> {
        let owned = |each: &Sighting<'_>| (each.key.to_vec(), each.bucket, each.token);
        let call = Late { sightings: sightings.iter().map(owned).collect(), rule };
        let mut on_its_way = OnItsWay { to: self, call: Some(call) };
        self.sent.fetch_add(1, Ordering::SeqCst);
        step().await;
        on_its_way.call = None;
        let reply = self.store.confirm(sightings, rule);
        step().await;
        reply
    }

    async fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        step().await;
        let reply = self.store.look(keys);
        step().await;
        reply
    }

    async fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        step().await;
        let reply = self.store.forget(keys);
        step().await;
        reply
    }

    async fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        step().await;
        let reply = self.store.expire(before);
        step().await;
        reply
    }
}

async fn step() {
    let mut is_taken = false;
    std::future::poll_fn(|_| {
        if mem::replace(&mut is_taken, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn take_step<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Takes all steps.
fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = take_step(future.as_mut()) {
            return output;
        }
    }
}

type Stepped = Tiered<Arc<Stepping>, Arc<Stepping>>;

/// Has something happen while what `filling` tells the cache is on its way.
fn while_filling(
    tiered: &Stepped,
    filling: impl Future<Output = Answer>,
    happens: impl FnOnce(),
) -> Answer {
    let mut filling = pin!(filling);
    let sent = tiered.cache().sent();
    while tiered.cache().sent() == sent {
        assert!(take_step(filling.as_mut()).is_pending(), "it tells the cache nothing");
    }
    happens();
    run(filling)
}

fn forget(tiered: &Stepped) {
    run(tiered.forget(&[b"k"])).unwrap();
}

async fn ask(tiered: &Stepped, rule: Rule, bucket: i64, token: u64) -> Answer {
    tiered.confirm(&[sighting(b"k", bucket, token)], rule).await.unwrap()[0]
}

fn stepped() -> Stepped {
    let stores = Stores::default();
    Tiered::new(Stepping::new(&stores.0), Stepping::new(&stores.1))
}

#[test]
fn what_a_winner_tells_the_cache_brings_no_forgotten_key_back() {
    for rule in [fixed(), sliding()] {
        let tiered = stepped();
        let answer = while_filling(&tiered, ask(&tiered, rule, NOW, 1), || forget(&tiered));
        assert_eq!(answer, Answer::New);
        assert_eq!(run(ask(&tiered, rule, NOW, 2)), Answer::New, "the retry gets in");
    }
}

#[test]
fn what_a_duplicate_tells_the_cache_brings_no_forgotten_key_back() {
    for rule in [fixed(), sliding()] {
        let tiered = stepped();
        let other = [sighting(b"k", NOW, 1)];
        tiered.authority().store.confirm(&other, rule).unwrap();
        let answer = while_filling(&tiered, ask(&tiered, rule, NOW, 2), || forget(&tiered));
        assert_eq!(answer, seen(NOW));
        assert_eq!(run(ask(&tiered, rule, NOW, 3)), Answer::New, "the retry gets in");
    }
}

#[test]
fn what_a_refresh_tells_the_cache_brings_no_forgotten_key_back() {
    let tiered = stepped();
    run(ask(&tiered, sliding(), NOW, 1));
    let refreshing = ask(&tiered, sliding(), NOW + 1, 2);
    let answer = while_filling(&tiered, refreshing, || forget(&tiered));
    assert_eq!(answer, seen(NOW + 1));
    assert_eq!(run(ask(&tiered, sliding(), NOW + 1, 3)), Answer::New, "the retry gets in");
}

#[test]
fn a_refresh_that_meets_no_record_leaves_none_of_its_own() {
    let tiered = stepped();
    run(ask(&tiered, sliding(), NOW, 1));
    let refreshing = ask(&tiered, sliding(), NOW + 1, 2);
    let answer = while_filling(&tiered, refreshing, || tiered.cache().store.lose_all());
    assert_eq!(answer, seen(NOW + 1));
    assert_eq!(run(ask(&tiered, sliding(), NOW, 1)), Answer::New, "the winner, asking again");
    assert_eq!(run(ask(&tiered, sliding(), NOW + 1, 2)), seen(NOW + 1));
}

#[test]
fn a_process_that_slept_a_window_long_brings_no_forgotten_key_back() {
    let tiered = stepped();
    let answer = while_filling(&tiered, ask(&tiered, fixed(), NOW, 1), || {
        forget(&tiered);
        run(tiered.expire(Bucket::new(NOW + 2))).unwrap();
        assert_eq!(tiered.cache().store.held(b"k"), None, "the barrier has expired");
    });
    assert_eq!(answer, Answer::New);
    assert_eq!(run(ask(&tiered, fixed(), NOW + BUCKETS + 1, 2)), Answer::New);
}

#[cfg(feature = "conformance")]
mod conformance {
    use super::*;
    use crate::confirm::conformance::{BlockOn, Blocking, Harness, Outcome, Trouble, check};
    use std::collections::HashMap;

    /// Opens tiered confirmers over stores in memory.
    #[derive(Default)]
    struct InMemory {
        stores: Mutex<HashMap<String, Stores>>,
        loses_cache: bool,
    }

    impl InMemory {
        fn stores(&self, namespace: &str) -> Stores {
            self.stores.lock().entry(namespace.to_owned()).or_default().clone()
        }
    }

    impl Harness for InMemory {
        type Confirmer = Tiered<Arc<Store>, Arc<Store>>;

        fn open(&self, namespace: &str) -> Result<Self::Confirmer, StoreError> {
            let (cache, authority) = self.stores(namespace);
            Ok(Tiered::new(cache, authority))
        }

        fn trouble(&self) -> &dyn Trouble {
            self
        }
    }

    impl Trouble for InMemory {
        fn lose_next_reply(&self) -> bool {
            for (_, authority) in self.stores.lock().values() {
                authority.loses_reply.store(true, Ordering::SeqCst);
            }
            true
        }

        fn cut_off(&self) -> bool {
            for (cache, authority) in self.stores.lock().values() {
                cache.fail(StoreErrorKind::Timeout);
                authority.fail(StoreErrorKind::Unavailable);
            }
            true
        }

        fn reconnect(&self) {
            for (cache, authority) in self.stores.lock().values() {
                cache.fail(None);
                authority.fail(None);
            }
        }

        fn restart(&self) -> bool {
            if self.loses_cache {
                self.stores.lock().values().for_each(|(cache, _)| cache.lose_all());
            }
            true
        }
    }

    fn assert_all_pass(report: &crate::confirm::conformance::Report) {
        report.assert();
        let all_ran = report.outcomes().all(|(_, outcome)| *outcome == Outcome::Passed);
        assert!(all_ran, "{report}");
    }

    #[test]
    fn keeps_the_contract() {
        assert_all_pass(&check(&InMemory::default()));
    }

    #[test]
    fn keeps_the_contract_though_the_cache_loses_all_at_a_restart() {
        assert_all_pass(&check(&InMemory { loses_cache: true, ..InMemory::default() }));
    }

    struct Running;

    impl BlockOn for Running {
        fn block_on<F: Future>(&self, future: F) -> F::Output {
            run(future)
        }
    }

    impl Harness for InMemoryAsync {
        type Confirmer = Blocking<Stepped, Running>;

        fn open(&self, namespace: &str) -> Result<Self::Confirmer, StoreError> {
            let (cache, authority) = self.0.stores(namespace);
            let confirmer = Tiered::new(Stepping::new(&cache), Stepping::new(&authority));
            Ok(Blocking { store: confirmer, runtime: Running })
        }
    }

    #[derive(Default)]
    struct InMemoryAsync(InMemory);

    #[test]
    fn keeps_the_contract_asynchronously() {
        check(&InMemoryAsync::default()).assert();
    }

    #[cfg(feature = "embedded")]
    mod embedded {
        use super::*;
        use crate::confirm::{Durability, EmbeddedConfirmer};

        /// Memory before a file.
        struct Files {
            folder: tempfile::TempDir,
            caches: InMemory,
        }

        impl Harness for Files {
            type Confirmer = Tiered<Arc<Store>, EmbeddedConfirmer>;

            fn open(&self, namespace: &str) -> Result<Self::Confirmer, StoreError> {
                let path = self.folder.path().join(namespace);
                let builder = EmbeddedConfirmer::builder(path).durability(Durability::Os);
                let (cache, _) = self.caches.stores(namespace);
                Ok(Tiered::new(cache, builder.cache(1 << 20).open()?))
            }

            fn trouble(&self) -> &dyn Trouble {
                self
            }
        }

        impl Trouble for Files {
            fn restart(&self) -> bool {
                self.caches.restart()
            }
        }

        #[test]
        fn keeps_the_contract_before_a_file() {
            let folder = tempfile::tempdir().unwrap();
            let caches = InMemory { loses_cache: true, ..InMemory::default() };
            check(&Files { folder, caches }).assert();
        }
    }
}
