//! Many buyers of the same items, some of whom die: each item is bought once.

use super::servers::Server as _;
use super::servers::postgres::parameters;
use super::servers::proxy::Proxy;
use super::{
    BUY, PATIENCE, Postgres, PostgresGate, bought, buy, client, gate, id, number, patient, payload,
    purchases, runtime, shop,
};
use hapax::claim::TransactionClaim;
use std::env;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

const TASKS: usize = 64;
const ITEMS: usize = 40;

/// Why an item is not bought yet.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn item(number: usize) -> String {
    format!("item {}", number % ITEMS)
}

/// Buys an item once, over a connection that may break at any time.
async fn try_to_buy(gate: &PostgresGate, client: &mut Client, item: &str) -> Result<(), Failure> {
    let transaction = client.transaction().await?;
    let claim = gate.within(&transaction).claim_or_wait(&id(item), payload(), PATIENCE).await?;
    let TransactionClaim::Granted(lease) = claim else {
        assert!(matches!(claim, TransactionClaim::Replay(_)), "{claim:?}");
        return Ok(());
    };
    transaction.execute(BUY, &[&item]).await?;
    lease.complete(bought()).await?;
    Ok(transaction.commit().await?)
}

/// Tries until it is bought, over new connections if need be.
async fn insist(gate: &PostgresGate, parameters: &str, item: &str) {
    let started = Instant::now();
    loop {
        if let Ok((mut client, connection)) = tokio_postgres::connect(parameters, NoTls).await {
            let serving = tokio::spawn(connection);
            let done = try_to_buy(gate, &mut client, item).await;
            drop(client);
            let _ = serving.await;
            if done.is_ok() {
                return;
            }
        }
        assert!(started.elapsed() < 2 * PATIENCE, "{item} cannot be bought");
    }
}

async fn assert_each_bought_once(server: &Postgres) {
    let client = client(server).await;
    for number in 0..ITEMS {
        assert_eq!(purchases(&client, &item(number)).await, 1, "{}", item(number));
    }
}

#[test]
fn sixty_four_tasks_buy_each_item_once_while_connections_are_cut() {
    let Some(server) = Postgres::start() else { return };
    let proxy = Proxy::to(server.port());
    runtime().block_on(async {
        let (gate, parameters) = (shop(&server).await, parameters(proxy.port()));
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let (gate, parameters) = (gate.clone(), parameters.clone());
            tasks.spawn(async move {
                for number in 0..ITEMS {
                    insist(&gate, &parameters, &item(number + task)).await;
                }
            });
        }
        let watcher = client(&server).await;
        for already in (0..ITEMS as i64).step_by(4) {
            while number(&watcher, "SELECT count(*) FROM purchase").await < already {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if already % 8 == 0 {
                proxy.cut();
                proxy.mend();
            } else {
                proxy.lose_reply_to(b"COMMIT");
            }
        }
        tasks.join_all().await;
        assert_each_bought_once(&server).await;
    });
}

/// Names the server's port to a child.
const PORT: &str = "HAPAX_BUYING_PORT";

/// Buys all items, in any order. Does nothing unless it is run as a child.
#[test]
fn child() {
    let Ok(port) = env::var(PORT) else { return };
    let parameters = parameters(port.parse().unwrap());
    runtime().block_on(async {
        let gate = gate(patient(&parameters).connections(1).connect().await.unwrap());
        let mut tasks = JoinSet::new();
        for task in 0..8 {
            let (gate, parameters) = (gate.clone(), parameters.clone());
            tasks.spawn(async move {
                for number in 0..ITEMS {
                    insist(&gate, &parameters, &item(number + task * 5)).await;
                }
            });
        }
        tasks.join_all().await;
    });
}

fn spawn_child(server: &Postgres) -> Child {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "buying::child"]).env(PORT, server.port().to_string());
    child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn processes_that_are_killed_leave_no_item_bought_twice_or_out_of_reach() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        let watcher = client(&server).await;
        for already in [2, 5, 11, 17, 23, 31] {
            let mut child = spawn_child(&server);
            let started = Instant::now();
            while number(&watcher, "SELECT count(*) FROM purchase").await < already {
                assert!(started.elapsed() < PATIENCE, "the child buys nothing");
                thread::sleep(Duration::from_millis(1));
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        for number in 0..ITEMS {
            insist(&gate, &server.parameters(), &item(number)).await;
        }
        assert_each_bought_once(&server).await;
    });
}

#[test]
fn a_buyer_that_forgets_the_claim_is_seen_to_buy_twice() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        drop(shop(&server).await);
        let client = client(&server).await;
        buy(&client, "tea").await;
        buy(&client, "tea").await;
        assert_eq!(purchases(&client, "tea").await, 2);
    });
}
