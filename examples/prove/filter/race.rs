//! Many threads that check the same new keys at once: each key has one winner.

use crate::keys::key;
use crate::progress::progress_bar;
use crate::report::{Report, Status, grouped};
use crate::{Failure, Options};
use hapax::{Deduper, Mode, Window};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

const THREADS: usize = 64;
const RATE: f64 = 1e-6;

/// All threads begin each stretch of so many keys together.
const STRETCH: u64 = 64;

pub(crate) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let keys = if full { 2_000_000 } else { 100_000 };
    let what = format!("{THREADS} threads on {} new keys", grouped(keys));
    report.take(&what, "one winner a key, or a false positive", || {
        let Winners { none, several } = race(keys)?;
        let figure = format!("{} keys with several, {} with none", grouped(several), grouped(none));
        let met = several == 0 && none <= most_by_chance(keys as f64 * RATE);
        Ok((figure, Status::of_run(met, !full)))
    });
}

/// More than this is no chance: five deviations above what is expected.
fn most_by_chance(expected: f64) -> u64 {
    (expected + 5.0 * expected.sqrt() + 2.0) as u64
}

/// How many keys had not one winner.
#[derive(Debug, PartialEq, Eq)]
struct Winners {
    none: u64,
    several: u64,
}

/// Has all threads check all keys, in the same order.
fn race(keys: u64) -> Result<Winners, Failure> {
    let builder = Deduper::builder(Window::unbounded()).mode(Mode::filter(RATE));
    let dedup = builder.capacity(keys).hash_secret([2; 32]).build()?;
    let winners: Vec<AtomicU32> = (0..keys).map(|_| AtomicU32::new(0)).collect();
    let barrier = Barrier::new(THREADS);
    let progress = progress_bar(keys, "keys");
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (dedup, winners, barrier, progress) = (&dedup, &winners, &barrier, &progress);
            scope.spawn(move || {
                for (stretch, winners) in winners.chunks(STRETCH as usize).enumerate() {
                    barrier.wait();
                    let first = stretch as u64 * STRETCH;
                    for (number, winners) in (first..).zip(winners) {
                        let verdict = dedup.check(&key(number)).expect("no limit is set");
                        // Relaxed: read when all threads have ended.
                        winners.fetch_add(u32::from(verdict.is_unique()), Ordering::Relaxed);
                    }
                    if thread == 0 {
                        progress.inc(STRETCH);
                    }
                }
            });
        }
    });
    progress.finish_and_clear();
    Ok(counted(&winners))
}

fn counted(winners: &[AtomicU32]) -> Winners {
    let count = |is_wanted: fn(u32) -> bool| {
        let wanted = winners.iter().filter(|count| is_wanted(count.load(Ordering::Relaxed)));
        wanted.count() as u64
    };
    Winners { none: count(|count| count == 0), several: count(|count| count > 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_without_exactly_one_winner_are_counted() {
        let winners = [1, 0, 2, 64, 1].map(AtomicU32::new);
        assert_eq!(counted(&winners), Winners { none: 1, several: 2 });
    }

    #[test]
    fn each_key_has_one_winner() {
        assert_eq!(race(1_000).unwrap(), Winners { none: 0, several: 0 });
    }

    #[test]
    fn chance_has_its_limits() {
        assert_eq!(most_by_chance(0.1), 3);
        assert_eq!(most_by_chance(100.0), 152);
    }
}
