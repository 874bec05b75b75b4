//! `hapax dedup`: the loop from input to output.

use crate::args::{DedupArgs, OnError, OnLate};
use crate::batch::{Batch, Fate, Record, Stop};
use crate::buffer::Buffer;
use crate::emit::{EmitError, Emitter, Report};
use crate::engine::{Engine, EnginePlan};
use crate::error::Failure;
use crate::format::Format;
use crate::output::Output;
use crate::plan::{Plan, ReportKind};
use crate::progress::Progress;
use crate::source::Source;
use crate::spill::Spilling;
use crate::summary::{Counts, Summary};
use crate::tally::Tally;
use hapax::Verdict;
use std::path::PathBuf;
use std::time::Instant;

/// A guess at the bytes of a record, to tell the engine how many to expect.
const RECORD_BYTES: u64 = 64;

/// Carries out the command.
///
/// # Errors
///
/// What stopped it. Complete earlier records are then on standard output, and
/// the files to be written are as they were.
pub(crate) fn run(args: DedupArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let plan = Plan::new(args)?;
    let sources = plan.open_sources()?;
    let style = plan.summary;
    let mut run = Run::new(plan, &sources)?;
    run.copy_all(sources)?;
    let summary = run.finish(started)?;
    if let Some(style) = style {
        summary.print(style);
    }
    Ok(())
}

/// A run in progress.
struct Run {
    format: Box<dyn Format>,
    buffer: Buffer,
    batch: Batch,
    engine: Engine,
    emitter: Emitter,
    on_error: OnError,
    on_late: OnLate,
    counts: Counts,
    progress: Progress,
}

impl Run {
    fn new(plan: Plan, sources: &[Source]) -> Result<Self, Failure> {
        let total_bytes = sources.iter().map(Source::file_bytes).sum::<Option<u64>>();
        let engines = if plan.report == ReportKind::Repeated { 2 } else { 1 };
        let mut engine_plan = plan.engine.sharing_memory(engines);
        engine_plan.capacity = total_bytes.map(|bytes| bytes / RECORD_BYTES);
        let report = build_report(plan.report, &engine_plan)?;
        let engine = engine_plan.build()?;
        let output = open_output(plan.output, plan.separator)?;
        let duplicates = plan.duplicates.map(|path| Output::file(&path, plan.separator));
        Ok(Self {
            format: plan.format,
            buffer: Buffer::new(),
            batch: Batch::new(plan.key_fields),
            engine,
            emitter: Emitter::new(report, output, duplicates.transpose()?),
            on_error: plan.on_error,
            on_late: plan.on_late,
            counts: Counts::default(),
            progress: Progress::new(plan.shows_progress, total_bytes),
        })
    }

    /// Copies all inputs. Whatever happens, the records before it are handed
    /// on.
    fn copy_all(&mut self, sources: Vec<Source>) -> Result<(), Failure> {
        let outcome = sources.into_iter().try_for_each(|source| self.copy(source));
        let flushed = self.emitter.flush();
        // The first failure is the one to tell.
        outcome.and(flushed)
    }

    fn copy(&mut self, mut source: Source) -> Result<(), Failure> {
        let mut input = source.start()?;
        self.format.start_file();
        let mut line = 1;
        let mut at_end = false;
        loop {
            while self.copy_batch(&source, at_end, &mut line)? {}
            if at_end {
                debug_assert!(self.buffer.unread().is_empty(), "formats use up a file");
                return Ok(());
            }
            if input.would_block() {
                self.emitter.flush()?;
                self.emitter.check_readers()?;
            }
            let bytes = self.buffer.fill(&mut input).map_err(|error| source.failed(error))?;
            self.counts.read_bytes += bytes as u64;
            self.progress.advance(bytes);
            at_end = bytes == 0;
        }
    }

    /// Copies a batch of complete records; false iff there is none.
    fn copy_batch(
        &mut self,
        source: &Source,
        at_end: bool,
        line: &mut u64,
    ) -> Result<bool, Failure> {
        let Self { format, buffer, batch, engine, on_error, .. } = self;
        batch.take(format.as_mut(), buffer.unread(), at_end, line, *on_error);
        batch.check(engine, buffer.unread(), *on_error);
        self.emit_batch(source)?;
        self.emitter.check_readers()?;
        let used_bytes = self.batch.used_bytes();
        self.buffer.consume(used_bytes);
        match self.batch.take_stop() {
            Some(stop) => Err(failure(source, stop)),
            None => Ok(used_bytes > 0),
        }
    }

    fn emit_batch(&mut self, source: &Source) -> Result<(), Failure> {
        let Self { buffer, batch, emitter, counts, on_error, on_late, .. } = self;
        let policies = (*on_error, *on_late);
        for (fate, record) in batch.records(buffer.unread()) {
            emit(emitter, counts, policies, fate, record).map_err(|error| match error {
                EmitError::Output(failure) => failure,
                EmitError::Record(problem) => {
                    failure(source, Stop::Record { line: record.line, problem })
                }
            })?;
        }
        Ok(())
    }

    fn finish(self, started: Instant) -> Result<Summary, Failure> {
        let written_bytes = self.emitter.finish()?;
        let file_bytes = self.engine.spilling().map_or(0, Spilling::file_bytes);
        Ok(Summary {
            counts: self.counts,
            written_bytes,
            elapsed: started.elapsed(),
            engine: self.engine.stats(),
            file_bytes,
        })
    }
}

fn emit(
    emitter: &mut Emitter,
    counts: &mut Counts,
    (on_error, on_late): (OnError, OnLate),
    fate: Fate,
    record: Record,
) -> Result<(), EmitError> {
    match fate {
        Fate::Checked(verdict) => {
            counts.add(verdict);
            match verdict {
                Verdict::Unique | Verdict::Unconfirmed => emitter.unique(record),
                Verdict::Duplicate => emitter.duplicate(record),
                Verdict::Late if on_late == OnLate::Pass => emitter.unchecked(record),
                Verdict::Late => Ok(()),
            }
        }
        Fate::Failed => {
            counts.errors += 1;
            if on_error == OnError::Pass { emitter.unchecked(record) } else { Ok(()) }
        }
        Fate::Header => emitter.header(record),
        Fate::Blank => emitter.blank(record),
        Fate::Unchecked => unreachable!("`Batch::check` has seen to it"),
    }
}

fn failure(source: &Source, stop: Stop) -> Failure {
    let name = source.name().to_owned();
    match stop {
        Stop::File(problem) => Failure::File { name, problem },
        Stop::Record { line, problem } => Failure::Record { name, line, problem },
    }
}

fn build_report(kind: ReportKind, engine: &EnginePlan) -> Result<Report, Failure> {
    Ok(match kind {
        ReportKind::Uniques => Report::Uniques,
        ReportKind::Repeated => Report::Repeated(Box::new(engine.outlasting().build_in_memory()?)),
        ReportKind::AllRepeated => Report::AllRepeated,
        ReportKind::Counts => Report::Counts(Tally::default()),
    })
}

fn open_output(path: Option<PathBuf>, separator: u8) -> Result<Output, Failure> {
    match path {
        Some(path) => Output::file(&path, separator),
        None => Output::standard(separator),
    }
}
