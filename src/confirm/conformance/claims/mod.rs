//! Holds any claim store to the contract.
//!
//! Its checks compare what a store answers with what [`Entry`] decides, from
//! outside: by claims, settlements and looks. Where time must pass they wait for
//! it, by the harness's clock; what must hold *until* then is judged only if the
//! answer came in time, so a slow machine proves less, and nothing wrong.
//!
//! [`Entry`]: crate::confirm::claims::Entry

mod case;
mod claiming;
#[cfg(test)]
mod faulty;
mod identities;
mod lasting;
mod races;
mod settling;
#[cfg(test)]
mod tests;
mod time;

use super::report::{Checked, Report};
use super::trouble::{Peace, Trouble};
use crate::confirm::StoreError;
use crate::confirm::claims::ClaimStore;
use crate::time::ManualClock;
use case::Case;

/// Opens the claim stores that are to be checked.
///
/// ```
/// use hapax::confirm::StoreError;
/// use hapax::confirm::claims::MemoryClaims;
/// use hapax::confirm::conformance::{ClaimHarness, check_claims};
/// use hapax::{ManualClock, Timestamp};
/// use std::collections::HashMap;
/// use std::sync::{Arc, Mutex};
///
/// struct InMemory {
///     clock: Arc<ManualClock>,
///     opened: Mutex<HashMap<String, Arc<MemoryClaims>>>,
/// }
///
/// impl ClaimHarness for InMemory {
///     type Store = Arc<MemoryClaims>;
///
///     fn open(&self, namespace: &str) -> Result<Arc<MemoryClaims>, StoreError> {
///         let new = || Arc::new(MemoryClaims::with_clock(self.clock.clone()));
///         let mut opened = self.opened.lock().unwrap();
///         Ok(Arc::clone(opened.entry(namespace.to_owned()).or_insert_with(new)))
///     }
///
///     fn clock(&self) -> Option<&ManualClock> {
///         Some(&self.clock)
///     }
/// }
///
/// let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_790_000_000)));
/// check_claims(&InMemory { clock, opened: Mutex::default() }).assert();
/// ```
pub trait ClaimHarness: Sync {
    /// What is checked.
    type Store: ClaimStore;

    /// A store for a namespace of one that all calls share.
    ///
    /// The first call for a namespace finds it empty: a store that lasts longer
    /// than the run wants a prefix of the run's own. Later calls for it find what
    /// was claimed there; they come when the store before is gone.
    ///
    /// # Errors
    ///
    /// Whatever opening fails with; fails the check.
    fn open(&self, namespace: &str) -> Result<Self::Store, StoreError>;

    /// The clock of all stores, if it moves only when told; `None` if time passes by
    /// itself: then the checks wait, for some ten seconds in all.
    fn clock(&self) -> Option<&ManualClock> {
        None
    }

    /// What can befall the store; nothing, unless told.
    fn trouble(&self) -> &dyn Trouble {
        &Peace
    }
}

/// Runs all checks of [`ClaimStore`].
///
/// About 50,000 requests in all, from up to 64 threads at a time.
pub fn check_claims<H: ClaimHarness>(harness: &H) -> Report {
    Report::of(all().map(|(name, check)| (name, check(&Case::new(harness, name)))))
}

/// A check and its name, which is also its namespace.
type Named<H> = (&'static str, fn(&Case<'_, H>) -> Checked);

/// All of them.
fn all<H: ClaimHarness>() -> impl Iterator<Item = Named<H>> {
    claiming::all()
        .chain(settling::all())
        .chain(time::all())
        .chain(identities::all())
        .chain(races::all())
        .chain(lasting::all())
}
