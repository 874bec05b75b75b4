//! Identities, whatever their bytes.

use super::case::{Case, LONG};
use super::{ClaimHarness, Named};
use crate::confirm::claims::{Outcome, Settlement};
use crate::confirm::conformance::checks::named;
use crate::confirm::conformance::keys;
use crate::confirm::conformance::report::Checked;

/// All of them.
pub(super) fn all<H: ClaimHarness>() -> impl Iterator<Item = Named<H>> {
    named![
        an_empty_identity,
        long_identities,
        binary_identities,
        similar_identities,
        namespaces_apart,
    ]
    .into_iter()
}

fn an_empty_identity<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    each_has_its_own(case, &[b""])
}

fn long_identities<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    each_has_its_own(case, &keys::long())
}

fn binary_identities<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    each_has_its_own(case, &keys::binary())
}

fn similar_identities<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    each_has_its_own(case, &keys::SIMILAR)
}

/// Each is granted, and then has an outcome of its own.
fn each_has_its_own<H: ClaimHarness, I: AsRef<[u8]>>(case: &Case<'_, H>, ids: &[I]) -> Checked {
    let store = case.open()?;
    let keys: Vec<_> = ids.iter().map(|id| case.key(&store, id.as_ref())).collect();
    let outcome = |number: usize| Outcome::success(number.to_be_bytes());
    let claims = keys.iter().map(|key| key.granted(LONG, "first claim"));
    let holders = claims.collect::<Checked<Vec<_>>>()?;
    for (number, (key, holder)) in keys.iter().zip(holders).enumerate() {
        key.held("while it is held")?;
        key.done(holder.token, Settlement::Complete(&outcome(number)), "completed")?;
    }
    for (number, key) in keys.iter().enumerate() {
        key.finished(&outcome(number), "when all are finished")?;
        key.shown(&outcome(number), "when all are finished")?;
    }
    Ok(())
}

fn namespaces_apart<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    // Joined with their keys, the names would be equal.
    let one = case.harness.open("namespace")?;
    let other = case.harness.open("namespacea")?;
    let holder = case.key(&one, b"ab").granted(LONG, "in the first namespace")?;
    case.key(&other, b"b").granted(LONG, "in the second namespace")?;
    let key = case.key(&other, b"ab");
    key.granted(LONG, "in the second namespace")?;
    key.done(case.token(), Settlement::Clear, "cleared in the second namespace")?;
    let key = case.key(&one, b"ab");
    key.in_flight("in the first namespace, cleared in the second")?;
    let outcome = Outcome::success(*b"charged 10");
    key.done(holder.token, Settlement::Complete(&outcome), "completed in the first namespace")?;
    case.key(&other, b"ab").free("in the second namespace, completed in the first")
}
