//! What the checks found.

use crate::confirm::StoreError;
use std::error::Error;
use std::fmt;

/// What became of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The contract holds.
    Passed,
    /// It does not, and here is how.
    Failed(String),
    /// The harness has no means to make the trouble that the check needs.
    NotRun,
}

/// What became of all checks, by name, in the order in which they ran.
#[derive(Clone, Debug)]
#[must_use = "the checks ran for nothing: call `assert`, or read the outcomes"]
pub struct Report {
    outcomes: Vec<(&'static str, Outcome)>,
}

impl Report {
    pub(super) fn of(checks: impl Iterator<Item = (&'static str, Checked)>) -> Self {
        let mut report = Self { outcomes: Vec::new() };
        report.extend(checks);
        report
    }

    pub(super) fn extend(&mut self, checks: impl Iterator<Item = (&'static str, Checked)>) {
        self.outcomes.extend(checks.map(|(name, checked)| {
            let outcome = match checked {
                Ok(()) => Outcome::Passed,
                Err(Unmet::NotRun) => Outcome::NotRun,
                Err(Unmet::Failed(how)) => Outcome::Failed(how),
            };
            (name, outcome)
        }));
    }

    /// The names of all checks, and what became of each.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static str, &Outcome)> {
        self.outcomes.iter().map(|(name, outcome)| (*name, outcome))
    }

    /// The names of those that failed.
    pub fn failed(&self) -> Vec<&'static str> {
        let failed = |outcome: &Outcome| matches!(outcome, Outcome::Failed(_));
        self.outcomes().filter(|(_, outcome)| failed(outcome)).map(|(name, _)| name).collect()
    }

    /// Returns if no check failed.
    ///
    /// # Panics
    ///
    /// If one did, with the whole report.
    #[track_caller]
    pub fn assert(&self) {
        assert!(self.failed().is_empty(), "the store does not keep the contract:\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcome) in self.outcomes() {
            match outcome {
                Outcome::Passed => writeln!(f, "ok       {name}")?,
                Outcome::NotRun => writeln!(f, "not run  {name}")?,
                Outcome::Failed(how) => writeln!(f, "FAILED   {name}: {how}")?,
            }
        }
        Ok(())
    }
}

/// A check's result.
pub(super) type Checked<T = ()> = Result<T, Unmet>;

/// Why a check did not pass.
#[derive(Debug)]
pub(super) enum Unmet {
    Failed(String),
    NotRun,
}

impl From<StoreError> for Unmet {
    fn from(error: StoreError) -> Self {
        let cause = error.source().map_or(String::new(), |cause| format!(": {cause}"));
        Self::Failed(format!("{:?}: {error}{cause}", error.kind()))
    }
}

/// Fails the check with a message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::confirm::conformance::report::Unmet::Failed(format!($($message)+)));
        }
    };
}
pub(super) use ensure;
