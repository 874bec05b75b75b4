//! Claims whose answer never came.

use crate::confirm::Token;
use ahash::RandomState;
use quick_cache::sync::Cache;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How many lost claims are remembered. One that is given up keeps its key from being
/// claimed until its deadline.
const MOST: usize = 1 << 14;

thread_local! {
    /// The next token of this thread. Each thread counts from a random start of its own, so
    /// that threads do not wait for each other, and processes do not meet.
    static NEXT: Cell<u64> = Cell::new(RandomState::new().hash_one(()));
}

/// A token that no other claim has.
pub(super) fn new_token() -> Token {
    NEXT.with(|next| Token::new(next.replace(next.get().wrapping_add(1))))
}

/// Remembers the tokens of claims that a store may have granted and nobody heard of:
/// the next claim of the key asks with the lost one's token, and so is granted it
/// instead of being told that the key is in flight.
///
/// A token belongs to one claim at a time: it is taken out to ask with, and put
/// back when no answer came.
pub(super) struct Lost {
    tokens: Cache<Arc<[u8]>, Token>,
    /// False until a claim is lost for the first time: most gates never look for one.
    is_needed: AtomicBool,
}

impl Lost {
    pub(super) fn new() -> Self {
        Self { tokens: Cache::new(MOST), is_needed: AtomicBool::new(false) }
    }

    /// Begins to ask for a key. Dropped before it was answered, it is lost.
    pub(super) fn asking<'a>(&'a self, id: &'a [u8]) -> Asking<'a> {
        let recalled = self.recall(id);
        let token = recalled.unwrap_or_else(new_token);
        Asking { lost: self, id, token, was_lost: recalled.is_some(), is_open: true }
    }

    fn recall(&self, id: &[u8]) -> Option<Token> {
        // Acquire: whoever sees that a claim was lost sees its token, too. (Pairs with the
        // Release in `remember`.)
        if !self.is_needed.load(Ordering::Acquire) {
            return None;
        }
        self.tokens.remove(id).map(|(_, token)| token)
    }

    fn remember(&self, id: &[u8], token: Token) {
        self.tokens.insert(Arc::from(id), token);
        self.is_needed.store(true, Ordering::Release);
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
            self.lost.remember(self.id, self.token);
        }
    }
}
