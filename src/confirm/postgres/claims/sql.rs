//! What is said to the server about claims.

/// The table and its index. Where they are there, these statements change nothing, but wait
/// for writers.
///
/// Times are microseconds since 1970, by the server's clock. As for keys, neither index
/// serves a look-up by the namespace alone, and the columns of fixed length come first.
pub(super) const SCHEMA: &str = r#"
CREATE TABLE IF NOT EXISTS hapax_claim (
    token bigint NOT NULL,
    fence bigint NOT NULL,
    attempt bigint NOT NULL,
    since bigint,
    deadline bigint,
    expires bigint NOT NULL,
    is_takeover boolean NOT NULL,
    state text COLLATE "C" NOT NULL,
    namespace text COLLATE "C" NOT NULL,
    id bytea NOT NULL,
    digest bytea NOT NULL,
    answer bytea,
    PRIMARY KEY (id, namespace)
);
CREATE INDEX IF NOT EXISTS hapax_claim_expiry ON hapax_claim ((namespace || ''), expires);
"#;

/// Fails where [`WRITE`] would, but for what the values are: the table, its columns and
/// its key, and the right to write to it. Writes nothing.
pub(super) const PROBE: &str = "
INSERT INTO hapax_claim AS held (namespace, id, token, fence, attempt, is_takeover,
    digest, state, since, deadline, answer, expires)
SELECT ''::text, ''::bytea, 0::bigint, 0::bigint, 0::bigint, false,
    ''::bytea, ''::text, 0::bigint, 0::bigint, ''::bytea, 0::bigint
WHERE false
ON CONFLICT (id, namespace) DO UPDATE SET token = excluded.token";

/// Gives the time, and what is held for an identity, or nulls.
///
/// `$1` namespace, `$2` identity. It neither locks nor writes.
pub(super) const LOOK: &str = "
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    held.token, held.fence, held.attempt, held.is_takeover,
    held.digest, held.state, held.since, held.deadline, held.answer, held.expires
FROM (VALUES (1)) AS one
LEFT JOIN LATERAL (
    SELECT * FROM hapax_claim WHERE namespace = $1::text AND id = $2::bytea OFFSET 0
) AS held ON true";

/// Writes what is to be held for an identity, if what is held is still what was looked
/// at; gives whether it was its turn, and whether it has written.
///
/// `$1` namespace, `$2` identity, `$3` to `$12` what is to be held, `$13` token,
/// `$14` state and `$15` time of expiry of what was looked at, nulls if that was nothing;
/// `$16` the turn to take, if any.
///
/// Those three tell apart whatever an entry goes through: each claim has a token of its
/// own, and what keeps token and state is an extension, which moves the expiry.
///
/// The turn is a lock that lasts as long as the transaction, and that can be tried without
/// waiting. The row's own lock cannot, as long as no other transaction sees the row: an insert
/// waits for whoever is inserting the same key.
pub(super) const WRITE: &str = "
WITH turn AS MATERIALIZED (
    SELECT coalesce(pg_try_advisory_xact_lock($16::bigint), true) AS is_mine
), written AS (
    INSERT INTO hapax_claim AS held (namespace, id, token, fence, attempt, is_takeover,
        digest, state, since, deadline, answer, expires)
    SELECT $1::text, $2::bytea, $3::bigint, $4::bigint, $5::bigint, $6::boolean,
        $7::bytea, $8::text, $9::bigint, $10::bigint, $11::bytea, $12::bigint
    FROM turn WHERE is_mine
    ON CONFLICT (id, namespace) DO UPDATE SET
        token = excluded.token, fence = excluded.fence, attempt = excluded.attempt,
        is_takeover = excluded.is_takeover, digest = excluded.digest,
        state = excluded.state, since = excluded.since, deadline = excluded.deadline,
        answer = excluded.answer, expires = excluded.expires
    WHERE held.token = $13::bigint AND held.state = $14::text AND held.expires = $15::bigint
    RETURNING 1
)
SELECT is_mine, EXISTS (SELECT FROM written) FROM turn";

/// Deletes some entries that have expired, and says how many.
///
/// `$1` namespace, `$2` how many at most. Rows that somebody is about to write are left
/// alone: it waits for nobody.
pub(super) const SWEEP: &str = "
WITH gone AS (
    DELETE FROM hapax_claim WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM hapax_claim
        WHERE namespace || '' = $1::text
            AND expires <= (extract(epoch FROM statement_timestamp()) * 1000000)::bigint
        ORDER BY expires LIMIT $2::bigint FOR UPDATE SKIP LOCKED
    ))
    RETURNING 1
)
SELECT count(*) FROM gone";

/// Waits until a turn is free, for some milliseconds at most, and takes it.
///
/// In a savepoint: [`LEAVE`] undoes it all, the time-out and the turn too.
pub(super) fn wait(turn: i64, most_ms: u128) -> String {
    format!(
        "SAVEPOINT hapax_wait;
         SET LOCAL lock_timeout = {};
         SELECT pg_advisory_xact_lock({turn})",
        most_ms.clamp(1, i32::MAX as u128)
    )
}

/// Undoes [`wait`], whatever came of it.
pub(super) const LEAVE: &str = "ROLLBACK TO SAVEPOINT hapax_wait; RELEASE SAVEPOINT hapax_wait";
