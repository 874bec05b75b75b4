//! What the statements touch, and how much they take at once.

use super::servers::postgres::Postgres;
use super::{
    NOW, PATIENCE, client, first_confirmer, fixed, keys, number, patient, runtime, seen, sightings,
    sliding, wait_for,
};
use hapax::confirm::{Answer, AsyncConfirmer, Bucket};
use tokio::time::timeout;

#[test]
fn duplicates_neither_write_nor_lock() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let confirmer = first_confirmer(&server).await;
        let keys = keys("k", 1_000);
        confirmer.confirm(&sightings(&keys, NOW), sliding()).await.unwrap();
        for rule in [fixed(), sliding()] {
            let answers = confirmer.confirm(&sightings(&keys, NOW), rule).await.unwrap();
            assert!(answers.iter().all(|answer| *answer == seen(NOW)));
        }
        let touched = "SELECT count(*) FROM hapax_record WHERE xmax::text <> '0'";
        assert_eq!(number(&client(&server).await, touched).await, 0);
    });
}

/// Rows that were read.
const READ: &str = "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_user_tables";

#[test]
fn statements_prepared_for_a_small_table_serve_a_large_one() {
    const COUNT: i64 = 20_000;
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let client = client(&server).await;
        drop(first_confirmer(&server).await);
        let builder = patient(&server.parameters()).connections(1);
        let early = builder.clone().connect().await.unwrap();
        let keys = keys("k", COUNT as usize);
        early.confirm(&sightings(&keys[..1], NOW), fixed()).await.unwrap();
        client.batch_execute("VACUUM ANALYZE hapax_record").await.unwrap();
        // After a few times the server settles for a plan.
        for _ in 0..10 {
            early.confirm(&sightings(&keys[..1], NOW), fixed()).await.unwrap();
            early.forget(&[b"never seen"]).await.unwrap();
            early.expire(Bucket::new(NOW)).await.unwrap();
        }
        // The other one plans for a large table that was small when it was analyzed.
        for confirmer in [early, builder.connect().await.unwrap()] {
            for batch in keys.chunks(1_000).chain(keys.chunks(1_000)) {
                confirmer.confirm(&sightings(batch, NOW), fixed()).await.unwrap();
            }
            for batch in keys[..2_000].chunks(100) {
                let batch: Vec<_> = batch.iter().map(String::as_bytes).collect();
                confirmer.forget(&batch).await.unwrap();
            }
            confirmer.expire(Bucket::new(NOW + 1)).await.unwrap();
        }
        assert_eq!(number(&client, "SELECT count(*) FROM hapax_record").await, 0);
        // Sessions report what they did when they end.
        let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hapax'";
        wait_for(&client, open, 0).await;
        let read = number(&client, READ).await;
        assert!((COUNT..6 * COUNT).contains(&read), "{read} rows were read");
    });
}

#[test]
fn ten_thousand_in_a_batch_with_repeats() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let confirmer = first_confirmer(&server).await;
        let distinct = keys("k", 4_000);
        let batch: Vec<_> = distinct.iter().cycle().take(10_000).collect();
        let answers = confirmer.confirm(&sightings(&batch, NOW), fixed()).await.unwrap();
        let (first, repeats) = answers.split_at(4_000);
        assert!(first.iter().all(|answer| *answer == Answer::New));
        assert!(repeats.iter().all(|answer| *answer == seen(NOW)));
    });
}

#[test]
fn expiry_goes_in_steps_and_spares_other_namespaces_and_what_is_locked() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let confirmer = first_confirmer(&server).await;
        let client = client(&server).await;
        let old = keys("old", 5_000);
        confirmer.confirm(&sightings(&old, NOW - 9), fixed()).await.unwrap();
        confirmer.confirm(&sightings(&["new"], NOW - 8), fixed()).await.unwrap();
        let other = patient(&server.parameters()).namespace("other").connect().await.unwrap();
        other.confirm(&sightings(&["old 0"], NOW - 9), fixed()).await.unwrap();
        let lock = "BEGIN; SELECT FROM hapax_record
                    WHERE namespace = 'default' AND key = 'old 17' FOR UPDATE";
        client.batch_execute(lock).await.unwrap();
        let expiry = confirmer.expire(Bucket::new(NOW - 8));
        timeout(PATIENCE / 2, expiry).await.expect("it waits for the lock").unwrap();
        let left = "SELECT count(*) FROM hapax_record";
        assert_eq!(number(&client, left).await, 3);
        client.batch_execute("COMMIT").await.unwrap();
        confirmer.expire(Bucket::new(NOW - 8)).await.unwrap();
        assert_eq!(number(&client, left).await, 2);
    });
}
