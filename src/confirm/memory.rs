//! A confirmer in this process's memory.

use super::StoreErrorKind::Fenced;
use super::ownership::other_width;
use super::{Answer, Bucket, Confirmer, OwnedStore, Record, Rule, Sighting, StoreError};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A confirmer in memory, for tests and examples: it keeps the whole contract
/// and outlives nothing.
///
/// One lock, one map; a batch takes the lock once.
///
/// ```
/// use hapax::confirm::{Answer, Bucket, Confirmer, MemoryConfirmer, Rule, Sighting, Token};
/// use hapax::Window;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let rule = Rule::of(&Window::fixed(Duration::from_secs(600)));
/// let confirmer = MemoryConfirmer::new();
/// let now = Bucket::new(23_000);
/// let sightings = [
///     Sighting { key: b"order-17", bucket: now, token: Token::new(1) },
///     Sighting { key: b"order-17", bucket: now, token: Token::new(2) },
/// ];
/// assert_eq!(confirmer.confirm(&sightings, rule)?, [Answer::New, Answer::Seen(now)]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MemoryConfirmer {
    store: Arc<Mutex<Store>>,
    epoch: u64,
}

/// What all owners of one store share.
#[derive(Debug, Default)]
struct Store {
    records: HashMap<Box<[u8]>, Record>,
    owner: u64,
    width: Option<Width>,
}

/// How wide buckets are; `None`: there is one for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Width(Option<Duration>);

impl MemoryConfirmer {
    /// An empty store and its first owner.
    pub fn new() -> Self {
        Self::own(Arc::default())
    }

    /// The next owner of the same keys: from now on this one is fenced.
    #[must_use]
    pub fn take_over(&self) -> Self {
        Self::own(Arc::clone(&self.store))
    }

    fn own(store: Arc<Mutex<Store>>) -> Self {
        let epoch = {
            let mut store = store.lock();
            store.owner += 1;
            store.owner
        };
        Self { store, epoch }
    }

    /// The store, for its owner alone.
    fn owned(&self) -> Result<MutexGuard<'_, Store>, StoreError> {
        let store = self.store.lock();
        if store.owner == self.epoch {
            return Ok(store);
        }
        let cause = format!("owner {} came after owner {}", store.owner, self.epoch);
        Err(StoreError::new(Fenced, cause))
    }
}

impl Default for MemoryConfirmer {
    fn default() -> Self {
        Self::new()
    }
}

impl Confirmer for MemoryConfirmer {
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Vec<Answer>, StoreError> {
        let mut store = self.owned()?;
        Ok(sightings.iter().map(|sighting| store.confirm(sighting, rule)).collect())
    }

    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        let store = self.owned()?;
        Ok(keys.iter().map(|key| store.records.get(*key).copied()).collect())
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        let mut store = self.owned()?;
        for key in keys {
            store.records.remove(*key);
        }
        Ok(())
    }

    fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        self.owned()?.records.retain(|_, record| record.bucket >= before);
        Ok(())
    }
}

impl OwnedStore for MemoryConfirmer {
    fn record(&self, sightings: &[Sighting<'_>]) -> Result<(), StoreError> {
        let mut store = self.owned()?;
        for sighting in sightings {
            let held = store.records.entry(sighting.key.into()).or_insert(sighting.into());
            if sighting.bucket > held.bucket {
                *held = sighting.into();
            }
        }
        Ok(())
    }

    /// The store is locked meanwhile: `visit` must not call it.
    fn recover(&self, visit: &mut dyn FnMut(&[u8], Bucket)) -> Result<(), StoreError> {
        let store = self.owned()?;
        store.records.iter().for_each(|(key, record)| visit(key, record.bucket));
        Ok(())
    }

    fn bind(&self, width: Option<Duration>) -> Result<(), StoreError> {
        let mut store = self.owned()?;
        match store.width {
            Some(Width(held)) if held != width && !store.records.is_empty() => {
                Err(other_width(held, width))
            }
            _ => {
                store.width = Some(Width(width));
                Ok(())
            }
        }
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Store {
    fn confirm(&mut self, sighting: &Sighting<'_>, rule: Rule) -> Answer {
        let decision = rule.decide(self.records.get(sighting.key).copied(), sighting);
        if let Some(record) = decision.write {
            self.records.insert(sighting.key.into(), record);
        }
        decision.answer
    }
}
