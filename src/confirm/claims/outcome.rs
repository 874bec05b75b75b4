//! What came of a claim.

use std::fmt;
use std::sync::Arc;

/// How processing ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// It did what it was asked to.
    Success,
    /// It failed, in a way that a retry would, too.
    Failure,
}

/// What came of processing a key, for all who ask again: how it ended, and the
/// bytes of the answer, unless they were too many to keep.
///
/// Cloning is cheap: the bytes are shared.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    ending: Ending,
    bytes: Option<Arc<[u8]>>,
}

impl Outcome {
    /// A success, and its answer.
    pub fn success(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { ending: Ending::Success, bytes: Some(bytes.into()) }
    }

    /// A failure to be remembered, and its answer.
    pub fn failure(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self { ending: Ending::Failure, bytes: Some(bytes.into()) }
    }

    /// A *tombstone*: it ended so, and the answer is not kept. It still stops a
    /// second run.
    pub const fn tombstone(ending: Ending) -> Self {
        Self { ending, bytes: None }
    }

    /// How it ended.
    pub const fn ending(&self) -> Ending {
        self.ending
    }

    /// The answer; `None` in a tombstone.
    pub fn bytes(&self) -> Option<&[u8]> {
        self.bytes.as_deref()
    }

    /// The answer, shared; `None` in a tombstone.
    pub fn into_bytes(self) -> Option<Arc<[u8]>> {
        self.bytes
    }

    /// How many bytes the answer has.
    pub fn len(&self) -> usize {
        self.bytes().map_or(0, <[u8]>::len)
    }

    /// True iff there are none, or none were kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept =
            self.bytes().map_or("not kept".to_owned(), |bytes| format!("{} bytes", bytes.len()));
        write!(f, "{:?}({kept})", self.ending)
    }
}
