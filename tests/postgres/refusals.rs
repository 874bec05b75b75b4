//! What is said when something is wrong.

use super::servers::Server as _;
use super::servers::postgres::{Postgres, parameters};
use super::{NOW, PATIENCE, client, first_confirmer, fixed, insist, patient, runtime, sightings};
use futures_util::future::join_all;
use hapax::confirm::{
    Answer, AsyncConfirmer, PostgresBuilder, PostgresConfirmer, PostgresError, StoreError,
    StoreErrorKind,
};
use std::error::Error;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;
use tokio::time::timeout;

/// Why nobody can connect.
async fn refusal(builder: PostgresBuilder) -> StoreError {
    let connecting = timeout(2 * PATIENCE, builder.connect()).await;
    connecting.expect("it took too long").expect_err("it connected")
}

fn cause(error: &StoreError) -> &PostgresError {
    error.source().unwrap().downcast_ref().unwrap_or_else(|| panic!("{error:?}"))
}

#[test]
fn a_missing_table_is_named_and_several_may_create_it_at_once() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let builder = patient(&server.parameters());
        let error = refusal(builder.clone()).await;
        assert_eq!(error.kind(), StoreErrorKind::Refused);
        assert!(matches!(cause(&error), PostgresError::Schema(_)), "{error:?}");
        let created = join_all((0..8).map(|_| builder.create_schema())).await;
        created.into_iter().for_each(Result::unwrap);
        let confirmer = builder.connect().await.unwrap();
        client(&server).await.batch_execute("DROP TABLE hapax_record").await.unwrap();
        let error = confirmer.confirm(&sightings(&["k"], NOW), fixed()).await.unwrap_err();
        assert!(matches!(cause(&error), PostgresError::Schema(_)), "{error:?}");
        assert!(!error.is_retryable());
    });
}

#[test]
fn a_table_of_another_form_is_noticed_when_connecting() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let client = client(&server).await;
        for form in [
            "bucket bigint, token bigint, namespace text, key bytea",
            "bucket bigint, token bigint, namespace text, key text, UNIQUE (namespace, key)",
            "bucket bytea, token bigint, namespace text, key bytea, UNIQUE (namespace, key)",
            "bucket bigint, namespace text, key bytea, UNIQUE (namespace, key)",
        ] {
            client.batch_execute(&format!("CREATE TABLE hapax_record ({form})")).await.unwrap();
            let error = refusal(patient(&server.parameters())).await;
            assert!(matches!(cause(&error), PostgresError::Schema(_)), "{form}: {error:?}");
            client.batch_execute("DROP TABLE hapax_record").await.unwrap();
        }
    });
}

#[test]
fn a_standby_is_refused_and_the_primary_found() {
    let (Some(mut server), Some(primary)) = (Postgres::start(), Postgres::start()) else { return };
    let runtime = runtime();
    let confirmer = runtime.block_on(first_confirmer(&server));
    server.restart_as_standby();
    runtime.block_on(async {
        let error = refusal(patient(&server.parameters())).await;
        assert_eq!(error.kind(), StoreErrorKind::Unavailable);
        assert!(matches!(cause(&error), PostgresError::ReadOnly(_)), "{error:?}");
        let error = confirmer.confirm(&sightings(&["k"], NOW), fixed()).await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        drop(first_confirmer(&primary).await);
        let both = format!("host=127.0.0.1,127.0.0.1 port={},{}", server.port(), primary.port());
        let both = format!("{both} user=hapax dbname=postgres sslmode=disable");
        let confirmer = patient(&both).connect().await.unwrap();
        assert_eq!(insist(&confirmer, &sightings(&["k"], NOW)).await, [Answer::New]);
    });
}

#[test]
fn a_server_that_was_set_to_read_only_is_named() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let confirmer = patient(&server.parameters()).connections(1);
        confirmer.create_schema().await.unwrap();
        let confirmer = confirmer.connect().await.unwrap();
        let client = client(&server).await;
        let read_only = "ALTER SYSTEM SET default_transaction_read_only = on";
        client.batch_execute(read_only).await.unwrap();
        client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
        let error = loop {
            // Until the setting has reached the confirmer's session.
            match confirmer.confirm(&sightings(&["k"], NOW), fixed()).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => break error,
            }
        };
        assert!(matches!(cause(&error), PostgresError::ReadOnly(_)), "{error:?}");
        assert!(error.is_retryable() && !error.may_have_recorded());
    });
}

#[test]
fn a_reply_that_lacks_a_record_is_no_answer() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        let confirmer = first_confirmer(&server).await;
        let swallow = "CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql
                       AS 'BEGIN RETURN NULL; END';
                       CREATE TRIGGER swallow BEFORE INSERT ON hapax_record
                       FOR EACH ROW EXECUTE FUNCTION swallow()";
        client(&server).await.batch_execute(swallow).await.unwrap();
        let error = confirmer.confirm(&sightings(&["k"], NOW), fixed()).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Corrupt);
    });
}

#[test]
fn whoever_is_not_let_in_hears_why() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        drop(first_confirmer(&server).await);
        client(&server).await.batch_execute("CREATE ROLE guest LOGIN").await.unwrap();
        let parameters = server.parameters();
        for (reason, builder) in [
            ("no such database", patient(&parameters.replace("dbname=postgres", "dbname=none"))),
            ("no such user", patient(&parameters.replace("user=hapax", "user=nobody"))),
            ("no right to the table", patient(&parameters.replace("user=hapax", "user=guest"))),
            ("TLS without a connector", patient(&parameters.replace("disable", "require"))),
            ("a typing error", patient(&parameters.replace("host", "hots"))),
            ("no connections", patient(&parameters).connections(0)),
            ("a long name", patient(&parameters).namespace("n".repeat(256))),
        ] {
            let error = refusal(builder).await;
            assert_eq!(error.kind(), StoreErrorKind::Refused, "{reason}: {error:?}");
        }
    });
}

#[test]
fn outside_of_a_runtime_it_is_refused() {
    let builder = PostgresConfirmer::builder("host=127.0.0.1 user=hapax");
    let mut connecting = pin!(builder.connect());
    let polled = connecting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Err(error)) = polled else { panic!("{polled:?}") };
    assert_eq!(error.kind(), StoreErrorKind::Refused);
}

#[test]
fn what_is_no_server_is_noticed_in_time() {
    let wait = Duration::from_millis(300);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let builder = PostgresConfirmer::builder(&parameters(port)).connect_timeout(wait);
    let runtime = runtime();
    // The system takes the connection, and nobody ever answers.
    let error = runtime.block_on(refusal(builder.clone()));
    assert!(matches!(cause(&error), PostgresError::NoConnection(_)), "{error:?}");
    assert!(error.is_retryable() && !error.may_have_recorded());
    let babbling = thread::spawn(move || {
        // The first is the one that was given up above.
        for stream in listener.incoming().take(2) {
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let error = runtime.block_on(refusal(builder.clone()));
    assert!(!error.may_have_recorded(), "{error:?}");
    babbling.join().unwrap();
    // Now nobody listens there.
    assert_eq!(runtime.block_on(refusal(builder)).kind(), StoreErrorKind::Unavailable);
}
