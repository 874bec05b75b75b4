//! What can go wrong, one small enum per operation.

use crate::confirm::StoreError;
use crate::time::{MAX_BUCKETS, Timestamp};
use std::fmt;
use std::time::Duration;
use thiserror::Error;

/// Why a check could not answer. Nothing was recorded, unless it says so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CheckError {
    /// `check` or `contains` on a deduper that was built with `event_time`.
    #[error("this deduper runs on event time: call the `_at` method with the record's time")]
    TimeRequired,
    /// An `_at` method on a deduper that runs on its own clock.
    #[error(
        "this deduper runs on processing time: call the method without `_at`, or build it with \
         `event_time(lateness)`"
    )]
    TimeNotExpected,
    /// The record's time is further beyond the largest seen than `max_ahead`.
    #[error(
        "the record's time is {} beyond the largest seen, more than max_ahead ({max_ahead:?}): drop \
         or repair the record, or raise `max_ahead` if the stream really has such gaps",
        Ahead(*time, *largest_seen)
    )]
    TooFarAhead {
        /// The record's time.
        time: Timestamp,
        /// The largest time seen so far; before the first record, the clock's.
        largest_seen: Timestamp,
        /// The bound that was set.
        max_ahead: Duration,
    },
    /// The memory limit is reached and the policy is `Reject`; or, whatever the
    /// policy, the whole key (verified mode) would take over half the limit.
    #[error(
        "the memory limit of {limit_bytes} bytes is reached and the key is new: raise the limit, \
         shorten the window or the key, or build with `OnFull::EvictOldest`"
    )]
    Full {
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// The operating system gave no more memory for the table.
    #[error("the operating system gave no more memory: set a memory limit below what it can give")]
    OutOfMemory,
    /// The confirmer could not answer, and the outage policy lets nothing
    /// through.
    #[error("the key could not be confirmed, and is not recorded: {0}")]
    Unconfirmed(#[source] StoreError),
    /// The confirmer may have recorded the key, and nobody knows its answer; of a
    /// batch, also keys after the completed ones. A check of the key by this deduper
    /// asks again for the same sighting, and is not taken for a duplicate of it (as
    /// long as it is among some 65,536 such sightings); one by another process may
    /// be.
    #[error("the key may have been recorded, check it again here: {0}")]
    Uncertain(#[source] StoreError),
}

impl CheckError {
    /// The same, of a call that may have recorded keys all the same.
    pub(super) fn in_doubt(self) -> Self {
        match self {
            Self::Unconfirmed(error) => Self::Uncertain(error),
            other => other,
        }
    }
}

impl From<StoreError> for CheckError {
    fn from(error: StoreError) -> Self {
        if error.may_have_recorded() { Self::Uncertain(error) } else { Self::Unconfirmed(error) }
    }
}

/// How far one time is beyond another, for people.
struct Ahead(Timestamp, Timestamp);

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros().saturating_sub(self.1.as_micros());
        write!(f, "{:?}", Duration::from_micros(micros.unsigned_abs()))
    }
}

/// Why a batch stopped. The keys before `completed` have their verdicts and
/// are recorded as if checked one by one; none from there on is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the batch stopped after {completed} keys: {source}")]
pub struct BatchError {
    /// How many keys were checked; their verdicts are filled in.
    pub completed: usize,
    /// What stopped the next one.
    pub source: BatchErrorKind,
}

#[cfg(feature = "rayon")]
impl BatchError {
    /// The same for a batch that went on where `completed` keys of a larger
    /// one were done.
    pub(super) fn after(self, completed: usize) -> Self {
        Self { completed: completed + self.completed, ..self }
    }
}

/// What stopped a batch.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BatchErrorKind {
    /// The slices differ in length; nothing was checked.
    #[error(
        "{keys} keys, {verdicts} verdicts and {times} times were given: pass slices of one length"
    )]
    LengthMismatch {
        /// Length of `keys`.
        keys: usize,
        /// Length of `times`; that of `keys` where no times are taken.
        times: usize,
        /// Length of `verdicts`.
        verdicts: usize,
    },
    /// The check of the key after the last completed one failed.
    #[error(transparent)]
    Check(#[from] CheckError),
}

/// Everything that is wrong with a configuration, at once.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigError {
    problems: Vec<ConfigProblem>,
}

impl ConfigError {
    pub(super) const fn new(problems: Vec<ConfigProblem>) -> Self {
        Self { problems }
    }

    /// The one problem.
    pub(super) fn of(problem: ConfigProblem) -> Self {
        Self::new(vec![problem])
    }

    /// The problems found, at least one.
    pub fn problems(&self) -> &[ConfigProblem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot work: ")?;
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum ConfigProblem {
    /// The window's span is zero.
    #[error("the window's span is zero: give it a length, or use `Window::unbounded()`")]
    ZeroSpan,
    /// The window's span is longer than timestamps can tell.
    #[error("the window's span is over 1,000 years: use `Window::unbounded()`")]
    SpanTooLong,
    /// The number of buckets is out of range.
    #[error("{0} buckets: use 1 to {MAX_BUCKETS}")]
    Buckets(u32),
    /// The lateness is longer than the window.
    #[error("a lateness of {lateness:?} is longer than the window's span of {span:?}: shorten it")]
    LatenessBeyondSpan {
        /// The lateness asked for.
        lateness: Duration,
        /// The window's span.
        span: Duration,
    },
    /// The memory limit cannot hold even an empty engine.
    #[error(
        "a memory limit of {limit_bytes} bytes is too small: this configuration needs at least \
         {needed_bytes}"
    )]
    LimitTooSmall {
        /// The limit asked for.
        limit_bytes: u64,
        /// The least that works.
        needed_bytes: u64,
    },
    /// The filter's rate is out of range.
    #[error(
        "a filter rate of {0}: use 1e-9 to 0.5, or `Mode::verified()` if no new key may be called \
         a duplicate"
    )]
    FilterRate(f64),
    /// The filter would take far more memory than fingerprints do.
    #[error(
        "a filter of rate {rate} over this many buckets would take {bits_per_key:.0} bits a key: \
         use fewer buckets, a higher rate, or `Mode::fingerprint()` at about 116"
    )]
    FilterCost {
        /// The rate asked for.
        rate: f64,
        /// What it would cost.
        bits_per_key: f64,
    },
    /// The policy at the memory limit does not go with what is behind it.
    #[error(
        "with a confirmer the policy at the memory limit is `OnFull::Spill`, and without one it \
         is another: nothing that a confirmer knows need be rejected or forgotten"
    )]
    SpillPolicy,
    /// Filter mode with a confirmer.
    #[error(
        "filter mode keeps nothing that a confirmer could be spared by: leave the mode out; where \
         a filter helps, the deduper puts one in front by itself"
    )]
    FilterWithConfirmer,
    /// What the confirmer holds could not be read.
    #[error("the confirmer's keys could not be read: {0}")]
    Recovery(#[source] StoreError),
    /// The system gave no random secret for the keyed hash.
    #[error("the system gave no random secret ({0}): pass one with `hash_secret`")]
    NoRandomSecret(String),
}
