//! What holds under every policy, and under `Reject` and `Admit`.

use super::stage::{Mood, NEW, NOW, Policy, Stage, all, both, seen};
use crate::confirm::StoreErrorKind::{
    Broken, Corrupt, Faulty, Fenced, Full, Refused, Timeout, Unavailable, Uncertain,
};
use crate::confirm::outage::{AnsweredBy, Health};
use std::error::Error;

/// Who answers when the primary does not.
fn instead(policy: Policy) -> AnsweredBy {
    match policy {
        Policy::Reject => AnsweredBy::Primary,
        Policy::Admit => AnsweredBy::Nobody,
        Policy::Fallback => AnsweredBy::Fallback,
    }
}

#[test]
fn a_store_that_answers_is_believed() {
    all(|_, stage| {
        let first = stage.confirm(&["a", "b", "a"]).unwrap();
        assert_eq!(first.answers, [NEW, NEW, seen(NOW)]);
        assert_eq!(first.by, AnsweredBy::Primary);
        stage.forget("a").unwrap();
        assert_eq!(stage.confirm(&["a", "b"]).unwrap().answers, [NEW, seen(NOW)]);
        assert_eq!(stage.confirm(&[]).unwrap().answers, []);
        assert_eq!(stage.guard.health(), Health::Serving);
        assert_eq!(stage.guard.stats(), <_>::default());
    });
}

#[test]
fn a_lost_reply_is_asked_for_again() {
    all(|_, stage| {
        stage.primary.next([Mood::Lost]);
        let confirmed = stage.confirm(&["a"]).unwrap();
        assert_eq!((confirmed.answers, confirmed.by), (vec![NEW], AnsweredBy::Primary));
        assert_eq!(stage.primary.calls(), 2);
        assert_eq!(stage.guard.stats().failures, 1);
        assert_eq!(stage.confirm(&["a"]).unwrap().answers, [seen(NOW)]);
    });
}

#[test]
fn a_store_that_is_away_is_not_asked_again() {
    all(|_, stage| {
        stage.primary.next([Mood::DOWN, Mood::Partly(Unavailable)]);
        for calls in 1..=2 {
            let _ = stage.confirm(&["a"]);
            assert_eq!(stage.primary.calls(), calls);
        }
    });
}

#[test]
fn a_sighting_that_failed_is_not_held_against_its_key() {
    for mood in [Mood::Lost, Mood::SLOW, Mood::Panics, Mood::Short, Mood::Ancient] {
        both(Policy::Reject, |stage| {
            stage.primary.next([mood, mood]);
            assert!(stage.confirm(&["a", "b"]).unwrap_err().may_have_recorded());
            stage.settle();
            // Nobody has processed `a`, whatever the store holds.
            assert_eq!(stage.confirm(&["a", "a"]).unwrap().answers, [NEW, seen(NOW)], "{mood:?}");
            assert_eq!(stage.guard.stats().unresolved_keys, 1);
            stage.forget("b").unwrap();
            assert_eq!(stage.guard.stats().unresolved_keys, 0);
            assert_eq!(stage.confirm(&["b", "b"]).unwrap().answers, [NEW, seen(NOW)], "{mood:?}");
        });
    }
}

#[test]
fn of_a_key_twice_in_a_batch_that_failed_the_first_sighting_counts() {
    both(Policy::Reject, |stage| {
        stage.primary.is(Mood::Lost);
        stage.confirm(&["a", "a"]).unwrap_err();
        stage.settle();
        assert_eq!(stage.confirm(&["a", "a"]).unwrap().answers, [NEW, seen(NOW)]);
    });
}

#[test]
fn a_retry_counts_from_its_own_bucket() {
    both(Policy::Reject, |stage| {
        stage.primary.is(Mood::Lost);
        stage.confirm(&["a"]).unwrap_err();
        stage.settle();
        assert_eq!(stage.confirm_in(NOW + 5, &["a"]).unwrap().answers, [NEW]);
        assert_eq!(stage.primary_says(NOW + 13, "a"), seen(NOW + 5));
    });
}

#[test]
fn what_failed_before_the_window_is_no_longer_asked_about() {
    both(Policy::Reject, |stage| {
        stage.primary.is(Mood::Lost);
        stage.confirm(&["a", "b"]).unwrap_err();
        stage.settle();
        assert_eq!(stage.confirm_in(NOW + 9, &["a", "a"]).unwrap().answers, [NEW, seen(NOW + 9)]);
        assert_eq!(stage.guard.stats().unresolved_keys, 1);
        stage.guard.expire(crate::confirm::Bucket::new(NOW + 1)).unwrap();
        assert_eq!(stage.guard.stats().unresolved_keys, 0);
    });
}

#[test]
fn a_failure_that_recorded_nothing_leaves_no_trace() {
    both(Policy::Reject, |stage| {
        for kind in [Unavailable, Full, Refused, Fenced] {
            stage.primary.next([Mood::Fails(kind)]);
            assert_eq!(stage.confirm(&["a"]).unwrap_err().kind(), kind);
            assert_eq!(stage.guard.stats().unresolved_keys, 0);
        }
        // What was in doubt before stays so.
        stage.primary.next([Mood::Lost, Mood::DOWN]);
        assert_eq!(stage.confirm(&["a"]).unwrap_err().kind(), Timeout);
        stage.primary.next([Mood::Fails(Refused)]);
        stage.advance(2);
        stage.confirm(&["a"]).unwrap_err();
        assert_eq!(stage.guard.stats().unresolved_keys, 1);
        assert_eq!(stage.confirm(&["a"]).unwrap().answers, [NEW]);
    });
}

#[test]
fn every_outage_meets_the_policy() {
    for kind in [Timeout, Unavailable, Uncertain, Broken, Corrupt, Full, Faulty] {
        all(|policy, stage| {
            stage.primary.is(Mood::Fails(kind));
            match stage.confirm(&["a"]) {
                Ok(confirmed) => {
                    assert_eq!(confirmed.answers, [NEW], "{policy:?}, {kind:?}");
                    assert_eq!(confirmed.by, instead(policy));
                    assert_ne!(policy, Policy::Reject);
                }
                Err(error) => {
                    assert_eq!((policy, error.kind()), (Policy::Reject, kind));
                }
            }
        });
    }
}

#[test]
fn refusals_and_fences_reach_the_caller_and_are_no_failure() {
    for kind in [Refused, Fenced] {
        all(|policy, stage| {
            stage.primary.is(Mood::Fails(kind));
            for _ in 0..5 {
                assert_eq!(stage.confirm(&["a"]).unwrap_err().kind(), kind, "{policy:?}");
                assert_eq!(stage.forget("a").unwrap_err().kind(), kind, "{policy:?}");
            }
            assert_eq!(stage.guard.health(), Health::Serving);
            assert_eq!(stage.guard.stats().failures, 0);
        });
    }
}

#[test]
fn a_refusal_does_not_deny_what_was_recorded_when_the_reply_was_lost() {
    for kind in [Refused, Fenced] {
        all(|policy, stage| {
            stage.primary.next([Mood::Lost, Mood::Fails(kind)]);
            let error = stage.confirm(&["a"]).unwrap_err();
            assert_eq!((error.kind(), error.may_have_recorded()), (kind, true), "{policy:?}");
            assert_eq!(stage.confirm(&["a", "a"]).unwrap().answers, [NEW, seen(NOW)]);
        });
    }
}

#[test]
fn panics_and_nonsense_are_errors_that_name_themselves() {
    let told = [
        (Mood::Panics, "panicked: as told"),
        (Mood::Short, "1 answers to 2 sightings"),
        (Mood::Ancient, "too long ago for bucket 1000"),
    ];
    for (mood, text) in told {
        both(Policy::Reject, |stage| {
            stage.primary.next([mood]);
            let error = stage.confirm(&["a", "b"]).unwrap_err();
            assert_eq!(error.kind(), Faulty);
            let cause = error.source().unwrap().to_string();
            assert!(cause.contains(text), "{cause}");
            assert_eq!(stage.primary.calls(), 1);
            // Other keys go on.
            assert_eq!(stage.confirm(&["c"]).unwrap().answers, [NEW]);
        });
    }
    all(|policy, stage| {
        stage.primary.is(Mood::Panics);
        assert_eq!(stage.forget("a").is_err(), policy == Policy::Reject);
    });
}

#[test]
fn an_open_breaker_keeps_callers_from_the_store() {
    all(|policy, stage| {
        stage.open();
        let calls = stage.primary.calls();
        assert_eq!(calls, 3);
        for _ in 0..10 {
            let result = stage.confirm(&["a"]);
            assert_eq!(result.is_err(), policy == Policy::Reject);
            assert_eq!(stage.forget("b").is_err(), policy == Policy::Reject);
            stage.guard.expire(crate::confirm::Bucket::new(0)).unwrap();
        }
        assert_eq!(stage.primary.calls(), calls);
        assert_eq!(stage.guard.stats().openings, 1);
        // One call probes, and leaves the next to wait longer.
        stage.advance(1);
        (0..5).for_each(|_| drop(stage.confirm(&["c"])));
        assert_eq!(stage.primary.calls(), calls + 1);
        stage.advance(1);
        (0..5).for_each(|_| drop(stage.confirm(&["d"])));
        assert_eq!(stage.primary.calls(), calls + 1);
        stage.settle();
        assert_eq!(stage.confirm(&["e"]).unwrap().by, AnsweredBy::Primary);
    });
}

#[test]
fn the_error_of_an_open_breaker_says_why_and_until_when() {
    both(Policy::Reject, |stage| {
        stage.open();
        let error = stage.confirm(&["a"]).unwrap_err();
        assert_eq!(error.kind(), Unavailable);
        assert!(!error.may_have_recorded());
        let cause = error.source().unwrap();
        assert!(cause.to_string().contains("asked again in 1s"), "{cause}");
        assert!(cause.source().is_some());
        let Health::Degraded { since, cause } = stage.guard.health() else { panic!() };
        assert_eq!((since.as_micros(), cause), (0, Unavailable));
    });
}

#[test]
fn a_full_store_still_answers_for_its_keys_unless_another_has_room() {
    all(|policy, stage| {
        stage.confirm(&["known"]).unwrap();
        stage.primary.next([Mood::Fails(Full); 4]);
        (0..4).for_each(|_| drop(stage.confirm(&["new"])));
        let is_left_alone = matches!(stage.guard.health(), Health::Degraded { .. });
        assert_eq!(is_left_alone, policy != Policy::Reject);
    });
}

#[test]
fn a_store_that_is_full_in_part_is_not_left_alone_and_what_it_recorded_not_held_against_it() {
    both(Policy::Reject, |stage| {
        stage.primary.next([Mood::Partly(Full); 4]);
        for _ in 0..4 {
            let error = stage.confirm(&["a", "b"]).unwrap_err();
            assert_eq!((error.kind(), error.may_have_recorded()), (Full, true));
        }
        assert_eq!(stage.guard.health(), Health::Serving);
        assert_eq!(stage.confirm(&["a", "a"]).unwrap().answers, [NEW, seen(NOW)]);
    });
}

#[test]
fn a_refusal_of_a_part_reaches_the_caller_and_is_not_held_against_the_other() {
    all(|_, stage| {
        stage.primary.next([Mood::Partly(Refused)]);
        let error = stage.confirm(&["a"]).unwrap_err();
        assert_eq!((error.kind(), error.may_have_recorded()), (Refused, true));
        assert_eq!(stage.confirm(&["a", "a"]).unwrap().answers, [NEW, seen(NOW)]);
    });
}

#[test]
fn a_refusal_does_not_deny_what_a_lost_reply_left() {
    all(|_, stage| {
        stage.primary.next([Mood::Lost, Mood::Fails(Refused)]);
        let error = stage.confirm(&["a"]).unwrap_err();
        assert_eq!((error.kind(), error.may_have_recorded()), (Refused, true));
        assert_eq!(stage.confirm(&["a", "a"]).unwrap().answers, [NEW, seen(NOW)]);
    });
}

#[test]
fn admitted_keys_are_new_once_a_batch_and_counted() {
    both(Policy::Admit, |stage| {
        stage.open();
        let confirmed = stage.confirm(&["a", "b", "a"]).unwrap();
        assert_eq!(confirmed.answers, [NEW, NEW, seen(NOW)]);
        assert_eq!(confirmed.by, AnsweredBy::Nobody);
        assert_eq!(stage.guard.stats().admitted, 5);
        stage.settle();
        // They were recorded in memory alone.
        assert_eq!(stage.primary_says(NOW, "a"), NEW);
    });
}

#[test]
fn an_admitted_key_that_was_recorded_after_all_stays_so() {
    both(Policy::Admit, |stage| {
        stage.primary.next([Mood::Lost, Mood::Lost]);
        assert_eq!(stage.confirm(&["a"]).unwrap().by, AnsweredBy::Nobody);
        assert_eq!(stage.guard.stats().unresolved_keys, 0);
        stage.settle();
        assert_eq!(stage.confirm(&["a"]).unwrap().answers, [seen(NOW)]);
    });
}

#[test]
fn what_is_forgotten_while_the_store_is_away_gets_in_again() {
    for policy in [Policy::Admit, Policy::Fallback] {
        both(policy, |stage| {
            stage.confirm(&["a", "b", "c"]).unwrap();
            stage.open();
            stage.forget("a").unwrap();
            stage.forget("b").unwrap();
            assert_eq!(stage.confirm(&["b"]).unwrap().answers, [NEW]);
            stage.recover();
            // The store has yet to be told, and is not asked about `a` before.
            stage.primary.next([Mood::Well, Mood::Lost, Mood::Lost]);
            let confirmed = stage.confirm(&["a"]).unwrap();
            assert_eq!(confirmed.answers, [NEW], "{policy:?}");
            stage.settle();
            assert_eq!(stage.confirm(&["c"]).unwrap().answers, [seen(NOW)]);
        });
    }
}

#[test]
fn under_reject_a_forget_that_failed_is_an_error() {
    both(Policy::Reject, |stage| {
        stage.confirm(&["a"]).unwrap();
        stage.primary.next([Mood::Lost]);
        stage.forget("a").unwrap();
        assert_eq!(stage.confirm(&["a"]).unwrap().answers, [NEW]);
        stage.primary.is(Mood::SLOW);
        assert_eq!(stage.forget("a").unwrap_err().kind(), Timeout);
        stage.settle();
        assert_eq!(stage.confirm(&["a"]).unwrap().answers, [seen(NOW)]);
    });
}

#[test]
fn a_failed_expiry_is_told_and_counts() {
    all(|_, stage| {
        stage.primary.is(Mood::DOWN);
        let before = crate::confirm::Bucket::new(NOW);
        for _ in 0..3 {
            assert_eq!(stage.guard.expire(before).unwrap_err().kind(), Unavailable);
        }
        assert!(matches!(stage.guard.health(), Health::Degraded { .. }));
        stage.settle();
        stage.confirm(&["a"]).unwrap();
        stage.guard.expire(crate::confirm::Bucket::new(NOW + 1)).unwrap();
        assert_eq!(stage.primary_says(NOW, "a"), NEW);
    });
}

/// The futures can be sent to other threads, whatever the confirmers.
#[test]
fn futures_are_send() {
    use crate::confirm::outage::{Guard, Outage};
    use crate::confirm::{AsyncConfirmer, Rule, Sighting};
    fn is_send<T: Send>(_: &T) {}
    fn all_are<C: AsyncConfirmer, P: Outage<Instead: AsyncConfirmer>>(
        guard: &Guard<C, P>,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) {
        is_send(&guard.awaiting().confirm(sightings, rule));
        is_send(&guard.awaiting().forget(&[]));
        is_send(&guard.awaiting().write_back(rule));
    }
    let stage = Stage::new(Policy::Reject, true, 0);
    let guard = Guard::new(
        super::stage::Waiting(stage.primary.clone()),
        crate::confirm::Fallback::new(crate::confirm::Inline(stage.fallback.clone())),
        super::stage::BREAKER,
        stage.clock.clone(),
    );
    all_are(&guard, &[], stage.rule);
    assert_eq!(guard.primary().0.calls(), 0);
}
