//! Work in a process of its own, whose memory nothing else has touched:
//! numbers go in as arguments and come out as lines.

use crate::speed::flood;
use crate::{Failure, resident};
use std::process::{Command, ExitCode};

/// The argument that makes this program a child.
pub(crate) const FLAG: &str = "--child";

type Job = fn(&[u64]) -> Result<Vec<u64>, Failure>;

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
        let job = JOBS.iter().find(|(known, _)| *known == name);
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
    let words = numbers.iter().map(ToString::to_string);
    let output = Command::new(std::env::current_exe()?).args([FLAG, job]).args(words).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().into());
    }
    let figures = String::from_utf8(output.stdout)?;
    figures.lines().map(|line| Ok(line.parse()?)).collect()
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
