//! What is kept of a key.

/// What is kept of a key, and so how sure a `Duplicate` is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Mode {
    /// A 56-bit fingerprint, next to the shard that it lies in. A new key is
    /// called `Duplicate` with a probability of live keys in its shard / 2^56,
    /// live in [`Stats`](crate::Stats). About 14 bytes a key.
    #[default]
    Fingerprint,
    /// The whole key, compared on every hit: a new key is never called
    /// `Duplicate`. The key's own bytes and 16 to 19 more; at most 64 GiB
    /// of keys in one deduper.
    Verified,
    /// A few bits in a filter, 3 to 6 bytes a key: a new key is called
    /// `Duplicate` with a probability of `rate`, over the whole window. A key
    /// cannot be taken out again, so [`forget`](crate::Deduper::forget) does
    /// nothing; and in a sliding window each bucket in which a key is seen
    /// holds it once more.
    Filter {
        /// The probability asked for: 1e-9 to 0.5.
        rate: f64,
    },
}

impl Mode {
    /// [`Mode::Fingerprint`].
    pub const fn fingerprint() -> Self {
        Self::Fingerprint
    }

    /// [`Mode::Filter`] with a probability, 1e-9 to 0.5, that a new key is
    /// called `Duplicate`.
    pub const fn filter(rate: f64) -> Self {
        Self::Filter { rate }
    }

    /// [`Mode::Verified`].
    pub const fn verified() -> Self {
        Self::Verified
    }
}
