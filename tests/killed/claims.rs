//! What came of claims outlives the process, and a claim whose holder was killed can be
//! taken over within one lease.

use super::{FILE, FIRST, ROUND, THREADS, acknowledge, killed, patience, rounds};
use hapax::confirm::claims::{
    Answer, ClaimRequest, ClaimStore, Digest, EmbeddedClaims, Outcome, SettleRequest, Settled,
    Settlement, Terms,
};
use hapax::confirm::{Durability, Token};
use hapax::{Clock, ManualClock, SystemClock};
use std::env;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const TERMS: Terms = Terms { lease: Duration::from_secs(3_600), keep: Duration::from_secs(86_400) };

/// The token of whoever comes after.
const OTHER: u64 = u64::MAX;

/// How far a child came with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Claimed(u64),
    Completed(u64),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claimed(number) => write!(f, "claim {number}"),
            Self::Completed(number) => write!(f, "outcome {number}"),
        }
    }
}

impl FromStr for Step {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (step, number) = text.split_once(' ').ok_or(())?;
        let number = number.parse().map_err(|_| ())?;
        match step {
            "claim" => Ok(Self::Claimed(number)),
            "outcome" => Ok(Self::Completed(number)),
            _ => Err(()),
        }
    }
}

fn open(path: &Path, clock: Arc<dyn Clock>) -> EmbeddedClaims {
    let builder = EmbeddedClaims::builder(path).durability(Durability::Os).cache(1 << 20);
    builder.clock(clock).open().unwrap()
}

fn claim(claims: &EmbeddedClaims, number: u64, token: u64) -> Answer {
    let (token, digest) = (Token::new(token), Digest::of(b"payload"));
    claims.claim(&number.to_be_bytes(), &ClaimRequest { token, digest, terms: TERMS }).unwrap()
}

fn complete(claims: &EmbeddedClaims, number: u64) -> Settled {
    let outcome = outcome(number);
    let settlement = Settlement::Complete(&outcome);
    let request = SettleRequest { token: Token::new(number), settlement, terms: TERMS };
    claims.settle(&number.to_be_bytes(), &request).unwrap()
}

fn outcome(number: u64) -> Outcome {
    Outcome::success(number.to_be_bytes().repeat(1 + (number % 50) as usize))
}

/// Claims keys and completes them for ever, and says so. Does nothing unless it is run as
/// a child.
#[test]
fn claiming_child() {
    let Some(path) = env::var_os(FILE) else { return };
    let first: u64 = env::var(FIRST).unwrap().parse().unwrap();
    let claims = &open(Path::new(&path), Arc::new(SystemClock::new()));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for number in (first + thread..).step_by(THREADS as usize) {
                    assert!(matches!(claim(claims, number, number), Answer::Granted(_)));
                    acknowledge(Step::Claimed(number));
                    assert_eq!(complete(claims, number), Settled::Done);
                    acknowledge(Step::Completed(number));
                }
            });
        }
    });
}

fn assert_kept(claims: &EmbeddedClaims, step: Step) {
    match step {
        Step::Completed(number) => {
            assert_eq!(claim(claims, number, OTHER), Answer::Finished(outcome(number)), "{number}");
        }
        Step::Claimed(number) => match claim(claims, number, OTHER) {
            Answer::InFlight { remaining, .. } => assert!(remaining <= TERMS.lease),
            Answer::Finished(kept) => assert_eq!(kept, outcome(number)),
            answer => panic!("{number} was claimed, and then: {answer:?}"),
        },
    }
}

#[test]
fn what_came_of_claims_outlives_a_kill() {
    let rounds = rounds();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claims");
    let clock = Arc::new(ManualClock::new(SystemClock::new().now()));
    let mut steps = 0;
    let mut taken_over = 0;
    for round in 0..rounds {
        let said: Vec<Step> =
            killed("claims::claiming_child", &path, round * ROUND, patience(round));
        // A lease later than the child can have claimed anything.
        clock.set(SystemClock::new().now());
        let claims = open(&path, clock.clone());
        for step in &said {
            assert_kept(&claims, *step);
        }
        clock.advance(TERMS.lease);
        for step in &said {
            let Step::Claimed(number) = *step else { continue };
            match claim(&claims, number, OTHER) {
                Answer::Finished(kept) => assert_eq!(kept, outcome(number)),
                Answer::Granted(grant) => {
                    assert!(grant.is_takeover, "round {round}: {number}");
                    assert_eq!(complete(&claims, number), Settled::Stale);
                    taken_over += 1;
                }
                answer => panic!("round {round}: a lease later {number} is {answer:?}"),
            }
        }
        steps += said.len();
    }
    println!(
        "{steps} claims and outcomes acknowledged in {rounds} rounds, none lost; {taken_over} \
         claims of killed holders taken over"
    );
}
