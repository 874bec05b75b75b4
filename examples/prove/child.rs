//! Work in a process of its own, whose memory nothing else has touched:
//! numbers go in as arguments and come out as lines.

use crate::speed::flood;
use crate::{Failure, claims, resident, slow_path};
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

/// The argument that makes this program a child.
pub(crate) const FLAG: &str = "--child";

pub(crate) type Job = fn(&[u64]) -> Result<Vec<u64>, Failure>;

const JOBS: [(&str, Job); 2] = [(resident::JOB, resident::grown_bytes), (flood::JOB, flood::run)];

/// What a child is to do.
pub(crate) struct Work {
    job: Job,
    numbers: Vec<u64>,
}

impl Work {
    /// Reads what [`run`] wrote: the job's name, and numbers.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let name = words.next().ok_or_else(|| format!("{FLAG} needs a job"))?;
        let mut jobs = JOBS.iter().chain(&slow_path::JOBS).chain(&claims::JOBS);
        let job = jobs.find(|(known, _)| *known == name);
        let (_, job) = job.ok_or_else(|| format!("unknown job '{name}'"))?;
        let numbers: Result<_, _> = words.map(|word| word.parse()).collect();
        Ok(Self { job: *job, numbers: numbers.map_err(|_| format!("{name} takes numbers"))? })
    }

    /// Does it and prints what it gave.
    pub(crate) fn run(&self) -> ExitCode {
        match (self.job)(&self.numbers) {
            Ok(figures) => {
                for figure in figures {
                    println!("{figure}");
                }
                ExitCode::SUCCESS
            }
            Err(failure) => {
                eprintln!("{failure}");
                ExitCode::FAILURE
            }
        }
    }
}

/// Has a child do the job of this name.
pub(crate) fn run(job: &str, numbers: &[u64]) -> Result<Vec<u64>, Failure> {
    let output = command(job, numbers)?.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().into());
    }
    let figures = String::from_utf8(output.stdout)?;
    figures.lines().map(|line| Ok(line.parse()?)).collect()
}

fn command(job: &str, numbers: &[u64]) -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([FLAG, job]).args(numbers.iter().map(ToString::to_string));
    Ok(command)
}

/// A child whose job has rounds: each begins when it is asked for.
pub(crate) struct InTurns {
    child: Child,
    /// `None` when the last round has been asked for.
    turns: Option<ChildStdin>,
    rounds: Lines<BufReader<ChildStdout>>,
}

impl InTurns {
    /// A child that does the job of this name, which calls [`rounds`].
    pub(crate) fn start(job: &str, numbers: &[u64]) -> Result<Self, Failure> {
        let mut command = command(job, numbers)?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (turns, rounds) = (child.stdin.take(), child.stdout.take());
        let rounds = BufReader::new(rounds.ok_or("no pipe to read from")?).lines();
        Ok(Self { child, turns, rounds })
    }

    /// Has the child do a round, and gives its figures.
    pub(crate) fn next(&mut self) -> Result<Vec<u64>, Failure> {
        self.turns.as_mut().ok_or("no pipe to write to")?.write_all(b"\n")?;
        let line = self.rounds.next().ok_or("the child has ended early")??;
        line.split(' ').map(|figure| Ok(figure.parse()?)).collect()
    }

    /// Ends it at once, in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for InTurns {
    fn drop(&mut self) {
        self.turns = None;
        let _ = self.child.wait();
    }
}

/// In a child: a round each time that the parent asks for one, until it asks
/// for no more.
pub(crate) fn rounds(
    mut round: impl FnMut() -> Result<Vec<u64>, Failure>,
) -> Result<Vec<u64>, Failure> {
    for turn in std::io::stdin().lines() {
        turn?;
        let figures: Vec<_> = round()?.iter().map(ToString::to_string).collect();
        println!("{}", figures.join(" "));
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Work, String> {
        Work::parse(words.iter().map(ToString::to_string))
    }

    #[test]
    fn a_job_and_its_numbers_are_read() {
        assert_eq!(parsed(&[resident::JOB, "1", "23"]).unwrap().numbers, [1, 23]);
    }

    #[test]
    fn an_unknown_job_and_a_word_for_a_number_are_refused() {
        for words in [&["nonsense", "1"][..], &[resident::JOB, "many"], &[]] {
            assert!(parsed(words).is_err());
        }
    }
}
