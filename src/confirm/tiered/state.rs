//! What a tiered confirmer remembers between calls.

use super::TieredStats;
use crate::confirm::{Bucket, Rule, Sighting, StoreErrorKind};
use crate::time::Window;
use std::time::{Duration, Instant};

pub(super) struct State {
    /// When the cache failed, unless it has answered since.
    failed: Option<Instant>,
    latest: Bucket,
    rule: Rule,
    stats: TieredStats,
}

impl Default for State {
    fn default() -> Self {
        Self {
            failed: None,
            latest: Bucket::new(i64::MIN),
            rule: Rule::of(&Window::unbounded()),
            stats: TieredStats::default(),
        }
    }
}

impl State {
    pub(super) fn stats(&self) -> TieredStats {
        TieredStats { is_cache_failing: self.failed.is_some(), ..self.stats }
    }

    pub(super) fn asked(&mut self, sightings: &[Sighting<'_>], rule: Rule) {
        let buckets = sightings.iter().map(|sighting| sighting.bucket);
        self.latest = buckets.fold(self.latest, Bucket::max);
        self.rule = rule;
        self.stats.sightings += sightings.len() as u64;
    }

    /// The latest bucket asked about.
    pub(super) const fn latest(&self) -> Bucket {
        self.latest
    }

    /// The rule last asked with.
    pub(super) const fn rule(&self) -> Rule {
        self.rule
    }

    /// True iff the cache may be asked. Where it has rested long enough one caller
    /// may, and the others wait for what comes of it.
    pub(super) fn may_ask(&mut self, rest: Duration) -> bool {
        match &mut self.failed {
            None => true,
            Some(since) if since.elapsed() < rest => false,
            Some(since) => {
                *since = Instant::now();
                true
            }
        }
    }

    pub(super) const fn cache_answered(&mut self) {
        self.failed = None;
    }

    /// A full cache goes on: it answers for what it holds.
    pub(super) fn cache_failed(&mut self, kind: StoreErrorKind) {
        self.stats.cache_failures += 1;
        if kind != StoreErrorKind::Full {
            self.failed = Some(Instant::now());
        }
    }

    pub(super) const fn settled(&mut self, short_cut: usize) {
        self.stats.short_cut += short_cut as u64;
    }

    pub(super) const fn uncached(&mut self, sightings: usize) {
        self.stats.uncached += sightings as u64;
    }

    pub(super) const fn filled(&mut self, records: usize) {
        self.stats.filled += records as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_that_has_rested_is_tried_by_one_caller() {
        let rest = Duration::from_secs(1);
        let mut state = State { failed: Instant::now().checked_sub(2 * rest), ..State::default() };
        assert!(state.may_ask(rest));
        assert!(!state.may_ask(rest), "the others wait for what comes of it");
        state.cache_answered();
        assert!(state.may_ask(rest));
    }
}
