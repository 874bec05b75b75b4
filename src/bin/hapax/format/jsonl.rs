//! JSON lines: one document a line.
//!
//! Without fields to look at, no line is parsed, and jsonl is plain lines.

use super::json_path::{JsonPath, PathTree};
use super::json_value::{self, NoKey};
use super::{Cut, CutKind, Format, Lines};
use crate::error::{FileProblem, RecordProblem};
use crate::event_time::TimeFormat;
use crate::key::KeyPad;
use hapax::Timestamp;
use std::ops::Range;

/// Some writers put it before the first document, where it is no JSON.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// JSON lines with their key and time at paths.
pub(crate) struct Jsonl {
    lines: Lines,
    /// Those of the key, then that of the time.
    paths: Vec<JsonPath>,
    key_paths: usize,
    tree: PathTree,
    found: Vec<Option<Range<usize>>>,
    time_format: TimeFormat,
}

impl Jsonl {
    /// JSON lines with `keys` as key, or whole lines if there are none.
    pub(crate) fn new(
        keys: Vec<JsonPath>,
        time: Option<JsonPath>,
        time_format: TimeFormat,
    ) -> Self {
        let key_paths = keys.len();
        let paths: Vec<_> = keys.into_iter().chain(time).collect();
        let tree = PathTree::new(paths.iter());
        let found = vec![None; paths.len()];
        Self { lines: Lines::new(b'\n'), paths, key_paths, tree, found, time_format }
    }

    /// The value that path `number` leads to, as written; null is missing.
    fn value<'a>(&self, number: usize, document: &'a [u8]) -> Result<&'a str, RecordProblem> {
        self.found[number]
            .clone()
            // A value that was found is UTF-8: the parser has seen to it.
            .and_then(|range| std::str::from_utf8(&document[range]).ok())
            .filter(|value| *value != "null")
            .ok_or_else(|| RecordProblem::MissingField(self.paths[number].text().to_owned()))
    }

    fn time(&self, number: usize, document: &[u8]) -> Result<Timestamp, RecordProblem> {
        let value = self.value(number, document)?;
        let text = if value.starts_with('"') {
            json_value::decode(value).map_err(RecordProblem::NotJson)?
        } else {
            value.into()
        };
        let time = self.time_format.read(text.as_bytes());
        time.ok_or_else(|| RecordProblem::not_a_time(text.as_bytes(), &self.time_format))
    }

    fn key_problem(&self, number: usize, why: NoKey) -> RecordProblem {
        match why {
            NoKey::TooDeep => RecordProblem::TooDeep(self.paths[number].text().to_owned()),
            NoKey::NotJson(error) => RecordProblem::NotJson(error),
        }
    }
}

impl Format for Jsonl {
    fn cut(&mut self, input: &[u8], at_end: bool) -> Result<Option<Cut>, FileProblem> {
        let is_parsed = !self.paths.is_empty();
        Ok(self.lines.cut_line(input, at_end).map(|cut| {
            let is_blank = || input[..cut.content_bytes].trim_ascii().is_empty();
            let kind = if is_parsed && is_blank() { CutKind::Blank } else { cut.kind };
            Cut { kind, ..cut }
        }))
    }

    fn read(
        &mut self,
        record: &[u8],
        keys: &mut KeyPad,
    ) -> Result<Option<Timestamp>, RecordProblem> {
        if self.paths.is_empty() {
            return Ok(None);
        }
        let document = record.strip_prefix(BYTE_ORDER_MARK).unwrap_or(record);
        self.tree.find(document, &mut self.found).map_err(RecordProblem::NotJson)?;
        for number in 0..self.key_paths {
            let value = self.value(number, document)?;
            json_value::push_key(value, keys.part(number))
                .map_err(|why| self.key_problem(number, why))?;
        }
        let time_number = (self.key_paths < self.paths.len()).then_some(self.key_paths);
        time_number.map(|number| self.time(number, document)).transpose()
    }
}
