//! The README's commands, as written, in a fresh clone with nothing built.

use crate::Failure;
use crate::report::{Report, Status};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// How many commands the README promises.
const COMMANDS: usize = 2;

pub(crate) fn measure(full: bool, report: &mut Report) {
    report.take("README commands in a fresh clone", "both end with status 0", || {
        let commands = commands(&fs::read_to_string("README.md")?);
        if commands.len() != COMMANDS {
            return Err(format!("the README has {} commands, not 2", commands.len()).into());
        }
        if !full {
            return Ok(("2 commands found, not run".into(), Status::Short));
        }
        let folder = tempfile::tempdir()?;
        let clone = folder.path().join("hapax");
        clone_into(&clone)?;
        let seconds =
            commands.iter().map(|command| run(command, &clone)).collect::<Result<Vec<_>, _>>()?;
        Ok((format!("took {} s and {} s", seconds[0], seconds[1]), Status::Ok))
    });
}

/// What stands in the `sh` blocks of `readme`, one command each.
fn commands(readme: &str) -> Vec<String> {
    let blocks = readme.split("\n```sh\n").skip(1);
    blocks.filter_map(|block| block.split("\n```").next()).map(str::to_owned).collect()
}

/// Clones what is committed; changes that are not do not count.
fn clone_into(clone: &Path) -> Result<(), Failure> {
    let status = Command::new("git").args(["clone", "--quiet", "."]).arg(clone).status()?;
    if status.success() { Ok(()) } else { Err(format!("git clone: {status}").into()) }
}

/// Runs `command` in `clone` as a person would and gives its seconds.
fn run(command: &str, clone: &Path) -> Result<u64, Failure> {
    let started = Instant::now();
    let mut shell = Command::new("bash");
    shell.args(["-c", command]).current_dir(clone).stdin(Stdio::null());
    // What cargo tells the programs it runs would leak into the clone's cargo.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text == "CARGO_TARGET_DIR"
            || text == "CARGO"
            || text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
        {
            shell.env_remove(&name);
        }
    }
    let output = shell.output()?;
    if output.status.success() {
        return Ok(started.elapsed().as_secs());
    }
    let all = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&all);
    let last: Vec<_> = text.lines().rev().take(15).collect();
    let last: Vec<_> = last.into_iter().rev().collect();
    Err(format!("{}: {command}\n{}", output.status, last.join("\n")).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_holds_exactly_two_commands() {
        let commands = commands(include_str!("../../README.md"));
        assert_eq!(commands.len(), COMMANDS);
        assert!(commands[0].starts_with("cargo run --release --features cli -- dedup "));
        assert_eq!(commands[1], "scripts/test");
    }

    #[test]
    fn only_sh_blocks_are_commands() {
        let readme = "a\n```sh\none \\\n  two\n```\n```rust\nlet x;\n```\n```console\n$ no\n```\n";
        assert_eq!(commands(readme), ["one \\\n  two"]);
    }
}
