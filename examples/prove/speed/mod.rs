//! The topic `speed`: throughput beside other packages and beside the memory's
//! own limit, latency while growing, memory, and verdicts at full size.

pub(crate) mod flood;
pub(crate) mod growth;
pub(crate) mod sizes;
pub(crate) mod throughput;
pub(crate) mod verdicts;

use crate::Options;
use crate::report::Report;

pub(crate) fn run(options: &Options, report: &mut Report) {
    // First, while the system has most memory to give at once.
    growth::measure(options, report);
    throughput::measure(options, report);
    sizes::measure(options, report);
    flood::measure(options, report);
    verdicts::measure(options, report);
}
