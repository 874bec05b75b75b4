//! What can go wrong, each in one line that says what to do.

use crate::event_time::TimeFormat;
use hapax::{BatchErrorKind, ConfigError, ConfigProblem};
use jiff::SignedDuration;
use std::io;
use std::path::Path;
use thiserror::Error;

/// As much of an input as a message quotes.
const EXCERPT_CHARS: usize = 160;

/// Why a run ended early.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The flags cannot be carried out.
    #[error("{0}")]
    Usage(String),
    /// The engine refused its configuration.
    #[error(transparent)]
    Config(ConfigError),
    /// There can be no file for the keys that do not fit into memory.
    #[error(
        "{folder}: no place for the keys that do not fit into memory: {cause}: give another folder \
         with -T"
    )]
    Spill { folder: String, cause: String },
    /// An input cannot be opened or read.
    #[error("{name}: {source}")]
    Input { name: String, source: io::Error },
    /// A file as a whole does not fit the run.
    #[error("{name}: {problem}")]
    File { name: String, problem: FileProblem },
    /// A record stopped the run.
    #[error("{name}: line {line}: {problem}")]
    Record { name: String, line: u64, problem: RecordProblem },
    /// An output cannot be written.
    #[error("{name}: {source}")]
    Output { name: String, source: io::Error },
    /// Whoever read the outputs has gone: nothing is left to do.
    #[error("the output was closed")]
    ClosedPipe,
}

impl Failure {
    /// A failure to write `path`.
    pub(crate) fn output(path: &Path, source: io::Error) -> Self {
        Self::Output { name: path.display().to_string(), source }
    }

    /// The engine refused its configuration; `sharers` such engines share the
    /// memory.
    pub(crate) fn config(error: ConfigError, sharers: u64) -> Self {
        match error.problems() {
            [ConfigProblem::LimitTooSmall { needed_bytes, .. }] => {
                Self::too_little_memory(needed_bytes * sharers)
            }
            _ => Self::Config(error),
        }
    }

    /// `--memory` is less than what is needed.
    pub(crate) fn too_little_memory(needed_bytes: u64) -> Self {
        let mebibytes = needed_bytes.div_ceil(1 << 20);
        Self::Usage(format!("--memory is too small: give at least {mebibytes}M"))
    }

    /// Wrong use that only shows when the files are opened.
    pub(crate) fn output_is_input(name: &str) -> Self {
        Self::Usage(format!(
            "{name}: the input is also the output: give it as `-o FILE`, which replaces it at the end"
        ))
    }
}

/// Why a file as a whole does not fit.
#[derive(Debug, Error)]
pub(crate) enum FileProblem {
    #[error("its header differs from that of the first file: give files with one header")]
    HeaderDiffers,
    #[error("no column `{wanted}`: the columns are {columns} (-n if there is no header)")]
    NoColumn { wanted: String, columns: String },
    #[error("several columns are called `{wanted}`: give its number, 1 to {columns}")]
    SeveralColumns { wanted: String, columns: usize },
}

/// Why a record could not be checked. `--on-error` says what happens to it.
#[derive(Debug, Error)]
pub(crate) enum RecordProblem {
    #[error("a quoted field is never closed: repair it, or give --on-error pass or drop")]
    Unclosed,
    #[error("not JSON ({}): repair it, or give --on-error pass or drop", within_line(.0))]
    NotJson(serde_json::Error),
    #[error("`{0}` is nested too deeply to be a key: repair it, or give --on-error pass or drop")]
    TooDeep(String),
    #[error("no field `{0}`: repair it, or give --on-error pass or drop")]
    MissingField(String),
    #[error(
        "`{text}` is no time ({expected}): give --time-format, repair it, or give --on-error pass \
         or drop"
    )]
    NotATime { text: String, expected: String },
    #[error(
        "its time is {0:#} beyond the latest seen: raise --max-ahead, or give --on-error pass or drop"
    )]
    TooFarAhead(SignedDuration),
    /// The run ends whatever `--on-error` says.
    #[error(
        "the memory limit is reached and the key is new: raise --memory, shorten --window, or give \
         --on-full spill or evict-oldest"
    )]
    Full,
    /// The run ends whatever `--on-error` says.
    #[error(
        "{folder} has no room left, and keys that do not fit into memory go there: free some, give \
         another folder with -T, or raise --memory"
    )]
    SpillFull { folder: String },
    /// The run ends whatever `--on-error` says.
    #[error(
        "{folder}: keys that do not fit into memory cannot be kept there: {cause}: give another folder \
         with -T"
    )]
    SpillFailed { folder: String, cause: String },
    /// The run ends whatever `--on-error` says.
    #[error(transparent)]
    Engine(BatchErrorKind),
}

impl RecordProblem {
    /// `text` is not written as `format` says.
    pub(crate) fn not_a_time(text: &[u8], format: &TimeFormat) -> Self {
        Self::NotATime { text: excerpt(text), expected: format.expected() }
    }
}

/// The beginning of `text` from an input, fit for a message: on one line, and
/// without what a terminal would obey.
pub(crate) fn excerpt(text: &[u8]) -> String {
    // A character has no more than four bytes.
    let text = String::from_utf8_lossy(&text[..text.len().min(EXCERPT_CHARS * 4 + 4)]);
    let mut excerpt = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == EXCERPT_CHARS {
            excerpt.push_str("...");
            break;
        }
        if character.is_control() {
            excerpt.extend(character.escape_debug());
        } else {
            excerpt.push(character);
        }
    }
    excerpt
}

/// The parser's message, which counts lines within a record that has one.
fn within_line(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_are_short_and_harmless() {
        assert_eq!(excerpt("a \u{1b}[2J\n\"é\"".as_bytes()), r#"a \u{1b}[2J\n"é""#);
        assert_eq!(excerpt(&[b'a'; EXCERPT_CHARS]).len(), EXCERPT_CHARS);
        let long = excerpt("é".repeat(1_000_000).as_bytes());
        assert_eq!(long.chars().count(), EXCERPT_CHARS + 3);
    }
}
