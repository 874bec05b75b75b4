//! The guard over stores that fail as told.

mod fallback;
mod given_up;
mod policies;
mod random;
mod stage;
