//! The watermark: the bucket below which time is closed.

use super::{Bucket, Grid, Timestamp};
use crate::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// The latest time seen and the watermark that follows from it; one for all
/// shards of a deduper. Neither ever goes back.
///
/// In processing time the lateness is zero: the watermark is the bucket of the
/// latest clock reading.
///
/// # Ordering
///
/// All accesses are `Relaxed`. A shard reads the watermark under its own lock:
/// of two checks in one shard, the later lock holder reads the same value or a
/// newer one, because reads of one atomic that are ordered by the lock never
/// go backwards (read-read coherence). No other data is published through it.
#[derive(Debug)]
pub(crate) struct Watermark {
    grid: Grid,
    lateness: Duration,
    largest_seen_micros: AtomicI64,
    bucket: AtomicI64,
}

/// A time was further ahead of the largest seen than allowed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooFarAhead {
    /// The time that the record was compared with.
    pub(crate) largest_seen: Timestamp,
}

/// Stands for "no time seen yet": earlier than any timestamp.
const NONE_SEEN: i64 = i64::MIN;

impl Watermark {
    pub(crate) fn new(grid: Grid, lateness: Duration) -> Self {
        Self {
            grid,
            lateness,
            largest_seen_micros: AtomicI64::new(NONE_SEEN),
            bucket: AtomicI64::new(grid.bucket(Timestamp::MIN).0),
        }
    }

    /// The watermark's bucket.
    #[inline]
    pub(crate) fn bucket(&self) -> Bucket {
        Bucket(self.bucket.load(Ordering::Relaxed))
    }

    /// Takes note of `time` and raises the watermark where it follows.
    #[inline]
    pub(crate) fn advance(&self, time: Timestamp) {
        raise(&self.largest_seen_micros, time.as_micros());
        // Not only when this time is the largest: the thread that saw the
        // largest may not have come as far as raising the bucket.
        raise(&self.bucket, self.after(time).0);
    }

    /// The watermark that follows from `time` alone.
    #[inline]
    pub(crate) fn after(&self, time: Timestamp) -> Bucket {
        self.grid.bucket(time.saturating_sub(self.lateness))
    }

    /// Takes note of a reading of the clock: of one that moves the bucket.
    /// Others change nothing that anybody can see, and writing them down would
    /// have all threads wait for one cache line.
    #[inline]
    pub(crate) fn follow(&self, reading: Timestamp) {
        if reading >= self.grid.start(self.bucket().plus(1)) {
            self.advance(reading);
        }
    }

    /// Refuses a time more than `max_ahead` beyond the largest seen. Before any
    /// time was seen, `before_first` stands for the largest. Moves nothing.
    pub(crate) fn admit(
        &self,
        time: Timestamp,
        max_ahead: Duration,
        before_first: impl FnOnce() -> Timestamp,
    ) -> Result<(), TooFarAhead> {
        let largest_seen = self.largest_seen().unwrap_or_else(before_first);
        if time > largest_seen.saturating_add(max_ahead) {
            return Err(TooFarAhead { largest_seen });
        }
        Ok(())
    }

    /// The largest time seen, if any was.
    pub(crate) fn largest_seen(&self) -> Option<Timestamp> {
        match self.largest_seen_micros.load(Ordering::Relaxed) {
            NONE_SEEN => None,
            micros => Some(Timestamp::from_micros(micros)),
        }
    }
}

/// `fetch_max` that leaves the cache line shared when there is nothing to do.
#[inline]
fn raise(cell: &AtomicI64, value: i64) {
    if cell.load(Ordering::Relaxed) < value {
        cell.fetch_max(value, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Window;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn watermark(lateness_micros: u64) -> Watermark {
        let grid = Window::fixed(Duration::from_micros(80)).grid();
        Watermark::new(grid, Duration::from_micros(lateness_micros))
    }

    #[test]
    fn follows_the_largest_time_less_lateness() {
        let watermark = watermark(15);
        watermark.advance(at(100));
        assert_eq!(watermark.bucket(), Bucket(8));
        watermark.advance(at(50));
        assert_eq!(watermark.bucket(), Bucket(8));
        watermark.advance(at(105));
        assert_eq!(watermark.bucket(), Bucket(9));
    }

    #[test]
    fn a_time_too_far_ahead_is_refused() {
        let watermark = watermark(0);
        let ahead = Duration::from_millis(1);
        assert_eq!(
            watermark.admit(at(1_101), ahead, || at(100)),
            Err(TooFarAhead { largest_seen: at(100) })
        );
        assert_eq!(watermark.admit(at(1_100), ahead, || at(100)), Ok(()));
        assert_eq!(watermark.largest_seen(), None);
        watermark.advance(at(100));
        assert!(watermark.admit(at(1_101), ahead, || at(9_999)).is_err());
        assert_eq!(watermark.largest_seen(), Some(at(100)));
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::time::Window;
    use loom::thread;
    use std::sync::Arc;

    #[test]
    fn never_goes_back_and_follows_the_largest() {
        loom::model(|| {
            let grid = Window::fixed(Duration::from_micros(80)).grid();
            let watermark = Arc::new(Watermark::new(grid, Duration::from_micros(15)));
            let advance = |micros| {
                let watermark = Arc::clone(&watermark);
                thread::spawn(move || {
                    watermark.advance(Timestamp::from_micros(micros));
                    watermark.bucket()
                })
            };
            let [one, other] = [advance(100), advance(205)];
            let (earlier, later) = (watermark.bucket(), watermark.bucket());
            assert!(earlier <= later);
            assert!(one.join().unwrap() >= Bucket(8));
            assert_eq!(other.join().unwrap(), Bucket(19));
            assert_eq!(watermark.bucket(), Bucket(19));
            assert_eq!(watermark.largest_seen(), Some(Timestamp::from_micros(205)));
        });
    }
}
