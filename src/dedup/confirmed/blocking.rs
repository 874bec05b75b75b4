//! The blocking face: it waits in the caller's thread.

use super::super::{BatchError, CheckError, Deduper};
use super::Begun;
use super::carrier::{Carrier, Face};
use crate::confirm::{Confirmer, Course, Guard, Inline, Outage, at_once};
use crate::time::Timestamp;
use crate::verdict::Verdict;
use event_listener::EventListener;
#[cfg(not(loom))]
use event_listener::Listener as _;
use std::time::Duration;

impl<C: Confirmer, P: Outage<Instead: Confirmer>> Deduper<C, P> {
    fn carrier(&self) -> Carrier<'_, C, P, Blocking<'_, C, P>> {
        Carrier { dedup: self, face: Blocking(&self.behind().guard) }
    }

    /// Checks a key at the present time, and records it if it was not known.
    ///
    /// Costs what it costs without a confirmer where memory can judge the key,
    /// and a call of the confirmer elsewhere. While another check of the key asks
    /// it, this one waits.
    ///
    /// # Errors
    ///
    /// [`CheckError::TimeRequired`] in event time; [`CheckError::Unconfirmed`] and
    /// [`CheckError::Uncertain`] if the confirmer fails and the outage policy does
    /// not help.
    pub fn check(&self, key: &[u8]) -> Result<Verdict, CheckError> {
        self.check_one(key, None)
    }

    /// Checks a key at the record's own time.
    ///
    /// # Errors
    ///
    /// [`CheckError::TimeNotExpected`] in processing time;
    /// [`CheckError::TooFarAhead`], which moves nothing; and those of
    /// [`check`](Self::check) if the confirmer fails.
    pub fn check_at(&self, key: &[u8], at: Timestamp) -> Result<Verdict, CheckError> {
        self.check_one(key, Some(at))
    }

    fn check_one(&self, key: &[u8], at: Option<Timestamp>) -> Result<Verdict, CheckError> {
        let carrier = self.carrier();
        let verdict = match self.begin_one(key, at)? {
            Begun::Judged(verdict) => verdict,
            Begun::Asking(round) => at_once(carrier.judge(round))?,
        };
        carrier.write_if_due();
        Ok(verdict)
    }

    /// Checks `keys` in order, as if one by one, and fills in `verdicts`. Those
    /// that memory cannot judge are asked about together.
    ///
    /// # Errors
    ///
    /// A [`BatchError`] that says how many keys were completed; nothing after
    /// them is recorded, unless it is [`CheckError::Uncertain`].
    pub fn check_batch<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        at_once(self.carrier().check_all(keys, None, verdicts))
    }

    /// Checks `keys` in order, each at its own time, and fills in `verdicts`.
    ///
    /// # Errors
    ///
    /// As [`check_batch`](Self::check_batch).
    pub fn check_batch_at<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        times: &[Timestamp],
        verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        at_once(self.carrier().check_all(keys, Some(times), verdicts))
    }

    /// Writes all keys to the store whose verdicts did not wait for it
    /// ([`Builder::write_behind`](crate::Builder::write_behind)) and were given before the
    /// call. Keys that other threads check meanwhile do not prolong it.
    ///
    /// # Errors
    ///
    /// [`CheckError::Uncertain`] or [`CheckError::Unconfirmed`] if the store fails;
    /// the keys stay queued. If it refuses some of them, all others are written.
    pub fn flush(&self) -> Result<(), CheckError> {
        Ok(self.carrier().flush()?)
    }

    /// True iff [`check`](Self::check) would say `Duplicate`; records nothing. What
    /// memory does not know, the store itself is asked, whatever the outage policy.
    ///
    /// # Errors
    ///
    /// [`CheckError::TimeRequired`] in event time; [`CheckError::Unconfirmed`] if
    /// the store fails.
    pub fn contains(&self, key: &[u8]) -> Result<bool, CheckError> {
        at_once(self.carrier().look_for(key, None))
    }

    /// True iff [`check_at`](Self::check_at) would say `Duplicate`; records nothing
    /// and moves no watermark.
    ///
    /// # Errors
    ///
    /// [`CheckError::TimeNotExpected`] in processing time;
    /// [`CheckError::TooFarAhead`]; [`CheckError::Unconfirmed`] if the store fails.
    pub fn contains_at(&self, key: &[u8], at: Timestamp) -> Result<bool, CheckError> {
        at_once(self.carrier().look_for(key, Some(at)))
    }

    /// Forgets a key, here and in the store, so that its next check is `Unique`:
    /// for a message whose processing failed.
    ///
    /// # Errors
    ///
    /// [`CheckError::Uncertain`] or [`CheckError::Unconfirmed`] if the store
    /// fails, or refuses a key that is queued, whichever it is: call again, or the retry
    /// may be called a duplicate.
    pub fn forget(&self, key: &[u8]) -> Result<(), CheckError> {
        at_once(self.carrier().forget(key))
    }

    /// Does maintenance that checks have not come to: in memory, as
    /// [`Deduper::maintain`] does, and in the store, which is told of queued keys, of what it
    /// missed in an outage, and which keys have expired. Call it now and then, or the store keeps
    /// expired keys. One call of the store may take longer than what is left of
    /// the `budget`; what is queued beyond it stays so for the next time.
    ///
    /// A store that is [`Shared`](crate::confirm::Ownership::Shared) is told of keys that
    /// have expired for every process whose clock is at most a minute behind this
    /// one's; in event time, of none: how it is cleaned then is said there.
    ///
    /// # Errors
    ///
    /// [`CheckError::Unconfirmed`] or [`CheckError::Uncertain`] if the store
    /// fails; what it then keeps is called for again.
    pub fn maintain(&self, budget: Duration) -> Result<bool, CheckError> {
        at_once(self.carrier().maintain(budget))
    }
}

/// Calls that block the caller's thread.
struct Blocking<'a, C, P>(&'a Guard<C, P>);

impl<'a, C: Confirmer, P: Outage<Instead: Confirmer>> Face for Blocking<'a, C, P> {
    type Primary = Inline<&'a C>;
    type Instead = Inline<&'a P::Instead>;

    const CHECKS_WRITE: bool = true;

    fn store(&self) -> Course<'_, Self::Primary, Self::Instead> {
        self.0.inline()
    }

    async fn wait(&self, listener: EventListener) {
        wait(listener);
    }
}

#[cfg(not(loom))]
fn wait(listener: EventListener) {
    listener.wait();
}

#[cfg(loom)]
fn wait(listener: EventListener) {
    loom::future::block_on(listener);
}
