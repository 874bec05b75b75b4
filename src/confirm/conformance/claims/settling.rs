//! Who may say how a claim ended.

use super::case::{Case, Holder, Key, LONG, OTHER, PAYLOAD};
use super::{ClaimHarness, Named};
use crate::confirm::claims::{Digest, Outcome, Settlement};
use crate::confirm::conformance::checks::named;
use crate::confirm::conformance::report::{Checked, ensure};

/// All of them.
pub(super) fn all<H: ClaimHarness>() -> impl Iterator<Item = Named<H>> {
    named![
        settled_again_changes_nothing,
        a_late_holder_may_settle,
        stale_after_a_takeover,
        stale_after_a_clear,
        stale_for_whoever_does_not_hold_it,
        finished_is_final,
        a_release_lets_in,
        a_clear_lets_in,
        what_finished_elsewhere_is_adopted,
        adopted_only_where_nobody_is_at_it,
    ]
    .into_iter()
}

fn first() -> Outcome {
    Outcome::success(*b"the first outcome")
}

fn second() -> Outcome {
    Outcome::failure(*b"the second outcome")
}

fn settled_again_changes_nothing<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let key = case.key(&store, b"completed");
    let holder = key.granted(LONG, "first claim")?;
    for (outcome, when) in [(first(), "completed"), (second(), "completed again")] {
        key.done(holder.token, Settlement::Complete(&outcome), when)?;
        key.finished(&first(), when)?;
    }

    let key = case.key(&store, b"released");
    let holder = key.granted(LONG, "first claim")?;
    for when in ["released", "released again"] {
        key.done(holder.token, Settlement::Release, when)?;
        key.free(when)?;
    }
    let next = key.granted(LONG, "after two releases")?;
    ensure!(next.grant.attempt == 2, "after two releases of one claim: {:?}", next.grant);
    Ok(())
}

fn a_late_holder_may_settle<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let [completed, released, extended] =
        [b"completed".as_slice(), b"released", b"extended"].map(|id| case.key(&store, id));
    let first_claim = |key: &Key<'_, H>| key.granted(case.lease(1), "first claim");
    let [completing, releasing, extending] =
        [first_claim(&completed)?, first_claim(&released)?, first_claim(&extended)?];
    case.pass(2);
    completed.done(completing.token, Settlement::Complete(&first()), "completed late")?;
    completed.finished(&first(), "completed late")?;

    released.done(releasing.token, Settlement::Release, "released late")?;
    let next = released.granted(LONG, "released late")?;
    ensure!(!next.grant.is_takeover, "after a late release: {:?}", next.grant);

    extended.done(extending.token, Settlement::Extend, "extended late")?;
    extended.in_flight("extended late")?;
    Ok(())
}

fn stale_after_a_takeover<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let key = case.key(&store, b"k");
    let late = key.granted(case.lease(1), "first claim")?;
    case.pass(2);
    let holder = key.granted(LONG, "after the deadline")?;
    all_stale(&key, late, "of one taken over from")?;
    still_held(&key, holder, "after the other's settlements")?;
    key.done(holder.token, Settlement::Complete(&first()), "completed by its holder")?;
    all_stale(&key, late, "of one taken over from, when the key is finished")?;
    key.finished(&first(), "after the other's settlements")
}

fn all_stale<H: ClaimHarness>(key: &Key<'_, H>, holder: Holder, whose: &str) -> Checked {
    let outcome = second();
    for settlement in [Settlement::Extend, Settlement::Complete(&outcome), Settlement::Release] {
        key.stale(holder.token, settlement, &format!("{settlement:?} {whose}"))?;
    }
    Ok(())
}

fn still_held<H: ClaimHarness>(key: &Key<'_, H>, holder: Holder, when: &str) -> Checked {
    let (_, grant) = key.held(when)?;
    ensure!(grant == holder.grant, "{when}: {grant:?} instead of {:?}", holder.grant);
    key.in_flight(when)?;
    Ok(())
}

fn stale_after_a_clear<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let (key, outcome) = (case.key(&store, b"k"), second());
    let cleared = key.granted(LONG, "first claim")?;
    key.done(case.token(), Settlement::Clear, "cleared")?;
    for settlement in [Settlement::Complete(&outcome), Settlement::Extend] {
        key.stale(cleared.token, settlement, &format!("{settlement:?} after a clear"))?;
        key.free("after a settlement that came after a clear")?;
    }
    let holder = key.granted(LONG, "after a clear")?;
    all_stale(&key, cleared, "of one cleared away, when another is at it")?;
    still_held(&key, holder, "after the other's settlements")
}

fn stale_for_whoever_does_not_hold_it<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let (key, outcome) = (case.key(&store, b"held"), second());
    let holder = key.granted(LONG, "first claim")?;
    let stranger = Holder { token: case.token(), grant: holder.grant };
    all_stale(&key, stranger, "of one who never held the key")?;
    still_held(&key, holder, "after a stranger's settlements")?;

    for (id, is_released) in [(b"never claimed".as_slice(), false), (b"released", true)] {
        let key = case.key(&store, id);
        let token = if is_released {
            let holder = key.granted(LONG, "first claim")?;
            key.done(holder.token, Settlement::Release, "released by its holder")?;
            holder.token
        } else {
            case.token()
        };
        for settlement in [Settlement::Complete(&outcome), Settlement::Extend] {
            key.stale(token, settlement, &format!("{settlement:?} of a key that is free"))?;
            key.free("after a settlement of a free key")?;
        }
    }
    Ok(())
}

fn finished_is_final<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let key = case.key(&store, b"k");
    let holder = key.granted(LONG, "first claim")?;
    key.done(holder.token, Settlement::Complete(&first()), "completed")?;
    for settlement in [Settlement::Release, Settlement::Extend] {
        key.stale(holder.token, settlement, &format!("{settlement:?} by who completed"))?;
        key.finished(&first(), "after that")?;
    }
    Ok(())
}

fn a_release_lets_in<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let (key, spared) = (case.key(&store, b"k"), case.key(&store, b"spared"));
    spared.granted(LONG, "first claim")?;
    let holder = key.granted(LONG, "first claim")?;
    key.done(holder.token, Settlement::Release, "released by its holder")?;
    key.free("when released")?;
    let next = key.granted_to(&key.request(OTHER, LONG), "with any payload, when released")?;
    ensure!(!next.grant.is_takeover && next.grant.attempt == 2, "released: {:?}", next.grant);
    spared.in_flight("when another was released")?;
    key.done(case.token(), Settlement::Clear, "cleared")?;
    case.key(&store, b"never claimed").done(case.token(), Settlement::Release, "never claimed")
}

fn a_clear_lets_in<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let spared = case.key(&store, b"spared");
    spared.granted(LONG, "first claim")?;
    for (id, is_finished) in [(b"held".as_slice(), false), (b"finished", true)] {
        let key = case.key(&store, id);
        let holder = key.granted(LONG, "first claim")?;
        if is_finished {
            key.done(holder.token, Settlement::Complete(&first()), "completed")?;
        }
        for when in ["cleared", "cleared again"] {
            key.done(case.token(), Settlement::Clear, when)?;
            key.free(when)?;
        }
        let next = key.granted_to(&key.request(OTHER, LONG), "with any payload, when cleared")?;
        let (before, after) = (holder.grant.fence, next.grant);
        ensure!(!after.is_takeover && after.attempt == 2, "cleared: {after:?}");
        ensure!(after.fence > before, "cleared: fence {} came after {before}", after.fence);
    }
    spared.in_flight("when others were cleared")?;
    case.key(&store, b"never claimed").done(case.token(), Settlement::Clear, "never claimed")
}

fn what_finished_elsewhere_is_adopted<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let (digest, outcome) = (Digest::of(PAYLOAD), first());
    let adopt = Settlement::Adopt(&digest, &outcome);
    let adopted = |key: &Key<'_, H>, token, when: &str| {
        for time in ["", ", again"] {
            key.done(token, adopt, &format!("{when}{time}"))?;
            key.finished(&first(), when)?;
        }
        key.mismatched(when)
    };
    adopted(&case.key(&store, b"free"), case.token(), "adopted for a free key")?;

    let held = case.key(&store, b"held");
    let holder = held.granted(LONG, "first claim")?;
    adopted(&held, holder.token, "adopted from who holds the key here, too")?;

    let released = case.key(&store, b"released");
    let holder = released.granted(LONG, "first claim")?;
    released.done(holder.token, Settlement::Release, "released by its holder")?;
    adopted(&released, case.token(), "adopted for a key that was released")?;

    let late = case.key(&store, b"late");
    let holder = late.granted(case.lease(1), "first claim")?;
    case.pass(2);
    adopted(&late, case.token(), "adopted after the deadline")?;
    all_stale(&late, holder, "of one taken over from")?;
    late.finished(&first(), "after the other's settlements")
}

fn adopted_only_where_nobody_is_at_it<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let store = case.open()?;
    let (digest, outcome) = (Digest::of(PAYLOAD), second());
    let adopt = Settlement::Adopt(&digest, &outcome);
    let key = case.key(&store, b"k");
    let holder = key.granted(LONG, "first claim")?;
    key.stale(case.token(), adopt, "adopted while another is at it")?;
    still_held(&key, holder, "after that")?;
    key.done(holder.token, Settlement::Complete(&first()), "completed by its holder")?;
    key.stale(case.token(), adopt, "adopted when the key is finished")?;
    key.finished(&first(), "after that")
}
