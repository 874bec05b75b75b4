//! The flags, resolved once: everything the run needs to know, and nothing of
//! how it was asked for.

use crate::args::{DedupArgs, FormatName, OnError, OnFullName, OnLate, StatsStyle};
use crate::engine::{Cap, EnginePlan, EventTime, WindowPlan};
use crate::error::Failure;
use crate::format::{Column, Columns, Csv, Format, JsonPath, Jsonl, Lines};
use crate::place::{self, Place};
use crate::quantity::{Delimiter, Size};
use crate::source::{Origin, Source};
use hapax::Mode;
use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A quarter of what the library takes, because the second engine of `-d` has
/// a window four times as wide.
const LONGEST_WINDOW: Duration = Duration::from_secs(250 * 365 * 86_400);

/// Which report the output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportKind {
    Uniques,
    Repeated,
    AllRepeated,
    Counts,
}

/// A run of `hapax dedup`.
pub(crate) struct Plan {
    pub(crate) origins: Vec<Origin>,
    pub(crate) format: Box<dyn Format>,
    /// Parts of the key; none: the whole record.
    pub(crate) key_fields: usize,
    /// Goes between two records where a terminator is missing.
    pub(crate) separator: u8,
    pub(crate) engine: EnginePlan,
    pub(crate) on_error: OnError,
    pub(crate) on_late: OnLate,
    pub(crate) report: ReportKind,
    /// `None`: standard output.
    pub(crate) output: Option<PathBuf>,
    pub(crate) duplicates: Option<PathBuf>,
    pub(crate) shows_progress: bool,
    pub(crate) summary: Option<StatsStyle>,
}

impl Plan {
    /// Resolves the flags.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`]: they contradict one another.
    pub(crate) fn new(args: DedupArgs) -> Result<Self, Failure> {
        let origins = origins(&args.files);
        check_duplicates(&args)?;
        check_time(&args)?;
        check_mode(&args)?;
        check_spill(&args)?;
        let format = format_name(&args, &origins)?;
        check_format_flags(&args, format)?;
        Ok(Self {
            origins,
            format: build_format(&args, format)?,
            key_fields: args.keys.len(),
            separator: separator(&args),
            engine: engine(&args),
            on_error: args.on_error,
            on_late: args.on_late.unwrap_or_default(),
            report: report(&args),
            shows_progress: shows_progress(&args),
            summary: summary(&args),
            output: args.output.filter(|path| !is_standard_output(path)),
            duplicates: args.duplicates,
        })
    }

    /// Opens all inputs, and checks that they suit the plan.
    ///
    /// # Errors
    ///
    /// An input that cannot be read, or not this way.
    pub(crate) fn open_sources(&self) -> Result<Vec<Source>, Failure> {
        let sources: Vec<_> = self.origins.iter().map(Source::open).collect::<Result<_, _>>()?;
        for source in &sources {
            self.check_source(source)?;
        }
        self.check_places(&sources)?;
        Ok(sources)
    }

    /// Checks that no output destroys an input or the other output.
    ///
    /// # Errors
    ///
    /// One does.
    fn check_places(&self, sources: &[Source]) -> Result<(), Failure> {
        // A place that cannot be told is reported where it is opened.
        let output = match &self.output {
            Some(path) => Place::of_path(path).ok(),
            None => Place::of_open(std::io::stdout()).ok(),
        };
        let duplicates = self.duplicates.as_ref().and_then(|path| Place::of_path(path).ok());
        if duplicates.is_some() && output == duplicates {
            return Err(usage("the output and --duplicates are one file: give each its own"));
        }
        for source in sources {
            // `-o` replaces an input only when it has been read.
            if self.output.is_none() && output.as_ref().is_some_and(|place| source.is_at(place)) {
                return Err(Failure::output_is_input(source.name()));
            }
            if duplicates.as_ref().is_some_and(|place| source.is_at(place)) {
                return Err(usage(format!(
                    "{}: --duplicates would replace this input: give it another file",
                    source.name()
                )));
            }
        }
        Ok(())
    }

    fn check_source(&self, source: &Source) -> Result<(), Failure> {
        let is_file = source.file_bytes().is_some();
        if is_file && self.engine.window.is_some() && self.engine.event_time.is_none() {
            return Err(usage(format!(
                "{}: a window needs each record's time, and a file arrives all at once: name the \
                 time field with -t, or pipe the file in if arrival time is meant",
                source.name()
            )));
        }
        Ok(())
    }
}

fn usage(message: impl Into<String>) -> Failure {
    Failure::Usage(message.into())
}

fn origins(files: &[PathBuf]) -> Vec<Origin> {
    match files {
        [] => vec![Origin::StandardInput],
        files => files.iter().map(|file| Origin::new(file)).collect(),
    }
}

fn check_duplicates(args: &DedupArgs) -> Result<(), Failure> {
    if args.duplicates.as_deref() == Some(Path::new("-")) {
        return Err(usage("--duplicates needs a file: -D writes the suppressed records instead"));
    }
    Ok(())
}

/// `-` as for inputs. A file behind `/dev/stdout` is not replaced either: the
/// shell has opened it, perhaps to append.
fn is_standard_output(path: &Path) -> bool {
    path == Path::new("-") || path == Path::new("/dev/stdout")
}

fn check_time(args: &DedupArgs) -> Result<(), Failure> {
    if args.window.is_some_and(|span| span.is_zero()) {
        return Err(usage(
            "a window of no length: give it one, or leave --window out to cover the whole run",
        ));
    }
    if args.window.is_some_and(|span| span > LONGEST_WINDOW) {
        return Err(usage(
            "a window of more than 250 years: shorten it, or leave --window out to cover the whole \
             run",
        ));
    }
    if args.time.is_some() && args.window.is_none() {
        return Err(usage("-t without a window has no effect: add --window, such as --window 10m"));
    }
    if args.lateness > args.window {
        return Err(usage("--lateness is longer than --window: shorten it"));
    }
    Ok(())
}

fn check_mode(args: &DedupArgs) -> Result<(), Failure> {
    let is_filter = matches!(args.mode, Mode::Filter { .. });
    if is_filter && args.repeated && args.window.is_some() {
        return Err(usage(
            "-d --window forgets single keys, which a filter cannot: give --mode fingerprint",
        ));
    }
    Ok(())
}

fn check_spill(args: &DedupArgs) -> Result<(), Failure> {
    let spills = args.on_full == Some(OnFullName::Spill);
    let wrong_uses = [
        (
            !spills && args.temporary_directory.is_some(),
            "-T is where --on-full spill has its files: give --on-full spill, or leave -T out",
        ),
        (
            spills && matches!(args.mode, Mode::Filter { .. }),
            "--on-full spill moves whole keys, and a filter has none: give --mode fingerprint or \
             verified",
        ),
        (
            spills && args.repeated,
            "-d keeps a second set of keys, which does not spill: write all repeats with -D, and \
             drop repeats of these with another `hapax dedup`",
        ),
    ];
    refuse(wrong_uses)
}

/// Fails with the message of the first use that is wrong.
fn refuse(uses: impl IntoIterator<Item = (bool, &'static str)>) -> Result<(), Failure> {
    match uses.into_iter().find(|(is_wrong, _)| *is_wrong) {
        Some((_, message)) => Err(usage(message)),
        None => Ok(()),
    }
}

/// The format that was asked for, or that the files' endings tell.
fn format_name(args: &DedupArgs, origins: &[Origin]) -> Result<FormatName, Failure> {
    if let Some(format) = args.format {
        return Ok(format);
    }
    let mut guesses = origins.iter().filter_map(|origin| match origin {
        Origin::Path(path) => Some((path, guess(path))),
        // Has no ending: it goes along with the others.
        Origin::StandardInput => None,
    });
    let Some((first_path, first)) = guesses.next() else { return Ok(FormatName::Lines) };
    match guesses.find(|(_, other)| *other != first) {
        None => Ok(first),
        Some((path, _)) => Err(usage(format!(
            "{} and {} look like different formats: give --format",
            first_path.display(),
            path.display()
        ))),
    }
}

fn guess(path: &Path) -> FormatName {
    let ending = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    match ending.to_ascii_lowercase().as_str() {
        "csv" => FormatName::Csv,
        "tsv" => FormatName::Tsv,
        "jsonl" | "ndjson" => FormatName::Jsonl,
        _ => FormatName::Lines,
    }
}

/// Refuses flags that mean nothing in this format.
fn check_format_flags(args: &DedupArgs, format: FormatName) -> Result<(), Failure> {
    let is_separated = matches!(format, FormatName::Csv | FormatName::Tsv);
    let is_lines = format == FormatName::Lines;
    let wrong_uses = [
        (is_lines && !args.keys.is_empty(), "-k needs fields: give --format csv, tsv or jsonl"),
        (is_lines && args.time.is_some(), "-t needs fields: give --format csv, tsv or jsonl"),
        (!is_lines && args.zero_terminated, "-z goes with plain lines: give --format lines"),
        (!is_separated && args.delimiter.is_some(), "--delimiter goes with --format csv or tsv"),
        (!is_separated && args.no_headers, "--no-headers goes with --format csv or tsv"),
    ];
    refuse(wrong_uses)
}

fn build_format(args: &DedupArgs, format: FormatName) -> Result<Box<dyn Format>, Failure> {
    Ok(match format {
        FormatName::Lines => Box::new(Lines::new(separator(args))),
        FormatName::Csv => Box::new(csv(args, b',')?),
        FormatName::Tsv => Box::new(csv(args, b'\t')?),
        FormatName::Jsonl => Box::new(jsonl(args)?),
    })
}

fn csv(args: &DedupArgs, default_delimiter: u8) -> Result<Csv, Failure> {
    let keys = args.keys.iter().map(|key| Column::new(key)).collect();
    let time = args.time.as_deref().map(Column::new);
    let columns = if args.no_headers {
        Columns::by_number(keys, time).map_err(|column| {
            usage(format!("`{}`: without a header columns go by number, from 1", column.text()))
        })?
    } else {
        Columns::with_header(keys, time)
    };
    let delimiter = args.delimiter.map_or(default_delimiter, |Delimiter(byte)| byte);
    let time_format = args.time_format.clone().unwrap_or_default();
    Ok(Csv::new(delimiter, !args.no_headers, columns, time_format))
}

fn jsonl(args: &DedupArgs) -> Result<Jsonl, Failure> {
    let path = |text: &String| JsonPath::parse(text).map_err(Failure::Usage);
    let keys = args.keys.iter().map(path).collect::<Result<_, _>>()?;
    let time = args.time.as_ref().map(path).transpose()?;
    Ok(Jsonl::new(keys, time, args.time_format.clone().unwrap_or_default()))
}

fn separator(args: &DedupArgs) -> u8 {
    if args.zero_terminated { b'\0' } else { b'\n' }
}

fn engine(args: &DedupArgs) -> EnginePlan {
    let window = args.window.map(|span| WindowPlan {
        span,
        is_sliding: args.sliding,
        buckets: args.buckets,
    });
    let event_time = args.window.filter(|_| args.time.is_some()).map(|span| EventTime {
        lateness: args.lateness.unwrap_or(span),
        max_ahead: args.max_ahead,
    });
    let cap = args.memory.map(|Size(bytes)| match args.on_full {
        None | Some(OnFullName::Reject) => Cap::Reject { bytes },
        Some(OnFullName::EvictOldest) => Cap::EvictOldest { bytes },
        Some(OnFullName::Spill) => {
            let folder = args.temporary_directory.clone().unwrap_or_else(std::env::temp_dir);
            Cap::Spill { process_bytes: bytes, folder }
        }
    });
    EnginePlan { window, event_time, mode: args.mode, cap, capacity: None, sharers: 1 }
}

fn report(args: &DedupArgs) -> ReportKind {
    match (args.repeated, args.all_repeated, args.count) {
        (true, ..) => ReportKind::Repeated,
        (_, true, _) => ReportKind::AllRepeated,
        (.., true) => ReportKind::Counts,
        _ => ReportKind::Uniques,
    }
}

/// A bar and records on one terminal would spoil each other, and whoever reads
/// from a pipe may well write to the terminal: `less` does.
fn shows_progress(args: &DedupArgs) -> bool {
    let is_file = match args.output.as_deref() {
        Some(path) if !is_standard_output(path) => true,
        _ => place::is_regular_file(std::io::stdout()),
    };
    is_file && !args.quiet
}

fn summary(args: &DedupArgs) -> Option<StatsStyle> {
    let is_read_by_people = !args.quiet && std::io::stderr().is_terminal();
    args.stats.or_else(|| is_read_by_people.then_some(StatsStyle::Text))
}
