//! The builder: a deduper's configuration, checked as a whole.

use super::Deduper;
use super::error::{ConfigError, ConfigProblem};
use crate::hash::{KeyHash, KeyHasher};
use crate::time::{Clock, MAX_BUCKETS, SystemClock, Window};
use std::sync::Arc;
use std::time::Duration;

/// What is kept of a key, and so how sure a `Duplicate` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// A 56-bit fingerprint, next to the shard and line that it lies in. A new
    /// key is called `Duplicate` with a probability of live keys in its shard
    /// / 2^56, live in [`Stats`](crate::Stats). About 13 bytes a key.
    #[default]
    Fingerprint,
    /// The whole key, compared on every hit: a new key is never called
    /// `Duplicate`. The key's own bytes and about 18 more.
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

/// What happens to a new key when the memory limit is reached. Known keys
/// answer `Duplicate` in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFull {
    /// The check is a [`CheckError::Full`](crate::CheckError::Full).
    Reject,
    /// The oldest bucket is given up everywhere at once; if only the current
    /// one is left, single keys are. Counted in
    /// [`Stats::evicted`](crate::Stats::evicted).
    EvictOldest,
}

/// The memory limit and the policy at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemoryLimit {
    pub(crate) bytes: u64,
    pub(crate) on_full: OnFull,
}

/// A span that timestamps can surely tell.
const LONGEST_SPAN: Duration = Duration::from_secs(1_000 * 366 * 24 * 60 * 60);

/// Builds a [`Deduper`]; made by [`Deduper::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    pub(crate) window: Window,
    pub(crate) capacity: Option<u64>,
    pub(crate) mode: Mode,
    pub(crate) limit: Option<MemoryLimit>,
    pub(crate) lateness: Option<Duration>,
    pub(crate) max_ahead: Duration,
    pub(crate) clock: Option<Arc<dyn Clock>>,
    pub(crate) tags: u8,
    secret: Option<[u8; 32]>,
    trusted_keys: bool,
    custom_hash: Option<KeyHasher>,
}

impl Builder {
    pub(super) fn new(window: Window) -> Self {
        Self {
            window,
            capacity: None,
            mode: Mode::default(),
            limit: None,
            lateness: None,
            max_ahead: Duration::from_secs(24 * 60 * 60),
            clock: None,
            tags: u8::MAX,
            secret: None,
            trusted_keys: false,
            custom_hash: None,
        }
    }

    /// How many live keys are expected. A hint that sets the number of shards:
    /// they grow past it, and nothing is allocated ahead. 8 million unless
    /// told; give a small one to a deduper that holds few keys.
    pub fn capacity(mut self, keys: u64) -> Self {
        self.capacity = Some(keys);
        self
    }

    /// What is kept of a key; [`Mode::fingerprint`] unless told.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Keeps the engine's resident memory within `bytes`, and says what
    /// happens to new keys then. Without it memory grows with the live keys.
    pub fn memory_limit(mut self, bytes: u64, on_full: OnFull) -> Self {
        self.limit = Some(MemoryLimit { bytes, on_full });
        self
    }

    /// Hashes with XXH3-128 instead of the keyed default: faster, and only for
    /// keys that nobody hostile can choose. Whoever can choose keys can make
    /// two of them collide under XXH3 whatever its seed, and in fingerprint
    /// mode a collision suppresses a message.
    pub fn trusted_keys(mut self) -> Self {
        self.trusted_keys = true;
        self
    }

    /// The secret of the hash; random unless told. Needed only to hand state
    /// to another process. Keep it from whoever chooses the keys.
    pub fn hash_secret(mut self, secret: [u8; 32]) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Hashes with the caller's own function, say for keys that already hold a
    /// strong 128-bit hash. All 128 bits must look random: 64 of them choose
    /// shard and filter, 64 make the fingerprint. Overrides
    /// [`trusted_keys`](Self::trusted_keys).
    pub fn hash_with(mut self, hash: impl Fn(&[u8]) -> KeyHash + Send + Sync + 'static) -> Self {
        self.custom_hash = Some(KeyHasher::Custom(Box::new(hash)));
        self
    }

    /// Runs on the records' own times: then `check_at` and its kin are the
    /// calls. A record may come up to `lateness` behind the largest time seen;
    /// beyond that it is `Late`. At most the window's span.
    pub fn event_time(mut self, lateness: Duration) -> Self {
        self.lateness = Some(lateness);
        self
    }

    /// How far a record's time may be beyond the largest seen before it is an
    /// error that moves nothing; one day unless told. For the first record the
    /// clock stands for the largest seen. Event time only.
    pub fn max_ahead(mut self, max_ahead: Duration) -> Self {
        self.max_ahead = max_ahead;
        self
    }

    /// The source of processing time; [`SystemClock`] unless told.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// How many bucket tags go round before one is used again: tests make it
    /// small to see wrap-around soon. At least `2 * buckets + 4`.
    #[doc(hidden)]
    pub fn tags(mut self, tags: u8) -> Self {
        self.tags = tags;
        self
    }

    /// Builds the deduper.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming every problem at once.
    pub fn build(mut self) -> Result<Deduper, ConfigError> {
        let mut problems = self.window_problems();
        let hasher = self.take_hasher().map_err(|problem| problems.push(problem)).ok();
        ConfigError::from_problems(problems)?;
        let clock = self.clock.take().unwrap_or_else(|| Arc::new(SystemClock::new()));
        Deduper::from_builder(&self, hasher.expect("a missing hasher is a problem"), clock)
    }

    fn window_problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        if !(1..=MAX_BUCKETS).contains(&self.window.buckets) {
            problems.push(ConfigProblem::Buckets(self.window.buckets));
        }
        let Some(span) = self.window.span() else { return problems };
        if span.is_zero() {
            problems.push(ConfigProblem::ZeroSpan);
        }
        if span > LONGEST_SPAN {
            problems.push(ConfigProblem::SpanTooLong);
        }
        if let Some(lateness) = self.lateness.filter(|lateness| *lateness > span) {
            problems.push(ConfigProblem::LatenessBeyondSpan { lateness, span });
        }
        problems
    }

    fn take_hasher(&mut self) -> Result<KeyHasher, ConfigProblem> {
        if let Some(custom) = self.custom_hash.take() {
            return Ok(custom);
        }
        let secret = match self.secret {
            Some(secret) => secret,
            None => random_secret()?,
        };
        let hasher = if self.trusted_keys { KeyHasher::trusted } else { KeyHasher::keyed };
        Ok(hasher(&secret))
    }
}

fn random_secret() -> Result<[u8; 32], ConfigProblem> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)
        .map_err(|error| ConfigProblem::NoRandomSecret(error.to_string()))?;
    Ok(secret)
}
