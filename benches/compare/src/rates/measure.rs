//! Measures one case: fills a window twice over, and probes it with new keys.

use super::grid::{Effort, Point};
use super::window::{Key, Kind, Window};
use crate::stream::key;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Probed keys are numbered from here, beyond all that are recorded.
const FIRST_NEW: u64 = 1 << 40;

/// A window is probed so many times.
const MOMENTS: u32 = 4;

/// Keys that are made before they are looked at, which alone is timed.
const BATCH: u64 = 4_096;

/// What one engine showed in one case.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) kind: Kind,
    pub(crate) point: Point,
    pub(crate) probes: u64,
    pub(crate) false_positives: u64,
    /// By the engine's own account, on average.
    pub(crate) predicted: Option<f64>,
    /// In the last, full window.
    pub(crate) bits_per_key: f64,
    pub(crate) ns_per_probe: f64,
    /// On average over the moments.
    pub(crate) lines_per_probe: f64,
}

/// Measures one engine in one case.
pub(crate) fn measure(kind: Kind, point: Point, effort: Effort) -> Figure {
    let is_subject = kind == Kind::Hapax;
    let probes = if is_subject { effort.probes(point.rate) } else { effort.few_probes(point.rate) };
    let mut window = kind.build(point, effort.expected_keys);
    let mut seen = Seen::default();
    let keys = point.keys_per_bucket(effort.expected_keys);
    for bucket in 0..2 * point.generations() {
        if bucket > 0 {
            window.next_bucket();
        }
        record(&mut *window, u64::from(bucket) * keys..u64::from(bucket + 1) * keys);
        for _ in (0..MOMENTS).filter(|moment| is_due(*moment, bucket, point.generations())) {
            seen.probe(&*window, probes / u64::from(MOMENTS));
        }
    }
    let live_keys = keys * u64::from(point.generations());
    seen.figure(kind, point, window.bits() as f64 / live_keys as f64)
}

/// Whether a moment is at the end of the bucket of this number: the first when
/// the window is full for the first time, the last when it is for the second.
const fn is_due(moment: u32, bucket: u32, generations: u32) -> bool {
    bucket + 1 == generations + generations * moment / (MOMENTS - 1)
}

fn record(window: &mut dyn Window, numbers: Range<u64>) {
    for keys in batches(numbers) {
        window.record(&keys);
    }
}

/// The keys of numbers, a batch at a time.
fn batches(numbers: Range<u64>) -> impl Iterator<Item = Vec<Key>> {
    let end = numbers.end;
    numbers
        .step_by(BATCH as usize)
        .map(move |first| (first..end.min(first + BATCH)).map(key).collect())
}

/// What was seen of a window so far.
#[derive(Default)]
struct Seen {
    probes: u64,
    false_positives: u64,
    elapsed: Duration,
    /// Sums over moments.
    predicted: Option<f64>,
    lines: f64,
}

impl Seen {
    /// Probes a window with so many keys that were never recorded.
    fn probe(&mut self, window: &dyn Window, probes: u64) {
        let first = FIRST_NEW + self.probes;
        for keys in batches(first..first + probes) {
            let start = Instant::now();
            self.false_positives += window.known(&keys);
            self.elapsed += start.elapsed();
        }
        self.probes += probes;
        self.lines += window.lines();
        self.predicted = window.predicted().map(|now| now + self.predicted.unwrap_or(0.0));
    }

    fn figure(self, kind: Kind, point: Point, bits_per_key: f64) -> Figure {
        let moments = f64::from(MOMENTS);
        Figure {
            kind,
            point,
            probes: self.probes,
            false_positives: self.false_positives,
            predicted: self.predicted.map(|sum| sum / moments),
            bits_per_key,
            ns_per_probe: self.elapsed.as_nanos() as f64 / self.probes as f64,
            lines_per_probe: self.lines / moments,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINT: Point = Point { rate: 1e-1, buckets: 8, load_percent: 100 };

    #[test]
    fn every_window_is_probed_at_all_moments() {
        for generations in [2, 9, 65] {
            let due = (0..2 * generations)
                .flat_map(|bucket| (0..MOMENTS).filter(move |m| is_due(*m, bucket, generations)));
            assert_eq!(due.collect::<Vec<_>>(), [0, 1, 2, 3]);
            assert!(is_due(0, generations - 1, generations));
            assert!(is_due(3, 2 * generations - 1, generations));
        }
    }

    #[test]
    fn every_engine_keeps_the_rate_at_the_expected_load() {
        for kind in Kind::all() {
            let figure = measure(kind, POINT, Effort::QUICK);
            let measured = figure.false_positives as f64 / figure.probes as f64;
            // So small a window of Hapax has room to spare.
            let least = if kind == Kind::Hapax { 0.0 } else { 0.02 };
            assert!((least..0.13).contains(&measured), "{}: {measured}", kind.name());
            assert!(figure.bits_per_key > 1.0 && figure.lines_per_probe > 0.9);
            assert_eq!(figure.predicted.is_some(), kind == Kind::Hapax);
        }
    }

    #[test]
    fn filters_of_a_fixed_size_lose_the_rate_when_overfull() {
        let overfull = Point { load_percent: 1_000, ..POINT };
        let measured = |kind| {
            let figure = measure(kind, overfull, Effort::QUICK);
            figure.false_positives as f64 / figure.probes as f64
        };
        assert!(measured(Kind::Fastbloom) > 0.5);
        assert!(measured(Kind::Hapax) < 0.12);
    }
}
