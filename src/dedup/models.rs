//! Models of whole checks: a deduper of a few shards, and time that moves on
//! between its threads.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::Deduper;
use crate::confirm::{MemoryConfirmer, Ownership, Reject};
use crate::sync::atomic::{AtomicI64, Ordering};
use crate::time::{Clock, Timestamp, Window};
use crate::verdict::Verdict;
use loom::thread;
use std::sync::Arc;
use std::time::Duration;

const BUCKET: Duration = Duration::from_secs(1);
const KEY: &[u8] = b"key";

/// A clock that the model checker sees.
struct ModelClock(AtomicI64);

impl Clock for ModelClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }
}

impl ModelClock {
    fn set(&self, buckets: u32) {
        self.0.store(at(buckets).as_micros(), Ordering::Relaxed);
    }
}

fn at(buckets: u32) -> Timestamp {
    Timestamp::from_secs(0).saturating_add(BUCKET * buckets)
}

/// A window of two buckets.
fn deduper(lateness: Option<Duration>) -> (Arc<Deduper>, Arc<ModelClock>) {
    let clock = Arc::new(ModelClock(AtomicI64::new(0)));
    let builder = Deduper::builder(Window::fixed(2 * BUCKET).buckets(2))
        .capacity(1)
        .hash_secret([7; 32])
        .clock(Arc::clone(&clock));
    let builder = match lateness {
        Some(lateness) => builder.event_time(lateness),
        None => builder,
    };
    (Arc::new(builder.build().expect("a valid configuration")), clock)
}

/// What one thread of a model does.
type Call = Box<dyn FnOnce(&Deduper) -> Verdict + Send>;

/// Runs calls of one deduper at once; their answers.
fn at_once<const N: usize>(dedup: &Arc<Deduper>, calls: [Call; N]) -> [Verdict; N] {
    let threads = calls.map(|call| {
        let dedup = Arc::clone(dedup);
        thread::spawn(move || call(&dedup))
    });
    threads.map(|thread| thread.join().unwrap())
}

fn check(dedup: &Deduper) -> Verdict {
    dedup.check(KEY).unwrap()
}

fn uniques(verdicts: &[Verdict]) -> usize {
    verdicts.iter().filter(|verdict| verdict.is_unique()).count()
}

#[test]
fn a_new_key_has_one_winner_while_the_bucket_changes() {
    loom::model(|| {
        let (dedup, clock) = deduper(None);
        let verdicts = at_once(
            &dedup,
            [
                Box::new(check),
                Box::new(move |dedup| {
                    clock.set(1);
                    check(dedup)
                }),
            ],
        );
        assert_eq!(uniques(&verdicts), 1, "{verdicts:?}");
        assert_eq!(dedup.stats().live_keys, 1);
    });
}

#[test]
fn a_key_has_one_winner_in_each_window() {
    // Three threads: with three switches it would take minutes.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let (dedup, clock) = deduper(None);
        assert_eq!(check(&dedup), Verdict::Unique);
        let verdicts = at_once(
            &dedup,
            [
                Box::new(check),
                Box::new(check),
                Box::new(move |dedup| {
                    clock.set(3);
                    check(dedup)
                }),
            ],
        );
        assert_eq!(uniques(&verdicts), 1, "{verdicts:?}");
        assert_eq!(check(&dedup), Verdict::Duplicate);
    });
}

#[test]
fn keys_of_different_shards_do_not_meet() {
    loom::model(|| {
        let (dedup, _clock) = deduper(None);
        let verdicts =
            at_once(&dedup, [Box::new(check), Box::new(|dedup| dedup.check(b"another").unwrap())]);
        assert_eq!(verdicts, [Verdict::Unique; 2]);
        assert_eq!(check(&dedup), Verdict::Duplicate);
        assert_eq!(dedup.stats().live_keys, 2);
    });
}

#[test]
fn in_event_time_a_record_is_late_or_one_of_two() {
    loom::model(|| {
        let (dedup, _clock) = deduper(Some(Duration::ZERO));
        let verdicts = at_once(
            &dedup,
            [
                Box::new(|dedup| dedup.check_at(KEY, at(0)).unwrap()),
                Box::new(|dedup| dedup.check_at(KEY, at(1)).unwrap()),
            ],
        );
        let expected = [[Verdict::Unique, Verdict::Duplicate], [Verdict::Late, Verdict::Unique]];
        assert!(expected.contains(&verdicts), "{verdicts:?}");
        assert_eq!(dedup.check_at(KEY, at(0)), Ok(Verdict::Late));
        assert_eq!(dedup.check_at(KEY, at(2)), Ok(Verdict::Duplicate));
    });
}

#[test]
fn a_key_that_is_forgotten_while_checked_is_let_in_once() {
    loom::model(|| {
        let (dedup, _clock) = deduper(None);
        assert_eq!(check(&dedup), Verdict::Unique);
        let verdicts = at_once(
            &dedup,
            [
                Box::new(check),
                Box::new(|dedup| {
                    assert!(dedup.forget(KEY));
                    check(dedup)
                }),
            ],
        );
        assert_eq!(uniques(&verdicts), 1, "{verdicts:?}");
    });
}

/// A deduper with a confirmer behind it, which takes part as one step.
fn confirmed(ownership: Ownership<Arc<MemoryConfirmer>>, write_behind: usize) -> Arc<Confirmed> {
    let clock = Arc::new(ModelClock(AtomicI64::new(0)));
    let builder = Deduper::builder(Window::fixed(2 * BUCKET).buckets(2))
        .capacity(1)
        .hash_secret([7; 32])
        .clock(clock)
        .write_behind(write_behind)
        .confirm(Arc::new(MemoryConfirmer::new()), ownership, Reject);
    Arc::new(builder.build().expect("a valid configuration"))
}

type Confirmed = Deduper<Arc<MemoryConfirmer>>;

/// Two threads at once; what they answer.
fn two_at_once(
    dedup: &Arc<Confirmed>,
    one: fn(&Confirmed) -> Verdict,
    other: fn(&Confirmed) -> Verdict,
) -> [Verdict; 2] {
    let threads = [one, other].map(|call| {
        let dedup = Arc::clone(dedup);
        thread::spawn(move || call(&dedup))
    });
    threads.map(|thread| thread.join().unwrap())
}

fn confirm(dedup: &Confirmed) -> Verdict {
    dedup.check(KEY).unwrap()
}

fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(run);
}

#[test]
fn a_key_that_is_confirmed_has_one_winner() {
    model(|| {
        let dedup = confirmed(Ownership::Shared, 0);
        assert_eq!(uniques(&two_at_once(&dedup, confirm, confirm)), 1);
        assert_eq!(confirm(&dedup), Verdict::Duplicate);
    });
}

#[test]
fn a_key_of_an_owner_has_one_winner() {
    for write_behind in [0, 1] {
        model(move || {
            let dedup = confirmed(Ownership::Exclusive, write_behind);
            assert_eq!(uniques(&two_at_once(&dedup, confirm, confirm)), 1);
            assert_eq!(confirm(&dedup), Verdict::Duplicate);
        });
    }
}

#[test]
fn a_key_that_is_forgotten_while_confirmed_is_let_in_once() {
    model(|| {
        let dedup = confirmed(Ownership::Shared, 0);
        assert_eq!(confirm(&dedup), Verdict::Unique);
        let verdicts = two_at_once(&dedup, confirm, |dedup| {
            dedup.forget(KEY).unwrap();
            confirm(dedup)
        });
        assert_eq!(uniques(&verdicts), 1, "{verdicts:?}");
    });
}
