//! When a failing store is left alone, and when it is asked again.

use crate::confirm::{StoreError, StoreErrorKind};
use crate::time::Timestamp;
use std::time::Duration;

/// The settings of a circuit breaker: after how many failures a store is left
/// alone, and for how long.
///
/// It *opens* when the store has failed so many times in a row. While it is open
/// nobody waits for the store: once in a while one call alone asks it, and
/// the first answer *closes* it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Breaker {
    failures: u32,
    delay: Duration,
    longest_delay: Duration,
}

impl Breaker {
    /// Opens after 5 failures, asks again after 1 s, and later after twice as long
    /// each time, up to 30 s.
    pub const fn new() -> Self {
        Self { failures: 5, delay: Duration::from_secs(1), longest_delay: Duration::from_secs(30) }
    }

    /// How many failures in a row open it, 1 at least. A lost reply that is asked
    /// for twice in vain counts as two.
    pub const fn failures(mut self, failures: u32) -> Self {
        self.failures = if failures == 0 { 1 } else { failures };
        self
    }

    /// After what time an open breaker lets a call through, and after what time
    /// at most, since the time doubles with each such call that fails.
    pub const fn delay(mut self, first: Duration, longest: Duration) -> Self {
        self.delay = first;
        self.longest_delay = longest;
        self
    }

    fn next_delay(&self, delay: Duration) -> Duration {
        delay.saturating_mul(2).min(self.longest_delay)
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self::new()
    }
}

/// A circuit breaker at work.
///
/// Results count only for the *turn* in which their call was permitted. A turn ends
/// when the circuit opens, closes, or lets a probe through, so what was asked
/// long ago says nothing about now.
#[derive(Debug)]
pub(super) struct Circuit {
    settings: Breaker,
    state: State,
    turn: u64,
    openings: u64,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open(Open),
}

#[derive(Debug)]
struct Open {
    since: Timestamp,
    /// When the store failed last, or was given to a probe.
    asked_at: Timestamp,
    /// How long after that the next probe may follow.
    wait: Duration,
    /// What `wait` is between probes.
    delay: Duration,
    last: StoreError,
}

/// The right to ask the store once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permit {
    turn: u64,
}

/// Why a store was not asked.
#[derive(Debug, thiserror::Error)]
#[error("it has failed again and again and is left alone; asked again in {retry_in:?}")]
struct LeftAlone {
    retry_in: Duration,
    #[source]
    last: StoreError,
}

impl Circuit {
    pub(super) fn new(settings: Breaker) -> Self {
        Self { settings, state: State::Closed { failures: 0 }, turn: 0, openings: 0 }
    }

    /// The right to ask the store, or an error that says when there will be one.
    pub(super) fn permit(&mut self, now: Timestamp) -> Result<Permit, StoreError> {
        if let State::Open(open) = &mut self.state {
            if !open.is_due(now) {
                return Err(open.left_alone(now));
            }
            // A probe that never reports does not keep others away for good.
            open.asked_at = now;
            open.wait = self.settings.longest_delay;
            self.turn += 1;
        }
        Ok(Permit { turn: self.turn })
    }

    /// The right to ask the store, unless it is being left alone: no probe.
    pub(super) fn permit_if_closed(&self) -> Option<Permit> {
        matches!(self.state, State::Closed { .. }).then_some(Permit { turn: self.turn })
    }

    /// The store answered.
    pub(super) fn succeeded(&mut self, permit: Permit) {
        if permit.turn != self.turn {
            return;
        }
        if matches!(self.state, State::Open(_)) {
            self.turn += 1;
        }
        self.state = State::Closed { failures: 0 };
    }

    /// The store failed.
    pub(super) fn failed(&mut self, permit: Permit, error: &StoreError, now: Timestamp) {
        if permit.turn != self.turn {
            return;
        }
        match &mut self.state {
            State::Closed { failures } if *failures + 1 < self.settings.failures => *failures += 1,
            State::Closed { .. } => {
                let delay = self.settings.delay;
                let last = error.clone();
                self.state =
                    State::Open(Open { since: now, asked_at: now, wait: delay, delay, last });
                self.turn += 1;
                self.openings += 1;
            }
            State::Open(open) => {
                open.delay = self.settings.next_delay(open.delay);
                (open.asked_at, open.wait) = (now, open.delay);
                open.last = error.clone();
                self.turn += 1;
            }
        }
    }

    /// Nobody will say how it ended: if it was a probe, another may follow at once.
    pub(super) fn abandoned(&mut self, permit: Permit) {
        if let State::Open(open) = &mut self.state
            && permit.turn == self.turn
        {
            open.wait = Duration::ZERO;
        }
    }

    /// Since when the store is left alone, and how it failed last; `None`: it is
    /// not.
    pub(super) fn open(&self) -> Option<(Timestamp, StoreErrorKind)> {
        match &self.state {
            State::Closed { .. } => None,
            State::Open(open) => Some((open.since, open.last.kind())),
        }
    }

    pub(super) const fn openings(&self) -> u64 {
        self.openings
    }
}

impl Open {
    /// A clock that went back makes a probe due: when it was last asked is
    /// unknown then.
    fn is_due(&self, now: Timestamp) -> bool {
        now < self.asked_at || now >= self.asked_at.saturating_add(self.wait)
    }

    fn left_alone(&self, now: Timestamp) -> StoreError {
        let due = self.asked_at.saturating_add(self.wait);
        let micros = due.as_micros().saturating_sub(now.as_micros());
        let retry_in = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        let cause = LeftAlone { retry_in, last: self.last.clone() };
        StoreError::new(StoreErrorKind::Unavailable, cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error;

    const SETTINGS: Breaker =
        Breaker::new().failures(3).delay(Duration::from_secs(1), Duration::from_secs(3));

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn error() -> StoreError {
        StoreError::new(StoreErrorKind::Timeout, "no reply")
    }

    fn fail(circuit: &mut Circuit, seconds: i64) {
        let permit = circuit.permit(at(seconds)).unwrap();
        circuit.failed(permit, &error(), at(seconds));
    }

    fn opened() -> Circuit {
        let mut circuit = Circuit::new(SETTINGS);
        (0..3).for_each(|_| fail(&mut circuit, 0));
        circuit
    }

    #[test]
    fn so_many_failures_in_a_row_open_it() {
        let mut circuit = Circuit::new(SETTINGS);
        fail(&mut circuit, 0);
        fail(&mut circuit, 0);
        let permit = circuit.permit(at(0)).unwrap();
        circuit.succeeded(permit);
        fail(&mut circuit, 0);
        fail(&mut circuit, 0);
        assert_eq!(circuit.open(), None);
        fail(&mut circuit, 0);
        assert_eq!(circuit.open(), Some((at(0), StoreErrorKind::Timeout)));
        assert_eq!(circuit.openings(), 1);
        assert!(circuit.permit_if_closed().is_none());
    }

    #[test]
    fn an_open_one_says_why_and_until_when() {
        let refusal = opened().permit(at(0)).unwrap_err();
        assert_eq!(refusal.kind(), StoreErrorKind::Unavailable);
        let cause = refusal.source().unwrap();
        assert!(cause.to_string().ends_with("asked again in 1s"), "{cause}");
        assert_eq!(cause.source().unwrap().to_string(), error().to_string());
    }

    #[test]
    fn one_probe_at_a_time_and_each_later_than_the_last() {
        let mut circuit = opened();
        for (begins, ends) in [(1, 1), (3, 4), (7, 7)] {
            assert!(circuit.permit(at(begins - 1)).is_err(), "before {begins}");
            let probe = circuit.permit(at(begins)).unwrap();
            assert!(circuit.permit(at(begins)).is_err(), "two probes at {begins}");
            circuit.failed(probe, &error(), at(ends));
        }
        // The delay is at its longest.
        assert!(circuit.permit(at(9)).is_err());
        let probe = circuit.permit(at(10)).unwrap();
        circuit.succeeded(probe);
        assert_eq!(circuit.open(), None);
        assert_eq!(circuit.openings(), 1);
        // The next time it starts over.
        (0..3).for_each(|_| fail(&mut circuit, 20));
        assert!(circuit.permit(at(21)).is_ok());
    }

    #[test]
    fn a_probe_that_is_given_up_or_lost_lets_the_next_one_through() {
        let mut circuit = opened();
        let given_up = circuit.permit(at(1)).unwrap();
        circuit.abandoned(given_up);
        let lost = circuit.permit(at(1)).unwrap();
        assert!(circuit.permit(at(3)).is_err());
        let next = circuit.permit(at(4)).unwrap();
        circuit.abandoned(lost);
        assert!(circuit.permit(at(4)).is_err(), "a lost probe gave up the next one's place");
        circuit.succeeded(lost);
        assert!(circuit.open().is_some());
        circuit.succeeded(next);
        assert!(circuit.open().is_none());
    }

    #[test]
    fn late_results_count_for_nothing() {
        let mut circuit = Circuit::new(SETTINGS);
        let early = circuit.permit(at(0)).unwrap();
        (0..3).for_each(|_| fail(&mut circuit, 0));
        circuit.succeeded(early);
        circuit.abandoned(early);
        assert!(circuit.permit(at(0)).is_err());
        let probe = circuit.permit(at(1)).unwrap();
        circuit.succeeded(probe);
        (0..5).for_each(|_| circuit.failed(early, &error(), at(1)));
        assert_eq!(circuit.open(), None);
    }

    #[test]
    fn a_clock_that_goes_back_makes_a_probe_due_once() {
        let mut circuit = opened();
        let probe = circuit.permit(at(-1_000)).unwrap();
        assert!(circuit.permit(at(-1_000)).is_err());
        circuit.failed(probe, &error(), at(-1_000));
        assert!(circuit.permit(at(-999)).is_err());
        assert!(circuit.permit(at(-998)).is_ok());
    }
}
