//! A confirmer, and a claim store, in one file each on this machine (feature `embedded`).
//!
//! It owns the `file`, what is promised of it (durability, its size, its one
//! owner), and the `commits` that many callers share. `store` keeps the confirmer's
//! records, over redb, `overlay` those that were written last, and `medium` is the file
//! as redb sees it. Claims are in `claims`. Invariants:
//!
//! - an answer leaves only when what it says is as durable as was promised;
//! - after a failed write nothing more is written, and no more is answered: what
//!   of the failed write lasts is known again when the file is opened anew.

#[cfg(feature = "claims")]
mod claims;
mod commits;
#[cfg(test)]
mod disk;
mod failure;
#[cfg(test)]
mod faults;
mod file;
mod log;
mod medium;
mod overlay;
mod quota;
mod store;

use super::{
    Answer, Bucket, Confirmer, MAX_KEY_BYTES, OwnedStore, Record, Rule, Sighting, StoreError,
};
use commits::Commits;
use failure::refused;
use file::FileSettings;
use std::fmt;
use std::path::Path;
use std::time::Duration;
use store::{Reply, Request, Store};

#[cfg(feature = "claims")]
pub use claims::{EmbeddedClaims, EmbeddedClaimsBuilder};

/// What an answer of an embedded store outlives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The process, however it ends. If the machine loses its power the file may
    /// lose what the operating system had not written, which may make all of
    /// it unreadable; opening it then fails with
    /// [`Corrupt`](super::StoreErrorKind::Corrupt).
    Os,
    /// The machine's power: answers wait until the medium says that it has
    /// everything.
    Synced,
}

/// Sets up an [`EmbeddedConfirmer`].
#[derive(Clone, Debug)]
#[must_use = "nothing is opened until `open`"]
pub struct EmbeddedBuilder {
    file: FileSettings,
    overlay_bytes: usize,
}

impl EmbeddedBuilder {
    /// What answers outlive; [`Durability::Synced`] unless told.
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.file.durability = durability;
        self
    }

    /// Memory for pages of the file, in bytes; 64 MiB unless told.
    ///
    /// Some 8 MiB come on top, for the keys written last.
    pub const fn cache(mut self, bytes: usize) -> Self {
        self.file.cache_bytes = bytes;
        self
    }

    /// What the file's pages may take in all, in bytes, 16 MiB at least; no
    /// limit unless told.
    ///
    /// When it is reached, sightings that would have to be written fail with
    /// [`Full`](super::StoreErrorKind::Full) until [`Confirmer::expire`] has freed room.
    /// The last eighth is left free: a change is written beside what it replaces, and
    /// not every gap can be used. The file's length may be twice as large: it has
    /// holes.
    pub const fn disk_limit(mut self, bytes: u64) -> Self {
        self.file.disk_limit_bytes = Some(bytes);
        self
    }

    /// Where the file is small, so is the overlay: its log takes up to eight times as much
    /// (four times its weight, and redb rounds values up to a power of two), and the rest
    /// is for keys.
    fn overlay_bytes(&self) -> usize {
        let of_limit = self.file.disk_limit_bytes.map_or(u64::MAX, |limit| limit / 16);
        self.overlay_bytes.min(usize::try_from(of_limit).unwrap_or(usize::MAX))
    }

    /// Opens the file, or creates it, and becomes its owner.
    ///
    /// All of it is read and checked first.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](super::StoreErrorKind::Unavailable) while another confirmer has it
    /// open, here or in another process, and where the system fails to read or write it;
    /// [`Full`](super::StoreErrorKind::Full) if the medium has no room for what opening
    /// writes;
    /// [`Corrupt`](super::StoreErrorKind::Corrupt) if it is damaged, or no store;
    /// [`Refused`](super::StoreErrorKind::Refused) if the path or a setting cannot be used.
    pub fn open(self) -> Result<EmbeddedConfirmer, StoreError> {
        EmbeddedConfirmer::on(self.file.storage()?, &self)
    }
}

/// A confirmer in one file on this machine, of which it is the only owner.
///
/// The file is the namespace. Calls of many threads share one commit, so that 64
/// callers pay for one sync. There are no threads: the thread that commits also
/// does its share of the upkeep.
///
/// ```
/// use hapax::confirm::{
///     Answer, Bucket, Confirmer, Durability, EmbeddedConfirmer, Rule, Sighting, Token,
/// };
/// use hapax::Window;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("orders.hapax");
/// let rule = Rule::of(&Window::fixed(Duration::from_secs(600)));
/// let seen = |token| [Sighting {
///     key: b"order-17",
///     bucket: Bucket::new(23_000),
///     token: Token::new(token),
/// }];
/// let confirmer = EmbeddedConfirmer::builder(&path).durability(Durability::Os).open()?;
/// assert_eq!(confirmer.confirm(&seen(1), rule)?, [Answer::New]);
/// drop(confirmer);
/// let confirmer = EmbeddedConfirmer::builder(&path).open()?;
/// assert_eq!(confirmer.confirm(&seen(2), rule)?, [Answer::Seen(Bucket::new(23_000))]);
/// # Ok(())
/// # }
/// ```
pub struct EmbeddedConfirmer {
    commits: Commits<Store>,
    epoch: u64,
}

impl EmbeddedConfirmer {
    /// For the file at `path`.
    pub fn builder(path: impl AsRef<Path>) -> EmbeddedBuilder {
        EmbeddedBuilder { file: FileSettings::new(path), overlay_bytes: overlay::CAP_BYTES }
    }

    /// On any medium; only the builder's path is not used.
    fn on(
        storage: impl redb::StorageBackend,
        builder: &EmbeddedBuilder,
    ) -> Result<Self, StoreError> {
        let file = &builder.file;
        let open = |medium| Store::open(medium, file, builder.overlay_bytes());
        let commits = Commits::open(storage, file.durability, open)?;
        let epoch = commits.with(|store| Ok(store.file.epoch()))?;
        Ok(Self { commits, epoch })
    }

    /// Has `request` done where there is nothing to answer.
    fn apply(&self, request: Request) -> Result<(), StoreError> {
        self.commits.submit(request).map(drop)
    }
}

/// Refuses keys that are too long for every confirmer.
fn check_lengths<'key>(mut keys: impl Iterator<Item = &'key [u8]>) -> Result<(), StoreError> {
    match keys.find(|key| key.len() > MAX_KEY_BYTES) {
        None => Ok(()),
        Some(key) => {
            let length = key.len();
            Err(refused(format!("a key of {length} bytes is longer than {MAX_KEY_BYTES}")))
        }
    }
}

impl Confirmer for EmbeddedConfirmer {
    fn confirm(&self, sightings: &[Sighting<'_>], rule: Rule) -> Result<Vec<Answer>, StoreError> {
        check_lengths(sightings.iter().map(|sighting| sighting.key))?;
        match self.commits.submit(Request::confirm(sightings, rule))? {
            Reply::Answers(answers) => Ok(answers),
            Reply::Records(_) | Reply::Done => Ok(Vec::new()),
        }
    }

    /// Searches the tables of all buckets, from the latest on, also those that
    /// wait to be expired.
    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        check_lengths(keys.iter().copied())?;
        match self.commits.submit(Request::look(keys))? {
            Reply::Records(records) => Ok(records),
            Reply::Answers(_) | Reply::Done => Ok(Vec::new()),
        }
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        // A key too long was never recorded, and is not to be kept as one that was forgotten.
        self.apply(Request::forget(keys.iter().copied().filter(|key| key.len() <= MAX_KEY_BYTES)))
    }

    /// Drops the tables of those buckets whole.
    fn expire(&self, before: Bucket) -> Result<(), StoreError> {
        self.apply(Request::Expire(before))
    }
}

impl OwnedStore for EmbeddedConfirmer {
    fn record(&self, sightings: &[Sighting<'_>]) -> Result<(), StoreError> {
        check_lengths(sightings.iter().map(|sighting| sighting.key))?;
        self.apply(Request::record(sightings))
    }

    /// Other calls wait meanwhile: `visit` must make none.
    fn recover(&self, visit: &mut dyn FnMut(&[u8], Bucket)) -> Result<(), StoreError> {
        self.commits.with(|store| store.recover(visit))
    }

    fn bind(&self, width: Option<Duration>) -> Result<(), StoreError> {
        self.commits.with(|store| store.bind(width))
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl fmt::Debug for EmbeddedConfirmer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedConfirmer").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
