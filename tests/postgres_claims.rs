//! Claims in PostgreSQL against real servers: the contract, what the statements touch, and
//! claims in a caller's own transaction, whatever dies when.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod servers;

#[path = "postgres_claims/buying.rs"]
mod buying;
#[path = "postgres_claims/contract.rs"]
mod contract;
#[path = "postgres_claims/isolation.rs"]
mod isolation;
#[path = "postgres_claims/statements.rs"]
mod statements;
#[path = "postgres_claims/transactions.rs"]
mod transactions;
#[path = "postgres_claims/waiting.rs"]
mod waiting;

use hapax::claim::{Gate, Identity, TransactionClaim, TransactionLease};
use hapax::confirm::PostgresBuilder;
use hapax::confirm::claims::{Digest, Outcome, PostgresClaims};
use servers::postgres::{PATIENCE, Postgres, client, connect, number, runtime, wait_for};
use tokio_postgres::{Client, GenericClient};

type PostgresGate = Gate<PostgresClaims>;

/// A builder with timeouts that a busy machine keeps.
fn patient(parameters: &str) -> PostgresBuilder<PostgresClaims> {
    PostgresClaims::builder(parameters).connect_timeout(PATIENCE).reply_timeout(PATIENCE)
}

/// A store in a server without a table so far.
async fn first_claims(server: &Postgres) -> PostgresClaims {
    let builder = patient(&server.parameters());
    builder.create_schema().await.unwrap();
    builder.connect().await.unwrap()
}

/// A gate over it, with terms that do not end while a test runs, and a table of what was
/// bought, which takes anything twice.
async fn shop(server: &Postgres) -> PostgresGate {
    let table = "CREATE TABLE purchase (item text NOT NULL)";
    client(server).await.batch_execute(table).await.unwrap();
    gate(first_claims(server).await)
}

/// A gate that remembers nothing of its own.
fn gate(claims: PostgresClaims) -> PostgresGate {
    Gate::builder(claims).remember(0).build().unwrap()
}

fn id(item: &str) -> Identity {
    Identity::new("acct-7", "POST /purchases", item)
}

fn payload() -> Digest {
    Digest::of(b"10 EUR")
}

fn bought() -> Outcome {
    Outcome::success(*b"bought")
}

/// The work: it shows in the table how often it was done.
const BUY: &str = "INSERT INTO purchase VALUES ($1)";

async fn buy(client: &impl GenericClient, item: &str) {
    client.execute(BUY, &[&item]).await.unwrap();
}

/// How often an item was bought.
async fn purchases(client: &Client, item: &str) -> i64 {
    number(client, &format!("SELECT count(*) FROM purchase WHERE item = '{item}'")).await
}

#[track_caller]
fn granted(claim: TransactionClaim<'_, PostgresClaims>) -> TransactionLease<'_, PostgresClaims> {
    let TransactionClaim::Granted(lease) = claim else { panic!("{claim:?}") };
    lease
}

/// Buys an item in a transaction of its own, unless it was bought already.
async fn buy_once(gate: &PostgresGate, client: &mut Client, item: &str) {
    let transaction = client.transaction().await.unwrap();
    let claim = gate.within(&transaction).claim_or_wait(&id(item), payload(), PATIENCE).await;
    match claim.unwrap() {
        TransactionClaim::Granted(lease) => {
            buy(&transaction, item).await;
            lease.complete(bought()).await.unwrap();
            transaction.commit().await.unwrap();
        }
        TransactionClaim::Replay(outcome) => assert_eq!(outcome, bought()),
        other => panic!("{other:?}"),
    }
}
