//! A confirmer that panics, blocks or answers nonsense for some keys, and what
//! becomes of the others meanwhile.

use crate::keys::{Key, key};
use crate::report::{Report, Status, grouped};
use crate::{Failure, Options};
use hapax::confirm::{
    Answer, Breaker, Bucket, Confirmer, MemoryConfirmer, OwnedStore, Ownership, Record, Reject,
    Rule, Sighting, StoreError,
};
use hapax::{Deduper, Verdict, Window};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

const THREADS: u64 = 4;
const BATCH: u64 = 32;

/// Keys for which the store is at fault.
const BAD_KEYS: usize = 8;

/// How long other keys may take in all, before those that are left count as
/// not served.
const PATIENCE: Duration = Duration::from_secs(100);

/// What a store does for some keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    PanicsAtOnce,
    PanicsAfterRecording,
    Blocks,
    AnswersTooFew,
    AnswersTooMany,
    /// It calls them seen in a bucket that is none of the window's.
    AnswersLongAgo,
}

const FAULTS: [Fault; 6] = [
    Fault::PanicsAtOnce,
    Fault::PanicsAfterRecording,
    Fault::Blocks,
    Fault::AnswersTooFew,
    Fault::AnswersTooMany,
    Fault::AnswersLongAgo,
];

pub(super) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let batches = if full { 5_000 } else { 250 };
    report.take("a confirmer that panics, blocks, talks nonsense", "100 % served, 0 wrong", || {
        let mut found = Found::default();
        for fault in FAULTS {
            found += meet(fault, Ownership::Shared, batches)?;
            found += meet(fault, Ownership::Exclusive, batches)?;
        }
        let Found { others, served, wrong } = found;
        let percent = 100.0 * served as f64 / others as f64;
        let figure =
            format!("{percent} % of {} other keys, {} wrong", grouped(others), grouped(wrong));
        Ok((figure, Status::of_run(served == others && wrong == 0, !full)))
    });
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    /// Checks of other keys, and those that were answered rightly while the store
    /// was at fault.
    others: u64,
    served: u64,
    /// Wrong verdicts of any key.
    wrong: u64,
}

impl std::ops::AddAssign for Found {
    fn add_assign(&mut self, other: Self) {
        self.others += other.others;
        self.served += other.served;
        self.wrong += other.wrong;
    }
}

/// A store in memory that is at fault for all keys but those of [`key`].
struct Faulty {
    inner: MemoryConfirmer,
    fault: Fault,
    is_mended: AtomicBool,
    /// Has it been at fault?
    has_erred: AtomicBool,
    gate: (Mutex<()>, Condvar),
}

impl Faulty {
    fn new(fault: Fault) -> Self {
        Self {
            inner: MemoryConfirmer::new(),
            fault,
            is_mended: AtomicBool::new(false),
            has_erred: AtomicBool::new(false),
            gate: Default::default(),
        }
    }

    fn mend(&self) {
        let _gate = self.gate.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_mended.store(true, Ordering::SeqCst);
        self.gate.1.notify_all();
    }

    fn is_mended(&self) -> bool {
        self.is_mended.load(Ordering::SeqCst)
    }

    /// What becomes of a call about these keys.
    fn fault(&self, sightings: &[Sighting<'_>]) -> Option<Fault> {
        let is_bad = sightings.iter().any(|sighting| sighting.key.len() != size_of::<Key>());
        if !is_bad || self.is_mended() {
            return None;
        }
        self.has_erred.store(true, Ordering::SeqCst);
        Some(self.fault)
    }

    fn wait_until_at_fault(&self) {
        while !self.has_erred.load(Ordering::SeqCst) {
            thread::yield_now();
        }
    }

    fn block(&self) {
        let gate = self.gate.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.gate.1.wait_while(gate, |()| !self.is_mended()));
    }

    /// Does `call` with the fault that these keys meet. A panic without the
    /// message that it would print.
    fn at_fault<T>(
        &self,
        sightings: &[Sighting<'_>],
        call: impl FnOnce() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let fault = self.fault(sightings);
        match fault {
            Some(Fault::PanicsAtOnce) => resume_unwind(Box::new("at once")),
            Some(Fault::Blocks) => self.block(),
            _ => {}
        }
        let done = call();
        if fault == Some(Fault::PanicsAfterRecording) {
            resume_unwind(Box::new("after recording"));
        }
        done
    }
}

impl Confirmer for Faulty {
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Vec<Answer>, StoreError> {
        let mut answers = self.at_fault(sightings, || self.inner.confirm(sightings, rule))?;
        match self.fault(sightings) {
            Some(Fault::AnswersTooFew) => answers.truncate(answers.len() - 1),
            Some(Fault::AnswersTooMany) => answers.push(Answer::New),
            Some(Fault::AnswersLongAgo) => answers.fill(Answer::Seen(Bucket::new(i64::MIN))),
            _ => {}
        }
        Ok(answers)
    }

    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.inner.look(keys)
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.inner.forget(keys)
    }
}

impl OwnedStore for Faulty {
    fn record(&self, sightings: &[Sighting<'_>]) -> Result<(), StoreError> {
        self.at_fault(sightings, || self.inner.record(sightings))
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

type Faced = Deduper<Arc<Faulty>>;

/// How often each bad key was unique.
type Uniques = [AtomicU64; BAD_KEYS];

/// Has threads check other keys while the store is at fault for some.
fn meet(fault: Fault, ownership: Ownership<Arc<Faulty>>, batches: u64) -> Result<Found, Failure> {
    let store = Arc::new(Faulty::new(fault));
    // What a breaker does is the outage policies' business.
    let dedup = Deduper::builder(Window::fixed(Duration::from_secs(3_600)))
        .capacity(THREADS * batches * BATCH)
        .confirm(Arc::clone(&store), ownership, Reject)
        .breaker(Breaker::new().failures(u32::MAX))
        .build()?;
    let (dedup, store) = (&dedup, &*store);
    let uniques = Uniques::default();
    let (served, wrong) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| check_bad(dedup, store, &uniques));
        }
        let (done, is_done) = mpsc::channel();
        for thread in 0..THREADS {
            let (done, served, wrong) = (done.clone(), &served, &wrong);
            scope.spawn(move || {
                store.wait_until_at_fault();
                for batch in thread * batches..(thread + 1) * batches {
                    let right = check_others(dedup, batch);
                    // What comes after the fault has ended was not served despite it.
                    served.fetch_add(if store.is_mended() { 0 } else { right }, Ordering::SeqCst);
                    wrong.fetch_add(2 * BATCH - right, Ordering::SeqCst);
                }
                // Nobody listens any more if this took too long.
                let _ = done.send(());
            });
        }
        let _ = (0..THREADS).try_for_each(|_| is_done.recv_timeout(PATIENCE));
        store.mend();
    });
    let is_mended = check_bad_once(dedup, &uniques);
    // However often it was asked about, each bad key is processed once.
    let not_once = uniques.iter().filter(|uniques| uniques.load(Ordering::SeqCst) != 1).count();
    Ok(Found {
        others: 2 * THREADS * batches * BATCH,
        served: served.into_inner(),
        wrong: wrong.into_inner() + not_once as u64 + u64::from(!is_mended),
    })
}

/// Checks new keys, one by one or in a batch, and each of them again; how many
/// verdicts are right.
fn check_others(dedup: &Faced, batch: u64) -> u64 {
    let keys: Vec<_> = (batch * BATCH..(batch + 1) * BATCH).map(key).collect();
    let expected = [Verdict::Unique, Verdict::Duplicate].into_iter();
    let rights = expected.map(|expected| {
        let mut verdicts = [Verdict::Late; BATCH as usize];
        if batch.is_multiple_of(2) {
            // What a batch that fails has not completed stays as it was.
            let _ = dedup.check_batch(&keys, &mut verdicts);
        } else {
            for (verdict, key) in verdicts.iter_mut().zip(&keys) {
                *verdict = dedup.check(key).unwrap_or(Verdict::Late);
            }
        }
        verdicts.iter().filter(|verdict| **verdict == expected).count() as u64
    });
    rights.sum()
}

/// Checks bad keys until the store is mended, and notes those that were unique.
fn check_bad(dedup: &Faced, store: &Faulty, uniques: &Uniques) {
    while !store.is_mended() {
        check_bad_once(dedup, uniques);
        thread::sleep(Duration::from_millis(1));
    }
}

/// True iff all of them were answered.
fn check_bad_once(dedup: &Faced, uniques: &Uniques) -> bool {
    let mut are_answered = true;
    for (number, uniques) in uniques.iter().enumerate() {
        let verdict = dedup.check(format!("bad {number}").as_bytes());
        uniques.fetch_add(u64::from(verdict == Ok(Verdict::Unique)), Ordering::SeqCst);
        are_answered &= verdict.is_ok();
    }
    are_answered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_served() {
        for fault in FAULTS {
            for ownership in [Ownership::Shared, Ownership::Exclusive] {
                let found = meet(fault, ownership, 4).unwrap();
                let others = 2 * THREADS * 4 * BATCH;
                assert_eq!(found, Found { others, served: others, wrong: 0 }, "{fault:?}");
            }
        }
    }

    #[test]
    fn the_store_is_at_fault_for_bad_keys_alone() {
        let rule = Rule::of(&Window::unbounded());
        let store = Faulty::new(Fault::AnswersTooMany);
        let answers = |key: &[u8]| {
            let sighting =
                Sighting { key, bucket: Bucket::new(1), token: hapax::confirm::Token::new(1) };
            store.confirm(&[sighting], rule).unwrap().len()
        };
        assert_eq!((answers(&key(1)), answers(b"bad")), (1, 2));
        store.mend();
        assert_eq!(answers(b"bad"), 1);
    }
}
