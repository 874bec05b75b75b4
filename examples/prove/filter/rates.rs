//! Measured rates against the predicted ones and those asked for, as the
//! false-positive suite of `benches/compare` measures them.

use crate::comparison::Comparison;
use crate::report::{Report, Status};
use crate::{Failure, Options};
use serde_json::Value;
use std::fmt;

/// So much of a predicted or wanted rate is not to be exceeded.
const MOST: f64 = 1.1;

pub(crate) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let points = run(full).map_err(|failure| failure.to_string());
    let mut line = |what: &str, name: &str| {
        report.take(what, "at most 1.10x, by the interval", || {
            let worst = worst(points.as_ref().map_err(Clone::clone)?, name)?;
            Ok((worst.to_string(), Status::of_run(worst.surely_at_least <= MOST, !full)))
        });
    };
    line("measured rate / predicted, worst of the grid", "rate_predicted");
    line("measured rate / asked for, worst of the grid", "rate_asked");
}

fn run(full: bool) -> Result<Vec<Value>, Failure> {
    let mut arguments = vec!["false-positives", "--engines", "hapax"];
    arguments.extend(full.then_some("--full"));
    points(Comparison::run(&arguments)?.figures())
}

fn points(figures: &Value) -> Result<Vec<Value>, Failure> {
    let points = figures["points"].as_array().filter(|points| !points.is_empty());
    Ok(points.ok_or("the comparison printed no points")?.clone())
}

/// A point's rate over another rate.
#[derive(Debug)]
struct Ratio {
    ratio: f64,
    /// The lower end of the interval in which it almost surely lies.
    surely_at_least: f64,
    false_positives: u64,
    point: String,
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ratio, surely_at_least, false_positives, point } = self;
        write!(f, "{ratio:.2}x, surely {surely_at_least:.2}x ({false_positives} at {point})")
    }
}

/// The point whose rate surely exceeds another of its rates the most.
fn worst(points: &[Value], other: &str) -> Result<Ratio, Failure> {
    let ratios: Result<Vec<Ratio>, Failure> =
        points.iter().map(|point| ratio(point, other)).collect();
    let worst = ratios?.into_iter().max_by(|a, b| a.surely_at_least.total_cmp(&b.surely_at_least));
    Ok(worst.ok_or("there are no points")?)
}

fn ratio(point: &Value, other: &str) -> Result<Ratio, Failure> {
    let number = |name: &str| {
        let number = point[name].as_f64();
        number.ok_or_else(|| format!("the comparison left {name} out"))
    };
    let other = number(other)?;
    let (asked, buckets) = (number("rate_asked")?, number("buckets")?);
    Ok(Ratio {
        ratio: number("rate")? / other,
        surely_at_least: number("rate_surely_at_least")? / other,
        false_positives: number("false_positives")? as u64,
        point: format!("{asked:.0e}, {buckets} buckets, {} %", number("load_percent")?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn figures() -> Value {
        let point = |rate: f64, surely: f64, hits: u64| {
            json!({
                "rate_asked": 1e-2, "buckets": 8, "load_percent": hits, "rate_predicted": 5e-3,
                "rate": rate, "rate_surely_at_least": surely, "false_positives": hits
            })
        };
        json!({ "points": [point(4e-3, 3e-3, 400), point(9e-2, 1e-6, 1), point(6e-3, 5e-3, 500)] })
    }

    #[test]
    fn the_worst_is_what_is_surely_so_and_not_one_lucky_hit() {
        let points = points(&figures()).unwrap();
        let worst = worst(&points, "rate_predicted").unwrap();
        assert_eq!(worst.to_string(), "1.20x, surely 1.00x (500 at 1e-2, 8 buckets, 500 %)");
        let asked = super::worst(&points, "rate_asked").unwrap();
        assert!((asked.surely_at_least - 0.5).abs() < 1e-9);
    }

    #[test]
    fn what_is_left_out_is_missed() {
        assert!(points(&json!({ "points": [] })).is_err());
        assert!(points(&json!([])).is_err());
        assert!(worst(&[json!({ "rate": 1.0 })], "rate_asked").is_err());
    }
}
