//! Where input comes from.

use crate::error::Failure;
use crate::place::{FileId, Place};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// An input as the user named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    StandardInput,
    Path(PathBuf),
}

impl Origin {
    /// `-` is standard input.
    pub(crate) fn new(path: &Path) -> Self {
        if path == Path::new("-") { Self::StandardInput } else { Self::Path(path.to_owned()) }
    }

    fn name(&self) -> String {
        match self {
            Self::StandardInput => "standard input".to_owned(),
            Self::Path(path) => path.display().to_string(),
        }
    }

    fn open(&self) -> io::Result<File> {
        match self {
            Self::StandardInput => Ok(io::stdin().as_fd().try_clone_to_owned()?.into()),
            Self::Path(path) => File::open(path),
        }
    }
}

/// An input that was opened once, so that it can surely be read.
#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    origin: Origin,
    /// Empty for a regular file that is opened again at its turn: any number
    /// of them may be given. Opening a pipe twice would disturb its writer.
    file: Option<File>,
    regular: Option<(FileId, u64)>,
}

impl Source {
    /// Opens `origin`.
    pub(crate) fn open(origin: &Origin) -> Result<Self, Failure> {
        let name = origin.name();
        let failed = |source| Failure::Input { name: name.clone(), source };
        let file = origin.open().map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let regular = metadata.is_file().then(|| (FileId::of(&metadata), metadata.len()));
        let reopens = regular.is_some() && *origin != Origin::StandardInput;
        let file = (!reopens).then_some(file);
        Ok(Self { name, origin: origin.clone(), file, regular })
    }

    /// The name for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The size of a regular file; `None` for pipes, terminals and the like.
    pub(crate) fn file_bytes(&self) -> Option<u64> {
        self.regular.map(|(_, bytes)| bytes)
    }

    /// True iff it is the regular file at `place`.
    pub(crate) fn is_at(&self, place: &Place) -> bool {
        self.regular.is_some_and(|(id, _)| *place == Place::Existing(id))
    }

    /// Begins to read.
    pub(crate) fn start(&mut self) -> Result<Input, Failure> {
        let file = self.file.take().map_or_else(|| self.origin.open(), Ok);
        let file = file.map_err(|error| self.failed(error))?;
        Ok(Input { file, may_block: self.regular.is_none() })
    }

    /// A failure to read it.
    pub(crate) fn failed(&self, source: io::Error) -> Failure {
        Failure::Input { name: self.name.clone(), source }
    }
}

/// An input being read.
#[derive(Debug)]
pub(crate) struct Input {
    file: File,
    may_block: bool,
}

impl Input {
    /// True iff the next read would have to wait.
    pub(crate) fn would_block(&self) -> bool {
        if !self.may_block {
            return false;
        }
        let mut polled = [PollFd::new(&self.file, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // On an error the answer is the one that never delays output.
        poll(&mut polled, Some(&at_once)).map_or(true, |ready| ready == 0)
    }
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.file.read(into)
    }
}
