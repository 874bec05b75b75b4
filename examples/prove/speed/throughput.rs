//! Throughput beside other packages and beside the memory's own limit, as the
//! package `benches/compare` measures it.

use crate::process::{cargo, output_of};
use crate::report::{Report, Status, grouped};
use crate::{Failure, Options};
use serde_json::Value;
use std::fmt;
use std::process::Stdio;

const MANIFEST: &str = "benches/compare/Cargo.toml";

/// The least that does not fit the processor's caches, and a few rounds.
const SHORT: [&str; 6] = ["--live", "2000000", "--rounds", "3", "--checks", "500000"];

/// Two threads are to bring this much, or this share of what the limit's own
/// two bring, whichever is less.
const SCALING: f64 = 1.7;
const SHARE_OF_LIMIT_SCALING: f64 = 0.85;

const SCALING_NAME: &str = "two_threads_over_one";
const LIMIT_SCALING_NAME: &str = "limit_two_threads_over_one";

/// One measure of the comparison, and the ratio that it must reach.
struct Bar {
    /// As the comparison names it.
    name: &'static str,
    what: &'static str,
    least: f64,
}

const fn bar(name: &'static str, what: &'static str, least: f64) -> Bar {
    Bar { name, what, least }
}

const BARS: [Bar; 9] = [
    bar("batch_trusted_over_dashmap_ahash", "batch / dashmap, fast hashes", 5.0),
    bar(
        "batch_trusted_over_dashmap_ahash_2_threads",
        "batch / dashmap, fast hashes, 2 threads",
        5.0,
    ),
    bar("batch_default_over_dashmap_default", "batch / dashmap, default hashes", 4.0),
    bar("batch_over_moka", "batch / moka with time-to-live", 40.0),
    bar("batch_over_limit", "batch / limit", 0.45),
    bar("verified_over_dashmap_ahash", "verified batch / dashmap, fast hashes", 3.0),
    bar("single_over_dashmap_uniform", "single check / dashmap, uniform", 1.0),
    bar("single_over_dashmap_zipf_2_threads", "single check / dashmap, Zipf, 2 threads", 2.0),
    bar("rolling_over_still", "rolling window / no expiry", 0.85),
];

pub(crate) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let comparison = Comparison::run(full).map_err(|failure| failure.to_string());
    let find = |name| comparison.as_ref().map_err(Clone::clone)?.find(name);
    for bar in &BARS {
        let least = format!("at least {}", times(bar.least));
        report.take(bar.what, &least, || {
            let measured = find(bar.name)?;
            let met = measured.ratio >= bar.least && measured.wrong_verdicts == 0;
            Ok((measured.to_string(), Status::of_run(met, !full)))
        });
    }
    let least = format!("at least 1.70x, or {SHARE_OF_LIMIT_SCALING} of limit's");
    report.take("batch, 2 threads / 1", &least, || {
        let (measured, limit) = (find(SCALING_NAME)?, find(LIMIT_SCALING_NAME)?);
        let met = measured.ratio >= least_scaling(limit.ratio) && measured.wrong_verdicts == 0;
        let figure = format!("{measured}, limit {}", times(limit.ratio));
        Ok((figure, Status::of_run(met, !full)))
    });
}

fn times(ratio: f64) -> String {
    format!("{ratio:.2}x")
}

/// What two threads must bring where those of the limit bring `limit`.
fn least_scaling(limit: f64) -> f64 {
    SCALING.min(SHARE_OF_LIMIT_SCALING * limit)
}

/// Two contenders of the comparison, the one that is to be faster first.
struct Measured {
    ratio: f64,
    checks_per_s: [f64; 2],
    /// Of the first.
    wrong_verdicts: u64,
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

/// What the comparison printed: an object whose `bars` are its measures.
struct Comparison(Value);

impl Comparison {
    /// Builds and runs the comparison. Its progress goes to standard error.
    fn run(full: bool) -> Result<Self, Failure> {
        let mut command = cargo();
        command.args(["run", "--quiet", "--release", "--manifest-path", MANIFEST, "--"]);
        command.args(["--bars", "--json", "-"]);
        if !full {
            command.args(SHORT);
        }
        Self::parse(&output_of(command.stderr(Stdio::inherit()))?)
    }

    fn parse(json: &[u8]) -> Result<Self, Failure> {
        Ok(Self(serde_json::from_slice(json)?))
    }

    fn find(&self, name: &str) -> Result<Measured, Failure> {
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

    #[test]
    fn threads_need_not_scale_beyond_the_limit() {
        assert!((least_scaling(2.0) - 1.7).abs() < 1e-9);
        assert!((least_scaling(1.0) - 0.85).abs() < 1e-9);
    }
}
