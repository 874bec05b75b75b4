//! The filter's throughput beside eight fastbloom filters and beside the
//! memory's own limit, as the package `benches/compare` measures it.

use crate::comparison::{Comparison, times};
use crate::report::{Report, Status};
use crate::{Failure, Options};

const CELL: [&str; 2] = ["--cells", "filter-vs-fastbloom"];

/// The least that does not fit the processor's caches, and a few rounds.
const SHORT: [&str; 6] = ["--live", "8000000", "--rounds", "3", "--checks", "500000"];

/// The name of each measure, what it is, and the ratio that it must reach.
const BARS: [(&str, &str, f64); 2] = [
    ("filter_over_fastbloom", "filter batch / eight fastbloom filters", 6.0),
    ("filter_over_limit", "filter batch / limit of line pairs", 0.45),
];

pub(crate) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let comparison = run(full).map_err(|failure| failure.to_string());
    let keys = if full { "128 M" } else { "8 M" };
    for (name, what, least) in BARS {
        report.take(&format!("{what}, {keys} keys"), &format!("at least {}", times(least)), || {
            let measured = comparison.as_ref().map_err(Clone::clone)?.find(name)?;
            let met = measured.ratio >= least && measured.wrong_verdicts == 0;
            Ok((measured.to_string(), Status::of_run(met, !full)))
        });
    }
}

fn run(full: bool) -> Result<Comparison, Failure> {
    let mut arguments = CELL.to_vec();
    if !full {
        arguments.extend(SHORT);
    }
    Comparison::run(&arguments)
}
