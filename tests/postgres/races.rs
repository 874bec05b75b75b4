//! Callers that meet over the same keys.

use super::servers::postgres::Postgres;
use super::{
    BUCKETS, NOW, WAITING, client, first_confirmer, fixed, keys, patient, runtime, seen, sightings,
    sliding, wait_for,
};
use hapax::confirm::{Answer, AsyncConfirmer, Bucket, PostgresConfirmer, Rule, Sighting, Token};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_postgres::Client;

#[test]
fn many_tasks_race_for_the_same_keys_and_nobody_waits_in_a_circle() {
    const TASKS: usize = 64;
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        drop(first_confirmer(&server).await);
        let mut confirmers = Vec::new();
        for _ in 0..4 {
            confirmers.push(Arc::new(patient(&server.parameters()).connect().await.unwrap()));
        }
        for (era, rule) in [fixed(), sliding(), fixed(), sliding()].into_iter().enumerate() {
            let bucket = NOW + era as i64 * (BUCKETS + 1);
            let mut tasks = JoinSet::new();
            for task in 0..TASKS {
                let confirmer = Arc::clone(&confirmers[task % confirmers.len()]);
                tasks.spawn(async move { race(&confirmer, rule, bucket, task).await });
            }
            let mut winners = HashMap::<String, usize>::new();
            for won in tasks.join_all().await {
                for key in won {
                    *winners.entry(key).or_default() += 1;
                }
            }
            assert_eq!(winners.len(), 100);
            assert!(winners.values().all(|wins| *wins == 1), "era {era}: {winners:?}");
        }
    });
    // No deadlock, and no race lost that would have to be asked about again.
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}

/// The keys that one task is first with; it forgets others, and expires, meanwhile.
async fn race(confirmer: &PostgresConfirmer, rule: Rule, bucket: i64, task: usize) -> Vec<String> {
    let mut raced = keys("raced", 100);
    raced.rotate_left(task % 100);
    let mut forgotten = keys("forgotten", 20);
    forgotten.rotate_left(task % 20);
    let mut won = Vec::new();
    for batch in raced.chunks(25) {
        let answers = confirmer.confirm(&sightings(batch, bucket), rule).await.unwrap();
        let news = batch.iter().zip(answers).filter(|(_, answer)| *answer == Answer::New);
        won.extend(news.map(|(key, _)| key.clone()));
        confirmer.confirm(&sightings(&forgotten, bucket), rule).await.unwrap();
        let forgotten: Vec<_> = forgotten.iter().map(String::as_bytes).collect();
        confirmer.forget(&forgotten).await.unwrap();
        confirmer.expire(Bucket::new(bucket - BUCKETS)).await.unwrap();
    }
    won
}

/// A statement that leaves key `k` with a record of this bucket and token.
fn hold(bucket: i64, token: i64) -> String {
    format!(
        "INSERT INTO hapax_record VALUES ({bucket}, {token}, 'default', 'k')
         ON CONFLICT (namespace, key) DO UPDATE SET bucket = {bucket}, token = {token}"
    )
}

/// Lets `statement` be under way in another transaction when key `k` is asked about in bucket
/// `NOW` with token 7, then ends the transaction. Gives the answer, and the record
/// afterwards.
async fn meet(server: &Postgres, (statement, end): (&str, &str), rule: Rule) -> (Answer, i64, i64) {
    let confirmer = patient(&server.parameters()).connect().await.unwrap();
    let (other, watcher) = (client(server).await, client(server).await);
    other.batch_execute(&format!("BEGIN; {statement}")).await.unwrap();
    let ended = async {
        wait_for(&watcher, WAITING, 1).await;
        other.batch_execute(end).await.unwrap();
    };
    let asked = [Sighting { key: b"k", bucket: Bucket::new(NOW), token: Token::new(7) }];
    let (answers, ()) = tokio::join!(confirmer.confirm(&asked, rule), ended);
    let (bucket, token) = record(&other).await;
    (answers.unwrap()[0], bucket, token)
}

async fn record(client: &Client) -> (i64, i64) {
    let query = "SELECT bucket, token FROM hapax_record WHERE key = 'k'";
    let row = client.query_one(query, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

#[test]
fn whoever_waited_for_another_transaction_answers_by_what_it_left() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        drop(first_confirmer(&server).await);
        let setter = client(&server).await;
        let (old, last) = (NOW - BUCKETS - 1, NOW - BUCKETS);
        let gone = "DELETE FROM hapax_record".to_owned();
        let new = (Answer::New, NOW, 7);
        for (before, meanwhile, end, rule, expected) in [
            // There was nothing.
            (&gone, hold(last, 1), "COMMIT", fixed(), (seen(last), last, 1)),
            (&gone, hold(last, 1), "COMMIT", sliding(), (seen(NOW), NOW, 1)),
            (&gone, hold(NOW + 1, 1), "COMMIT", sliding(), (seen(NOW + 1), NOW + 1, 1)),
            (&gone, hold(last, 1), "ROLLBACK", fixed(), new),
            (&gone, hold(old, 1), "COMMIT", fixed(), new),
            // An attempt of its own, whose reply was lost.
            (&gone, hold(NOW, 7), "COMMIT", fixed(), new),
            (&gone, hold(last, 7), "COMMIT", fixed(), new),
            (&gone, hold(NOW + 1, 7), "COMMIT", fixed(), (Answer::New, NOW + 1, 7)),
            // There was one that no longer matched.
            (&hold(old, 1), hold(last, 2), "COMMIT", fixed(), (seen(last), last, 2)),
            (&hold(old, 1), hold(last, 2), "ROLLBACK", sliding(), new),
            (&hold(old, 1), gone.clone(), "COMMIT", fixed(), new),
            // There was one that this one would move.
            (&hold(last, 1), hold(old, 2), "COMMIT", sliding(), new),
            (&hold(last, 1), gone.clone(), "COMMIT", sliding(), new),
        ] {
            setter.batch_execute(before).await.unwrap();
            let outcome = meet(&server, (&meanwhile, end), rule).await;
            assert_eq!(outcome, expected, "{before}; {meanwhile}; {end}; {rule:?}");
        }
    });
}
