//! Time as the engine sees it: timestamps, windows cut into buckets, clocks
//! and the watermark.
//!
//! A *bucket* is a slice of time of one width on the epoch's grid. The table
//! stores buckets, never times; this module is where one becomes the other.

mod clock;
mod recent;
mod watermark;
mod window;

pub use clock::{Clock, ManualClock, SystemClock};
pub(crate) use watermark::{TooFarAhead, Watermark};
pub(crate) use window::Grid;
pub use window::{MAX_BUCKETS, Window};

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time: microseconds since 1970-01-01T00:00:00Z, negative before.
///
/// Conversions saturate at about 73,000 years around the epoch, so that no
/// arithmetic on two timestamps can overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The latest timestamp; anything later becomes this.
    pub const MAX: Self = Self(1 << 61);
    /// The earliest timestamp; anything earlier becomes this.
    pub const MIN: Self = Self(-(1 << 61));

    /// From microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        if micros > Self::MAX.0 {
            Self::MAX
        } else if micros < Self::MIN.0 {
            Self::MIN
        } else {
            Self(micros)
        }
    }

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self::from_micros(millis.saturating_mul(1_000))
    }

    /// From seconds since the epoch.
    pub const fn from_secs(secs: i64) -> Self {
        Self::from_micros(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// This time and `span` later, saturating; part of a microsecond is cut.
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        Self::from_micros(self.0.saturating_add(whole_micros(span)))
    }

    /// This time and `span` earlier, saturating; part of a microsecond is cut.
    #[must_use]
    pub fn saturating_sub(self, span: Duration) -> Self {
        Self::from_micros(self.0.saturating_sub(whole_micros(span)))
    }

    /// How long after `earlier` this is; nothing if it is not.
    #[cfg(feature = "claims")]
    pub(crate) fn since(self, earlier: Self) -> Duration {
        let micros = self.0.saturating_sub(earlier.0);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

impl From<SystemTime> for Timestamp {
    /// Rounds down to the microsecond; saturates.
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Self::from_micros(whole_micros(since)),
            Err(before) => {
                let nanos = before.duration().as_nanos();
                Self::from_micros(i64::try_from(nanos.div_ceil(1_000)).map_or(i64::MIN, |us| -us))
            }
        }
    }
}

/// The whole microseconds of `span`, saturating.
fn whole_micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// A bucket's number on the epoch's grid: bucket `n` of a window covers the
/// times `n * width .. (n + 1) * width`.
///
/// Numbers of windows with different bucket widths have nothing to do with one
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(pub(crate) i64);

impl Bucket {
    /// From its number.
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> i64 {
        self.0
    }

    /// The bucket `count` before this one.
    pub(crate) const fn minus(self, count: i64) -> Self {
        Self(self.0 - count)
    }

    /// The bucket `count` after this one.
    pub(crate) const fn plus(self, count: i64) -> Self {
        Self(self.0 + count)
    }

    /// How many buckets this one is after `earlier`; negative if before it.
    pub(crate) const fn since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_agree_and_saturate() {
        assert_eq!(Timestamp::from_secs(2), Timestamp::from_millis(2_000));
        assert_eq!(Timestamp::from_millis(2), Timestamp::from_micros(2_000));
        assert_eq!(Timestamp::from_secs(i64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_millis(i64::MIN), Timestamp::MIN);
        assert_eq!(Timestamp::MAX.saturating_add(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::MIN.saturating_sub(Duration::MAX), Timestamp::MIN);
    }

    #[test]
    fn system_times_before_the_epoch_round_down() {
        let before = UNIX_EPOCH - Duration::from_nanos(1_500);
        assert_eq!(Timestamp::from(before), Timestamp::from_micros(-2));
        let after = UNIX_EPOCH + Duration::from_nanos(1_500);
        assert_eq!(Timestamp::from(after), Timestamp::from_micros(1));
    }
}
