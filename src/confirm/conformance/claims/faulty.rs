//! Claim stores broken in one way each, to see that a check notices.

use crate::confirm::claims::{
    Answer, ClaimRequest, ClaimStore, Decision, Digest, Ending, Entry, Fence, Outcome,
    SettleRequest, Settled, Settlement, State, Status, Terms,
};
use crate::confirm::conformance::faulty::Meeting;
use crate::confirm::conformance::tests::Switches;
use crate::confirm::{StoreError, StoreErrorKind, Token};
use crate::time::{Clock as _, ManualClock, Timestamp};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    // In judging a claim:
    GrantsAlways,
    RemainingIsTheLease,
    SinceIsNow,
    DigestIgnored,
    DigestIgnoredWhenFinished,
    DigestIgnoredWhenLate,
    MismatchAfterRelease,
    TakenOverEarly,
    TakenOverLate,
    NeverTakenOver,
    TakeoverNotSaid,
    AttemptsNotCounted,
    FenceStays,
    ClaimedAgainIsInFlight,
    ClaimedAgainCounts,
    ClaimedAgainKeepsTheLease,
    ClaimedAgainMovesSince,
    ClaimedAgainKeepsTheDigest,
    // In judging a settlement:
    CompletionDropped,
    CompletedAgainIsStale,
    CompletedAgainIsWritten,
    ReleasedAgainIsStale,
    LateIsStale,
    LateIsTakenOver,
    AnyoneSettles,
    StaleIsWritten,
    ClearedMayComplete,
    FreeIsCompleted,
    FinishedIsReleased,
    FinishedIsExtended,
    ReleaseCountsAnew,
    ReleasesAll,
    ReleaseOfNothingIsStale,
    ClearsNothing,
    ClearsHeldAlone,
    ClearCountsAnew,
    ClearsAll,
    AdoptsNothing,
    AdoptsOverAll,
    AdoptsOverFinished,
    AdoptedAgainIsStale,
    AdoptsWithoutDigest,
    AdoptsNotFromTheLate,
    ExtendsNothing,
    ExtendAdds,
    ExtendMovesSince,
    ExtendKeepsTheTerms,
    // In keeping:
    KeptTooLong,
    KeptTooShort,
    KeptAsClaimed,
    AbandonedForEver,
    AbandonedAtTheDeadline,
    NothingKeptIsAll,
    EndlessOverflows,
    FailureIsSuccess,
    EmptyIsTombstone,
    TombstoneIsEmpty,
    BytesAreText,
    OutcomesCut,
    // In looking and sweeping:
    LookGivesNothing,
    LookHidesTheLate,
    LookShowsTheLease,
    LookClaims,
    LookExtends,
    SweepsTheLate,
    SweepsReleased,
    SweepsHeld,
    SweepsFinished,
    SweepsForEver,
    // In how identities are kept:
    EmptyIdRefused,
    IdsCut,
    IdsEndAtZero,
    IdsAreText,
    CaseIgnored,
    SpacesTrimmed,
    NamespaceIgnored,
    NamespaceJoined,
    // In being one step:
    NotAtomic,
    NotAtomicWhenReleased,
    NotAtomicWhenLate,
    RefusesAll,
    // In lasting:
    LostOnReopening,
    DigestsLostOnReopening,
    ReleasedLostOnReopening,
    LostOnRestart,
    ForgetsAfterLostReply,
    LostReplyCalledUnavailable,
    CutOffCalledRefused,
    CutOffLooksFree,
    CutOffSettlesNothing,
}

/// What all stores of one namespace share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    entries: Mutex<HashMap<Vec<u8>, Entry>>,
    opened: AtomicU64,
    meeting: Meeting,
}

/// A claim store over a map, with a fault.
pub(super) struct Faulty {
    fault: Fault,
    prefix: Vec<u8>,
    shared: Arc<Shared>,
    clock: Arc<ManualClock>,
    switches: Arc<Switches>,
}

/// What is far longer than any tick, and shorter than the terms of most claims.
const TICKS: Duration = Duration::from_secs(60);

impl Faulty {
    pub(super) fn open(
        fault: Fault,
        namespace: &str,
        shared: Arc<Shared>,
        (clock, switches): (Arc<ManualClock>, Arc<Switches>),
    ) -> Self {
        let prefix = match fault {
            Fault::NamespaceIgnored => Vec::new(),
            Fault::NamespaceJoined => namespace.into(),
            _ => [namespace.as_bytes(), b"\0"].concat(),
        };
        if shared.opened.fetch_add(1, Ordering::SeqCst) > 0 {
            let mut entries = shared.entries.lock();
            match fault {
                Fault::LostOnReopening => entries.clear(),
                Fault::ReleasedLostOnReopening => {
                    entries.retain(|_, entry| entry.state != State::Free);
                }
                Fault::DigestsLostOnReopening => {
                    entries.values_mut().for_each(|entry| entry.digest = Digest::of(b""));
                }
                _ => {}
            }
        }
        Self { fault, prefix, shared, clock, switches }
    }

    fn stored(&self, id: &[u8]) -> Vec<u8> {
        let id = match self.fault {
            Fault::IdsCut => id[..id.len().min(767)].to_vec(),
            Fault::IdsEndAtZero => id.split(|byte| *byte == 0).next().unwrap().to_vec(),
            Fault::IdsAreText => String::from_utf8_lossy(id).into_owned().into_bytes(),
            Fault::CaseIgnored => id.to_ascii_lowercase(),
            Fault::SpacesTrimmed => id.trim_ascii_end().to_vec(),
            _ => id.to_vec(),
        };
        [self.prefix.as_slice(), &id].concat()
    }

    /// Reads, decides and writes; the whole contract, but for the fault.
    fn step<T>(
        &self,
        id: &[u8],
        decide: impl FnOnce(Option<&Entry>, Timestamp) -> Decision<T>,
    ) -> Result<T, StoreError> {
        self.reached()?;
        if self.fault == Fault::RefusesAll || self.fault == Fault::EmptyIdRefused && id.is_empty() {
            return Err(StoreError::new(StoreErrorKind::Refused, "as always"));
        }
        let (key, now) = (self.stored(id), self.clock.now());
        let mut entries = self.shared.entries.lock();
        let decision = decide(entries.get(&key), now);
        if self.is_torn(entries.get(&key), now) {
            drop(entries);
            self.shared.meeting.wait_once(Duration::from_millis(50));
            self.shared.meeting.call_off();
            entries = self.shared.entries.lock();
        }
        if let Some(entry) = decision.write {
            entries.insert(key.clone(), self.kept(entry, now));
        }
        drop(entries);
        self.replied(&key)?;
        Ok(decision.answer)
    }

    fn is_torn(&self, held: Option<&Entry>, now: Timestamp) -> bool {
        match self.fault {
            Fault::NotAtomic => held.is_none(),
            Fault::NotAtomicWhenReleased => held.is_some_and(|entry| entry.state == State::Free),
            Fault::NotAtomicWhenLate => held.is_some_and(|entry| is_late(entry, now)),
            _ => false,
        }
    }

    fn reached(&self) -> Result<(), StoreError> {
        use StoreErrorKind::{Refused, Unavailable};
        if !self.switches.is_cut.load(Ordering::SeqCst) {
            return Ok(());
        }
        let is_called_refused = self.fault == Fault::CutOffCalledRefused;
        Err(StoreError::new(if is_called_refused { Refused } else { Unavailable }, "cut off"))
    }

    fn replied(&self, key: &[u8]) -> Result<(), StoreError> {
        use StoreErrorKind::{Unavailable, Uncertain};
        if !self.switches.loses_reply.swap(false, Ordering::SeqCst) {
            return Ok(());
        }
        if self.fault == Fault::ForgetsAfterLostReply
            && let Some(entry) = self.shared.entries.lock().get_mut(key)
        {
            entry.token = Token::new(u64::MAX);
        }
        let is_called_unavailable = self.fault == Fault::LostReplyCalledUnavailable;
        let kind = if is_called_unavailable { Unavailable } else { Uncertain };
        Err(StoreError::new(kind, "the reply was lost"))
    }

    /// What is kept of an entry.
    fn kept(&self, mut entry: Entry, now: Timestamp) -> Entry {
        let is_held = matches!(entry.state, State::Held { .. });
        match self.fault {
            Fault::AbandonedForEver if is_held => entry.expires = Timestamp::MAX,
            Fault::AbandonedAtTheDeadline => {
                if let State::Held { deadline, .. } = entry.state {
                    entry.expires = deadline;
                }
            }
            Fault::NothingKeptIsAll if entry.expires == now => entry.expires = Timestamp::MAX,
            _ => {}
        }
        if let State::Finished(outcome) = entry.state {
            entry.state = State::Finished(self.kept_outcome(outcome));
        }
        entry
    }

    fn kept_outcome(&self, outcome: Outcome) -> Outcome {
        let bytes = outcome.bytes().map(<[u8]>::to_vec);
        match (self.fault, bytes) {
            (Fault::FailureIsSuccess, Some(bytes)) => Outcome::success(bytes),
            (Fault::EmptyIsTombstone, Some(bytes)) if bytes.is_empty() => {
                Outcome::tombstone(outcome.ending())
            }
            (Fault::TombstoneIsEmpty, None) => with(outcome.ending(), Vec::new()),
            (Fault::BytesAreText, Some(bytes)) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                with(outcome.ending(), text.into_bytes())
            }
            (Fault::OutcomesCut, Some(mut bytes)) => {
                bytes.truncate(1 << 16);
                with(outcome.ending(), bytes)
            }
            _ => outcome,
        }
    }

    fn decide_claim(
        &self,
        held: Option<&Entry>,
        request: &ClaimRequest,
        now: Timestamp,
    ) -> Decision<Answer> {
        let mut request = *request;
        request.terms = self.terms(request.terms);
        let Some(entry) = held.filter(|entry| now < entry.expires) else {
            return Entry::claim(held, &request, now);
        };
        let is_own = entry.token == request.token && matches!(entry.state, State::Held { .. });
        let is_digest_ignored = match self.fault {
            Fault::DigestIgnored => {
                matches!(entry.state, State::Held { .. }) && !is_late(entry, now)
            }
            Fault::DigestIgnoredWhenFinished => matches!(entry.state, State::Finished(_)),
            Fault::DigestIgnoredWhenLate => is_late(entry, now),
            _ => false,
        };
        if is_digest_ignored {
            request.digest = entry.digest;
        }
        let entry = self.with_other_deadline(entry);
        let mut decision = match self.fault {
            Fault::GrantsAlways => Entry::claim(None, &request, now),
            Fault::ClaimedAgainIsInFlight | Fault::ClaimedAgainCounts if is_own => {
                let other = Entry { token: Token::new(u64::MAX), ..entry.clone() };
                let other = match self.fault {
                    Fault::ClaimedAgainCounts => Entry { state: State::Free, ..other },
                    _ => other,
                };
                Entry::claim(Some(&other), &request, now)
            }
            Fault::MismatchAfterRelease
                if entry.state == State::Free && entry.digest != request.digest =>
            {
                Decision { answer: Answer::Mismatch, write: None }
            }
            Fault::NeverTakenOver if is_late(&entry, now) => Decision {
                answer: Answer::InFlight { since: entry.expires, remaining: Duration::ZERO },
                write: None,
            },
            _ => Entry::claim(Some(&entry), &request, now),
        };
        self.spoil_answer(&mut decision, &entry, (&request, now));
        if is_own && let Some(write) = &mut decision.write {
            match (self.fault, &mut write.state) {
                (Fault::ClaimedAgainKeepsTheLease, _) => decision.write = None,
                (Fault::ClaimedAgainMovesSince, State::Held { since, .. }) => *since = now,
                (Fault::ClaimedAgainKeepsTheDigest, _) => write.digest = entry.digest,
                _ => {}
            }
        }
        decision
    }

    fn with_other_deadline(&self, entry: &Entry) -> Entry {
        let mut entry = entry.clone();
        if let State::Held { since, deadline } = &mut entry.state {
            let lease = Duration::from_micros((deadline.as_micros() - since.as_micros()) as u64);
            match self.fault {
                Fault::TakenOverEarly => *deadline = deadline.saturating_sub(lease / 2),
                Fault::TakenOverLate => *deadline = deadline.saturating_add(lease / 8),
                _ => {}
            }
        }
        entry
    }

    fn spoil_answer(
        &self,
        decision: &mut Decision<Answer>,
        entry: &Entry,
        (request, now): (&ClaimRequest, Timestamp),
    ) {
        match &mut decision.answer {
            Answer::InFlight { since, remaining } => match self.fault {
                Fault::RemainingIsTheLease => *remaining = request.terms.lease,
                Fault::SinceIsNow => *since = now,
                _ => {}
            },
            Answer::Granted(grant) => {
                match self.fault {
                    Fault::TakeoverNotSaid => grant.is_takeover = false,
                    Fault::AttemptsNotCounted => grant.attempt = 1,
                    Fault::FenceStays => grant.fence = entry.grant.fence,
                    _ => {}
                }
                if let Some(write) = &mut decision.write {
                    write.grant = *grant;
                }
            }
            _ => {}
        }
    }

    fn terms(&self, terms: Terms) -> Terms {
        match self.fault {
            Fault::EndlessOverflows => Terms {
                lease: if terms.lease == Duration::MAX { Duration::ZERO } else { terms.lease },
                ..terms
            },
            _ => terms,
        }
    }

    fn decide_settlement(
        &self,
        held: Option<&Entry>,
        request: &SettleRequest<'_>,
        now: Timestamp,
    ) -> Decision<Settled> {
        let mut request = *request;
        request.terms = self.terms(request.terms);
        let alive = held.filter(|entry| now < entry.expires);
        if let Some(decision) = self.wrong_settlement(alive, &request, now) {
            return decision;
        }
        let mut decision = Entry::settle(held, &request, now);
        if let (Some(write), Some(entry)) = (&mut decision.write, alive) {
            self.spoil_settlement(write, entry, &request);
        }
        decision
    }

    /// A decision that has nothing to do with the right one.
    fn wrong_settlement(
        &self,
        held: Option<&Entry>,
        request: &SettleRequest<'_>,
        now: Timestamp,
    ) -> Option<Decision<Settled>> {
        use Settlement::{Adopt, Clear, Complete, Extend, Release};
        let said = request.settlement;
        let is_own = held.is_some_and(|entry| entry.token == request.token);
        let late = held.is_some_and(|entry| is_late(entry, now));
        let state = held.map(|entry| &entry.state);
        let too_late = Decision { answer: Settled::Stale, write: None };
        let done = Decision { answer: Settled::Done, write: None };
        let as_its_own = || {
            let token = held.map_or(request.token, |entry| entry.token);
            Entry::settle(held, &SettleRequest { token, ..*request }, now)
        };
        let as_if_held = || {
            let state = State::Held { since: now, deadline: Timestamp::MAX };
            let held = held.map(|entry| Entry { state, ..entry.clone() });
            Entry::settle(held.as_ref(), request, now)
        };
        let is_holders = matches!(said, Complete(_) | Release | Extend);
        Some(match (self.fault, said, state) {
            (Fault::CompletedAgainIsStale, Complete(_), Some(State::Finished(_)))
            | (Fault::AdoptedAgainIsStale, Adopt(..), Some(State::Finished(_)))
            | (Fault::ReleasedAgainIsStale, Release, Some(State::Free))
            | (Fault::ReleaseOfNothingIsStale, Release, None)
            | (Fault::AdoptsNothing, Adopt(..), None) => too_late,
            (Fault::CompletedAgainIsWritten, Complete(_), Some(State::Finished(_)))
            | (Fault::ClearedMayComplete, Complete(_), Some(State::Free))
            | (Fault::FinishedIsReleased, Release, Some(State::Finished(_)))
            | (Fault::FinishedIsExtended, Extend, Some(State::Finished(_)))
                if is_own =>
            {
                as_if_held()
            }
            (Fault::FreeIsCompleted, Complete(outcome), None) => {
                let adopt = Adopt(&Digest::from_bytes([0; 32]), outcome);
                Entry::settle(None, &SettleRequest { settlement: adopt, ..*request }, now)
            }
            (Fault::LateIsStale, ..) if late && is_own && is_holders => too_late,
            (Fault::LateIsTakenOver, Release, _) if late && is_own => done,
            (Fault::AdoptsNotFromTheLate, Adopt(..), _) if late => too_late,
            (Fault::AnyoneSettles, ..) if is_holders => as_its_own(),
            (Fault::StaleIsWritten, ..) if is_holders && !is_own => {
                Decision { answer: Settled::Stale, ..as_its_own() }
            }
            (Fault::ClearsNothing, Clear, _)
            | (Fault::ClearsHeldAlone, Clear, Some(State::Finished(_)))
            | (Fault::ExtendsNothing, Extend, Some(State::Held { .. })) => done,
            (Fault::AdoptsOverAll, Adopt(..), Some(State::Held { .. }))
            | (Fault::AdoptsOverFinished, Adopt(..), Some(State::Finished(_)))
                if !is_own =>
            {
                Entry::settle(None, request, now)
            }
            _ => return None,
        })
    }

    /// What is written for a settlement, in place of the right entry.
    fn spoil_settlement(&self, write: &mut Entry, entry: &Entry, request: &SettleRequest<'_>) {
        let was_completed = matches!(request.settlement, Settlement::Complete(_));
        let is_short = request.terms.keep < TICKS;
        match (self.fault, request.settlement, &mut write.state) {
            (Fault::CompletionDropped, Settlement::Complete(_), state) => *state = State::Free,
            (Fault::ReleaseCountsAnew, Settlement::Release, _)
            | (Fault::ClearCountsAnew, Settlement::Clear, _) => {
                write.grant.attempt = 0;
                write.grant.fence = Fence::new(0);
            }
            (Fault::AdoptsWithoutDigest, Settlement::Adopt(..), _) => {
                write.digest = Digest::of(b"");
            }
            (Fault::ExtendMovesSince, Settlement::Extend, State::Held { since, deadline }) => {
                *since = deadline.saturating_sub(request.terms.lease);
            }
            (Fault::ExtendAdds, Settlement::Extend, State::Held { deadline, .. }) => {
                *deadline = later(entry).saturating_add(request.terms.lease);
            }
            (Fault::ExtendKeepsTheTerms, Settlement::Extend, State::Held { deadline, .. }) => {
                *deadline = later(entry);
            }
            _ => {}
        }
        match self.fault {
            Fault::KeptTooLong if was_completed && is_short => {
                write.expires = write.expires.saturating_add(request.terms.keep / 8);
            }
            Fault::KeptTooShort if was_completed && is_short => {
                write.expires = write.expires.saturating_sub(request.terms.keep / 2);
            }
            Fault::KeptAsClaimed if was_completed => write.expires = entry.expires,
            _ => {}
        }
    }

    /// What a settlement does to other keys.
    fn strike_others(&self, settlement: Settlement<'_>) {
        let strikes = match self.fault {
            Fault::ReleasesAll => matches!(settlement, Settlement::Release),
            Fault::ClearsAll => matches!(settlement, Settlement::Clear),
            _ => false,
        };
        if strikes {
            self.shared.entries.lock().values_mut().for_each(|entry| entry.state = State::Free);
        }
    }
}

fn with(ending: Ending, bytes: Vec<u8>) -> Outcome {
    match ending {
        Ending::Success => Outcome::success(bytes),
        Ending::Failure => Outcome::failure(bytes),
    }
}

fn is_late(entry: &Entry, now: Timestamp) -> bool {
    matches!(entry.state, State::Held { deadline, .. } if deadline <= now)
}

/// Its deadline.
fn later(entry: &Entry) -> Timestamp {
    match entry.state {
        State::Held { deadline, .. } => deadline,
        _ => entry.expires,
    }
}

impl ClaimStore for Faulty {
    fn claim(&self, id: &[u8], request: &ClaimRequest) -> Result<Answer, StoreError> {
        self.step(id, |held, now| self.decide_claim(held, request, now))
    }

    fn settle(&self, id: &[u8], request: &SettleRequest<'_>) -> Result<Settled, StoreError> {
        if self.fault == Fault::CutOffSettlesNothing && self.reached().is_err() {
            return Ok(Settled::Done);
        }
        self.strike_others(request.settlement);
        self.step(id, |held, now| self.decide_settlement(held, request, now))
    }

    fn look(&self, id: &[u8]) -> Result<Option<Status>, StoreError> {
        match self.reached() {
            Err(_) if self.fault == Fault::CutOffLooksFree => return Ok(None),
            reached => reached?,
        }
        let (key, now) = (self.stored(id), self.clock.now());
        let mut entries = self.shared.entries.lock();
        let mut status = Entry::status(entries.get(&key), now);
        match (self.fault, entries.get_mut(&key)) {
            (Fault::LookGivesNothing, _) => status = None,
            (Fault::LookHidesTheLate, Some(entry)) if is_late(entry, now) => status = None,
            (Fault::LookShowsTheLease, Some(_)) => {
                if let Some(Status::InFlight { remaining, .. }) = &mut status {
                    *remaining = TICKS;
                }
            }
            (Fault::LookClaims, None) => {
                let terms = Terms { lease: TICKS, keep: TICKS };
                let digest = Digest::of(b"");
                let request = ClaimRequest { token: Token::new(u64::MAX), digest, terms };
                let claimed = Entry::claim(None, &request, now).write.unwrap();
                entries.insert(key, Entry { state: State::Free, ..claimed });
            }
            (Fault::LookExtends, Some(Entry { state: State::Held { deadline, .. }, .. })) => {
                *deadline = now.saturating_add(TICKS);
            }
            _ => {}
        }
        Ok(status)
    }

    fn sweep(&self) -> Result<bool, StoreError> {
        let now = self.clock.now();
        self.shared.entries.lock().retain(|_, entry| {
            now < entry.expires
                && match (self.fault, &entry.state) {
                    (Fault::SweepsTheLate, State::Held { deadline, .. }) => now < *deadline,
                    (Fault::SweepsHeld, State::Held { deadline, .. }) => now >= *deadline,
                    (Fault::SweepsReleased, State::Free)
                    | (Fault::SweepsFinished, State::Finished(_)) => false,
                    _ => true,
                }
        });
        Ok(self.fault == Fault::SweepsForEver)
    }
}
