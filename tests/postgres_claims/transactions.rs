//! Claims in a caller's own transaction: what commits with what, and what dies with it.

use super::servers::Server as _;
use super::servers::postgres::parameters;
use super::servers::proxy::Proxy;
use super::{
    PATIENCE, Postgres, PostgresGate, bought, buy, buy_once, client, connect, first_claims,
    granted, id, number, payload, purchases, runtime, shop,
};
use hapax::claim::{
    Claim, Failures, Gate, Identity, LeaseError, TransactionClaim, TransactionError,
};
use hapax::confirm::claims::{Digest, Outcome, Status};
use std::time::Duration;
use tokio_postgres::Client;

#[test]
fn work_and_outcome_commit_together() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        let (mut client, watcher) = (client(&server).await, client(&server).await);
        let transaction = client.transaction().await.unwrap();
        let lease = granted(gate.within(&transaction).claim(&id("tea"), payload()).await.unwrap());
        assert!(!lease.is_takeover() && lease.attempt() == 1);
        buy(&transaction, "tea").await;
        lease.complete(bought()).await.unwrap();
        // Nobody else knows of it yet.
        assert_eq!(gate.lookup_async(&id("tea")).await.unwrap(), None);
        assert_eq!(purchases(&watcher, "tea").await, 0);
        transaction.commit().await.unwrap();
        assert_eq!(purchases(&watcher, "tea").await, 1);
        let claim = gate.claim_async(&id("tea"), payload()).await.unwrap();
        assert!(matches!(claim, Claim::Replay(outcome) if outcome == bought()));

        let transaction = client.transaction().await.unwrap();
        let within = gate.within(&transaction);
        let claim = within.claim(&id("tea"), payload()).await.unwrap();
        assert!(matches!(claim, TransactionClaim::Replay(outcome) if outcome == bought()));
        let claim = within.claim(&id("tea"), Digest::of(b"99 EUR")).await.unwrap();
        assert!(matches!(claim, TransactionClaim::Mismatch));
        let stats = gate.stats();
        assert_eq!((stats.granted, stats.replayed, stats.mismatched), (1, 2, 1));
    });
}

/// How a transaction may end that was to buy something.
#[derive(Clone, Copy, Debug)]
enum End {
    RolledBack,
    Dropped,
    /// Its connection, by the server.
    Terminated,
    /// Its connection, by the network.
    CutOff,
}

/// How far it got.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Step {
    Claimed,
    Worked,
    Completed,
}

#[test]
fn a_transaction_that_dies_at_any_step_leaves_nothing_and_frees_the_key() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        let mut buyer = client(&server).await;
        for end in [End::RolledBack, End::Dropped, End::Terminated, End::CutOff] {
            for step in [Step::Claimed, Step::Worked, Step::Completed] {
                let item = format!("{end:?} when {step:?}");
                die(&server, &gate, &item, step, end).await;
                // At once, though the lease would last for five minutes.
                buy_once(&gate, &mut buyer, &item).await;
                assert_eq!(purchases(&buyer, &item).await, 1, "{item}");
            }
        }
    });
}

async fn die(server: &Postgres, gate: &PostgresGate, item: &str, step: Step, end: End) {
    let proxy = Proxy::to(server.port());
    let mut client = connect(&parameters(proxy.port())).await;
    let backend = number(&client, "SELECT pg_backend_pid()::bigint").await;
    let transaction = client.transaction().await.unwrap();
    let lease = granted(gate.within(&transaction).claim(&id(item), payload()).await.unwrap());
    if step >= Step::Worked {
        buy(&transaction, item).await;
    }
    if step >= Step::Completed {
        lease.complete(bought()).await.unwrap();
    }
    match end {
        End::RolledBack => transaction.rollback().await.unwrap(),
        End::Dropped => drop(transaction),
        End::Terminated => {
            let ended = format!("SELECT pg_terminate_backend({backend})::int::bigint");
            assert_eq!(number(&super::client(server).await, &ended).await, 1);
            transaction.commit().await.unwrap_err();
        }
        End::CutOff => {
            proxy.cut();
            transaction.commit().await.unwrap_err();
        }
    }
}

#[test]
fn whoever_hears_nothing_of_a_commit_learns_by_doing_it_again_what_became_of_it() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        let proxy = Proxy::to(server.port());
        for (item, is_committed) in [("done", true), ("undone", false)] {
            let mut client = connect(&parameters(proxy.port())).await;
            let transaction = client.transaction().await.unwrap();
            let claim = gate.within(&transaction).claim(&id(item), payload()).await.unwrap();
            buy(&transaction, item).await;
            granted(claim).complete(bought()).await.unwrap();
            if is_committed {
                proxy.lose_reply_to(b"COMMIT");
            } else {
                proxy.cut();
            }
            transaction.commit().await.unwrap_err();
            proxy.mend();
            let mut again = super::client(&server).await;
            assert_eq!(purchases(&again, item).await, i64::from(is_committed), "{item}");
            buy_once(&gate, &mut again, item).await;
            assert_eq!(purchases(&again, item).await, 1, "{item}");
        }
    });
}

#[test]
fn a_lost_reply_to_the_claim_itself_is_an_error_that_recorded_nothing() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        let proxy = Proxy::to(server.port());
        let mut client = connect(&parameters(proxy.port())).await;
        let transaction = client.transaction().await.unwrap();
        proxy.lose_reply_to(b"INSERT INTO hapax_claim");
        let error = gate.within(&transaction).claim(&id("tea"), payload()).await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        let TransactionError::Store(cause) = &error else { panic!("{error:?}") };
        assert!(!cause.may_have_recorded(), "{error:?}");
        let mut again = super::client(&server).await;
        buy_once(&gate, &mut again, "tea").await;
        assert_eq!(purchases(&again, "tea").await, 1);
    });
}

#[test]
fn a_key_in_flight_in_a_transaction_is_so_everywhere_and_the_reverse() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        let (mut one, mut other) = (client(&server).await, client(&server).await);
        let here = one.transaction().await.unwrap();
        let lease = granted(gate.within(&here).claim(&id("tea"), payload()).await.unwrap());
        let there = other.transaction().await.unwrap();
        let claim = gate.within(&there).claim(&id("tea"), payload()).await.unwrap();
        let TransactionClaim::InFlight(in_flight) = claim else { panic!("{claim:?}") };
        assert_eq!(in_flight.remaining, Duration::ZERO);
        let claim = gate.claim_async(&id("tea"), payload()).await.unwrap();
        let Claim::InFlight(in_flight) = claim else { panic!("{claim:?}") };
        assert_eq!(in_flight.remaining, Duration::ZERO);
        // The transaction that was turned away works on.
        let claim = gate.within(&there).claim(&id("milk"), payload()).await.unwrap();
        granted(claim).complete(bought()).await.unwrap();
        there.commit().await.unwrap();
        drop(lease);
        here.rollback().await.unwrap();

        let Claim::Granted(mut lease) = gate.claim_async(&id("tea"), payload()).await.unwrap()
        else {
            panic!("it is free")
        };
        let here = one.transaction().await.unwrap();
        let claim = gate.within(&here).claim(&id("tea"), payload()).await.unwrap();
        let TransactionClaim::InFlight(in_flight) = claim else { panic!("{claim:?}") };
        assert!(in_flight.remaining > Duration::from_secs(200), "{in_flight:?}");
        lease.complete_async(bought()).await.unwrap();
        let claim = gate.within(&here).claim(&id("tea"), payload()).await.unwrap();
        assert!(matches!(claim, TransactionClaim::Replay(_)), "{claim:?}");
    });
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}

/// Lets all deadlines pass.
async fn pass_deadlines(client: &Client) {
    let pass = "UPDATE hapax_claim SET deadline = 1 WHERE deadline IS NOT NULL";
    client.batch_execute(pass).await.unwrap();
}

#[test]
fn a_lease_that_is_past_its_deadline_is_taken_over_by_a_transaction_that_commits() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        let (mut client, setter) = (client(&server).await, client(&server).await);
        for is_committed in [false, true] {
            let item = format!("committed: {is_committed}");
            let claim = gate.claim_async(&id(&item), payload()).await.unwrap();
            let Claim::Granted(mut late) = claim else { panic!("{claim:?}") };
            pass_deadlines(&setter).await;
            let transaction = client.transaction().await.unwrap();
            let claim = gate.within(&transaction).claim(&id(&item), payload()).await.unwrap();
            let lease = granted(claim);
            assert!(lease.is_takeover() && lease.attempt() == 2 && lease.fence() > late.fence());
            lease.complete(bought()).await.unwrap();
            let completed = if is_committed {
                transaction.commit().await.unwrap();
                Err(LeaseError::Stale)
            } else {
                transaction.rollback().await.unwrap();
                Ok(())
            };
            assert_eq!(late.complete_async(bought()).await, completed);
        }
    });
}

#[test]
fn a_late_holder_waits_for_the_transaction_that_takes_over() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        let (mut client, setter) = (client(&server).await, client(&server).await);
        let claim = gate.claim_async(&id("tea"), payload()).await.unwrap();
        let Claim::Granted(mut late) = claim else { panic!("{claim:?}") };
        pass_deadlines(&setter).await;
        let transaction = client.transaction().await.unwrap();
        let lease = granted(gate.within(&transaction).claim(&id("tea"), payload()).await.unwrap());
        lease.complete(bought()).await.unwrap();
        let end = async {
            super::wait_for(&setter, super::servers::postgres::WAITING, 1).await;
            transaction.commit().await.unwrap();
        };
        let (completed, ()) = tokio::join!(late.complete_async(bought()), end);
        assert_eq!(completed, Err(LeaseError::Stale));
    });
}

#[test]
fn a_commit_without_completion_holds_the_key_until_the_deadline() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        let mut client = client(&server).await;
        let transaction = client.transaction().await.unwrap();
        drop(granted(gate.within(&transaction).claim(&id("tea"), payload()).await.unwrap()));
        transaction.commit().await.unwrap();
        let status = gate.lookup_async(&id("tea")).await.unwrap();
        assert!(matches!(status, Some(Status::InFlight { .. })), "{status:?}");
        pass_deadlines(&client).await;
        let claim = gate.claim_async(&id("tea"), payload()).await.unwrap();
        assert!(matches!(claim, Claim::Granted(lease) if lease.is_takeover()));
    });
}

#[test]
fn a_failure_is_kept_or_frees_the_key_as_the_gate_was_told() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        drop(first_claims(&server).await);
        let mut client = client(&server).await;
        let declined = Outcome::failure(*b"declined");
        for failures in [Failures::Free, Failures::Remember] {
            let claims = super::patient(&server.parameters()).connect().await.unwrap();
            let gate = Gate::builder(claims).failures(failures).build().unwrap();
            let item = format!("{failures:?}");
            let transaction = client.transaction().await.unwrap();
            let claim = gate.within(&transaction).claim(&id(&item), payload()).await.unwrap();
            granted(claim).fail(declined.clone()).await.unwrap();
            transaction.commit().await.unwrap();
            let claim = gate.claim_async(&id(&item), payload()).await.unwrap();
            match failures {
                Failures::Free => assert!(matches!(claim, Claim::Granted(l) if l.attempt() == 2)),
                Failures::Remember => assert!(matches!(claim, Claim::Replay(o) if o == declined)),
            }
        }
    });
}

#[test]
fn a_claim_is_undone_by_a_rollback_to_a_savepoint_from_before_it() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        let mut client = client(&server).await;
        let mut transaction = client.transaction().await.unwrap();
        transaction.batch_execute("SAVEPOINT before").await.unwrap();
        let lease = granted(gate.within(&transaction).claim(&id("tea"), payload()).await.unwrap());
        transaction.batch_execute("ROLLBACK TO SAVEPOINT before").await.unwrap();
        assert_eq!(lease.complete(bought()).await, Err(TransactionError::Undone));
        // One that spares the claim leaves it be; and a savepoint is a transaction, too.
        let lease = granted(gate.within(&transaction).claim(&id("tea"), payload()).await.unwrap());
        transaction.batch_execute("SAVEPOINT work; SELECT 1").await.unwrap();
        transaction.batch_execute("ROLLBACK TO SAVEPOINT work").await.unwrap();
        lease.complete(bought()).await.unwrap();
        let nested = transaction.transaction().await.unwrap();
        let claim = gate.within(&nested).claim(&id("milk"), payload()).await.unwrap();
        granted(claim).complete(bought()).await.unwrap();
        nested.commit().await.unwrap();
        transaction.commit().await.unwrap();
        for item in ["tea", "milk"] {
            let claim = gate.claim_async(&id(item), payload()).await.unwrap();
            assert!(matches!(claim, Claim::Replay(_)), "{item}: {claim:?}");
        }
    });
}

#[test]
fn what_is_too_large_is_refused_or_cut() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = Gate::builder(first_claims(&server).await).max_outcome(4).build().unwrap();
        let mut client = client(&server).await;
        let transaction = client.transaction().await.unwrap();
        let within = gate.within(&transaction);
        let long = Identity::new("", "", vec![b'k'; 1 << 16]);
        let error = within.claim(&long, payload()).await.unwrap_err();
        assert!(matches!(error, TransactionError::TooLong(_)), "{error:?}");
        let lease = granted(within.claim(&id("tea"), payload()).await.unwrap());
        lease.complete(bought()).await.unwrap();
        transaction.commit().await.unwrap();
        let claim = gate.claim_async(&id("tea"), payload()).await.unwrap();
        assert!(matches!(claim, Claim::Replay(outcome) if outcome.bytes().is_none()));
        assert_eq!(gate.stats().tombstones, 1);
    });
}

#[test]
fn a_transaction_that_has_failed_already_is_told_so() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = shop(&server).await;
        let mut client = client(&server).await;
        let transaction = client.transaction().await.unwrap();
        transaction.batch_execute("SELECT 1 / 0").await.unwrap_err();
        let within = gate.within(&transaction);
        let error = within.claim_or_wait(&id("tea"), payload(), PATIENCE).await.unwrap_err();
        assert!(!error.is_retryable(), "{error:?}");
        let cause = std::error::Error::source(&error).unwrap();
        assert!(format!("{:?}", cause.source()).contains("aborted"), "{cause:?}");
    });
}
