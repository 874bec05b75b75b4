//! Plain lines: a record is what stands between two terminators.

use super::{Cut, CutKind, Format};
use crate::error::{FileProblem, RecordProblem};
use crate::key::KeyPad;
use hapax::Timestamp;
use memchr::memchr;

/// Lines that end in one terminator byte. The key is the line without it; a
/// carriage return belongs to the line.
#[derive(Debug)]
pub(crate) struct Lines {
    terminator: u8,
    /// How far the unread input was searched in vain.
    searched_bytes: usize,
}

impl Lines {
    /// Lines that end in `terminator`.
    pub(crate) fn new(terminator: u8) -> Self {
        Self { terminator, searched_bytes: 0 }
    }

    /// Cuts the first line off `input`; as [`Format::cut`], but cannot fail.
    pub(crate) fn cut_line(&mut self, input: &[u8], at_end: bool) -> Option<Cut> {
        let Some(found) = memchr(self.terminator, &input[self.searched_bytes..]) else {
            self.searched_bytes = input.len();
            return (at_end && !input.is_empty()).then(|| self.line(input.len(), input.len()));
        };
        let content_bytes = self.searched_bytes + found;
        Some(self.line(content_bytes, content_bytes + 1))
    }

    fn line(&mut self, content_bytes: usize, total_bytes: usize) -> Cut {
        self.searched_bytes = 0;
        Cut { kind: CutKind::Record, content_bytes, total_bytes, lines: 1 }
    }
}

impl Format for Lines {
    fn cut(&mut self, input: &[u8], at_end: bool) -> Result<Option<Cut>, FileProblem> {
        Ok(self.cut_line(input, at_end))
    }

    fn read(&mut self, _: &[u8], _: &mut KeyPad) -> Result<Option<Timestamp>, RecordProblem> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(lines: &mut Lines, input: &[u8], at_end: bool) -> Option<(usize, usize)> {
        lines.cut_line(input, at_end).map(|cut| (cut.content_bytes, cut.total_bytes))
    }

    #[test]
    fn a_line_is_complete_with_its_terminator_or_at_the_end() {
        let mut lines = Lines::new(b'\n');
        assert_eq!(sizes(&mut lines, b"ab", false), None);
        assert_eq!(sizes(&mut lines, b"ab\r\ncd", false), Some((3, 4)));
        assert_eq!(sizes(&mut lines, b"cd", false), None);
        assert_eq!(sizes(&mut lines, b"cd", true), Some((2, 2)));
        assert_eq!(sizes(&mut lines, b"", true), None);
        assert_eq!(sizes(&mut lines, b"\n", true), Some((0, 1)));
    }
}
