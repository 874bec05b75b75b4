//! The confirmer in PostgreSQL against real servers: the contract, faults, races, what
//! duplicates cost, and what is said when something is wrong.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod servers;

#[path = "postgres/contract.rs"]
mod contract;
#[path = "postgres/faults.rs"]
mod faults;
#[path = "postgres/races.rs"]
mod races;
#[path = "postgres/refusals.rs"]
mod refusals;
#[path = "postgres/schema.rs"]
mod schema;
#[path = "postgres/statements.rs"]
mod statements;

use hapax::Window;
use hapax::confirm::{
    Answer, AsyncConfirmer, Bucket, PostgresBuilder, PostgresConfirmer, Rule, Sighting, Token,
};
use servers::postgres::{PATIENCE, Postgres, WAITING, client, number, runtime, wait_for};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::time::sleep;

const BUCKETS: i64 = 8;
const NOW: i64 = 29_000_000;

fn fixed() -> Rule {
    Rule::of(&Window::fixed(Duration::from_secs(480)).buckets(8))
}

fn sliding() -> Rule {
    Rule::of(&Window::sliding(Duration::from_secs(480)).buckets(8))
}

/// A sighting with a token that no other has.
fn sighting(key: &[u8], bucket: i64) -> Sighting<'_> {
    static TOKENS: AtomicU64 = AtomicU64::new(1);
    Sighting { key, bucket: Bucket::new(bucket), token: Token::new(TOKENS.fetch_add(1, Relaxed)) }
}

fn sightings<K: AsRef<[u8]>>(keys: &[K], bucket: i64) -> Vec<Sighting<'_>> {
    keys.iter().map(|key| sighting(key.as_ref(), bucket)).collect()
}

fn keys(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix} {number}")).collect()
}

const fn seen(bucket: i64) -> Answer {
    Answer::Seen(Bucket::new(bucket))
}

/// A builder with timeouts that a busy machine keeps.
fn patient(parameters: &str) -> PostgresBuilder {
    PostgresConfirmer::builder(parameters).connect_timeout(PATIENCE).reply_timeout(PATIENCE)
}

/// A confirmer of a server without a table so far.
async fn first_confirmer(server: &Postgres) -> PostgresConfirmer {
    let builder = patient(&server.parameters());
    builder.create_schema().await.unwrap();
    builder.connect().await.unwrap()
}

/// Asks until there are answers; asking again must always be worth it.
async fn insist(confirmer: &PostgresConfirmer, sightings: &[Sighting<'_>]) -> Vec<Answer> {
    let started = Instant::now();
    loop {
        match confirmer.confirm(sightings, fixed()).await {
            Ok(answers) => return answers,
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        assert!(started.elapsed() < PATIENCE, "no answer");
        sleep(Duration::from_millis(5)).await;
    }
}
