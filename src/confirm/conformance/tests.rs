//! The checks themselves: what keeps the contract passes, and each way to break
//! it fails the check that is named for it.

use super::faulty::{Fault, Faulty, Shared};
use super::{BlockOn, Blocking, Harness, Outcome, Trouble, check, check_owned};
use crate::confirm::{
    Answer, AsyncConfirmer, Confirmer, MemoryConfirmer, OwnedStore, Record, Rule, Sighting,
    StoreError, StoreErrorKind,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

/// Opens confirmers with one fault, between which and their callers replies can
/// be lost.
struct Bench {
    fault: Fault,
    stores: Mutex<HashMap<String, Arc<Shared>>>,
    switches: Arc<Switches>,
}

/// Trouble for stores that look here.
#[derive(Default)]
pub(super) struct Switches {
    pub(super) loses_reply: AtomicBool,
    pub(super) is_cut: AtomicBool,
    /// Nothing has been opened since.
    pub(super) is_restarted: AtomicBool,
}

impl Trouble for Switches {
    fn lose_next_reply(&self) -> bool {
        self.loses_reply.store(true, Ordering::SeqCst);
        true
    }

    fn cut_off(&self) -> bool {
        self.is_cut.store(true, Ordering::SeqCst);
        true
    }

    fn reconnect(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }

    fn restart(&self) -> bool {
        self.is_restarted.store(true, Ordering::SeqCst);
        true
    }
}

impl Bench {
    fn with(fault: Fault) -> Self {
        Self { fault, stores: Mutex::default(), switches: Arc::default() }
    }
}

impl Harness for Bench {
    type Confirmer = Troubled;

    fn open(&self, namespace: &str) -> Result<Troubled, StoreError> {
        let store = match self.fault {
            Fault::NamespaceIgnored | Fault::NamespaceJoined if namespace.starts_with("name") => {
                "namespaces"
            }
            _ => namespace,
        };
        let is_restarted = self.switches.is_restarted.swap(false, Ordering::SeqCst);
        if is_restarted && self.fault == Fault::LostOnRestart {
            self.stores.lock().clear();
        }
        // Only where namespaces share a map can they be mixed up.
        let shared = Arc::clone(self.stores.lock().entry(store.to_owned()).or_default());
        let inner = Faulty::open(self.fault, namespace, shared);
        Ok(Troubled { inner, switches: Arc::clone(&self.switches) })
    }

    fn trouble(&self) -> &dyn Trouble {
        &*self.switches
    }
}

struct Troubled {
    inner: Faulty,
    switches: Arc<Switches>,
}

impl Troubled {
    fn reached(&self) -> Result<(), StoreError> {
        use StoreErrorKind::{Refused, Unavailable};
        if !self.switches.is_cut.load(Ordering::SeqCst) {
            return Ok(());
        }
        let is_called_refused = self.inner.fault == Fault::CutOffCalledRefused;
        Err(StoreError::new(if is_called_refused { Refused } else { Unavailable }, "cut off"))
    }
}

impl Confirmer for Troubled {
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Vec<Answer>, StoreError> {
        use StoreErrorKind::{Unavailable, Uncertain};
        self.reached()?;
        let fault = self.inner.fault;
        let answers = self.inner.confirm(sightings, rule);
        if !self.switches.loses_reply.swap(false, Ordering::SeqCst) {
            return answers;
        }
        if fault == Fault::RetryAfterLostReplySeen {
            let keys: Vec<_> = sightings.iter().map(|sighting| sighting.key).collect();
            self.inner.forget(&keys)?;
            let other = sightings.iter().map(|sighting| Sighting {
                token: crate::confirm::Token::new(u64::MAX),
                ..*sighting
            });
            let _ = self.inner.confirm(&other.collect::<Vec<_>>(), rule)?;
        }
        let kind = if fault == Fault::LostReplyCalledUnavailable { Unavailable } else { Uncertain };
        Err(StoreError::new(kind, "the reply was lost"))
    }

    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        match self.reached() {
            Err(_) if self.inner.fault == Fault::CutOffLooksEmpty => Ok(vec![None; keys.len()]),
            Err(error) => Err(error),
            Ok(()) => self.inner.look(keys),
        }
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.inner.forget(keys)
    }

    fn expire(&self, before: crate::confirm::Bucket) -> Result<(), StoreError> {
        self.inner.expire(before)
    }
}

impl OwnedStore for Troubled {
    fn record(&self, sightings: &[Sighting<'_>]) -> Result<(), StoreError> {
        self.inner.record(sightings)
    }

    fn recover(
        &self,
        visit: &mut dyn FnMut(&[u8], crate::confirm::Bucket),
    ) -> Result<(), StoreError> {
        self.inner.recover(visit)
    }

    fn bind(&self, width: Option<std::time::Duration>) -> Result<(), StoreError> {
        self.inner.bind(width)
    }

    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }
}

#[test]
fn what_keeps_the_contract_passes_every_check() {
    let report = check_owned(&Bench::with(Fault::None));
    report.assert();
    let passed = |(name, outcome): (_, &Outcome)| assert_eq!(*outcome, Outcome::Passed, "{name}");
    report.outcomes().for_each(passed);
}

/// Each fault, and the check that is there to notice it. Others may, too.
const NOTICED: [(Fault, &str); 53] = [
    (Fault::NothingIsSeen, "first_new_then_seen"),
    (Fault::EdgeComesEarly, "fixed_window_edges"),
    (Fault::EdgeComesEarly, "sliding_window_edges"),
    (Fault::EdgeComesLate, "fixed_window_edges"),
    (Fault::FixedSlides, "fixed_window_edges"),
    (Fault::SlidingStays, "sliding_window_edges"),
    (Fault::SlidesBack, "sliding_window_edges"),
    (Fault::EarlierIsNew, "earlier_times_match"),
    (Fault::NewKeepsTheBucket, "new_after_the_window_moves_the_bucket"),
    (Fault::UnsignedBuckets, "buckets_of_any_number"),
    (Fault::TokensIgnored, "same_token_is_new_again"),
    (Fault::RetryStays, "a_later_retry_counts_from_then"),
    (Fault::RefreshTakesTheToken, "refresh_keeps_the_token"),
    (Fault::NotAtomic, "one_winner"),
    (Fault::RefusesAll, "one_winner"),
    (Fault::BatchJudgedAtOnce, "repeats_in_a_batch"),
    (Fault::AnswersReversed, "answers_in_order"),
    (Fault::AnswersMissing, "answers_in_order"),
    (Fault::EmptyBatchRefused, "empty_batch"),
    (Fault::TailDropped, "thousands_in_a_batch"),
    (Fault::LookRecords, "look_records_nothing"),
    (Fault::LookGivesNothing, "look_gives_what_is_held"),
    (Fault::LookGivesOtherTokens, "look_gives_what_is_held"),
    (Fault::LookGivesFirstBuckets, "look_gives_what_is_held"),
    (Fault::LookReversed, "look_answers_in_order"),
    (Fault::LookSkipsUnknown, "look_answers_in_order"),
    (Fault::ForgetsNothing, "forget_lets_in"),
    (Fault::ForgetsAll, "forget_lets_in"),
    (Fault::ExpiresTooMuch, "expire_spares_what_matches"),
    (Fault::EmptyKeyRefused, "empty_key"),
    (Fault::KeysCut, "long_keys"),
    (Fault::KeysEndAtZero, "binary_keys"),
    (Fault::KeysAreText, "binary_keys"),
    (Fault::LookTakesText, "binary_keys"),
    (Fault::CaseIgnored, "similar_keys"),
    (Fault::SpacesTrimmed, "similar_keys"),
    (Fault::NamespaceIgnored, "namespaces_apart"),
    (Fault::NamespaceJoined, "namespaces_apart"),
    (Fault::LostOnReopening, "reopening_keeps_all"),
    (Fault::RefreshLostOnReopening, "reopening_keeps_all"),
    (Fault::LostOnRestart, "restart_keeps_all"),
    (Fault::RetryAfterLostReplySeen, "lost_reply"),
    (Fault::LostReplyCalledUnavailable, "lost_reply"),
    (Fault::CutOffCalledRefused, "cut_off"),
    (Fault::CutOffLooksEmpty, "cut_off"),
    (Fault::RecordsNothing, "recorded_is_seen"),
    (Fault::RecordMovesBack, "recording_again_changes_nothing"),
    (Fault::RecordKeepsTheBucket, "recording_moves_the_bucket_up"),
    (Fault::RecoversInPart, "recover_visits_all"),
    (Fault::RecoversForgotten, "recover_visits_all"),
    (Fault::EpochStays, "epochs_rise"),
    (Fault::BindsToAny, "stays_bound_to_its_buckets"),
    (Fault::NotFenced, "new_owner_fences_the_previous"),
];

#[test]
fn each_fault_is_noticed_by_the_check_named_for_it() {
    for (fault, name) in NOTICED {
        let report = check_owned(&Bench::with(fault));
        assert!(report.failed().contains(&name), "{fault:?} passed {name}:\n{report}");
    }
}

#[test]
fn every_check_can_fail() {
    let report = check_owned(&Bench::with(Fault::None));
    for (name, _) in report.outcomes() {
        assert!(NOTICED.iter().any(|(_, noticing)| *noticing == name), "no fault fails {name}");
    }
}

/// Without means to make trouble.
#[derive(Default)]
struct InMemory(Mutex<HashMap<String, MemoryConfirmer>>);

impl Harness for InMemory {
    type Confirmer = MemoryConfirmer;

    fn open(&self, namespace: &str) -> Result<MemoryConfirmer, StoreError> {
        Ok(self.0.lock().entry(namespace.to_owned()).or_default().take_over())
    }
}

#[test]
fn the_memory_confirmer_keeps_the_contract() {
    let report = check_owned(&InMemory::default());
    report.assert();
    let not_run = report.outcomes().filter(|(_, outcome)| **outcome == Outcome::NotRun);
    let not_run: Vec<_> = not_run.map(|(name, _)| name).collect();
    assert_eq!(not_run, ["restart_keeps_all", "lost_reply", "cut_off"]);
}

/// A memory confirmer that yields once before it answers.
struct Yielding(MemoryConfirmer);

impl AsyncConfirmer for Yielding {
    async fn confirm(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Vec<Answer>, StoreError> {
        yield_once().await;
        self.0.confirm(sightings, rule)
    }

    async fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        yield_once().await;
        self.0.look(keys)
    }

    async fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        yield_once().await;
        self.0.forget(keys)
    }
}

pub(super) async fn yield_once() {
    let mut polls = 0;
    std::future::poll_fn(|_| {
        polls += 1;
        if polls > 1 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Polls until the end.
pub(super) struct Polling;

impl BlockOn for Polling {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return output;
            }
        }
    }
}

#[derive(Default)]
struct InMemoryAsync(InMemory);

impl Harness for InMemoryAsync {
    type Confirmer = Blocking<Yielding, Polling>;

    fn open(&self, namespace: &str) -> Result<Self::Confirmer, StoreError> {
        Ok(Blocking { store: Yielding(self.0.open(namespace)?), runtime: Polling })
    }
}

#[test]
fn an_asynchronous_confirmer_is_checked_through_blocking() {
    check(&InMemoryAsync::default()).assert();
}
