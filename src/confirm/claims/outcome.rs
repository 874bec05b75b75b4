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

/// As JSON (feature `json`).
#[cfg(feature = "json")]
impl Outcome {
    /// An ending, and a value that tells of it.
    ///
    /// ```
    /// use hapax::confirm::claims::{Ending, Outcome};
    ///
    /// # fn main() -> Result<(), serde_json::Error> {
    /// let outcome = Outcome::json(Ending::Success, &("charged", 10))?;
    /// assert_eq!(outcome.parse::<(String, u32)>()?, Some(("charged".into(), 10)));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The value cannot be written as JSON: a map whose keys are no strings, say.
    pub fn json<T: serde::Serialize>(ending: Ending, value: &T) -> Result<Self, serde_json::Error> {
        let bytes = serde_json::to_vec(value)?;
        Ok(Self { ending, bytes: Some(bytes.into()) })
    }

    /// The value that [`json`](Self::json) was given; `None` in a tombstone.
    ///
    /// # Errors
    ///
    /// The bytes are not JSON, or of another type.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<Option<T>, serde_json::Error> {
        self.bytes().map(serde_json::from_slice).transpose()
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept =
            self.bytes().map_or("not kept".to_owned(), |bytes| format!("{} bytes", bytes.len()));
        write!(f, "{:?}({kept})", self.ending)
    }
}
