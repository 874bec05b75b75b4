//! Random schedules of outages, checks and forgets, against a plain account of
//! which keys were let through.

use super::stage::{Mood, NOW, Policy, Stage, sliding};
use crate::confirm::StoreErrorKind::{Broken, Corrupt, Full, Refused, Unavailable, Uncertain};
use crate::confirm::outage::{AnsweredBy, Confirmed, Health};
use crate::confirm::{Answer, Confirmer, Sighting, StoreError};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

#[derive(Clone, Debug)]
enum Step {
    /// Checks keys: one batch.
    Check(Vec<usize>),
    /// Checks keys and gives up after so many polls.
    GiveUp(usize, Vec<usize>),
    Forget(usize),
    /// How the primary is from now on, and how the fallback is.
    Primary(Mood),
    Fallback(Mood),
    /// The next calls of the primary alone.
    NextPrimary(Vec<Mood>),
    Advance(u64),
    /// The next bucket has begun, unless keys would leave the window.
    NextBucket,
    WriteBack,
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![
        6 => Just(Mood::Well),
        3 => Just(Mood::DOWN),
        2 => Just(Mood::Lost),
        2 => Just(Mood::SLOW),
        1 => Just(Mood::Panics),
        1 => Just(Mood::Short),
        1 => Just(Mood::Ancient),
        1 => prop::sample::select(vec![Broken, Corrupt, Full, Uncertain, Refused])
            .prop_map(Mood::Fails),
        1 => prop::sample::select(vec![Full, Refused, Unavailable]).prop_map(Mood::Partly),
    ]
}

/// Keys of one batch, each once: nobody has two checks of one key in flight.
fn keys() -> impl Strategy<Value = Vec<usize>> {
    prop::sample::subsequence((0..KEYS.len()).collect::<Vec<_>>(), 1..=3).prop_shuffle()
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => keys().prop_map(Step::Check),
        2 => (1..8_usize, keys()).prop_map(|(polls, keys)| Step::GiveUp(polls, keys)),
        3 => (0..KEYS.len()).prop_map(Step::Forget),
        4 => mood().prop_map(Step::Primary),
        1 => mood().prop_map(Step::Fallback),
        3 => prop::collection::vec(mood(), 1..3).prop_map(Step::NextPrimary),
        3 => (0..3_u64).prop_map(Step::Advance),
        2 => Just(Step::NextBucket),
        1 => Just(Step::WriteBack),
    ]
}

/// Who let a key through last.
#[derive(Clone, Copy, Debug)]
struct LetThrough {
    by: AnsweredBy,
    /// It was a batch of its own; otherwise it may have been the primary that let
    /// this key through.
    is_alone: bool,
}

/// The account.
#[derive(Default)]
struct Account {
    let_through: HashMap<usize, LetThrough>,
    /// A forget of these failed: they may or may not have been forgotten.
    unclear: HashSet<usize>,
    twice: u64,
    /// How many buckets have begun.
    buckets: i64,
}

impl Account {
    fn take(&mut self, policy: Policy, keys: &[usize], result: Result<Confirmed, StoreError>) {
        let Ok(confirmed) = result else { return };
        assert_eq!(confirmed.answers.len(), keys.len());
        for (key, answer) in keys.iter().zip(confirmed.answers) {
            self.check(policy, *key, answer, confirmed.by);
            if keys.len() > 1
                && let Some(let_through) = self.let_through.get_mut(key)
            {
                let_through.is_alone = false;
            }
        }
    }

    fn check(&mut self, policy: Policy, key: usize, answer: Answer, by: AnsweredBy) {
        let before = self.let_through.get(&key).copied();
        if matches!(answer, Answer::Seen(_)) {
            assert!(
                before.is_some() || self.unclear.contains(&key),
                "{} is suppressed, and nobody has let it through",
                KEYS[key]
            );
            return;
        }
        self.twice += u64::from(before.is_some());
        if let Some(before) = before
            && !self.unclear.contains(&key)
        {
            let is_allowed = match policy {
                Policy::Reject => false,
                Policy::Admit => by == AnsweredBy::Nobody || before.by == AnsweredBy::Nobody,
                // Only the primary knew it, and the fallback was asked.
                Policy::Fallback => {
                    by == AnsweredBy::Fallback
                        && (before.by == AnsweredBy::Primary || !before.is_alone)
                }
            };
            assert!(is_allowed, "{} is let through again by {by:?}, first {before:?}", KEYS[key]);
        }
        self.unclear.remove(&key);
        self.let_through.insert(key, LetThrough { by, is_alone: true });
    }

    fn forget(&mut self, key: usize, is_done: bool) {
        if is_done {
            self.let_through.remove(&key);
            self.unclear.remove(&key);
        } else {
            self.unclear.insert(key);
        }
    }
}

fn sightings(stage: &Stage, account: &Account, keys: &[usize]) -> Vec<Sighting<'static>> {
    let bucket = NOW + account.buckets;
    keys.iter().map(|key| stage.sighting(KEYS[*key].as_bytes(), bucket)).collect()
}

fn take(stage: &Stage, policy: Policy, account: &mut Account, step: &Step) {
    match step {
        Step::Check(keys) => {
            let result = stage.guard.confirm(&sightings(stage, account, keys), stage.rule);
            account.take(policy, keys, result);
        }
        Step::GiveUp(polls, keys) => {
            let sightings = sightings(stage, account, keys);
            if let Some(result) = stage.guard.confirm_in_part(*polls, &sightings, stage.rule) {
                account.take(policy, keys, result);
            }
        }
        Step::Forget(key) => {
            let is_done = stage.guard.forget(&[KEYS[*key].as_bytes()]).is_ok();
            account.forget(*key, is_done);
        }
        Step::Primary(mood) => stage.primary.is(*mood),
        Step::Fallback(mood) => stage.fallback.is(*mood),
        Step::NextPrimary(moods) => stage.primary.next(moods.iter().copied()),
        Step::Advance(seconds) => stage.advance(*seconds),
        Step::NextBucket => account.buckets = (account.buckets + 1).min(8),
        Step::WriteBack => drop(stage.guard.write_back(stage.rule)),
    }
}

/// When all is well again, the primary knows what was let through, and nothing
/// that was forgotten.
fn check_the_primary(stage: &Stage, policy: Policy, account: &Account) {
    for (key, name) in KEYS.iter().enumerate() {
        if account.unclear.contains(&key) {
            continue;
        }
        let let_through = account.let_through.get(&key);
        let confirmed = stage.confirm_in(NOW + account.buckets, &[name]).unwrap();
        assert_eq!(confirmed.by, AnsweredBy::Primary);
        let is_new = confirmed.answers[0] == Answer::New;
        match let_through {
            None => assert!(is_new, "{name} is suppressed in the end"),
            Some(LetThrough { by: AnsweredBy::Nobody, .. }) => (),
            Some(_) => assert!(!is_new, "{name} is let through again in the end, {policy:?}"),
        }
        let again = sightings(stage, account, &[key]);
        let known = stage.primary.memory().confirm(&again, stage.rule).unwrap();
        assert_ne!(known, [Answer::New], "{name}");
    }
}

fn run(policy: Policy, is_async: bool, is_sliding: bool, steps: &[Step]) {
    let mut stage = Stage::new(policy, is_async, 1 << 20);
    if is_sliding {
        stage.rule = sliding();
    }
    let mut account = Account::default();
    for step in steps {
        take(&stage, policy, &mut account, step);
    }
    stage.settle();
    assert_eq!(stage.guard.health(), Health::Serving);
    let stats = stage.guard.stats();
    assert_eq!((stats.journal_keys, stats.journal_bytes), (0, 0));
    if policy == Policy::Fallback {
        assert!(stats.let_through_twice <= account.twice);
    }
    check_the_primary(&stage, policy, &account);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..<_>::default()
    })]

    #[test]
    fn no_key_is_lost_and_none_is_let_through_twice_unless_the_policy_says_so(
        is_sliding in any::<bool>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        for policy in [Policy::Reject, Policy::Admit, Policy::Fallback] {
            for is_async in [false, true] {
                run(policy, is_async, is_sliding, &steps);
            }
        }
    }
}
