//! The tiers of one deduper: memory in front, a confirmer behind.
//!
//! The *table* recalls keys that were recorded not long ago. Where this process
//! is the only owner of the store and the table is too small for the window, a
//! *filter* over all of it tells new keys from those that the store has to be
//! asked about. While the store is asked about a key, the key is *pending*
//! (`pending`): other checks of it wait. A batch's way through all this is a
//! *round* (`round`); who carries its questions to the store, blocking or not,
//! is `dedup`'s.
//!
//! # Invariants
//!
//! - Memory remembers a key only after the store has recorded it, or the outage
//!   policy has let it through: so whatever the table gives up, the store knows.
//! - An outcome is remembered before its key is let go of.
//! - Nobody waits for a key while he holds another.

mod pending;
mod queue;
mod round;

pub(crate) use queue::{Batch, Queue, REFUSALS_PER_CHECK, Written};
pub(crate) use round::{Check, Next, Replies, Round, Unheard};

use crate::confirm::{Answer, AnsweredBy, Rule, Sighting, StoreError, Token};
use crate::hash::KeyHash;
use crate::shard::Shards;
use crate::stats::StripedCounter;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::time::Bucket;
use crate::verdict::Verdict;
use event_listener::EventListener;
use pending::{Attempt, Pending};

/// What stands between a deduper's table and its confirmer.
#[derive(Debug)]
pub(crate) struct Tiers {
    rule: Rule,
    is_exclusive: bool,
    /// Knows all keys of the window, where the table may not.
    filter: Option<Shards>,
    pending: Pending,
    /// New keys on their way to an owned store, if verdicts do not wait for it.
    queue: Option<Queue>,
    next_token: AtomicU64,
    /// False once memory could not remember a key that the store has.
    is_whole: AtomicBool,
    pub(crate) counts: Counts,
}

/// What the tiers count.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) uniques: StripedCounter,
    pub(crate) unconfirmed: StripedCounter,
    pub(crate) duplicates: StripedCounter,
    pub(crate) late: StripedCounter,
    pub(crate) asked: StripedCounter,
    pub(crate) asked_in_vain: StripedCounter,
    pub(crate) recorded: StripedCounter,
}

/// A key that nobody asks about while this is held.
pub(crate) struct Hold<'a> {
    tiers: &'a Tiers,
    hash: KeyHash,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.tiers.pending.release(self.hash);
    }
}

/// Why a store is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To judge the key: memory cannot.
    Judge,
    /// To move up, in a sliding window that others share, a key that was new here.
    /// Only the store can say that it was forgotten elsewhere meanwhile.
    Renew,
    /// To record a key that is surely new.
    Record,
    /// To move a duplicate up in a sliding window.
    Refresh,
}

impl Purpose {
    /// Has the store a question to answer, or only something to write?
    const fn is_question(self) -> bool {
        matches!(self, Self::Judge | Self::Renew)
    }

    /// May the key turn out to be new?
    const fn may_win(self) -> bool {
        !matches!(self, Self::Refresh)
    }

    const fn verdict(self, answer: Answer, by: AnsweredBy) -> Verdict {
        match (self, answer, by) {
            (Self::Refresh, ..) | (_, Answer::Seen(_), _) => Verdict::Duplicate,
            (_, Answer::New, AnsweredBy::Primary) => Verdict::Unique,
            // Who answers in the store's place knows less than memory.
            (Self::Renew, Answer::New, _) => Verdict::Duplicate,
            (_, Answer::New, _) => Verdict::Unconfirmed,
        }
    }
}

impl Tiers {
    /// In front of a store with a window's rule; `first_token` is random.
    pub(crate) fn new(
        rule: Rule,
        is_exclusive: bool,
        filter: Option<Shards>,
        queue: Option<Queue>,
        first_token: u64,
    ) -> Self {
        Self {
            rule,
            is_exclusive,
            filter,
            pending: Pending::new(),
            queue,
            next_token: AtomicU64::new(first_token),
            is_whole: AtomicBool::new(true),
            counts: Counts::default(),
        }
    }

    pub(crate) const fn rule(&self) -> Rule {
        self.rule
    }

    pub(crate) const fn filter(&self) -> Option<&Shards> {
        self.filter.as_ref()
    }

    /// Keys on their way to the store.
    pub(crate) const fn queue(&self) -> Option<&Queue> {
        self.queue.as_ref()
    }

    /// Has `write` record keys that are on their way: see [`Batch::write`].
    pub(crate) fn write(
        &self,
        batch: Batch<'_>,
        most_refusals: usize,
        write: impl FnMut(&[Sighting<'_>]) -> Result<(), StoreError>,
    ) -> Written {
        batch.write(most_refusals, write, |queued| self.pending.arrived(queued.hash, &queued.mark))
    }

    /// Does memory still know all keys that the store has?
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole.load(Ordering::Relaxed)
    }

    /// What the store must be called for to judge a key; `None`: it is a
    /// duplicate, and that is all.
    fn purpose(
        &self,
        table: &Shards,
        hash: KeyHash,
        key: &[u8],
        at: Bucket,
        queued: Option<Bucket>,
    ) -> Option<Purpose> {
        // What is on its way the table may have given up already.
        let queued = queued.filter(|bucket| self.rule.matches(*bucket, at));
        match queued.or_else(|| table.recall(hash, key, at)) {
            Some(bucket) if !self.rule.is_sliding() || bucket >= at => None,
            Some(_) if self.is_exclusive => Some(Purpose::Refresh),
            Some(_) => Some(Purpose::Renew),
            None if self.is_surely_new(table, hash, key, at) => Some(Purpose::Record),
            None => Some(Purpose::Judge),
        }
    }

    /// Would a check at `at` call a key a duplicate? `None`: the store knows.
    pub(crate) fn foresee(
        &self,
        table: &Shards,
        hash: KeyHash,
        key: &[u8],
        at: Bucket,
    ) -> Option<bool> {
        match self.purpose(table, hash, key, at, self.pending.on_its_way(hash, key)) {
            None | Some(Purpose::Refresh) => Some(true),
            Some(Purpose::Record) => Some(false),
            Some(Purpose::Judge | Purpose::Renew) => None,
        }
    }

    /// Is a key new that the table does not recall?
    fn is_surely_new(&self, table: &Shards, hash: KeyHash, key: &[u8], at: Bucket) -> bool {
        let is_filtered_out = |filter: &Shards| -> bool { filter.recall(hash, key, at).is_none() };
        self.is_exclusive
            && self.is_whole()
            && (!table.has_given_up() || self.filter.as_ref().is_some_and(is_filtered_out))
    }

    /// Remembers a key that the store has in `bucket`.
    pub(crate) fn remember(&self, table: &Shards, hash: KeyHash, key: &[u8], bucket: Bucket) {
        let mut is_whole = table.remember(hash, key, bucket).is_ok();
        if let Some(filter) = &self.filter {
            filter.keep_up_with(table);
            let is_known = filter.recall(hash, key, bucket) >= Some(bucket);
            is_whole = is_known || filter.remember(hash, key, bucket).is_ok();
        }
        if !is_whole && self.is_exclusive {
            self.is_whole.store(false, Ordering::Relaxed);
        }
    }

    /// Takes over what the store said of a key in a check at `at`.
    fn take_over(&self, table: &Shards, hash: KeyHash, key: &[u8], at: Bucket, answer: Answer) {
        match answer {
            Answer::New => self.remember(table, hash, key, at),
            // Another's key is not remembered: see `Ownership::Shared`. One's own is
            // moved up. No later than the check itself, because others' clocks may
            // be ahead: where memory knows less than the store, the store is asked.
            Answer::Seen(bucket) => {
                if self.is_exclusive || table.recall(hash, key, at).is_some() {
                    self.remember(table, hash, key, bucket.min(at));
                }
            }
        }
    }

    fn count(&self, purpose: Purpose, verdict: Verdict) {
        let counts = &self.counts;
        match verdict {
            Verdict::Unique => counts.uniques.add(1),
            Verdict::Unconfirmed => counts.unconfirmed.add(1),
            Verdict::Duplicate => counts.duplicates.add(1),
            Verdict::Late => counts.late.add(1),
        }
        if purpose.is_question() {
            counts.asked.add(1);
            counts.asked_in_vain.add(u64::from(verdict != Verdict::Duplicate));
        } else {
            counts.recorded.add(1);
        }
    }

    /// Makes a key the caller's, so that nobody asks about it meanwhile; or what
    /// to wait for before trying again.
    pub(crate) fn hold(
        &self,
        hash: KeyHash,
        key: &[u8],
    ) -> Result<Hold<'_>, Option<EventListener>> {
        match self.pending.hold(hash, key, |_| Some(())) {
            Attempt::Held(()) => Ok(Hold { tiers: self, hash }),
            _ => Err(self.pending.listen(hash)),
        }
    }

    fn draw_token(&self) -> Token {
        Token::new(self.next_token.fetch_add(1, Ordering::Relaxed))
    }
}
