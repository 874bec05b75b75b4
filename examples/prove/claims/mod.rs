//! The topic `claims`: that work is done once per key, whoever dies in the middle
//! of it, and what that costs.

mod throughput;

use crate::Options;
use crate::report::Report;

pub(crate) fn run(options: &Options, report: &mut Report) {
    throughput::measure(options, report);
}
