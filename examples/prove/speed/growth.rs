//! Latency of single checks while a deduper grows from empty, beyond the
//! jitter that the same loop shows without it.

use crate::Options;
use crate::jitter;
use crate::load::latencies::{Comparison, POINTS};
use crate::load::scenario::{Plan, Scenario};
use crate::report::{Report, Status};
use hapax::Mode;

const CHECKS_PER_SECOND: u64 = 1_000_000;
const BAR_P9999_NANOS: i64 = 200_000;
const BAR_WORST_NANOS: i64 = 5_000_000;

/// The places of these percentiles in [`POINTS`].
const P9999: usize = POINTS.len() - 2;
const WORST: usize = POINTS.len() - 1;

pub(crate) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let (keys, runs) = if full { (50_000_000, 5) } else { (5_000_000, 3) };
    let comparison = compare(keys, runs);
    let beyond = comparison.beyond_nanos();
    let mut line = |what: &str, point: usize, most: i64, bar: &str| {
        report.take(&format!("growth to {} M keys, {what}", keys / 1_000_000), bar, || {
            Ok((jitter::figure(&comparison, point), Status::of_run(beyond[point] <= most, !full)))
        });
    };
    line("p99.99 beyond control", P9999, BAR_P9999_NANOS, "at most 200 us");
    line(&format!("worst of a run, {runs} runs"), WORST, BAR_WORST_NANOS, "at most 5 ms");
}

/// Engine and control in turn.
fn compare(keys: u64, runs: u64) -> Comparison {
    let plan = Plan {
        scenario: Scenario::Growth,
        mode: Mode::fingerprint(),
        keys,
        checks_per_second: CHECKS_PER_SECOND,
        checks: keys,
        threads: 1,
    };
    jitter::compare(&plan, runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_points_are_the_ones_of_the_bars() {
        assert_eq!([POINTS[P9999].0, POINTS[WORST].0], ["p99.99", "max"]);
    }
}
