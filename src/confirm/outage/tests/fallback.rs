//! What holds under `Fallback`, until the primary is back and knows all.

use super::stage::{Mood, NEW, NOW, Policy, Stage, both, seen, sliding};
use crate::confirm::StoreErrorKind::{Fenced, Full, Refused, Timeout, Unavailable};
use crate::confirm::outage::{AnsweredBy, Confirmed, Health};
use crate::confirm::{Bucket, Confirmer};
use std::sync::atomic::{AtomicBool, Ordering};

/// Makes the primary fail once, and its breaker stay closed.
fn stumble(stage: &Stage, keys: &[&str]) -> Confirmed {
    stage.primary.next([Mood::DOWN]);
    stage.confirm(keys).unwrap()
}

fn owed(stage: &Stage) -> usize {
    stage.guard.stats().journal_keys
}

#[test]
fn the_fallback_answers_and_the_primary_hears_of_it() {
    both(Policy::Fallback, |stage| {
        stage.open();
        let confirmed = stage.confirm(&["a", "b", "a"]).unwrap();
        assert_eq!(confirmed.answers, [NEW, NEW, seen(NOW)]);
        assert_eq!(confirmed.by, AnsweredBy::Fallback);
        assert_eq!(stage.confirm(&["a"]).unwrap().answers, [seen(NOW)]);
        assert_eq!(stage.guard.stats().answered_by_fallback, 7);
        assert_eq!(owed(&stage), 3);
        stage.settle();
        assert_eq!(stage.guard.stats().written_back, 3);
        assert_eq!(stage.guard.stats().journal_bytes, 0);
        for key in ["a", "b", "opening"] {
            assert_eq!(stage.primary_says(NOW, key), seen(NOW), "{key}");
        }
        assert_eq!(stage.confirm(&["a"]).unwrap().by, AnsweredBy::Primary);
    });
}

#[test]
fn keys_that_the_primary_knew_are_let_through_twice_and_counted() {
    both(Policy::Fallback, |stage| {
        stage.confirm(&["a", "b", "c"]).unwrap();
        stage.open();
        assert_eq!(stage.confirm(&["a", "b"]).unwrap().answers, [NEW, NEW]);
        stage.settle();
        assert_eq!(stage.guard.stats().let_through_twice, 2);
        assert_eq!(stage.guard.stats().written_back, 3);
    });
}

#[test]
fn a_reply_that_was_lost_before_the_fallback_answered_is_no_second_sighting() {
    both(Policy::Fallback, |stage| {
        stage.primary.is(Mood::Lost);
        assert_eq!(stage.confirm(&["a"]).unwrap().by, AnsweredBy::Fallback);
        stage.settle();
        assert_eq!(stage.guard.stats().let_through_twice, 0);
        assert_eq!(stage.confirm(&["a"]).unwrap().answers, [seen(NOW)]);
    });
}

#[test]
fn a_key_owed_is_the_fallbacks_to_answer() {
    both(Policy::Fallback, |stage| {
        assert_eq!(stumble(&stage, &["a"]).by, AnsweredBy::Fallback);
        assert_eq!(stage.guard.health(), Health::Returning { owed_keys: 1 });
        // The primary answers again, and is still not told.
        stage.primary.next([Mood::DOWN, Mood::Well]);
        let confirmed = stage.confirm(&["a", "b"]).unwrap();
        let each = [(seen(NOW), AnsweredBy::Fallback), (NEW, AnsweredBy::Primary)];
        assert_eq!(confirmed.into_each(), each);
        assert_eq!(stage.primary_says(NOW, "b"), seen(NOW));
        assert_eq!(owed(&stage), 1);
        // Being told comes first.
        assert_eq!(stage.confirm(&["a"]).unwrap().by, AnsweredBy::Primary);
        assert_eq!(stage.guard.health(), Health::Serving);
    });
}

#[test]
fn a_key_not_owed_is_the_primarys_again() {
    both(Policy::Fallback, |stage| {
        stage.confirm(&["known"]).unwrap();
        stumble(&stage, &["a"]);
        stage.primary.next([Mood::DOWN]);
        let calls = stage.fallback.calls();
        let confirmed = stage.confirm(&["known", "new"]).unwrap();
        assert_eq!(confirmed.answers, [seen(NOW), NEW]);
        assert_eq!(confirmed.by, AnsweredBy::Primary);
        assert_eq!((owed(&stage), stage.fallback.calls()), (1, calls));
        // Each key's answer is where it belongs.
        stage.primary.next([Mood::DOWN]);
        let confirmed = stage.confirm(&["fresh", "a", "known", "a"]).unwrap();
        assert_eq!(confirmed.answers, [NEW, seen(NOW), seen(NOW), seen(NOW)]);
    });
}

#[test]
fn while_the_primary_returns_a_fallback_that_fails_keeps_back_its_own_keys_only() {
    both(Policy::Fallback, |stage| {
        stumble(&stage, &["a"]);
        stage.fallback.is(Mood::SLOW);
        stage.primary.next([Mood::DOWN]);
        assert_eq!(stage.confirm(&["b"]).unwrap().by, AnsweredBy::Primary);
        stage.primary.next([Mood::DOWN]);
        let error = stage.confirm(&["c", "a"]).unwrap_err();
        assert_eq!(error.kind(), Timeout);
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("the fallback failed"), "{cause}");
        stage.settle();
        assert_eq!(stage.confirm(&["a", "c"]).unwrap().answers, [seen(NOW), NEW]);
    });
}

#[test]
fn a_primary_that_fails_again_midway_is_owed_the_rest() {
    both(Policy::Fallback, |stage| {
        stumble(&stage, &["a"]);
        stage.primary.next([Mood::Well]);
        stage.primary.is(Mood::Well);
        stage.guard.write_back(stage.rule).unwrap();
        stumble(&stage, &["b"]);
        // Neither the debt nor the question gets through; then it is left alone.
        stage.primary.next([Mood::DOWN, Mood::DOWN]);
        let confirmed = stage.confirm(&["c"]).unwrap();
        assert_eq!((confirmed.answers, confirmed.by), (vec![NEW], AnsweredBy::Fallback));
        assert_eq!(owed(&stage), 2);
        stage.settle();
        assert_eq!(stage.primary_says(NOW, "c"), seen(NOW));
    });
}

#[test]
fn a_forgotten_key_is_not_held_against_its_retry() {
    both(Policy::Fallback, |stage| {
        stage.confirm(&["a", "b"]).unwrap();
        stumble(&stage, &["x"]);
        // The primary is up, and has not been told: its answer would be stale.
        stage.primary.next([Mood::DOWN]);
        stage.forget("a").unwrap();
        assert_eq!(owed(&stage), 2);
        stage.primary.next([Mood::DOWN]);
        let confirmed = stage.confirm(&["a"]).unwrap();
        assert_eq!((confirmed.answers, confirmed.by), (vec![NEW], AnsweredBy::Fallback));
        stage.settle();
        assert_eq!(stage.guard.stats().let_through_twice, 0);
        assert_eq!(stage.confirm(&["a", "b"]).unwrap().answers, [seen(NOW), seen(NOW)]);
    });
}

#[test]
fn a_key_let_through_and_forgotten_is_not_written() {
    both(Policy::Fallback, |stage| {
        stage.open();
        stage.confirm(&["a", "b"]).unwrap();
        stage.forget("a").unwrap();
        stage.settle();
        assert_eq!(stage.confirm(&["a", "b"]).unwrap().answers, [NEW, seen(NOW)]);
    });
}

#[test]
fn forgetting_reaches_what_the_fallback_learned_in_an_earlier_outage() {
    both(Policy::Fallback, |stage| {
        stage.open();
        stage.confirm(&["a"]).unwrap();
        stage.settle();
        stage.forget("a").unwrap();
        stage.open();
        assert_eq!(stage.confirm(&["a"]).unwrap().answers, [NEW]);
    });
}

#[test]
fn a_full_journal_fails_the_check_and_loses_nothing() {
    for is_async in [false, true] {
        let stage = Stage::new(Policy::Fallback, is_async, 400);
        stage.open();
        assert_eq!(stage.confirm(&["a"]).unwrap().answers, [NEW]);
        let calls = stage.fallback.calls();
        let error = stage.confirm(&["b", "c"]).unwrap_err();
        assert_eq!(error.kind(), Full);
        // Nothing was recorded.
        assert_eq!((stage.fallback.calls(), stage.guard.stats().unresolved_keys), (calls, 0));
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("limit of 400 bytes"), "{cause}");
        assert_eq!(stage.confirm(&["a"]).unwrap().answers, [seen(NOW)]);
        assert_eq!(stage.confirm(&["b"]).unwrap().answers, [NEW]);
        assert_eq!(stage.guard.forget(&[b"d"]).unwrap_err().kind(), Full);
        assert!(stage.guard.stats().journal_bytes <= 400);
        stage.settle();
        for key in ["a", "b"] {
            assert_eq!(stage.primary_says(NOW, key), seen(NOW));
        }
        assert_eq!(stage.confirm(&["c"]).unwrap().answers, [NEW]);
    }
}

#[test]
fn when_both_fail_the_error_names_both() {
    both(Policy::Fallback, |stage| {
        stage.open();
        stage.fallback.next([Mood::SLOW]);
        let error = stage.confirm(&["a"]).unwrap_err();
        assert_eq!(error.kind(), Timeout);
        let cause = std::error::Error::source(&error).unwrap();
        assert!(cause.to_string().contains("the fallback failed too"), "{cause}");
        assert!(cause.source().is_some());
        assert_eq!(stage.guard.stats().fallback_failures, 1);
        for mood in [Mood::Panics, Mood::Short, Mood::Ancient] {
            stage.fallback.next([mood]);
            assert!(stage.confirm(&["a"]).is_err(), "{mood:?}");
        }
        // What the fallback recorded in all that is not held against the key.
        assert_eq!(stage.confirm(&["a"]).unwrap().answers, [NEW]);
    });
}

#[test]
fn an_error_does_not_deny_what_the_primary_may_have_recorded() {
    for kind in [Unavailable, Full, Refused, Fenced] {
        both(Policy::Fallback, |stage| {
            stage.primary.is(Mood::Lost);
            stage.fallback.is(Mood::Fails(kind));
            let error = stage.confirm(&["a"]).unwrap_err();
            assert_eq!((error.kind(), error.may_have_recorded()), (kind, true));
            stage.settle();
            assert_eq!(stage.confirm(&["a", "a"]).unwrap().answers, [NEW, seen(NOW)]);
        });
    }
}

#[test]
fn a_full_journal_does_not_deny_what_the_primary_may_have_recorded() {
    for is_async in [false, true] {
        let stage = Stage::new(Policy::Fallback, is_async, 100);
        stage.primary.next([Mood::Lost, Mood::Lost]);
        assert!(stage.confirm(&["a"]).unwrap_err().may_have_recorded());
        assert_eq!(stage.confirm(&["a", "a"]).unwrap().answers, [NEW, seen(NOW)]);
    }
}

#[test]
fn a_sliding_window_slides_on_in_the_primary() {
    for is_async in [false, true] {
        let mut stage = Stage::new(Policy::Fallback, is_async, 1 << 20);
        stage.rule = sliding();
        stage.confirm(&["twice"]).unwrap();
        stage.open();
        stage.confirm(&["early"]).unwrap();
        stage.settle();
        // It records this one, and never says so.
        stage.primary.is(Mood::Lost);
        stage.confirm(&["lost"]).unwrap();
        stage.open();
        stage.confirm(&["late", "twice"]).unwrap();
        for key in ["early", "lost", "late", "twice"] {
            assert_eq!(stage.confirm_in(NOW + 5, &[key]).unwrap().answers, [seen(NOW + 5)]);
        }
        stage.settle();
        assert_eq!(stage.guard.stats().let_through_twice, 1);
        for key in ["early", "lost", "late", "twice"] {
            assert_eq!(stage.primary_says(NOW + 13, key), seen(NOW + 13), "{key}");
        }
        // Also while it returns.
        stage.confirm_in(NOW + 13, &["known"]).unwrap();
        stage.primary.next([Mood::DOWN]);
        stage.confirm_in(NOW + 13, &["owed"]).unwrap();
        stage.primary.next([Mood::DOWN]);
        let confirmed = stage.confirm_in(NOW + 17, &["known", "early"]).unwrap();
        assert_eq!(confirmed.answers, [seen(NOW + 17), seen(NOW + 17)]);
        assert_eq!(confirmed.by, AnsweredBy::Primary);
        assert_eq!(stage.primary_says(NOW + 25, "early"), seen(NOW + 25));
    }
}

#[test]
fn a_key_that_the_primary_refuses_to_be_told_of_keeps_no_other_back() {
    both(Policy::Fallback, |stage| {
        stage.open();
        let keys: Vec<_> = (0..2_000).map(|number| format!("key {number}")).collect();
        for keys in keys.chunks(100) {
            stage.confirm(&keys.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        }
        stage.primary.refuses(Some(b"key 77"));
        stage.recover();
        for _ in 0..60 {
            stage.guard.write_back(stage.rule).unwrap();
        }
        assert_eq!(stage.guard.health(), Health::Returning { owed_keys: 1 });
        assert!(stage.guard.stats().write_backs_refused > 0);
        // Nothing is dropped: it is still answered for, and written when it can be.
        assert_eq!(stage.confirm(&["key 77"]).unwrap().answers, [seen(NOW)]);
        stage.primary.refuses(None);
        stage.settle();
        assert_eq!(stage.primary_says(NOW, "key 77"), seen(NOW));
        assert_eq!(stage.guard.stats().let_through_twice, 0);
    });
}

#[test]
fn whoever_is_fenced_off_hears_of_it_also_while_the_primary_returns() {
    both(Policy::Fallback, |stage| {
        stumble(&stage, &["a"]);
        stage.primary.is(Mood::Fails(Fenced));
        assert_eq!(stage.confirm(&["b"]).unwrap_err().kind(), Fenced);
        assert_eq!(stage.confirm(&["a"]).unwrap_err().kind(), Fenced);
        stage.primary.is(Mood::Well);
        stage.settle();
        // A refusal leaves no trace, although the fallback had recorded the key.
        stumble(&stage, &["c"]);
        stage.primary.next([Mood::DOWN, Mood::Fails(Refused)]);
        assert_eq!(stage.confirm(&["d"]).unwrap_err().kind(), Refused);
        assert_eq!(stage.confirm(&["d"]).unwrap().answers, [NEW]);
    });
}

#[test]
fn the_journal_gets_shorter_while_the_primary_returns_whatever_comes() {
    both(Policy::Fallback, |stage| {
        stage.open();
        let key = |number: usize| format!("key {number}");
        for number in 0..5_000 {
            stage.confirm(&[&key(number)]).unwrap();
        }
        stage.recover();
        let mut left = owed(&stage);
        for round in 0..20 {
            let new: Vec<_> = (0..256).map(|number| key(10_000 + round * 256 + number)).collect();
            let new: Vec<_> = new.iter().map(String::as_str).collect();
            assert_eq!(stage.confirm(&new).unwrap().answers, vec![NEW; 256]);
            assert!(owed(&stage) <= left.saturating_sub(512), "{left} to {}", owed(&stage));
            left = owed(&stage);
        }
        assert_eq!(stage.guard.health(), Health::Serving);
    });
}

#[test]
fn what_no_longer_matches_need_not_be_written() {
    both(Policy::Fallback, |stage| {
        stage.open();
        stage.confirm(&["a"]).unwrap();
        stage.confirm_in(NOW + 1, &["b"]).unwrap();
        stage.forget("c").unwrap();
        stage.fallback.next([Mood::DOWN]);
        stage.guard.expire(Bucket::new(NOW + 1)).unwrap_err();
        // `b`, and `c`, whose bucket nobody knows.
        assert_eq!(owed(&stage), 2);
        assert_eq!(stage.guard.stats().journal_bytes, 242);
        stage.settle();
        assert_eq!(stage.primary_says(NOW + 1, "b"), seen(NOW + 1));
    });
}

/// A debt that changes while it is being written is written again.
#[test]
fn what_happens_to_a_key_while_it_is_written_is_not_lost() {
    let stage = Stage::new(Policy::Fallback, true, 1 << 20);
    stage.open();
    stage.confirm(&["a", "b", "c"]).unwrap();
    stage.recover();
    let primary = stage.primary.clone();
    // Between the primary's work and its reply.
    let stage = std::sync::Arc::new(stage);
    let meddler = stage.clone();
    primary.after_next(move || {
        meddler.forget("a").unwrap();
        meddler.forget("c").unwrap();
        assert_eq!(meddler.confirm(&["b", "c"]).unwrap().answers, [seen(NOW), NEW]);
    });
    stage.guard.write_back(stage.rule).unwrap();
    assert_eq!(owed(&stage), 2);
    stage.settle();
    let answers = ["a", "b", "c"].map(|key| stage.primary_says(NOW, key));
    assert_eq!(answers, [NEW, seen(NOW), seen(NOW)]);
}

/// Threads under a primary that comes and goes: no key is lost, none is let through
/// twice but where the fallback says so, and in the end the primary knows all.
#[test]
fn many_threads_share_a_guard() {
    for is_async in [false, true] {
        let stage = Stage::new(Policy::Fallback, is_async, 1 << 20);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (stage, stop) = (&stage, &stop);
            let threads: Vec<_> = (0..4)
                .map(|thread| {
                    scope.spawn(move || {
                        let confirm_twice = |number: usize| {
                            let key = format!("{thread} {number}");
                            let first = stage.confirm(&[&key]).unwrap().answers;
                            assert_eq!(first, [NEW], "{key}");
                            let by = stage.confirm(&[&key]).unwrap();
                            (by.answers[0] == NEW).then(|| assert_eq!(by.by, AnsweredBy::Fallback));
                        };
                        (0..500).for_each(confirm_twice);
                    })
                })
                .collect();
            scope.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    for mood in [Mood::DOWN, Mood::Well, Mood::Lost, Mood::Well] {
                        stage.primary.is(mood);
                        stage.advance(3);
                        std::thread::yield_now();
                    }
                }
            });
            let done: Vec<_> =
                threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            stop.store(true, Ordering::SeqCst);
            for thread in done {
                thread.unwrap();
            }
        });
        stage.settle();
        for thread in 0..4 {
            for number in 0..500 {
                let key = format!("{thread} {number}");
                assert_eq!(stage.primary_says(NOW, &key), seen(NOW), "{key}");
            }
        }
    }
}

/// The fallback of an asynchronous store may be a blocking one.
#[test]
fn a_blocking_store_can_be_the_fallback_of_an_asynchronous_one() {
    use super::stage::{BREAKER, Waiting, finish};
    use crate::confirm::outage::{Fallback, Guard};
    use crate::confirm::{Inline, MemoryConfirmer};
    let stage = Stage::new(Policy::Reject, true, 0);
    let policy = Fallback::new(Inline(MemoryConfirmer::new()));
    let guard = Guard::new(Waiting(stage.primary.clone()), policy, BREAKER, stage.clock.clone());
    stage.primary.is(Mood::DOWN);
    let (first, second) = (stage.sighting(b"a", NOW), stage.sighting(b"a", NOW));
    let confirmed = finish(guard.awaiting().confirm(&[first, second], stage.rule)).unwrap();
    assert_eq!(confirmed.answers, [NEW, seen(NOW)]);
    stage.primary.is(Mood::Well);
    assert!(finish(guard.awaiting().write_back(stage.rule)).unwrap());
    stage.primary.memory().forget(&[b"b"]).unwrap();
    assert_eq!(stage.primary_says(NOW, "a"), seen(NOW));
}
