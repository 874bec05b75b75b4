//! The package `benches/compare`, run as a program of its own, and what it
//! prints.

use crate::Failure;
use crate::process::{cargo, output_of};
use crate::report::grouped;
use serde_json::Value;
use std::fmt;
use std::process::Stdio;

const MANIFEST: &str = "benches/compare/Cargo.toml";

/// A ratio, for people.
pub(crate) fn times(ratio: f64) -> String {
    format!("{ratio:.2}x")
}

/// Two contenders of the comparison, the one that is to be faster first.
pub(crate) struct Measured {
    pub(crate) ratio: f64,
    checks_per_s: [f64; 2],
    /// Of the first.
    pub(crate) wrong_verdicts: u64,
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [subject, other] = self.checks_per_s.map(|rate| rate / 1e6);
        write!(f, "{} ({subject:.1} / {other:.1} M/s)", times(self.ratio))?;
        match self.wrong_verdicts {
            0 => Ok(()),
            wrong => write!(f, ", {} wrong", grouped(wrong)),
        }
    }
}

/// What the comparison printed: an object whose `bars`, if cells were run, are
/// their measures.
pub(crate) struct Comparison(Value);

impl Comparison {
    /// Builds the comparison and runs it with these arguments. Its progress
    /// goes to standard error.
    pub(crate) fn run(arguments: &[&str]) -> Result<Self, Failure> {
        let mut command = cargo();
        command.args(["run", "--quiet", "--release", "--manifest-path", MANIFEST, "--"]);
        command.args(arguments).args(["--json", "-"]);
        Self::parse(&output_of(command.stderr(Stdio::inherit()))?)
    }

    /// Everything that it printed.
    pub(crate) const fn figures(&self) -> &Value {
        &self.0
    }

    pub(crate) fn parse(json: &[u8]) -> Result<Self, Failure> {
        Ok(Self(serde_json::from_slice(json)?))
    }

    /// The measure of this name.
    pub(crate) fn find(&self, name: &str) -> Result<Measured, Failure> {
        let measures = self.0["bars"].as_array().ok_or("the comparison printed no bars")?;
        let measure = measures.iter().find(|measure| measure["name"] == name);
        let measure = measure.ok_or_else(|| format!("the comparison has no {name}"))?;
        let contenders = [&measure["subject"], &measure["other"]];
        if let Some(why) = contenders.iter().find_map(|each| each["why_not_run"].as_str()) {
            return Err(why.into());
        }
        let number = |value: &Value| value.as_f64().ok_or("the comparison left a figure out");
        let [subject, other] = contenders.map(|each| number(&each["checks_per_s"]));
        Ok(Measured {
            ratio: number(&measure["figure"])?,
            checks_per_s: [subject?, other?],
            wrong_verdicts: contenders[0]["wrong_verdicts"].as_u64().unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn comparison() -> Comparison {
        let contender = |checks_per_s, wrong_verdicts| {
            json!({
                "checks_per_s": checks_per_s, "wrong_verdicts": wrong_verdicts, "why_not_run": null
            })
        };
        let bars = json!({ "bars": [
            {
                "name": "one",
                "figure": 0.5,
                "subject": contender(3e7, 0),
                "other": contender(6e7, 9)
            },
            { "name": "wrong", "figure": 7.0, "subject": contender(7e6, 3), "other": contender(1e6, 0) },
            { "name": "none", "figure": null, "subject": { "why_not_run": "memory" } },
        ]});
        Comparison::parse(bars.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn measures_are_found_by_name() {
        assert_eq!(comparison().find("one").unwrap().to_string(), "0.50x (30.0 / 60.0 M/s)");
        let wrong = comparison().find("wrong").unwrap().to_string();
        assert_eq!(wrong, "7.00x (7.0 / 1.0 M/s), 3 wrong");
    }

    #[test]
    fn a_measure_that_was_not_taken_says_why() {
        let reason = |name| comparison().find(name).err().unwrap().to_string();
        assert_eq!(reason("none"), "memory");
        assert_eq!(reason("other"), "the comparison has no other");
    }

    #[test]
    fn what_is_not_the_comparison_s_is_refused() {
        assert!(Comparison::parse(b"error: no such file").is_err());
        assert!(Comparison::parse(b"[]").unwrap().find("one").is_err());
    }
}
