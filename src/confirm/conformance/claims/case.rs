//! One check's own ground: a namespace, tokens that never repeat, and time.

use super::ClaimHarness;
use crate::confirm::claims::{
    Answer, ClaimRequest, ClaimStore, Digest, Grant, Outcome, SettleRequest, Settled, Settlement,
    Status, Terms,
};
use crate::confirm::conformance::keys::Shortened;
use crate::confirm::conformance::report::{Checked, Unmet, ensure};
use crate::confirm::{StoreError, Token};
use crate::time::{Clock as _, Timestamp};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Terms that do not end while a check runs.
pub(super) const LONG: Terms =
    Terms { lease: Duration::from_secs(3_600), keep: Duration::from_secs(86_400) };

/// The payload of most claims.
pub(super) const PAYLOAD: &[u8] = b"amount=10";

/// Another one.
pub(super) const OTHER: &[u8] = b"amount=99";

pub(super) struct Case<'harness, H> {
    pub(super) harness: &'harness H,
    namespace: &'static str,
    tokens: AtomicU64,
    start: Start,
}

/// When the check began: by the clock that the harness moves, or by the system's.
enum Start {
    Manual(Timestamp),
    System(Instant),
}

impl<'harness, H: ClaimHarness> Case<'harness, H> {
    pub(super) fn new(harness: &'harness H, namespace: &'static str) -> Self {
        let start = harness
            .clock()
            .map_or_else(|| Start::System(Instant::now()), |clock| Start::Manual(clock.now()));
        Self { harness, namespace, tokens: AtomicU64::new(1), start }
    }

    /// A store for the check's own namespace.
    pub(super) fn open(&self) -> Result<H::Store, StoreError> {
        self.harness.open(self.namespace)
    }

    pub(super) fn token(&self) -> Token {
        // Relaxed: the count alone matters.
        Token::new(self.tokens.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) const fn key<'a>(&'a self, store: &'a H::Store, id: &'a [u8]) -> Key<'a, H> {
        Key { case: self, store, id }
    }

    /// So many units of the time in which checks wait: long for a reply, and short for
    /// whoever waits.
    pub(super) fn ticks(&self, count: u32) -> Duration {
        let tick = match self.start {
            Start::Manual(_) => Duration::from_secs(1),
            Start::System(_) => Duration::from_millis(100),
        };
        tick.saturating_mul(count)
    }

    /// Long terms but for the lease, which lasts so many ticks.
    pub(super) fn lease(&self, ticks: u32) -> Terms {
        Terms { lease: self.ticks(ticks), ..LONG }
    }

    /// By how much a store's time may be coarser than the check's: milliseconds will do.
    pub(super) const fn grain(&self) -> Duration {
        match self.start {
            Start::Manual(_) => Duration::ZERO,
            Start::System(_) => Duration::from_millis(2),
        }
    }

    /// Lets so many ticks pass on the store's clock.
    pub(super) fn pass(&self, ticks: u32) {
        let span = self.ticks(ticks);
        match self.harness.clock() {
            Some(clock) => clock.advance(span),
            None => thread::sleep(span + self.grain()),
        }
    }

    /// How much has passed since the check began.
    pub(super) fn elapsed(&self) -> Duration {
        let start = match self.start {
            Start::System(start) => return start.elapsed(),
            Start::Manual(start) => start,
        };
        self.harness.clock().map_or(Duration::ZERO, |clock| clock.now().since(start))
    }

    /// How much has passed since `then`.
    pub(super) fn since(&self, then: Duration) -> Duration {
        self.elapsed().saturating_sub(then)
    }

    /// What `judge` says of a time less than so many ticks after `then`; nothing if it
    /// came too late to be sure.
    pub(super) fn until(
        &self,
        (then, ticks): (Duration, u32),
        judge: impl FnOnce() -> Checked,
    ) -> Checked {
        let judged = judge();
        let is_in_time = self.since(then) + self.grain() < self.ticks(ticks);
        if is_in_time { judged } else { Ok(()) }
    }
}

/// An identity in a store.
pub(super) struct Key<'a, H: ClaimHarness> {
    case: &'a Case<'a, H>,
    store: &'a H::Store,
    id: &'a [u8],
}

/// Who was granted a claim.
#[derive(Clone, Copy)]
pub(super) struct Holder {
    pub(super) token: Token,
    pub(super) grant: Grant,
}

/// Whose claim was not granted because of another, and what they were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InFlight {
    pub(super) since: Timestamp,
    pub(super) remaining: Duration,
}

impl<H: ClaimHarness> Key<'_, H> {
    /// A claim by somebody new.
    pub(super) fn request(&self, payload: &[u8], terms: Terms) -> ClaimRequest {
        ClaimRequest { token: self.case.token(), digest: Digest::of(payload), terms }
    }

    /// Claims; no store answers that it could not tell.
    pub(super) fn ask(&self, request: &ClaimRequest) -> Checked<Answer> {
        let answer = self.store.claim(self.id, request)?;
        let is_unconfirmed = matches!(answer, Answer::Unconfirmed(_));
        ensure!(!is_unconfirmed, "{self}: a store answers what it knows, not {answer:?}");
        Ok(answer)
    }

    /// Claims, by somebody new, with the usual payload.
    pub(super) fn claim(&self, terms: Terms) -> Checked<(Token, Answer)> {
        let request = self.request(PAYLOAD, terms);
        Ok((request.token, self.ask(&request)?))
    }

    /// Claims, and expects to be granted it.
    pub(super) fn granted(&self, terms: Terms, when: &str) -> Checked<Holder> {
        self.granted_to(&self.request(PAYLOAD, terms), when)
    }

    pub(super) fn granted_to(&self, request: &ClaimRequest, when: &str) -> Checked<Holder> {
        match self.ask(request)? {
            Answer::Granted(grant) => Ok(Holder { token: request.token, grant }),
            answer => self.unexpected("granted", &answer, when),
        }
    }

    /// Claims, and expects somebody else to be at it.
    pub(super) fn in_flight(&self, when: &str) -> Checked<InFlight> {
        match self.claim(LONG)?.1 {
            Answer::InFlight { since, remaining } => Ok(InFlight { since, remaining }),
            answer => self.unexpected("in flight", &answer, when),
        }
    }

    /// Claims, and expects this to have come of it.
    pub(super) fn finished(&self, outcome: &Outcome, when: &str) -> Checked {
        match self.claim(LONG)?.1 {
            Answer::Finished(kept) => self.same(&kept, outcome, when),
            answer => self.unexpected("finished", &answer, when),
        }
    }

    /// Claims with another payload than the usual, and expects to hear of it.
    pub(super) fn mismatched(&self, when: &str) -> Checked {
        match self.ask(&self.request(OTHER, LONG))? {
            Answer::Mismatch => Ok(()),
            answer => self.unexpected("a mismatch", &answer, when),
        }
    }

    /// Settles, for long terms.
    pub(super) fn settle(&self, token: Token, settlement: Settlement<'_>) -> Checked<Settled> {
        self.settle_for(LONG, token, settlement)
    }

    pub(super) fn settle_for(
        &self,
        terms: Terms,
        token: Token,
        settlement: Settlement<'_>,
    ) -> Checked<Settled> {
        Ok(self.store.settle(self.id, &SettleRequest { token, settlement, terms })?)
    }

    /// Settles, and expects it to be so.
    pub(super) fn done(&self, token: Token, settlement: Settlement<'_>, when: &str) -> Checked {
        self.done_for(LONG, token, settlement, when)
    }

    pub(super) fn done_for(
        &self,
        terms: Terms,
        token: Token,
        settlement: Settlement<'_>,
        when: &str,
    ) -> Checked {
        let settled = self.settle_for(terms, token, settlement)?;
        ensure!(settled == Settled::Done, "{self}: {settled:?} instead of done, {when}");
        Ok(())
    }

    /// Settles, and expects to come too late.
    pub(super) fn stale(&self, token: Token, settlement: Settlement<'_>, when: &str) -> Checked {
        let settled = self.settle(token, settlement)?;
        ensure!(settled == Settled::Stale, "{self}: {settled:?} instead of stale, {when}");
        Ok(())
    }

    /// Looks.
    pub(super) fn status(&self) -> Checked<Option<Status>> {
        Ok(self.store.look(self.id)?)
    }

    /// Looks, and expects it to be free.
    pub(super) fn free(&self, when: &str) -> Checked {
        let status = self.status()?;
        ensure!(status.is_none(), "looked at {self} {when}: {status:?} instead of nothing");
        Ok(())
    }

    /// Looks, and expects somebody to be at it.
    pub(super) fn held(&self, when: &str) -> Checked<(InFlight, Grant)> {
        match self.status()? {
            Some(Status::InFlight { since, remaining, grant }) => {
                Ok((InFlight { since, remaining }, grant))
            }
            status => Err(Unmet::Failed(format!(
                "looked at {self} {when}: {status:?} instead of a claim in flight"
            ))),
        }
    }

    /// Looks, and expects this to have come of it.
    pub(super) fn shown(&self, outcome: &Outcome, when: &str) -> Checked {
        match self.status()? {
            Some(Status::Finished(kept)) => self.same(&kept, outcome, when),
            status => Err(Unmet::Failed(format!(
                "looked at {self} {when}: {status:?} instead of an outcome"
            ))),
        }
    }

    fn same(&self, kept: &Outcome, outcome: &Outcome, when: &str) -> Checked {
        ensure!(
            kept == outcome,
            "{self}: {when}: {kept:?}, {:?}, instead of {outcome:?}, {:?}",
            Shortened(kept.bytes().unwrap_or_default()),
            Shortened(outcome.bytes().unwrap_or_default())
        );
        Ok(())
    }

    fn unexpected<T>(&self, expected: &str, answer: &Answer, when: &str) -> Checked<T> {
        Err(Unmet::Failed(format!("{self}: {answer:?} instead of {expected}, {when}")))
    }
}

impl<H: ClaimHarness> fmt::Display for Key<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Shortened(self.id))
    }
}
