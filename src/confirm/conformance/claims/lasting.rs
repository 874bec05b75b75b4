//! What lasts when the store is closed, away, or silent.

use super::case::{Case, Holder, InFlight, LONG, PAYLOAD};
use super::{ClaimHarness, Named};
use crate::confirm::StoreError;
use crate::confirm::claims::{ClaimStore as _, Ending, Outcome, SettleRequest, Settlement};
use crate::confirm::conformance::checks::{able, fails_for_now, named};
use crate::confirm::conformance::report::{Checked, ensure};
use std::fmt;

/// All of them.
pub(super) fn all<H: ClaimHarness>() -> impl Iterator<Item = Named<H>> {
    named![reopening_keeps_all, restart_keeps_all, lost_reply, cut_off].into_iter()
}

fn reopening_keeps_all<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    kept_over(case, || Ok(()))
}

fn restart_keeps_all<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    kept_over(case, || able(case.harness.trouble().restart()))
}

/// What was claimed before the store was closed.
struct Before {
    held: Vec<(Holder, InFlight)>,
    released: Holder,
}

/// Claims keys, closes the store, and finds all as it was after `interval`.
fn kept_over<H: ClaimHarness>(case: &Case<'_, H>, interval: impl Fn() -> Checked) -> Checked {
    let held: Vec<_> = (0..100).map(|number| format!("held {number}").into_bytes()).collect();
    let finished =
        [Outcome::success([7; 1_000]), Outcome::failure([]), Outcome::tombstone(Ending::Success)]
            .map(|outcome| (format!("finished as {outcome:?}").into_bytes(), outcome));
    let before = before_it_closes(case, &held, &finished)?;
    interval()?;
    let store = case.open()?;
    for (id, (holder, in_flight)) in held.iter().zip(before.held) {
        let key = case.key(&store, id);
        let (found, grant) = key.held("after it was held")?;
        ensure!(grant == holder.grant, "{key}: {grant:?} instead of {:?}", holder.grant);
        ensure!(found.since == in_flight.since, "{key}: {found:?}, and before {in_flight:?}");
        key.in_flight("after it was held")?;
        key.mismatched("after it was held")?;
        key.done(holder.token, Settlement::Release, "by its holder, after it was held")?;
    }
    for (id, outcome) in &finished {
        let key = case.key(&store, id);
        key.finished(outcome, "after it was finished")?;
        key.mismatched("after it was finished")?;
    }
    let released = case.key(&store, b"released").granted(LONG, "after it was released")?.grant;
    let last = before.released.grant.fence;
    ensure!(released.attempt == 2, "after it was released: {released:?}");
    ensure!(released.fence > last, "fence {} came after {last}", released.fence);
    case.key(&store, b"cleared").free("after it was cleared")
}

fn before_it_closes<H: ClaimHarness>(
    case: &Case<'_, H>,
    held: &[Vec<u8>],
    finished: &[(Vec<u8>, Outcome)],
) -> Checked<Before> {
    let store = case.open()?;
    let claim = |id: &Vec<u8>| {
        let key = case.key(&store, id);
        let holder = key.granted(LONG, "first claim")?;
        Ok((holder, key.held("after the first claim")?.0))
    };
    let held = held.iter().map(claim).collect::<Checked<_>>()?;
    for (id, outcome) in finished {
        let key = case.key(&store, id);
        let holder = key.granted(LONG, "first claim")?;
        key.done(holder.token, Settlement::Complete(outcome), "completed")?;
    }
    let (key, cleared) = (case.key(&store, b"released"), case.key(&store, b"cleared"));
    let released = key.granted(LONG, "first claim")?;
    key.done(released.token, Settlement::Release, "released")?;
    cleared.granted(LONG, "first claim")?;
    cleared.done(case.token(), Settlement::Clear, "cleared")?;
    Ok(Before { held, released })
}

fn lost_reply<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let (key, outcome) = (case.key(&store, b"k"), Outcome::success(*b"charged 10"));
    let request = key.request(PAYLOAD, LONG);
    able(case.harness.trouble().lose_next_reply())?;
    is_in_doubt("a claim", store.claim(b"k", &request))?;
    key.in_flight("another claim, after the reply to the first was lost")?;
    let holder = key.granted_to(&request, "asked again after a lost reply")?;
    ensure!(holder.grant.attempt == 1, "asked again after a lost reply: {:?}", holder.grant);

    for settlement in [Settlement::Extend, Settlement::Complete(&outcome)] {
        settled_silently(case, &store, (b"k", holder), settlement)?;
    }
    key.finished(&outcome, "completed twice, once in silence")?;

    let key = case.key(&store, b"released");
    let holder = key.granted(LONG, "first claim")?;
    settled_silently(case, &store, (b"released", holder), Settlement::Release)?;
    let next = key.granted(LONG, "released twice, once in silence")?;
    ensure!(next.grant.attempt == 2, "released twice, once in silence: {:?}", next.grant);
    Ok(())
}

/// Settles while the reply is lost, and once more.
fn settled_silently<H: ClaimHarness>(
    case: &Case<'_, H>,
    store: &H::Store,
    (id, holder): (&[u8], Holder),
    settlement: Settlement<'_>,
) -> Checked {
    let request = SettleRequest { token: holder.token, settlement, terms: LONG };
    able(case.harness.trouble().lose_next_reply())?;
    is_in_doubt(&format!("{settlement:?}"), store.settle(id, &request))?;
    case.key(store, id).done(holder.token, settlement, "said again after a lost reply")
}

fn is_in_doubt<T: fmt::Debug>(call: &str, result: Result<T, StoreError>) -> Checked {
    match result {
        Ok(reply) => ensure!(false, "{call}: the reply was lost, yet there is one: {reply:?}"),
        Err(error) => ensure!(
            error.is_retryable() && error.may_have_recorded(),
            "{call}: a lost reply is {:?}, which says that nothing was done or not to ask again",
            error.kind()
        ),
    }
    Ok(())
}

fn cut_off<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let (key, outcome) = (case.key(&store, b"before"), Outcome::success(*b"charged 10"));
    let holder = key.granted(LONG, "before the cut")?;
    let later = case.key(&store, b"later");
    let (request, settlement) = (later.request(PAYLOAD, LONG), Settlement::Complete(&outcome));
    let completion = SettleRequest { token: holder.token, settlement, terms: LONG };
    able(case.harness.trouble().cut_off())?;
    let claimed = store.claim(b"later", &request);
    let settled = store.settle(b"before", &completion);
    let looked = store.look(b"before");
    case.harness.trouble().reconnect();
    fails_for_now("claim", claimed)?;
    fails_for_now("settle", settled)?;
    fails_for_now("look", looked)?;
    let granted = later.granted_to(&request, "asked again when reconnected")?;
    ensure!(granted.grant.attempt == 1, "asked again when reconnected: {:?}", granted.grant);
    key.done(holder.token, settlement, "completed when reconnected")?;
    key.finished(&outcome, "completed when reconnected")
}
