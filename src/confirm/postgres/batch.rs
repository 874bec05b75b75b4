//! A batch on its way to the server.
//!
//! A statement can judge a key once. So the batch goes in rounds: in each, every
//! key that is left sends its first sighting, and those behind it are answered from
//! the record that comes back, until one would have to write. That one is first in
//! the next round. One round is the rule; more are needed where a key comes twice
//! in a batch and moves from bucket to bucket in it.

use super::failure::unreadable;
use super::key::all_stored;
use crate::confirm::{Answer, Bucket, Record, Rule, Sighting, StoreError, Token};
use std::borrow::Cow;
use std::ops::Range;
use tokio_postgres::{Error, Row};

pub(super) struct Batch<'batch, 'key> {
    sightings: &'batch [Sighting<'key>],
    /// The sightings' stored keys and places, by key, and by place for each key.
    sorted: Vec<(Cow<'key, [u8]>, usize)>,
    /// For each key what of `sorted` has no answer yet.
    left: Vec<Range<usize>>,
    answers: Vec<Answer>,
}

/// The parameters of one round: one sighting for each key, in the order of keys.
#[derive(Default)]
pub(super) struct Round<'batch> {
    pub(super) keys: Vec<&'batch [u8]>,
    pub(super) buckets: Vec<i64>,
    pub(super) tokens: Vec<i64>,
}

impl<'batch, 'key> Batch<'batch, 'key> {
    pub(super) fn of(sightings: &'batch [Sighting<'key>]) -> Result<Self, StoreError> {
        let keys = all_stored(sightings.iter().map(|sighting| sighting.key))?;
        let mut sorted: Vec<_> = keys.into_iter().zip(0..).collect();
        sorted.sort_unstable();
        let left = runs(&sorted);
        Ok(Self { sightings, sorted, left, answers: vec![Answer::New; sightings.len()] })
    }

    /// True iff all sightings have answers.
    pub(super) fn is_answered(&self) -> bool {
        self.left.is_empty()
    }

    /// What the server is to be asked next.
    pub(super) fn round(&self) -> Round<'_> {
        let first = |run: &Range<usize>| &self.sightings[self.sorted[run.start].1];
        Round {
            keys: self.left.iter().map(|run| &*self.sorted[run.start].0).collect(),
            buckets: self.left.iter().map(|run| first(run).bucket.number()).collect(),
            tokens: self.left.iter().map(|run| signed(first(run).token)).collect(),
        }
    }

    /// Takes the records of a round's keys, as they are after it.
    pub(super) fn answer(&mut self, records: &[Record], rule: Rule) {
        let Self { sightings, sorted, left, answers } = self;
        for (run, record) in left.iter_mut().zip(records) {
            let place = sorted[run.start].1;
            answers[place] = after(*record, &sightings[place]);
            run.start += 1;
            while run.start < run.end {
                let place = sorted[run.start].1;
                let decision = rule.decide(Some(*record), &sightings[place]);
                if decision.write.is_some() {
                    break;
                }
                answers[place] = decision.answer;
                run.start += 1;
            }
        }
        left.retain(|run| !run.is_empty());
    }

    pub(super) fn into_answers(self) -> Vec<Answer> {
        self.answers
    }
}

/// Where equal keys lie side by side.
fn runs(sorted: &[(Cow<'_, [u8]>, usize)]) -> Vec<Range<usize>> {
    let mut end = 0;
    let groups = sorted.chunk_by(|one, next| one.0 == next.0);
    groups
        .map(|group| {
            let start = end;
            end += group.len();
            start..end
        })
        .collect()
}

/// The answer to a sighting after which the record is `record`: a record with its
/// token is its own.
fn after(record: Record, sighting: &Sighting<'_>) -> Answer {
    if record.token == sighting.token { Answer::New } else { Answer::Seen(record.bucket) }
}

/// Tokens are columns of the server's only type of 64 bits, which has a sign.
fn signed(token: Token) -> i64 {
    token.number().cast_signed()
}

/// The rows of a round, one for each of `keys`.
pub(super) fn records(rows: &[Row], keys: &[&[u8]]) -> Result<Vec<Record>, StoreError> {
    if rows.len() != keys.len() {
        return Err(unreadable(format!("{} records of {} keys", rows.len(), keys.len())));
    }
    rows.iter().zip(keys).map(|(row, key)| record(row, key)).collect()
}

fn record(row: &Row, key: &[u8]) -> Result<Record, StoreError> {
    if row.try_get::<_, &[u8]>(0).map_err(unreadable)? != key {
        return Err(unreadable("the record of another key"));
    }
    let bucket = row.try_get(1).map_err(unreadable)?;
    Ok(record_of(bucket, row.try_get(2).map_err(unreadable)?))
}

fn record_of(bucket: i64, token: i64) -> Record {
    Record { bucket: Bucket::new(bucket), token: Token::new(token.cast_unsigned()) }
}

/// The rows of a look, one for each of `count` keys.
pub(super) fn held(rows: &[Row], count: usize) -> Result<Vec<Option<Record>>, StoreError> {
    if rows.len() != count {
        return Err(unreadable(format!("{} entries for {count} keys", rows.len())));
    }
    rows.iter().map(|row| held_in(row).map_err(unreadable)).collect()
}

fn held_in(row: &Row) -> Result<Option<Record>, Error> {
    let bucket: Option<i64> = row.try_get(0)?;
    let token: Option<i64> = row.try_get(1)?;
    Ok(bucket.zip(token).map(|(bucket, token)| record_of(bucket, token)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Window;
    use std::collections::HashMap;
    use std::time::Duration;

    fn sighting(key: &'static str, bucket: i64, token: u64) -> Sighting<'static> {
        let key = key.as_bytes();
        Sighting { key, bucket: Bucket::new(bucket), token: Token::new(token) }
    }

    /// What the server would do, and in how many rounds.
    fn ask(
        held: &mut HashMap<Vec<u8>, Record>,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> (Vec<Answer>, usize) {
        let mut batch = Batch::of(sightings).unwrap();
        let mut rounds = 0;
        while !batch.is_answered() {
            let round = batch.round();
            let asked = round.keys.iter().zip(&round.buckets).zip(&round.tokens);
            let records: Vec<_> = asked
                .map(|((&key, bucket), token)| {
                    let (bucket, token) = (Bucket::new(*bucket), Token::new(token.cast_unsigned()));
                    let record = held.get(key).copied();
                    let written = rule.decide(record, &Sighting { key, bucket, token }).write;
                    let record = written.or(record).unwrap();
                    held.insert(key.to_vec(), record);
                    record
                })
                .collect();
            batch.answer(&records, rule);
            rounds += 1;
        }
        (batch.into_answers(), rounds)
    }

    fn one_by_one(
        held: &mut HashMap<Vec<u8>, Record>,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> Vec<Answer> {
        let decide = |sighting: &Sighting<'_>| {
            let decision = rule.decide(held.get(sighting.key).copied(), sighting);
            if let Some(record) = decision.write {
                held.insert(sighting.key.to_vec(), record);
            }
            decision.answer
        };
        sightings.iter().map(decide).collect()
    }

    #[test]
    fn rounds_give_what_one_by_one_gives() {
        let span = Duration::from_secs(480);
        let mut drawn = 1_u64;
        let mut draw = |below: u64| {
            drawn = drawn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (drawn >> 33) % below
        };
        let keys = ["", "a", "aa", "b", "ba"];
        for window in [Window::fixed(span).buckets(8), Window::sliding(span).buckets(8)] {
            let rule = Rule::of(&window);
            let (mut rounds, mut plain) = (HashMap::new(), HashMap::new());
            for start in 0..500 {
                let sightings: Vec<_> = (0..draw(12))
                    .map(|_| {
                        let key = keys[draw(5) as usize];
                        sighting(key, start + draw(20) as i64, draw(1 << 31))
                    })
                    .collect();
                let expected = one_by_one(&mut plain, &sightings, rule);
                assert_eq!(ask(&mut rounds, &sightings, rule).0, expected, "{sightings:?}");
                assert_eq!(rounds, plain);
            }
        }
    }

    #[test]
    fn repeats_in_one_bucket_take_one_round() {
        let rule = Rule::of(&Window::sliding(Duration::from_secs(480)));
        let sightings = [sighting("a", 7, 1), sighting("b", 7, 2), sighting("a", 7, 3)];
        let (answers, rounds) = ask(&mut HashMap::new(), &sightings, rule);
        assert_eq!(answers, [Answer::New, Answer::New, Answer::Seen(Bucket::new(7))]);
        assert_eq!(rounds, 1);
        assert_eq!(ask(&mut HashMap::new(), &[], rule), (Vec::new(), 0));
    }
}
