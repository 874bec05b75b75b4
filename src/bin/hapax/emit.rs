//! What is written of the records: first sightings, repeated ones, or counts.

use crate::batch::{Record, diagnose};
use crate::error::{Failure, RecordProblem};
use crate::output::Output;
use crate::tally::Tally;
use hapax::{CheckError, Deduper, Verdict};

/// Which records the output takes.
pub(crate) enum Report {
    /// First sightings.
    Uniques,
    /// Second sightings; the deduper knows which keys were already written.
    Repeated(Box<Deduper>),
    /// All but first sightings.
    AllRepeated,
    /// First sightings with their counts, at the end.
    Counts(Tally),
}

/// The outputs, and who gets what.
pub(crate) struct Emitter {
    report: Report,
    output: Output,
    duplicates: Option<Output>,
}

/// Why a record could not be reported.
pub(crate) enum EmitError {
    Output(Failure),
    /// The deduper behind `-d` has no room, say.
    Record(RecordProblem),
}

impl From<Failure> for EmitError {
    fn from(failure: Failure) -> Self {
        Self::Output(failure)
    }
}

impl Emitter {
    /// Reports to `output`, and suppressed records to `duplicates`.
    pub(crate) fn new(report: Report, output: Output, duplicates: Option<Output>) -> Self {
        Self { report, output, duplicates }
    }

    /// The header goes wherever records go.
    pub(crate) fn header(&mut self, header: Record) -> Result<(), EmitError> {
        if let Some(duplicates) = &mut self.duplicates {
            copy(duplicates, header)?;
        }
        Ok(copy(&mut self.output, header)?)
    }

    /// Bytes between records, copied where all records are.
    pub(crate) fn blank(&mut self, blank: Record) -> Result<(), EmitError> {
        match self.report {
            Report::Uniques => Ok(copy(&mut self.output, blank)?),
            _ => Ok(()),
        }
    }

    /// A first sighting.
    pub(crate) fn unique(&mut self, record: Record) -> Result<(), EmitError> {
        match &mut self.report {
            Report::Uniques => copy(&mut self.output, record)?,
            // Its key was out of the window: it may be reported once more.
            Report::Repeated(reported) => {
                reported.forget(record.key);
            }
            Report::AllRepeated => {}
            Report::Counts(tally) => tally.begin(record),
        }
        Ok(())
    }

    /// A later sighting.
    pub(crate) fn duplicate(&mut self, record: Record) -> Result<(), EmitError> {
        if let Some(duplicates) = &mut self.duplicates {
            copy(duplicates, record)?;
        }
        match &mut self.report {
            Report::Uniques => {}
            Report::Repeated(reported) => {
                let verdict = check(reported, record);
                let verdict = verdict.map_err(|error| EmitError::Record(diagnose(error, None).0));
                if verdict?.is_unique() {
                    copy(&mut self.output, record)?;
                }
            }
            Report::AllRepeated => copy(&mut self.output, record)?,
            Report::Counts(tally) => tally.increase(record.key),
        }
        Ok(())
    }

    /// A record that nobody checked, and that passes.
    pub(crate) fn unchecked(&mut self, record: Record) -> Result<(), EmitError> {
        match &mut self.report {
            Report::Uniques => copy(&mut self.output, record)?,
            Report::Repeated(_) | Report::AllRepeated => {}
            Report::Counts(tally) => tally.add_alone(record),
        }
        Ok(())
    }

    /// Hands on what is buffered.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.duplicates.as_mut().map_or(Ok(()), Output::flush)?;
        self.output.flush()
    }

    /// Fails with [`Failure::ClosedPipe`] if nobody reads any output any more.
    pub(crate) fn check_readers(&self) -> Result<(), Failure> {
        let has_reader = |output: &Output| !output.is_closed();
        if has_reader(&self.output) || self.duplicates.as_ref().is_some_and(has_reader) {
            Ok(())
        } else {
            Err(Failure::ClosedPipe)
        }
    }

    /// Writes what waited for the end, and closes the outputs. Gives the
    /// number of bytes that the output took.
    pub(crate) fn finish(mut self) -> Result<u64, Failure> {
        if let Report::Counts(tally) = &self.report {
            tally.write(&mut self.output)?;
        }
        let written_bytes = self.output.written_bytes();
        // All must be on their way before the first file takes its name.
        self.flush()?;
        self.duplicates.map_or(Ok(()), Output::finish)?;
        self.output.finish()?;
        Ok(written_bytes)
    }
}

fn check(reported: &Deduper, record: Record) -> Result<Verdict, CheckError> {
    match record.time {
        Some(time) => reported.check_at(record.key, time),
        None => reported.check(record.key),
    }
}

fn copy(output: &mut Output, record: Record) -> Result<(), Failure> {
    output.write(record.bytes, record.is_terminated)
}
