//! Resident memory per key over sizes that lie as far apart from one another
//! as growth steps could hide between: evenly on a logarithmic scale.

use crate::report::{Report, Status};
use crate::resident::bytes_per_key_in_child;
use crate::{Failure, Options};

const SMALLEST: u64 = 1_000_000;
const BAR_MOST: f64 = 16.0;
const BAR_MEAN: f64 = 14.5;

/// Up to which size, in how many.
struct Range {
    largest: u64,
    count: u32,
}

const FULL: Range = Range { largest: 50_000_000, count: 50 };
const SHORT: Range = Range { largest: 10_000_000, count: 12 };

pub(crate) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let range = if full { FULL } else { SHORT };
    let what =
        format!("resident bytes a key, {} sizes to {} M", range.count, range.largest / 1_000_000);
    report.take(&what, "most at most 16, mean at most 14.5", || {
        let sizes = range.sizes();
        let bytes_per_key = bytes_per_key_in_child(&sizes)?;
        let Summary { most, most_at, mean } = Summary::of(&bytes_per_key)?;
        let at_millions = sizes[most_at] as f64 / 1e6;
        let met = most <= BAR_MOST && mean <= BAR_MEAN;
        let figure = format!("most {most:.2} (at {at_millions:.2} M), mean {mean:.2}");
        Ok((figure, Status::of_run(met, !full)))
    });
}

impl Range {
    /// From the smallest to the largest, each by the same factor more.
    fn sizes(&self) -> Vec<u64> {
        let ratio = self.largest as f64 / SMALLEST as f64;
        let step = |index| f64::from(index) / f64::from(self.count - 1);
        (0..self.count).map(|index| (SMALLEST as f64 * ratio.powf(step(index))) as u64).collect()
    }
}

/// Figures over all sizes, and at which size the largest is.
struct Summary {
    most: f64,
    most_at: usize,
    mean: f64,
}

impl Summary {
    fn of(figures: &[f64]) -> Result<Self, Failure> {
        let largest =
            figures.iter().enumerate().max_by(|(_, left), (_, right)| left.total_cmp(right));
        let (most_at, most) = largest.ok_or("no size was measured")?;
        let mean = figures.iter().sum::<f64>() / figures.len() as f64;
        Ok(Self { most: *most, most_at, mean })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_rise_by_one_factor_from_end_to_end() {
        let sizes = FULL.sizes();
        assert_eq!(sizes.len(), 50);
        assert_eq!(sizes[0], SMALLEST);
        assert!(sizes[49].abs_diff(FULL.largest) <= 1);
        let factors = sizes.windows(2).map(|pair| pair[1] as f64 / pair[0] as f64);
        assert!(factors.into_iter().all(|factor| (factor - 1.083).abs() < 0.001));
    }

    #[test]
    fn most_and_mean_of_figures() {
        let Summary { most, most_at, mean } = Summary::of(&[1.0, 3.0, 2.0]).unwrap();
        assert_eq!(most_at, 1);
        assert!((most - 3.0).abs() < 1e-9 && (mean - 2.0).abs() < 1e-9);
        assert!(Summary::of(&[]).is_err());
    }
}
