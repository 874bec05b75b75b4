//! A confirmer in one file on this machine (feature `embedded`).
//!
//! It owns the file, what is promised of it (durability, its size, its one
//! owner), and the commits that many callers share. `store` keeps the records,
//! over redb, `overlay` those that were written last, and `medium` is the file
//! as redb sees it. Invariants:
//!
//! - an answer leaves only when what it says is as durable as was promised;
//! - after a failed write nothing more is written, and no more is answered: what
//!   of the failed write lasts is known again when the file is opened anew.

mod failure;
#[cfg(test)]
mod faults;
mod medium;
mod overlay;
mod quota;
mod store;

use super::{
    Answer, Bucket, Confirmer, MAX_KEY_BYTES, OwnedStore, Record, Rule, Sighting, StoreError,
    StoreErrorKind,
};
use failure::{guarded, refused};
use medium::{Medium, Syncing};
use parking_lot::Mutex;
use std::fmt;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::{Reply, Request, Sizes, Store};

/// What an answer of an embedded confirmer outlives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The process, however it ends. If the machine loses its power the file may
    /// lose what the operating system had not written, which may make all of
    /// it unreadable; opening it then fails with
    /// [`Corrupt`](StoreErrorKind::Corrupt).
    Os,
    /// The machine's power: answers wait until the medium says that it has
    /// everything.
    Synced,
}

/// Sets up an [`EmbeddedConfirmer`].
#[derive(Clone, Debug)]
#[must_use = "nothing is opened until `open`"]
pub struct EmbeddedBuilder {
    path: PathBuf,
    durability: Durability,
    sizes: Sizes,
}

impl EmbeddedBuilder {
    /// What answers outlive; [`Durability::Synced`] unless told.
    pub const fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Memory for pages of the file, in bytes; 64 MiB unless told.
    ///
    /// Some 8 MiB come on top, for the keys written last.
    pub const fn cache(mut self, bytes: usize) -> Self {
        self.sizes.cache_bytes = bytes;
        self
    }

    /// What the file's pages may take in all, in bytes, 16 MiB at least; no
    /// limit unless told.
    ///
    /// When it is reached, sightings that would have to be written fail with
    /// [`Full`](StoreErrorKind::Full) until [`Confirmer::expire`] has freed room.
    /// The last eighth is left free: a change is written beside what it replaces, and
    /// not every gap can be used. The file's length may be twice as large: it has
    /// holes.
    pub const fn disk_limit(mut self, bytes: u64) -> Self {
        self.sizes.disk_limit_bytes = Some(bytes);
        self
    }

    /// Opens the file, or creates it, and becomes its owner.
    ///
    /// If the last owner did not close it, all of it is read and checked first.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](StoreErrorKind::Unavailable) while another confirmer has it
    /// open, here or in another process, and where the system fails to read it;
    /// [`Corrupt`](StoreErrorKind::Corrupt) if it is damaged, or no store;
    /// [`Refused`](StoreErrorKind::Refused) if the path or a setting cannot be used.
    pub fn open(self) -> Result<EmbeddedConfirmer, StoreError> {
        if self.sizes.disk_limit_bytes.is_some_and(|limit| limit < quota::LEAST_BYTES) {
            return Err(refused("a disk limit under 16 MiB has no room to work in"));
        }
        let file = medium::open_file(&self.path)?;
        EmbeddedConfirmer::on(file, &self)
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
    /// What waits for the next commit.
    waiting: Mutex<Vec<(Request, Arc<Slot>)>>,
    store: Mutex<Store>,
    syncing: Syncing,
    epoch: u64,
}

/// Where a caller finds its reply.
type Slot = Mutex<Option<Result<Reply, StoreError>>>;

impl EmbeddedConfirmer {
    /// For the file at `path`.
    pub fn builder(path: impl AsRef<Path>) -> EmbeddedBuilder {
        EmbeddedBuilder {
            path: path.as_ref().to_owned(),
            durability: Durability::Synced,
            sizes: Sizes {
                cache_bytes: 64 << 20,
                overlay_bytes: overlay::CAP_BYTES,
                disk_limit_bytes: None,
            },
        }
    }

    /// On any medium; only the builder's path is not used.
    fn on(
        storage: impl redb::StorageBackend,
        builder: &EmbeddedBuilder,
    ) -> Result<Self, StoreError> {
        let syncing = Syncing::default();
        let medium = Medium::new(storage, syncing.clone());
        let store = guarded(StoreErrorKind::Corrupt, || Store::open(medium, builder.sizes))?;
        // Opening is synced in any case: from here on the file says of itself
        // that it is to be checked if nobody closes it.
        syncing.set(builder.durability == Durability::Synced);
        let epoch = store.epoch();
        Ok(Self { waiting: Mutex::default(), store: Mutex::new(store), syncing, epoch })
    }

    /// Has `request` done, together with all that waits.
    ///
    /// Whoever gets the store serves all who wait by then; the others find their
    /// replies when they get it.
    fn submit(&self, request: Request) -> Result<Reply, StoreError> {
        let slot = Arc::new(Slot::default());
        self.waiting.lock().push((request, Arc::clone(&slot)));
        let mut store = self.store.lock();
        if let Some(reply) = slot.lock().take() {
            return reply;
        }
        let (requests, slots): (Vec<_>, Vec<_>) =
            mem::take(&mut *self.waiting.lock()).into_iter().unzip();
        let replies = guarded(StoreErrorKind::Broken, || Ok(store.serve(&requests)));
        let replies = replies.unwrap_or_else(|panicked| {
            store.fail(panicked.clone());
            slots.iter().map(|_| Err(panicked.clone())).collect()
        });
        for (waiting, reply) in slots.iter().zip(replies) {
            *waiting.lock() = Some(reply);
        }
        slot.lock()
            .take()
            .unwrap_or_else(|| Err(StoreError::new(StoreErrorKind::Broken, "the request was lost")))
    }

    /// Has `request` done where there is nothing to answer.
    fn apply(&self, request: Request) -> Result<(), StoreError> {
        self.submit(request).map(drop)
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
        match self.submit(Request::confirm(sightings, rule))? {
            Reply::Answers(answers) => Ok(answers),
            Reply::Records(_) | Reply::Done => Ok(Vec::new()),
        }
    }

    /// Searches the tables of all buckets, from the latest on, also those that
    /// wait to be expired.
    fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        check_lengths(keys.iter().copied())?;
        match self.submit(Request::look(keys))? {
            Reply::Records(records) => Ok(records),
            Reply::Answers(_) | Reply::Done => Ok(Vec::new()),
        }
    }

    fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.apply(Request::forget(keys))
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
        self.store.lock().recover(visit)
    }

    fn bind(&self, width: Option<Duration>) -> Result<(), StoreError> {
        self.store.lock().bind(width)
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Drop for EmbeddedConfirmer {
    fn drop(&mut self) {
        // Closing marks the file as whole, which must not be written before the rest.
        self.syncing.set(true);
    }
}

impl fmt::Debug for EmbeddedConfirmer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedConfirmer").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
