//! Which files are one, whatever they are called.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Which file of the whole system it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Where an output goes: two outputs at one place would destroy each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Existing(FileId),
    New { folder: FileId, name: OsString },
}

impl Place {
    /// The place that `path` leads to.
    ///
    /// # Errors
    ///
    /// Not even its folder is there.
    pub(crate) fn of_path(path: &Path) -> io::Result<Self> {
        if let Ok(existing) = fs::metadata(path) {
            return Ok(Self::Existing(FileId::of(&existing)));
        }
        let folder = FileId::of(&fs::metadata(folder(path))?);
        Ok(Self::New { folder, name: path.file_name().unwrap_or_default().to_owned() })
    }

    /// The place of an open file or stream.
    pub(crate) fn of_open(open: impl AsFd) -> io::Result<Self> {
        Ok(Self::Existing(FileId::of(&metadata(open)?)))
    }
}

/// True iff `open` is a regular file, not a pipe, a terminal or another device.
pub(crate) fn is_regular_file(open: impl AsFd) -> bool {
    metadata(open).is_ok_and(|metadata| metadata.is_file())
}

fn metadata(open: impl AsFd) -> io::Result<Metadata> {
    File::from(open.as_fd().try_clone_to_owned()?).metadata()
}

/// The folder that `path` is in.
pub(crate) fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}
