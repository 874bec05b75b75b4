//! For how long claims hold, and outcomes are kept.

use super::case::{Case, LONG, OTHER};
use super::{ClaimHarness, Named};
use crate::confirm::claims::{ClaimStore as _, Outcome, Settlement, Terms};
use crate::confirm::conformance::checks::named;
use crate::confirm::conformance::report::{Checked, ensure};
use std::time::Duration;

/// All of them.
pub(super) fn all<H: ClaimHarness>() -> impl Iterator<Item = Named<H>> {
    named![
        taken_over_after_the_deadline_alone,
        extended_from_then_on,
        outcomes_are_kept_for_their_term_alone,
        an_abandoned_claim_is_forgotten,
        nothing_kept,
        endless_terms,
        sweep_spares_what_is_alive,
    ]
    .into_iter()
}

fn done() -> Outcome {
    Outcome::success(*b"charged 10")
}

fn taken_over_after_the_deadline_alone<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let (early, late) = (case.key(&store, b"early"), case.key(&store, b"late"));
    let began = case.elapsed();
    early.granted(case.lease(4), "first claim")?;
    let first = late.granted(case.lease(4), "first claim")?;
    case.pass(3);
    case.until((began, 4), || early.in_flight("one tick before the deadline").map(drop))?;
    case.pass(1);
    let second = late.granted(LONG, "at the deadline")?.grant;
    ensure!(second.is_takeover && second.attempt == 2, "at the deadline: {second:?}");
    let before = first.grant.fence;
    ensure!(second.fence > before, "fence {} came after {before}", second.fence);
    late.in_flight("when taken over")?;
    Ok(())
}

fn extended_from_then_on<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let (early, late) = (case.key(&store, b"early"), case.key(&store, b"late"));
    let claimed = [early.granted(LONG, "first claim")?, late.granted(LONG, "first claim")?];
    let since = early.held("after the first claim")?.0.since;
    case.pass(1);
    // From now on, and for the terms that come with it.
    let extended = case.elapsed();
    for (key, holder) in [&early, &late].into_iter().zip(claimed) {
        key.done_for(case.lease(4), holder.token, Settlement::Extend, "extended")?;
    }
    let held = early.in_flight("when extended")?;
    ensure!(held.since == since, "held since {since:?}, and extended since {:?}", held.since);
    ensure!(held.remaining <= case.ticks(4), "extended by four ticks, {held:?}");
    case.pass(3);
    case.until((extended, 4), || early.in_flight("three ticks after it was extended").map(drop))?;
    case.pass(1);
    let next = late.granted(LONG, "four ticks after it was extended")?;
    ensure!(next.grant.is_takeover, "after an extended lease: {:?}", next.grant);
    late.stale(claimed[1].token, Settlement::Extend, "extended by one taken over from")
}

fn outcomes_are_kept_for_their_term_alone<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let [kept, forgotten, lasting] =
        [b"kept".as_slice(), b"forgotten", b"lasting"].map(|id| case.key(&store, id));
    let short = Terms { keep: case.ticks(4), ..LONG };
    // What a completion says counts, whatever its claim said.
    let long_claims = [kept.granted(LONG, "first claim")?, forgotten.granted(LONG, "first claim")?];
    let short_claim = lasting.granted(short, "first claim")?;
    let completed = case.elapsed();
    let settlement = Settlement::Complete(&done());
    for (key, holder) in [&kept, &forgotten].into_iter().zip(long_claims) {
        key.done_for(short, holder.token, settlement, "completed")?;
    }
    lasting.done_for(LONG, short_claim.token, settlement, "completed")?;
    case.pass(3);
    case.until((completed, 4), || kept.finished(&done(), "one tick before it is forgotten"))?;
    case.pass(1);
    forgotten.free("when its outcome is no longer kept")?;
    let request = forgotten.request(OTHER, LONG);
    let next = forgotten.granted_to(&request, "when its outcome is no longer kept")?.grant;
    ensure!(next.attempt == 1 && !next.is_takeover, "a key that was forgotten: {next:?}");
    let before = long_claims[1].grant.fence;
    ensure!(next.fence > before, "fence {} came after {before}", next.fence);
    lasting.finished(&done(), "kept for a day")
}

fn an_abandoned_claim_is_forgotten<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let (known, forgotten) = (case.key(&store, b"known"), case.key(&store, b"forgotten"));
    let terms = Terms { lease: case.ticks(1), keep: case.ticks(3) };
    let began = case.elapsed();
    known.granted(terms, "first claim")?;
    let abandoned = forgotten.granted(terms, "first claim")?;
    case.pass(3);
    case.until((began, 4), || {
        known.held("one tick before it is forgotten")?;
        known.mismatched("one tick before it is forgotten")?;
        let next = known.granted(LONG, "one tick before it is forgotten")?.grant;
        ensure!(next.attempt == 2 && next.is_takeover, "a claim abandoned lately: {next:?}");
        Ok(())
    })?;
    case.pass(1);
    forgotten.free("long after its holder was heard of")?;
    let settlement = Settlement::Complete(&done());
    forgotten.stale(abandoned.token, settlement, "completed by whom everybody has forgotten")?;
    let request = forgotten.request(OTHER, LONG);
    let next = forgotten.granted_to(&request, "long after its holder was heard of")?.grant;
    ensure!(next.attempt == 1 && !next.is_takeover, "a key that was forgotten: {next:?}");
    Ok(())
}

fn nothing_kept<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let (settled, abandoned) = (case.key(&store, b"settled"), case.key(&store, b"abandoned"));
    let terms = Terms { keep: Duration::ZERO, ..LONG };
    let holder = settled.granted(terms, "first claim")?;
    settled.in_flight("while it is held")?;
    settled.done_for(terms, holder.token, Settlement::Complete(&done()), "completed")?;
    abandoned.granted(Terms { lease: case.ticks(1), ..terms }, "first claim")?;
    case.pass(1);
    for key in [settled, abandoned] {
        key.free("with nothing kept")?;
        let next = key.granted_to(&key.request(OTHER, LONG), "with nothing kept")?.grant;
        ensure!(next.attempt == 1 && !next.is_takeover, "with nothing kept: {next:?}");
    }
    Ok(())
}

fn endless_terms<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
    let endless = Terms { lease: Duration::MAX, keep: Duration::MAX };
    let store = case.open()?;
    let (key, released) = (case.key(&store, b"k"), case.key(&store, b"released"));
    let holder = key.granted(endless, "first claim")?;
    let extended = case.key(&store, b"extended");
    let extending = extended.granted(case.lease(1), "first claim")?;
    extended.done_for(endless, extending.token, Settlement::Extend, "extended for ever")?;
    let releasing = released.granted(endless, "first claim")?;
    released.done_for(endless, releasing.token, Settlement::Release, "released")?;
    case.pass(2);
    for key in [&key, &extended] {
        let held = key.in_flight("with an endless lease")?;
        ensure!(held.remaining > CENTURY, "{:?} are left of an endless lease", held.remaining);
    }
    let next = released.granted(LONG, "released for ever")?.grant;
    ensure!(next.attempt == 2 && !next.is_takeover, "released for ever: {next:?}");
    key.done_for(endless, holder.token, Settlement::Complete(&done()), "completed for ever")?;
    case.pass(1);
    key.finished(&done(), "completed for ever")
}

fn sweep_spares_what_is_alive<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let brief = Terms { lease: case.ticks(1), keep: case.ticks(1) };
    let ids: Vec<_> = (0..10).map(|number| format!("expired {number}").into_bytes()).collect();
    let expired: Vec<_> = ids.iter().map(|id| case.key(&store, id)).collect();
    for key in &expired {
        key.granted(brief, "first claim")?;
    }
    let [held, late, finished, released] =
        [b"held".as_slice(), b"late", b"finished", b"released"].map(|id| case.key(&store, id));
    let holding = held.granted(LONG, "first claim")?;
    late.granted(case.lease(1), "first claim")?;
    let finishing = finished.granted(LONG, "first claim")?;
    finished.done(finishing.token, Settlement::Complete(&done()), "completed")?;
    let releasing = released.granted(LONG, "first claim")?;
    released.done(releasing.token, Settlement::Release, "released")?;

    case.pass(3);
    let mut sweeps = 0;
    while store.sweep()? {
        sweeps += 1;
        ensure!(sweeps < 1_000, "after {sweeps} sweeps there is still more to do");
    }
    held.in_flight("after a sweep")?;
    held.done(holding.token, Settlement::Complete(&done()), "completed after a sweep")?;
    let next = late.granted(LONG, "past its deadline, after a sweep")?.grant;
    ensure!(next.attempt == 2 && next.is_takeover, "abandoned lately, and swept: {next:?}");
    finished.finished(&done(), "after a sweep")?;
    let next = released.granted(LONG, "released, after a sweep")?.grant;
    ensure!(next.attempt == 2 && !next.is_takeover, "released, and swept: {next:?}");
    expired.iter().try_for_each(|key| key.free("expired, after a sweep"))
}
