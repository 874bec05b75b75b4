//! Windows, and the grid of buckets that each is cut into.

use super::{Bucket, Timestamp, whole_micros};
use std::time::Duration;

/// The most buckets that a window can be cut into.
///
/// A slot's bucket tag has 8 bits. Live buckets may span `2 * buckets + 3` of
/// the 255 tags (event time with lateness equal to the span); what is left
/// paces the clearing of dead slots before a tag comes round again.
pub const MAX_BUCKETS: u32 = 120;

/// For how long a key counts as seen.
///
/// A window is its span cut into buckets of equal width, a whole number of
/// microseconds. A key stays known for at least the span, and for less than all
/// the buckets and one more: the span and one width, where the width divides
/// the span, and under a microsecond more for each bucket where it does not. In
/// event time, plus the lateness. More buckets forget more punctually; memory
/// and speed hardly change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub(crate) kind: Kind,
    pub(crate) buckets: u32,
}

/// What makes a window end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Fixed(Duration),
    Sliding(Duration),
    Unbounded,
}

impl Window {
    /// A window that counts from a key's first sighting: duplicates do not
    /// prolong it.
    pub const fn fixed(span: Duration) -> Self {
        Self { kind: Kind::Fixed(span), buckets: 8 }
    }

    /// A window that counts from a key's latest sighting: every duplicate
    /// prolongs it.
    pub const fn sliding(span: Duration) -> Self {
        Self { kind: Kind::Sliding(span), buckets: 8 }
    }

    /// A window that never ends: keys are forgotten by `forget` or eviction
    /// alone.
    pub const fn unbounded() -> Self {
        Self { kind: Kind::Unbounded, buckets: 1 }
    }

    /// Cuts the window into `buckets` slices, 1 to [`MAX_BUCKETS`]; 8 unless
    /// told. Without effect on an unbounded window.
    #[must_use]
    pub const fn buckets(mut self, buckets: u32) -> Self {
        if !matches!(self.kind, Kind::Unbounded) {
            self.buckets = buckets;
        }
        self
    }

    /// The span; `None` if unbounded.
    pub const fn span(&self) -> Option<Duration> {
        match self.kind {
            Kind::Fixed(span) | Kind::Sliding(span) => Some(span),
            Kind::Unbounded => None,
        }
    }

    /// The width of one bucket, `ceil(span / buckets)` in microseconds; `None`
    /// if unbounded.
    pub fn bucket_width(&self) -> Option<Duration> {
        self.span().map(|_| Duration::from_micros(self.grid().width_micros.unsigned_abs()))
    }

    pub(crate) const fn is_sliding(&self) -> bool {
        matches!(self.kind, Kind::Sliding(_))
    }

    /// The window's grid. Call it on a validated window only.
    pub(crate) fn grid(&self) -> Grid {
        let buckets = i64::from(self.buckets.max(1));
        match self.span() {
            Some(span) => {
                // A part of a microsecond counts as a whole one: never early.
                let span = whole_micros(span.saturating_add(Duration::from_nanos(999)));
                Grid {
                    width_micros: (span - 1).div_euclid(buckets).saturating_add(1).max(1),
                    buckets,
                }
            }
            None => Grid { width_micros: i64::MAX, buckets },
        }
    }
}

/// A window's buckets on the epoch's grid: bucket `n` covers the times
/// `n * width .. (n + 1) * width`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    /// `i64::MAX` if unbounded: then every time lies in bucket 0.
    width_micros: i64,
    pub(crate) buckets: i64,
}

impl Grid {
    /// The bucket that `time` lies in.
    #[inline]
    pub(crate) const fn bucket(self, time: Timestamp) -> Bucket {
        if self.is_unbounded() { Bucket(0) } else { Bucket(time.0.div_euclid(self.width_micros)) }
    }

    /// The time at which a bucket starts; [`Timestamp::MAX`] if the window is
    /// unbounded: its one bucket has no successor.
    #[inline]
    pub(crate) const fn start(self, bucket: Bucket) -> Timestamp {
        if self.is_unbounded() {
            return Timestamp::MAX;
        }
        Timestamp::from_micros(bucket.0.saturating_mul(self.width_micros))
    }

    /// How many bucket edges a stretch of `span` can cross at most.
    pub(crate) fn reach(self, span: Duration) -> i64 {
        if self.is_unbounded() {
            return 0;
        }
        (whole_micros(span).saturating_sub(1)).div_euclid(self.width_micros) + 1
    }

    /// The time that `count` whole buckets take; `None` if unbounded.
    pub(crate) fn stretch(self, count: i64) -> Option<Duration> {
        let micros = self.width_micros.saturating_mul(count.max(0)).unsigned_abs();
        (!self.is_unbounded()).then(|| Duration::from_micros(micros))
    }

    pub(crate) const fn is_unbounded(self) -> bool {
        self.width_micros == i64::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn width_rounds_up() {
        let width = |micros, buckets| {
            Window::fixed(Duration::from_micros(micros)).buckets(buckets).bucket_width().unwrap()
        };
        assert_eq!(width(800, 8), Duration::from_micros(100));
        assert_eq!(width(801, 8), Duration::from_micros(101));
        assert_eq!(width(1, 8), Duration::from_micros(1));
        let part = Window::fixed(Duration::from_nanos(1_001)).buckets(1);
        assert_eq!(part.bucket_width(), Some(Duration::from_micros(2)));
    }

    #[test]
    fn buckets_follow_the_epochs_grid() {
        let grid = Window::fixed(Duration::from_micros(80)).grid();
        assert_eq!(grid.bucket(Timestamp::from_micros(9)), Bucket(0));
        assert_eq!(grid.bucket(Timestamp::from_micros(10)), Bucket(1));
        assert_eq!(grid.bucket(Timestamp::from_micros(-1)), Bucket(-1));
    }

    #[test]
    fn reach_counts_crossed_edges() {
        let grid = Window::fixed(Duration::from_micros(80)).grid();
        assert_eq!(grid.reach(Duration::ZERO), 0);
        assert_eq!(grid.reach(Duration::from_micros(1)), 1);
        assert_eq!(grid.reach(Duration::from_micros(10)), 1);
        assert_eq!(grid.reach(Duration::from_micros(11)), 2);
    }

    #[test]
    fn an_unbounded_window_has_one_bucket() {
        let grid = Window::unbounded().buckets(9).grid();
        assert_eq!(grid.bucket(Timestamp::MIN), grid.bucket(Timestamp::MAX));
        assert_eq!(grid.stretch(3), None);
    }
}
