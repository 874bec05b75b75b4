//! The command line, and what it asks for.

use crate::bars::narrow;
use crate::cell::{Cell, cells};
use crate::engines::Kind;
use crate::measure::Effort;
use crate::rates::FalsePositives;
use crate::stores::Stores;
use clap::{Parser, Subcommand};
use std::path::PathBuf;

const QUICK_LIVE_KEYS: u64 = 20_000;
const QUICK_EFFORT: Effort = Effort { rounds: 3, checks: 20_000 };
const EFFORT: Effort = Effort { rounds: 11, checks: 1_000_000 };

/// Puts Hapax beside what people would use instead, in one run.
///
/// Every engine of a cell is filled with the same live keys; then they take turns, round by round,
/// at the same stream of checks. Hapax and moka expire keys by themselves; dashmap, papaya, scc and
/// hashbrown only compare stamps, `quick_cache` is bounded by capacity alone: removing old keys
/// would be the caller's job there, and is not charged to them.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// What to run in place of the cells
    #[command(subcommand)]
    pub(crate) suite: Option<Suite>,

    /// The cells to run, or all; --list names them
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "all")]
    cells: Vec<String>,

    /// Only these engines, beside the subject (the first) of each cell
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    engines: Vec<Kind>,

    /// Timed rounds of each engine [default: 11]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// Checks of each thread in a round [default: 1000000]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    checks: Option<u64>,

    /// Live keys, in place of those of each cell
    #[arg(long, value_name = "KEYS", value_parser = clap::value_parser!(u64).range(1_024..))]
    live: Option<u64>,

    /// Write the figures as JSON to a file, or to standard output if it is `-`
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Only what the project's own measures need
    #[arg(long, conflicts_with = "engines")]
    bars: bool,

    /// Small sizes: shows that it works, and measures nothing
    #[arg(long)]
    quick: bool,

    /// List the cells and their engines, and end
    #[arg(long)]
    pub(crate) list: bool,
}

/// What there is beside the cells.
#[derive(Debug, Subcommand)]
pub(crate) enum Suite {
    FalsePositives(FalsePositives),
    Stores(Stores),
}

impl Args {
    /// The cells asked for, on a machine of so many processors.
    ///
    /// # Errors
    ///
    /// The name of a cell that does not exist.
    pub(crate) fn cells(&self, processors: usize) -> Result<Vec<Cell>, String> {
        let mut chosen = self.named(cells(processors))?;
        if self.bars {
            chosen = narrow(chosen);
        }
        for cell in &mut chosen {
            self.adapt(cell);
        }
        Ok(chosen)
    }

    /// How long to measure.
    pub(crate) fn effort(&self) -> Effort {
        let usual = if self.quick { QUICK_EFFORT } else { EFFORT };
        Effort {
            rounds: self.rounds.map_or(usual.rounds, usize::from),
            checks: self.checks.unwrap_or(usual.checks),
        }
    }

    fn named(&self, all: Vec<Cell>) -> Result<Vec<Cell>, String> {
        if self.cells.iter().any(|name| name == "all") {
            return Ok(all);
        }
        if let Some(unknown) = self.cells.iter().find(|name| all.iter().all(|c| c.name != **name)) {
            return Err(format!("there is no cell {unknown:?}: --list names those that exist"));
        }
        Ok(all.into_iter().filter(|cell| self.cells.contains(&cell.name)).collect())
    }

    fn adapt(&self, cell: &mut Cell) {
        let quick = self.quick.then_some(QUICK_LIVE_KEYS);
        cell.live_keys = self.live.or(quick).unwrap_or(cell.live_keys);
        if !self.engines.is_empty() {
            let subject = cell.contenders.first().map(|subject| subject.kind);
            cell.contenders.retain(|contender| {
                Some(contender.kind) == subject || self.engines.contains(&contender.kind)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(args: &[&str]) -> Result<Vec<Cell>, String> {
        let args = std::iter::once("compare").chain(args.iter().copied());
        Args::parse_from(args).cells(2)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }

    #[test]
    fn cells_and_engines_are_chosen_by_name() {
        let cells = chosen(&["--cells", "new,rolling", "--engines", "scc-ahash"]).unwrap();
        let names: Vec<_> = cells.iter().map(|cell| cell.name.as_str()).collect();
        assert_eq!(names, ["new", "rolling"]);
        assert_eq!(cells[0].contenders.len(), 2);
        assert_eq!(cells[1].contenders.len(), 1);
        assert!(chosen(&["--cells", "none"]).is_err());
    }

    #[test]
    fn a_size_that_is_given_wins() {
        assert!(chosen(&["--quick"]).unwrap().iter().all(|cell| cell.live_keys == 20_000));
        let cells = chosen(&["--quick", "--live", "5000"]).unwrap();
        assert!(cells.iter().all(|cell| cell.live_keys == 5_000));
    }
}
