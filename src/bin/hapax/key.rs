//! Where the keys of one batch are put together.

use std::ops::Range;

/// The keys of a batch that are not simply slices of the input, end to end in
/// one buffer that is used again for the next batch.
#[derive(Debug, Default)]
pub(crate) struct KeyPad {
    bytes: Vec<u8>,
    parts: Vec<Vec<u8>>,
}

impl KeyPad {
    /// A pad for keys of `fields` parts each.
    pub(crate) fn new(fields: usize) -> Self {
        Self { bytes: Vec::new(), parts: vec![Vec::new(); fields] }
    }

    /// True iff keys are made of fields, not of whole records.
    pub(crate) fn is_used(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Forgets the keys, not the room.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// The emptied part number `index` of the next key, to be filled in.
    pub(crate) fn part(&mut self, index: usize) -> &mut Vec<u8> {
        let part = &mut self.parts[index];
        part.clear();
        part
    }

    /// Makes a key of the parts: one part is the key itself, several are
    /// encoded without ambiguity.
    pub(crate) fn finish(&mut self) -> Range<usize> {
        let start = self.bytes.len();
        match self.parts.as_slice() {
            [part] => self.bytes.extend_from_slice(part),
            parts => self.bytes.extend_from_slice(&hapax::composite(parts)),
        }
        start..self.bytes.len()
    }

    /// All keys; [`finish`](Self::finish) said which is where.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
