//! One check's own ground: a namespace, its rules, and tokens that never repeat.

use super::Harness;
use super::keys::Shortened;
use super::report::{Checked, Unmet, ensure};
use crate::confirm::{Answer, Bucket, Confirmer, Record, Rule, Sighting, StoreError, Token};
use crate::time::Window;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of the rules below.
pub(super) const BUCKETS: i64 = 8;

/// The bucket in which most checks begin: today's, in minutes.
pub(super) const NOW: i64 = 29_000_000;

/// The rule that counts from the first sighting.
pub(super) fn fixed() -> Rule {
    Rule::of(&Window::fixed(Duration::from_secs(480)).buckets(8))
}

/// The rule that counts from the latest.
pub(super) fn sliding() -> Rule {
    Rule::of(&Window::sliding(Duration::from_secs(480)).buckets(8))
}

pub(super) const fn seen(bucket: i64) -> Answer {
    Answer::Seen(Bucket::new(bucket))
}

pub(super) struct Case<'harness, H> {
    pub(super) harness: &'harness H,
    namespace: &'static str,
    tokens: AtomicU64,
}

impl<'harness, H: Harness> Case<'harness, H> {
    pub(super) fn new(harness: &'harness H, namespace: &'static str) -> Self {
        Self { harness, namespace, tokens: AtomicU64::new(1) }
    }

    /// A confirmer for the check's own namespace.
    pub(super) fn open(&self) -> Result<H::Confirmer, StoreError> {
        self.harness.open(self.namespace)
    }

    pub(super) fn token(&self) -> Token {
        // Relaxed: the count alone matters.
        Token::new(self.tokens.fetch_add(1, Ordering::Relaxed))
    }

    /// A sighting of its own.
    pub(super) fn sighting<'key>(&self, key: &'key [u8], bucket: i64) -> Sighting<'key> {
        Sighting { key, bucket: Bucket::new(bucket), token: self.token() }
    }

    /// One sighting for each key.
    pub(super) fn sightings<'key, K>(&self, keys: &'key [K], bucket: i64) -> Vec<Sighting<'key>>
    where
        K: AsRef<[u8]>,
    {
        keys.iter().map(|key| self.sighting(key.as_ref(), bucket)).collect()
    }

    /// Asks about one new sighting of a key.
    pub(super) fn ask(
        &self,
        confirmer: &H::Confirmer,
        rule: Rule,
        key: &[u8],
        bucket: i64,
    ) -> Checked<Answer> {
        Ok(ask_all(confirmer, rule, &[self.sighting(key, bucket)])?[0])
    }

    /// Asks about one new sighting of a key and expects an answer.
    pub(super) fn expect(
        &self,
        confirmer: &H::Confirmer,
        rule: Rule,
        (key, bucket): (&[u8], i64),
        expected: Answer,
        when: &str,
    ) -> Checked {
        let answer = self.ask(confirmer, rule, key, bucket)?;
        ensure!(answer == expected, "{when}: {answer:?} instead of {expected:?}");
        Ok(())
    }
}

/// Asks about sightings; there must be an answer to each.
pub(super) fn ask_all(
    confirmer: &impl Confirmer,
    rule: Rule,
    sightings: &[Sighting<'_>],
) -> Checked<Vec<Answer>> {
    let answers = confirmer.confirm(sightings, rule)?;
    ensure!(
        answers.len() == sightings.len(),
        "{} answers to {} sightings",
        answers.len(),
        sightings.len()
    );
    Ok(answers)
}

/// Asks about sightings and expects one answer to all.
pub(super) fn expect_all(
    confirmer: &impl Confirmer,
    rule: Rule,
    sightings: &[Sighting<'_>],
    expected: Answer,
    when: &str,
) -> Checked {
    let answers = ask_all(confirmer, rule, sightings)?;
    let wrong = answers.iter().position(|answer| *answer != expected);
    let Some(wrong) = wrong else { return Ok(()) };
    Err(Unmet::Failed(format!(
        "{when}: {:?} instead of {expected:?} for key {wrong} of {}, {:?}",
        answers[wrong],
        answers.len(),
        Shortened(sightings[wrong].key)
    )))
}

/// Looks for keys; there must be an entry for each.
pub(super) fn look_for(confirmer: &impl Confirmer, keys: &[&[u8]]) -> Checked<Vec<Option<Record>>> {
    let held = confirmer.look(keys)?;
    ensure!(held.len() == keys.len(), "{} entries for {} keys", held.len(), keys.len());
    Ok(held)
}

/// Looks for a key and expects what is held for it.
pub(super) fn expect_held(
    confirmer: &impl Confirmer,
    key: &[u8],
    expected: Option<Record>,
    when: &str,
) -> Checked {
    let held = look_for(confirmer, &[key])?[0];
    ensure!(
        held == expected,
        "looked for {:?} {when}: {held:?} instead of {expected:?}",
        Shortened(key)
    );
    Ok(())
}
