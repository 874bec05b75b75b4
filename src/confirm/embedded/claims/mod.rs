//! Claims in one file on this machine (feature `claims`).
//!
//! It owns the face of the store. `store` judges and writes, a batch of requests in
//! one transaction, and finds what has expired; `encoding` is how an entry looks in the
//! file; the file itself and the commits that callers share are those of the confirmer.

mod encoding;
#[cfg(test)]
mod faults;
mod store;
#[cfg(test)]
mod tests;

use super::check_lengths;
use super::commits::Commits;
use super::file::FileSettings;
use super::{Durability, failure};
use crate::confirm::StoreError;
use crate::confirm::claims::{Answer, ClaimRequest, ClaimStore, SettleRequest, Settled, Status};
use crate::time::{Clock, SystemClock};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use store::{Reply, Request, Store};

/// Sets up [`EmbeddedClaims`].
#[derive(Clone)]
#[must_use = "nothing is opened until `open`"]
pub struct EmbeddedClaimsBuilder {
    file: FileSettings,
    clock: Option<Arc<dyn Clock>>,
}

impl EmbeddedClaimsBuilder {
    /// What answers outlive; [`Durability::Synced`] unless told.
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.file.durability = durability;
        self
    }

    /// Memory for pages of the file, in bytes; 64 MiB unless told.
    pub const fn cache(mut self, bytes: usize) -> Self {
        self.file.cache_bytes = bytes;
        self
    }

    /// What the file's pages may take in all, in bytes, 16 MiB at least; no limit
    /// unless told.
    ///
    /// When it is reached, claims of identities that it does not know fail with
    /// [`Full`](crate::confirm::StoreErrorKind::Full) until others have expired. They leave
    /// an eighth to the outcomes of claims in flight; when that is used up, too, outcomes
    /// fail, and a tombstone always fits. The last eighth is left free: a change is written
    /// beside what it replaces, and not every gap can be used. The file's length may be
    /// twice as large: it has holes.
    pub const fn disk_limit(mut self, bytes: u64) -> Self {
        self.file.disk_limit_bytes = Some(bytes);
        self
    }

    /// The clock that leases and outcomes expire by; the system's unless told.
    ///
    /// Its times lie in the file, and are compared with those of the next start: it has to
    /// tell the time of day.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Opens the file, or creates it, and becomes its owner.
    ///
    /// If the last owner did not close it, all of it is read and checked first.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::confirm::StoreErrorKind::Unavailable) while somebody else has it
    /// open, here or in another process, and where the system fails to read it;
    /// [`Corrupt`](crate::confirm::StoreErrorKind::Corrupt) if it is damaged, or no store;
    /// [`Refused`](crate::confirm::StoreErrorKind::Refused) if it is a confirmer's file, or the
    /// path or a setting cannot be used.
    pub fn open(self) -> Result<EmbeddedClaims, StoreError> {
        EmbeddedClaims::on(self.file.storage()?, self)
    }
}

/// Claims in one file on this machine, of which it is the only owner.
///
/// The file is the namespace. Calls of many threads share one commit, so that 64
/// callers pay for one sync; calls that change nothing wait for the commit under way, and
/// need none. There are no threads: every commit drops up to two entries that have
/// expired for each request, [`sweep`](ClaimStore::sweep) the others. An entry takes about
/// 100 bytes beside its outcome, and its identity twice.
///
/// Times are the clock's. The system's is the time of day at the start: where that was set
/// back between two runs, leases and outcomes last longer by as much, and where it was set
/// ahead they end sooner.
///
/// ```
/// use hapax::claim::{Claim, Gate, Identity};
/// use hapax::confirm::Durability;
/// use hapax::confirm::claims::{Digest, EmbeddedClaims, Outcome};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("payments.claims");
/// let charge = Identity::new("acct-7", "POST /charges", "order-17");
/// let payload = Digest::of(b"amount=10");
/// let open = || EmbeddedClaims::builder(&path).durability(Durability::Os).open();
///
/// let gate = Gate::builder(open()?).build()?;
/// let Claim::Granted(mut lease) = gate.claim(&charge, payload)? else { unreachable!() };
/// lease.complete(Outcome::success(*b"charged 10"))?;
/// drop((lease, gate));
///
/// let gate = Gate::builder(open()?).build()?;
/// let Claim::Replay(outcome) = gate.claim(&charge, payload)? else { unreachable!() };
/// assert_eq!(outcome.bytes(), Some(b"charged 10".as_slice()));
/// # Ok(())
/// # }
/// ```
pub struct EmbeddedClaims {
    commits: Commits<Store>,
    epoch: u64,
}

impl EmbeddedClaims {
    /// For the file at `path`.
    pub fn builder(path: impl AsRef<Path>) -> EmbeddedClaimsBuilder {
        EmbeddedClaimsBuilder { file: FileSettings::new(path), clock: None }
    }

    /// On any medium; only the builder's path is not used.
    fn on(
        storage: impl redb::StorageBackend,
        builder: EmbeddedClaimsBuilder,
    ) -> Result<Self, StoreError> {
        let EmbeddedClaimsBuilder { file, clock } = builder;
        let clock = clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let open = |medium| Store::open(medium, &file, clock);
        let commits = Commits::open(storage, file.durability, open)?;
        let epoch = commits.with(|store| Ok(store.file.epoch()))?;
        Ok(Self { commits, epoch })
    }

    /// Has something done about an identity.
    fn submit(&self, id: &[u8], request: Request) -> Result<Reply, StoreError> {
        check_lengths(std::iter::once(id))?;
        self.commits.submit(request)
    }
}

impl ClaimStore for EmbeddedClaims {
    fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        match self.submit(id, Request::Claim(id.into(), *request))? {
            Reply::Answer(answer) => Ok(answer),
            _ => Err(failure::mixed_up()),
        }
    }

    fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        match self.submit(id, Request::Settle(id.into(), request.into()))? {
            Reply::Settled(settled) => Ok(settled),
            _ => Err(failure::mixed_up()),
        }
    }

    fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        match self.submit(id, Request::Look(id.into()))? {
            Reply::Status(status) => Ok(status),
            _ => Err(failure::mixed_up()),
        }
    }

    fn sweep(&self) -> Result<bool, StoreError> {
        match self.commits.submit(Request::Sweep)? {
            Reply::Swept { has_more } => Ok(has_more),
            _ => Err(failure::mixed_up()),
        }
    }
}

impl fmt::Debug for EmbeddedClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedClaims").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl fmt::Debug for EmbeddedClaimsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedClaimsBuilder").field("file", &self.file).finish_non_exhaustive()
    }
}
