//! What is kept of a key.

/// What is kept of a key, and so how sure a `Duplicate` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// A 56-bit fingerprint, next to the shard that it lies in. A new key is
    /// called `Duplicate` with a probability of live keys in its shard / 2^56,
    /// live in [`Stats`](crate::Stats). About 14 bytes a key.
    #[default]
    Fingerprint,
    /// The whole key, compared on every hit: a new key is never called
    /// `Duplicate`. The key's own bytes and about 16 more.
    Verified,
}

impl Mode {
    /// [`Mode::Fingerprint`].
    pub const fn fingerprint() -> Self {
        Self::Fingerprint
    }

    /// [`Mode::Verified`].
    pub const fn verified() -> Self {
        Self::Verified
    }
}
