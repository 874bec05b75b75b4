//! Single checks under an open load: each check is due at a time that a fixed
//! rate sets, whatever the checks before it took.
//!
//! A latency is counted from the moment the check was due, so a check that
//! stalls also delays, visibly, those that fell due meanwhile: nothing is left
//! out by waiting. Each load is offered twice, to the engine and to nothing,
//! its *control*; what the control shows is the machine's own jitter.
//!
//! Shared by the benchmark `latency` and `scripts/prove speed`.

pub(crate) mod latencies;
pub(crate) mod scenario;
mod schedule;
mod subject;
