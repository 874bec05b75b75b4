//! Placeholder until the branch `outage` is merged.
use super::*;

/// Rejects.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reject;

/// Who answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnsweredBy {
    /// The confirmer.
    #[default]
    Primary,
    /// The fallback.
    Fallback,
    /// Nobody.
    Nobody,
}

#[derive(Debug, Default)]
pub(crate) struct Confirmed {
    pub(crate) answers: Vec<Answer>,
    pub(crate) by: AnsweredBy,
}

#[derive(Debug)]
pub(crate) struct Guard<C, P> {
    primary: C,
    _policy: P,
}

impl<C, P> Guard<C, P> {
    pub(crate) fn new(primary: C, policy: P) -> Self {
        Self { primary, _policy: policy }
    }
    pub(crate) fn primary(&self) -> &C {
        &self.primary
    }
}

impl<C: Confirmer> Guard<C, Reject> {
    pub(crate) fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Confirmed, StoreError> {
        Ok(Confirmed { answers: self.primary.confirm(sightings, rule)?, by: AnsweredBy::Primary })
    }
    pub(crate) fn record(&self, owned: &dyn OwnedStore, sightings: &[Sighting<'_>], _rule: Rule) -> Result<Confirmed, StoreError> {
        owned.record(sightings)?;
        Ok(Confirmed { answers: vec![Answer::New; sightings.len()], by: AnsweredBy::Primary })
    }
    pub(crate) fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.primary.forget(keys)
    }
    pub(crate) fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        self.primary.expire(before)
    }
}
