//! The topic `filter`: what the filter mode forgets (nothing), whether its
//! rates are those asked for and predicted, its memory, its speed, and what a
//! rotation costs.

mod negatives;
mod race;
mod rates;
mod rotation;
mod size;
mod speed;

use crate::Options;
use crate::report::Report;

pub(crate) fn run(options: &Options, report: &mut Report) {
    negatives::measure(options, report);
    race::measure(options, report);
    rates::measure(options, report);
    size::measure(options, report);
    speed::measure(options, report);
    rotation::measure(options, report);
}
