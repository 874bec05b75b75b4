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
#[path = "postgres/statements.rs"]
mod statements;

use hapax::Window;
use hapax::confirm::{
    Answer, AsyncConfirmer, Bucket, PostgresBuilder, PostgresConfirmer, Rule, Sighting, Token,
};
use servers::postgres::Postgres;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};

const BUCKETS: i64 = 8;
const NOW: i64 = 29_000_000;

/// How long a busy machine may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

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

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
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

/// A connection past the confirmer.
async fn client(server: &Postgres) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.parameters(), NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

/// What a query that gives one number gives.
async fn number(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}

/// How many of the confirmers' connections wait for a lock.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE application_name = 'hapax' AND wait_event_type = 'Lock'";

/// Waits until a query gives `wanted`.
async fn wait_for(client: &Client, query: &str, wanted: i64) {
    let started = Instant::now();
    while number(client, query).await != wanted {
        assert!(started.elapsed() < PATIENCE, "gave up waiting for {wanted}: {query}");
        sleep(Duration::from_millis(5)).await;
    }
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
