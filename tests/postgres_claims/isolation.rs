//! Claims in transactions that see the database as it was when they began.

use super::{
    BUY, Postgres, PostgresGate, bought, client, granted, id, payload, purchases, runtime, shop,
};
use hapax::claim::{TransactionClaim, TransactionError};
use hapax::confirm::PostgresError;
use std::error::Error as _;
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, IsolationLevel, Transaction};

async fn begin(client: &mut Client, level: IsolationLevel) -> Transaction<'_> {
    client.build_transaction().isolation_level(level).start().await.unwrap()
}

#[test]
fn one_that_began_before_another_committed_must_give_way_and_may_try_again() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        let (mut one, mut other) = (client(&server).await, client(&server).await);
        for level in [IsolationLevel::RepeatableRead, IsolationLevel::Serializable] {
            let item = format!("{level:?}");
            let late = begin(&mut other, level).await;
            late.batch_execute("SELECT count(*) FROM purchase").await.unwrap();
            let first = begin(&mut one, level).await;
            let claim = gate.within(&first).claim(&id(&item), payload()).await.unwrap();
            granted(claim).complete(bought()).await.unwrap();
            first.commit().await.unwrap();
            let error = gate.within(&late).claim(&id(&item), payload()).await.unwrap_err();
            let TransactionError::Store(cause) = &error else { panic!("{error:?}") };
            let conflict = cause.source().unwrap().downcast_ref::<PostgresError>();
            assert!(matches!(conflict, Some(PostgresError::Conflict(_))), "{error:?}");
            assert!(error.is_retryable() && !cause.may_have_recorded());
            late.rollback().await.unwrap();
            let again = begin(&mut other, level).await;
            let claim = gate.within(&again).claim(&id(&item), payload()).await.unwrap();
            assert!(matches!(claim, TransactionClaim::Replay(_)), "{claim:?}");
        }
    });
}

const TASKS: usize = 16;
const ITEMS: usize = 20;

#[test]
fn at_each_level_many_tasks_buy_each_item_once() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        for level in [
            IsolationLevel::ReadCommitted,
            IsolationLevel::RepeatableRead,
            IsolationLevel::Serializable,
        ] {
            let mut tasks = JoinSet::new();
            for task in 0..TASKS {
                let (gate, mut client) = (gate.clone(), client(&server).await);
                tasks.spawn(async move {
                    for number in 0..ITEMS {
                        let item = format!("{level:?} {}", (number + task) % ITEMS);
                        while !bought_at(level, &gate, &mut client, &item).await {}
                    }
                });
            }
            tasks.join_all().await;
            let client = client(&server).await;
            for number in 0..ITEMS {
                let item = format!("{level:?} {number}");
                assert_eq!(purchases(&client, &item).await, 1, "{item}");
            }
        }
    });
}

/// True iff it is bought, by this call or another; false: another try, please.
async fn bought_at(
    level: IsolationLevel,
    gate: &PostgresGate,
    client: &mut Client,
    item: &str,
) -> bool {
    let transaction = begin(client, level).await;
    let lease = match gate.within(&transaction).claim(&id(item), payload()).await {
        Ok(TransactionClaim::Granted(lease)) => lease,
        Ok(TransactionClaim::Replay(_)) => return true,
        Ok(TransactionClaim::InFlight(_)) => return false,
        Ok(other) => panic!("{other:?}"),
        Err(error) => return conflict(error.is_retryable(), &error),
    };
    if let Err(error) = transaction.execute(BUY, &[&item]).await {
        return conflict(is_serialization_failure(&error), &error);
    }
    if let Err(error) = lease.complete(bought()).await {
        return conflict(error.is_retryable(), &error);
    }
    match transaction.commit().await {
        Ok(()) => true,
        Err(error) => conflict(is_serialization_failure(&error), &error),
    }
}

fn conflict(is_conflict: bool, error: &dyn std::fmt::Debug) -> bool {
    assert!(is_conflict, "{error:?}");
    false
}

fn is_serialization_failure(error: &Error) -> bool {
    error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
}
