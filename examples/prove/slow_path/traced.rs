//! Whether an embedded store that promises `synced` has a sync behind each
//! acknowledgement, as the system's calls show.

use crate::keys::key;
use crate::report::{Report, Status, grouped};
use crate::{Failure, Options, child};
use hapax::Window;
use hapax::confirm::{Answer, Bucket, Confirmer as _, EmbeddedConfirmer, Rule, Sighting, Token};
use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;

/// The name of [`work`] as a child's work.
pub(crate) const TRACED: &str = "traced";

const BATCH: u64 = 64;

/// Callers at once, and each one's batches: one alone, and many that share commits.
const CALLERS: [(u64, u64); 2] = [(1, 200), (16, 25)];

pub(super) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let times = if full { 10 } else { 1 };
    report.take("synced, by a trace of system calls", "a sync before each acknowledgement", || {
        let mut found = Found::default();
        for (callers, batches) in CALLERS {
            found += trace(callers, batches * times)?;
        }
        let Found { acknowledged, unsynced } = found;
        let figure = format!("{} of {} without", grouped(unsynced), grouped(acknowledged));
        let expected: u64 =
            CALLERS.iter().map(|(callers, batches)| callers * batches * times).sum();
        Ok((figure, Status::of_run(unsynced == 0 && acknowledged == expected, !full)))
    });
}

/// With `[callers, batches]`: records that many batches, and says on standard
/// output when each begins and when it is acknowledged.
pub(super) fn work(numbers: &[u64]) -> Result<Vec<u64>, Failure> {
    let [callers, batches] = *numbers else { return Err("two numbers are needed".into()) };
    let folder = tempfile::tempdir()?;
    let store = EmbeddedConfirmer::builder(folder.path().join("keys")).open()?;
    let call = |number: u64| {
        say("begin", number);
        record(&store, number);
        say("end", number);
    };
    thread::scope(|scope| {
        for caller in 0..callers {
            scope.spawn(move || (caller * batches..(caller + 1) * batches).for_each(call));
        }
    });
    Ok(Vec::new())
}

fn record(store: &EmbeddedConfirmer, number: u64) {
    let keys: Vec<_> = (number * BATCH..(number + 1) * BATCH).map(key).collect();
    let sighting =
        |(key, token)| Sighting { key, bucket: Bucket::new(1), token: Token::new(token) };
    let sightings: Vec<_> = keys.iter().map(<[u8; 16]>::as_slice).zip(0..).map(sighting).collect();
    let answers = store.confirm(&sightings, Rule::of(&Window::unbounded()));
    assert_eq!(answers.expect("the disk works"), vec![Answer::New; sightings.len()]);
}

/// In one call of the system.
fn say(what: &str, number: u64) {
    let line = format!("{what} {number}\n");
    std::io::stdout().write_all(line.as_bytes()).expect("somebody listens");
}

fn trace(callers: u64, batches: u64) -> Result<Found, Failure> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", "trace=write,pwrite64,fsync,fdatasync", "-e", "signal=none", "-o"]);
    strace.arg(&path).arg(std::env::current_exe()?).args([child::FLAG, TRACED]);
    strace.args([callers, batches].map(|number| number.to_string())).stdout(Stdio::null());
    let status = strace.status().map_err(|error| format!("strace does not run: {error}"))?;
    if !status.success() {
        return Err(format!("strace: {status}").into());
    }
    Ok(Trace::read(&fs::read_to_string(path)?).judge(callers == 1))
}

/// How many batches were acknowledged, and how many of them too early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    acknowledged: u64,
    unsynced: u64,
}

impl std::ops::AddAssign for Found {
    fn add_assign(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.unsynced += other.unsynced;
    }
}

/// What strace has seen, by numbers of its lines.
#[derive(Default)]
struct Trace {
    /// By number of the batch.
    begun: HashMap<u64, usize>,
    ended: Vec<(u64, usize)>,
    written: Vec<usize>,
    /// Syncs that succeeded: their begin and end.
    synced: Vec<(usize, usize)>,
}

impl Trace {
    fn read(text: &str) -> Self {
        let mut trace = Self::default();
        let mut syncing = HashMap::new();
        for (line, text) in text.lines().enumerate() {
            let Some((process, call)) = text.split_once(' ') else { continue };
            let call = call.trim_start();
            if let Some(number) = said(call, "begin ") {
                trace.begun.insert(number, line);
            } else if let Some(number) = said(call, "end ") {
                trace.ended.push((number, line));
            } else if call.starts_with("pwrite64(") {
                trace.written.push(line);
            } else if call.starts_with("fsync(") || call.starts_with("fdatasync(") {
                syncing.insert(process, line);
            }
            let is_sync = call.starts_with("fsync(")
                || call.starts_with("fdatasync(")
                || call.starts_with("<... fsync resumed")
                || call.starts_with("<... fdatasync resumed");
            if is_sync && call.ends_with("= 0") {
                trace.synced.extend(syncing.remove(process).map(|begin| (begin, line)));
            }
        }
        trace
    }

    /// An acknowledgement needs a whole sync since its batch began; and if nobody
    /// else writes, since the last write.
    fn judge(&self, is_alone: bool) -> Found {
        let is_unsynced = |&&(number, end): &&(u64, usize)| {
            let Some(&begin) = self.begun.get(&number) else { return true };
            let last_write = self.written.iter().rfind(|write| **write < end).filter(|_| is_alone);
            let from = begin.max(last_write.copied().unwrap_or(0));
            !self.synced.iter().any(|(begin, done)| *begin > from && *done < end)
        };
        Found {
            acknowledged: self.ended.len() as u64,
            unsynced: self.ended.iter().filter(is_unsynced).count() as u64,
        }
    }
}

/// The number after `what` in a line that was written to standard output.
fn said(call: &str, what: &str) -> Option<u64> {
    let text = call.strip_prefix("write(1, \"")?.strip_prefix(what)?;
    text.split('\\').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lines: &[&str], is_alone: bool) -> (u64, u64) {
        let Found { acknowledged, unsynced } = Trace::read(&lines.join("\n")).judge(is_alone);
        (acknowledged, unsynced)
    }

    const BEGIN: &str = r#"7 write(1, "begin 3\n", 8) = 8"#;
    const WRITE: &str = "7  pwrite64(5, \"\\0\"..., 4096, 0) = 4096";
    const SYNC: &str = "7 fdatasync(5) = 0";
    const END: &str = r#"7 write(1, "end 3\n", 6) = 6"#;

    #[test]
    fn a_sync_in_time_is_found() {
        assert_eq!(found(&[BEGIN, WRITE, SYNC, END], true), (1, 0));
        let parts = ["8 fdatasync(5 <unfinished ...>", "8 <... fdatasync resumed>) = 0"];
        assert_eq!(found(&[BEGIN, parts[0], WRITE, parts[1], END], false), (1, 0));
    }

    #[test]
    fn a_sync_too_early_too_late_or_failed_is_none() {
        assert_eq!(found(&[SYNC, BEGIN, WRITE, END, SYNC], true), (1, 1));
        assert_eq!(found(&[BEGIN, SYNC, WRITE, END], true), (1, 1));
        let failed = "7 fdatasync(5) = -1 EIO (Input/output error)";
        assert_eq!(found(&[BEGIN, WRITE, failed, END], true), (1, 1));
        let parts = ["8 fdatasync(5 <unfinished ...>", "8 <... fdatasync resumed>) = 0"];
        assert_eq!(found(&[BEGIN, parts[0], END, parts[1]], false), (1, 1));
        assert_eq!(found(&[parts[0], BEGIN, parts[1], END], false), (1, 1));
    }
}
