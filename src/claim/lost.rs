//! Claims whose answer never came.

use super::error::GateError;
use crate::confirm::Token;
use quick_cache::sync::Cache;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many lost claims are remembered. One that is given up keeps its key from being
/// claimed until its deadline.
const MOST: usize = 1 << 14;

/// Draws tokens, and remembers those of claims that a store may have granted and
/// nobody heard of: the next claim of the key asks with the lost one's token, and so is
/// granted it instead of being told that the key is in flight.
///
/// A token belongs to one claim at a time: it is taken out to ask with, and put
/// back when no answer came.
pub(super) struct Lost {
    tokens: Cache<Arc<[u8]>, Token>,
    next: AtomicU64,
}

impl Lost {
    /// Counts tokens from a random start.
    pub(super) fn new() -> Result<Self, GateError> {
        let mut start = [0; 8];
        getrandom::fill(&mut start).map_err(|error| GateError::NoRandomness(error.to_string()))?;
        Ok(Self { tokens: Cache::new(MOST), next: AtomicU64::new(u64::from_le_bytes(start)) })
    }

    /// A token that no other claim has.
    pub(super) fn draw(&self) -> Token {
        // Relaxed: the count alone matters.
        Token::new(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Begins to ask for a key. Dropped before it was answered, it is lost.
    pub(super) fn asking<'a>(&'a self, id: &'a [u8]) -> Asking<'a> {
        let recalled = if self.tokens.is_empty() { None } else { self.tokens.remove(id) };
        let (token, was_lost) = match recalled {
            Some((_, token)) => (token, true),
            None => (self.draw(), false),
        };
        Asking { lost: self, id, token, was_lost, is_open: true }
    }
}

/// A claim that has no answer yet.
pub(super) struct Asking<'a> {
    lost: &'a Lost,
    id: &'a [u8],
    token: Token,
    was_lost: bool,
    is_open: bool,
}

impl Asking<'_> {
    pub(super) const fn token(&self) -> Token {
        self.token
    }

    /// The store has answered.
    pub(super) fn answered(mut self) {
        self.is_open = false;
    }

    /// The store was certainly not asked, this time.
    pub(super) fn never_asked(mut self) {
        self.is_open = self.was_lost;
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.lost.tokens.insert(Arc::from(self.id), self.token);
        }
    }
}
