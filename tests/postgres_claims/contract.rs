//! The conformance suite, and random calls beside the store in memory.

use super::servers::on_tokio::OnTokio;
use super::servers::postgres::parameters;
use super::servers::proxied::Proxied;
use super::{Postgres, PostgresClaims, first_claims, patient, runtime};
use hapax::Timestamp;
use hapax::confirm::claims::{
    Answer, AsyncClaimStore, ClaimRequest, ClaimStore, Digest, Fence, Grant, MemoryClaims, Outcome,
    SettleRequest, Settlement, Status, Terms,
};
use hapax::confirm::conformance::{self, Blocking, ClaimHarness, Trouble, check_claims};
use hapax::confirm::{StoreError, Token};
use std::time::Duration;
use tokio::runtime::Runtime;

#[path = "../model/random.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
#[allow(unreachable_pub, reason = "a module of a test binary has nobody outside to reach it")]
mod random;

use random::Random;

struct Bench {
    server: Proxied<Postgres>,
    runtime: Runtime,
}

impl ClaimHarness for Bench {
    type Store = Blocking<PostgresClaims, OnTokio>;

    fn open(&self, namespace: &str) -> Result<Self::Store, StoreError> {
        let builder = patient(&parameters(self.server.port())).namespace(namespace);
        let store = self.runtime.block_on(builder.connect())?;
        Ok(Blocking { store, runtime: OnTokio::of(&self.runtime) })
    }

    fn trouble(&self) -> &dyn Trouble {
        &self.server
    }
}

#[test]
fn the_contract_holds() {
    let Some(server) = Postgres::start() else { return };
    let runtime = runtime();
    runtime.block_on(patient(&server.parameters()).create_schema()).unwrap();
    // Only a statement that writes tells what was held.
    let server = Proxied::new(server).written(b"\0\0\0\x04held");
    let report = check_claims(&Bench { server, runtime });
    report.assert();
    let passed = |(name, kind): (_, &conformance::Outcome)| {
        assert_eq!(*kind, conformance::Outcome::Passed, "{name}");
    };
    report.outcomes().for_each(passed);
}

/// They do not end while a test runs.
const LONG: Terms = Terms { lease: Duration::from_secs(3_600), keep: Duration::from_secs(86_400) };

/// Some claims are past their deadline at once, and some outcomes expire so.
fn terms(random: &mut Random) -> Terms {
    let mut terms = LONG;
    if random.one_in(4) {
        terms.lease = Duration::ZERO;
    }
    if random.one_in(8) {
        terms.keep = Duration::ZERO;
    }
    terms
}

fn outcome(random: &mut Random) -> Outcome {
    match random.below(4) {
        0 => Outcome::success(*b"bought"),
        1 => Outcome::failure(*b""),
        2 => Outcome::tombstone(hapax::confirm::claims::Ending::Success),
        _ => Outcome::failure(vec![7; 5_000]),
    }
}

/// Without what depends on the clock.
fn timeless(answer: Answer) -> Answer {
    let grant = |grant: Grant| Grant { fence: Fence::new(0), ..grant };
    match answer {
        Answer::Granted(granted) => Answer::Granted(grant(granted)),
        Answer::InFlight { .. } => {
            Answer::InFlight { since: Timestamp::from_secs(0), remaining: Duration::ZERO }
        }
        other => other,
    }
}

fn seen(status: Option<Status>) -> Option<Answer> {
    status.map(|status| match status {
        Status::Finished(outcome) => Answer::Finished(outcome),
        Status::InFlight { grant, .. } => timeless(Answer::Granted(grant)),
    })
}

#[test]
fn random_calls_are_answered_as_in_memory() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let (claims, model) = (first_claims(&server).await, MemoryClaims::new());
        let mut random = Random::new(17);
        let long = [1_024, 1_025, 60_000].map(|length| vec![b'l'; length]);
        let ids = [b"".as_slice(), b"a", b"a\0", &long[0], &long[1], &long[2]];
        for call in 0..3_000 {
            let id = random.pick(&ids);
            let token = Token::new(random.pick(&[0, 1, 2, u64::MAX]));
            let digest = Digest::of(random.pick(&[b"10 EUR".as_slice(), b"99 EUR"]));
            let (terms, outcome) = (terms(&mut random), outcome(&mut random));
            if random.one_in(2) {
                let request = ClaimRequest { token, digest, terms };
                let answer = claims.claim(id, &request).await.unwrap();
                let expected = model.claim(id, &request).unwrap();
                assert_eq!(timeless(answer), timeless(expected), "{call}: {request:?}");
            } else {
                let settlement = match random.below(12) {
                    0..4 => Settlement::Complete(&outcome),
                    4..8 => Settlement::Release,
                    8..10 => Settlement::Extend,
                    10 => Settlement::Adopt(&digest, &outcome),
                    _ => Settlement::Clear,
                };
                let request = SettleRequest { token, settlement, terms };
                let settled = claims.settle(id, &request).await.unwrap();
                assert_eq!(settled, model.settle(id, &request).unwrap(), "{call}: {request:?}");
            }
            let held = claims.look(id).await.unwrap();
            assert_eq!(seen(held), seen(model.look(id).unwrap()), "{call}");
        }
    });
}
