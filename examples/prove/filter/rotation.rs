//! The slowest check while a filter's window rolls over, beyond the jitter
//! that the same loop shows without it.

use crate::Options;
use crate::jitter;
use crate::load::latencies::{Comparison, POINTS};
use crate::load::scenario::{Plan, Scenario};
use crate::report::{Report, Status};
use hapax::Mode;

const RATE: f64 = 1e-2;
const CHECKS_PER_SECOND: u64 = 1_000_000;
const BAR_NANOS: i64 = 1_000_000;

/// The place of the slowest check in [`POINTS`].
const WORST: usize = POINTS.len() - 1;

pub(crate) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let (keys, runs) = if full { (8_000_000, 5) } else { (1_000_000, 3) };
    let what = format!("rotation of {} M keys, worst of a run, {runs} runs", keys / 1_000_000);
    report.take(&what, "at most 1 ms beyond control", || {
        let comparison = compare(keys, runs);
        let beyond = comparison.beyond_nanos()[WORST];
        Ok((jitter::figure(&comparison, WORST), Status::of_run(beyond <= BAR_NANOS, !full)))
    });
}

/// Engine and control in turn, each over two windows.
fn compare(keys: u64, runs: u64) -> Comparison {
    let plan = Plan {
        scenario: Scenario::Rotation,
        mode: Mode::filter(RATE),
        keys,
        checks_per_second: CHECKS_PER_SECOND,
        // Half of the checks are new keys.
        checks: 4 * keys,
        threads: 1,
    };
    jitter::compare(&plan, runs)
}
