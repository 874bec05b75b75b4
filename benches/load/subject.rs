//! A deduper with its window filled, on a clock that runs.

use super::scenario::{BUCKETS, Key, key};
use hapax::{Clock, Deduper, ManualClock, Mode, SystemClock, Timestamp, Verdict, Window};
use std::sync::Arc;
use std::time::Duration;

const BATCH: usize = 256;

/// The system's clock, and a shift that moves when told: a window can be
/// filled at once, and time runs by itself from then on.
struct ShiftedClock {
    system: SystemClock,
    shift: ManualClock,
}

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        let shift = Duration::from_micros(self.shift.now().as_micros().unsigned_abs());
        self.system.now().saturating_add(shift)
    }
}

/// A deduper for untrusted keys that remembers the keys numbered below
/// `live_keys`, recorded bucket by bucket over the whole of `span`.
pub(super) fn filled(span: Duration, mode: Mode, live_keys: u64) -> Deduper {
    let clock = Arc::new(ShiftedClock {
        system: SystemClock::new(),
        shift: ManualClock::new(Timestamp::from_micros(0)),
    });
    let window = Window::fixed(span).buckets(BUCKETS);
    let builder = Deduper::builder(window).mode(mode).clock(Arc::clone(&clock));
    let dedup = builder.build().expect("a valid configuration");
    let share = live_keys.div_ceil(BUCKETS.into());
    for bucket in 0..u64::from(BUCKETS) {
        let numbers: Vec<_> = (bucket * share..live_keys.min((bucket + 1) * share)).collect();
        record(&dedup, &numbers);
        clock.shift.advance(span / BUCKETS);
    }
    dedup
}

fn record(dedup: &Deduper, numbers: &[u64]) {
    let mut verdicts = [Verdict::Late; BATCH];
    for numbers in numbers.chunks(BATCH) {
        let keys: Vec<Key> = numbers.iter().map(|number| key(*number)).collect();
        dedup.check_batch(&keys, &mut verdicts[..keys.len()]).expect("no limit is set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_window_remembers_its_keys_and_no_others() {
        let dedup = filled(Duration::from_secs(8_000), Mode::fingerprint(), 1_000);
        let is_known = |number| dedup.contains(&key(number)).unwrap();
        assert_eq!(dedup.stats().live_keys, 1_000);
        assert!((0..1_000).all(is_known));
        assert!(!is_known(1_000));
    }
}
