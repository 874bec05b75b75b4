//! The false-positive suite: how often a new key is called known by Hapax's
//! filter mode, and by the Bloom filters of other crates, one for each bucket,
//! as one would use them today.
//!
//! ```text
//! cargo run --release --manifest-path benches/compare/Cargo.toml -- false-positives
//! ```
//!
//! Keys are made from numbers: what was recorded is known by construction, and
//! every key that is probed is new. A window of so many expected keys is filled
//! twice over, bucket by bucket, with some share or multiple of what was
//! expected; from the first full window on, with the layers of its growth, it is
//! probed at four moments. What the engine predicts is read at the same moments.
//!
//! The crates keep a filter for each bucket that can be live, one more than the
//! window has: that is what it takes to keep every key for the whole span. Each
//! filter gets an equal part of the rate, so that all together keep it.
//!
//! The rooms: `grid` (what is measured), `bloom` (other crates' filters),
//! `window` (a window of any engine), `interval` (how sure a measured rate is),
//! `measure`, and `report`.

mod bloom;
mod grid;
mod interval;
mod measure;
mod report;
mod window;

use crate::write;
use clap::Args;
use grid::Effort;
use indicatif::{ProgressBar, ProgressStyle};
use report::Report;
use std::error::Error;
use std::path::PathBuf;
use window::Kind;

/// Measures false-positive rates, next to other crates' Bloom filters.
///
/// Grid: rates from 1e-1 to 1e-6, windows of 1, 8 and 64 buckets, and 10 % to 1,000 % of the
/// expected keys.
#[derive(Args, Debug)]
pub(crate) struct FalsePositives {
    /// Only these engines
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    engines: Vec<Kind>,

    /// Write the figures as JSON to a file, or to standard output if it is `-`
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Larger windows, and enough probes to see one in a million
    #[arg(long, conflicts_with = "quick")]
    full: bool,

    /// Small sizes: shows that it works
    #[arg(long)]
    quick: bool,
}

impl FalsePositives {
    /// Measures, and writes what was found.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub(crate) fn run(&self, processors: usize) -> Result<(), Box<dyn Error>> {
        let report = self.measure(processors)?;
        write(&report.table().to_string(), &report, self.json.as_deref())
    }

    fn measure(&self, processors: usize) -> Result<Report, Box<dyn Error>> {
        let (points, engines, effort) = (grid::points(), self.engines(), self.effort());
        let progress = ProgressBar::new((points.len() * engines.len()) as u64);
        let style = "{bar:30} {pos}/{len} {elapsed_precise}";
        progress.set_style(ProgressStyle::with_template(style)?);
        let cases =
            points.iter().flat_map(|point| engines.iter().map(move |engine| (*engine, *point)));
        let figures = cases.map(|(engine, point)| {
            progress.inc(1);
            measure::measure(engine, point, effort)
        });
        let report = Report::new(figures.collect(), effort, processors);
        progress.finish_and_clear();
        Ok(report)
    }

    fn engines(&self) -> Vec<Kind> {
        if self.engines.is_empty() { Kind::all() } else { self.engines.clone() }
    }

    const fn effort(&self) -> Effort {
        match (self.quick, self.full) {
            (true, _) => Effort::QUICK,
            (_, true) => Effort::FULL,
            _ => Effort::USUAL,
        }
    }
}
