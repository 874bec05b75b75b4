//! Tests of the project, run by cargo.

use crate::Failure;
use crate::process;
use std::process::Command;

/// A test or several: where cargo finds them, and what their names contain.
#[derive(Clone, Copy)]
pub(super) struct Tests {
    /// Arguments for cargo that choose a test binary.
    pub(super) target: &'static [&'static str],
    pub(super) filter: &'static str,
}

/// What came of them.
pub(super) struct Outcome {
    pub(super) is_passed: bool,
    /// How many passed.
    pub(super) passed: u64,
    /// All that was printed.
    pub(super) text: String,
}

impl Tests {
    /// Runs them, with these variables set.
    pub(super) fn run(self, variables: &[(&str, String)]) -> Result<Outcome, Failure> {
        let output = self.command().envs(variables.iter().cloned()).output()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let passed = passed_in(&text);
        let is_skipped = text.lines().any(|line| line.starts_with("skipped: "));
        Ok(Outcome {
            is_passed: output.status.success() && passed > 0 && !is_skipped,
            passed,
            text,
        })
    }

    fn command(self) -> Command {
        let mut command = process::cargo();
        command.args(["test", "--quiet", "--all-features"]).args(self.target);
        command.args(["--", "--nocapture", self.filter]);
        command
    }
}

/// How many tests passed, by all the lines that say so.
fn passed_in(text: &str) -> u64 {
    let results = text.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    results.filter_map(|result| result.split(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_tests_are_added_up() {
        let text = "test result: ok. 3 passed; 0 failed\n\ntest result: ok. 12 passed; 0 failed\n";
        assert_eq!(passed_in(text), 15);
        assert_eq!(passed_in("test result: FAILED. 3 passed; 1 failed"), 0);
    }
}
