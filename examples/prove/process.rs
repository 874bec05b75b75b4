//! Other programs.

use crate::Failure;
use std::path::Path;
use std::process::Command;

/// The cargo that started this program, or the one on the path.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs `command` to its end and gives its standard output. Its standard error
/// goes into the failure, unless the command says where else.
pub(crate) fn output_of(command: &mut Command) -> Result<Vec<u8>, Failure> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_owned();
    let (program, status) = (program.display(), output.status);
    match String::from_utf8_lossy(&output.stderr).trim() {
        "" => Err(format!("{program}: {status}").into()),
        message => Err(format!("{program}: {status}: {message}").into()),
    }
}
