//! `hapax`: the command line over the library.
//!
//! Flags are parsed (`args`), resolved once into a plan (`plan`), and carried
//! out by a loop that knows nothing of flags (`dedup`). This file turns the
//! outcome into an exit status: 0 success, 2 failure, and a closed pipe is a
//! quiet success.

mod args;
mod batch;
mod buffer;
mod dedup;
mod emit;
mod engine;
mod error;
mod event_time;
mod format;
mod key;
mod output;
mod place;
mod plan;
mod progress;
mod quantity;
mod replacement;
mod source;
mod spill;
mod summary;
mod tally;

use args::{Cli, Command};
use clap::Parser as _;
use error::Failure;
use std::io::Write as _;
use std::process::ExitCode;

/// The exit status of every failure, wrong use included.
const FAILURE: u8 = 2;

fn main() -> ExitCode {
    let Command::Dedup(args) = Cli::parse().command;
    match dedup::run(*args) {
        Ok(()) | Err(Failure::ClosedPipe) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nothing is left to tell if standard error is closed as well.
            let _ = writeln!(std::io::stderr(), "hapax: {failure}");
            ExitCode::from(FAILURE)
        }
    }
}
