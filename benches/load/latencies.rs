//! Percentiles, their medians over several runs, and how they are shown.

use hdrhistogram::Histogram;
use std::fmt;

/// Which percentiles are reported, with their names.
pub(crate) const POINTS: [(&str, f64); 5] =
    [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99), ("max", 100.0)];

/// One run's latencies in nanoseconds, in the order of [`POINTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latencies(pub(crate) [u64; POINTS.len()]);

impl Latencies {
    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        Self(POINTS.map(|(_, percentile)| histogram.value_at_percentile(percentile)))
    }

    /// The median of each percentile over `runs`, of which there is one at
    /// least; the lower of the two in the middle if their number is even.
    fn medians(runs: &[Self]) -> Self {
        Self(std::array::from_fn(|point| {
            let mut values: Vec<_> = runs.iter().map(|run| run.0[point]).collect();
            values.sort_unstable();
            values[(values.len() - 1) / 2]
        }))
    }
}

/// The engine's latencies beside its control's, medians of several runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparison {
    pub(crate) engine: Latencies,
    pub(crate) control: Latencies,
}

impl Comparison {
    /// Of runs that took turns; at least one of each.
    pub(crate) fn of(engine: &[Latencies], control: &[Latencies]) -> Self {
        Self { engine: Latencies::medians(engine), control: Latencies::medians(control) }
    }

    /// The engine's percentiles minus the control's. Negative where the
    /// machine's jitter hides the engine.
    pub(crate) fn beyond_nanos(&self) -> [i64; POINTS.len()] {
        std::array::from_fn(|point| self.engine.0[point] as i64 - self.control.0[point] as i64)
    }
}

/// A table with a bar a line on a logarithmic scale: a step is a factor of two.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>8}  {:>10}  {:>10}  {:>10}", "", "engine", "control", "beyond")?;
        for (point, (name, _)) in POINTS.iter().enumerate() {
            let (engine, control) = (self.engine.0[point], self.control.0[point]);
            let beyond = self.beyond_nanos()[point];
            writeln!(
                f,
                "{name:>8}  {:>10}  {:>10}  {:>10}  {}",
                duration(engine as i64),
                duration(control as i64),
                duration(beyond),
                bar(engine, control)
            )?;
        }
        Ok(())
    }
}

/// The control's part filled, what the engine adds shaded.
fn bar(engine: u64, control: u64) -> String {
    let steps = |nanos: u64| (nanos.max(1).ilog2() + 1) as usize;
    "█".repeat(steps(control)) + &"▒".repeat(steps(engine).saturating_sub(steps(control)))
}

/// Nanoseconds in the unit that suits them, three digits.
pub(crate) fn duration(nanos: i64) -> String {
    let sized = |unit: f64| nanos as f64 / unit;
    match nanos.unsigned_abs() {
        0..1_000 => format!("{nanos} ns"),
        1_000..100_000 => format!("{:.1} us", sized(1e3)),
        100_000..1_000_000 => format!("{:.0} us", sized(1e3)),
        1_000_000..100_000_000 => format!("{:.1} ms", sized(1e6)),
        100_000_000..1_000_000_000 => format!("{:.0} ms", sized(1e6)),
        _ => format!("{:.1} s", sized(1e9)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_taken_point_by_point() {
        let runs = [[1, 1, 1, 1, 900], [2, 2, 2, 7, 8], [3, 3, 3, 3, 9]].map(Latencies);
        assert_eq!(Latencies::medians(&runs), Latencies([2, 2, 2, 3, 9]));
        assert_eq!(Latencies::medians(&runs[..2]), Latencies([1, 1, 1, 1, 8]));
    }

    #[test]
    fn beyond_is_the_difference() {
        let comparison =
            Comparison::of(&[Latencies([5, 5, 5, 5, 50])], &[Latencies([2, 2, 2, 9, 20])]);
        assert_eq!(comparison.beyond_nanos(), [3, 3, 3, -4, 30]);
        assert!(comparison.to_string().contains("p99.99"));
    }

    #[test]
    fn durations_have_the_unit_that_suits_them() {
        let shown = [999, 1_500, -2_000, 250_000, 5_000_000, 500_000_000, 2_000_000_000];
        let expected = ["999 ns", "1.5 us", "-2.0 us", "250 us", "5.0 ms", "500 ms", "2.0 s"];
        assert_eq!(shown.map(duration), expected);
    }
}
