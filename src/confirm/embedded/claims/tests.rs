//! The embedded claim store decides as a map would, forgets what has expired and
//! nothing else, and keeps to its file.

use super::super::commits::Commits;
use super::store::Store;
use super::{EmbeddedClaims, EmbeddedClaimsBuilder};
use crate::confirm::claims::{
    Answer, ClaimRequest, ClaimStore, Digest, Ending, Entry, Outcome, SettleRequest, Settled,
    Settlement, Status, Terms,
};
use crate::confirm::{
    Bucket, Confirmer, Durability, EmbeddedConfirmer, Rule, Sighting, StoreError, StoreErrorKind,
    Token,
};
use crate::time::{Clock as _, ManualClock, Timestamp, Window};
use proptest::prelude::*;
use std::collections::HashMap;
use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

const TERMS: Terms = Terms { lease: Duration::from_secs(300), keep: Duration::from_secs(3_600) };

const START: Timestamp = Timestamp::from_secs(1_000_000);

fn builder(path: &Path) -> EmbeddedClaimsBuilder {
    EmbeddedClaims::builder(path).durability(Durability::Os).cache(1 << 20)
}

/// A store in a folder of its own, by a clock that the test sets.
struct Stage {
    claims: Option<EmbeddedClaims>,
    clock: Arc<ManualClock>,
    path: PathBuf,
    _folder: TempDir,
}

impl Stage {
    fn new() -> Self {
        Self::with(|builder| builder)
    }

    fn with(settings: impl Fn(EmbeddedClaimsBuilder) -> EmbeddedClaimsBuilder) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("claims");
        let clock = Arc::new(ManualClock::new(START));
        let claims = settings(builder(&path)).clock(clock.clone()).open().unwrap();
        Self { claims: Some(claims), clock, path, _folder: folder }
    }

    fn reopen(&mut self) {
        drop(self.claims.take());
        self.claims = Some(builder(&self.path).clock(self.clock.clone()).open().unwrap());
    }

    fn claims(&self) -> &EmbeddedClaims {
        self.claims.as_ref().unwrap()
    }

    fn claim(&self, id: &str, token: u64) -> Result<Answer, StoreError> {
        self.claims().claim(id.as_bytes(), &request(token, 0))
    }

    fn settle(
        &self,
        id: &str,
        token: u64,
        settlement: Settlement<'_>,
    ) -> Result<Settled, StoreError> {
        let request = SettleRequest { token: Token::new(token), settlement, terms: TERMS };
        self.claims().settle(id.as_bytes(), &request)
    }

    fn advance(&self, secs: u64) {
        self.clock.advance(Duration::from_secs(secs));
    }

    /// How many entries there are; as many as notes.
    fn len(&self) -> u64 {
        let (entries, notes) = commits(self.claims()).serving.lock().store.lens();
        assert_eq!(entries, notes);
        entries
    }
}

fn commits(claims: &EmbeddedClaims) -> &Commits<Store> {
    &claims.commits
}

fn request(token: u64, payload: u8) -> ClaimRequest {
    ClaimRequest { token: Token::new(token), digest: Digest::of(&[payload]), terms: TERMS }
}

fn sweep(stage: &Stage) -> u64 {
    let mut calls = 1;
    while stage.claims().sweep().unwrap() {
        calls += 1;
    }
    calls
}

#[cfg(feature = "conformance")]
mod conformance {
    use super::*;
    use crate::confirm::conformance::{ClaimHarness, Trouble, check_claims};

    struct Files {
        folder: TempDir,
        clock: Arc<ManualClock>,
        durability: Durability,
    }

    impl ClaimHarness for Files {
        type Store = EmbeddedClaims;

        fn open(&self, namespace: &str) -> Result<EmbeddedClaims, StoreError> {
            let path = self.folder.path().join(namespace);
            builder(&path).durability(self.durability).clock(self.clock.clone()).open()
        }

        fn clock(&self) -> Option<&ManualClock> {
            Some(&self.clock)
        }

        fn trouble(&self) -> &dyn Trouble {
            self
        }
    }

    impl Trouble for Files {
        /// A restart of the store is one more opening of its file.
        fn restart(&self) -> bool {
            true
        }
    }

    fn assert_conforms(durability: Durability) {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(START));
        check_claims(&Files { folder, clock, durability }).assert();
    }

    #[test]
    fn keeps_the_contract() {
        assert_conforms(Durability::Os);
    }

    #[test]
    fn keeps_the_contract_synced() {
        assert_conforms(Durability::Synced);
    }
}

/// What is done to a store and its model; identities are few, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    Claim { id: u8, token: u64, payload: u8 },
    Settle { id: u8, token: u64, how: How },
    Look(u8),
    Sweep,
    Advance(u64),
    Reopen,
}

#[derive(Clone, Debug)]
enum How {
    Complete(Outcome),
    Release,
    Extend,
    Adopt(Outcome),
    Clear,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => prop::collection::vec(any::<u8>(), 0..2_000).prop_map(Outcome::success),
        1 => prop::collection::vec(any::<u8>(), 0..9).prop_map(Outcome::failure),
        1 => Just(Outcome::tombstone(Ending::Success)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let how = prop_oneof![
        4 => outcome().prop_map(How::Complete),
        2 => Just(How::Release),
        1 => Just(How::Extend),
        1 => outcome().prop_map(How::Adopt),
        1 => Just(How::Clear),
    ];
    prop_oneof![
        6 => (0..6_u8, 0..4_u64, 0..2_u8)
            .prop_map(|(id, token, payload)| Step::Claim { id, token, payload }),
        6 => (0..6_u8, 0..4_u64, how).prop_map(|(id, token, how)| Step::Settle { id, token, how }),
        1 => (0..6_u8).prop_map(Step::Look),
        1 => Just(Step::Sweep),
        3 => prop_oneof![0..400_u64, Just(3_600)].prop_map(Step::Advance),
        1 => Just(Step::Reopen),
    ]
}

fn assert_agrees(steps: &[Step]) {
    let mut stage = Stage::new();
    let mut model: HashMap<u8, Entry> = HashMap::new();
    for step in steps {
        let now = stage.clock.now();
        match step {
            Step::Claim { id, token, payload } => {
                let claim = request(*token, *payload);
                let decision = Entry::claim(model.get(id), &claim, now);
                assert_eq!(stage.claims().claim(&[*id], &claim), Ok(decision.answer), "{step:?}");
                model.extend(decision.write.map(|entry| (*id, entry)));
            }
            Step::Settle { id, token, how } => {
                let digest = Digest::of(b"elsewhere");
                let settlement = match how {
                    How::Complete(outcome) => Settlement::Complete(outcome),
                    How::Release => Settlement::Release,
                    How::Extend => Settlement::Extend,
                    How::Adopt(outcome) => Settlement::Adopt(&digest, outcome),
                    How::Clear => Settlement::Clear,
                };
                let settle = SettleRequest { token: Token::new(*token), settlement, terms: TERMS };
                let decision = Entry::settle(model.get(id), &settle, now);
                assert_eq!(stage.claims().settle(&[*id], &settle), Ok(decision.answer), "{step:?}");
                model.extend(decision.write.map(|entry| (*id, entry)));
            }
            Step::Look(id) => {
                let status = Entry::status(model.get(id), now);
                assert_eq!(stage.claims().look(&[*id]), Ok(status), "{step:?}");
            }
            Step::Sweep => {
                sweep(&stage);
                // What expires within this minute may stay until its end.
                let minute = Timestamp::from_secs(now.as_micros().div_euclid(60_000_000) * 60);
                model.retain(|_, entry| entry.expires > minute);
                assert_eq!(stage.len(), model.len() as u64);
            }
            Step::Advance(secs) => stage.advance(*secs),
            Step::Reopen => stage.reopen(),
        }
    }
    for id in 0..6 {
        let status = Entry::status(model.get(&id), stage.clock.now());
        assert_eq!(stage.claims().look(&[id]), Ok(status));
    }
    let live = model.values().filter(|entry| entry.expires > stage.clock.now()).count();
    assert!(stage.len() >= live as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn agrees_with_a_map(steps in prop::collection::vec(step(), 1..60)) {
        assert_agrees(&steps);
    }
}

#[test]
fn of_concurrent_claims_one_alone_is_granted() {
    let stage = &Stage::new();
    for round in 0..50 {
        let id = format!("id-{round}");
        let granted: usize = thread::scope(|scope| {
            let claims: Vec<_> = (0..8)
                .map(|token| {
                    let id = &id;
                    scope.spawn(move || match stage.claim(id, token).unwrap() {
                        Answer::Granted(_) => 1,
                        answer => {
                            assert!(matches!(answer, Answer::InFlight { .. }), "{answer:?}");
                            0
                        }
                    })
                })
                .collect();
            claims.into_iter().map(|claim| claim.join().unwrap()).sum()
        });
        assert_eq!(granted, 1, "round {round}");
    }
}

#[test]
fn what_has_expired_is_swept_in_bounded_steps() {
    let stage = Stage::new();
    for id in 0..2_000 {
        let id = format!("id-{id}");
        stage.claim(&id, 1).unwrap();
        stage.settle(&id, 1, Settlement::Release).unwrap();
    }
    assert_eq!((sweep(&stage), stage.len()), (1, 2_000));
    stage.advance(361);
    assert!(stage.claims().sweep().unwrap());
    let left = stage.len();
    assert!((1_000..2_000).contains(&left), "{left} left after one sweep");
    sweep(&stage);
    assert_eq!(stage.len(), 0);
}

#[test]
fn commits_alone_drop_what_has_expired() {
    let stage = Stage::new();
    let claim_all = |round: &str| {
        (0..500).for_each(|id| drop(stage.claim(&format!("{round}-{id}"), 1).unwrap()));
    };
    claim_all("old");
    stage.advance(4_000);
    claim_all("new");
    assert_eq!(stage.len(), 500);
}

#[test]
fn an_entry_that_is_written_again_as_it_expires_stays() {
    let stage = Stage::new();
    stage.claim("id", 1).unwrap();
    stage.advance(4_000);
    assert!(matches!(stage.claim("id", 2), Ok(Answer::Granted(_))));
    assert_eq!(stage.len(), 1);
    sweep(&stage);
    assert!(matches!(stage.claim("id", 3), Ok(Answer::InFlight { .. })));
}

#[test]
fn a_file_keeps_keys_or_claims() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let confirmer = |name: &str| {
        EmbeddedConfirmer::builder(path(name)).durability(Durability::Os).cache(1 << 20).open()
    };
    let sighting = |token| Sighting { key: b"k", bucket: Bucket::new(1), token: Token::new(token) };
    let rule = Rule::of(&Window::fixed(Duration::from_secs(80)));
    confirmer("keys").unwrap().confirm(&[sighting(1)], rule).unwrap();
    builder(&path("claims")).open().unwrap().claim(b"id", &request(1, 0)).unwrap();

    let refusals = [builder(&path("keys")).open().err(), confirmer("claims").err()];
    for (refusal, held) in refusals.into_iter().zip(["keeps a confirmer's keys", "keeps claims"]) {
        let refusal = refusal.unwrap();
        assert_eq!(refusal.kind(), StoreErrorKind::Refused);
        assert!(refusal.source().unwrap().to_string().contains(held), "{refusal:?}");
    }
    // Nothing has changed in them.
    let seen = confirmer("keys").unwrap().confirm(&[sighting(2)], rule).unwrap();
    assert_eq!(seen, [crate::confirm::Answer::Seen(Bucket::new(1))]);
    let answer = builder(&path("claims")).open().unwrap().claim(b"id", &request(2, 0));
    assert!(matches!(answer, Ok(Answer::InFlight { .. })));
}

#[test]
fn a_file_has_one_owner() {
    let stage = Stage::new();
    let other = builder(&stage.path).open().unwrap_err();
    assert_eq!(other.kind(), StoreErrorKind::Unavailable);
}

#[test]
fn an_identity_too_long_is_refused() {
    let stage = Stage::new();
    let long = "k".repeat(crate::confirm::MAX_KEY_BYTES + 1);
    assert_eq!(stage.claim(&long, 1).unwrap_err().kind(), StoreErrorKind::Refused);
    let longest = &long[1..];
    assert!(matches!(stage.claim(longest, 1), Ok(Answer::Granted(_))));
    assert!(matches!(stage.claim(longest, 2), Ok(Answer::InFlight { .. })));
}

#[test]
fn a_damaged_entry_is_told_and_nothing_more_is_answered() {
    let stage = Stage::new();
    stage.claim("id", 1).unwrap();
    commits(stage.claims()).serving.lock().store.damage(b"id");
    assert_eq!(stage.claim("id", 2).unwrap_err().kind(), StoreErrorKind::Corrupt);
    assert_eq!(stage.claim("other", 2).unwrap_err().kind(), StoreErrorKind::Corrupt);
}

/// Claims new identities until the store is full; how many it took.
fn fill(stage: &Stage, round: &str) -> u64 {
    let long = "k".repeat(400);
    for id in 0..100_000 {
        if let Err(error) = stage.claim(&format!("{round} {id} {long}"), 1) {
            assert_eq!(error.kind(), StoreErrorKind::Full);
            assert!(!error.is_retryable() && !error.may_have_recorded());
            return id;
        }
    }
    panic!("the limit was never reached");
}

#[test]
fn at_the_limit_claims_in_flight_have_room_for_their_outcomes() {
    let limit = 16 << 20;
    let stage = Stage::with(|builder| builder.disk_limit(limit));
    stage.claim("large", 1).unwrap();
    stage.claim("larger", 1).unwrap();
    let filled = fill(&stage, "a");
    assert!(filled * 1_000 > limit / 4, "only {filled} fit");

    let large = Outcome::success(vec![7; 100_000]);
    assert_eq!(stage.settle("large", 1, Settlement::Complete(&large)), Ok(Settled::Done));
    assert_eq!(stage.claim("large", 2), Ok(Answer::Finished(large)));
    let larger = Outcome::success(vec![7; 8 << 20]);
    let refused = stage.settle("larger", 1, Settlement::Complete(&larger)).unwrap_err();
    assert_eq!(refused.kind(), StoreErrorKind::Full);
    let tombstone = Outcome::tombstone(Ending::Success);
    assert_eq!(stage.settle("larger", 1, Settlement::Complete(&tombstone)), Ok(Settled::Done));
    assert!(matches!(
        stage.claims().look(b"large"),
        Ok(Some(Status::Finished(outcome))) if outcome.len() == 100_000
    ));

    // When they have expired, claims alone make room again.
    stage.advance(4_000);
    let mut refused = 0;
    while stage.claim("after", 1).is_err() {
        refused += 1;
        assert!(refused < 100, "no room was made");
    }
    let again = fill(&stage, "b");
    assert!(again * 10 > filled * 8, "{filled} fit at first, then {again}");
}
