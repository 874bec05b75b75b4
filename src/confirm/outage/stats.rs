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

/// Counters of a confirmer's outages since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutageStats {
    /// Requests that the confirmer did not answer.
    pub failures: u64,
    /// How often it was left alone because of them.
    pub openings: u64,
    /// Keys let through that nobody vouched for (`Admit`).
    pub admitted: u64,
    /// Sightings that the fallback answered alone.
    pub answered_by_fallback: u64,
    /// Requests that the fallback did not answer either.
    pub fallback_failures: u64,
    /// Keys that the confirmer has yet to be told of.
    pub journal_keys: usize,
    /// What they take in memory, in bytes.
    pub journal_bytes: usize,
    /// Keys that it was told of when it was back.
    pub written_back: u64,
    /// Those among them that it knew already: let through twice.
    pub let_through_twice: u64,
    /// Requests with such keys that it refused; they are tried again.
    pub write_backs_refused: u64,
    /// Keys whose last sighting ended in an error, and may have been recorded:
    /// their next check settles it.
    pub unresolved_keys: usize,
    /// Those of which there were too many to keep. A check of such a key may call it
    /// a duplicate although nobody has processed it.
    pub unresolved_given_up: u64,
}
