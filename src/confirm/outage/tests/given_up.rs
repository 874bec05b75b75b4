//! Calls that their callers give up: each await is a place to be dropped at.

use super::stage::{Mood, NEW, NOW, Policy, Stage, seen};
use crate::confirm::outage::Health;

/// Gives up a call after each number of polls that it may take, each time on a
/// stage of its own.
fn given_up(policy: Policy, prepare: impl Fn(&Stage), then: impl Fn(&Stage, usize)) {
    let mut given_up = 0;
    for polls in 1.. {
        let stage = Stage::new(policy, true, 1 << 20);
        prepare(&stage);
        let sighting = [stage.sighting(b"a", NOW)];
        if stage.guard.confirm_in_part(polls, &sighting, stage.rule).is_some() {
            break;
        }
        given_up += 1;
        then(&stage, polls);
    }
    assert!(given_up > 1);
}

#[test]
fn a_check_given_up_is_not_held_against_its_key() {
    for policy in [Policy::Reject, Policy::Admit, Policy::Fallback] {
        given_up(
            policy,
            |_| (),
            |stage, polls| {
                assert_eq!(stage.guard.stats().unresolved_keys, 1);
                let answers = stage.confirm(&["a", "a"]).unwrap().answers;
                assert_eq!(answers, [NEW, seen(NOW)], "{policy:?} after {polls}");
                assert_eq!(stage.guard.stats().unresolved_keys, 0);
            },
        );
    }
}

#[test]
fn a_probe_given_up_makes_room_for_the_next() {
    for policy in [Policy::Reject, Policy::Admit, Policy::Fallback] {
        given_up(
            policy,
            |stage| {
                stage.open();
                stage.recover();
            },
            |stage, polls| {
                let calls = stage.primary.calls();
                let answers = stage.confirm(&["b"]).unwrap().answers;
                assert_eq!(answers, [NEW]);
                assert!(stage.primary.calls() > calls, "{policy:?} after {polls}: no probe");
                stage.settle();
                assert_eq!(stage.confirm(&["a", "a"]).unwrap().answers, [NEW, seen(NOW)]);
            },
        );
    }
}

#[test]
fn debts_being_written_when_their_writer_gives_up_are_written_by_the_next() {
    given_up(
        Policy::Fallback,
        |stage| {
            stage.confirm(&["forgotten"]).unwrap();
            stage.open();
            stage.confirm(&["owed"]).unwrap();
            stage.forget("forgotten").unwrap();
            stage.recover();
        },
        |stage, polls| {
            stage.settle();
            assert_eq!(stage.guard.health(), Health::Serving);
            let told = ["owed", "forgotten"].map(|key| stage.primary_says(NOW, key));
            assert_eq!(told, [seen(NOW), NEW], "after {polls}");
            assert_eq!(stage.confirm(&["a", "a"]).unwrap().answers, [NEW, seen(NOW)]);
            assert_eq!(stage.guard.stats().let_through_twice, 0);
        },
    );
}

#[test]
fn a_check_given_up_at_the_fallback_is_not_held_against_its_key() {
    given_up(Policy::Fallback, Stage::open, |stage, polls| {
        assert_eq!(stage.confirm(&["a", "a"]).unwrap().answers, [NEW, seen(NOW)], "after {polls}");
        stage.settle();
        assert_eq!(stage.primary_says(NOW, "a"), seen(NOW));
    });
    given_up(
        Policy::Fallback,
        |stage| {
            stage.primary.next([Mood::DOWN]);
            stage.confirm(&["b"]).unwrap();
            stage.primary.next([Mood::DOWN]);
        },
        |stage, polls| {
            stage.primary.is(Mood::Well);
            let answers = stage.confirm(&["a", "a"]).unwrap().answers;
            assert_eq!(answers, [NEW, seen(NOW)], "returning, after {polls}");
        },
    );
}
