//! Engine and control in turn: what a scenario costs beyond the jitter that the
//! same loop shows without the engine.

use crate::load::latencies::{Comparison, duration};
use crate::load::scenario::Plan;
use crate::progress::progress_bar;

/// Runs a plan `runs` times, and as often its control.
pub(crate) fn compare(plan: &Plan, runs: u64) -> Comparison {
    let progress = progress_bar(runs, "runs");
    let (control, engine): (Vec<_>, Vec<_>) =
        progress.wrap_iter(0..runs).map(|_| (plan.control(), plan.engine())).unzip();
    progress.finish_and_clear();
    Comparison::of(&engine, &control)
}

/// The difference at one of the points, and what it is the difference of.
pub(crate) fn figure(comparison: &Comparison, point: usize) -> String {
    format!(
        "{} ({} - {})",
        duration(comparison.beyond_nanos()[point]),
        duration(comparison.engine.0[point] as i64),
        duration(comparison.control.0[point] as i64)
    )
}
