//! Creating the schema where it is there already, in whole or in part.

use super::servers::postgres::Postgres;
use super::{NOW, PATIENCE, client, first_confirmer, fixed, number, patient, runtime, sightings};
use hapax::confirm::{Answer, AsyncConfirmer};
use tokio::time::timeout;

#[test]
fn creating_what_is_there_waits_for_no_writer() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        drop(first_confirmer(&server).await);
        let writer = client(&server).await;
        let write = "BEGIN; INSERT INTO hapax_record VALUES (1, 1, 'default', 'k')";
        writer.batch_execute(write).await.unwrap();
        let builder = patient(&server.parameters());
        let created = timeout(PATIENCE / 2, builder.create_schema()).await;
        created.expect("it waits for the writer").unwrap();
    });
}

#[test]
fn who_may_only_write_rows_may_create_what_is_there() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        drop(first_confirmer(&server).await);
        let grant = "CREATE ROLE writer LOGIN;
                     GRANT SELECT, INSERT, UPDATE, DELETE ON hapax_record TO writer";
        client(&server).await.batch_execute(grant).await.unwrap();
        let builder = patient(&server.parameters().replace("user=hapax", "user=writer"));
        builder.create_schema().await.unwrap();
        let confirmer = builder.connect().await.unwrap();
        let answers = confirmer.confirm(&sightings(&["k"], NOW), fixed()).await.unwrap();
        assert_eq!(answers, [Answer::New]);
    });
}

/// How many indexes of the name there are.
const INDEXES: &str = "SELECT count(*) FROM pg_indexes WHERE indexname = 'hapax_record_expiry'";

#[test]
fn a_missing_index_is_added_to_a_table_that_is_there() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        drop(first_confirmer(&server).await);
        let client = client(&server).await;
        client.batch_execute("DROP INDEX hapax_record_expiry").await.unwrap();
        patient(&server.parameters()).create_schema().await.unwrap();
        assert_eq!(number(&client, INDEXES).await, 1);
    });
}

#[test]
fn a_table_further_along_the_search_path_is_another() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        drop(first_confirmer(&server).await);
        let client = client(&server).await;
        client.batch_execute("CREATE SCHEMA \"Own\"").await.unwrap();
        let path = format!("{} options='-csearch_path=\"Own\",public'", server.parameters());
        for _ in 0..2 {
            patient(&path).create_schema().await.unwrap();
            assert_eq!(number(&client, INDEXES).await, 2);
        }
    });
}
