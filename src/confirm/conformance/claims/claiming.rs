//! What is answered to whom: claims, looks, and the one payload of a key.

use super::case::{Case, LONG, OTHER, PAYLOAD};
use super::{ClaimHarness, Named};
use crate::confirm::claims::{Answer, ClaimRequest, Digest, Ending, Grant, Outcome, Settlement};
use crate::confirm::conformance::checks::named;
use crate::confirm::conformance::report::{Checked, ensure};
use std::time::Duration;

/// All of them.
pub(super) fn all<H: ClaimHarness>() -> impl Iterator<Item = Named<H>> {
    named![
        granted_then_in_flight_then_finished,
        in_flight_says_since_when_and_how_long,
        another_payload_is_a_mismatch,
        attempts_count_and_fences_rise,
        claimed_again_is_granted_again,
        outcomes_of_any_kind,
        large_outcomes,
        look_shows_what_is_held,
        look_changes_nothing,
    ]
    .into_iter()
}

fn granted_then_in_flight_then_finished<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let (key, outcome) = (case.key(&store, b"k"), Outcome::success(*b"charged 10"));
    let holder = key.granted(LONG, "first claim")?;
    let Grant { attempt, is_takeover, .. } = holder.grant;
    ensure!(attempt == 1 && !is_takeover, "the first claim is {:?}", holder.grant);
    for when in ["second claim", "third claim"] {
        key.in_flight(when)?;
    }
    key.done(holder.token, Settlement::Complete(&outcome), "completed by its holder")?;
    for when in ["fourth claim", "fifth claim"] {
        key.finished(&outcome, when)?;
    }
    Ok(())
}

fn in_flight_says_since_when_and_how_long<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let key = case.key(&store, b"k");
    let began = case.elapsed();
    key.granted(LONG, "first claim")?;
    let at_first = key.in_flight("at first")?;
    case.pass(2);
    let later = key.in_flight("two ticks later")?;
    let elapsed = case.since(began);

    ensure!(at_first.since == later.since, "held since {at_first:?}, and then since {later:?}");
    ensure!(at_first.remaining <= LONG.lease, "{:?} are left at first", at_first.remaining);
    let at_least = LONG.lease.saturating_sub(elapsed + case.grain());
    ensure!(later.remaining >= at_least, "{:?} are left after {elapsed:?}", later.remaining);
    let at_most = at_first.remaining.saturating_sub(case.ticks(2)) + case.grain();
    ensure!(later.remaining <= at_most, "{at_first:?}, and two ticks later {later:?}");
    Ok(())
}

fn another_payload_is_a_mismatch<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let (key, outcome) = (case.key(&store, b"k"), Outcome::success(*b"charged 10"));
    let holder = key.granted(LONG, "first claim")?;
    key.mismatched("while the key is held")?;
    key.in_flight("with the first payload, after a mismatch")?;
    key.done(holder.token, Settlement::Complete(&outcome), "completed after a mismatch")?;
    key.mismatched("when the key is finished")?;
    key.finished(&outcome, "with the first payload, after a mismatch")?;

    let late = case.key(&store, b"late");
    late.granted(case.lease(1), "first claim")?;
    case.pass(2);
    late.mismatched("after the deadline")?;
    let taken_over = late.granted(LONG, "with the first payload, after the deadline")?;

    late.done(taken_over.token, Settlement::Release, "released")?;
    late.granted_to(&late.request(OTHER, LONG), "with another payload, after a release")?;
    let first = late.claim(LONG)?.1;
    ensure!(first == Answer::Mismatch, "the first payload, after that: {first:?}");
    Ok(())
}

fn attempts_count_and_fences_rise<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let key = case.key(&store, b"k");
    let mut before = key.granted(case.lease(1), "first claim")?;
    // Released at once, over and over; every fourth time never heard of again.
    for attempt in 2..=20 {
        let is_takeover = attempt % 4 == 0;
        if is_takeover {
            case.pass(2);
        } else {
            key.done(before.token, Settlement::Release, "released by its holder")?;
        }
        let terms = if attempt % 4 == 3 { case.lease(1) } else { LONG };
        let holder = key.granted(terms, "claimed again")?;
        let Grant { fence, .. } = holder.grant;
        let expected = Grant { fence, attempt, is_takeover };
        ensure!(holder.grant == expected, "{:?} instead of {expected:?}", holder.grant);
        ensure!(fence > before.grant.fence, "fence {fence} came after {}", before.grant.fence);
        before = holder;
    }
    Ok(())
}

fn claimed_again_is_granted_again<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let key = case.key(&store, b"k");
    let request = key.request(OTHER, LONG);
    let first = key.granted_to(&request, "first claim")?;
    let since = key.held("after the first claim")?.0.since;
    case.pass(3);
    let asked = case.elapsed();
    // Its first reply was lost, so nobody has worked under it, whatever its payload.
    let again = ClaimRequest { digest: Digest::of(PAYLOAD), ..request };
    let second = key.granted_to(&again, "the same claim again")?;
    ensure!(first.grant == second.grant, "{:?}, and again {:?}", first.grant, second.grant);
    let held = key.in_flight("another claim, with its second payload")?;
    ensure!(held.since == since, "held since {since:?}, and then since {:?}", held.since);
    let lasted = case.since(asked) + case.grain();
    ensure!(held.remaining + lasted >= LONG.lease, "asked again, its lease did not begin anew");
    key.mismatched("another claim, with its first payload")?;

    let outcome = Outcome::success(*b"charged 10");
    key.done(request.token, Settlement::Complete(&outcome), "completed by its holder")?;
    let answer = key.ask(&again)?;
    ensure!(answer == Answer::Finished(outcome), "the same claim, when finished: {answer:?}");
    Ok(())
}

fn outcomes_of_any_kind<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let every_byte: Vec<u8> = (0..=255).collect();
    let outcomes = [
        Outcome::success(*b"charged 10"),
        Outcome::failure(*b"declined"),
        Outcome::success([]),
        Outcome::failure([]),
        Outcome::success(every_byte.clone()),
        Outcome::failure(every_byte),
        Outcome::success(vec![0; 3]),
        Outcome::tombstone(Ending::Success),
        Outcome::tombstone(Ending::Failure),
    ];
    keeps_each(case, &outcomes)
}

fn large_outcomes<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let bytes: Vec<u8> = (0..1_u32 << 20).map(|number| (number % 251) as u8).collect();
    keeps_each(case, &[Outcome::success(bytes.as_slice()), Outcome::failure(&bytes[1..])])
}

fn keeps_each<H: ClaimHarness>(case: &Case<'_, H>, outcomes: &[Outcome]) -> Checked {
    let store = case.open()?;
    for (number, outcome) in outcomes.iter().enumerate() {
        let id = format!("outcome {number}");
        let key = case.key(&store, id.as_bytes());
        let holder = key.granted(LONG, "first claim")?;
        key.done(holder.token, Settlement::Complete(outcome), "completed by its holder")?;
        key.finished(outcome, "claimed when finished")?;
        key.shown(outcome, "when finished")?;
    }
    Ok(())
}

fn look_shows_what_is_held<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let (key, outcome) = (case.key(&store, b"k"), Outcome::success(*b"charged 10"));
    key.free("before its first claim")?;
    let began = case.elapsed();
    let first = key.granted(case.lease(3), "first claim")?;
    let (at_first, grant) = key.held("while it is held")?;
    ensure!(grant == first.grant, "granted {:?}, shown {grant:?}", first.grant);
    ensure!(at_first.remaining <= case.ticks(3), "{:?} are left", at_first.remaining);
    let at_least = (began + case.ticks(3)).saturating_sub(case.elapsed() + case.grain());
    ensure!(at_first.remaining >= at_least, "{:?} are left", at_first.remaining);

    case.pass(4);
    let (late, grant) = key.held("after the deadline")?;
    ensure!(grant == first.grant, "granted {:?}, shown {grant:?}, late", first.grant);
    ensure!(late.since == at_first.since, "held since {at_first:?}, and then since {late:?}");
    ensure!(late.remaining == Duration::ZERO, "{:?} are left after all", late.remaining);

    let second = key.granted(LONG, "after the deadline")?;
    let (taken_over, grant) = key.held("when taken over")?;
    ensure!(grant == second.grant, "granted {:?}, shown {grant:?}", second.grant);
    let apart = taken_over.since.since(at_first.since) + case.grain();
    ensure!(apart >= case.ticks(4), "{at_first:?}, and four ticks later {taken_over:?}");

    key.done(second.token, Settlement::Release, "released")?;
    key.free("when released")?;
    let third = key.granted(LONG, "after a release")?;
    key.done(third.token, Settlement::Complete(&outcome), "completed")?;
    key.shown(&outcome, "when finished")
}

fn look_changes_nothing<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let key = case.key(&store, b"k");
    for when in ["before its first claim", "once more"] {
        key.free(when)?;
    }
    let holder = key.granted(case.lease(2), "the first claim, after looks")?;
    ensure!(holder.grant.attempt == 1, "the first claim, after looks, is {:?}", holder.grant);
    case.pass(1);
    key.held("while it is held")?;
    case.pass(2);
    key.held("after the deadline")?;
    let next = key.granted(LONG, "after the deadline, and looks")?;
    ensure!(next.grant.is_takeover, "after the deadline, and looks: {:?}", next.grant);
    Ok(())
}
