//! The naive model: what a deduper must answer, written so that it can be
//! checked by eye against the window rules in `docs/design.md`.
//!
//! A map from key to bucket, no shards, no tags, no limit. Every other test
//! file compares the engine with it, or with a bound that follows from it.

#![allow(dead_code, reason = "each test binary compiles the model and uses its own part of it")]
#![allow(unreachable_pub, reason = "a module of a test binary has nobody outside to reach it")]

pub mod config;
pub mod random;
pub mod rig;

use ahash::AHashMap;
use hapax::{CheckError, Timestamp, Verdict};
use std::hash::Hash;
use std::time::Duration;

/// The rules of one deduper, as far as verdicts depend on them.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// `None`: unbounded, every time lies in bucket 0.
    pub width_micros: Option<i64>,
    pub buckets: i64,
    pub sliding: bool,
    pub lateness: Duration,
    pub max_ahead: Duration,
}

impl Rules {
    pub fn bucket(&self, time: Timestamp) -> i64 {
        self.width_micros.map_or(0, |width| time.as_micros().div_euclid(width))
    }
}

pub struct Model<K> {
    rules: Rules,
    kept: AHashMap<K, i64>,
    largest: Option<Timestamp>,
}

impl<K: Eq + Hash> Model<K> {
    pub fn new(rules: Rules) -> Self {
        Self { rules, kept: AHashMap::new(), largest: None }
    }

    pub fn largest(&self) -> Option<Timestamp> {
        self.largest
    }

    pub fn check(&mut self, key: K, clock: Timestamp) -> Verdict {
        self.see(clock);
        let bucket = self.rules.bucket(self.present(clock));
        self.record(key, bucket)
    }

    pub fn check_at(
        &mut self,
        key: K,
        at: Timestamp,
        clock: Timestamp,
    ) -> Result<Verdict, CheckError> {
        self.refuse_far_ahead(at, clock)?;
        self.see(at);
        let bucket = self.rules.bucket(at);
        Ok(if self.is_late(bucket) { Verdict::Late } else { self.record(key, bucket) })
    }

    pub fn contains(&self, key: &K, clock: Timestamp) -> bool {
        self.matches(key, self.rules.bucket(self.present(clock)))
    }

    pub fn contains_at(
        &self,
        key: &K,
        at: Timestamp,
        clock: Timestamp,
    ) -> Result<bool, CheckError> {
        self.refuse_far_ahead(at, clock)?;
        let bucket = self.rules.bucket(at);
        Ok(!self.is_late(bucket) && self.matches(key, bucket))
    }

    pub fn forget(&mut self, key: &K) -> bool {
        let (watermark, buckets) = (self.watermark(), self.rules.buckets);
        self.kept.remove(key).is_some_and(|bucket| watermark - bucket <= buckets)
    }

    /// Notes a time; the largest seen never goes back.
    pub fn see(&mut self, time: Timestamp) {
        self.largest = self.largest.max(Some(time));
    }

    /// How many keys a deduper must still keep.
    pub fn live(&mut self) -> usize {
        self.free();
        self.kept.len()
    }

    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    fn free(&mut self) {
        let (watermark, buckets) = (self.watermark(), self.rules.buckets);
        self.kept.retain(|_, bucket| watermark - *bucket <= buckets);
    }

    fn record(&mut self, key: K, now: i64) -> Verdict {
        let Rules { buckets, sliding, .. } = self.rules;
        let mut verdict = Verdict::Unique;
        let kept = self.kept.entry(key).and_modify(|bucket| {
            if now - *bucket <= buckets {
                verdict = Verdict::Duplicate;
            }
        });
        let bucket = kept.or_insert(now);
        if verdict.is_unique() || sliding {
            *bucket = now.max(*bucket);
        }
        verdict
    }

    fn matches(&self, key: &K, now: i64) -> bool {
        self.kept.get(key).is_some_and(|bucket| now - bucket <= self.rules.buckets)
    }

    fn is_late(&self, bucket: i64) -> bool {
        bucket < self.watermark()
    }

    fn watermark(&self) -> i64 {
        let largest = self.largest.unwrap_or(Timestamp::MIN);
        self.rules.bucket(largest.saturating_sub(self.rules.lateness))
    }

    fn present(&self, clock: Timestamp) -> Timestamp {
        self.largest.map_or(clock, |largest| largest.max(clock))
    }

    fn refuse_far_ahead(&self, time: Timestamp, clock: Timestamp) -> Result<(), CheckError> {
        let max_ahead = self.rules.max_ahead;
        let largest_seen = self.largest.unwrap_or(clock);
        if time > largest_seen.saturating_add(max_ahead) {
            return Err(CheckError::TooFarAhead { time, largest_seen, max_ahead });
        }
        Ok(())
    }
}
