//! A disk in memory that forgets, tears and refuses.

use parking_lot::Mutex;
use redb::StorageBackend;
use std::io;
use std::sync::Arc;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// Steps of splitmix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// What was done to a disk since the last sync.
#[derive(Debug)]
pub(super) enum Unsynced {
    Length(usize),
    Write(usize, Vec<u8>),
}

/// When a disk begins to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failing {
    Never,
    /// Everything that changes it, after so many changes.
    From(u64),
    /// One sync, the one after so many; the next ones succeed, as they do on Linux.
    OneSync(u64),
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) synced: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Unsynced>,
    failing: Failing,
    pub(super) changes: u64,
    pub(super) syncs: u64,
}

/// A disk in memory; clones are the same disk.
#[derive(Clone, Debug)]
pub(super) struct Disk(pub(super) Arc<Mutex<State>>);

impl Disk {
    pub(super) fn with(image: Vec<u8>, failing: Failing) -> Self {
        let state = State {
            synced: image.clone(),
            current: image,
            unsynced: Vec::new(),
            failing,
            changes: 0,
            syncs: 0,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// What a process finds after another one: all that was written.
    pub(super) fn written(&self) -> Vec<u8> {
        self.0.lock().current.clone()
    }

    /// What may be found after the power was cut: what was synced and, of the
    /// rest, some of the writes, some of them in part.
    pub(super) fn after_power_cut(&self, random: &mut Random) -> Vec<u8> {
        let state = self.0.lock();
        let mut image = state.synced.clone();
        for change in &state.unsynced {
            match random.below(3) {
                0 => {}
                1 => change.apply(&mut image, usize::MAX),
                _ => change.apply(&mut image, random.below(8) as usize * SECTOR),
            }
        }
        image
    }

    /// The same where writes reached the disk in their order.
    pub(super) fn after_losing_the_last_writes(&self, random: &mut Random) -> Vec<u8> {
        let state = self.0.lock();
        let mut image = state.synced.clone();
        let kept = state.unsynced.len().saturating_sub(random.below(4) as usize);
        for change in &state.unsynced[..kept] {
            change.apply(&mut image, usize::MAX);
        }
        image
    }
}

impl Unsynced {
    /// Does it to an image, of a write only the first `bytes`.
    fn apply(&self, image: &mut Vec<u8>, bytes: usize) {
        match self {
            Self::Length(length) => image.resize(*length, 0),
            Self::Write(offset, data) => {
                let data = &data[..data.len().min(bytes)];
                let end = offset + data.len();
                image.resize(image.len().max(end), 0);
                image[*offset..end].copy_from_slice(data);
            }
        }
    }
}

impl State {
    fn change(&mut self, what: Unsynced) -> io::Result<()> {
        self.changes += 1;
        if matches!(self.failing, Failing::From(changes) if self.changes > changes) {
            return Err(io::Error::other("the disk failed"));
        }
        what.apply(&mut self.current, usize::MAX);
        self.unsynced.push(what);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock();
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let end = from.checked_add(out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(state.current.get(from..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().change(Unsynced::Length(len as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.syncs += 1;
        let fails = match state.failing {
            Failing::Never => false,
            Failing::From(changes) => state.changes > changes,
            Failing::OneSync(syncs) => state.syncs == syncs + 1,
        };
        if fails {
            // What waited is marked as written all the same: it is not tried again.
            return Err(io::Error::other("the sync failed"));
        }
        state.synced = state.current.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().change(Unsynced::Write(offset as usize, data.to_vec()))
    }
}
