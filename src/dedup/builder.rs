//! The builder: a deduper's configuration, checked as a whole.

use super::error::{ConfigError, ConfigProblem};
use super::{Deduper, Domain};
use crate::hash::{KeyHash, KeyHasher};
use crate::memory::{Budget, MemoryLimit, OnFull};
use crate::mode::Mode;
use crate::shard::{Rules, Shards};
use crate::sync::atomic::AtomicUsize;
use crate::time::{Clock, MAX_BUCKETS, SystemClock, Window};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

/// Without a hint: 1,024 shards.
const DEFAULT_CAPACITY: u64 = 1_024 * KEYS_PER_SHARD;

/// Growing a shard rewrites it: about 0.3 ms at this size, from 1 ms measured
/// at 27,000 keys. Many more shards would no longer fit the caches with their
/// headers.
const KEYS_PER_SHARD: u64 = 8_192;

/// A filter's shards never rewrite anything, and the more keys are in each, the
/// less room must be spared for what chance sends to one more than to others.
const KEYS_PER_FILTER_SHARD: u64 = 65_536;

/// Few enough for a small deduper, enough that threads rarely meet.
const LEAST_SHARDS: u32 = 16;
const MOST_SHARDS: u32 = 1 << 16;

/// A shard that compacts its keys overdraws a memory limit by its share.
const LEAST_SHARDS_AT_LIMIT: u32 = 32;

/// A shard's share of a memory limit: its memory comes in steps of one page
/// (and one block, in verified mode), which must be small against the share.
const LIMIT_BYTES_PER_SHARD: u64 = 128 << 10;

/// The least memory limit: enough for the fewest shards.
const LEAST_LIMIT_BYTES: u64 = LEAST_SHARDS_AT_LIMIT as u64 * LIMIT_BYTES_PER_SHARD;

/// Below, a fingerprint takes less memory; above, it would hardly be a filter.
const FILTER_RATES: RangeInclusive<f64> = 1e-9..=0.5;

/// A filter that takes more bits a key than this is a mistake.
const MOST_FILTER_BITS: f64 = 512.0;

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
        problems.extend(self.limit_problem());
        problems.extend(self.rate_problem());
        match (self.take_hasher(), problems.is_empty()) {
            (Ok(hasher), true) => self.assemble(hasher),
            (Ok(_), false) => Err(ConfigError::new(problems)),
            (Err(problem), _) => {
                problems.push(problem);
                Err(ConfigError::new(problems))
            }
        }
    }

    /// Puts a deduper of a valid configuration together.
    fn assemble(self, hasher: KeyHasher) -> Result<Deduper, ConfigError> {
        let rules = Rules::new(self.window, self.lateness, self.mode, self.limit, self.tags);
        if let Some(problem) = self.cost_problem(&rules) {
            return Err(ConfigError::new(vec![problem]));
        }
        let budget = Arc::new(Budget::new(self.limit.map(|limit| limit.bytes)));
        let shards = self.shards();
        let rules =
            rules.with_filters(self.capacity.map(|capacity| capacity as f64 / f64::from(shards)));
        budget.reserve(Shards::fixed_bytes(shards, &rules));
        Ok(Deduper {
            shards: Shards::new(shards, self.capacity, rules, Arc::clone(&budget)),
            hasher,
            clock: self.clock.unwrap_or_else(|| Arc::new(SystemClock::new())),
            window: self.window,
            budget,
            domain: match self.lateness {
                None => Domain::Processing,
                Some(_) => Domain::Event { max_ahead: self.max_ahead },
            },
            limit_bytes: self.limit.map(|limit| limit.bytes),
            next_to_maintain: AtomicUsize::new(0),
            maintained: AtomicUsize::new(0),
        })
    }

    /// How many shards: enough for the expected keys, and under a memory limit
    /// few enough that the first pages of all leave most of it free, and enough
    /// that one shard's share is within the slack.
    fn shards(&self) -> u32 {
        let keys_per_shard = match self.mode {
            Mode::Filter { .. } => KEYS_PER_FILTER_SHARD,
            Mode::Fingerprint | Mode::Verified => KEYS_PER_SHARD,
        };
        let expected = self.capacity.unwrap_or(DEFAULT_CAPACITY).div_ceil(keys_per_shard);
        let by_capacity = expected.clamp(LEAST_SHARDS.into(), MOST_SHARDS.into()) as u32;
        let by_capacity = by_capacity.next_power_of_two();
        let Some(limit) = self.limit else { return by_capacity };
        let by_limit = (limit.bytes / LIMIT_BYTES_PER_SHARD).min(MOST_SHARDS.into()) as u32;
        by_capacity.clamp(LEAST_SHARDS_AT_LIMIT, 1 << by_limit.ilog2())
    }

    fn limit_problem(&self) -> Option<ConfigProblem> {
        let limit_bytes = self.limit?.bytes;
        (limit_bytes < LEAST_LIMIT_BYTES).then_some(ConfigProblem::LimitTooSmall {
            limit_bytes,
            needed_bytes: LEAST_LIMIT_BYTES,
        })
    }

    fn rate_problem(&self) -> Option<ConfigProblem> {
        let Mode::Filter { rate } = self.mode else { return None };
        (!FILTER_RATES.contains(&rate)).then_some(ConfigProblem::FilterRate(rate))
    }

    /// Checked last: a window and a rate that are valid can be too much
    /// together.
    fn cost_problem(&self, rules: &Rules) -> Option<ConfigProblem> {
        let Mode::Filter { rate } = self.mode else { return None };
        let bits_per_key = rules.filter_bits_per_key(rate);
        (bits_per_key > MOST_FILTER_BITS)
            .then_some(ConfigProblem::FilterCost { rate, bits_per_key })
    }

    fn window_problems(&self) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        let most = MAX_BUCKETS.min(u32::from(self.tags).saturating_sub(4) / 2);
        if !(1..=most).contains(&self.window.buckets) {
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
