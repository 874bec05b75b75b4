//! What an operator can see of outages.

use crate::confirm::StoreErrorKind;
use crate::time::Timestamp;

/// How a confirmer is doing, for readiness probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Health {
    /// It answers.
    Serving,
    /// It is left alone, and asked by one call at a time whether it is back;
    /// checks meet the outage policy.
    Degraded {
        /// Since when.
        since: Timestamp,
        /// How it failed last.
        cause: StoreErrorKind,
    },
    /// It answers, and has yet to be told of some keys that the outage policy
    /// answered for; those are still the policy's to answer. The next checks tell it.
    Returning {
        /// How many keys.
        owed_keys: usize,
    },
}
