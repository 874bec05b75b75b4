//! The Idempotency-Key layer, on axum and on services of other kinds.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod answers;
mod api;
mod documentation;
mod inputs;
mod keys;
mod lifetimes;
mod outages;
mod random;
mod replays;
mod services;
