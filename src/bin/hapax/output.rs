//! Where records go: a stream, or a file written whole or not at all.

use crate::error::Failure;
use crate::replacement::Replacement;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Enough that system calls do not show.
const BUFFER_BYTES: usize = 256 << 10;

/// A buffered output of records.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    writer: BufWriter<Sink>,
    /// Goes between a record without terminator and the next one.
    separator: u8,
    is_separator_due: bool,
    written_bytes: u64,
    /// Whoever read it has gone: the rest is thrown away.
    is_closed: bool,
}

/// What is behind the buffer.
#[derive(Debug)]
enum Sink {
    /// Written as it comes: standard output, pipes and devices.
    Stream(File),
    Replacement(Replacement),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stream(file) => file.write(bytes),
            Self::Replacement(replacement) => replacement.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        // Neither has a buffer of its own.
        Ok(())
    }
}

impl Output {
    /// Standard output.
    pub(crate) fn standard(separator: u8) -> Result<Self, Failure> {
        let path = Path::new("standard output");
        // Not through `std`'s handle, which looks for newlines in all it gets.
        let file = io::stdout().as_fd().try_clone_to_owned();
        let file = file.map_err(|error| Failure::output(path, error))?;
        Ok(Self::new(path.to_owned(), Sink::Stream(file.into()), separator))
    }

    /// The file at `path`, which stays as it is until [`finish`](Self::finish).
    /// Where something other than a regular file is there, it is written to.
    pub(crate) fn file(path: &Path, separator: u8) -> Result<Self, Failure> {
        let sink = open(path).map_err(|error| Failure::output(path, error))?;
        Ok(Self::new(path.to_owned(), sink, separator))
    }

    fn new(path: PathBuf, sink: Sink, separator: u8) -> Self {
        let writer = BufWriter::with_capacity(BUFFER_BYTES, sink);
        Self {
            path,
            writer,
            separator,
            is_separator_due: false,
            written_bytes: 0,
            is_closed: false,
        }
    }

    /// Writes a record's bytes. `is_terminated`: they end in a terminator; if
    /// not, a separator is written should anything follow.
    pub(crate) fn write(&mut self, record: &[u8], is_terminated: bool) -> Result<(), Failure> {
        if std::mem::replace(&mut self.is_separator_due, !is_terminated) {
            self.write_bytes(&[self.separator])?;
        }
        self.write_bytes(record)
    }

    /// As [`write`](Self::write), with `prefix` before the record.
    pub(crate) fn write_prefixed(
        &mut self,
        prefix: &[u8],
        record: &[u8],
        is_terminated: bool,
    ) -> Result<(), Failure> {
        self.write(prefix, true)?;
        self.write(record, is_terminated)
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.is_closed {
            return Ok(());
        }
        self.written_bytes += bytes.len() as u64;
        let outcome = self.writer.write_all(bytes);
        self.note(outcome)
    }

    /// A closed pipe is no failure: another output may go on.
    fn note(&mut self, outcome: io::Result<()>) -> Result<(), Failure> {
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(())
            }
            outcome => outcome.map_err(|error| Failure::output(&self.path, error)),
        }
    }

    /// True iff nobody will read what is written from now on.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// How many bytes were written so far.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Hands on what is buffered.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        if self.is_closed {
            return Ok(());
        }
        let outcome = self.writer.flush();
        self.note(outcome)
    }

    /// Writes the rest; a file takes its name only now.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.flush()?;
        // What is left in the buffer of a closed pipe is thrown away with it.
        let (sink, _) = self.writer.into_parts();
        match sink {
            Sink::Stream(_) => Ok(()),
            Sink::Replacement(replacement) => {
                replacement.take_place().map_err(|error| Failure::output(&self.path, error))
            }
        }
    }
}

fn open(path: &Path) -> io::Result<Sink> {
    match fs::metadata(path) {
        Ok(_) if is_descriptor(path) => File::options().append(true).open(path).map(Sink::Stream),
        Ok(existing) if existing.is_file() => {
            // Through links, so that the link stays and its target is replaced.
            let replacement = Replacement::of(fs::canonicalize(path)?)?;
            replacement.set_permissions(existing.permissions())?;
            Ok(Sink::Replacement(replacement))
        }
        Ok(_) => File::options().write(true).open(path).map(Sink::Stream),
        Err(_) if path.as_os_str().as_bytes().ends_with(b"/") => {
            Err(io::ErrorKind::IsADirectory.into())
        }
        Err(_) => Replacement::of(path.to_owned()).map(Sink::Replacement),
    }
}

/// True iff `path` names what this process was given open. Whoever opened it
/// would not see another file take its place.
fn is_descriptor(path: &Path) -> bool {
    ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"].iter().any(|name| path.starts_with(name))
}
