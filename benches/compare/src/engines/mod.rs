//! Everything that can answer the question, behind one trait.
//!
//! An engine is called with a batch of keys, so that choosing the engine costs
//! one dynamic call per batch and none per key. Every peer stores the second at
//! which it first saw a key, and its check means: known and not older than the
//! span, `Duplicate`; else the new second is recorded, `Unique`. Removing keys
//! that have expired would be the caller's job with all of them but moka, and
//! is not charged to them.

mod dashmap;
mod filters;
mod hapax;
mod hashbrown;
mod limit;
mod moka;
mod papaya;
mod quick_cache;
mod rolling;
mod scc;
mod stamps;

use self::dashmap::DashmapEngine;
use self::filters::FastbloomEngine;
use self::hapax::{Calls, HapaxEngine};
use self::hashbrown::HashbrownEngine;
use self::limit::LimitEngine;
use self::moka::MokaEngine;
use self::papaya::PapayaEngine;
use self::quick_cache::QuickCacheEngine;
use self::rolling::RollingEngine;
use self::scc::SccEngine;
use self::stamps::Reading;
use ::hapax::{Builder, Mode, Verdict, Window};
use clap::ValueEnum;
use std::time::Duration;

/// Keys in one call of an engine, and in one reading of the clock.
pub(crate) const BATCH: usize = 256;

/// The window of every engine: so long that nothing expires in a run, save
/// where the clock is moved by hand.
const SPAN: Duration = Duration::from_secs(24 * 60 * 60);

/// An engine under test, for keys of `N` bytes.
pub(crate) trait Engine<const N: usize>: Send + Sync {
    /// Checks up to [`BATCH`] keys in order, recording the new ones, and fills
    /// in as many verdicts.
    fn check_all(&self, keys: &[[u8; N]], verdicts: &mut [Verdict]);

    /// Forgets keys; never timed.
    fn forget_all(&self, keys: &[[u8; N]]);

    /// Bytes of the engine's memory, where it knows.
    fn memory_bytes(&self) -> Option<u64> {
        None
    }
}

/// What an engine is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// The keys that are known when a round begins.
    pub(crate) live_keys: u64,
    /// The most keys that are ever known at once.
    pub(crate) capacity: u64,
    /// The size of the table that the limit walks over.
    pub(crate) table_bytes: u64,
}

impl Room {
    /// The capacity for a map, with a little more for shards that get more
    /// than their share.
    fn ample(self) -> usize {
        (self.capacity + self.capacity / 20 + 1_024) as usize
    }
}

/// The engines by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// Hapax, trusted keys (XXH3), fixed window, batches
    Hapax,
    /// Hapax with its default hash, keyed SipHash-1-3
    HapaxDefault,
    /// Hapax in verified mode, trusted keys
    HapaxVerified,
    /// Hapax in verified mode with its default hash
    HapaxVerifiedDefault,
    /// Hapax with a sliding window, trusted keys
    HapaxSliding,
    /// Hapax with an unbounded window, trusted keys
    HapaxUnbounded,
    /// Hapax called one key at a time, which reads the clock for each; trusted keys
    HapaxSingle,
    /// Hapax whose clock stands still, trusted keys
    HapaxStill,
    /// Hapax whose clock moves on by a bucket with every bucket's share of new keys: they expire
    /// as fast as they come; trusted keys
    HapaxRolling,
    /// The same in filter mode, at 1 % over 8 buckets; trusted keys
    HapaxFilter,
    /// Eight fastbloom filters with ahash, together at 1 %: a key is looked for in all, a new one
    /// goes into the newest; when that is full, the oldest is emptied and becomes the newest
    Fastbloom,
    /// dashmap's entry API with ahash; compares stamps, expires nothing
    DashmapAhash,
    /// The same, reading the clock for each key as a caller of single checks would
    DashmapAhashClocked,
    /// dashmap with its default hash, SipHash-1-3; compares stamps, expires nothing
    DashmapDefault,
    /// papaya's compute with ahash; compares stamps, expires nothing
    PapayaAhash,
    /// papaya with its default hash, SipHash-1-3; compares stamps, expires nothing
    PapayaDefault,
    /// scc's `HashMap` entries with ahash; compares stamps, expires nothing
    SccAhash,
    /// scc with its default hash, SipHash-1-3; compares stamps, expires nothing
    SccDefault,
    /// moka's sync cache with time-to-live and ahash, no capacity set; expires by itself
    MokaAhash,
    /// moka with its default hash, SipHash-1-3; expires by itself
    MokaDefault,
    /// `quick_cache` with ahash, its default too; bounded by capacity, expires nothing
    QuickCacheAhash,
    /// 256 `parking_lot` mutexes over hashbrown tables with ahash; compares stamps, expires nothing
    HashbrownAhash,
    /// The same with hashbrown's default hash, foldhash
    HashbrownDefault,
    /// The machine's own limit: random lines read, changed and written, with prefetch and without
    /// a lock, over as much memory as Hapax takes; answers nothing
    Limit,
    /// The same with pairs of adjacent lines, as a filter's block at 1 % over 8 buckets has
    LimitPairs,
}

impl Kind {
    /// The name on the command line and in reports.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value().expect("no kind is hidden");
        value.get_name().to_owned()
    }

    /// Whether its verdicts mean anything.
    pub(crate) const fn answers(self) -> bool {
        !matches!(self, Self::Limit | Self::LimitPairs)
    }

    /// Whether its old keys expire as new ones come, so that none is forgotten
    /// between rounds.
    pub(crate) const fn rolls(self) -> bool {
        matches!(self, Self::HapaxRolling) || self.is_filter()
    }

    /// The share of verdicts that may be wrong: some new keys are called known,
    /// and are new once more when what they were taken for has expired.
    pub(crate) const fn wrong_share(self) -> f64 {
        if self.is_filter() { 2.0 * rolling::FILTER_RATE } else { 0.0 }
    }

    const fn is_filter(self) -> bool {
        matches!(self, Self::HapaxFilter | Self::Fastbloom)
    }

    /// Keys to be recorded and forgotten before the first round. A rolling
    /// window holds a bucket more than its span, and what stands still beside
    /// it must not have the smaller, fuller table (a fifth slower, measured).
    pub(crate) const fn surplus_keys(self, live_keys: u64) -> u64 {
        match self {
            Self::HapaxStill => rolling::keys_per_bucket(live_keys) + BATCH as u64,
            _ => 0,
        }
    }

    /// A guess of the resident bytes that a key of `key_bytes` takes at the
    /// worst fill: what decides which engines fit in memory together. A little
    /// above what was measured at keys of 8, 16 and 36 bytes, just after maps
    /// had doubled.
    pub(crate) const fn guessed_bytes_per_key(self, key_bytes: u64) -> u64 {
        match self {
            Self::HapaxVerified | Self::HapaxVerifiedDefault => 32 + key_bytes,
            Self::DashmapAhash
            | Self::DashmapAhashClocked
            | Self::DashmapDefault
            | Self::HashbrownAhash
            | Self::HashbrownDefault
            | Self::SccAhash
            | Self::SccDefault => (key_bytes + 6) * 5 / 2,
            Self::PapayaAhash | Self::PapayaDefault | Self::QuickCacheAhash => 56 + key_bytes,
            Self::MokaAhash | Self::MokaDefault => 340 + key_bytes,
            Self::HapaxFilter | Self::Fastbloom | Self::LimitPairs => 5,
            _ => 20,
        }
    }

    /// Makes an empty engine.
    pub(crate) fn build<const N: usize>(self, room: Room) -> Box<dyn Engine<N>> {
        let fixed = Window::fixed(SPAN);
        let hapax = |window, calls, configure: fn(Builder) -> Builder| -> Box<dyn Engine<N>> {
            Box::new(HapaxEngine::new(window, room, calls, configure))
        };
        match self {
            Self::Hapax => hapax(fixed, Calls::Batch, Builder::trusted_keys),
            Self::HapaxDefault => hapax(fixed, Calls::Batch, |builder| builder),
            Self::HapaxVerified => {
                hapax(fixed, Calls::Batch, |builder| builder.trusted_keys().mode(Mode::verified()))
            }
            Self::HapaxVerifiedDefault => {
                hapax(fixed, Calls::Batch, |builder| builder.mode(Mode::verified()))
            }
            Self::HapaxSliding => hapax(Window::sliding(SPAN), Calls::Batch, Builder::trusted_keys),
            Self::HapaxUnbounded => hapax(Window::unbounded(), Calls::Batch, Builder::trusted_keys),
            Self::HapaxSingle => hapax(fixed, Calls::Single, Builder::trusted_keys),
            Self::HapaxStill => Box::new(RollingEngine::standing_still(room)),
            Self::HapaxRolling => Box::new(RollingEngine::rolling(room)),
            Self::HapaxFilter => Box::new(RollingEngine::filtering(room)),
            Self::Fastbloom => Box::new(FastbloomEngine::new(room)),
            Self::DashmapAhash => Box::new(DashmapEngine::<N, Ahash>::new(room, Reading::PerBatch)),
            Self::DashmapAhashClocked => {
                Box::new(DashmapEngine::<N, Ahash>::new(room, Reading::PerKey))
            }
            Self::DashmapDefault => Box::new(DashmapEngine::<N, Sip>::new(room, Reading::PerBatch)),
            Self::PapayaAhash => Box::new(PapayaEngine::<N, Ahash>::new(room)),
            Self::PapayaDefault => Box::new(PapayaEngine::<N, Sip>::new(room)),
            Self::SccAhash => Box::new(SccEngine::<N, Ahash>::new(room)),
            Self::SccDefault => Box::new(SccEngine::<N, Sip>::new(room)),
            Self::MokaAhash => Box::new(MokaEngine::<N, Ahash>::new(room)),
            Self::MokaDefault => Box::new(MokaEngine::<N, Sip>::new(room)),
            Self::QuickCacheAhash => Box::new(QuickCacheEngine::<N>::new(room)),
            Self::HashbrownAhash => Box::new(HashbrownEngine::<N, Ahash>::new(room)),
            Self::HashbrownDefault => {
                Box::new(HashbrownEngine::<N, ::hashbrown::DefaultHashBuilder>::new(room))
            }
            Self::Limit => Box::new(LimitEngine::new(room, 1)),
            Self::LimitPairs => Box::new(LimitEngine::new(room, 2)),
        }
    }
}

/// The fast hash of the peers.
type Ahash = ahash::RandomState;

/// The default hash of most peers.
type Sip = std::hash::RandomState;

/// Checks keys one after the other.
#[inline]
fn one_by_one<const N: usize>(
    keys: &[[u8; N]],
    verdicts: &mut [Verdict],
    mut is_known: impl FnMut(&[u8; N]) -> bool,
) {
    for (key, verdict) in keys.iter().zip(verdicts) {
        *verdict = if is_known(key) { Verdict::Duplicate } else { Verdict::Unique };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::key;
    use std::collections::HashSet;

    const ROOM: Room = Room { live_keys: 4_096, capacity: 8_192, table_bytes: 1 << 16 };

    /// Numbers below 3,000 in no order, many of them more than once.
    fn numbers() -> Vec<u64> {
        (0..6_000_u64).map(|step| (step * step + 7 * step) % 3_001).collect()
    }

    fn check<const N: usize>(engine: &dyn Engine<N>, numbers: &[u64]) -> Vec<Verdict> {
        let keys: Vec<[u8; N]> = numbers.iter().map(|number| key(*number)).collect();
        let mut verdicts = vec![Verdict::Late; keys.len()];
        for (keys, verdicts) in keys.chunks(BATCH).zip(verdicts.chunks_mut(BATCH)) {
            engine.check_all(keys, verdicts);
        }
        verdicts
    }

    fn answers_like_a_set<const N: usize>(kind: Kind) {
        let engine = kind.build::<N>(ROOM);
        let numbers = numbers();
        let mut seen = HashSet::new();
        for (index, verdict) in check(&*engine, &numbers).into_iter().enumerate() {
            let is_new = seen.insert(numbers[index]);
            assert_eq!(verdict.is_unique(), is_new, "{} at {index}, {N} bytes", kind.name());
        }
        forgets_some(kind, &*engine, &seen.into_iter().collect::<Vec<_>>());
    }

    fn forgets_some<const N: usize>(kind: Kind, engine: &dyn Engine<N>, known: &[u64]) {
        let (gone, kept) = known.split_at(known.len() / 2);
        for numbers in gone.chunks(BATCH) {
            engine.forget_all(&numbers.iter().map(|number| key(*number)).collect::<Vec<_>>());
        }
        let is_unique = |numbers| check(engine, numbers).into_iter().map(Verdict::is_unique);
        assert!(is_unique(kept).all(|unique| !unique), "{} forgot too much", kind.name());
        assert!(is_unique(gone).all(|unique| unique), "{} forgot too little", kind.name());
    }

    #[test]
    fn every_engine_answers_like_a_set() {
        let is_exact = |kind: &Kind| kind.answers() && !kind.is_filter();
        for kind in Kind::value_variants().iter().copied().filter(is_exact) {
            answers_like_a_set::<8>(kind);
            answers_like_a_set::<16>(kind);
            answers_like_a_set::<36>(kind);
        }
    }

    #[test]
    fn names_are_distinct() {
        let names: HashSet<_> = Kind::value_variants().iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::value_variants().len());
    }
}
