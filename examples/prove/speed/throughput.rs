//! Throughput beside other packages and beside the memory's own limit, as the
//! package `benches/compare` measures it.

use crate::comparison::{Comparison, times};
use crate::report::{Report, Status};
use crate::{Failure, Options};

/// The cells that the measures are of.
const CELLS: &str = "base,threads-2,default-hash,modes,single,single-zipf-2,scaling,rolling";

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
    let comparison = run(full).map_err(|failure| failure.to_string());
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

fn run(full: bool) -> Result<Comparison, Failure> {
    let mut arguments = vec!["--bars", "--cells", CELLS];
    if !full {
        arguments.extend(SHORT);
    }
    Comparison::run(&arguments)
}

/// What two threads must bring where those of the limit bring `limit`.
fn least_scaling(limit: f64) -> f64 {
    SCALING.min(SHARE_OF_LIMIT_SCALING * limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_need_not_scale_beyond_the_limit() {
        assert!((least_scaling(2.0) - 1.7).abs() < 1e-9);
        assert!((least_scaling(1.0) - 0.85).abs() < 1e-9);
    }
}
