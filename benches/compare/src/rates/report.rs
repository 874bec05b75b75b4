//! What was measured, as a table for people and as JSON for programs.

use super::grid::Effort;
use super::interval::{self, Interval, interval};
use super::measure::Figure;
use crate::report::{Machine, aligned, table};
use comfy_table::Table;
use serde::Serialize;

/// Everything that a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    /// The keys that each window was made for.
    expected_keys: u64,
    points: Vec<PointFigure>,
}

/// What one engine showed in one case.
#[derive(Debug, Serialize)]
struct PointFigure {
    engine: String,
    rate_asked: f64,
    buckets: u32,
    load_percent: u64,
    probes: u64,
    false_positives: u64,
    /// By the engine's own account; `null` if it gives none.
    rate_predicted: Option<f64>,
    rate: f64,
    /// The rate's interval in which it lies in 95 of 100 cases.
    rate_low: f64,
    rate_high: f64,
    /// It is lower than this in one of 10,000 cases.
    rate_surely_at_least: f64,
    bits_per_key: f64,
    ns_per_probe: f64,
    lines_per_probe: f64,
}

impl Report {
    /// Sums up a run.
    pub(super) fn new(figures: Vec<Figure>, effort: Effort, processors: usize) -> Self {
        Self {
            machine: Machine::new(processors),
            expected_keys: effort.expected_keys,
            points: figures.into_iter().map(PointFigure::from).collect(),
        }
    }

    /// For people.
    pub(super) fn table(&self) -> Table {
        let mut table = table([
            "asked",
            "buckets",
            "load",
            "engine",
            "predicted",
            "measured",
            "from",
            "to",
            "bits/key",
            "ns/probe",
            "lines",
        ]);
        for point in &self.points {
            table.add_row(point.row());
        }
        aligned(table)
    }
}

impl From<Figure> for PointFigure {
    fn from(figure: Figure) -> Self {
        let within = |deviations| interval(figure.false_positives, figure.probes, deviations);
        let Interval { low, high } = within(interval::USUAL);
        Self {
            engine: figure.kind.name(),
            rate_asked: figure.point.rate,
            buckets: figure.point.buckets,
            load_percent: figure.point.load_percent,
            probes: figure.probes,
            false_positives: figure.false_positives,
            rate_predicted: figure.predicted,
            rate: figure.false_positives as f64 / figure.probes as f64,
            rate_low: low,
            rate_high: high,
            rate_surely_at_least: within(interval::SURE).low,
            bits_per_key: figure.bits_per_key,
            ns_per_probe: figure.ns_per_probe,
            lines_per_probe: figure.lines_per_probe,
        }
    }
}

impl PointFigure {
    fn row(&self) -> [String; 11] {
        let rate = |rate: f64| format!("{rate:.2e}");
        [
            format!("{:.0e}", self.rate_asked),
            self.buckets.to_string(),
            format!("{} %", self.load_percent),
            self.engine.clone(),
            self.rate_predicted.map_or_else(String::new, rate),
            rate(self.rate),
            rate(self.rate_low),
            rate(self.rate_high),
            format!("{:.1}", self.bits_per_key),
            format!("{:.0}", self.ns_per_probe),
            format!("{:.1}", self.lines_per_probe),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::grid::Point;
    use super::super::window::Kind;
    use super::*;

    #[test]
    fn json_and_table_hold_every_figure() {
        let figure = Figure {
            kind: Kind::GrowableBloomFilter,
            point: Point { rate: 1e-3, buckets: 8, load_percent: 200 },
            probes: 10_000,
            false_positives: 12,
            predicted: None,
            bits_per_key: 17.25,
            ns_per_probe: 99.6,
            lines_per_probe: 18.0,
        };
        let report = Report::new(vec![figure], Effort::QUICK, 2);
        let json = serde_json::to_value(&report).unwrap();
        let point = &json["points"][0];
        assert_eq!(point["engine"], "growable-bloom-filter");
        assert!(point["rate_predicted"].is_null());
        let number = |name: &str| point[name].as_f64().unwrap();
        assert!(number("rate_surely_at_least") < number("rate_low"));
        assert!(number("rate_low") < number("rate") && number("rate") < number("rate_high"));
        let text = report.table().to_string();
        for cell in ["1e-3", "200 %", "1.20e-3", "17.2", "100", "18.0"] {
            assert!(text.contains(cell), "{cell} in {text}");
        }
    }
}
