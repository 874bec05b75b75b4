//! Keys that do not fit into memory: temporary files behind the memory.
//!
//! The files have no names, so nothing of them is left however the process
//! ends. What is in them is `runs`'s; which keys are asked for there is the
//! library's.

mod name;
mod runs;
mod tail;
mod value;

use crate::error::{Failure, RecordProblem};
use hapax::confirm::{Ownership, Reject, StoreError};
use hapax::{BatchError, Builder, Deduper, OnFull, Stats, Timestamp, Verdict};
use runs::Runs;
use std::cell::Cell;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What the process takes beside keys: code, buffers, blocks of files.
const PROCESS_BYTES: u64 = 20 << 20;

/// With less there are many files to look through.
const LEAST_TAIL_BYTES: u64 = 4 << 20;

/// With less there is hardly a key in memory.
const LEAST_KEY_BYTES: u64 = 8 << 20;

/// The least that a process can be capped at, in bytes.
const LEAST_BYTES: u64 = PROCESS_BYTES + LEAST_TAIL_BYTES + LEAST_KEY_BYTES;

/// The store is told which buckets have expired each time that so many keys
/// were checked.
const KEYS_PER_UPKEEP: usize = 1 << 16;

/// A deduper whose keys go to a file when memory is full.
pub(crate) struct Spilling {
    deduper: Deduper<Arc<Runs>>,
    runs: Arc<Runs>,
    folder: PathBuf,
    until_upkeep: Cell<usize>,
}

impl Spilling {
    /// Builds what `builder` describes so that the whole process takes
    /// `process_bytes`, with a file in `folder`.
    ///
    /// # Errors
    ///
    /// There is too little memory, or there can be no file in the folder; and the
    /// library's.
    pub(crate) fn build(
        builder: Builder,
        process_bytes: u64,
        folder: &Path,
    ) -> Result<Self, Failure> {
        if process_bytes < LEAST_BYTES {
            return Err(Failure::too_little_memory(LEAST_BYTES));
        }
        try_folder(folder)?;
        let tail_bytes = (process_bytes / 8).max(LEAST_TAIL_BYTES);
        let runs = Arc::new(Runs::new(folder.to_owned(), tail_bytes as usize));
        let key_bytes = process_bytes - PROCESS_BYTES - tail_bytes;
        let builder = builder.memory_limit(key_bytes, OnFull::Spill);
        let deduper = builder.confirm(Arc::clone(&runs), Ownership::Exclusive, Reject).build();
        Ok(Self {
            deduper: deduper.map_err(|error| Failure::config(error, 1))?,
            runs,
            folder: folder.to_owned(),
            until_upkeep: Cell::new(KEYS_PER_UPKEEP),
        })
    }

    /// Checks `keys` in order, each at its own time if there are `times`.
    pub(crate) fn check(
        &self,
        keys: &[&[u8]],
        times: Option<&[Timestamp]>,
        verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        self.keep_up(keys.len());
        match times {
            Some(times) => self.deduper.check_batch_at(keys, times, verdicts),
            None => self.deduper.check_batch(keys, verdicts),
        }
    }

    /// Has what has expired dropped from the file, once in a while.
    fn keep_up(&self, keys: usize) {
        let left = self.until_upkeep.get().saturating_sub(keys);
        self.until_upkeep.set(if left == 0 { KEYS_PER_UPKEEP } else { left });
        if left == 0 {
            // A store that fails here fails the checks to come, too.
            let _ = self.deduper.maintain(Duration::ZERO);
        }
    }

    /// What it means for a record that the store failed.
    pub(crate) fn problem(&self, error: &StoreError) -> RecordProblem {
        let folder = self.folder.display().to_string();
        let cause = root(error);
        if cause.downcast_ref().is_some_and(is_for_want_of_room) {
            RecordProblem::SpillFull { folder }
        } else {
            RecordProblem::SpillFailed { folder, cause: cause.to_string() }
        }
    }

    /// The deduper's own counters.
    pub(crate) fn stats(&self) -> Stats {
        self.deduper.stats()
    }

    /// How much room the files take, in bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.runs.file_bytes()
    }
}

/// Fails if there can be no files in `folder`: before any input is read.
fn try_folder(folder: &Path) -> Result<(), Failure> {
    match tempfile::tempfile_in(folder) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::Spill {
            folder: folder.display().to_string(),
            cause: without_path(error).to_string(),
        }),
    }
}

/// tempfile adds a path that nobody has asked for.
fn without_path(error: io::Error) -> io::Error {
    let system_error = error.get_ref().and_then(|inner| inner.source());
    let system_error = system_error.and_then(|source| source.downcast_ref::<io::Error>());
    match system_error.unwrap_or(&error).raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error,
    }
}

fn is_for_want_of_room(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// What an error comes down to.
fn root<'error>(error: &'error (dyn Error + 'static)) -> &'error (dyn Error + 'static) {
    std::iter::successors(Some(error), |error| (*error).source()).last().unwrap_or(error)
}
