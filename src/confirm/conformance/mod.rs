//! Holds any confirmer to the contract, ours and yours alike (feature
//! `conformance`).
//!
//! With the feature `claims` there is the same for claim stores: `ClaimHarness` and
//! `check_claims`.
//!
//! A [`Harness`] opens confirmers; [`check`] runs every check on them, and
//! [`check_owned`] those of an [`OwnedStore`] besides. Each check has a
//! namespace of its own and a name that says what must hold.
//!
//! ```
//! use hapax::confirm::conformance::{Harness, check_owned};
//! use hapax::confirm::{MemoryConfirmer, StoreError};
//! use std::collections::HashMap;
//! use std::sync::Mutex;
//!
//! #[derive(Default)]
//! struct InMemory(Mutex<HashMap<String, MemoryConfirmer>>);
//!
//! impl Harness for InMemory {
//!     type Confirmer = MemoryConfirmer;
//!
//!     fn open(&self, namespace: &str) -> Result<MemoryConfirmer, StoreError> {
//!         let mut opened = self.0.lock().unwrap();
//!         Ok(opened.entry(namespace.to_owned()).or_default().take_over())
//!     }
//! }
//!
//! check_owned(&InMemory::default()).assert();
//! ```
//!
//! What it does not show: that a store keeps what it promised when the machine
//! fails. That takes faults below the store, which only its own tests can cause.

mod blocking;
mod callers;
mod case;
mod checks;
#[cfg(feature = "claims")]
mod claims;
#[cfg(test)]
mod faulty;
mod keys;
mod owned;
mod report;
#[cfg(test)]
mod tests;
mod trouble;

pub use blocking::{BlockOn, Blocking};
#[cfg(feature = "claims")]
pub use claims::{ClaimHarness, check_claims};
pub use report::{Outcome, Report};
pub use trouble::Trouble;

use super::{Confirmer, OwnedStore, StoreError};
use case::Case;
use trouble::Peace;

/// Opens the confirmers that are to be checked.
pub trait Harness: Sync {
    /// What is checked.
    type Confirmer: Confirmer;

    /// A confirmer for a namespace of one store that all calls share.
    ///
    /// The first call for a namespace finds it empty: a store that lasts longer
    /// than the run wants a prefix of the run's own. Later calls for it find what
    /// was recorded there. Those come when the confirmer before is gone, except
    /// in the check that a new owner fences the previous one.
    ///
    /// # Errors
    ///
    /// Whatever opening fails with; fails the check.
    fn open(&self, namespace: &str) -> Result<Self::Confirmer, StoreError>;

    /// What can befall the store; nothing, unless told.
    fn trouble(&self) -> &dyn Trouble {
        &Peace
    }
}

/// Runs all checks of [`Confirmer`].
///
/// About 50,000 sightings in all, most in batches, and up to 64 threads at a time.
pub fn check<H: Harness>(harness: &H) -> Report {
    Report::of(checks::all().map(|(name, check)| (name, check(&Case::new(harness, name)))))
}

/// Runs all checks of [`Confirmer`] and of [`OwnedStore`].
pub fn check_owned<H: Harness<Confirmer: OwnedStore>>(harness: &H) -> Report {
    let mut report = check(harness);
    report.extend(owned::all().map(|(name, check)| (name, check(&Case::new(harness, name)))));
    report
}
