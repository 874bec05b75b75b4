//! The topic `claims`: that work is done once per key, whoever dies in the middle
//! of it, and what that costs.

mod fuzz;
mod kills;
mod lanes;
mod late;
mod latency;
mod place;
mod stampede;
mod throughput;
mod transactions;

pub(crate) use kills::HOLDER;
pub(crate) use transactions::BUYER;

use crate::Options;
use crate::child::Job;
use crate::report::Report;

/// What children of this topic do.
pub(crate) const JOBS: [(&str, Job); 2] = [(HOLDER, kills::hold), (BUYER, transactions::buy)];

pub(crate) fn run(options: &Options, report: &mut Report) {
    stampede::measure(options, report);
    kills::measure(options, report);
    transactions::measure(options, report);
    late::measure(options, report);
    throughput::measure(options, report);
    latency::measure(options, report);
    fuzz::measure(options, report);
}
