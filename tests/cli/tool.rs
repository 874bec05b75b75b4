//! Running the tool.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use tempfile::TempDir;

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: i32,
    pub(crate) output: Vec<u8>,
    pub(crate) errors: String,
}

impl Outcome {
    /// The output of a run that must have succeeded in silence.
    #[track_caller]
    pub(crate) fn ok(self) -> Vec<u8> {
        assert_eq!((self.status, self.errors.as_str()), (0, ""));
        self.output
    }

    /// The same as text.
    #[track_caller]
    pub(crate) fn text(self) -> String {
        String::from_utf8(self.ok()).expect("text went in")
    }

    /// The message of a run that must have failed with one line.
    #[track_caller]
    pub(crate) fn failure(&self) -> &str {
        assert_eq!(self.status, 2, "{}", self.errors);
        assert_eq!(self.errors.lines().count(), 1, "{}", self.errors);
        self.errors.strip_prefix("hapax: ").expect("says who speaks").trim_end()
    }
}

/// `hapax dedup` with `args`, its streams piped.
pub(crate) fn command<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hapax"));
    command.arg("dedup").args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs `hapax dedup` with `args`, and `input` on a pipe.
pub(crate) fn dedup<A: AsRef<OsStr>>(
    args: impl IntoIterator<Item = A>,
    input: impl AsRef<[u8]>,
) -> Outcome {
    let mut child = command(args).spawn().expect("the tool starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    let input = input.as_ref().to_vec();
    // That the tool stops reading early is for the test to judge.
    let writer = thread::spawn(move || drop(pipe.write_all(&input)));
    let outcome = wait(child);
    writer.join().expect("the writer does not panic");
    outcome
}

/// Waits for the end of a run.
pub(crate) fn wait(child: Child) -> Outcome {
    let output = child.wait_with_output().expect("the tool ends");
    Outcome {
        status: output.status.code().expect("no signal ends it"),
        output: output.stdout,
        errors: String::from_utf8(output.stderr).expect("messages are text"),
    }
}

/// A folder for one test.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().expect("a folder for temporary files"))
    }

    /// The path of `name` in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("room for a file");
        path
    }

    /// The names of all files in it, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("the folder is there");
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// The bytes of a file.
pub(crate) fn read(path: &Path) -> Vec<u8> {
    fs::read(path).expect("the file was written")
}
