//! The conformance suite, and random calls beside the confirmer in memory.

use super::servers::on_tokio::OnTokio;
use super::servers::postgres::{Postgres, parameters};
use super::servers::proxied::Proxied;
use super::{first_confirmer, fixed, patient, runtime, sliding};
use hapax::confirm::conformance::{Blocking, Harness, Outcome, Trouble, check};
use hapax::confirm::{
    AsyncConfirmer, Bucket, Confirmer, MemoryConfirmer, PostgresConfirmer, Sighting, StoreError,
    Token,
};
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

impl Harness for Bench {
    type Confirmer = Blocking<PostgresConfirmer, OnTokio>;

    fn open(&self, namespace: &str) -> Result<Self::Confirmer, StoreError> {
        let builder = patient(&parameters(self.server.port())).namespace(namespace);
        let confirmer = self.runtime.block_on(builder.connect())?;
        Ok(Blocking { store: confirmer, runtime: OnTokio::of(&self.runtime) })
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
    let report = check(&Bench { server: Proxied::new(server), runtime });
    report.assert();
    let passed = |(name, outcome): (_, &Outcome)| assert_eq!(*outcome, Outcome::Passed, "{name}");
    report.outcomes().for_each(passed);
}

/// A few keys, buckets and tokens, so that they meet; some buckets at the ends of their range.
fn draw(random: &mut Random) -> Sighting<'static> {
    let keys = [b"".as_slice(), b"a", b"a\0", b"b", &[b'l'; 1_024], &[b'l'; 1_025], &[b'l'; 2_000]];
    let bucket = match random.below(20) {
        0 => i64::MIN,
        1 => i64::MAX,
        _ => random.between(-20, 20),
    };
    let other = random.below(1 << 20);
    let token = random.pick(&[0, u64::MAX, other, other]);
    Sighting { key: random.pick(&keys), bucket: Bucket::new(bucket), token: Token::new(token) }
}

#[test]
fn random_calls_are_answered_as_in_memory() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let confirmer = first_confirmer(&server).await;
        let model = MemoryConfirmer::new();
        let mut random = Random::new(17);
        for call in 0..2_000 {
            let rule = random.pick(&[fixed(), sliding()]);
            let batch: Vec<_> = (0..random.below(9)).map(|_| draw(&mut random)).collect();
            let keys: Vec<_> = batch.iter().map(|sighting| sighting.key).collect();
            if random.one_in(8) {
                confirmer.forget(&keys).await.unwrap();
                model.forget(&keys).unwrap();
            } else {
                let answers = confirmer.confirm(&batch, rule).await.unwrap();
                assert_eq!(answers, model.confirm(&batch, rule).unwrap(), "{call}: {batch:?}");
            }
            let held = confirmer.look(&keys).await.unwrap();
            assert_eq!(held, model.look(&keys).unwrap(), "{call}: {batch:?}");
        }
    });
}
