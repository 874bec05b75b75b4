//! Claims in transactions that wait for each other.

use super::{
    PATIENCE, Postgres, bought, client, granted, id, number, payload, runtime, shop, wait_for,
};
use hapax::claim::{Claim, TransactionClaim, TransactionError};
use hapax::confirm::PostgresError;
use std::error::Error as _;
use std::time::{Duration, Instant};

/// How many sessions wait for a turn.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'";

#[test]
fn whoever_waits_gets_the_outcome_or_the_key() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        let watcher = client(&server).await;
        let (mut one, mut other) = (client(&server).await, client(&server).await);
        for is_committed in [true, false] {
            let item = format!("committed: {is_committed}");
            let here = one.transaction().await.unwrap();
            let lease = granted(gate.within(&here).claim(&id(&item), payload()).await.unwrap());
            let there = other.transaction().await.unwrap();
            lease.complete(bought()).await.unwrap();
            let end = async {
                wait_for(&watcher, WAITING, 1).await;
                if is_committed {
                    here.commit().await.unwrap();
                } else {
                    here.rollback().await.unwrap();
                }
            };
            let (within, id) = (gate.within(&there), id(&item));
            let (claim, ()) = tokio::join!(within.claim_or_wait(&id, payload(), PATIENCE), end);
            match claim.unwrap() {
                TransactionClaim::Replay(outcome) => assert!(is_committed && outcome == bought()),
                TransactionClaim::Granted(lease) => assert!(!is_committed && lease.attempt() == 1),
                other => panic!("{other:?}"),
            }
            there.rollback().await.unwrap();
        }
    });
}

#[test]
fn patience_ends_and_the_transaction_goes_on_as_it_was() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        let (mut one, mut other) = (client(&server).await, client(&server).await);
        let here = one.transaction().await.unwrap();
        let lease = granted(gate.within(&here).claim(&id("tea"), payload()).await.unwrap());
        let there = other.transaction().await.unwrap();
        there.batch_execute("SET LOCAL lock_timeout = '17s'").await.unwrap();
        let (started, patience) = (Instant::now(), Duration::from_millis(300));
        let claim = gate.within(&there).claim_or_wait(&id("tea"), payload(), patience).await;
        assert!(matches!(claim, Ok(TransactionClaim::InFlight(_))), "{claim:?}");
        assert!((patience..PATIENCE).contains(&started.elapsed()));
        let row = there.query_one("SHOW lock_timeout", &[]).await.unwrap();
        assert_eq!(row.get::<_, String>(0), "17s");
        // It holds nothing of what it waited for.
        drop(lease);
        here.rollback().await.unwrap();
        let claim = gate.claim_async(&id("tea"), payload()).await.unwrap();
        assert!(matches!(claim, Claim::Granted(_)), "{claim:?}");
        there.commit().await.unwrap();
    });
}

#[test]
fn a_lease_in_flight_is_waited_for_too() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        let mut client = client(&server).await;
        let claim = gate.claim_async(&id("tea"), payload()).await.unwrap();
        let Claim::Granted(mut lease) = claim else { panic!("{claim:?}") };
        let transaction = client.transaction().await.unwrap();
        let within = gate.within(&transaction);
        let id = id("tea");
        let (claim, completed) = tokio::join!(
            within.claim_or_wait(&id, payload(), PATIENCE),
            lease.complete_async(bought())
        );
        completed.unwrap();
        assert!(matches!(claim, Ok(TransactionClaim::Replay(_))), "{claim:?}");
    });
}

#[test]
fn of_two_that_wait_for_each_other_one_is_told_to_give_way() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        let (mut one, mut other) = (client(&server).await, client(&server).await);
        let (here, there) = (one.transaction().await.unwrap(), other.transaction().await.unwrap());
        let (tea, milk) = (id("tea"), id("milk"));
        let _tea = granted(gate.within(&here).claim(&tea, payload()).await.unwrap());
        let _milk = granted(gate.within(&there).claim(&milk, payload()).await.unwrap());
        let wait = async |transaction, id| {
            let claim = gate.within(transaction).claim_or_wait(id, payload(), PATIENCE).await;
            if claim.is_err() {
                transaction.batch_execute("ROLLBACK").await.unwrap();
            }
            claim
        };
        let claims: [_; 2] = tokio::join!(wait(&here, &milk), wait(&there, &tea)).into();
        let (granted, conflicts): (Vec<_>, Vec<_>) = claims.into_iter().partition(Result::is_ok);
        assert!(matches!(granted[..], [Ok(TransactionClaim::Granted(_))]), "{granted:?}");
        let [Err(error @ TransactionError::Store(cause))] = &conflicts[..] else {
            panic!("{conflicts:?}")
        };
        assert!(error.is_retryable(), "{error:?}");
        let cause = cause.source().unwrap().downcast_ref::<PostgresError>();
        assert!(matches!(cause, Some(PostgresError::Conflict(_))), "{cause:?}");
    });
}

#[test]
fn who_is_answered_by_an_outcome_has_written_and_locked_nothing() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        let mut client = client(&server).await;
        super::buy_once(&gate, &mut client, "tea").await;
        let watcher = super::client(&server).await;
        let transaction = client.transaction().await.unwrap();
        let claim = gate.within(&transaction).claim(&id("tea"), payload()).await.unwrap();
        assert!(matches!(claim, TransactionClaim::Replay(_)), "{claim:?}");
        let held = "SELECT count(*) FROM pg_locks
            WHERE locktype IN ('advisory', 'transactionid') OR mode = 'RowExclusiveLock'";
        assert_eq!(number(&watcher, held).await, 0);
    });
}
