//! The checks themselves: what keeps the contract passes, and each way to break
//! it fails the check that is named for it.

use super::case::Case;
use super::faulty::{Fault, Faulty, Shared};
use super::{ClaimHarness, all, check_claims};
use crate::confirm::StoreError;
use crate::confirm::claims::{
    Answer, AsyncClaimStore, ClaimRequest, ClaimStore, MemoryClaims, SettleRequest, Settled, Status,
};
use crate::confirm::conformance::tests::{Polling, Switches, yield_once};
use crate::confirm::conformance::{Blocking, Outcome, Report, Trouble};
use crate::time::{Clock, ManualClock, SystemClock, Timestamp};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn manual_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_secs(1_790_000_000)))
}

/// Opens stores with one fault, between which and their callers replies can be lost.
struct Bench {
    fault: Fault,
    clock: Arc<ManualClock>,
    stores: Mutex<HashMap<String, Arc<Shared>>>,
    switches: Arc<Switches>,
}

impl Bench {
    fn with(fault: Fault) -> Self {
        let clock = manual_clock();
        Self { fault, clock, stores: Mutex::default(), switches: Arc::default() }
    }
}

impl ClaimHarness for Bench {
    type Store = Faulty;

    fn open(&self, namespace: &str) -> Result<Faulty, StoreError> {
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
        let surroundings = (Arc::clone(&self.clock), Arc::clone(&self.switches));
        Ok(Faulty::open(self.fault, namespace, shared, surroundings))
    }

    fn clock(&self) -> Option<&ManualClock> {
        Some(&self.clock)
    }

    fn trouble(&self) -> &dyn Trouble {
        &*self.switches
    }
}

#[test]
fn what_keeps_the_contract_passes_every_check() {
    let report = check_claims(&Bench::with(Fault::None));
    report.assert();
    assert_eq!(not_run(&report), [""; 0]);
}

/// Each fault, and the check that is there to notice it. Others may, too.
const NOTICED: [(Fault, &str); 95] = [
    (Fault::GrantsAlways, "granted_then_in_flight_then_finished"),
    (Fault::RefusesAll, "granted_then_in_flight_then_finished"),
    (Fault::CompletionDropped, "granted_then_in_flight_then_finished"),
    (Fault::RemainingIsTheLease, "in_flight_says_since_when_and_how_long"),
    (Fault::SinceIsNow, "in_flight_says_since_when_and_how_long"),
    (Fault::DigestIgnored, "another_payload_is_a_mismatch"),
    (Fault::DigestIgnoredWhenFinished, "another_payload_is_a_mismatch"),
    (Fault::DigestIgnoredWhenLate, "another_payload_is_a_mismatch"),
    (Fault::MismatchAfterRelease, "another_payload_is_a_mismatch"),
    (Fault::TakeoverNotSaid, "attempts_count_and_fences_rise"),
    (Fault::AttemptsNotCounted, "attempts_count_and_fences_rise"),
    (Fault::FenceStays, "attempts_count_and_fences_rise"),
    (Fault::ClaimedAgainIsInFlight, "claimed_again_is_granted_again"),
    (Fault::ClaimedAgainCounts, "claimed_again_is_granted_again"),
    (Fault::ClaimedAgainKeepsTheLease, "claimed_again_is_granted_again"),
    (Fault::ClaimedAgainMovesSince, "claimed_again_is_granted_again"),
    (Fault::ClaimedAgainKeepsTheDigest, "claimed_again_is_granted_again"),
    (Fault::FailureIsSuccess, "outcomes_of_any_kind"),
    (Fault::EmptyIsTombstone, "outcomes_of_any_kind"),
    (Fault::TombstoneIsEmpty, "outcomes_of_any_kind"),
    (Fault::BytesAreText, "outcomes_of_any_kind"),
    (Fault::OutcomesCut, "large_outcomes"),
    (Fault::LookGivesNothing, "look_shows_what_is_held"),
    (Fault::LookHidesTheLate, "look_shows_what_is_held"),
    (Fault::LookShowsTheLease, "look_shows_what_is_held"),
    (Fault::LookClaims, "look_changes_nothing"),
    (Fault::LookExtends, "look_changes_nothing"),
    (Fault::CompletedAgainIsStale, "settled_again_changes_nothing"),
    (Fault::CompletedAgainIsWritten, "settled_again_changes_nothing"),
    (Fault::ReleasedAgainIsStale, "settled_again_changes_nothing"),
    (Fault::LateIsStale, "a_late_holder_may_settle"),
    (Fault::LateIsTakenOver, "a_late_holder_may_settle"),
    (Fault::AnyoneSettles, "stale_after_a_takeover"),
    (Fault::StaleIsWritten, "stale_after_a_takeover"),
    (Fault::AnyoneSettles, "stale_after_a_clear"),
    (Fault::ClearedMayComplete, "stale_after_a_clear"),
    (Fault::AnyoneSettles, "stale_for_whoever_does_not_hold_it"),
    (Fault::StaleIsWritten, "stale_for_whoever_does_not_hold_it"),
    (Fault::FreeIsCompleted, "stale_for_whoever_does_not_hold_it"),
    (Fault::FinishedIsReleased, "finished_is_final"),
    (Fault::FinishedIsExtended, "finished_is_final"),
    (Fault::ReleaseCountsAnew, "a_release_lets_in"),
    (Fault::ReleasesAll, "a_release_lets_in"),
    (Fault::ReleaseOfNothingIsStale, "a_release_lets_in"),
    (Fault::MismatchAfterRelease, "a_release_lets_in"),
    (Fault::ClearsNothing, "a_clear_lets_in"),
    (Fault::ClearsHeldAlone, "a_clear_lets_in"),
    (Fault::ClearCountsAnew, "a_clear_lets_in"),
    (Fault::ClearsAll, "a_clear_lets_in"),
    (Fault::AdoptsNothing, "what_finished_elsewhere_is_adopted"),
    (Fault::AdoptedAgainIsStale, "what_finished_elsewhere_is_adopted"),
    (Fault::AdoptsWithoutDigest, "what_finished_elsewhere_is_adopted"),
    (Fault::AdoptsNotFromTheLate, "what_finished_elsewhere_is_adopted"),
    (Fault::AdoptsOverAll, "adopted_only_where_nobody_is_at_it"),
    (Fault::AdoptsOverFinished, "adopted_only_where_nobody_is_at_it"),
    (Fault::TakenOverEarly, "taken_over_after_the_deadline_alone"),
    (Fault::TakenOverLate, "taken_over_after_the_deadline_alone"),
    (Fault::NeverTakenOver, "taken_over_after_the_deadline_alone"),
    (Fault::ExtendsNothing, "extended_from_then_on"),
    (Fault::ExtendAdds, "extended_from_then_on"),
    (Fault::ExtendMovesSince, "extended_from_then_on"),
    (Fault::ExtendKeepsTheTerms, "extended_from_then_on"),
    (Fault::KeptTooLong, "outcomes_are_kept_for_their_term_alone"),
    (Fault::KeptTooShort, "outcomes_are_kept_for_their_term_alone"),
    (Fault::KeptAsClaimed, "outcomes_are_kept_for_their_term_alone"),
    (Fault::AbandonedForEver, "an_abandoned_claim_is_forgotten"),
    (Fault::AbandonedAtTheDeadline, "an_abandoned_claim_is_forgotten"),
    (Fault::NothingKeptIsAll, "nothing_kept"),
    (Fault::EndlessOverflows, "endless_terms"),
    (Fault::SweepsHeld, "sweep_spares_what_is_alive"),
    (Fault::SweepsTheLate, "sweep_spares_what_is_alive"),
    (Fault::SweepsFinished, "sweep_spares_what_is_alive"),
    (Fault::SweepsReleased, "sweep_spares_what_is_alive"),
    (Fault::SweepsForEver, "sweep_spares_what_is_alive"),
    (Fault::EmptyIdRefused, "an_empty_identity"),
    (Fault::IdsCut, "long_identities"),
    (Fault::IdsEndAtZero, "binary_identities"),
    (Fault::IdsAreText, "binary_identities"),
    (Fault::CaseIgnored, "similar_identities"),
    (Fault::SpacesTrimmed, "similar_identities"),
    (Fault::NamespaceIgnored, "namespaces_apart"),
    (Fault::NamespaceJoined, "namespaces_apart"),
    (Fault::NotAtomic, "one_alone_is_granted"),
    (Fault::RefusesAll, "one_alone_is_granted"),
    (Fault::NotAtomicWhenReleased, "one_holder_at_a_time"),
    (Fault::NotAtomicWhenLate, "one_takes_over"),
    (Fault::LostOnReopening, "reopening_keeps_all"),
    (Fault::DigestsLostOnReopening, "reopening_keeps_all"),
    (Fault::ReleasedLostOnReopening, "reopening_keeps_all"),
    (Fault::LostOnRestart, "restart_keeps_all"),
    (Fault::ForgetsAfterLostReply, "lost_reply"),
    (Fault::LostReplyCalledUnavailable, "lost_reply"),
    (Fault::CutOffCalledRefused, "cut_off"),
    (Fault::CutOffLooksFree, "cut_off"),
    (Fault::CutOffSettlesNothing, "cut_off"),
];

/// The one check of this name.
fn check_alone(harness: &Bench, name: &str) -> Report {
    let named = all().filter(|(of, _)| *of == name);
    Report::of(named.map(|(name, check)| (name, check(&Case::new(harness, name)))))
}

#[test]
fn each_fault_is_noticed_by_the_check_named_for_it() {
    for (fault, name) in NOTICED {
        let report = check_alone(&Bench::with(fault), name);
        assert_eq!(report.failed(), [name], "{fault:?} passed");
    }
}

#[test]
fn every_check_can_fail() {
    for (name, _) in all::<Bench>() {
        assert!(NOTICED.iter().any(|(_, noticing)| *noticing == name), "no fault fails {name}");
    }
}

/// Stores in memory, without means to make trouble.
struct InMemory<C> {
    clock: Arc<C>,
    stores: Mutex<HashMap<String, Arc<MemoryClaims>>>,
}

impl<C: Clock + 'static> InMemory<C> {
    fn with(clock: Arc<C>) -> Self {
        Self { clock, stores: Mutex::default() }
    }

    fn store(&self, namespace: &str) -> Arc<MemoryClaims> {
        let new = || Arc::new(MemoryClaims::with_clock(Arc::clone(&self.clock) as Arc<dyn Clock>));
        Arc::clone(self.stores.lock().entry(namespace.to_owned()).or_insert_with(new))
    }
}

impl ClaimHarness for InMemory<ManualClock> {
    type Store = Arc<MemoryClaims>;

    fn open(&self, namespace: &str) -> Result<Arc<MemoryClaims>, StoreError> {
        Ok(self.store(namespace))
    }

    fn clock(&self) -> Option<&ManualClock> {
        Some(&self.clock)
    }
}

fn not_run(report: &Report) -> Vec<&'static str> {
    let not_run = report.outcomes().filter(|(_, outcome)| **outcome == Outcome::NotRun);
    not_run.map(|(name, _)| name).collect()
}

#[test]
fn claims_in_memory_keep_the_contract() {
    let report = check_claims(&InMemory::with(manual_clock()));
    report.assert();
    assert_eq!(not_run(&report), ["restart_keeps_all", "lost_reply", "cut_off"]);
}

/// Claims in memory that yield once before they answer.
struct Yielding(Arc<MemoryClaims>);

impl AsyncClaimStore for Yielding {
    async fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        yield_once().await;
        self.0.claim(id, request)
    }

    async fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        yield_once().await;
        self.0.settle(id, request)
    }

    async fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        yield_once().await;
        self.0.look(id)
    }

    async fn sweep(&self) -> Result<bool, StoreError> {
        yield_once().await;
        self.0.sweep()
    }
}

/// On the system's clock, as a server is.
impl ClaimHarness for InMemory<SystemClock> {
    type Store = Blocking<Yielding, Polling>;

    fn open(&self, namespace: &str) -> Result<Self::Store, StoreError> {
        Ok(Blocking { store: Yielding(self.store(namespace)), runtime: Polling })
    }
}

#[test]
fn an_asynchronous_store_in_real_time_is_checked_through_blocking() {
    check_claims(&InMemory::with(Arc::new(SystemClock::new()))).assert();
}
