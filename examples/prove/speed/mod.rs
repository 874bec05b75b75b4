//! The topic `speed`: throughput beside other packages and beside the memory's
//! own limit, latency while growing, memory, and verdicts at full size.

pub(crate) mod flood;
pub(crate) mod growth;
pub(crate) mod sizes;
pub(crate) mod throughput;
pub(crate) mod verdicts;

use crate::Options;
use crate::report::Report;
use indicatif::{ProgressBar, ProgressStyle};

pub(crate) fn run(options: &Options, report: &mut Report) {
    // First, while the system has most memory to give at once.
    growth::measure(options, report);
    throughput::measure(options, report);
    sizes::measure(options, report);
    flood::measure(options, report);
    verdicts::measure(options, report);
}

/// Shown only where standard error is a terminal.
fn progress_bar(total: u64, unit: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} {msg}, {eta} left");
    ProgressBar::new(total).with_style(style.expect("a valid template")).with_message(unit)
}
