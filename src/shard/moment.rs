//! When a check takes place.

use super::Rules;
use crate::time::Bucket;

/// When a check takes place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// The watermark, read once under the lock: a second reading might be
    /// newer, and the key would be recorded in a bucket that is already past.
    pub(super) watermark: Bucket,
    pub(super) at: Bucket,
}

impl Moment {
    /// In event time, at the record's own bucket. In processing time nothing is
    /// late: at the watermark, the bucket of the latest clock reading, or at a
    /// reading that nobody has taken note of, whichever is later.
    #[inline]
    pub(super) fn new(rules: &Rules, at: Option<Bucket>) -> Self {
        let watermark = rules.watermark.bucket();
        let at = match at {
            Some(at) if rules.is_event_time => at,
            Some(reading) => reading.max(watermark),
            None => watermark,
        };
        Self { watermark, at }
    }

    pub(super) const fn is_late(self) -> bool {
        self.at.0 < self.watermark.0
    }
    /// The same reading of the watermark for something that took place at `at`.
    pub(super) const fn moved_to(self, at: Bucket) -> Self {
        Self { at, ..self }
    }
}
