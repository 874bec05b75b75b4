//! What is measured: every rate, number of buckets and load, and how well.

/// Rates that are asked for.
const RATES: [f64; 6] = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6];
/// Buckets of a window.
const BUCKETS: [u32; 3] = [1, 8, 64];
/// Keys in a window, in percent of those that were expected.
const LOADS: [u64; 5] = [10, 50, 100, 200, 1_000];

/// One case, for any engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    /// The rate asked for, over the whole window.
    pub(crate) rate: f64,
    pub(crate) buckets: u32,
    /// Keys in the window, in percent of those that were expected.
    pub(crate) load_percent: u64,
}

impl Point {
    /// Buckets that can be live at once.
    pub(crate) const fn generations(self) -> u32 {
        self.buckets + 1
    }

    /// The keys of one bucket, of a window for which so many are expected.
    pub(crate) fn keys_per_bucket(self, expected_keys: u64) -> u64 {
        (expected_keys * self.load_percent).div_ceil(100 * u64::from(self.buckets))
    }
}

/// All cases.
pub(crate) fn points() -> Vec<Point> {
    let mut points = Vec::new();
    for rate in RATES {
        for buckets in BUCKETS {
            points.extend(LOADS.map(|load_percent| Point { rate, buckets, load_percent }));
        }
    }
    points
}

/// How well a case is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// The keys that each window is made for.
    pub(crate) expected_keys: u64,
    /// So many probes are made that this many false positives are to be found
    /// at the rate asked for ...
    false_positives: u64,
    /// ... but no more than this.
    most_probes: u64,
}

impl Effort {
    pub(crate) const QUICK: Self =
        Self { expected_keys: 3_000, false_positives: 200, most_probes: 5_000 };
    pub(crate) const USUAL: Self =
        Self { expected_keys: 100_000, false_positives: 2_000, most_probes: 1_000_000 };
    pub(crate) const FULL: Self =
        Self { expected_keys: 1_000_000, false_positives: 2_000, most_probes: 50_000_000 };

    /// How many new keys are probed at a rate.
    pub(crate) fn probes(self, rate: f64) -> u64 {
        ((self.false_positives as f64 / rate) as u64).min(self.most_probes)
    }

    /// The same for the crates beside Hapax: of them less is to be shown, and
    /// at 65 filters a probe takes long.
    pub(crate) fn few_probes(self, rate: f64) -> u64 {
        self.probes(rate).min(self.most_probes / 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_its_share_of_what_was_expected() {
        let point = Point { rate: 1e-2, buckets: 8, load_percent: 50 };
        assert_eq!(point.keys_per_bucket(1_600), 100);
        assert_eq!(point.generations(), 9);
    }

    #[test]
    fn rarer_false_positives_take_more_probes_up_to_a_limit() {
        let probes = RATES.map(|rate| Effort::USUAL.probes(rate));
        assert_eq!(probes, [20_000, 200_000, 1_000_000, 1_000_000, 1_000_000, 1_000_000]);
        assert_eq!(Effort::USUAL.few_probes(1e-6), 100_000);
    }
}
