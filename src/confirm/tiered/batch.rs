//! What the cache settles of a batch, what is left to the authority, and what the
//! cache is told afterwards.

use super::is_barrier;
use crate::confirm::{Answer, Decision, Record, Rule, Sighting};
use std::collections::{HashMap, HashSet};

pub(super) struct Batch<'batch, 'key> {
    sightings: &'batch [Sighting<'key>],
    rule: Rule,
    answers: Vec<Answer>,
    /// The places of those that the cache does not settle, in order.
    left: Vec<usize>,
    /// What it holds for their keys.
    cached: HashMap<&'key [u8], Option<Record>>,
}

/// What to write to the cache.
pub(super) struct Fill<'key> {
    /// As sightings for the cache to confirm.
    pub(super) sightings: Vec<Sighting<'key>>,
    /// Keys whose records the authority has to be asked for.
    pub(super) unknown: Vec<&'key [u8]>,
}

impl<'batch, 'key> Batch<'batch, 'key> {
    /// Settles what it can by what the cache holds, sighting by sighting.
    ///
    /// Once a sighting of a key is left to the authority, which may move the key,
    /// later ones of that key are, too.
    pub(super) fn of(
        sightings: &'batch [Sighting<'key>],
        rule: Rule,
        held: &[Option<Record>],
    ) -> Self {
        let answers = vec![Answer::New; sightings.len()];
        let mut batch = Self { sightings, rule, answers, left: Vec::new(), cached: HashMap::new() };
        for (place, (sighting, held)) in sightings.iter().zip(held).enumerate() {
            match settled(*held, sighting, rule) {
                Some(seen) if !batch.cached.contains_key(sighting.key) => {
                    batch.answers[place] = seen;
                }
                _ => {
                    batch.left.push(place);
                    batch.cached.insert(sighting.key, *held);
                }
            }
        }
        batch
    }

    /// What the authority is to answer.
    pub(super) fn left(&self) -> Vec<Sighting<'key>> {
        self.left.iter().map(|place| self.sightings[*place]).collect()
    }

    /// Takes the authority's answers to what was left.
    pub(super) fn answer(&mut self, answers: &[Answer]) {
        for (place, answer) in self.left.iter().zip(answers) {
            self.answers[*place] = *answer;
        }
    }

    pub(super) fn into_answers(self) -> Vec<Answer> {
        self.answers
    }

    /// What the authority's answers let the cache know.
    pub(super) fn fill(&self) -> Fill<'key> {
        let mut fill = Fill { sightings: Vec::new(), unknown: Vec::new() };
        let mut told = HashSet::new();
        for place in &self.left {
            let sighting = self.sightings[*place];
            match self.news(sighting, self.answers[*place]) {
                News::None => {}
                News::Known(record) => {
                    told.insert(sighting.key);
                    fill.sightings.push(record);
                }
                News::Unknown => {
                    if told.insert(sighting.key) {
                        fill.unknown.push(sighting.key);
                    }
                }
            }
        }
        fill
    }

    /// What one answer does.
    fn news(&self, sighting: Sighting<'key>, answer: Answer) -> News<'key> {
        let key = sighting.key;
        let held = self.cached.get(key).copied().flatten();
        let matching = |at| held.filter(|record| self.rule.matches(record.bucket, at));
        if matching(sighting.bucket).is_some_and(is_barrier) {
            return News::None;
        }
        let Answer::Seen(bucket) = answer else { return News::Known(sighting) };
        // The winner's as before: told of in another's name, the cache would call
        // the winner, asking again, a duplicate.
        match matching(bucket).filter(|record| !is_barrier(*record)) {
            Some(Record { token, .. }) => News::Known(Sighting { key, bucket, token }),
            None => News::Unknown,
        }
    }
}

/// What the cache can be told of a key.
enum News<'key> {
    /// Nothing gets past the barrier.
    None,
    Known(Sighting<'key>),
    /// That there is a record, for which the authority has to be asked.
    Unknown,
}

/// The answer, where what the cache holds suffices for it: another's record that
/// matches and does not have to move.
fn settled(held: Option<Record>, sighting: &Sighting<'_>, rule: Rule) -> Option<Answer> {
    let held = held.filter(|record| !is_barrier(*record));
    match rule.decide(held, sighting) {
        Decision { answer: Answer::Seen(bucket), write: None } => Some(Answer::Seen(bucket)),
        _ => None,
    }
}
