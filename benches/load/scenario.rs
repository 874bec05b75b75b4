//! What is checked, how often, and by how many threads.

use super::latencies::Latencies;
use super::schedule::{Schedule, empty_histogram, offer};
use super::subject::filled;
use hapax::Mode;
use hdrhistogram::Histogram;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

pub(super) const BUCKETS: u32 = 8;

/// Longer than any run: nothing expires while a deduper grows.
const LONG_SPAN: Duration = Duration::from_secs(24 * 60 * 60);

/// Until the first check is due: time for all threads to start.
const HEAD_START: Duration = Duration::from_millis(20);

pub(super) type Key = [u8; 16];

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// A full rolling window; every other check is a duplicate.
    Steady,
    /// From empty to full, new keys alone.
    Growth,
    /// Like steady, with a window so short that it rolls over many times.
    Rotation,
    /// Like steady, with more threads than cores.
    Oversubscribed,
}

impl Scenario {
    pub(crate) const ALL: [Self; 4] =
        [Self::Steady, Self::Growth, Self::Rotation, Self::Oversubscribed];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Growth => "growth",
            Self::Rotation => "rotation",
            Self::Oversubscribed => "oversubscribed",
        }
    }
}

/// A scenario with its sizes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) scenario: Scenario,
    pub(crate) mode: Mode,
    /// Live keys; in growth, as many as there are in the end.
    pub(crate) keys: u64,
    /// Offered by all threads together.
    pub(crate) checks_per_second: u64,
    pub(crate) checks: u64,
    pub(crate) threads: u64,
}

impl Plan {
    /// Offers the load to the engine.
    pub(crate) fn engine(&self) -> Latencies {
        let live_keys = if self.scenario == Scenario::Growth { 0 } else { self.keys };
        let dedup = filled(self.span(), self.mode, live_keys);
        self.offer(|key| {
            let _ = black_box(dedup.check(key).expect("no limit is set"));
        })
    }

    /// Offers the load to nothing: the machine's own jitter.
    pub(crate) fn control(&self) -> Latencies {
        self.offer(|key| {
            black_box(key);
        })
    }

    /// The window in which half of the checks, being new, are `keys` keys.
    fn span(&self) -> Duration {
        if self.scenario == Scenario::Growth {
            return LONG_SPAN;
        }
        Duration::from_secs_f64(self.keys as f64 * 2.0 / self.checks_per_second as f64)
    }

    fn offer(&self, check: impl Fn(&Key) + Sync) -> Latencies {
        let start = Instant::now() + HEAD_START;
        let schedule = Schedule { start, checks_per_second: self.checks_per_second };
        let by_thread: Vec<Histogram<u64>> = thread::scope(|scope| {
            let start_thread = |thread| {
                let check = &check;
                scope.spawn(move || offer(&schedule, self.checks_of(thread), Instant::now, check))
            };
            let threads: Vec<_> = (0..self.threads).map(start_thread).collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread ended")).collect()
        });
        let mut latencies = empty_histogram();
        for histogram in by_thread {
            latencies += histogram;
        }
        Latencies::of(&latencies)
    }

    /// The checks of one thread: every so many-th of all, with their keys.
    fn checks_of(&self, thread: u64) -> impl Iterator<Item = (u64, Key)> {
        let stream = (thread..self.checks).step_by(self.threads as usize);
        stream.map(|check| (check, key(self.key_number(check))))
    }

    /// The number of the key that a check is about. A thread's checks are new
    /// and old in turn; old ones come from the younger half of the window, so
    /// that none has expired.
    fn key_number(&self, check: u64) -> u64 {
        if self.scenario == Scenario::Growth {
            return check;
        }
        let (index, thread) = (check / self.threads, check % self.threads);
        let recorded = self.keys + index / 2 * self.threads;
        if index.is_multiple_of(2) {
            recorded + thread
        } else {
            recorded - 1 - mixed(check) % (self.keys / 2).max(1)
        }
    }
}

/// The key with this number.
pub(super) fn key(number: u64) -> Key {
    (u128::from(number) << 64 | u128::from(mixed(number))).to_le_bytes()
}

/// The finalizer of `SplitMix64` (Steele, Lea and Flood 2014).
const fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const CHECKS: u64 = 60_000;

    fn plan(scenario: Scenario, threads: u64) -> Plan {
        let mode = Mode::fingerprint();
        Plan { scenario, mode, keys: 1_000, checks_per_second: 1_000_000, checks: CHECKS, threads }
    }

    #[test]
    fn the_threads_share_all_checks() {
        let plan = plan(Scenario::Oversubscribed, 3);
        let checks = (0..3).flat_map(|thread| plan.checks_of(thread).map(|(check, _)| check));
        assert_eq!(checks.collect::<HashSet<_>>(), (0..CHECKS).collect());
    }

    #[test]
    fn half_of_the_checks_are_new_and_the_others_young() {
        let plan = plan(Scenario::Oversubscribed, 3);
        let mut seen: HashSet<u64> = (0..plan.keys).collect();
        let mut new = 0;
        for check in 0..CHECKS {
            let number = plan.key_number(check);
            if seen.insert(number) {
                new += 1;
            } else {
                // The newest number a thread may have recorded by now.
                let newest = plan.keys + check / 2 + plan.threads;
                assert!(newest - number <= plan.keys / 2 + 2 * plan.threads);
            }
        }
        assert_eq!(new, CHECKS / 2);
    }

    #[test]
    fn growth_is_new_keys_alone() {
        let plan = plan(Scenario::Growth, 2);
        assert!((0..CHECKS).all(|check| plan.key_number(check) == check));
    }

    #[test]
    fn every_scenario_can_be_offered() {
        for scenario in Scenario::ALL {
            let plan = Plan { checks: 5_000, ..plan(scenario, 2) };
            for latencies in [plan.engine(), plan.control()] {
                assert!(latencies.0[0] > 0, "{}", scenario.name());
            }
        }
    }
}
