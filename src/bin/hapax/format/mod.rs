//! Input formats: where a record ends, and which key and time it carries.
//!
//! A format sees the unread input and cuts one record off its front; it never
//! copies or changes it. Formats keep what they know of a record that is still
//! incomplete, so that no byte is looked at twice.

mod columns;
mod csv;
mod json_path;
mod json_value;
mod jsonl;
mod lines;

pub(crate) use columns::{Column, Columns};
pub(crate) use csv::Csv;
pub(crate) use json_path::JsonPath;
pub(crate) use jsonl::Jsonl;
pub(crate) use lines::Lines;

use crate::error::{FileProblem, RecordProblem};
use crate::key::KeyPad;
use hapax::Timestamp;

/// What was cut off the front of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) kind: CutKind,
    /// Bytes without the terminator.
    pub(crate) content_bytes: usize,
    /// Bytes with the terminator; the same where it is missing.
    pub(crate) total_bytes: usize,
    /// How many lines of the file they take.
    pub(crate) lines: u64,
}

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CutKind {
    /// A record to check; [`Format::read`] may be called now.
    Record,
    /// The rest of the file from a quote on that is never closed.
    Unclosed,
    /// The header that all files share, where it is seen first.
    Header,
    /// The same header in a later file.
    RepeatedHeader,
    /// Bytes between records.
    Blank,
}

/// A format of input.
pub(crate) trait Format {
    /// A new file begins.
    fn start_file(&mut self) {}

    /// Cuts the first record off `input`, the unread bytes; `None` if it is
    /// incomplete, or there is none. Called again with the same bytes and more
    /// behind them until it is complete. `at_end`: nothing will come behind.
    ///
    /// # Errors
    ///
    /// The file does not fit the run as a whole.
    fn cut(&mut self, input: &[u8], at_end: bool) -> Result<Option<Cut>, FileProblem>;

    /// Puts the key of the record just cut into the parts of `keys`, unless
    /// the key is the whole record, and gives its time, if one is wanted.
    ///
    /// # Errors
    ///
    /// The record cannot be parsed, or lacks its key or time.
    fn read(
        &mut self,
        record: &[u8],
        keys: &mut KeyPad,
    ) -> Result<Option<Timestamp>, RecordProblem>;
}
