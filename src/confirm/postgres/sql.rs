//! What is said to the server.
//!
//! Locks are taken in the order of keys, by every statement and on every row that
//! it may have to wait for: so no two callers ever wait for each other.

use std::time::Duration;

/// The table and its indexes. Where they are there, these statements change nothing, but
/// wait for writers ([`create`]).
///
/// The columns of fixed length come first, so that nothing is lost to alignment. The
/// second index is for expiry: new records come in the order of buckets, so it grows
/// at its end, and equal entries share their bytes.
///
/// Neither index can serve a look-up by the namespace alone: that is why one has the
/// key first, and the other an expression. While a namespace is small, or was so when the
/// table was last analyzed, the planner believes that reading all of it is as good as
/// looking up a key, and a prepared statement keeps to that.
pub(super) const SCHEMA: &str = r#"
CREATE TABLE IF NOT EXISTS hapax_record (
    bucket bigint NOT NULL,
    token bigint NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    key bytea NOT NULL,
    PRIMARY KEY (key, namespace)
);
CREATE INDEX IF NOT EXISTS hapax_record_expiry ON hapax_record ((namespace || ''), bucket);
"#;

/// Creates a table and its index by `schema`, if one of them is missing from where that
/// creates them; for callers of whom several may start at once.
///
/// It looks itself: `CREATE INDEX IF NOT EXISTS` asks for ownership and waits for whoever
/// is writing, with all other writers behind it, before it finds that there is nothing to
/// do. Without the advisory lock, two who find nothing both create it, and one fails.
pub(super) fn create(table: &str, schema: &str) -> String {
    let is_missing =
        |name: &str| format!("to_regclass(quote_ident(current_schema()) || '.{name}') IS NULL");
    format!(
        "BEGIN; SELECT pg_advisory_xact_lock(6868617061780001);
         DO $hapax$ BEGIN IF {} OR {} THEN {schema} END IF; END $hapax$; COMMIT",
        is_missing(table),
        is_missing(&format!("{table}_expiry")),
    )
}

/// What a connection is told before its first statement.
///
/// Rows are to be looked up by index, also while the table is small ([`SCHEMA`]), and not
/// through bitmaps: in a table that was not analyzed, each step of expiry would collect
/// all expired rows first, 100 ms instead of 2 among 300,000. At other isolation
/// levels a lost race is an error, and costs another try.
pub(super) fn session(statement_timeout: Duration) -> String {
    format!(
        "SET default_transaction_isolation = 'read committed';
         SET statement_timeout = {};
         SET enable_seqscan = off;
         SET enable_bitmapscan = off;
         SET jit = off",
        statement_timeout.as_millis().clamp(1, i32::MAX as u128)
    )
}

/// Has the server look every now and then whether the client is still there: otherwise a
/// statement waits for a lock although nobody waits for the statement.
///
/// Fails where the system cannot tell. Before version 14 there is no such setting, and it is
/// left alone, for each error would be in the server's log.
pub(super) const WATCH: &str = "
SELECT set_config('client_connection_check_interval', '100ms', false)
WHERE current_setting('client_connection_check_interval', true) IS NOT NULL";

/// Judges and records one sighting each of different keys, and gives the record of
/// each, by key, as it is afterwards.
///
/// `$1` namespace, `$2` keys, `$3` buckets, `$4` tokens, `$5` buckets of the
/// rule, `$6` whether it slides.
///
/// A sighting is settled if the record, as committed when the statement began, says
/// so already: it is read, and neither locked nor written, so that duplicates cost no
/// more than reading. The others are inserted. Where the key has come, or changed,
/// since then, or no longer matches, its row is locked, which waits for whoever is
/// writing it, and the newest record decides; that is `Rule::decide` once more.
/// Only where another caller came first meanwhile is a row written that stays as it was.
/// Differences of buckets are taken as `numeric`, which does not overflow. `OFFSET 0`
/// keeps the look-up one of a single key: without it the planner may read the whole
/// table once and search that for each key.
pub(super) const CONFIRM: &str = "
WITH looked AS MATERIALIZED (
    SELECT asked.key, asked.bucket, asked.token,
        held.bucket AS held_bucket, held.token AS held_token,
        coalesce(
            CASE
                WHEN $6::boolean OR held.token = asked.token THEN asked.bucket <= held.bucket
                ELSE asked.bucket::numeric - held.bucket <= $5::bigint
            END,
            false
        ) AS is_settled
    FROM unnest($2::bytea[], $3::bigint[], $4::bigint[]) AS asked (key, bucket, token)
    LEFT JOIN LATERAL (
        SELECT bucket, token FROM hapax_record WHERE namespace = $1::text AND key = asked.key
        OFFSET 0
    ) AS held ON true
), written AS (
    INSERT INTO hapax_record AS held (namespace, key, bucket, token)
    SELECT $1::text, key, bucket, token FROM looked WHERE NOT is_settled ORDER BY key
    ON CONFLICT (namespace, key) DO UPDATE SET
        bucket = CASE
            WHEN $6::boolean OR held.token = excluded.token
                OR excluded.bucket::numeric - held.bucket > $5::bigint
            THEN greatest(held.bucket, excluded.bucket)
            ELSE held.bucket
        END,
        token = CASE
            WHEN excluded.bucket::numeric - held.bucket > $5::bigint THEN excluded.token
            ELSE held.token
        END
    RETURNING held.key, held.bucket, held.token
)
SELECT key, held_bucket AS bucket, held_token AS token FROM looked WHERE is_settled
UNION ALL
SELECT key, bucket, token FROM written
ORDER BY key";

/// Gives the record of each key, in order, and nulls where there is none.
///
/// `$1` namespace, `$2` keys.
pub(super) const LOOK: &str = "
SELECT held.bucket, held.token
FROM unnest($2::bytea[]) WITH ORDINALITY AS asked (key, place)
LEFT JOIN LATERAL (
    SELECT bucket, token FROM hapax_record WHERE namespace = $1::text AND key = asked.key
    OFFSET 0
) AS held ON true
ORDER BY asked.place";

/// Deletes keys. `$1` namespace, `$2` keys.
///
/// Deleting by key finds a row also where it was moved up while this waited for it.
pub(super) const FORGET: &str = "
DELETE FROM hapax_record WHERE namespace = $1::text AND key = ANY (ARRAY(
    SELECT key FROM hapax_record
    WHERE namespace = $1::text AND key = ANY ($2::bytea[])
    ORDER BY key FOR UPDATE
))";

/// Deletes some records of past buckets, and says how many.
///
/// `$1` namespace, `$2` the first bucket that stays, `$3` how many at most. Rows that
/// somebody is about to write are left alone: it waits for nobody.
pub(super) const EXPIRE: &str = "
WITH gone AS (
    DELETE FROM hapax_record WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM hapax_record
        WHERE namespace || '' = $1::text AND bucket < $2::bigint
        ORDER BY bucket LIMIT $3::bigint FOR UPDATE SKIP LOCKED
    ))
    RETURNING 1
)
SELECT count(*) FROM gone";
