//! The time that peers store with a key.

use super::SPAN;
use std::time::Instant;

/// How often an engine reads the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    PerBatch,
    PerKey,
}

/// Seconds since the engine was made: small, so that peers store little.
pub(super) type Stamp = u32;

/// A clock that gives stamps.
#[derive(Debug)]
pub(super) struct Stamps {
    started: Instant,
}

impl Stamps {
    pub(super) fn new() -> Self {
        Self { started: Instant::now() }
    }

    #[inline]
    pub(super) fn now(&self) -> Stamp {
        self.started.elapsed().as_secs() as Stamp
    }
}

/// Whether a key recorded at `recorded` is still in the window at `now`.
#[inline]
pub(super) const fn is_within(recorded: Stamp, now: Stamp) -> bool {
    now.saturating_sub(recorded) <= SPAN.as_secs() as Stamp
}

/// Whether a key recorded at `recorded` is still in the window at `now`; one
/// that is not is recorded anew.
#[inline]
pub(super) const fn is_known(recorded: &mut Stamp, now: Stamp) -> bool {
    let is_known = is_within(*recorded, now);
    if !is_known {
        *recorded = now;
    }
    is_known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_expires_after_the_span_and_is_recorded_anew() {
        let span = SPAN.as_secs() as Stamp;
        let mut recorded = 5;
        assert!(is_known(&mut recorded, 5 + span));
        assert!(!is_known(&mut recorded, 6 + span));
        assert_eq!(recorded, 6 + span);
    }
}
