//! A run of records that are in memory and are checked in one call.

use crate::args::OnError;
use crate::engine::Engine;
use crate::error::{FileProblem, RecordProblem};
use crate::format::{Cut, CutKind, Format};
use crate::key::KeyPad;
use crate::spill::Spilling;
use hapax::{BatchErrorKind, CheckError, Timestamp, Verdict};
use jiff::SignedDuration;
use std::ops::Range;

/// Enough for the library to overlap its memory accesses.
const MOST_ITEMS: usize = 256;

/// What becomes of a stretch of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// A record still to be checked.
    Unchecked,
    Checked(Verdict),
    /// A record that could not be checked.
    Failed,
    Header,
    Blank,
}

/// A stretch of input: a record, or something between records.
#[derive(Clone, Debug)]
struct Item {
    bytes: Range<usize>,
    is_terminated: bool,
    /// In the key pad, if that is used; else in the input.
    key: Range<usize>,
    time: Option<Timestamp>,
    line: u64,
    fate: Fate,
}

/// A stretch of input with its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) is_terminated: bool,
    pub(crate) key: &'a [u8],
    pub(crate) time: Option<Timestamp>,
    pub(crate) line: u64,
}

/// Why the records end here, whatever follows in the file.
#[derive(Debug)]
pub(crate) enum Stop {
    File(FileProblem),
    Record { line: u64, problem: RecordProblem },
}

/// Up to [`MOST_ITEMS`] stretches from the front of the unread input. Its room
/// is used again for the next ones.
pub(crate) struct Batch {
    items: Vec<Item>,
    keys: KeyPad,
    used_bytes: usize,
    stop: Option<Stop>,
}

impl Batch {
    /// An empty batch for keys of `key_fields` parts; none: whole records.
    pub(crate) fn new(key_fields: usize) -> Self {
        let items = Vec::with_capacity(MOST_ITEMS);
        Self { items, keys: KeyPad::new(key_fields), used_bytes: 0, stop: None }
    }

    /// Takes the complete records at the front of `input`. `line` is the
    /// number of its first line, and is moved on.
    pub(crate) fn take(
        &mut self,
        format: &mut dyn Format,
        input: &[u8],
        at_end: bool,
        line: &mut u64,
        on_error: OnError,
    ) {
        self.items.clear();
        self.keys.clear();
        self.used_bytes = 0;
        while self.stop.is_none() && self.items.len() < MOST_ITEMS {
            match format.cut(&input[self.used_bytes..], at_end) {
                Ok(Some(cut)) => {
                    self.add(format, input, cut, *line, on_error);
                    self.used_bytes += cut.total_bytes;
                    *line += cut.lines;
                }
                Ok(None) => break,
                Err(problem) => self.stop = Some(Stop::File(problem)),
            }
        }
    }

    /// How much of the input was taken; 0: more of it is needed.
    pub(crate) fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// Why nothing may follow this batch, if so.
    pub(crate) fn take_stop(&mut self) -> Option<Stop> {
        self.stop.take()
    }

    fn add(
        &mut self,
        format: &mut dyn Format,
        input: &[u8],
        cut: Cut,
        line: u64,
        on_error: OnError,
    ) {
        let start = self.used_bytes;
        let content = start..start + cut.content_bytes;
        let mut item = Item {
            bytes: start..start + cut.total_bytes,
            is_terminated: cut.kind == CutKind::Blank || cut.content_bytes < cut.total_bytes,
            key: content.clone(),
            time: None,
            line,
            fate: Fate::Unchecked,
        };
        match cut.kind {
            CutKind::RepeatedHeader => return,
            CutKind::Header => item.fate = Fate::Header,
            CutKind::Blank => item.fate = Fate::Blank,
            CutKind::Unclosed => return self.add_failed(item, RecordProblem::Unclosed, on_error),
            CutKind::Record => match format.read(&input[content], &mut self.keys) {
                Ok(time) => item.time = time,
                Err(problem) => return self.add_failed(item, problem, on_error),
            },
        }
        if item.fate == Fate::Unchecked && self.keys.is_used() {
            item.key = self.keys.finish();
        }
        self.items.push(item);
    }

    fn add_failed(&mut self, item: Item, problem: RecordProblem, on_error: OnError) {
        if on_error == OnError::Fail {
            self.stop = Some(Stop::Record { line: item.line, problem });
        } else {
            self.items.push(Item { fate: Fate::Failed, ..item });
        }
    }

    /// Checks the records. If the run must end at one of them, the batch ends
    /// before it.
    pub(crate) fn check(&mut self, engine: &Engine, input: &[u8], on_error: OnError) {
        let Self { items, keys, stop, .. } = self;
        let key_bytes = if keys.is_used() { keys.bytes() } else { input };
        let mut checks = Checks::of(items, key_bytes);
        while let Err((place, error)) = checks.run(engine, items) {
            let (problem, is_fatal) = diagnose(error, engine.spilling());
            if is_fatal || on_error == OnError::Fail {
                *stop = Some(Stop::Record { line: items[place].line, problem });
                items.truncate(place);
                return;
            }
            items[place].fate = Fate::Failed;
        }
    }

    /// All that was taken, in order, and what became of it.
    pub(crate) fn records<'a>(
        &'a self,
        input: &'a [u8],
    ) -> impl Iterator<Item = (Fate, Record<'a>)> {
        let key_bytes = if self.keys.is_used() { self.keys.bytes() } else { input };
        self.items.iter().map(move |item| {
            let is_record = matches!(item.fate, Fate::Checked(_));
            let record = Record {
                bytes: &input[item.bytes.clone()],
                is_terminated: item.is_terminated,
                key: if is_record { &key_bytes[item.key.clone()] } else { &[] },
                time: item.time,
                line: item.line,
            };
            (item.fate, record)
        })
    }
}

/// The arguments of one batched call.
struct Checks<'a> {
    /// Which item each key belongs to.
    places: [usize; MOST_ITEMS],
    keys: [&'a [u8]; MOST_ITEMS],
    times: [Timestamp; MOST_ITEMS],
    count: usize,
    done: usize,
}

impl<'a> Checks<'a> {
    /// All unchecked items.
    fn of(items: &[Item], key_bytes: &'a [u8]) -> Self {
        let mut checks = Self {
            places: [0; MOST_ITEMS],
            keys: [&[]; MOST_ITEMS],
            times: [Timestamp::MIN; MOST_ITEMS],
            count: 0,
            done: 0,
        };
        let unchecked = items.iter().enumerate().filter(|(_, item)| item.fate == Fate::Unchecked);
        for (count, (place, item)) in unchecked.enumerate() {
            checks.places[count] = place;
            checks.keys[count] = &key_bytes[item.key.clone()];
            // Without event time nobody looks at it.
            checks.times[count] = item.time.unwrap_or(Timestamp::MIN);
            checks.count = count + 1;
        }
        checks
    }

    /// Makes the checks that are not done and notes their verdicts. At one
    /// that fails it stops, gives its place, and would go on behind it.
    fn run(&mut self, engine: &Engine, items: &mut [Item]) -> Result<(), (usize, BatchErrorKind)> {
        let rest = self.done..self.count;
        let mut verdicts = [Verdict::Unique; MOST_ITEMS];
        let verdicts = &mut verdicts[rest.clone()];
        let outcome = engine.check(&self.keys[rest.clone()], &self.times[rest.clone()], verdicts);
        let completed = outcome.as_ref().map_or_else(|error| error.completed, |()| rest.len());
        for (place, verdict) in self.places[rest].iter().zip(&verdicts[..completed]) {
            items[*place].fate = Fate::Checked(*verdict);
        }
        self.done += completed + 1;
        outcome.map_err(|error| (self.places[self.done - 1], error.source))
    }
}

/// What stopped a check, and whether it stops the run whatever the policy.
pub(crate) fn diagnose(
    error: impl Into<BatchErrorKind>,
    spilling: Option<&Spilling>,
) -> (RecordProblem, bool) {
    let error = error.into();
    if let BatchErrorKind::Check(CheckError::Unconfirmed(cause) | CheckError::Uncertain(cause)) =
        &error
        && let Some(spilling) = spilling
    {
        return (spilling.problem(cause), true);
    }
    match error {
        BatchErrorKind::Check(CheckError::TooFarAhead { time, largest_seen, .. }) => {
            let micros = time.as_micros().saturating_sub(largest_seen.as_micros());
            (RecordProblem::TooFarAhead(SignedDuration::from_micros(micros)), false)
        }
        BatchErrorKind::Check(CheckError::Full { .. }) => (RecordProblem::Full, true),
        error => (RecordProblem::Engine(error), true),
    }
}
