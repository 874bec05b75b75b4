//! What is measured: cells, each a point in the space of live keys, key size,
//! mix and threads, with the engines that are compared there.
//!
//! All lie around one: 10 million live keys of 16 bytes, half of the stream
//! new, known keys drawn uniformly, one thread, fast hashes. Each of the others
//! varies one factor.

use crate::engines::Kind;

/// What a stream consists of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mix {
    /// The share of new keys, 0 to 1.
    pub(crate) new_share: f64,
    /// How the known keys are drawn.
    pub(crate) skew: Skew,
}

/// How known keys are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skew {
    /// All equally often.
    Uniform,
    /// By Zipf's law with exponent 1.
    Zipf,
}

const HALF: Mix = Mix { new_share: 0.5, skew: Skew::Uniform };
const ALL_NEW: Mix = Mix { new_share: 1.0, skew: Skew::Uniform };
const ALL_KNOWN: Mix = Mix { new_share: 0.0, skew: Skew::Uniform };
const ZIPF: Mix = Mix { new_share: 0.0, skew: Skew::Zipf };
const ZIPF_HALF: Mix = Mix { new_share: 0.5, skew: Skew::Zipf };

impl Mix {
    /// Whether known keys are drawn by Zipf's law.
    pub(crate) const fn is_zipf(self) -> bool {
        matches!(self.skew, Skew::Zipf)
    }

    fn describe(self) -> String {
        let skew = match self.skew {
            Skew::Uniform => "",
            Skew::Zipf => ", known ones by Zipf's law",
        };
        format!("{} % new{skew}", self.new_share * 100.0)
    }
}

/// An engine, and how many threads call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    pub(crate) threads: usize,
}

/// One comparison.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) name: String,
    pub(crate) live_keys: u64,
    pub(crate) key_bytes: usize,
    pub(crate) mix: Mix,
    /// The first is the subject that the others are compared with.
    pub(crate) contenders: Vec<Contender>,
}

impl Cell {
    fn new(name: impl Into<String>, kinds: &[Kind]) -> Self {
        let contenders = kinds.iter().map(|kind| Contender { kind: *kind, threads: 1 }).collect();
        Self { name: name.into(), live_keys: 10_000_000, key_bytes: 16, mix: HALF, contenders }
    }

    fn with_live_keys(self, live_keys: u64) -> Self {
        Self { live_keys, ..self }
    }

    fn with_key_bytes(self, key_bytes: usize) -> Self {
        Self { key_bytes, ..self }
    }

    fn with_mix(self, mix: Mix) -> Self {
        Self { mix, ..self }
    }

    fn with_threads(mut self, threads: usize) -> Self {
        for contender in &mut self.contenders {
            contender.threads = threads;
        }
        self
    }

    /// The most threads of any contender.
    pub(crate) fn most_threads(&self) -> usize {
        self.contenders.iter().map(|contender| contender.threads).max().unwrap_or(1)
    }

    /// What is the same for all contenders, for people.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{}: {} live keys of {} bytes, {}",
            self.name,
            thousands(self.live_keys),
            self.key_bytes,
            self.mix.describe()
        )
    }
}

/// Every engine that stores keys, with fast hashes, and the limit.
const FAST: [Kind; 8] = [
    Kind::Hapax,
    Kind::DashmapAhash,
    Kind::PapayaAhash,
    Kind::SccAhash,
    Kind::MokaAhash,
    Kind::QuickCacheAhash,
    Kind::HashbrownAhash,
    Kind::Limit,
];

/// Every engine with the hash it has unless told.
const DEFAULT: [Kind; 7] = [
    Kind::HapaxDefault,
    Kind::DashmapDefault,
    Kind::PapayaDefault,
    Kind::SccDefault,
    Kind::MokaDefault,
    Kind::QuickCacheAhash,
    Kind::HashbrownDefault,
];

/// Hapax called key by key, and dashmap likewise.
const SINGLE: [Kind; 3] = [Kind::HapaxSingle, Kind::DashmapAhash, Kind::DashmapAhashClocked];

/// All cells, for a machine of so many processors.
pub(crate) fn cells(processors: usize) -> Vec<Cell> {
    let mut cells = vec![
        Cell::new("base", &FAST),
        Cell::new("new", &FAST).with_mix(ALL_NEW),
        Cell::new("known", &FAST).with_mix(ALL_KNOWN),
        Cell::new("zipf", &FAST).with_mix(ZIPF),
        Cell::new("zipf-half", &FAST).with_mix(ZIPF_HALF),
        Cell::new("key-8", &FAST).with_key_bytes(8),
        Cell::new("key-36", &FAST).with_key_bytes(36),
        Cell::new("live-100k", &FAST).with_live_keys(100_000),
        Cell::new("live-100m", &FAST).with_live_keys(100_000_000),
        Cell::new("default-hash", &DEFAULT),
        Cell::new(
            "modes",
            &[
                Kind::HapaxVerified,
                Kind::Hapax,
                Kind::HapaxVerifiedDefault,
                Kind::HapaxDefault,
                Kind::DashmapAhash,
                Kind::DashmapDefault,
            ],
        ),
        Cell::new("windows", &[Kind::Hapax, Kind::HapaxSliding, Kind::HapaxUnbounded]),
        Cell::new("single", &SINGLE),
        Cell::new("single-zipf-2", &SINGLE).with_mix(ZIPF).with_threads(2),
        Cell::new("rolling", &[Kind::HapaxRolling, Kind::HapaxStill]),
        Cell::new("filter-vs-fastbloom", &[Kind::HapaxFilter, Kind::Fastbloom, Kind::LimitPairs])
            .with_live_keys(128_000_000),
        scaling(),
    ];
    cells.extend(
        thread_counts(processors)
            .map(|threads| Cell::new(format!("threads-{threads}"), &FAST).with_threads(threads)),
    );
    cells
}

/// One thread against two, round by round.
fn scaling() -> Cell {
    let contenders = [(Kind::Hapax, 2), (Kind::Hapax, 1), (Kind::Limit, 2), (Kind::Limit, 1)]
        .map(|(kind, threads)| Contender { kind, threads });
    Cell { contenders: contenders.to_vec(), ..Cell::new("scaling", &[]) }
}

/// 2, 4, 8 and so on, as far as there are processors; 2 in any case.
fn thread_counts(processors: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(2), move |threads| Some(threads * 2).filter(|n| *n <= processors))
}

/// A number with its thousands set apart.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).expect("digits are ASCII"))
        .collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_distinct() {
        let cells = cells(16);
        let names: HashSet<_> = cells.iter().map(|cell| &cell.name).collect();
        assert_eq!(names.len(), cells.len());
        assert!(names.contains(&"threads-16".to_owned()));
    }

    #[test]
    fn two_threads_are_tried_on_any_machine() {
        assert_eq!(thread_counts(1).collect::<Vec<_>>(), [2]);
        assert_eq!(thread_counts(6).collect::<Vec<_>>(), [2, 4]);
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(10_000_000), "10,000,000");
    }
}
