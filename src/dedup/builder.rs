//! The builder: a deduper's configuration, checked as a whole.

use super::error::{ConfigError, ConfigProblem};
use super::tier::{Queue, Tiers};
use super::{Behind, Deduper, Domain};
use crate::confirm::{Breaker, Guard, NoConfirmer, Outage, Ownership, Reject, Rule};
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

/// The share of new keys for which a store is asked in vain, unless told.
const DEFAULT_FILTER_RATE: f64 = 0.01;

/// How far the clocks of processes that share a store may be apart.
pub(super) const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// A span that timestamps can surely tell.
const LONGEST_SPAN: Duration = Duration::from_secs(1_000 * 366 * 24 * 60 * 60);

/// Builds a [`Deduper`]; made by [`Deduper::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct Builder<C = NoConfirmer, P = Reject> {
    settings: Settings,
    slow: Option<Slow<C, P>>,
}

/// The confirmer to come.
struct Slow<C, P> {
    confirmer: C,
    ownership: Ownership<C>,
    outage: P,
    breaker: Breaker,
}

/// What was asked for of the engine itself.
struct Settings {
    window: Window,
    capacity: Option<u64>,
    mode: Mode,
    limit: Option<MemoryLimit>,
    lateness: Option<Duration>,
    max_ahead: Duration,
    clock: Option<Arc<dyn Clock>>,
    tags: u8,
    secret: Option<[u8; 32]>,
    trusted_keys: bool,
    custom_hash: Option<KeyHasher>,
    filter_rate: f64,
    write_behind: usize,
}

impl Builder {
    pub(super) fn new(window: Window) -> Self {
        let settings = Settings {
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
            filter_rate: DEFAULT_FILTER_RATE,
            write_behind: 0,
        };
        Self { settings, slow: None }
    }

    /// Puts a confirmer behind the deduper: a store that knows keys beyond this
    /// process's memory or life. `ownership` says who else writes to it, and
    /// `outage` what becomes of a check that it cannot answer:
    /// [`Reject`](crate::confirm::Reject), [`Admit`](crate::confirm::Admit) or
    /// [`Fallback`](crate::confirm::Fallback). None of them is right for
    /// everybody, so there is no default.
    pub fn confirm<C, P>(self, confirmer: C, ownership: Ownership<C>, outage: P) -> Builder<C, P> {
        let slow = Slow { confirmer, ownership, outage, breaker: Breaker::new() };
        Builder { settings: self.settings, slow: Some(slow) }
    }
}

impl<C: Sync, P: Outage> Builder<C, P> {
    /// How many live keys are expected. A hint that sets the number of shards:
    /// they grow past it, and nothing is allocated ahead. 8 million unless
    /// told; give a small one to a deduper that holds few keys.
    pub fn capacity(mut self, keys: u64) -> Self {
        self.settings.capacity = Some(keys);
        self
    }

    /// What is kept of a key; [`Mode::fingerprint`] unless told.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.settings.mode = mode;
        self
    }

    /// Keeps the engine's resident memory within `bytes`, and says what
    /// happens to new keys then. Without it memory grows with the live keys.
    pub fn memory_limit(mut self, bytes: u64, on_full: OnFull) -> Self {
        self.settings.limit = Some(MemoryLimit { bytes, on_full });
        self
    }

    /// Hashes with XXH3-128 instead of the keyed default: faster, and only for
    /// keys that nobody hostile can choose. Whoever can choose keys can make
    /// two of them collide under XXH3 whatever its seed, and in fingerprint
    /// mode a collision suppresses a message.
    pub fn trusted_keys(mut self) -> Self {
        self.settings.trusted_keys = true;
        self
    }

    /// The secret of the hash; random unless told. Needed only to hand state
    /// to another process. Keep it from whoever chooses the keys.
    pub fn hash_secret(mut self, secret: [u8; 32]) -> Self {
        self.settings.secret = Some(secret);
        self
    }

    /// Hashes with the caller's own function, say for keys that already hold a
    /// strong 128-bit hash. All 128 bits must look random: 64 of them choose
    /// shard and filter, 64 make the fingerprint. Overrides
    /// [`trusted_keys`](Self::trusted_keys).
    pub fn hash_with(mut self, hash: impl Fn(&[u8]) -> KeyHash + Send + Sync + 'static) -> Self {
        self.settings.custom_hash = Some(KeyHasher::Custom(Box::new(hash)));
        self
    }

    /// Runs on the records' own times: then `check_at` and its kin are the
    /// calls. A record may come up to `lateness` behind the largest time seen;
    /// beyond that it is `Late`. At most the window's span.
    pub fn event_time(mut self, lateness: Duration) -> Self {
        self.settings.lateness = Some(lateness);
        self
    }

    /// How far a record's time may be beyond the largest seen before it is an
    /// error that moves nothing; one day unless told. For the first record the
    /// clock stands for the largest seen. Event time only.
    pub fn max_ahead(mut self, max_ahead: Duration) -> Self {
        self.settings.max_ahead = max_ahead;
        self
    }

    /// The source of processing time; [`SystemClock`] unless told.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.settings.clock = Some(Arc::new(clock));
        self
    }

    /// When a confirmer that fails is left alone for a while; [`Breaker::new`]
    /// unless told. Without a confirmer it does nothing.
    pub fn breaker(mut self, breaker: Breaker) -> Self {
        if let Some(slow) = &mut self.slow {
            slow.breaker = breaker;
        }
        self
    }

    /// With an exclusively owned confirmer that blocks: verdicts on new keys do not
    /// wait for the store; up to so many keys are on their way to it. They are written
    /// together, by checks, when there are some thousand, and by
    /// [`flush`](Deduper::flush) and [`maintain`](Deduper::maintain). A process that is killed takes
    /// those with it that are on their way: their retries are then `Unique` again.
    /// 0 unless told: a verdict waits until its key is in the store.
    pub fn write_behind(mut self, keys: usize) -> Self {
        self.settings.write_behind = keys;
        self
    }

    /// With an exclusively owned confirmer and a memory limit: the share of new
    /// keys for which the confirmer is asked in vain, 1e-9 to 0.5; 0.01 unless
    /// told. Lower rates take more of the limit from the table.
    pub fn filter_rate(mut self, rate: f64) -> Self {
        self.settings.filter_rate = rate;
        self
    }

    /// How many bucket tags go round before one is used again: tests make it
    /// small to see wrap-around soon. At least `2 * buckets + 4`.
    #[doc(hidden)]
    pub fn tags(mut self, tags: u8) -> Self {
        self.settings.tags = tags;
        self
    }

    /// Builds the deduper. With a confirmer that it owns, this reads all keys
    /// that the confirmer holds.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], naming every problem at once.
    pub fn build(self) -> Result<Deduper<C, P>, ConfigError> {
        let Self { mut settings, slow } = self;
        let ownership = slow.as_ref().map(|slow| slow.ownership.is_exclusive());
        let mut problems = settings.problems(ownership);
        let hasher = match settings.take_hasher() {
            Ok(hasher) if problems.is_empty() => hasher,
            Ok(_) => return Err(ConfigError::new(problems)),
            Err(problem) => {
                problems.push(problem);
                return Err(ConfigError::new(problems));
            }
        };
        let dedup = settings.assemble(hasher, slow).map_err(ConfigError::of)?;
        dedup.recover().map_err(|error| ConfigError::of(ConfigProblem::Recovery(error)))?;
        Ok(dedup)
    }
}

impl Settings {
    /// `is_owned` says of a confirmer, if there is one, whether it is exclusive.
    fn problems(&self, is_owned: Option<bool>) -> Vec<ConfigProblem> {
        let mut problems = self.window_problems();
        problems.extend(self.limit_problem(is_owned == Some(true)));
        problems.extend(self.rate_problem());
        problems.extend(self.confirmer_problems(is_owned.is_some()));
        problems
    }

    /// Puts a deduper of a valid configuration together.
    fn assemble<C, P: Outage>(
        self,
        hasher: KeyHasher,
        slow: Option<Slow<C, P>>,
    ) -> Result<Deduper<C, P>, ConfigProblem> {
        let is_exclusive = slow.as_ref().is_some_and(|slow| slow.ownership.is_exclusive());
        let filter_bytes =
            self.limit.filter(|_| is_exclusive).map(|limit| self.filter_bytes(limit));
        let filter = filter_bytes.map(|bytes| self.filter(bytes)).transpose()?;
        let limit = self
            .limit
            .map(|limit| MemoryLimit { bytes: limit.bytes - filter_bytes.unwrap_or(0), ..limit });
        let (shards, budget) = self.build_shards(self.mode, limit)?;
        let clock = self.clock.clone().unwrap_or_else(|| Arc::new(SystemClock::new()));
        let behind = slow.map(|slow| self.behind(slow, filter, &clock)).transpose()?;
        Ok(Deduper {
            shards,
            hasher,
            clock,
            window: self.window,
            budget,
            domain: match self.lateness {
                None => Domain::Processing,
                Some(_) => Domain::Event { max_ahead: self.max_ahead },
            },
            limit_bytes: self.limit.map(|limit| limit.bytes),
            next_to_maintain: AtomicUsize::new(0),
            maintained: AtomicUsize::new(0),
            behind,
        })
    }

    /// The shards of one tier, and what they count their memory in.
    fn build_shards(
        &self,
        mode: Mode,
        limit: Option<MemoryLimit>,
    ) -> Result<(Shards, Arc<Budget>), ConfigProblem> {
        let rules = Rules::new(self.window, self.lateness, mode, limit, self.tags);
        if let Some(problem) = cost_problem(mode, &rules) {
            return Err(problem);
        }
        let budget = Arc::new(Budget::new(limit.map(|limit| limit.bytes)));
        let count = self.shards(mode, limit);
        let rules =
            rules.with_filters(self.capacity.map(|capacity| capacity as f64 / f64::from(count)));
        budget.reserve(Shards::fixed_bytes(count, &rules));
        Ok((Shards::new(count, self.capacity, rules, Arc::clone(&budget)), budget))
    }

    /// What stands behind the table: the confirmer, and what memory knows of it.
    fn behind<C, P: Outage>(
        &self,
        slow: Slow<C, P>,
        filter: Option<Shards>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Box<Behind<C, P>>, ConfigProblem> {
        let Slow { confirmer, ownership, outage, breaker } = slow;
        let mut rule = Rule::of(&self.window);
        if let (None, Some(lifetime)) = (self.lateness, self.record_lifetime()) {
            rule = rule.lifetime(lifetime);
        }
        let first_token = u64::from_le_bytes(random_bytes()?);
        let is_exclusive = ownership.is_exclusive();
        let queues = is_exclusive && self.write_behind > 0;
        let queue = queues.then(|| Queue::new(self.write_behind));
        let tiers = Tiers::new(rule, is_exclusive, filter, queue, first_token);
        let guard = Guard::new(confirmer, outage, breaker, Arc::clone(clock));
        Ok(Box::new(Behind { guard, ownership, tiers }))
    }

    /// How long a record can matter to anybody, by the clocks of processes that
    /// share a store: it matches to the end of the last bucket.
    fn record_lifetime(&self) -> Option<Duration> {
        let grid = self.window.grid();
        grid.stretch(grid.buckets + 1).map(|stretch| stretch.saturating_add(CLOCK_SKEW))
    }

    /// A filter over the whole window, in front of a store that is owned.
    fn filter(&self, bytes: u64) -> Result<Shards, ConfigProblem> {
        let limit = MemoryLimit { bytes, on_full: OnFull::Spill };
        let mode = Mode::filter(self.filter_rate);
        self.build_shards(mode, Some(limit)).map(|(shards, _)| shards)
    }

    /// What the filter may take of a memory limit: what the expected keys need
    /// and a quarter more; half of the limit if nothing is known.
    fn filter_bytes(&self, limit: MemoryLimit) -> u64 {
        let most = (limit.bytes / 4 * 3).min(limit.bytes - LEAST_LIMIT_BYTES);
        let Some(keys) = self.capacity else { return limit.bytes / 2 };
        let mode = Mode::filter(self.filter_rate);
        let rules = Rules::new(self.window, self.lateness, mode, None, self.tags);
        let bits = rules.filter_bits_per_key(self.filter_rate) * keys as f64;
        ((bits / 8.0 * 1.25) as u64).clamp(LEAST_LIMIT_BYTES, most)
    }

    /// How many shards: enough for the expected keys, and under a memory limit
    /// few enough that the first pages of all leave most of it free, and enough
    /// that one shard's share is within the slack.
    fn shards(&self, mode: Mode, limit: Option<MemoryLimit>) -> u32 {
        let keys_per_shard = match mode {
            Mode::Filter { .. } => KEYS_PER_FILTER_SHARD,
            Mode::Fingerprint | Mode::Verified => KEYS_PER_SHARD,
        };
        let expected = self.capacity.unwrap_or(DEFAULT_CAPACITY).div_ceil(keys_per_shard);
        let by_capacity = expected.clamp(LEAST_SHARDS.into(), MOST_SHARDS.into()) as u32;
        let by_capacity = by_capacity.next_power_of_two();
        let Some(limit) = limit else { return by_capacity };
        let by_limit = (limit.bytes / LIMIT_BYTES_PER_SHARD).min(MOST_SHARDS.into()) as u32;
        by_capacity.clamp(LEAST_SHARDS_AT_LIMIT, 1 << by_limit.ilog2())
    }

    /// A table and a filter need the least limit each.
    fn limit_problem(&self, has_filter: bool) -> Option<ConfigProblem> {
        let limit_bytes = self.limit?.bytes;
        let needed_bytes = if has_filter { 2 * LEAST_LIMIT_BYTES } else { LEAST_LIMIT_BYTES };
        (limit_bytes < needed_bytes)
            .then_some(ConfigProblem::LimitTooSmall { limit_bytes, needed_bytes })
    }

    fn rate_problem(&self) -> Option<ConfigProblem> {
        let Mode::Filter { rate } = self.mode else { return None };
        (!FILTER_RATES.contains(&rate)).then_some(ConfigProblem::FilterRate(rate))
    }

    fn confirmer_problems(&self, has_confirmer: bool) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        if self.limit.is_some_and(|limit| (limit.on_full == OnFull::Spill) != has_confirmer) {
            problems.push(ConfigProblem::SpillPolicy);
        }
        if has_confirmer && !FILTER_RATES.contains(&self.filter_rate) {
            problems.push(ConfigProblem::FilterRate(self.filter_rate));
        }
        if has_confirmer && matches!(self.mode, Mode::Filter { .. }) {
            problems.push(ConfigProblem::FilterWithConfirmer);
        }
        problems
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
            None => random_bytes()?,
        };
        let hasher = if self.trusted_keys { KeyHasher::trusted } else { KeyHasher::keyed };
        Ok(hasher(&secret))
    }
}

/// Checked last: a window and a rate that are valid can be too much together.
fn cost_problem(mode: Mode, rules: &Rules) -> Option<ConfigProblem> {
    let Mode::Filter { rate } = mode else { return None };
    let bits_per_key = rules.filter_bits_per_key(rate);
    (bits_per_key > MOST_FILTER_BITS).then_some(ConfigProblem::FilterCost { rate, bits_per_key })
}

fn random_bytes<const N: usize>() -> Result<[u8; N], ConfigProblem> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| ConfigProblem::NoRandomSecret(error.to_string()))?;
    Ok(bytes)
}
