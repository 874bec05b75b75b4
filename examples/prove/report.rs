//! Measures and how they are printed.

use crate::Failure;
use std::fmt;
use std::process::ExitCode;

/// What one measure came to.
pub(crate) struct Measure {
    /// What was measured.
    pub(crate) what: String,
    /// The figure, with its unit.
    pub(crate) figure: String,
    /// What the figure must be.
    pub(crate) bar: String,
    pub(crate) status: Status,
}

/// Whether a measure meets its bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Measured whole, and met.
    Ok,
    /// Not met, or it could not be measured.
    Missed,
    /// Met by a shortened run, which does not show all of it.
    Short,
}

impl Status {
    /// The status of a whole run.
    pub(crate) const fn of(met: bool) -> Self {
        if met { Self::Ok } else { Self::Missed }
    }

    /// The status of a run that was perhaps `shortened`: a miss stays a miss.
    pub(crate) const fn of_run(met: bool, shortened: bool) -> Self {
        if met && shortened { Self::Short } else { Self::of(met) }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Missed => "MISSED",
            Self::Short => "short",
        })
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, figure, bar, status } = self;
        write!(f, "{what:<48}  {figure:<44}  {bar:<34}  {status}")
    }
}

/// Prints measures as they come and remembers how they went.
#[derive(Default)]
pub(crate) struct Report {
    statuses: Vec<Status>,
    only: Option<String>,
}

impl Report {
    /// Of measures with this in their names alone, if it is given.
    pub(crate) fn only(only: Option<String>) -> Self {
        Self { only, ..Self::default() }
    }

    /// Takes one measure and prints its line. Why it could not be taken stands
    /// in the line; what more there is to say, on standard error.
    pub(crate) fn take(
        &mut self,
        what: &str,
        bar: &str,
        measure: impl FnOnce() -> Result<(String, Status), Failure>,
    ) {
        if self.only.as_ref().is_some_and(|only| !what.contains(only)) {
            return;
        }
        let (figure, status) = measure().unwrap_or_else(|failure| {
            let failure = failure.to_string();
            let (reason, details) = failure.split_once('\n').unwrap_or((&failure, ""));
            eprint!("{details}");
            (format!("not measured: {reason}"), Status::Missed)
        });
        self.statuses.push(status);
        println!("{}", Measure { what: what.into(), figure, bar: bar.into(), status });
    }

    /// The closing line, and exit status 1 if a measure is missed, 2 if none was taken.
    pub(crate) fn finish(self) -> ExitCode {
        if let (true, Some(only)) = (self.statuses.is_empty(), &self.only) {
            eprintln!("prove: no measure of this topic has '{only}' in its name");
            return ExitCode::from(2);
        }
        let count = |status| self.statuses.iter().filter(|each| **each == status).count();
        let missed = count(Status::Missed);
        println!("{} ok, {} short, {missed} missed", count(Status::Ok), count(Status::Short));
        ExitCode::from(u8::from(missed > 0))
    }
}

/// A number with its thousands apart: 1234567 is "1,234,567".
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_run_that_misses_is_a_miss() {
        assert_eq!(Status::of_run(true, true), Status::Short);
        assert_eq!(Status::of_run(true, false), Status::Ok);
        assert_eq!(Status::of_run(false, true), Status::Missed);
    }

    #[test]
    fn a_measure_that_fails_is_missed() {
        let mut report = Report::default();
        report.take("a", "b", || Ok((String::new(), Status::Ok)));
        report.take("a", "b", || Err("no such file".into()));
        assert_eq!(report.statuses, [Status::Ok, Status::Missed]);
    }

    #[test]
    fn measures_that_nobody_wants_are_not_taken() {
        let mut report = Report::only(Some("b c".into()));
        report.take("ab", "", || panic!("not wanted"));
        report.take("ab cd", "", || Ok((String::new(), Status::Short)));
        assert_eq!(report.statuses, [Status::Short]);
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(123), "123");
        assert_eq!(grouped(1_234), "1,234");
        assert_eq!(grouped(12_345_678), "12,345,678");
    }
}
