//! Random schedules of outages, claims and settlements, against a plain account of who
//! holds what.

use super::stage::{Heard, Mood, Policy, Stage, TERMS};
use crate::confirm::StoreError;
use crate::confirm::StoreErrorKind::{Broken, Corrupt, Full, Refused, Uncertain};
use crate::confirm::claims::{Answer, Outcome, Settled, Settlement, Status};
use crate::confirm::outage::Health;
use crate::time::{Clock as _, Timestamp};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum Step {
    /// Claims a key; gives up after so many polls.
    Claim(usize, usize),
    /// Settles one of the leases that are held, or were.
    Settle(usize, usize, How),
    Clear(usize),
    /// How the primary is from now on, and how the fallback is.
    Primary(Mood),
    Fallback(Mood),
    /// The next calls of the primary alone.
    NextPrimary(Vec<Mood>),
    Advance(u64),
    Sweep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Complete,
    Release,
    Extend,
}

fn mood() -> impl Strategy<Value = Mood> {
    prop_oneof![
        6 => Just(Mood::Well),
        3 => Just(Mood::DOWN),
        2 => Just(Mood::Lost),
        2 => Just(Mood::SLOW),
        1 => Just(Mood::Panics),
        1 => prop::sample::select(vec![Broken, Corrupt, Full, Uncertain, Refused])
            .prop_map(Mood::Fails),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let polls = || prop_oneof![5 => Just(2_000_usize), 1 => 1..12_usize];
    let how =
        prop_oneof![4 => Just(How::Complete), 2 => Just(How::Release), 1 => Just(How::Extend)];
    prop_oneof![
        10 => (polls(), 0..KEYS.len()).prop_map(|(polls, key)| Step::Claim(polls, key)),
        8 => (polls(), any::<usize>(), how)
            .prop_map(|(polls, lease, how)| Step::Settle(polls, lease, how)),
        1 => (0..KEYS.len()).prop_map(Step::Clear),
        4 => mood().prop_map(Step::Primary),
        1 => mood().prop_map(Step::Fallback),
        3 => prop::collection::vec(mood(), 1..3).prop_map(Step::NextPrimary),
        3 => (0..4_u64).prop_map(Step::Advance),
        1 => Just(Step::Advance(11)),
        1 => Just(Step::Sweep),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Primary,
    StandIn,
}

/// A lease, as its holder knows it.
#[derive(Clone, Debug)]
struct Lease {
    key: usize,
    token: u64,
    by: By,
    deadline: Timestamp,
    /// The holder believes that it has yet to settle it.
    is_open: bool,
    /// It was said to be settled so, and may have been heard of or not.
    said: Option<How>,
    /// Another was granted the key since, by whoever granted this one.
    is_taken_over: bool,
}

/// The account.
#[derive(Default)]
struct Account {
    leases: Vec<Lease>,
    tokens: u64,
    /// With which to ask again for keys whose claim came to nothing that was heard.
    lost: HashMap<usize, u64>,
    /// Keys that were completed, and by whom.
    finished: HashMap<usize, By>,
    /// Keys of which nobody knows whether they were cleared.
    unclear: HashSet<usize>,
}

/// What comes of the work of a token.
fn outcome(token: u64) -> Outcome {
    Outcome::success(token.to_be_bytes())
}

impl Account {
    fn token(&mut self, key: usize) -> u64 {
        self.tokens += 1;
        self.lost.remove(&key).unwrap_or(self.tokens)
    }

    fn claimed(&mut self, stage: &Stage, key: usize, token: u64, heard: Heard<Answer>) {
        match heard {
            Some(Ok(Answer::Granted(_))) => self.granted(stage, key, token, By::Primary),
            Some(Ok(Answer::Unconfirmed(_))) => self.granted(stage, key, token, By::StandIn),
            Some(Ok(Answer::Finished(outcome))) => self.replayed(key, &outcome),
            Some(Ok(Answer::InFlight { .. })) => {}
            Some(Ok(Answer::Mismatch)) => panic!("{} has one payload", KEYS[key]),
            Some(Err(error)) if !error.may_have_recorded() => {}
            Some(Err(_)) | None => drop(self.lost.insert(key, token)),
        }
    }

    fn granted(&mut self, stage: &Stage, key: usize, token: u64, by: By) {
        let now = stage.clock.now();
        let name = KEYS[key];
        let is_unclear = self.unclear.contains(&key);
        for lease in self.leases.iter_mut().filter(|lease| lease.key == key) {
            let is_at_it = lease.is_open && lease.said.is_none();
            let is_live = is_at_it && now < lease.deadline && lease.token != token;
            // The primary was away for the second, if the first is the primary's.
            let met = lease.by == by || by == By::Primary;
            assert!(!is_live || !met || is_unclear, "{name}: {lease:?}, and again by {by:?}");
            lease.is_taken_over |= lease.by == by && lease.token != token;
        }
        if let Some(finished_by) = self.finished.get(&key)
            && !is_unclear
        {
            let is_allowed = *finished_by == By::Primary && by == By::StandIn;
            assert!(is_allowed, "{name}: finished by {finished_by:?}, and again by {by:?}");
        }
        let deadline = now.saturating_add(TERMS.lease);
        let (is_open, said, is_taken_over) = (true, None, false);
        self.leases.push(Lease { key, token, by, deadline, is_open, said, is_taken_over });
    }

    fn replayed(&self, key: usize, came_of_it: &Outcome) {
        let said = self.leases.iter().any(|lease| {
            lease.key == key
                && lease.said == Some(How::Complete)
                && *came_of_it == outcome(lease.token)
        });
        assert!(said, "{}: nobody has said {came_of_it:?}", KEYS[key]);
    }

    fn settled(
        &mut self,
        stage: &Stage,
        index: usize,
        how: How,
        heard: Option<&Result<Settled, StoreError>>,
    ) {
        let now = stage.clock.now();
        let lease = &mut self.leases[index];
        let (key, by) = (lease.key, lease.by);
        match heard {
            Some(Ok(Settled::Done)) => {
                let was_late = lease.is_taken_over && how != How::Release;
                let is_unclear = self.unclear.contains(&key);
                assert!(!was_late || is_unclear, "{}: late, and done: {lease:?}", KEYS[key]);
                match how {
                    How::Extend => lease.deadline = now.saturating_add(TERMS.lease),
                    How::Release => lease.is_open = false,
                    How::Complete => {
                        lease.is_open = false;
                        self.finished.insert(key, by);
                    }
                }
            }
            Some(Ok(Settled::Stale)) => lease.is_open = false,
            // Whether it is open, nobody knows; it may be settled again.
            Some(Err(_)) | None => {}
        }
    }

    fn cleared(&mut self, key: usize, is_done: bool) {
        if !is_done {
            self.unclear.insert(key);
            return;
        }
        self.unclear.remove(&key);
        self.finished.remove(&key);
        for lease in self.leases.iter_mut().filter(|lease| lease.key == key) {
            lease.is_open = false;
        }
    }
}

fn settlement(how: How, outcome: &Outcome) -> Settlement<'_> {
    match how {
        How::Complete => Settlement::Complete(outcome),
        How::Release => Settlement::Release,
        How::Extend => Settlement::Extend,
    }
}

fn settle(stage: &Stage, account: &mut Account, (polls, index): (usize, usize), how: How) {
    let Lease { key, token, is_open, said, .. } = account.leases[index];
    // A holder says one thing, and that again; and it may be late.
    let is_over = !is_open && said.is_none();
    let how = if how == How::Extend { how } else { said.unwrap_or(how) };
    if is_over || (how == How::Extend && said.is_some()) {
        return;
    }
    if how != How::Extend {
        account.leases[index].said = Some(how);
    }
    let outcome = outcome(token);
    let heard = stage.settle_in_part(polls, KEYS[key], token, settlement(how, &outcome));
    account.settled(stage, index, how, heard.as_ref());
}

fn take(stage: &Stage, account: &mut Account, step: &Step) {
    match step {
        Step::Claim(polls, key) => {
            let token = account.token(*key);
            let heard = stage.claim_in_part(*polls, KEYS[*key], token);
            account.claimed(stage, *key, token, heard);
        }
        Step::Settle(polls, lease, how) if !account.leases.is_empty() => {
            let index = lease % account.leases.len();
            settle(stage, account, (*polls, index), *how);
        }
        Step::Settle(..) => {}
        Step::Clear(key) => {
            let is_done = stage.settle(KEYS[*key], 0, Settlement::Clear).is_ok();
            account.cleared(*key, is_done);
        }
        Step::Primary(mood) => stage.primary.is(*mood),
        Step::Fallback(mood) => stage.fallback.is(*mood),
        Step::NextPrimary(moods) => stage.primary.next(moods.iter().copied()),
        Step::Advance(seconds) => stage.advance(*seconds),
        Step::Sweep => drop(stage.sweep()),
    }
}

/// When all is well again, the primary knows all that was finished, and in the end
/// nothing is owed.
fn check_the_end(stage: &Stage, account: &Account) {
    stage.recover();
    stage.sweep_all();
    // Nobody at it in the primary is heard of again.
    stage.advance(TERMS.lease.as_secs() + 1);
    for _ in 0..10 {
        stage.sweep_all();
    }
    for (key, by) in &account.finished {
        let status = stage.in_primary(KEYS[*key]);
        let is_finished = matches!(status, Some(Status::Finished(_)));
        assert!(
            is_finished || account.unclear.contains(key),
            "{}: finished by {by:?}, and in the primary {status:?}",
            KEYS[*key]
        );
    }
    stage.advance(TERMS.lease.as_secs() + TERMS.keep.as_secs());
    for _ in 0..10 {
        stage.sweep_all();
    }
    assert_eq!(stage.health(), Health::Serving);
    let stats = stage.stats();
    assert_eq!((stats.journal_keys, stats.journal_bytes), (0, 0));
}

fn run(policy: Policy, is_async: bool, steps: &[Step]) {
    let stage = Stage::new(policy, is_async, 1 << 20);
    let mut account = Account::default();
    for step in steps {
        take(&stage, &mut account, step);
    }
    check_the_end(&stage, &account);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..<_>::default()
    })]

    #[test]
    fn one_holds_a_key_at_a_time_and_what_is_finished_stays_so(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        for policy in [Policy::Reject, Policy::Admit, Policy::Fallback] {
            for is_async in [false, true] {
                run(policy, is_async, &steps);
            }
        }
    }
}

/// Found at random: a claim whose reply was lost lies in the primary, the stand-in grants
/// the key to its holder and then to another, who lets go of it, and the first is late.
#[test]
fn a_holder_whose_successor_let_go_is_still_too_late() {
    use How::{Complete, Release};
    let unavailable = Mood::Fails(crate::confirm::StoreErrorKind::Unavailable);
    let claim = |key| Step::Claim(2_000, key);
    let steps = [
        claim(2),
        claim(0),
        Step::Primary(unavailable),
        claim(3),
        claim(2),
        claim(0),
        Step::Clear(2),
        Step::Advance(1),
        Step::Primary(Mood::Lost),
        claim(1),
        Step::Advance(11),
        claim(2),
        claim(1),
        Step::Settle(2_000, 17_202_849_526_553_516_613, Complete),
        Step::Primary(Mood::Well),
        Step::Settle(2_000, 10_362_685_508_023_944_127, Release),
        claim(0),
        Step::Settle(2_000, 13_857_423_124_489_575_188, Complete),
    ];
    for policy in [Policy::Reject, Policy::Admit, Policy::Fallback] {
        for is_async in [false, true] {
            run(policy, is_async, &steps);
        }
    }
}
