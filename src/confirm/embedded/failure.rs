//! redb's errors as ours.

use crate::confirm::{StoreError, StoreErrorKind, panics};
use redb::StorageError;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(super) fn refused(cause: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Refused, cause.into())
}

/// An error while opening, when nothing was promised yet.
pub(super) fn opening(error: impl Into<redb::Error>) -> StoreError {
    let error = error.into();
    let kind = match &error {
        redb::Error::DatabaseAlreadyOpen => StoreErrorKind::Unavailable,
        redb::Error::Io(cause) => file_kind(cause),
        // Whatever else redb says of a file, it is not one of ours, or damaged.
        _ => StoreErrorKind::Corrupt,
    };
    StoreError::new(kind, error)
}

/// What kind of failure an error of the file system is.
pub(super) fn file_kind(error: &io::Error) -> StoreErrorKind {
    use io::ErrorKind::{
        InvalidData, IsADirectory, NotADirectory, NotFound, PermissionDenied, QuotaExceeded,
        ReadOnlyFilesystem, StorageFull, UnexpectedEof,
    };
    match error.kind() {
        InvalidData | UnexpectedEof => StoreErrorKind::Corrupt,
        NotFound | PermissionDenied | IsADirectory | NotADirectory | ReadOnlyFilesystem => {
            StoreErrorKind::Refused
        }
        StorageFull | QuotaExceeded => StoreErrorKind::Full,
        _ => StoreErrorKind::Unavailable,
    }
}

/// An error while working: nothing of what is in memory can be relied on now.
pub(super) fn working(error: impl Into<redb::Error>) -> StoreError {
    let error = error.into();
    let kind = match error {
        redb::Error::Corrupted(_) => StoreErrorKind::Corrupt,
        _ => StoreErrorKind::Broken,
    };
    StoreError::new(kind, error)
}

/// Damage that we found ourselves.
pub(super) fn corrupt(what: impl Into<String>) -> StoreError {
    working(StorageError::Corrupted(what.into()))
}

/// Runs `work`; a panic in it, which damage can cause in redb, becomes an error.
pub(super) fn guarded<T>(
    kind: StoreErrorKind,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(StoreError::new(kind, panics::message(&*panic))))
}

/// A request got another one's reply.
#[cfg(feature = "claims")]
pub(super) fn mixed_up() -> StoreError {
    StoreError::new(StoreErrorKind::Broken, "replies were mixed up")
}
