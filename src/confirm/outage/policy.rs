//! What is to be done when the confirmer cannot answer.

#[cfg(feature = "claims")]
use crate::confirm::claims::{
    Answer as ClaimAnswer, AsyncClaimStore, ClaimRequest, ClaimStore, SettleRequest, Settled,
    Status,
};
use crate::confirm::{
    Answer, AsyncConfirmer, Bucket, Confirmer, Record, Rule, Sighting, StoreError,
};

/// What happens to a check when its confirmer cannot answer: [`Reject`],
/// [`Admit`] or [`Fallback`]. None of them is a default, for each gives up
/// something else.
///
/// A confirmer *cannot answer* when it fails in any way but two: a request that
/// it refuses, and an owner that it has fenced off, are answers, and always
/// reach the caller. A reply that was lost is asked for once more, with the same
/// tokens, before anything else happens.
pub trait Outage: sealed::Policy {}

impl Outage for Reject {}
impl Outage for Admit {}
impl<F: Send + Sync> Outage for Fallback<F> {}

/// The check fails with the store's error, and nothing is recorded.
///
/// Nothing is processed twice and nothing is lost, and nothing goes on until the
/// store is back. Where it may have recorded a key that it did not answer for,
/// the key's next check asks with the first one's token, and so is `Unique`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reject;

/// The key is let through as new, and recorded in this process's memory only.
///
/// Nothing stops and nothing is lost, and keys that only the store knew are
/// processed twice; so are, later, those that were let through and that memory
/// has given up before their time. Such verdicts are marked, and counted. In a sliding
/// window that others share the store is not told of duplicates meanwhile: a key whose
/// record it no longer matches when it is back is new to it, and `Unique`.
///
/// A key that is forgotten meanwhile is noted, in up to
/// [`DEFAULT_JOURNAL_BYTES`](Fallback::DEFAULT_JOURNAL_BYTES), and forgotten in the store
/// before the store is asked about it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admit;

/// Another confirmer answers.
///
/// What it calls seen has been seen. What it calls new is new as far as it knows:
/// keys that only the first store, the *primary*, knew are processed twice. Such
/// verdicts are marked.
///
/// Keys that it let through, and keys forgotten meanwhile, are kept in a *journal*
/// in memory. When the primary is back, checks write the journal to it, a batch
/// each, with the sightings' own buckets and tokens. A key in the journal is the
/// fallback's to answer until it is written; one that the primary turns out to
/// have had already was let through twice, and is counted. All other keys are the
/// primary's again as soon as it is back, so that the journal only gets shorter
/// then. A full journal fails the check
/// ([`Full`](crate::confirm::StoreErrorKind::Full)): nothing is dropped from it.
///
/// A process that ends before all is written leaves those keys with the fallback
/// alone.
///
/// `forget` always asks both, because the fallback keeps what it learned in
/// earlier outages.
#[derive(Clone, Copy, Debug)]
pub struct Fallback<F> {
    confirmer: F,
    journal_limit_bytes: usize,
}

impl<F> Fallback<F> {
    /// What a journal may take in memory unless told: 64 MiB, enough for about
    /// half a million short keys.
    pub const DEFAULT_JOURNAL_BYTES: usize = 64 << 20;

    /// `confirmer` answers while the primary cannot.
    pub const fn new(confirmer: F) -> Self {
        Self { confirmer, journal_limit_bytes: Self::DEFAULT_JOURNAL_BYTES }
    }

    /// What the journal may take in memory, in bytes: a key's own and
    /// about 120 more.
    #[must_use]
    pub const fn journal_limit(mut self, bytes: usize) -> Self {
        self.journal_limit_bytes = bytes;
        self
    }
}

/// A confirmer that does not exist: nobody answers in place of the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nobody {}

impl Confirmer for Nobody {
    fn confirm(&self, _: &[Sighting<'_>], _: Rule) -> Result<Vec<Answer>, StoreError> {
        match *self {}
    }

    fn look(&self, _: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        match *self {}
    }

    fn forget(&self, _: &[&[u8]]) -> Result<(), StoreError> {
        match *self {}
    }
}

impl AsyncConfirmer for Nobody {
    async fn confirm(&self, _: &[Sighting<'_>], _: Rule) -> Result<Vec<Answer>, StoreError> {
        match *self {}
    }

    async fn look(&self, _: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        match *self {}
    }

    async fn forget(&self, _: &[&[u8]]) -> Result<(), StoreError> {
        match *self {}
    }

    async fn expire(&self, _: Bucket) -> Result<(), StoreError> {
        match *self {}
    }
}

#[cfg(feature = "claims")]
impl ClaimStore for Nobody {
    fn claim(&self, _: &[u8], _: &ClaimRequest) -> Result<ClaimAnswer, StoreError> {
        match *self {}
    }

    fn settle(&self, _: &[u8], _: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        match *self {}
    }

    fn look(&self, _: &[u8]) -> Result<Option<Status>, StoreError> {
        match *self {}
    }
}

#[cfg(feature = "claims")]
impl AsyncClaimStore for Nobody {
    async fn claim(&self, _: &[u8], _: &ClaimRequest) -> Result<ClaimAnswer, StoreError> {
        match *self {}
    }

    async fn settle(&self, _: &[u8], _: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        match *self {}
    }

    async fn look(&self, _: &[u8]) -> Result<Option<Status>, StoreError> {
        match *self {}
    }
}

pub(crate) mod sealed {
    /// What a policy comes down to.
    #[derive(Clone, Copy, Debug)]
    pub enum Plan<F> {
        Reject,
        Admit,
        Ask(F),
    }

    impl<F> Plan<F> {
        pub(in crate::confirm::outage) const fn as_ref(&self) -> Plan<&F> {
            match self {
                Self::Reject => Plan::Reject,
                Self::Admit => Plan::Admit,
                Self::Ask(other) => Plan::Ask(other),
            }
        }

        pub(in crate::confirm::outage) fn map<G>(self, wrap: impl FnOnce(F) -> G) -> Plan<G> {
            match self {
                Self::Reject => Plan::Reject,
                Self::Admit => Plan::Admit,
                Self::Ask(other) => Plan::Ask(wrap(other)),
            }
        }
    }

    pub trait Policy: Send + Sync {
        /// Who answers in place of the primary.
        type Instead;

        fn plan(&self) -> Plan<&Self::Instead>;

        fn journal_limit_bytes(&self) -> usize;
    }
}

use sealed::{Plan, Policy};

impl Policy for Reject {
    type Instead = Nobody;

    fn plan(&self) -> Plan<&Nobody> {
        Plan::Reject
    }

    fn journal_limit_bytes(&self) -> usize {
        0
    }
}

impl Policy for Admit {
    type Instead = Nobody;

    fn plan(&self) -> Plan<&Nobody> {
        Plan::Admit
    }

    fn journal_limit_bytes(&self) -> usize {
        Fallback::<Nobody>::DEFAULT_JOURNAL_BYTES
    }
}

impl<F: Send + Sync> Policy for Fallback<F> {
    type Instead = F;

    fn plan(&self) -> Plan<&F> {
        Plan::Ask(&self.confirmer)
    }

    fn journal_limit_bytes(&self) -> usize {
        self.journal_limit_bytes
    }
}
