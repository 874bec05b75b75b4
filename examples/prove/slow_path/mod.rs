//! The topic `slow-path`: confirmers on disk, in Redis and in PostgreSQL, and
//! what happens when they fail.

mod conformance;
mod faulty;
mod kills;
mod outages;
mod processes;
mod reads;
mod redb;
mod redis_batches;
#[path = "../../../tests/servers/mod.rs"]
#[expect(clippy::unwrap_used, reason = "written for tests: where a server fails, nothing goes on")]
pub(crate) mod servers;
mod spill;
mod suite;
mod traced;
mod window;

pub(crate) use processes::WORKER;
pub(crate) use traced::TRACED;
pub(crate) use window::ROUNDS;

use crate::child::Job;
use crate::report::Report;
use crate::{Failure, Options};
use tokio::runtime::Runtime;

/// What children of this topic do.
pub(crate) const JOBS: [(&str, Job); 3] =
    [(WORKER, processes::work), (TRACED, traced::work), (ROUNDS, window::work)];

pub(crate) fn run(options: &Options, report: &mut Report) {
    conformance::measure(report);
    processes::measure(options, report);
    window::measure(options, report);
    reads::measure(options, report);
    redis_batches::measure(options, report);
    kills::measure(options, report);
    traced::measure(options, report);
    outages::measure(options, report);
    faulty::measure(options, report);
    spill::measure(options, report);
}

pub(crate) fn runtime() -> Result<Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}
