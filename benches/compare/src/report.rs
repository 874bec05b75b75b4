//! What was measured, as a table for people and as JSON for programs.

use crate::bars::{BARS, Bar, Spread, rate, ratio};
use crate::cell::{Cell, Contender};
use crate::measure::{Effort, Outcome};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::fmt::Write as _;
use std::fs;

/// A cell with its outcomes.
pub(crate) type Measured = (Cell, Vec<Outcome>);

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    pub(crate) checks_per_round_and_thread: u64,
    pub(crate) bars: Vec<BarFigure>,
    pub(crate) cells: Vec<CellFigure>,
}

/// What it ran on.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) processors: usize,
}

/// A measure, of those that were asked for.
#[derive(Debug, Serialize)]
pub(crate) struct BarFigure {
    pub(crate) name: &'static str,
    /// The median over rounds; `null` if it was not measured.
    pub(crate) figure: Option<f64>,
    pub(crate) unit: &'static str,
    pub(crate) least: Option<f64>,
    pub(crate) most: Option<f64>,
    pub(crate) live_keys: u64,
    pub(crate) subject: ContenderFigure,
    pub(crate) other: ContenderFigure,
}

/// A cell's figures.
#[derive(Debug, Serialize)]
pub(crate) struct CellFigure {
    pub(crate) name: String,
    pub(crate) live_keys: u64,
    pub(crate) key_bytes: usize,
    pub(crate) new_share: f64,
    pub(crate) zipf: bool,
    pub(crate) contenders: Vec<ContenderFigure>,
}

/// What one contender showed.
#[derive(Debug, Serialize)]
pub(crate) struct ContenderFigure {
    pub(crate) engine: String,
    pub(crate) threads: usize,
    /// The median over rounds; `null` if it was not run.
    pub(crate) checks_per_s: Option<f64>,
    pub(crate) least_checks_per_s: Option<f64>,
    pub(crate) most_checks_per_s: Option<f64>,
    /// How many times as fast the cell's subject is; the median over rounds.
    pub(crate) subject_over_this: Option<f64>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) wrong_verdicts: u64,
    pub(crate) why_not_run: Option<String>,
}

impl Machine {
    pub(crate) fn new(processors: usize) -> Self {
        Self { processor: processor(), processors }
    }
}

impl Report {
    /// Sums up a run.
    pub(crate) fn new(measured: &[Measured], effort: Effort, processors: usize) -> Self {
        let bars = BARS.iter().filter_map(|bar| BarFigure::find(bar, measured)).collect();
        Self {
            machine: Machine::new(processors),
            rounds: effort.rounds,
            checks_per_round_and_thread: effort.checks,
            bars,
            cells: measured.iter().map(CellFigure::new).collect(),
        }
    }

    /// The tables, for people.
    pub(crate) fn tables(&self, measured: &[Measured]) -> String {
        let Machine { processor, processors } = &self.machine;
        let mut text = format!("{processor}, {processors} processors\n");
        for ((cell, _), figures) in measured.iter().zip(&self.cells) {
            let _ = write!(text, "\n{}\n{}\n", cell.describe(), figures.table());
        }
        text.push_str(NOTES);
        if !self.bars.is_empty() {
            let _ = write!(text, "\n{}\n", self.bars_table());
        }
        text
    }

    fn bars_table(&self) -> Table {
        let mut table = table(["measure", "times", "least", "most"]);
        for bar in &self.bars {
            let figures = [bar.figure, bar.least, bar.most].map(times);
            table.add_row(std::iter::once(bar.name.to_owned()).chain(figures));
        }
        aligned(table)
    }
}

const NOTES: &str = "\
\nMedian, least and most of the rounds, in million checks a second; all contenders of a cell take
turns round by round. The subject is the first row; `x` is how many times as fast it is as the row's
engine, the median of the rounds' ratios.
Expiry: Hapax and moka expire keys by themselves. dashmap, papaya, scc and hashbrown only compare
stamps: removing old keys would be their caller's job and is not charged to them. quick_cache is
bounded by its capacity alone. A limit answers nothing. Filters may be wrong about 1 % of new keys;
`wrong` is what goes beyond twice that.
One clock reading per batch of 256 keys, save hapax-single and dashmap-ahash-clocked (one per key)
and moka (its own).\n";

impl BarFigure {
    /// The measure, if its contenders were measured.
    fn find(bar: &Bar, measured: &[Measured]) -> Option<Self> {
        let (cell, outcomes) = measured.iter().find(|(cell, _)| cell.name == bar.cell)?;
        let find =
            |contender: Contender| outcomes.iter().find(|outcome| outcome.contender == contender);
        let (subject, other) = (find(bar.subject)?, find(bar.other)?);
        let spread = ratio(subject, other);
        Some(Self {
            name: bar.name,
            figure: spread.map(|spread| spread.median),
            unit: "times",
            least: spread.map(|spread| spread.least),
            most: spread.map(|spread| spread.most),
            live_keys: cell.live_keys,
            subject: ContenderFigure::new(subject, subject),
            other: ContenderFigure::new(other, subject),
        })
    }
}

impl CellFigure {
    fn new((cell, outcomes): &Measured) -> Self {
        let contenders = outcomes.first().map_or_else(Vec::new, |subject| {
            outcomes.iter().map(|outcome| ContenderFigure::new(outcome, subject)).collect()
        });
        Self {
            name: cell.name.clone(),
            live_keys: cell.live_keys,
            key_bytes: cell.key_bytes,
            new_share: cell.mix.new_share,
            zipf: cell.mix.is_zipf(),
            contenders,
        }
    }

    fn table(&self) -> Table {
        let mut table =
            table(["engine", "threads", "M/s", "least", "most", "x", "bytes/key", "wrong"]);
        for contender in &self.contenders {
            table.add_row(contender.row(self.live_keys));
        }
        aligned(table)
    }
}

impl ContenderFigure {
    fn new(outcome: &Outcome, subject: &Outcome) -> Self {
        let rate = rate(outcome);
        Self {
            engine: outcome.contender.kind.name(),
            threads: outcome.contender.threads,
            checks_per_s: rate.map(|rate| rate.median),
            least_checks_per_s: rate.map(|rate| rate.least),
            most_checks_per_s: rate.map(|rate| rate.most),
            subject_over_this: ratio(subject, outcome).map(|Spread { median, .. }| median),
            memory_bytes: outcome.memory_bytes,
            wrong_verdicts: outcome.wrong_verdicts,
            why_not_run: outcome.why_not_run.clone(),
        }
    }

    fn row(&self, live_keys: u64) -> Vec<String> {
        let mut row = vec![self.engine.clone(), self.threads.to_string()];
        if let Some(why) = &self.why_not_run {
            row.push(format!("not run ({why})"));
            return row;
        }
        row.extend(
            [self.checks_per_s, self.least_checks_per_s, self.most_checks_per_s].map(millions),
        );
        row.push(times(self.subject_over_this));
        row.push(per_key(self.memory_bytes, live_keys));
        row.push(self.wrong_verdicts.to_string());
        row
    }
}

/// An empty table.
pub(crate) fn table<const COLUMNS: usize>(header: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table
}

/// All columns but the first to the right.
pub(crate) fn aligned(mut table: Table) -> Table {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn millions(checks_per_s: Option<f64>) -> String {
    checks_per_s.map_or_else(String::new, |rate| format!("{:.2}", rate / 1e6))
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| "not run".to_owned(), |ratio| format!("{ratio:.2}"))
}

fn per_key(memory_bytes: Option<u64>, live_keys: u64) -> String {
    memory_bytes.map_or_else(String::new, |bytes| format!("{:.1}", bytes as f64 / live_keys as f64))
}

/// The processor's name, where the system tells.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bars::narrow;
    use crate::cell::cells;
    use crate::measure::measure;
    use indicatif::ProgressBar;

    const EFFORT: Effort = Effort { rounds: 2, checks: 2_000 };

    fn measured() -> Vec<Measured> {
        let small = narrow(cells(2)).into_iter().map(|mut cell| {
            cell.live_keys = 4_096;
            cell
        });
        small
            .map(|cell| {
                let outcomes = measure(&cell, EFFORT, None, &ProgressBar::hidden());
                (cell, outcomes)
            })
            .collect()
    }

    #[test]
    fn json_holds_every_bar() {
        let report = Report::new(&measured(), EFFORT, 2);
        let json = serde_json::to_string(&report).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        for (bar, figure) in BARS.iter().zip(json["bars"].as_array().unwrap()) {
            assert_eq!(figure["name"], bar.name);
            assert_eq!(figure["unit"], "times");
            assert!(figure["figure"].as_f64().unwrap() > 0.0, "{}", bar.name);
            assert!(figure["subject"]["checks_per_s"].as_f64().unwrap() > 0.0);
            assert!(figure["other"]["checks_per_s"].as_f64().unwrap() > 0.0);
        }
        assert_eq!(json["bars"].as_array().unwrap().len(), BARS.len());
    }

    #[test]
    fn tables_name_every_engine_and_why_one_did_not_run() {
        let mut measured = measured();
        measured[0].1[1].samples.clear();
        measured[0].1[1].why_not_run = Some("memory: needs about 3.0 GB".to_owned());
        let text = Report::new(&measured, EFFORT, 2).tables(&measured);
        assert!(text.contains("not run (memory: needs about 3.0 GB)"));
        for outcome in measured.iter().flat_map(|(_, outcomes)| outcomes) {
            assert!(text.contains(&outcome.contender.kind.name()));
        }
    }
}
