//! What the statements touch, and what is said of tables that are missing or another.

use super::{
    PATIENCE, Postgres, bought, client, first_claims, gate, id, number, patient, payload, runtime,
    wait_for,
};
use hapax::claim::Claim;
use hapax::confirm::claims::{AsyncClaimStore, Outcome};
use hapax::confirm::{PostgresError, StoreError, StoreErrorKind};
use std::error::Error as _;
use std::time::Duration;
use tokio::time::timeout;

#[test]
fn replays_and_keys_in_flight_neither_write_nor_lock() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = gate(first_claims(&server).await);
        let claim = gate.claim_async(&id("finished"), payload()).await.unwrap();
        let Claim::Granted(mut lease) = claim else { panic!("{claim:?}") };
        lease.complete_async(bought()).await.unwrap();
        let _held = gate.claim_async(&id("held"), payload()).await.unwrap();
        let client = client(&server).await;
        let rows = "SELECT sum(xmin::text::bigint + xmax::text::bigint)::bigint FROM hapax_claim";
        let before = number(&client, rows).await;
        for _ in 0..100 {
            let claim = gate.claim_async(&id("finished"), payload()).await.unwrap();
            assert!(matches!(claim, Claim::Replay(outcome) if outcome == bought()));
            let claim = gate.claim_async(&id("held"), payload()).await.unwrap();
            assert!(matches!(claim, Claim::InFlight(_)), "{claim:?}");
        }
        assert_eq!(number(&client, rows).await, before);
    });
}

/// Lets a key's entry expire.
const EXPIRE: &str = "UPDATE hapax_claim SET expires = 1, deadline = 1";

#[test]
fn a_sweep_goes_in_steps_and_spares_other_namespaces_and_what_is_locked_or_lives() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = gate(first_claims(&server).await);
        let other = patient(&server.parameters()).namespace("other").connect().await.unwrap();
        let other = super::gate(other);
        let client = client(&server).await;
        for number in 0..600 {
            let claim = gate.claim_async(&id(&format!("old {number}")), payload()).await.unwrap();
            drop(claim);
        }
        let _other = other.claim_async(&id("old 0"), payload()).await.unwrap();
        // Those that were dropped are being freed.
        wait_for(&client, "SELECT count(*) FROM hapax_claim WHERE state = 'free'", 600).await;
        client.batch_execute(EXPIRE).await.unwrap();
        let _new = gate.claim_async(&id("new"), payload()).await.unwrap();
        let lock = "BEGIN; SELECT FROM hapax_claim
            WHERE namespace = 'default' AND expires = 1 LIMIT 1 FOR UPDATE";
        client.batch_execute(lock).await.unwrap();
        let sweep = || timeout(PATIENCE / 2, gate.store().sweep());
        assert_eq!(sweep().await.expect("it waits for the lock"), Ok(true));
        assert_eq!(sweep().await.expect("it waits for the lock"), Ok(false));
        let left = "SELECT count(*) FROM hapax_claim";
        assert_eq!(number(&client, left).await, 3);
        client.batch_execute("COMMIT").await.unwrap();
        assert!(gate.maintain_async(Duration::ZERO).await.unwrap());
        assert_eq!(number(&client, left).await, 2);
        let claim = gate.claim_async(&id("new"), payload()).await.unwrap();
        assert!(matches!(claim, Claim::InFlight(_)), "{claim:?}");
    });
}

/// Rows that were read.
const READ: &str = "SELECT idx_tup_fetch + seq_tup_read FROM pg_stat_user_tables";

#[test]
fn statements_prepared_for_a_small_table_serve_a_large_one() {
    const COUNT: i64 = 3_000;
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let client = client(&server).await;
        drop(first_claims(&server).await);
        let builder = patient(&server.parameters()).connections(1);
        let gate = gate(builder.connect().await.unwrap());
        client.batch_execute("VACUUM ANALYZE hapax_claim").await.unwrap();
        // After a few times the server settles for a plan.
        for number in 0..10 {
            drop(gate.claim_async(&id(&number.to_string()), payload()).await.unwrap());
            gate.store().sweep().await.unwrap();
        }
        let fill = format!(
            "INSERT INTO hapax_claim
             SELECT n, n, 1, NULL, NULL, 1, false, 'free', 'default', int8send(n), '', NULL
             FROM generate_series(1, {COUNT}) AS n"
        );
        client.batch_execute(&fill).await.unwrap();
        for number in 0..100 {
            let claim = gate.claim_async(&id(&format!("k {number}")), payload()).await.unwrap();
            let Claim::Granted(mut lease) = claim else { panic!("{claim:?}") };
            lease.complete_async(bought()).await.unwrap();
        }
        gate.store().sweep().await.unwrap();
        drop(gate);
        // Sessions report what they did when they end.
        let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'hapax'";
        wait_for(&client, open, 0).await;
        let read = number(&client, READ).await;
        assert!(read < COUNT, "{read} rows were read");
    });
}

#[test]
fn answers_of_all_sizes_come_back() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = super::Gate::builder(first_claims(&server).await)
            .remember(0)
            .max_outcome(4 << 20)
            .build()
            .unwrap();
        for bytes in [0, 1, 3_000, 1 << 20, 4 << 20] {
            let item = bytes.to_string();
            let answer: Vec<u8> =
                (0..bytes).map(|place| (place * 31 + place / 257) as u8).collect();
            let claim = gate.claim_async(&id(&item), payload()).await.unwrap();
            let Claim::Granted(mut lease) = claim else { panic!("{claim:?}") };
            lease.complete_async(Outcome::success(answer.clone())).await.unwrap();
            let claim = gate.claim_async(&id(&item), payload()).await.unwrap();
            assert!(matches!(claim, Claim::Replay(outcome) if outcome.bytes() == Some(&answer)));
        }
    });
}

#[track_caller]
fn assert_schema(error: &StoreError) {
    assert_eq!(error.kind(), StoreErrorKind::Refused, "{error:?}");
    let cause = error.source().unwrap().downcast_ref::<PostgresError>();
    assert!(matches!(cause, Some(PostgresError::Schema(_))), "{error:?}");
}

#[test]
fn a_table_that_is_missing_or_of_another_form_is_named_when_connecting() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let client = client(&server).await;
        assert_schema(&patient(&server.parameters()).connect().await.unwrap_err());
        for change in [
            "DROP CONSTRAINT hapax_claim_pkey",
            "DROP COLUMN answer",
            "ALTER COLUMN token TYPE bytea USING NULL",
            "ALTER COLUMN answer TYPE json USING NULL",
        ] {
            drop(first_claims(&server).await);
            let change = format!("ALTER TABLE hapax_claim {change}");
            client.batch_execute(&change).await.unwrap();
            assert_schema(&patient(&server.parameters()).connect().await.unwrap_err());
            client.batch_execute("DROP TABLE hapax_claim").await.unwrap();
        }
    });
}

#[test]
fn creating_what_is_there_needs_no_lock_and_no_ownership() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        drop(first_claims(&server).await);
        let writer = client(&server).await;
        let grant = "CREATE ROLE writer LOGIN;
                     GRANT SELECT, INSERT, UPDATE, DELETE ON hapax_claim TO writer";
        writer.batch_execute(grant).await.unwrap();
        let write = "BEGIN; INSERT INTO hapax_claim VALUES
                     (1, 1, 1, NULL, NULL, 1, false, 'free', 'default', 'k', '', NULL)";
        writer.batch_execute(write).await.unwrap();
        for user in ["user=hapax", "user=writer"] {
            let builder = patient(&server.parameters().replace("user=hapax", user));
            let created = timeout(PATIENCE / 2, builder.create_schema()).await;
            created.expect("it waits for the writer").unwrap();
            drop(builder.connect().await.unwrap());
        }
    });
}

#[test]
fn an_entry_that_makes_no_sense_is_an_error() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let gate = gate(first_claims(&server).await);
        let _held = gate.claim_async(&id("tea"), payload()).await.unwrap();
        let client = client(&server).await;
        for change in ["state = 'lost'", "state = 'held', deadline = NULL", "digest = ''"] {
            let change = format!("UPDATE hapax_claim SET {change}");
            client.batch_execute(&change).await.unwrap();
            let error = gate.store().look(id("tea").as_bytes()).await.unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Corrupt, "{change}: {error:?}");
        }
    });
}
