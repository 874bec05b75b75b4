//! Hapax beside what people would use instead, in one run.
//!
//! ```text
//! cargo run --release --manifest-path benches/compare/Cargo.toml
//! cargo run --release --manifest-path benches/compare/Cargo.toml -- --bars
//! cargo run --release --manifest-path benches/compare/Cargo.toml -- --list
//! cargo run --release --manifest-path benches/compare/Cargo.toml -- false-positives
//! cargo run --release --manifest-path benches/compare/Cargo.toml -- stores
//! ```
//!
//! A *cell* is one comparison: so many live keys of such a size, a mix of new
//! and known keys, and the engines that answer, each called by so many threads.
//! All cells lie around one (10 million live keys of 16 bytes, half of the
//! stream new, one thread, fast hashes) and vary one factor each; `--list`
//! names them.
//!
//! In a cell every engine is given the capacity that it will need and filled
//! with the live keys. Then the engines take turns, round by round. A round's
//! stream is drawn before it is timed, and the same for all; its new keys are
//! new to all, and are forgotten afterwards, untimed, so that each round begins
//! with the stated number of live keys. Medians are taken over rounds, and
//! ratios round by round, so that what disturbs the machine for a while
//! disturbs both sides. The verdicts are counted: an engine whose number of
//! uniques is not that of the stream's new keys shows it in the column `wrong`.
//!
//! What is generous to the peers: one reading of the clock per 256 keys, room
//! for all keys from the start, and no charge for expiring keys, which all but
//! moka leave to their caller.
//!
//! The rooms, in the order of a run: `args` (what is asked for), `cell` and
//! `bars` (what can be), `memory` (what fits), `measure` (the rounds), with
//! `stream` (the keys) and `engines`, and `report`. `rates`, the false-positive
//! suite, and `stores`, key-value stores under a confirmer's load, are runs of their own.

mod args;
mod bars;
mod cell;
mod engines;
mod measure;
mod memory;
mod rates;
mod report;
mod stores;
mod stream;

use args::{Args, Suite};
use cell::Cell;
use clap::Parser as _;
use indicatif::{ProgressBar, ProgressStyle};
use measure::{Effort, measure, steps};
use memory::available_bytes;
use report::{Measured, Report};
use serde::Serialize;
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::{fs, io};

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hapax-compare: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let processors = available_parallelism().map_or(1, usize::from);
    match &args.suite {
        Some(Suite::FalsePositives(suite)) => return suite.run(processors),
        Some(Suite::Stores(suite)) => return suite.run(),
        None => {}
    }
    let cells = args.cells(processors)?;
    if args.list {
        return print(&list(&cells));
    }
    let measured = measure_all(cells, args.effort())?;
    let report = Report::new(&measured, args.effort(), processors);
    write(&report.tables(&measured), &report, args.json.as_deref())
}

/// Writes tables for people to standard output; and the figures to a file, if
/// one is named.
fn write(
    tables: &str,
    figures: &impl Serialize,
    file: Option<&Path>,
) -> Result<(), Box<dyn Error>> {
    let Some(file) = file else { return print(tables) };
    let json = serde_json::to_string_pretty(figures)?;
    if file.as_os_str() == "-" {
        // The tables must not mix with the figures.
        eprintln!("{}", tables.trim_end());
        return print(&json);
    }
    fs::write(file, json + "\n").map_err(|error| format!("{}: {error}", file.display()))?;
    print(tables)
}

fn measure_all(cells: Vec<Cell>, effort: Effort) -> Result<Vec<Measured>, Box<dyn Error>> {
    let progress = ProgressBar::new(cells.iter().map(|cell| steps(cell, effort)).sum());
    let style = "{bar:30} {pos}/{len} {elapsed_precise} {wide_msg}";
    progress.set_style(ProgressStyle::with_template(style)?);
    let measured = cells.into_iter().map(|cell| {
        let outcomes = measure(&cell, effort, available_bytes(), &progress);
        (cell, outcomes)
    });
    let measured = measured.collect();
    progress.finish_and_clear();
    Ok(measured)
}

/// Writes to standard output; a closed pipe is no error.
fn print(text: &str) -> Result<(), Box<dyn Error>> {
    match writeln!(io::stdout().lock(), "{}", text.trim_end()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn list(cells: &[Cell]) -> String {
    let mut text = String::new();
    for cell in cells {
        let _ = writeln!(text, "{}", cell.describe());
        for contender in &cell.contenders {
            let _ =
                writeln!(text, "    {} on {}", contender.kind.name(), threads(contender.threads));
        }
    }
    text
}

fn threads(count: usize) -> String {
    if count == 1 { "1 thread".to_owned() } else { format!("{count} threads") }
}
