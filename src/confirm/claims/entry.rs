//! What a store holds for an identity, and how it decides.

use super::Digest;
use super::outcome::Outcome;
use crate::confirm::Token;
use crate::time::Timestamp;
use std::fmt;
use std::time::Duration;

/// A number that rises with each holder of a key, for whoever is written to in
/// the course of processing: refuse what comes with a smaller one than was seen
/// already, and a holder that was paused past its deadline does no harm there.
///
/// It is the microsecond in which the claim was granted, or one more than the
/// fence before, whichever is larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(u64);

impl Fence {
    /// From its number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The one that follows `held` at `now`.
    fn after(held: Option<&Entry>, now: Timestamp) -> Self {
        let clock = u64::try_from(now.as_micros()).unwrap_or(0);
        Self(held.map_or(clock, |entry| clock.max(entry.grant.fence.0.saturating_add(1))))
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// For how long a claim holds, and what came of it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// After so long without a word of the holder another may take over.
    pub lease: Duration,
    /// Outcomes are kept for so long; so is, beyond its deadline, a claim whose
    /// holder was never heard of again.
    pub keep: Duration,
}

/// Somebody wants to process a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimRequest {
    /// The claim's own, drawn at random; the same when it is asked about again.
    pub token: Token,
    /// Of the payload that comes with the key.
    pub digest: Digest,
    /// What is granted.
    pub terms: Terms,
}

/// What a store answers a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The key is the caller's to process; or was granted to this very request
    /// before, and its lease begins anew.
    Granted(Grant),
    /// It is the caller's to process as far as could be told without the store: no
    /// store answers so, but an outage policy may.
    Unconfirmed(Grant),
    /// It has been processed, and this came of it.
    Finished(Outcome),
    /// Somebody else is at it.
    InFlight {
        /// Since this time of the store's clock.
        since: Timestamp,
        /// After so long it may be taken over, unless its lease is extended. Nothing
        /// remains of one that has no lease, but a transaction that may end at any moment.
        remaining: Duration,
    },
    /// The key came with another payload before.
    Mismatch,
}

/// The right to process a key until the lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The holder's fence.
    pub fence: Fence,
    /// The how manieth it is to try, from 1. More than one: those before failed, or
    /// were never heard of again.
    pub attempt: u32,
    /// True iff the holder before was never heard of again: how much of the work it
    /// did nobody knows.
    pub is_takeover: bool,
}

/// A holder says how its claim ended, or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettleRequest<'a> {
    /// That of the claim.
    pub token: Token,
    /// How it ended, or goes on.
    pub settlement: Settlement<'a>,
    /// For how long that holds.
    pub terms: Terms,
}

/// How a claim ended, or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement<'a> {
    /// This came of it, for all who ask.
    Complete(&'a Outcome),
    /// Nothing came of it: the key is free for a retry.
    Release,
    /// It needs another lease from now on.
    Extend,
    /// This came of it elsewhere, while this store could not be reached. It is kept
    /// unless the key is finished here, too, or another is at it.
    Adopt(&'a Digest, &'a Outcome),
    /// Whoever holds the key, and whatever came of it: it is free. Only operators
    /// say so; the token means nothing.
    Clear,
}

/// What a store answers a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// So it is.
    Done,
    /// The key is not the holder's any more, and nothing has changed: another took
    /// it over after the deadline, or it was cleared.
    Stale,
}

/// What is known of an identity that is not free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Somebody is at it, or was never heard of again if nothing remains.
    InFlight {
        /// Since this time of the store's clock.
        since: Timestamp,
        /// Until it may be taken over.
        remaining: Duration,
        /// Whose it is.
        grant: Grant,
    },
    /// This came of it.
    Finished(Outcome),
}

/// What a store holds for an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Of the payload that came with the key.
    pub digest: Digest,
    /// That of the latest claim.
    pub token: Token,
    /// The latest grant.
    pub grant: Grant,
    /// What has become of it.
    pub state: State,
    /// From then on the entry means nothing, and may be dropped.
    pub expires: Timestamp,
}

/// What has become of the latest claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is being processed.
    Held {
        /// When it was granted.
        since: Timestamp,
        /// When another may take over.
        deadline: Timestamp,
    },
    /// This came of it.
    Finished(Outcome),
    /// Nothing came of it. The entry is there to count attempts, and to keep fences
    /// rising.
    Free,
}

/// What a store answers, and what it writes for that in place of what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<T> {
    /// The answer.
    pub answer: T,
    /// The entry to write, if any.
    pub write: Option<Entry>,
}

impl<T> Decision<T> {
    const fn only(answer: T) -> Self {
        Self { answer, write: None }
    }
}

impl Entry {
    /// What a store that holds `held` answers a claim at `now`, and what it writes.
    ///
    /// ```
    /// use hapax::Timestamp;
    /// use hapax::confirm::Token;
    /// use hapax::confirm::claims::{Answer, ClaimRequest, Digest, Entry, Terms};
    /// use std::time::Duration;
    ///
    /// let terms = Terms { lease: Duration::from_secs(300), keep: Duration::from_secs(86_400) };
    /// let claim = |token, payload: &[u8]| ClaimRequest {
    ///     token: Token::new(token),
    ///     digest: Digest::of(payload),
    ///     terms,
    /// };
    /// let at = Timestamp::from_secs;
    ///
    /// let first = Entry::claim(None, &claim(1, b"10 EUR"), at(0));
    /// assert!(matches!(first.answer, Answer::Granted(grant) if !grant.is_takeover));
    /// let held = first.write.as_ref();
    /// let second = Entry::claim(held, &claim(2, b"10 EUR"), at(299));
    /// assert!(matches!(second.answer, Answer::InFlight { .. }));
    /// assert_eq!(Entry::claim(held, &claim(2, b"99 EUR"), at(299)).answer, Answer::Mismatch);
    /// let third = Entry::claim(held, &claim(3, b"10 EUR"), at(300));
    /// assert!(matches!(third.answer, Answer::Granted(grant) if grant.is_takeover));
    /// ```
    pub fn claim(held: Option<&Self>, request: &ClaimRequest, now: Timestamp) -> Decision<Answer> {
        let Some(entry) = alive(held, now) else {
            return Self::grant(held, 1, false, request, now);
        };
        if matches!(entry.state, State::Free) {
            return Self::grant(held, entry.next_attempt(), false, request, now);
        }
        match &entry.state {
            // Asked again: nobody has worked under this claim yet, whatever its payload.
            State::Held { since, .. } if entry.token == request.token => {
                let digest = request.digest;
                let write = Self { digest, ..entry.held(*since, request.terms, now) };
                Decision { answer: Answer::Granted(entry.grant), write: Some(write) }
            }
            _ if entry.digest != request.digest => Decision::only(Answer::Mismatch),
            State::Finished(outcome) => Decision::only(Answer::Finished(outcome.clone())),
            State::Held { since, deadline } if now < *deadline => {
                Decision::only(Answer::InFlight { since: *since, remaining: deadline.since(now) })
            }
            _ => Self::grant(held, entry.next_attempt(), true, request, now),
        }
    }

    /// What a store that holds `held` answers a holder at `now`, and what it writes.
    ///
    /// A holder that is late is not stale before another has taken over.
    pub fn settle(
        held: Option<&Self>,
        request: &SettleRequest<'_>,
        now: Timestamp,
    ) -> Decision<Settled> {
        let SettleRequest { token, settlement, terms } = *request;
        let held = alive(held, now);
        let is_own = held.is_some_and(|entry| entry.token == token);
        let state = held.map(|entry| &entry.state);
        match (settlement, state) {
            (Settlement::Clear, None | Some(State::Free)) | (Settlement::Release, None) => {
                Decision::only(Settled::Done)
            }
            (Settlement::Clear, Some(_)) => Self::written(held.map(|entry| entry.free(terms, now))),
            // Said again: the first reply was lost.
            (Settlement::Complete(_) | Settlement::Adopt(..), Some(State::Finished(_)))
            | (Settlement::Release, Some(State::Free))
                if is_own =>
            {
                Decision::only(Settled::Done)
            }
            (Settlement::Complete(outcome), Some(State::Held { .. })) if is_own => {
                Self::written(held.map(|entry| entry.finished(outcome, terms, now)))
            }
            (Settlement::Release, Some(State::Held { .. })) if is_own => {
                Self::written(held.map(|entry| entry.free(terms, now)))
            }
            (Settlement::Extend, Some(State::Held { since, .. })) if is_own => {
                Self::written(held.map(|entry| entry.held(*since, terms, now)))
            }
            (Settlement::Adopt(digest, outcome), state) if is_open(state, now) || is_own => {
                let attempt = held.map_or(1, Self::next_attempt);
                let grant = Grant { fence: Fence::after(held, now), attempt, is_takeover: false };
                Self::written(Some(Self {
                    digest: *digest,
                    token,
                    grant,
                    state: State::Finished(outcome.clone()),
                    expires: now.saturating_add(terms.keep),
                }))
            }
            _ => Decision::only(Settled::Stale),
        }
    }

    /// What a store that holds `held` knows of its identity at `now`.
    pub fn status(held: Option<&Self>, now: Timestamp) -> Option<Status> {
        let entry = alive(held, now)?;
        match &entry.state {
            State::Free => None,
            State::Finished(outcome) => Some(Status::Finished(outcome.clone())),
            State::Held { since, deadline } => Some(Status::InFlight {
                since: *since,
                remaining: deadline.since(now),
                grant: entry.grant,
            }),
        }
    }

    fn grant(
        held: Option<&Self>,
        attempt: u32,
        is_takeover: bool,
        request: &ClaimRequest,
        now: Timestamp,
    ) -> Decision<Answer> {
        let grant = Grant { fence: Fence::after(held, now), attempt, is_takeover };
        let ClaimRequest { token, digest, terms } = *request;
        let entry = Self { digest, token, grant, state: State::Free, expires: now };
        Decision { answer: Answer::Granted(grant), write: Some(entry.held(now, terms, now)) }
    }

    const fn written(write: Option<Self>) -> Decision<Settled> {
        Decision { answer: Settled::Done, write }
    }

    fn held(&self, since: Timestamp, terms: Terms, now: Timestamp) -> Self {
        let deadline = now.saturating_add(terms.lease);
        self.with(State::Held { since, deadline }, deadline.saturating_add(terms.keep))
    }

    fn finished(&self, outcome: &Outcome, terms: Terms, now: Timestamp) -> Self {
        self.with(State::Finished(outcome.clone()), now.saturating_add(terms.keep))
    }

    fn free(&self, terms: Terms, now: Timestamp) -> Self {
        self.with(State::Free, now.saturating_add(terms.lease))
    }

    fn with(&self, state: State, expires: Timestamp) -> Self {
        let Self { digest, token, grant, .. } = *self;
        Self { digest, token, grant, state, expires }
    }

    const fn next_attempt(&self) -> u32 {
        self.grant.attempt.saturating_add(1)
    }
}

fn alive(held: Option<&Entry>, now: Timestamp) -> Option<&Entry> {
    held.filter(|entry| now < entry.expires)
}

/// True iff nobody is at it, and it is not finished.
fn is_open(state: Option<&State>, now: Timestamp) -> bool {
    match state {
        None | Some(State::Free) => true,
        Some(State::Held { deadline, .. }) => now >= *deadline,
        Some(State::Finished(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms =
        Terms { lease: Duration::from_secs(300), keep: Duration::from_secs(86_400) };

    /// The store's own steps, over one entry.
    #[derive(Default)]
    struct Key(Option<Entry>);

    impl Key {
        fn claim(&mut self, token: u64, secs: i64) -> Answer {
            self.claim_with(token, b"payload", secs)
        }

        fn claim_with(&mut self, token: u64, payload: &[u8], secs: i64) -> Answer {
            let digest = Digest::of(payload);
            let request = ClaimRequest { token: Token::new(token), digest, terms: TERMS };
            let now = Timestamp::from_secs(secs);
            let decision = Entry::claim(self.0.as_ref(), &request, now);
            self.write(decision.write);
            decision.answer
        }

        fn settle(&mut self, token: u64, settlement: Settlement<'_>, secs: i64) -> Settled {
            let request = SettleRequest { token: Token::new(token), settlement, terms: TERMS };
            let now = Timestamp::from_secs(secs);
            let decision = Entry::settle(self.0.as_ref(), &request, now);
            self.write(decision.write);
            decision.answer
        }

        fn write(&mut self, write: Option<Entry>) {
            self.0 = write.or(self.0.take());
        }
    }

    fn grant(answer: &Answer) -> Grant {
        let Answer::Granted(grant) = answer else { panic!("{answer:?}") };
        *grant
    }

    fn done() -> Outcome {
        Outcome::success(*b"done")
    }

    #[test]
    fn who_comes_second_waits_and_then_gets_the_outcome() {
        let mut key = Key::default();
        grant(&key.claim(1, 0));
        let remaining = Duration::from_secs(200);
        let since = Timestamp::from_secs(0);
        assert_eq!(key.claim(2, 100), Answer::InFlight { since, remaining });
        assert_eq!(key.settle(1, Settlement::Complete(&done()), 110), Settled::Done);
        assert_eq!(key.claim(2, 120), Answer::Finished(done()));
        assert_eq!(key.claim(2, 110 + 86_399), Answer::Finished(done()));
        assert_eq!(grant(&key.claim(2, 110 + 86_400)).attempt, 1);
    }

    #[test]
    fn after_the_deadline_another_takes_over_and_the_first_is_stale() {
        let mut key = Key::default();
        let first = grant(&key.claim(1, 0));
        let second = grant(&key.claim(2, 300));
        assert!(second.is_takeover && second.attempt == 2 && second.fence > first.fence);
        for settlement in [Settlement::Complete(&done()), Settlement::Release, Settlement::Extend] {
            assert_eq!(key.settle(1, settlement, 301), Settled::Stale);
        }
        assert_eq!(key.settle(2, Settlement::Complete(&done()), 302), Settled::Done);
        assert_eq!(key.settle(1, Settlement::Complete(&done()), 303), Settled::Stale);
    }

    #[test]
    fn a_late_holder_may_finish_while_nobody_has_taken_over() {
        let mut key = Key::default();
        grant(&key.claim(1, 0));
        assert_eq!(key.settle(1, Settlement::Extend, 1_000), Settled::Done);
        assert!(matches!(key.claim(2, 1_299), Answer::InFlight { .. }));
        assert_eq!(key.settle(1, Settlement::Complete(&done()), 5_000), Settled::Done);
    }

    #[test]
    fn a_failure_frees_the_key_for_any_payload_and_counts() {
        let mut key = Key::default();
        let first = grant(&key.claim(1, 0));
        assert_eq!(key.settle(1, Settlement::Release, 0), Settled::Done);
        let second = grant(&key.claim_with(2, b"corrected", 0));
        assert!(!second.is_takeover && second.attempt == 2 && second.fence > first.fence);
        assert_eq!(key.settle(1, Settlement::Complete(&done()), 0), Settled::Stale);
    }

    #[test]
    fn another_payload_is_a_mismatch_as_long_as_the_key_is_not_free() {
        let mut key = Key::default();
        grant(&key.claim(1, 0));
        for secs in [0, 300, 86_699] {
            assert_eq!(key.claim_with(2, b"other", secs), Answer::Mismatch);
        }
        assert_eq!(key.settle(1, Settlement::Complete(&done()), 1), Settled::Done);
        assert_eq!(key.claim_with(2, b"other", 2), Answer::Mismatch);
    }

    #[test]
    fn what_is_said_again_changes_nothing() {
        let mut key = Key::default();
        let first = grant(&key.claim(1, 0));
        assert_eq!(grant(&key.claim(1, 10)), first);
        assert!(matches!(key.claim(2, 309), Answer::InFlight { .. }));
        for _ in 0..2 {
            assert_eq!(key.settle(1, Settlement::Complete(&done()), 20), Settled::Done);
        }
        let mut freed = Key::default();
        grant(&freed.claim(1, 0));
        for _ in 0..2 {
            assert_eq!(freed.settle(1, Settlement::Release, 20), Settled::Done);
        }
        assert_eq!(freed.settle(1, Settlement::Complete(&done()), 30), Settled::Stale);
    }

    #[test]
    fn an_operator_frees_a_key_whatever_its_state() {
        for settlement in [Settlement::Extend, Settlement::Complete(&done())] {
            let mut key = Key::default();
            grant(&key.claim(1, 0));
            assert_eq!(key.settle(1, settlement, 1), Settled::Done);
            assert_eq!(key.settle(9, Settlement::Clear, 2), Settled::Done);
            assert_eq!(key.settle(1, Settlement::Complete(&done()), 3), Settled::Stale);
            grant(&key.claim(2, 3));
        }
    }

    #[test]
    fn what_finished_elsewhere_is_adopted_unless_it_goes_on_here() {
        let (digest, outcome) = (Digest::of(b"payload"), done());
        let adopt = Settlement::Adopt(&digest, &outcome);
        let mut key = Key::default();
        for _ in 0..2 {
            assert_eq!(key.settle(1, adopt, 0), Settled::Done);
        }
        assert_eq!(key.claim(2, 1), Answer::Finished(done()));
        assert_eq!(key.settle(3, adopt, 1), Settled::Stale);
        let mut held = Key::default();
        grant(&held.claim(1, 0));
        assert_eq!(held.settle(2, adopt, 299), Settled::Stale);
        assert_eq!(held.settle(2, adopt, 300), Settled::Done);
        assert_eq!(held.settle(1, Settlement::Complete(&done()), 301), Settled::Stale);
    }

    #[test]
    fn fences_rise_though_the_clock_goes_back() {
        let mut key = Key::default();
        let first = grant(&key.claim(1, 1_000));
        assert_eq!(key.settle(1, Settlement::Release, 1_000), Settled::Done);
        assert!(grant(&key.claim(2, 900)).fence > first.fence);
    }

    #[test]
    fn times_at_the_ends_of_their_range_do_not_overflow() {
        for micros in [i64::MIN, i64::MAX] {
            let request =
                ClaimRequest { token: Token::new(1), digest: Digest::of(b""), terms: TERMS };
            let now = Timestamp::from_micros(micros);
            let decision = Entry::claim(None, &request, now);
            assert!(Entry::status(decision.write.as_ref(), now).is_some() || micros == i64::MAX);
        }
    }
}
