//! Finished keys, in this process.

use crate::confirm::claims::{Answer, Digest, Outcome};
use crate::time::{Clock, Timestamp};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::sync::Arc;
use std::time::Duration;

/// What a finished key takes beside its identity and its outcome, in bytes.
const ENTRY_BYTES: usize = 200;

/// For how long what others finished is remembered: long enough for a storm of retries,
/// and soon looked up again, because the store may be about to forget it.
const LEARNED_FOR: Duration = Duration::from_secs(60);

/// What came of keys that finished lately, as far as there is room: an outcome that was
/// stored never changes until it expires, so nobody has to ask for it twice.
pub(super) struct Finished {
    cache: Option<Cache<Arc<[u8]>, Known, Bytes>>,
    keep: Duration,
    clock: Arc<dyn Clock>,
}

#[derive(Clone)]
struct Known {
    digest: Digest,
    outcome: Outcome,
    until: Timestamp,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Arc<[u8]>, Known> for Bytes {
    fn weight(&self, id: &Arc<[u8]>, known: &Known) -> u64 {
        (ENTRY_BYTES + id.len() + known.outcome.len()) as u64
    }
}

impl Finished {
    pub(super) fn new(limit_bytes: usize, keep: Duration, clock: Arc<dyn Clock>) -> Self {
        let cache = (limit_bytes > 0).then(|| {
            Cache::with_weighter(limit_bytes / (2 * ENTRY_BYTES), limit_bytes as u64, Bytes)
        });
        Self { cache, keep, clock }
    }

    /// What a claim with `digest` comes to, if the key is known to be finished.
    pub(super) fn answer(&self, id: &[u8], digest: &Digest) -> Option<Answer> {
        let known = self.cache.as_ref()?.get(id)?;
        if self.clock.now() >= known.until {
            self.forget(id);
            return None;
        }
        let is_same = known.digest == *digest;
        Some(if is_same { Answer::Finished(known.outcome) } else { Answer::Mismatch })
    }

    /// This process has finished a key, just now.
    pub(super) fn remember(&self, id: &[u8], digest: Digest, outcome: &Outcome) {
        self.know(id, digest, outcome, self.keep);
    }

    /// The store says that a key is finished, and not for how long it will say so.
    pub(super) fn learn(&self, id: &[u8], digest: Digest, outcome: &Outcome) {
        self.know(id, digest, outcome, self.keep.min(LEARNED_FOR));
    }

    fn know(&self, id: &[u8], digest: Digest, outcome: &Outcome, span: Duration) {
        let Some(cache) = &self.cache else { return };
        let until = self.clock.now().saturating_add(span);
        cache.insert(Arc::from(id), Known { digest, outcome: outcome.clone(), until });
    }

    pub(super) fn forget(&self, id: &[u8]) {
        if let Some(cache) = &self.cache {
            cache.remove(id);
        }
    }
}
