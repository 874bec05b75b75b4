//! The naive model of an event-time window: a map from key to bucket.
//!
//! Written from the guarantees and not from the engine: it shares no code with
//! the library.

use std::collections::HashMap;

/// A fixed window over seconds, with a lateness; late records pass.
pub(crate) struct WindowModel {
    buckets: i64,
    width_secs: i64,
    lateness_secs: i64,
    largest_seen_secs: i64,
    recorded: HashMap<Vec<Vec<u8>>, i64>,
}

impl WindowModel {
    /// A window of `span_secs`, a multiple of `buckets`.
    pub(crate) fn new(span_secs: i64, buckets: i64, lateness_secs: i64) -> Self {
        assert_eq!(span_secs % buckets, 0, "whole seconds a bucket");
        let width_secs = span_secs / buckets;
        let largest_seen_secs = i64::MIN / 2;
        Self { buckets, width_secs, lateness_secs, largest_seen_secs, recorded: HashMap::new() }
    }

    /// True iff the record is passed on: it is not a duplicate.
    pub(crate) fn passes(&mut self, key: Vec<Vec<u8>>, at_secs: i64) -> bool {
        self.largest_seen_secs = self.largest_seen_secs.max(at_secs);
        let watermark = (self.largest_seen_secs - self.lateness_secs).div_euclid(self.width_secs);
        let bucket = at_secs.div_euclid(self.width_secs);
        if bucket < watermark {
            return true;
        }
        let known = self.recorded.get(&key).is_some_and(|first| bucket - first <= self.buckets);
        if !known {
            self.recorded.insert(key, bucket);
        }
        !known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Vec<Vec<u8>> {
        vec![b"a".to_vec(), b"b".to_vec()]
    }

    #[test]
    fn a_key_is_known_for_the_span_and_less_than_a_bucket_more() {
        for first_secs in 0..10 {
            let passes_at = |later_secs| {
                let mut model = WindowModel::new(80, 8, 0);
                assert!(model.passes(key(), first_secs));
                model.passes(key(), first_secs + later_secs)
            };
            assert!(!passes_at(80));
            assert!(passes_at(90));
        }
    }

    #[test]
    fn late_records_pass_and_record_nothing() {
        let mut model = WindowModel::new(80, 8, 20);
        assert!(model.passes(vec![b"other".to_vec()], 100));
        assert!(model.passes(key(), 79));
        assert!(model.passes(key(), 79));
        assert!(model.passes(key(), 80));
        assert!(!model.passes(key(), 85));
    }
}
