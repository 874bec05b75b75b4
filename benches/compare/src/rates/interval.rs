//! How sure a measured rate is: the interval of Clopper and Pearson (1934),
//! which is exact for few hits too.

/// The true rate lies beyond either end in one of 40 cases: together, 5 %.
pub(crate) const USUAL: f64 = 0.025;
/// The same in one of 10,000 cases: a whole grid of them hardly ever has one.
pub(crate) const SURE: f64 = 1e-4;

/// Steps of a bisection: to the last bit.
const BISECTIONS: u32 = 60;

/// A term that is a smaller part of the sum than this ends it.
const NEGLIGIBLE: f64 = 1e-12;

/// The rates that are compatible with a count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Of `hits` in `probes`; `tail` is the probability beyond either end.
pub(crate) fn interval(hits: u64, probes: u64, tail: f64) -> Interval {
    let low = 1.0 - highest(probes - hits, probes, tail);
    Interval { low: low.max(0.0), high: highest(hits, probes, tail) }
}

/// The rate at which so few hits have a probability of `tail`.
fn highest(hits: u64, probes: u64, tail: f64) -> f64 {
    if hits == probes {
        return 1.0;
    }
    let (mut low, mut high) = (hits as f64 / probes as f64, 1.0);
    for _ in 0..BISECTIONS {
        let middle = f64::midpoint(low, high);
        if at_most(hits, probes, middle) > tail { low = middle } else { high = middle }
    }
    high
}

/// P(at most so many hits) at a rate above `hits / probes`: there the terms of
/// the binomial distribution fall off from the last one down.
fn at_most(hits: u64, probes: u64, rate: f64) -> f64 {
    if rate >= 1.0 {
        return 0.0;
    }
    let odds = (1.0 - rate) / rate;
    let mut term = exactly(hits as f64, probes as f64, rate);
    let mut sum = 0.0;
    for hits in (0..=hits).rev() {
        sum += term;
        if term <= sum * NEGLIGIBLE {
            break;
        }
        term *= odds * hits as f64 / (probes - hits + 1) as f64;
    }
    sum
}

/// P(exactly so many hits).
fn exactly(hits: f64, probes: f64, rate: f64) -> f64 {
    let misses = probes - hits;
    let ways = libm::lgamma(probes + 1.0) - libm::lgamma(hits + 1.0) - libm::lgamma(misses + 1.0);
    (ways + hits * rate.ln() + misses * (-rate).ln_1p()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(interval: Interval, low: f64, high: f64) {
        let is_near = |a: f64, b: f64| (a - b).abs() < 1e-4;
        assert!(is_near(interval.low, low) && is_near(interval.high, high), "{interval:?}");
    }

    /// Newcombe 1998, table I, method 5.
    #[test]
    fn intervals_are_those_in_print() {
        assert_near(interval(81, 263, USUAL), 0.2527, 0.3676);
        assert_near(interval(15, 148, USUAL), 0.0578, 0.1617);
        assert_near(interval(0, 20, USUAL), 0.0, 0.1684);
        assert_near(interval(1, 29, USUAL), 0.0009, 0.1776);
        assert_near(interval(29, 29, USUAL), 0.8806, 1.0);
    }

    /// One hit of many has a lower end that chance alone would give it.
    #[test]
    fn a_lucky_hit_shows_little() {
        let Interval { low, .. } = interval(1, 1_000_000, SURE);
        assert!((low / 1e-10 - 1.0).abs() < 0.01, "{low}");
        assert_near(interval(0, 1_000, USUAL), 0.0, 0.0037);
    }

    #[test]
    fn many_hits_of_very_many_are_as_good_as_normal() {
        let (hits, probes) = (40_000_u64, 50_000_000);
        let Interval { low, high } = interval(hits, probes, USUAL);
        let reach = 1.96 * (hits as f64).sqrt() / probes as f64;
        let rate = hits as f64 / probes as f64;
        assert!(((rate - low) / reach - 1.0).abs() < 0.02, "{low}");
        assert!(((high - rate) / reach - 1.0).abs() < 0.02, "{high}");
    }

    /// Conservative: in 95 cases of 100, or a few more.
    #[test]
    fn the_true_rate_is_in_the_interval_as_often_as_is_said() {
        use rand::rngs::SmallRng;
        use rand::{Rng as _, SeedableRng as _};
        let mut random = SmallRng::seed_from_u64(5);
        for rate in [0.3, 0.02] {
            let covers = |random: &mut SmallRng| {
                let hits = (0..500).filter(|_| random.random_bool(rate)).count() as u64;
                let Interval { low, high } = interval(hits, 500, USUAL);
                low <= rate && rate <= high
            };
            let covering = (0..2_000).filter(|_| covers(&mut random)).count();
            assert!((1_880..1_985).contains(&covering), "{covering} of 2,000 at {rate}");
        }
    }
}
