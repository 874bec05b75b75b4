//! How a call failed, and the redis crate's errors as ours.

use crate::confirm::{StoreError, StoreErrorKind};
use redis::{RedisError, Value};
use std::fmt::Display;

/// Why a call has no reply, or one that is an error.
pub(super) enum Failure {
    /// There is no connection; nothing was sent.
    Unreached(StoreError),
    /// The connection broke, or no reply came in time, after the call was sent.
    Broken(RedisError),
    /// The server replied with an error.
    Replied(RedisError),
}

impl Failure {
    pub(super) fn of_sent(error: RedisError) -> Self {
        if error.code().is_some() { Self::Replied(error) } else { Self::Broken(error) }
    }

    /// The error's code, if the server replied with one.
    pub(super) fn code(&self) -> Option<&str> {
        match self {
            Self::Replied(error) => error.code(),
            Self::Unreached(_) | Self::Broken(_) => None,
        }
    }

    /// False iff the connection is as good as before.
    pub(super) fn ends_connection(&self) -> bool {
        // A server that became a replica stays one: its name may lead elsewhere now.
        matches!(self, Self::Broken(_)) || self.code() == Some("READONLY")
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreached(error) => error,
            Failure::Broken(error) if error.is_timeout() => {
                Self::new(StoreErrorKind::Timeout, error)
            }
            Failure::Broken(error) if error.is_io_error() => {
                Self::new(StoreErrorKind::Uncertain, error)
            }
            Failure::Broken(error) => Self::new(StoreErrorKind::Corrupt, error),
            Failure::Replied(error) => Self::new(replied(error.code()), error),
        }
    }
}

/// What an error's code says. A server checks all that is named here before a
/// script's first write, so nothing was recorded.
fn replied(code: Option<&str>) -> StoreErrorKind {
    match code {
        Some("OOM") => StoreErrorKind::Full,
        Some(
            "LOADING" | "BUSY" | "MASTERDOWN" | "READONLY" | "NOREPLICAS" | "MISCONF"
            | "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK",
        ) => StoreErrorKind::Unavailable,
        Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "ERR" | "NOSCRIPT" | "CROSSSLOT") => {
            StoreErrorKind::Refused
        }
        // A key that another program wrote, in the middle of a batch; or an error
        // that we do not know.
        _ => StoreErrorKind::Corrupt,
    }
}

/// An error while connecting, when nothing was asked yet.
pub(super) fn connecting(error: RedisError) -> StoreError {
    let passes = error.is_io_error()
        || error.is_timeout()
        || replied(error.code()) == StoreErrorKind::Unavailable;
    // Otherwise it is no Redis, or wants other credentials.
    let kind = if passes { StoreErrorKind::Unavailable } else { StoreErrorKind::Refused };
    StoreError::new(kind, error)
}

pub(super) fn refused(cause: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Refused, cause.into())
}

/// A reply that says nothing about what was asked, such as `of 2 keys`.
pub(super) fn senseless(about: impl Display, reply: &Value) -> StoreError {
    let beginning: String = format!("{reply:?}").chars().take(80).collect();
    let cause = format!("a reply that says nothing {about}: {beginning}");
    StoreError::new(StoreErrorKind::Corrupt, cause)
}
