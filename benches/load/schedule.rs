//! When checks are due, and the loop that makes them then.

use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Beyond this a latency counts as this long.
const LONGEST: Duration = Duration::from_secs(600);

/// Checks at a fixed rate from a common start, over any number of threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) start: Instant,
    pub(super) checks_per_second: u64,
}

impl Schedule {
    /// When the check with this number is due; numbers below 10^10.
    fn due(&self, number: u64) -> Instant {
        self.start + Duration::from_nanos(number * 1_000_000_000 / self.checks_per_second)
    }
}

/// An empty histogram of nanoseconds, three digits exact.
pub(super) fn empty_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3)
        .expect("bounds and digits are valid")
}

/// Makes each check, given as its number and its key, when it is due, or at
/// once if that is past; from due to done, its latency is recorded.
///
/// Waits by reading `clock` without pause: a sleeping thread would wake late
/// by more than a check takes.
pub(super) fn offer<K>(
    schedule: &Schedule,
    checks: impl Iterator<Item = (u64, K)>,
    clock: impl Fn() -> Instant,
    check: impl Fn(&K),
) -> Histogram<u64> {
    let mut latencies = empty_histogram();
    let mut now = clock();
    for (number, key) in checks {
        let due = schedule.due(number);
        while now < due {
            std::hint::spin_loop();
            now = clock();
        }
        check(&key);
        now = clock();
        latencies.saturating_record(now.duration_since(due).as_nanos() as u64);
    }
    latencies
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A million checks a second, of which check 10 takes 5 us and all others
    /// nothing, by a clock that moves 100 ns a reading.
    fn stalled_once() -> Histogram<u64> {
        let time = Cell::new(Instant::now());
        let advance = |span| time.set(time.get() + span);
        let schedule = Schedule { start: time.get(), checks_per_second: 1_000_000 };
        offer(
            &schedule,
            (0..20).map(|number| (number, number)),
            || {
                advance(Duration::from_nanos(100));
                time.get()
            },
            |number| {
                if *number == 10 {
                    advance(Duration::from_micros(5));
                }
            },
        )
    }

    #[test]
    fn a_stall_delays_the_checks_that_fell_due_meanwhile() {
        let latencies = stalled_once();
        // 5.1 us, then 4.2, 3.3, 2.4, 1.5 and 0.6 while catching up.
        let over = |nanos| latencies.count_between(nanos, LONGEST.as_nanos() as u64);
        assert_eq!(latencies.len(), 20);
        assert_eq!(over(5_000), 1);
        assert_eq!(over(4_000), 2);
        assert_eq!(over(1_400), 5);
        assert_eq!(over(500), 6);
    }

    #[test]
    fn checks_are_due_at_the_rate() {
        let start = Instant::now();
        let schedule = Schedule { start, checks_per_second: 3 };
        assert_eq!(schedule.due(0), start);
        assert_eq!(schedule.due(3), start + Duration::from_secs(1));
        assert_eq!(schedule.due(3_000_000_000), start + Duration::from_secs(1_000_000_000));
    }
}
