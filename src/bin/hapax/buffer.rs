//! The stretch of input that is in memory.

use std::io::{self, Read};

/// Enough that system calls do not show, little enough to stay in the cache.
const INITIAL_BYTES: usize = 256 << 10;

/// Bytes read and not yet used up. Grows only for a record that does not fit.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; INITIAL_BYTES], start: 0, end: 0 }
    }

    /// What was read and not consumed.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Uses up the first `count` unread bytes.
    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start, "no more than was read");
        self.start += count;
    }

    /// Reads once; 0 means the end of the input. Moves what is unread.
    pub(crate) fn fill(&mut self, input: &mut impl Read) -> io::Result<usize> {
        self.make_room();
        loop {
            match input.read(&mut self.bytes[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(count) => {
                    self.end += count;
                    return Ok(count);
                }
            }
        }
    }

    fn make_room(&mut self) {
        // What is unread is one incomplete record, and is moved once: from then
        // on it lies at the front.
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        // A record larger than half the buffer: doubling keeps the total of
        // moved bytes linear in the record's length.
        if self.end * 2 > self.bytes.len() {
            self.bytes.resize(self.bytes.len() * 2, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_for_a_long_record_and_loses_nothing() {
        let data: Vec<u8> = (0..1_000_000_u32).map(|n| n as u8).collect();
        let mut input = data.as_slice();
        let mut buffer = Buffer::new();
        while buffer.fill(&mut input).expect("memory can be read") > 0 {}
        assert!(buffer.unread() == data);
        buffer.consume(999_999);
        assert_eq!(buffer.unread(), [data[999_999]]);
    }
}
