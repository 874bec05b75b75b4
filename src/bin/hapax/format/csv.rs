//! Character-separated values, as csv-core reads them: fields may be quoted
//! and then hold delimiters, line ends and doubled quotes; a record ends in
//! LF, CR LF or CR.
//!
//! The record's bytes are copied as they are; the unquoted values only make
//! its key. Without key columns the key is those bytes without the line end.

use super::{Columns, Cut, CutKind, Format};
use crate::error::{FileProblem, RecordProblem};
use crate::event_time::TimeFormat;
use crate::key::KeyPad;
use csv_core::{ReadRecordResult, Reader, ReaderBuilder};
use hapax::Timestamp;

/// csv-core skips it at the start of a file, if it sees all of it at once.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where the unread input begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    FileStart,
    BetweenRecords,
    InRecord,
    /// The reader has seen the record's end; if that is a CR, an LF behind it
    /// belongs to it.
    AtRecordEnd,
}

/// Csv or tsv.
pub(crate) struct Csv {
    delimiter: u8,
    has_header: bool,
    columns: Columns,
    time_format: TimeFormat,
    reader: Reader,
    stage: Stage,
    /// How much of the unread input the reader has seen.
    scanned_bytes: usize,
    fields: Fields,
    /// The next record is its file's header.
    header_due: bool,
    header: Option<Fields>,
}

/// The unquoted values of one record, end to end.
#[derive(Clone, Default)]
struct Fields {
    values: Vec<u8>,
    values_len: usize,
    ends: Vec<usize>,
    count: usize,
}

impl Fields {
    fn clear(&mut self) {
        self.values_len = 0;
        self.count = 0;
    }

    fn get(&self, place: usize) -> Option<&[u8]> {
        let end = *self.ends[..self.count].get(place)?;
        let start = if place == 0 { 0 } else { self.ends[place - 1] };
        Some(&self.values[start..end])
    }

    fn to_vec(&self) -> Vec<&[u8]> {
        (0..self.count).filter_map(|place| self.get(place)).collect()
    }
}

impl Csv {
    /// A format with `columns` as key and time; all files have a header if
    /// `has_header`.
    pub(crate) fn new(
        delimiter: u8,
        has_header: bool,
        columns: Columns,
        time_format: TimeFormat,
    ) -> Self {
        Self {
            delimiter,
            has_header,
            columns,
            time_format,
            reader: reader(delimiter),
            stage: Stage::FileStart,
            scanned_bytes: 0,
            fields: Fields::default(),
            header_due: has_header,
            header: None,
        }
    }

    /// Reads on; the kind of what ends here, or `None` if nothing does yet.
    fn scan(&mut self, input: &[u8], at_end: bool) -> Option<CutKind> {
        loop {
            let unseen = &input[self.scanned_bytes..];
            if unseen.is_empty() && !at_end {
                return None;
            }
            // The file's end would close any quote. A line end does not, and
            // completes every other record just as well.
            let is_probe = unseen.is_empty();
            let fields = &mut self.fields;
            let (result, read, written, ended) = self.reader.read_record(
                if is_probe { b"\n" } else { unseen },
                &mut fields.values[fields.values_len..],
                &mut fields.ends[fields.count..],
            );
            self.scanned_bytes += if is_probe { 0 } else { read };
            fields.values_len += written;
            fields.count += ended;
            match result {
                ReadRecordResult::InputEmpty if is_probe => return Some(CutKind::Unclosed),
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => grow(&mut fields.values),
                ReadRecordResult::OutputEndsFull => grow(&mut fields.ends),
                ReadRecordResult::Record => return Some(CutKind::Record),
                // Nothing but a byte order mark.
                ReadRecordResult::End => return Some(CutKind::Blank),
            }
        }
    }

    /// The length of the line end of the record just scanned; `None` if the
    /// next byte must be known first.
    fn line_end_bytes(&self, input: &[u8], at_end: bool) -> Option<usize> {
        let (scanned, rest) = input.split_at(self.scanned_bytes);
        match (scanned.last(), rest.first()) {
            (Some(b'\r'), Some(b'\n')) => Some(2),
            (Some(b'\r'), None) if !at_end => None,
            (Some(b'\r' | b'\n'), _) => Some(1),
            _ => Some(0),
        }
    }

    /// Cuts off `bytes`, of which the last are a line end.
    fn complete(&mut self, kind: CutKind, bytes: &[u8], line_end_bytes: usize) -> Cut {
        self.stage = Stage::BetweenRecords;
        self.scanned_bytes = 0;
        cut(kind, bytes, line_end_bytes)
    }

    /// Cuts off the record that the reader has seen to its end.
    fn cut_record(&mut self, input: &[u8], at_end: bool) -> Result<Option<Cut>, FileProblem> {
        let Some(line_end_bytes) = self.line_end_bytes(input, at_end) else { return Ok(None) };
        let kind = if self.header_due { self.take_header()? } else { CutKind::Record };
        // Of a CR LF the reader has seen the CR alone.
        let total_bytes = self.scanned_bytes + usize::from(line_end_bytes == 2);
        Ok(Some(self.complete(kind, &input[..total_bytes], line_end_bytes)))
    }

    /// The first file's header is kept; every other must be the same.
    fn take_header(&mut self) -> Result<CutKind, FileProblem> {
        self.header_due = false;
        match &self.header {
            Some(first) if first.to_vec() == self.fields.to_vec() => Ok(CutKind::RepeatedHeader),
            Some(_) => Err(FileProblem::HeaderDiffers),
            None => {
                self.columns.resolve(&self.fields.to_vec())?;
                self.header = Some(self.fields.clone());
                Ok(CutKind::Header)
            }
        }
    }

    /// True iff more must come before a byte order mark can be told.
    fn may_be_order_mark(&self, input: &[u8]) -> bool {
        self.stage == Stage::FileStart
            && input.len() <= BYTE_ORDER_MARK.len()
            && BYTE_ORDER_MARK.starts_with(input)
    }

    fn field(&self, place: usize, name: &super::Column) -> Result<&[u8], RecordProblem> {
        let missing = || RecordProblem::MissingField(name.text().to_owned());
        self.fields.get(place).ok_or_else(missing)
    }
}

impl Format for Csv {
    fn start_file(&mut self) {
        self.reader = reader(self.delimiter);
        self.stage = Stage::FileStart;
        self.scanned_bytes = 0;
        self.header_due = self.has_header;
    }

    fn cut(&mut self, input: &[u8], at_end: bool) -> Result<Option<Cut>, FileProblem> {
        if matches!(self.stage, Stage::FileStart | Stage::BetweenRecords) {
            let blanks = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            if blanks > 0 {
                return Ok(Some(cut(CutKind::Blank, &input[..blanks], 0)));
            }
            if input.is_empty() || (self.may_be_order_mark(input) && !at_end) {
                return Ok(None);
            }
            self.fields.clear();
            self.stage = Stage::InRecord;
        }
        if self.stage == Stage::InRecord {
            match self.scan(input, at_end) {
                None => return Ok(None),
                Some(CutKind::Record) => self.stage = Stage::AtRecordEnd,
                Some(kind) => {
                    return Ok(Some(self.complete(kind, &input[..self.scanned_bytes], 0)));
                }
            }
        }
        self.cut_record(input, at_end)
    }

    fn read(&mut self, _: &[u8], keys: &mut KeyPad) -> Result<Option<Timestamp>, RecordProblem> {
        for (index, (name, place)) in self.columns.keys().enumerate() {
            keys.part(index).extend_from_slice(self.field(place, name)?);
        }
        let Some((name, place)) = self.columns.time() else { return Ok(None) };
        let text = self.field(place, name)?;
        let time = self.time_format.read(text);
        time.map(Some).ok_or_else(|| RecordProblem::not_a_time(text, &self.time_format))
    }
}

fn cut(kind: CutKind, bytes: &[u8], line_end_bytes: usize) -> Cut {
    Cut {
        kind,
        content_bytes: bytes.len() - line_end_bytes,
        total_bytes: bytes.len(),
        lines: memchr::memchr_iter(b'\n', bytes).count() as u64,
    }
}

fn reader(delimiter: u8) -> Reader {
    ReaderBuilder::new().delimiter(delimiter).build()
}

fn grow<T: Clone + Default>(room: &mut Vec<T>) {
    room.resize((room.len() * 2).max(64), T::default());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `input` in pieces of `step` bytes and lists what is cut off.
    fn cuts(input: &[u8], step: usize) -> Vec<(CutKind, usize, usize)> {
        let mut csv = Csv::new(b',', false, Columns::default(), TimeFormat::Guess);
        csv.start_file();
        let (mut start, mut end, mut found) = (0, 0, Vec::new());
        loop {
            while let Some(cut) = csv.cut(&input[start..end], end == input.len()).unwrap() {
                found.push((cut.kind, cut.content_bytes, cut.total_bytes));
                start += cut.total_bytes;
            }
            if end == input.len() {
                return found;
            }
            end = input.len().min(end + step);
        }
    }

    #[test]
    fn cuts_do_not_depend_on_how_the_input_arrives() {
        use CutKind::{Record, Unclosed};
        let input = b"\xef\xbb\xbfa,\"b\r\nb\"\r\nc\"d,\"\"\"\"\re,\n,\n\"open\nx";
        let expected =
            [(Record, 11, 13), (Record, 8, 9), (Record, 2, 3), (Record, 1, 2), (Unclosed, 7, 7)];
        for step in 1..=input.len() {
            assert_eq!(cuts(input, step), expected, "in pieces of {step}");
        }
    }

    #[test]
    fn blank_lines_and_a_lone_byte_order_mark_are_no_records() {
        use CutKind::{Blank, Record};
        assert_eq!(cuts(b"\n\r\na\n\n", 9), [(Blank, 3, 3), (Record, 1, 2), (Blank, 1, 1)]);
        assert_eq!(cuts(b"\xef\xbb\xbf", 1), [(Blank, 3, 3)]);
        assert_eq!(cuts(b"\xef\xbb", 1), [(Record, 2, 2)]);
        assert_eq!(cuts(b"", 1), []);
    }
}
