//! A consumer, its broker and its store, stopped at each step.

mod broker;
mod crashes;
mod fate;
mod outcomes;
mod stage;
