//! A file that takes another one's place whole, or leaves no trace.

use crate::place::folder;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempPath;

/// What the permissions of a new file are, before the user's mask.
const NEW_FILE_MODE: u32 = 0o666;

/// What files are called that have yet to take their place.
const PREFIX: &str = ".hapax-";

/// The open files of this process, by which a file without a name gets one.
const OPEN_FILES: &str = "/proc/self/fd";

/// A file in the target's folder that takes the target's place at the end.
#[derive(Debug)]
pub(crate) struct Replacement {
    file: File,
    /// `None`: it has no name yet, so that nothing is left of it however the
    /// process ends. Removed when dropped.
    name: Option<TempPath>,
    target: PathBuf,
}

impl Replacement {
    /// An empty file for the place of `target`.
    pub(crate) fn of(target: PathBuf) -> io::Result<Self> {
        match nameless(folder(&target)) {
            // Not every file system has such files.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => named(target),
            file => Ok(Self { file: file?, name: None, target }),
        }
    }

    /// Sets the permissions that the target will have.
    pub(crate) fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        self.file.set_permissions(permissions)
    }

    /// Takes the target's place.
    pub(crate) fn take_place(self) -> io::Result<()> {
        // Without it a crash could leave the new name on an empty file.
        self.file.sync_all()?;
        let name = self.name.map_or_else(|| give_name(&self.file, &self.target), Ok)?;
        name.persist(self.target).map_err(|error| error.error)
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        // It has no buffer of its own.
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn nameless(folder: &Path) -> io::Result<File> {
    if !Path::new(OPEN_FILES).exists() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(folder, flags, Mode::from_raw_mode(NEW_FILE_MODE))?;
    Ok(file.into())
}

#[cfg(not(target_os = "linux"))]
fn nameless(_: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

fn named(target: PathBuf) -> io::Result<Replacement> {
    let folder = folder(&target);
    // Its error names no file that the user never heard of.
    fs::metadata(folder)?;
    let file = tempfile::Builder::new()
        .prefix(PREFIX)
        .permissions(Permissions::from_mode(NEW_FILE_MODE))
        .tempfile_in(folder)
        .map_err(|error| io::Error::from(error.kind()))?;
    let (file, name) = file.into_parts();
    Ok(Replacement { file, name: Some(name), target })
}

/// Links `file`, which has no name, beside `target`.
fn give_name(file: &File, target: &Path) -> io::Result<TempPath> {
    let unnamed = Path::new(OPEN_FILES).join(file.as_raw_fd().to_string());
    let link = |name: &Path| {
        rustix::fs::linkat(CWD, &unnamed, CWD, name, AtFlags::SYMLINK_FOLLOW)?;
        Ok(())
    };
    let linked = tempfile::Builder::new().prefix(PREFIX).make_in(folder(target), link)?;
    Ok(linked.into_temp_path())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in a folder after `make` began to replace `target` in it, and
    /// the target's text when it has.
    fn outcome(make: fn(PathBuf) -> io::Result<Replacement>) -> (usize, String) {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        fs::write(&target, "old").unwrap();
        let mut replacement = make(target.clone()).unwrap();
        replacement.write_all(b"new").unwrap();
        let files_meanwhile = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(fs::read_to_string(&target).unwrap(), "old");
        replacement.take_place().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        (files_meanwhile, fs::read_to_string(target).unwrap())
    }

    #[test]
    fn takes_the_place_whole_with_a_name_or_without() {
        assert_eq!(outcome(named), (2, "new".to_owned()));
        assert_eq!(outcome(Replacement::of).1, "new");
    }
}
