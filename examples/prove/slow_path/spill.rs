//! `hapax dedup` on more distinct lines than its memory holds.

use crate::end_to_end::hapax;
use crate::keys::mixed;
use crate::report::{Report, Status, grouped};
use crate::{Failure, Options};
use std::fs;
use std::io::{BufWriter, Read as _, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;

const FULL_LINES: u64 = 50_000_000;
const SHORT_LINES: u64 = 3_000_000;

/// After so many new lines one of those before comes again.
const REPEAT_EVERY: u64 = 16;

const FULL_MEMORY_MIB: u64 = 256;
/// A shortened run's: it must not hold all lines either.
const SHORT_MEMORY_MIB: u64 = 48;

/// What the program takes besides.
const SLACK_MIB: u64 = 14;

pub(super) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let (lines, memory_mib) =
        if full { (FULL_LINES, FULL_MEMORY_MIB) } else { (SHORT_LINES, SHORT_MEMORY_MIB) };
    let what = format!("--memory {memory_mib}M --on-full spill, {} M lines", lines / 1_000_000);
    let most_mib = memory_mib + SLACK_MIB;
    report.take(&what, &format!("exact, at most {most_mib} MiB"), || {
        let Outcome { is_exact, resident_mib } = dedup(lines, memory_mib)?;
        let exact = if is_exact { "exact" } else { "DIFFERENT" };
        let figure = format!("{exact}, {} MiB", grouped(resident_mib));
        Ok((figure, Status::of_run(is_exact && resident_mib <= most_mib, !full)))
    });
}

struct Outcome {
    is_exact: bool,
    /// The most there was.
    resident_mib: u64,
}

/// Has the command line read lines, some of which come again, and compares what
/// it writes as it comes.
fn dedup(lines: u64, memory_mib: u64) -> Result<Outcome, Failure> {
    let mut child = Command::new(hapax()?)
        .args(["dedup", "--quiet", "--on-full", "spill", "--memory", &format!("{memory_mib}M")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let input = child.stdin.take().ok_or("no pipe to write to")?;
    let output = child.stdout.take().ok_or("no pipe to read from")?;
    let outcome = thread::scope(|scope| {
        // If the other end is gone, its exit status says more than this would.
        scope.spawn(move || write_lines(BufWriter::with_capacity(1 << 16, input), lines).is_ok());
        compare(&child, output, lines)
    });
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("hapax: {status}").into());
    }
    outcome
}

/// Distinct lines in no order.
fn line(number: u64) -> String {
    format!("{:016x} {number}\n", mixed(number))
}

fn write_lines(mut input: impl Write, lines: u64) -> std::io::Result<()> {
    for number in 0..lines {
        input.write_all(line(number).as_bytes())?;
        if number % REPEAT_EVERY == 0 {
            input.write_all(line(mixed(number) % (number + 1)).as_bytes())?;
        }
    }
    input.flush()
}

fn compare(child: &Child, mut output: ChildStdout, lines: u64) -> Result<Outcome, Failure> {
    let (mut is_exact, mut resident_kib) = (true, 0);
    let (mut buffer, mut expected) = (vec![0; 1 << 20], Vec::new());
    let mut numbers = 0..lines;
    loop {
        let length = output.read(&mut buffer)?;
        // None once the child has ended.
        resident_kib = resident_kib.max(most_resident_kib(child).unwrap_or(0));
        if length == 0 {
            break;
        }
        while expected.len() < length {
            let Some(number) = numbers.next() else { break };
            expected.extend_from_slice(line(number).as_bytes());
        }
        let due = length.min(expected.len());
        is_exact &= buffer[..length] == expected[..due];
        expected.drain(..due);
    }
    is_exact &= expected.is_empty() && numbers.is_empty();
    Ok(Outcome { is_exact, resident_mib: resident_kib.div_ceil(1_024) })
}

/// The most memory that a process has had so far.
fn most_resident_kib(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_lines_come_again() {
        let mut input = Vec::new();
        write_lines(&mut input, 33).unwrap();
        let input = String::from_utf8(input).unwrap();
        let distinct: std::collections::HashSet<_> = input.lines().collect();
        assert_eq!((input.lines().count(), distinct.len()), (36, 33));
    }
}
