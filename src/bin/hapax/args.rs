//! The flags as typed, before anything is made of them.

use crate::event_time::TimeFormat;
use crate::quantity::{self, Delimiter, Size};
use clap::{Args, Parser, Subcommand, ValueEnum};
use hapax::Mode;
use std::path::PathBuf;
use std::time::Duration;

/// Drops duplicates from files and streams.
#[derive(Debug, Parser)]
#[command(name = "hapax", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copy input to output in order, dropping duplicates; the first sighting wins.
    Dedup(Box<DedupArgs>),
}

// Not as doc comments, where brackets would be links.
const KEY_HELP: &str = "\
What makes a record itself: a column's name, or its number from 1 (a name wins); a JSON path such as \
.a.b[0] or .[\"a b\"]. Repeat it for a composite key. Default: the whole line";

const KEY_DETAILS: &str = "\
Columns compare by their unquoted value. JSON strings compare by their decoded value, numbers as \
written (1.0 is not 1), objects whatever the order of their members; null is missing, and the string \
\"1\" is not the number 1.";

const EXAMPLES: &str = "\
Examples:
  hapax dedup access.log                          each line once, in order
  tail -f app.log | hapax dedup --window 10m      no line twice within ten minutes
  hapax dedup -k order_id orders-*.csv -o all.csv one row per order, several files
  hapax dedup -k .tenant -k .id -t .at --window 1h events.jsonl
  hapax dedup --format csv --delimiter ' ' -n -k 1 -k 6 -t 4 \\
      --time-format '[%d/%b/%Y:%H:%M:%S' --window 10m --lateness 60s access.log
  hapax dedup -c words.txt | sort -rn             how often each line occurs

Bytes are copied untouched, whatever they are. Blank lines between the records of csv and of parsed
jsonl are no records and are copied too. Records that are passed on unchecked (late, or --on-error
pass) do not appear under -d and -D.

Exit status: 0 success, 2 failure; a closed pipe is a quiet success.";

/// `hapax dedup`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct DedupArgs {
    /// Files to read in order; `-` or none: standard input
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// Format of the input; guessed from the files' ending (.csv .tsv .jsonl .ndjson), else lines
    #[arg(long, value_enum, help_heading = "Records")]
    pub(crate) format: Option<FormatName>,

    /// One byte that separates the fields of csv and tsv; `\t` is a tab
    #[arg(long, value_name = "C", value_parser = quantity::delimiter, help_heading = "Records")]
    pub(crate) delimiter: Option<Delimiter>,

    /// The first csv or tsv record is data: columns go by number
    #[arg(short, long, help_heading = "Records")]
    pub(crate) no_headers: bool,

    /// What makes a record itself; none: the whole record.
    #[arg(
        short,
        long = "key",
        value_name = "FIELD",
        help = KEY_HELP,
        long_help = format!("{KEY_HELP}\n\n{KEY_DETAILS}"),
        help_heading = "Records"
    )]
    pub(crate) keys: Vec<String>,

    /// Lines end in NUL instead of a newline
    #[arg(short, long, alias = "null", help_heading = "Records")]
    pub(crate) zero_terminated: bool,

    /// What to do with a record that cannot be parsed, lacks its key or time, or is too far ahead:
    /// stop with status 2 and name its line, copy it, or drop it
    #[arg(long, value_enum, value_name = "WHAT", default_value = "fail", help_heading = "Records")]
    pub(crate) on_error: OnError,

    /// For how long a record counts as seen, such as 10m, 1h30m or 2d; default: the whole run
    #[arg(long, value_name = "SPAN", value_parser = quantity::span, help_heading = "Window")]
    pub(crate) window: Option<Duration>,

    /// Count the window from the latest sighting, not from the first
    #[arg(long, requires = "window", help_heading = "Window")]
    pub(crate) sliding: bool,

    /// Slices of the window, 1 to 120; more forget more punctually [default: 8]
    #[arg(
        long,
        value_name = "N",
        requires = "window",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(hapax::MAX_BUCKETS)),
        help_heading = "Window"
    )]
    pub(crate) buckets: Option<u32>,

    /// Field that holds the record's own time; without it the time of arrival counts, which only
    /// suits pipes
    #[arg(short, long, value_name = "FIELD", help_heading = "Window")]
    pub(crate) time: Option<String>,

    /// How times are written: rfc3339, seconds, millis, or a strftime pattern (UTC unless it has an
    /// offset) [default: RFC 3339, or a number of seconds, or of milliseconds from 1e11 up]
    #[arg(
        long,
        value_name = "FMT",
        requires = "time",
        value_parser = TimeFormat::parse,
        help_heading = "Window"
    )]
    pub(crate) time_format: Option<TimeFormat>,

    /// How far a record may come behind the latest time seen [default: the window]
    #[arg(
        long,
        value_name = "SPAN",
        requires = "time",
        value_parser = quantity::span,
        help_heading = "Window"
    )]
    pub(crate) lateness: Option<Duration>,

    /// What to do with later records: copy or drop them [default: pass]
    #[arg(long, value_enum, value_name = "WHAT", requires = "time", help_heading = "Window")]
    pub(crate) on_late: Option<OnLate>,

    /// How far a time may be beyond the latest seen before it is an error [default: 1d]
    #[arg(
        long,
        value_name = "SPAN",
        requires = "time",
        value_parser = quantity::span,
        help_heading = "Window"
    )]
    pub(crate) max_ahead: Option<Duration>,

    /// What is kept of a key: `verified`, all of it; `fingerprint`, 56 bits of a hash;
    /// `filter=RATE`, a few bits, so that one new key in 1/RATE is dropped as a duplicate
    #[arg(
        long,
        value_name = "MODE",
        value_parser = quantity::mode,
        default_value = "verified",
        help_heading = "Memory"
    )]
    pub(crate) mode: Mode,

    /// Cap on the memory for keys, such as 500M or 2G (1G = 1024M); -d divides it between two sets of
    /// keys, -c keeps its counts beside it; --on-full spill counts the whole process
    #[arg(long, value_name = "SIZE", value_parser = quantity::size, help_heading = "Memory")]
    pub(crate) memory: Option<Size>,

    /// What to do with a new key at the cap: stop with status 2, forget the oldest, or move keys to
    /// temporary files, which changes nothing but the time it takes [default: reject]
    #[arg(long, value_enum, value_name = "WHAT", requires = "memory", help_heading = "Memory")]
    pub(crate) on_full: Option<OnFullName>,

    /// Where `spill` has its temporary files [default: $TMPDIR, or /tmp]
    #[arg(short = 'T', long, value_name = "FOLDER", requires = "on_full", help_heading = "Memory")]
    pub(crate) temporary_directory: Option<PathBuf>,

    /// Write only one record per repeated key, at its second sighting
    #[arg(short = 'd', long, group = "report", help_heading = "Output")]
    pub(crate) repeated: bool,

    /// Write only the suppressed records, all of them
    #[arg(short = 'D', long, group = "report", help_heading = "Output")]
    pub(crate) all_repeated: bool,

    /// Write first sightings prefixed by how often each was seen; waits for the end and keeps all
    /// first sightings in memory
    #[arg(short, long, group = "report", help_heading = "Output")]
    pub(crate) count: bool,

    /// Write to FILE, whole or not at all, instead of standard output (`-`); may be an input
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub(crate) output: Option<PathBuf>,

    /// Write the suppressed records (after the csv header, if any) to FILE, whole or not at all
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) duplicates: Option<PathBuf>,

    /// No progress bar, which a terminal shows when the output is a file, and no summary unless
    /// --stats asks for it
    #[arg(short, long, help_heading = "Output")]
    pub(crate) quiet: bool,

    /// Summary on standard error; by itself only on a terminal
    #[arg(long, value_enum, value_name = "STYLE", help_heading = "Output")]
    pub(crate) stats: Option<StatsStyle>,
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatName {
    Lines,
    Csv,
    Tsv,
    Jsonl,
}

/// `--on-error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    Fail,
    Pass,
    Drop,
}

/// `--on-late`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnLate {
    #[default]
    Pass,
    Drop,
}

/// `--on-full`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFullName {
    Reject,
    EvictOldest,
    Spill,
}

/// `--stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatsStyle {
    Text,
    Json,
}
