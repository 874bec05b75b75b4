//! What each policy does, step by step.

use super::stage::{Mood, Policy, Stage, TERMS, both, outcome, request, standing_in};
use crate::confirm::StoreErrorKind;
use crate::confirm::claims::{Answer, ClaimStore, SettleRequest, Settled, Settlement, Status};
use crate::confirm::outage::Health;
use crate::confirm::{StoreError, Token};

fn is_granted(answer: &Result<Answer, StoreError>) -> bool {
    matches!(answer, Ok(Answer::Granted(_)))
}

fn is_unconfirmed(answer: &Result<Answer, StoreError>) -> bool {
    matches!(answer, Ok(Answer::Unconfirmed(_)))
}

fn is_in_flight(answer: &Result<Answer, StoreError>) -> bool {
    matches!(answer, Ok(Answer::InFlight { .. }))
}

fn kind<T: std::fmt::Debug>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.unwrap_err().kind()
}

fn finished() -> Status {
    Status::Finished(outcome())
}

#[test]
fn while_the_primary_is_well_it_alone_is_asked() {
    standing_in(|_, stage| {
        assert!(is_granted(&stage.claim("k", 1)));
        assert!(is_in_flight(&stage.claim("k", 2)));
        assert_eq!(stage.complete("k", 1), Ok(Settled::Done));
        assert_eq!(stage.claim("k", 2), Ok(Answer::Finished(outcome())));
        assert_eq!(stage.fallback.calls(), 0);
        assert_eq!(stage.health(), Health::Serving);
        assert_eq!(stage.stats().journal_keys, 0);
    });
}

#[test]
fn reject_says_what_is_wrong_and_spares_the_wait() {
    both(Policy::Reject, |stage| {
        assert!(is_granted(&stage.claim("before", 1)));
        stage.primary.is(Mood::SLOW);
        for _ in 0..3 {
            assert_eq!(kind(stage.claim("k", 2)), StoreErrorKind::Timeout);
        }
        let calls = stage.primary.calls();
        assert_eq!(kind(stage.claim("k", 2)), StoreErrorKind::Unavailable);
        assert_eq!(kind(stage.complete("before", 1)), StoreErrorKind::Unavailable);
        assert_eq!(kind(stage.look("before")), StoreErrorKind::Unavailable);
        assert_eq!(stage.primary.calls(), calls);
        stage.recover();
        assert_eq!(stage.complete("before", 1), Ok(Settled::Done));
        assert!(is_granted(&stage.claim("k", 2)));
        assert_eq!(stage.stats().openings, 1);
    });
}

#[test]
fn without_the_primary_still_one_runs_and_others_hear_of_it() {
    standing_in(|policy, stage| {
        stage.open();
        assert!(is_unconfirmed(&stage.claim("k", 1)));
        assert!(is_in_flight(&stage.claim("k", 2)));
        assert_eq!(stage.claim_with("k", 2, b"other"), Ok(Answer::Mismatch));
        assert!(matches!(stage.look("k"), Ok(Some(Status::InFlight { .. }))));
        assert_eq!(stage.complete("k", 1), Ok(Settled::Done));
        assert_eq!(stage.claim("k", 2), Ok(Answer::Finished(outcome())));
        assert_eq!(stage.look("k"), Ok(Some(finished())));
        assert_eq!(stage.in_primary("k"), None);
        let stats = stage.stats();
        assert_eq!(stats.journal_keys, 1);
        match policy {
            Policy::Fallback => assert_eq!((stats.admitted, stats.answered_by_fallback), (0, 4)),
            _ => assert_eq!((stats.admitted, stats.answered_by_fallback), (1, 0)),
        }
    });
}

#[test]
fn what_came_of_it_is_told_by_claims() {
    standing_in(|_, stage| {
        stage.open();
        for id in ["a", "b", "c"] {
            assert!(is_unconfirmed(&stage.claim(id, 1)));
            assert_eq!(stage.complete(id, 1), Ok(Settled::Done));
        }
        stage.recover();
        assert_eq!(stage.health(), Health::Returning { owed_keys: 3 });
        assert!(is_granted(&stage.claim("another", 2)));
        assert_eq!(stage.health(), Health::Returning { owed_keys: 1 });
        assert!(is_in_flight(&stage.claim("another", 3)));
        assert_eq!(stage.health(), Health::Serving);
        for id in ["a", "b", "c"] {
            assert_eq!(stage.in_primary(id), Some(finished()));
            assert_eq!(stage.claim(id, 4), Ok(Answer::Finished(outcome())));
            assert_eq!(stage.claim_with(id, 4, b"other"), Ok(Answer::Mismatch));
        }
        let stats = stage.stats();
        assert_eq!((stats.written_back, stats.let_through_twice), (3, 0));
        assert_eq!((stats.journal_keys, stats.journal_bytes), (0, 0));
    });
}

#[test]
fn what_came_of_it_is_told_by_sweeps() {
    standing_in(|_, stage| {
        stage.open();
        let ids: Vec<_> = (0..150).map(|id| format!("id-{id}")).collect();
        for id in &ids {
            assert!(is_unconfirmed(&stage.claim(id, 1)));
            assert_eq!(stage.complete(id, 1), Ok(Settled::Done));
        }
        assert_eq!(stage.sweep(), Ok(false));
        stage.recover();
        assert_eq!(stage.sweep(), Ok(true));
        stage.sweep_all();
        assert!(ids.iter().all(|id| stage.in_primary(id) == Some(finished())));
        assert_eq!(stage.health(), Health::Serving);
    });
}

#[test]
fn a_lease_is_settled_where_it_was_granted() {
    standing_in(|_, stage| {
        assert!(is_granted(&stage.claim("old", 1)));
        stage.open();
        assert!(is_unconfirmed(&stage.claim("new", 1)));
        assert_eq!(kind(stage.complete("old", 1)), StoreErrorKind::Unavailable);
        assert_eq!(kind(stage.settle("old", 1, Settlement::Release)), StoreErrorKind::Unavailable);
        stage.recover();
        // Still the stand-in's, though the primary is back.
        assert!(is_in_flight(&stage.claim("new", 2)));
        assert_eq!(stage.settle("new", 1, Settlement::Extend), Ok(Settled::Done));
        assert_eq!(stage.complete("new", 1), Ok(Settled::Done));
        assert_eq!(stage.in_primary("new"), None);
        assert_eq!(stage.complete("old", 1), Ok(Settled::Done));
        assert_eq!(stage.in_primary("old"), Some(finished()));
        stage.sweep_all();
        assert_eq!(stage.in_primary("new"), Some(finished()));
    });
}

#[test]
fn a_key_that_was_released_is_the_primarys_again() {
    standing_in(|_, stage| {
        stage.open();
        assert!(is_unconfirmed(&stage.claim("k", 1)));
        assert_eq!(stage.settle("k", 1, Settlement::Release), Ok(Settled::Done));
        assert!(is_unconfirmed(&stage.claim("k", 2)));
        assert_eq!(stage.settle("k", 2, Settlement::Release), Ok(Settled::Done));
        stage.recover();
        assert!(is_granted(&stage.claim("k", 3)));
        assert_eq!(stage.health(), Health::Serving);
    });
}

#[test]
fn a_claim_whose_reply_was_lost_leaves_nothing_behind() {
    standing_in(|_, stage| {
        // It was recorded, twice over, and the stand-in grants it.
        stage.primary.next([Mood::Lost, Mood::Lost]);
        assert!(is_unconfirmed(&stage.claim("finished", 1)));
        stage.recover();
        stage.primary.next([Mood::Lost, Mood::SLOW]);
        assert!(is_unconfirmed(&stage.claim("released", 1)));
        assert_eq!(stage.complete("finished", 1), Ok(Settled::Done));
        assert_eq!(stage.settle("released", 1, Settlement::Release), Ok(Settled::Done));
        stage.recover();
        stage.sweep_all();
        assert_eq!(stage.in_primary("finished"), Some(finished()));
        assert_eq!(stage.in_primary("released"), None);
        assert_eq!(stage.stats().let_through_twice, 0);
    });
}

#[test]
fn one_lost_reply_is_asked_for_again() {
    standing_in(|_, stage| {
        stage.primary.next([Mood::Lost]);
        assert!(is_granted(&stage.claim("k", 1)));
        assert_eq!(stage.stats().journal_keys, 0);
    });
}

#[test]
fn a_key_that_ran_twice_is_counted() {
    standing_in(|_, stage| {
        stage.open();
        assert!(is_unconfirmed(&stage.claim("k", 1)));
        assert_eq!(stage.complete("k", 1), Ok(Settled::Done));
        // Another process, which reached the primary.
        let others = stage.primary.claims();
        assert!(is_granted(&others.claim(b"k", &request(9, b"payload"))));
        stage.recover();
        // As long as it may still fail there, the outcome is not given up.
        stage.sweep_all();
        assert_eq!(stage.health(), Health::Returning { owed_keys: 1 });
        assert_eq!(stage.claim("k", 2), Ok(Answer::Finished(outcome())));
        let settlement = Settlement::Complete(&outcome());
        let complete = SettleRequest { token: Token::new(9), settlement, terms: TERMS };
        assert_eq!(others.settle(b"k", &complete), Ok(Settled::Done));
        stage.advance(10);
        stage.sweep_all();
        assert_eq!(stage.health(), Health::Serving);
        assert_eq!(stage.stats().let_through_twice, 1);
    });
}

#[test]
fn an_outcome_replaces_a_claim_that_another_gave_up() {
    standing_in(|_, stage| {
        assert!(is_granted(&stage.primary.claims().claim(b"k", &request(9, b"payload"))));
        stage.open();
        assert!(is_unconfirmed(&stage.claim("k", 1)));
        assert_eq!(stage.complete("k", 1), Ok(Settled::Done));
        stage.recover();
        stage.advance(10);
        stage.sweep_all();
        assert_eq!(stage.in_primary("k"), Some(finished()));
        assert_eq!(stage.stats().let_through_twice, 0);
    });
}

#[test]
fn who_was_taken_over_is_stale_everywhere() {
    standing_in(|_, stage| {
        // The primary has granted it to the first, too.
        stage.primary.next([Mood::Lost, Mood::Lost]);
        assert!(is_unconfirmed(&stage.claim("k", 1)));
        stage.advance(10);
        let second = stage.claim("k", 2);
        assert!(matches!(&second, Ok(Answer::Unconfirmed(grant)) if grant.is_takeover));
        assert_eq!(stage.complete("k", 1), Ok(Settled::Stale));
        assert_eq!(stage.complete("k", 2), Ok(Settled::Done));
        stage.sweep_all();
        assert_eq!(stage.in_primary("k"), Some(finished()));
        assert_eq!(stage.complete("k", 1), Ok(Settled::Stale));
    });
}

#[test]
fn a_claim_that_was_given_up_is_forgotten_with_the_stand_in() {
    standing_in(|_, stage| {
        stage.open();
        assert!(is_unconfirmed(&stage.claim("k", 1)));
        stage.recover();
        stage.advance(11);
        // Whoever comes next knows that somebody was at it.
        let next = stage.claim("k", 2);
        assert!(matches!(&next, Ok(Answer::Unconfirmed(grant)) if grant.is_takeover));
        stage.advance(TERMS.lease.as_secs() + TERMS.keep.as_secs());
        stage.sweep_all();
        stage.sweep_all();
        assert_eq!(stage.health(), Health::Serving);
        assert!(is_granted(&stage.claim("k", 3)));
    });
}

#[test]
fn a_full_journal_fails_the_claim_and_drops_nothing() {
    for is_async in [false, true] {
        let stage = Stage::new(Policy::Fallback, is_async, 1_000);
        stage.open();
        let mut noted = Vec::new();
        let full = loop {
            let id = format!("id-{}", noted.len());
            match stage.claim(&id, 1) {
                Ok(Answer::Unconfirmed(_)) => noted.push(id),
                Ok(answer) => panic!("{answer:?}"),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), StoreErrorKind::Full);
        assert!(!noted.is_empty() && noted.len() < 5);
        let calls = stage.fallback.calls();
        assert_eq!(kind(stage.claim("another", 1)), StoreErrorKind::Full);
        assert_eq!(stage.fallback.calls(), calls, "asked for a key that it could not note");
        for id in &noted {
            assert_eq!(stage.complete(id, 1), Ok(Settled::Done));
            assert_eq!(stage.claim(id, 2), Ok(Answer::Finished(outcome())));
        }
        stage.recover();
        stage.sweep_all();
        assert!(noted.iter().all(|id| stage.in_primary(id) == Some(finished())));
    }
}

#[test]
fn a_cleared_key_is_free_everywhere() {
    standing_in(|_, stage| {
        stage.open();
        assert!(is_unconfirmed(&stage.claim("k", 1)));
        assert_eq!(stage.complete("k", 1), Ok(Settled::Done));
        assert_eq!(kind(stage.settle("k", 0, Settlement::Clear)), StoreErrorKind::Unavailable);
        stage.recover();
        assert_eq!(stage.settle("k", 0, Settlement::Clear), Ok(Settled::Done));
        assert_eq!(stage.health(), Health::Serving);
        assert!(is_granted(&stage.claim("k", 2)));
        assert_eq!(stage.settle("k", 0, Settlement::Clear), Ok(Settled::Done));
        // Nor does the stand-in remember it in the next outage.
        stage.open();
        assert!(is_unconfirmed(&stage.claim("k", 3)));
    });
}

#[test]
fn the_stand_in_remembers_what_it_was_told_in_earlier_outages() {
    standing_in(|_, stage| {
        stage.open();
        assert!(is_unconfirmed(&stage.claim("k", 1)));
        assert_eq!(stage.complete("k", 1), Ok(Settled::Done));
        stage.recover();
        stage.sweep_all();
        stage.open();
        assert_eq!(stage.claim("k", 2), Ok(Answer::Finished(outcome())));
        assert_eq!(stage.stats().journal_keys, 0);
    });
}

#[test]
fn both_stores_failing_is_an_error_that_names_both() {
    both(Policy::Fallback, |stage| {
        stage.open();
        stage.fallback.is(Mood::SLOW);
        let error = stage.claim("k", 1).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Timeout);
        let cause = std::error::Error::source(&error).unwrap();
        assert!(cause.to_string().contains("the fallback failed too"), "{cause}");
        assert_eq!(stage.stats().fallback_failures, 1);
        // It may have been granted; asked with the same token it is again.
        stage.fallback.is(Mood::Well);
        assert!(is_unconfirmed(&stage.claim("k", 1)));
    });
}

#[test]
fn an_error_does_not_deny_what_the_primary_may_have_granted() {
    let outcome = |stage: &Stage, second| {
        stage.primary.next([Mood::Lost, second]);
        let error = stage.claim("k", 1).unwrap_err();
        (error.kind(), error.may_have_recorded())
    };
    both(Policy::Fallback, |stage| {
        stage.fallback.is(Mood::DOWN);
        assert_eq!(outcome(&stage, Mood::Lost), (StoreErrorKind::Unavailable, true));
    });
    for is_async in [false, true] {
        let no_room = || Stage::new(Policy::Fallback, is_async, 1);
        assert_eq!(outcome(&no_room(), Mood::Lost), (StoreErrorKind::Full, true));
        let refused = Mood::Fails(StoreErrorKind::Refused);
        assert_eq!(outcome(&no_room(), refused), (StoreErrorKind::Refused, true));
    }
}

#[test]
fn a_settlement_whose_reply_was_lost_is_found_out() {
    both(Policy::Fallback, |stage| {
        stage.open();
        assert!(is_unconfirmed(&stage.claim("k", 1)));
        stage.fallback.next([Mood::Lost]);
        assert_eq!(kind(stage.complete("k", 1)), StoreErrorKind::Timeout);
        assert!(is_unconfirmed(&stage.claim("other", 1)));
        stage.fallback.next([Mood::SLOW]);
        assert_eq!(kind(stage.complete("other", 1)), StoreErrorKind::Timeout);
        stage.recover();
        stage.sweep_all();
        assert_eq!(stage.in_primary("k"), Some(finished()));
        // The other one is still at it.
        assert!(is_in_flight(&stage.claim("other", 2)));
        assert_eq!(stage.complete("other", 1), Ok(Settled::Done));
        stage.sweep_all();
        assert_eq!(stage.in_primary("other"), Some(finished()));
    });
}

#[test]
fn a_panic_of_a_store_is_an_outage() {
    standing_in(|_, stage| {
        stage.primary.next([Mood::Panics]);
        assert!(is_unconfirmed(&stage.claim("k", 1)));
        assert_eq!(stage.complete("k", 1), Ok(Settled::Done));
        stage.sweep_all();
        assert_eq!(stage.in_primary("k"), Some(finished()));
    });
    both(Policy::Reject, |stage| {
        stage.primary.next([Mood::Panics]);
        assert_eq!(kind(stage.claim("k", 1)), StoreErrorKind::Faulty);
        assert!(is_granted(&stage.claim("k", 1)));
    });
}

#[test]
fn a_key_that_is_cleared_while_the_primary_is_told_of_it_is_cleared_later() {
    let stage = std::sync::Arc::new(Stage::new(Policy::Fallback, false, 1 << 20));
    stage.open();
    assert!(is_unconfirmed(&stage.claim("k", 1)));
    assert_eq!(stage.complete("k", 1), Ok(Settled::Done));
    stage.recover();
    let cleared = std::sync::Arc::clone(&stage);
    stage.primary.after_next(move || {
        let refused = cleared.settle("k", 0, Settlement::Clear);
        assert_eq!(kind(refused), StoreErrorKind::Unavailable);
    });
    stage.sweep_all();
    assert_eq!(stage.settle("k", 0, Settlement::Clear), Ok(Settled::Done));
    assert!(is_granted(&stage.claim("k", 2)));
}

#[test]
fn a_claim_while_the_primary_is_told_is_told_of_as_well() {
    let stage = std::sync::Arc::new(Stage::new(Policy::Fallback, false, 1 << 20));
    stage.open();
    assert!(is_unconfirmed(&stage.claim("k", 1)));
    assert_eq!(stage.settle("k", 1, Settlement::Release), Ok(Settled::Done));
    stage.recover();
    let other = std::sync::Arc::clone(&stage);
    // The key is still the stand-in's.
    stage.primary.after_next(move || assert!(is_unconfirmed(&other.claim("k", 2))));
    assert!(stage.sweep().is_ok());
    assert!(is_in_flight(&stage.claim("k", 3)));
    assert_eq!(stage.complete("k", 2), Ok(Settled::Done));
    stage.sweep_all();
    assert_eq!(stage.in_primary("k"), Some(finished()));
}
