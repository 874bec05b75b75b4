//! The measures that the project holds itself to: two contenders of one cell,
//! and how many times as fast the one is as the other.

use crate::cell::{Cell, Contender};
use crate::engines::Kind;
use crate::measure::Outcome;

/// One measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    pub(crate) name: &'static str,
    pub(crate) cell: &'static str,
    pub(crate) subject: Contender,
    pub(crate) other: Contender,
}

const fn bar(
    name: &'static str,
    cell: &'static str,
    (subject, subject_threads): (Kind, usize),
    (other, other_threads): (Kind, usize),
) -> Bar {
    Bar {
        name,
        cell,
        subject: Contender { kind: subject, threads: subject_threads },
        other: Contender { kind: other, threads: other_threads },
    }
}

/// All measures.
pub(crate) const BARS: [Bar; 13] = [
    bar("batch_trusted_over_dashmap_ahash", "base", (Kind::Hapax, 1), (Kind::DashmapAhash, 1)),
    bar(
        "batch_trusted_over_dashmap_ahash_2_threads",
        "threads-2",
        (Kind::Hapax, 2),
        (Kind::DashmapAhash, 2),
    ),
    bar(
        "batch_default_over_dashmap_default",
        "default-hash",
        (Kind::HapaxDefault, 1),
        (Kind::DashmapDefault, 1),
    ),
    bar("batch_over_moka", "base", (Kind::Hapax, 1), (Kind::MokaAhash, 1)),
    bar("batch_over_limit", "base", (Kind::Hapax, 1), (Kind::Limit, 1)),
    bar("verified_over_dashmap_ahash", "modes", (Kind::HapaxVerified, 1), (Kind::DashmapAhash, 1)),
    bar("single_over_dashmap_uniform", "single", (Kind::HapaxSingle, 1), (Kind::DashmapAhash, 1)),
    bar(
        "single_over_dashmap_zipf_2_threads",
        "single-zipf-2",
        (Kind::HapaxSingle, 2),
        (Kind::DashmapAhash, 2),
    ),
    bar("two_threads_over_one", "scaling", (Kind::Hapax, 2), (Kind::Hapax, 1)),
    bar("limit_two_threads_over_one", "scaling", (Kind::Limit, 2), (Kind::Limit, 1)),
    bar("rolling_over_still", "rolling", (Kind::HapaxRolling, 1), (Kind::HapaxStill, 1)),
    bar(
        "filter_over_fastbloom",
        "filter-vs-fastbloom",
        (Kind::HapaxFilter, 1),
        (Kind::Fastbloom, 1),
    ),
    bar("filter_over_limit", "filter-vs-fastbloom", (Kind::HapaxFilter, 1), (Kind::LimitPairs, 1)),
];

/// Only the cells and contenders that the measures need.
pub(crate) fn narrow(cells: Vec<Cell>) -> Vec<Cell> {
    let needed = |cell: &Cell, contender: &Contender| {
        BARS.iter().any(|bar| bar.cell == cell.name && [bar.subject, bar.other].contains(contender))
    };
    let narrowed = cells.into_iter().map(|mut cell| {
        let contenders = cell.contenders.iter().copied();
        cell.contenders = contenders.filter(|contender| needed(&cell, contender)).collect();
        cell
    });
    narrowed.filter(|cell| !cell.contenders.is_empty()).collect()
}

/// Figures of several rounds in short.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

/// The ratio of two contenders over the rounds that they ran together; `None`
/// if there is none.
pub(crate) fn ratio(subject: &Outcome, other: &Outcome) -> Option<Spread> {
    let rate = |outcome: &Outcome, round| {
        let sample = outcome.samples.iter().find(|sample| sample.round == round)?;
        Some(sample.checks_per_s)
    };
    let ratios = other.samples.iter().filter_map(|sample| {
        rate(subject, sample.round).map(|checks_per_s| checks_per_s / sample.checks_per_s)
    });
    spread(ratios.collect())
}

/// The checks a second of one contender: median, least and most.
pub(crate) fn rate(outcome: &Outcome) -> Option<Spread> {
    spread(outcome.samples.iter().map(|sample| sample.checks_per_s).collect())
}

fn spread(mut figures: Vec<f64>) -> Option<Spread> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    let median = match figures.len() {
        0 => return None,
        odd if odd % 2 == 1 => figures[middle],
        _ => f64::midpoint(figures[middle - 1], figures[middle]),
    };
    Some(Spread { median, least: figures[0], most: figures[figures.len() - 1] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::cells;
    use crate::measure::Sample;

    fn outcome(samples: &[(usize, f64)]) -> Outcome {
        let sample = |&(round, checks_per_s)| Sample { round, checks_per_s };
        Outcome {
            contender: BARS[0].subject,
            samples: samples.iter().map(sample).collect(),
            wrong_verdicts: 0,
            memory_bytes: None,
            why_not_run: None,
        }
    }

    #[test]
    fn every_bar_finds_its_contenders() {
        let cells = narrow(cells(2));
        for bar in BARS {
            let cell = cells.iter().find(|cell| cell.name == bar.cell).unwrap();
            assert!(cell.contenders.contains(&bar.subject), "{}", bar.name);
            assert!(cell.contenders.contains(&bar.other), "{}", bar.name);
        }
    }

    #[test]
    fn narrowing_leaves_nothing_else() {
        let cells = narrow(cells(2));
        let base = cells.iter().find(|cell| cell.name == "base").unwrap();
        assert_eq!(base.contenders.len(), 4);
        assert!(!cells.iter().any(|cell| cell.name == "key-8"));
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let subject = outcome(&[(0, 1.0), (1, 8.0), (2, 9.0), (3, 10.0)]);
        let other = outcome(&[(1, 4.0), (2, 3.0), (3, 1.0)]);
        let ratio = ratio(&subject, &other).unwrap();
        assert_eq!(ratio, Spread { median: 3.0, least: 2.0, most: 10.0 });
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(spread(vec![4.0, 1.0, 2.0, 3.0]).unwrap().median.to_bits(), 2.5_f64.to_bits());
        assert_eq!(spread(Vec::new()), None);
    }
}
