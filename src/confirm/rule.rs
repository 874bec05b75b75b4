//! What is asked of a store, what it holds, and what it answers.

use crate::time::{Bucket, Window};
use std::time::Duration;

/// Tells one sighting from any other, so that a sighting asked about twice is
/// known to be one.
///
/// Draw tokens at random, or count from a random start: two sightings of one
/// key with one token would both be `New`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// From its number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// One key that somebody saw, for a confirmer to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting<'key> {
    /// The whole key: any bytes, also none.
    pub key: &'key [u8],
    /// The bucket of the time at which it was seen.
    pub bucket: Bucket,
    /// The sighting's own; the same when it is asked about again.
    pub token: Token,
}

/// What a confirmer says of a sighting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The key did not match, and is recorded now; or this very sighting
    /// recorded it before.
    New,
    /// The key matches. It is recorded in this bucket, in a sliding window
    /// already moved up by this sighting.
    Seen(Bucket),
}

/// What a store holds for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The bucket in which the key counts as seen.
    pub bucket: Bucket,
    /// The token of the sighting that was `New`.
    pub token: Token,
}

/// What a store answers, and what it has to write for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The answer.
    pub answer: Answer,
    /// The record to write in place of what the store holds, if any.
    pub write: Option<Record>,
}

/// The window, as far as a store must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    buckets: u32,
    sliding: bool,
    lifetime: Option<Duration>,
}

impl Rule {
    /// That of a window, with no lifetime.
    pub fn of(window: &Window) -> Self {
        let buckets = u32::try_from(window.grid().buckets).unwrap_or(u32::MAX);
        Self { buckets, sliding: window.is_sliding(), lifetime: None }
    }

    /// Lets a store drop a record when it was last written so long ago.
    ///
    /// It must cover the window by the store's own clock. In event time, which
    /// may stand still for any length of that, give none.
    #[must_use]
    pub const fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// One by which any record gives way to a sighting in a later bucket.
    pub(super) const fn giving_way(self) -> Self {
        Self { buckets: 0, sliding: false, ..self }
    }

    /// A key recorded in bucket `b` matches in bucket `t` iff `t - b` is at most
    /// this.
    pub const fn buckets(&self) -> u32 {
        self.buckets
    }

    /// True iff a sighting that matches moves the key's bucket up to its own.
    pub const fn is_sliding(&self) -> bool {
        self.sliding
    }

    /// After which time without a write a store may drop a record; `None`: only
    /// when told by `expire`.
    pub const fn max_lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    /// True iff a key recorded in bucket `recorded` is a duplicate in bucket
    /// `at`, which may come before it.
    pub const fn matches(&self, recorded: Bucket, at: Bucket) -> bool {
        at.number().saturating_sub(recorded.number()) <= self.buckets as i64
    }

    /// What a store that holds `held` for the sighting's key answers and writes.
    ///
    /// Reading `held`, deciding and writing must be one step, which no other
    /// sighting of the key comes between.
    ///
    /// ```
    /// use hapax::confirm::{Answer, Bucket, Rule, Sighting, Token};
    /// use hapax::Window;
    /// use std::time::Duration;
    ///
    /// let rule = Rule::of(&Window::fixed(Duration::from_secs(600)).buckets(8));
    /// let seen = |bucket, token| Sighting {
    ///     key: b"order-17",
    ///     bucket: Bucket::new(bucket),
    ///     token: Token::new(token),
    /// };
    /// let first = rule.decide(None, &seen(100, 1));
    /// assert_eq!(first.answer, Answer::New);
    /// // A retry of the same sighting, another one, and one after the window.
    /// assert_eq!(rule.decide(first.write, &seen(100, 1)).answer, Answer::New);
    /// assert_eq!(rule.decide(first.write, &seen(108, 2)).answer, Answer::Seen(Bucket::new(100)));
    /// assert_eq!(rule.decide(first.write, &seen(109, 3)).answer, Answer::New);
    /// ```
    pub fn decide(&self, held: Option<Record>, sighting: &Sighting<'_>) -> Decision {
        let Some(held) = held else { return Decision::record(sighting) };
        if held.token == sighting.token {
            // Asked again later, it counts from then on: that is when its caller
            // hears of it.
            let moved = (sighting.bucket > held.bucket).then(|| sighting.into());
            return Decision { answer: Answer::New, write: moved };
        }
        if !self.matches(held.bucket, sighting.bucket) {
            return Decision::record(sighting);
        }
        if self.sliding && sighting.bucket > held.bucket {
            // The token stays: the one who was `New` may still ask again.
            let moved = Record { bucket: sighting.bucket, token: held.token };
            return Decision { answer: Answer::Seen(moved.bucket), write: Some(moved) };
        }
        Decision { answer: Answer::Seen(held.bucket), write: None }
    }
}

impl Decision {
    fn record(sighting: &Sighting<'_>) -> Self {
        Self { answer: Answer::New, write: Some(Record::from(sighting)) }
    }
}

impl From<&Sighting<'_>> for Record {
    /// The record of a sighting that is `New`.
    fn from(sighting: &Sighting<'_>) -> Self {
        Self { bucket: sighting.bucket, token: sighting.token }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sighting(bucket: i64, token: u64) -> Sighting<'static> {
        Sighting { key: b"k", bucket: Bucket::new(bucket), token: Token::new(token) }
    }

    fn record(bucket: i64, token: u64) -> Record {
        Record::from(&sighting(bucket, token))
    }

    const SPAN: Duration = Duration::from_secs(80);

    #[test]
    fn fixed_and_sliding_part_at_the_refresh() {
        let fixed = Rule::of(&Window::fixed(SPAN)).decide(Some(record(5, 1)), &sighting(7, 2));
        assert_eq!(fixed, Decision { answer: Answer::Seen(Bucket::new(5)), write: None });
        let sliding = Rule::of(&Window::sliding(SPAN)).decide(Some(record(5, 1)), &sighting(7, 2));
        assert_eq!(
            sliding,
            Decision { answer: Answer::Seen(Bucket::new(7)), write: Some(record(7, 1)) }
        );
    }

    #[test]
    fn an_earlier_sighting_matches_and_moves_nothing() {
        let rule = Rule::of(&Window::sliding(SPAN));
        let decision = rule.decide(Some(record(5, 1)), &sighting(-900, 2));
        assert_eq!(decision, Decision { answer: Answer::Seen(Bucket::new(5)), write: None });
    }

    #[test]
    fn buckets_at_the_ends_of_their_range_do_not_overflow() {
        let rule = Rule::of(&Window::unbounded());
        assert!(!rule.matches(Bucket::new(i64::MIN), Bucket::new(i64::MAX)));
        assert!(rule.matches(Bucket::new(i64::MAX), Bucket::new(i64::MIN)));
    }

    #[test]
    fn a_later_retry_moves_its_record_up() {
        let rule = Rule::of(&Window::fixed(SPAN));
        let retried = rule.decide(Some(record(5, 1)), &sighting(7, 1));
        assert_eq!(retried, Decision { answer: Answer::New, write: Some(record(7, 1)) });
    }

    #[test]
    fn a_retry_is_new_whatever_happened_to_its_record() {
        let rule = Rule::of(&Window::sliding(SPAN));
        let retried = rule.decide(Some(record(9, 1)), &sighting(5, 1));
        assert_eq!(retried, Decision { answer: Answer::New, write: None });
    }
}
