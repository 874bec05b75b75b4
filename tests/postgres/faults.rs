//! Servers that crash or hang, connections that break, and locks that are held.

use super::servers::Server as _;
use super::servers::postgres::Postgres;
use super::{
    NOW, PATIENCE, WAITING, client, first_confirmer, fixed, insist, keys, number, patient, runtime,
    seen, sighting, sightings, wait_for,
};
use futures_util::future::join_all;
use hapax::confirm::{Answer, AsyncConfirmer, PostgresConfirmer, StoreErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::timeout;

#[test]
fn what_was_acknowledged_outlives_crashes_under_load() {
    const TASKS: usize = 8;
    const BATCHES: usize = 60;
    let Some(mut server) = Postgres::start() else { return };
    let runtime = runtime();
    let confirmer = Arc::new(runtime.block_on(first_confirmer(&server)));
    let done = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (confirmer, done) = (Arc::clone(&confirmer), Arc::clone(&done));
        let load = async move {
            for batch in 0..BATCHES {
                let keys = keys(&format!("{task}, {batch}"), 20);
                let answers = insist(&confirmer, &sightings(&keys, NOW)).await;
                assert!(answers.iter().all(|answer| *answer == Answer::New));
                done.fetch_add(1, Relaxed);
            }
        };
        tasks.spawn_on(load, runtime.handle());
    }
    let started = Instant::now();
    for crash in 1..=3 {
        while done.load(Relaxed) < crash * TASKS * BATCHES / 4 {
            assert!(started.elapsed() < 2 * PATIENCE, "the load stands still");
            thread::sleep(Duration::from_millis(1));
        }
        server.kill();
        server.restart();
    }
    runtime.block_on(async {
        tasks.join_all().await;
        for task in 0..TASKS {
            for batch in 0..BATCHES {
                let keys = keys(&format!("{task}, {batch}"), 20);
                let answers = insist(&confirmer, &sightings(&keys, NOW)).await;
                assert!(answers.iter().all(|answer| *answer == seen(NOW)));
            }
        }
    });
}

#[test]
fn a_server_that_hangs_holds_nobody_longer_than_the_timeouts() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        drop(first_confirmer(&server).await);
        let wait = Duration::from_secs(1);
        let builder = PostgresConfirmer::builder(&server.parameters()).connections(4);
        let confirmer = builder.connect_timeout(wait).reply_timeout(wait).connect().await.unwrap();
        let keys = keys("hung", 20);
        let asked = sightings(&keys, NOW);
        server.suspend();
        let calls = asked.chunks(1).map(|one| confirmer.confirm(one, fixed()));
        let in_time = |call| timeout(2 * wait + Duration::from_secs(3), call);
        let kinds: Vec<_> = join_all(calls.map(in_time))
            .await
            .into_iter()
            .map(|answers| answers.expect("it took too long").unwrap_err().kind())
            .collect();
        server.resume();
        // The first had a connection, and asked on it; there was none for most.
        assert!(kinds.contains(&StoreErrorKind::Timeout), "{kinds:?}");
        assert!(kinds.contains(&StoreErrorKind::Unavailable), "{kinds:?}");
        assert_eq!(insist(&confirmer, &asked).await, [Answer::New; 20]);
        assert_eq!(insist(&confirmer, &sightings(&keys, NOW)).await, [seen(NOW); 20]);
    });
}

#[test]
fn connections_that_the_server_ended_are_replaced() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let confirmer = first_confirmer(&server).await;
        let keys = keys("before", 8);
        let asked = sightings(&keys, NOW);
        for answers in join_all(asked.chunks(1).map(|one| confirmer.confirm(one, fixed()))).await {
            assert_eq!(answers.unwrap(), [Answer::New]);
        }
        let ended = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                     WHERE application_name = 'hapax'";
        assert!(number(&client(&server).await, ended).await > 1);
        assert_eq!(insist(&confirmer, &sightings(&["after"], NOW)).await, [Answer::New]);
        assert_eq!(insist(&confirmer, &sightings(&keys, NOW)).await, [seen(NOW); 8]);
    });
}

/// Begins a transaction that holds key `k`.
const HOLD: &str = "BEGIN; INSERT INTO hapax_record VALUES (1, 1, 'default', 'k')";

#[test]
fn a_call_that_got_no_reply_is_over_on_the_server_too() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        drop(first_confirmer(&server).await);
        let wait = Duration::from_secs(1);
        let hasty = patient(&server.parameters()).reply_timeout(wait).connect().await.unwrap();
        let other = client(&server).await;
        other.batch_execute(HOLD).await.unwrap();
        let error = hasty.confirm(&sightings(&["k"], NOW), fixed()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Timeout);
        // It waits for the lock no longer, though the lock is still held.
        let failed = Instant::now();
        wait_for(&other, WAITING, 0).await;
        assert!(failed.elapsed() < wait + Duration::from_secs(3));
        other.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(number(&other, "SELECT count(*) FROM hapax_record").await, 0);
    });
}

#[test]
fn a_call_that_is_given_up_takes_its_connection_with_it() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        drop(first_confirmer(&server).await);
        let confirmer = patient(&server.parameters()).connections(1).connect().await.unwrap();
        let other = client(&server).await;
        other.batch_execute(HOLD).await.unwrap();
        let stuck = sightings(&["k"], NOW);
        let given_up = confirmer.confirm(&stuck, fixed());
        timeout(Duration::from_millis(200), given_up).await.unwrap_err();
        // On the same connection this would wait for the other transaction, too.
        let free = sightings(&["free"], NOW);
        let answers = timeout(PATIENCE / 2, confirmer.confirm(&free, fixed())).await;
        assert_eq!(answers.unwrap().unwrap(), [Answer::New]);
        other.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(insist(&confirmer, &stuck).await, [Answer::New]);
    });
}

/// How many connections the pools have, as the server sees it.
const OPEN: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hapax'";

#[test]
fn calls_that_are_given_up_are_soon_over_on_the_server_too() {
    const CONNECTIONS: usize = 4;
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        drop(first_confirmer(&server).await);
        let builder = patient(&server.parameters()).connections(CONNECTIONS);
        let confirmer = builder.connect().await.unwrap();
        let (other, watcher) = (client(&server).await, client(&server).await);
        other.batch_execute("BEGIN; LOCK TABLE hapax_record").await.unwrap();
        let keys = keys("k", CONNECTIONS);
        let asked = sightings(&keys, NOW);
        let started = Instant::now();
        for _ in 0..5 {
            let stuck = join_all(asked.chunks(1).map(|one| confirmer.confirm(one, fixed())));
            tokio::select! {
                answers = stuck => panic!("{answers:?}"),
                () = wait_for(&watcher, WAITING, CONNECTIONS as i64) => {}
            }
            wait_for(&watcher, OPEN, 0).await;
        }
        // The server gives a statement up by itself after `PATIENCE`.
        assert!(started.elapsed() < PATIENCE / 2);
        other.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(insist(&confirmer, &asked).await, [Answer::New; CONNECTIONS]);
    });
}

#[test]
fn a_batch_that_loses_a_deadlock_is_asked_again() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let confirmer = first_confirmer(&server).await;
        let (other, watcher) = (client(&server).await, client(&server).await);
        let hold =
            |key| format!("INSERT INTO hapax_record VALUES ({NOW}, -1, 'default', '{key}');");
        // The other way round than the confirmer, and never the one to give in.
        let begin = format!("BEGIN; SET LOCAL deadlock_timeout = '1h'; {}", hold("b"));
        other.batch_execute(&begin).await.unwrap();
        let circle = async {
            wait_for(&watcher, WAITING, 1).await;
            other.batch_execute(&format!("{} COMMIT", hold("a"))).await.unwrap();
        };
        let asked = [sighting(b"a", NOW), sighting(b"b", NOW), sighting(b"c", NOW)];
        let (answers, ()) = tokio::join!(confirmer.confirm(&asked, fixed()), circle);
        assert_eq!(answers.unwrap(), [seen(NOW), seen(NOW), Answer::New]);
        assert!(server.log().contains("deadlock detected"));
    });
}

#[test]
fn asking_again_ends_with_the_reply_timeout() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        drop(first_confirmer(&server).await);
        let wait = Duration::from_millis(500);
        let hasty = patient(&server.parameters()).reply_timeout(wait).connect().await.unwrap();
        let client = client(&server).await;
        let lose = "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql
                    AS 'BEGIN RAISE serialization_failure; END';
                    CREATE TRIGGER lose BEFORE INSERT ON hapax_record
                    FOR EACH ROW EXECUTE FUNCTION lose()";
        client.batch_execute(lose).await.unwrap();
        let asked = sightings(&["k"], NOW);
        let answers = timeout(PATIENCE, hasty.confirm(&asked, fixed())).await;
        assert_eq!(answers.unwrap().unwrap_err().kind(), StoreErrorKind::Timeout);
        client.batch_execute("DROP TRIGGER lose ON hapax_record").await.unwrap();
        assert_eq!(insist(&hasty, &asked).await, [Answer::New]);
    });
}
