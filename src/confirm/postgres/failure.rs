//! The server's errors, and the client's, as ours.

use crate::confirm::StoreErrorKind::{Corrupt, Full, Refused, Timeout, Unavailable, Uncertain};
use crate::confirm::{StoreError, StoreErrorKind};
use deadpool_postgres::{HookError, PoolError};
use std::error::Error as _;
use std::io;
use std::time::Duration;
use tokio_postgres::Error;

/// Why a [`PostgresConfirmer`](super::PostgresConfirmer), or claims in PostgreSQL, could
/// not answer, where it is not the server's own error: the source of a [`StoreError`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// The table is missing, or not as this version of Hapax needs it.
    #[error(
        "there is no table of this version: call PostgresBuilder::create_schema, or have the \
         SCHEMA of PostgresConfirmer or PostgresClaims run by whoever may create tables"
    )]
    Schema(#[source] Error),
    /// No server among those named takes writes: a standby, or one set to read
    /// only.
    #[error("the server takes no writes: name the primary, or all servers of which one is it")]
    ReadOnly(#[source] Error),
    /// Neither a free connection nor a new one in time.
    #[error("no connection within {0:?}: allow more connections, or more time to connect")]
    NoConnection(Duration),
    /// The caller's transaction met others, and one of them had to give way.
    #[error("the transaction lost to others: roll it back, and run it again from its start")]
    Conflict(#[source] Error),
    /// No reply in time.
    #[error("no reply within {0:?}: send smaller batches, or allow more time to reply")]
    NoReply(Duration),
}

/// What an SQLSTATE says of a request that got it as its reply. The longest prefix
/// decides; all others are refusals, which the server takes back whole.
const KINDS: [(&str, StoreErrorKind); 12] = [
    ("08", Uncertain),      // the connection broke
    ("25006", Unavailable), // a standby now, or about to be one
    ("40", Unavailable),    // lost to other transactions, and taken back
    ("40003", Uncertain),   // the server itself does not know
    ("53", Unavailable),    // out of memory, or of connections
    ("53100", Full),        // no room on the disk
    ("55P03", Unavailable), // a lock was not free
    ("57014", Timeout),     // cancelled, by `statement_timeout` or by hand
    ("57P", Uncertain),     // the server goes down, or ends this connection
    ("72", Unavailable),    // the snapshot is too old
    ("XX001", Corrupt),     // damaged data
    ("XX002", Corrupt),     // damaged index
];

fn kind_of(state: &str) -> StoreErrorKind {
    let fitting = KINDS.iter().filter(|(prefix, _)| state.starts_with(prefix));
    fitting.max_by_key(|(prefix, _)| prefix.len()).map_or(Refused, |(_, kind)| *kind)
}

/// SQLSTATEs of a table that is missing or another: no such table, no such column,
/// no such unique key, columns of other types.
const NO_SCHEMA: [&str; 5] = ["42P01", "42703", "42P10", "42804", "42883"];

/// SQLSTATEs of statements that lost to other transactions: serialization failure,
/// deadlock.
const LOST: [&str; 2] = ["40001", "40P01"];

/// True iff the statement lost to other transactions, and did nothing.
pub(super) fn has_lost(error: &Error) -> bool {
    state(error).is_some_and(|state| LOST.contains(&state))
}

/// The error of a request that was under way.
pub(super) fn of_request(error: Error) -> StoreError {
    // Without a state the connection broke, or what came was no reply.
    let Some(state) = state(&error) else { return StoreError::new(Uncertain, error) };
    let kind = kind_of(state);
    match state {
        "25006" => StoreError::new(kind, PostgresError::ReadOnly(error)),
        state if NO_SCHEMA.contains(&state) => StoreError::new(kind, PostgresError::Schema(error)),
        _ => StoreError::new(kind, error),
    }
}

/// The error of a request in a caller's transaction: unless that commits, nothing is
/// recorded, whatever the server made of the request.
#[cfg(feature = "claims")]
pub(super) fn of_transaction(error: Error) -> StoreError {
    if has_lost(&error) {
        return StoreError::new(Unavailable, PostgresError::Conflict(error));
    }
    let error = of_request(error);
    let is_open = matches!(error.kind(), Timeout | Uncertain);
    if is_open { StoreError::new(Unavailable, error) } else { error }
}

/// True iff a lock was not free within the session's `lock_timeout`.
#[cfg(feature = "claims")]
pub(super) fn is_locked_out(error: &Error) -> bool {
    state(error) == Some("55P03")
}

/// The error of connecting, when nothing was asked yet.
pub(super) fn of_connecting(error: PoolError) -> StoreError {
    match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
            of_handshake(error)
        }
        other => StoreError::new(Unavailable, other),
    }
}

fn of_handshake(error: Error) -> StoreError {
    let kind = match state(&error).map(kind_of) {
        Some(Uncertain | Timeout) => Unavailable,
        Some(kind) => kind,
        None if error.is_closed() || io_cause(&error).is_some() => Unavailable,
        // Settings, TLS, passwords, or no PostgreSQL at all.
        None => Refused,
    };
    if is_read_only(&error) {
        return StoreError::new(kind, PostgresError::ReadOnly(error));
    }
    StoreError::new(kind, error)
}

/// True iff the client found that the server takes no writes. It says so by an error
/// of its own, which has no number from the operating system.
fn is_read_only(error: &Error) -> bool {
    io_cause(error).is_some_and(|cause| {
        cause.kind() == io::ErrorKind::PermissionDenied && cause.raw_os_error().is_none()
    })
}

fn io_cause(error: &Error) -> Option<&io::Error> {
    error.source()?.downcast_ref()
}

fn state(error: &Error) -> Option<&str> {
    error.code().map(tokio_postgres::error::SqlState::code)
}

/// No connection in time: nothing was asked.
pub(super) fn no_connection(after: Duration) -> StoreError {
    StoreError::new(Unavailable, PostgresError::NoConnection(after))
}

/// No reply in time.
pub(super) fn no_reply(after: Duration) -> StoreError {
    StoreError::new(Timeout, PostgresError::NoReply(after))
}

/// The error of a later round: whatever became of it, those before it are recorded.
/// Asking again finds them by their tokens.
pub(super) const fn of_later_round(error: StoreError) -> StoreError {
    error.with_parts(true)
}

/// A reply that makes no sense: triggers, rules or policies on the table?
pub(super) fn unreadable(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::new(Corrupt, cause)
}

pub(super) fn refused(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::new(Refused, cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        for (state, kind) in [
            ("40001", Unavailable), // serialization failure
            ("40P01", Unavailable), // deadlock
            ("40003", Uncertain),
            ("53300", Unavailable),
            ("53100", Full),
            ("57014", Timeout),
            ("57P01", Uncertain),
            ("08006", Uncertain),
            ("42501", Refused), // no right to
            ("23514", Refused), // a constraint
            ("XX000", Refused),
            ("XX001", Corrupt),
        ] {
            assert_eq!(kind_of(state), kind, "{state}");
        }
    }

    #[test]
    fn a_later_round_never_claims_that_nothing_was_recorded() {
        for kind in [Unavailable, Full, Refused, Timeout] {
            let later = of_later_round(StoreError::new(kind, "cause"));
            assert!(later.may_have_recorded() && later.kind() == kind, "{kind:?}");
        }
    }
}
