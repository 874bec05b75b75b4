//! One configuration, from which both the engine and the model are made.

use super::Rules;
use super::random::scatter;
use hapax::{Builder, Deduper, KeyHash, ManualClock, Mode, Timestamp, Window};
use std::sync::Arc;
use std::time::Duration;

/// What makes a window end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Fixed,
    Sliding,
    Unbounded,
}

/// How keys are hashed: the library's own ways, and injected bad ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hashing {
    Keyed,
    Trusted,
    /// Every key has one hash.
    Colliding,
    /// Eight bits, the lowest of the hash.
    LowByte,
    /// Eight bits, the highest of the hash.
    HighByte,
    /// Eight bits, repeated over the whole hash.
    Spread,
    /// Eight bits that choose the shard; the fingerprint is good.
    FewShards,
}

impl Hashing {
    pub const CUT: [Self; 4] = [Self::Colliding, Self::LowByte, Self::HighByte, Self::Spread];

    /// The secret is fixed, so that a failure replays.
    fn apply(self, builder: Builder) -> Builder {
        let builder = builder.hash_secret(*b"a secret that lets tests replay.");
        match self {
            Self::Keyed => builder,
            Self::Trusted => builder.trusted_keys(),
            cut => builder.hash_with(move |key| KeyHash::new(cut.cut(key))),
        }
    }

    fn cut(self, key: &[u8]) -> u128 {
        let hash = hash(key);
        let byte = u128::from(hash & 0xff);
        match self {
            Self::LowByte => byte,
            Self::HighByte => byte << 120,
            Self::Spread => byte * (u128::MAX / 0xff),
            Self::FewShards => byte << 120 | u128::from(scatter(hash)),
            Self::Keyed | Self::Trusted | Self::Colliding => 0x0123_4567_89ab_cdef,
        }
    }
}

/// A plain 64-bit hash of a key's bytes: FNV-1a, scattered.
pub fn hash(key: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    scatter(key.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

#[derive(Clone, Debug)]
pub struct Config {
    pub mode: Mode,
    pub kind: Kind,
    pub span: Duration,
    pub buckets: u32,
    /// `Some`: event time.
    pub lateness: Option<Duration>,
    pub max_ahead: Duration,
    pub tags: u8,
    pub capacity: u64,
    pub hashing: Hashing,
    pub start: Timestamp,
}

impl Default for Config {
    /// A fixed window of 8 buckets of one second, in processing time.
    fn default() -> Self {
        Self {
            mode: Mode::fingerprint(),
            kind: Kind::Fixed,
            span: Duration::from_secs(8),
            buckets: 8,
            lateness: None,
            max_ahead: Duration::from_secs(24 * 60 * 60),
            tags: u8::MAX,
            capacity: 1,
            hashing: Hashing::Keyed,
            start: Timestamp::from_secs(1_790_000_000),
        }
    }
}

impl Config {
    pub fn window(&self) -> Window {
        match self.kind {
            Kind::Fixed => Window::fixed(self.span),
            Kind::Sliding => Window::sliding(self.span),
            Kind::Unbounded => Window::unbounded(),
        }
        .buckets(self.buckets)
    }

    pub fn builder(&self) -> Builder {
        let builder = Deduper::builder(self.window())
            .mode(self.mode)
            .capacity(self.capacity)
            .max_ahead(self.max_ahead)
            .tags(self.tags);
        let builder = match self.lateness {
            Some(lateness) => builder.event_time(lateness),
            None => builder,
        };
        self.hashing.apply(builder)
    }

    /// A deduper and the clock that it reads, which shows `start`.
    pub fn build(&self) -> (Deduper, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(self.start));
        let dedup = self.builder().clock(Arc::clone(&clock)).build();
        (dedup.unwrap_or_else(|error| panic!("{error}: {self:?}")), clock)
    }

    pub fn rules(&self) -> Rules {
        Rules {
            width_micros: (self.kind != Kind::Unbounded).then(|| self.width_micros()),
            buckets: i64::from(self.buckets),
            sliding: self.kind == Kind::Sliding,
            lateness: self.lateness.unwrap_or_default(),
            max_ahead: self.max_ahead,
        }
    }

    /// The width of one bucket by the contract, not by asking the library. An
    /// unbounded window has none; there it is a unit to move time by.
    pub fn width_micros(&self) -> i64 {
        i64::try_from(self.span.as_micros().div_ceil(u128::from(self.buckets))).unwrap()
    }

    pub fn width(&self) -> Duration {
        Duration::from_micros(self.width_micros().unsigned_abs())
    }
}

/// The two modes that keep each key by itself.
pub const MODES: [Mode; 2] = [Mode::fingerprint(), Mode::verified()];

/// A filter whose mistakes are too rare to be seen.
pub const FILTER: Mode = Mode::filter(1e-6);

/// All three.
pub const ALL_MODES: [Mode; 3] = [Mode::fingerprint(), Mode::verified(), FILTER];
