//! Guarded claim stores, over stores that fail as told.

#[cfg(feature = "conformance")]
mod contract;
mod policies;
mod random;
mod stage;
