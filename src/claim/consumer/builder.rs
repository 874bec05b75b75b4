//! Setting up a consumer.

use super::Consumer;
use crate::claim::Gate;
use std::time::Duration;
use thiserror::Error;

/// How often a message is tried unless told: as often as Azure Service Bus delivers one.
const ATTEMPTS: u32 = 10;

/// The first and the longest delay of a retry unless told: with them ten attempts take
/// four minutes.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Unless told, a third of the 30 s after which NATS and SQS deliver a message again.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Sets up a [`Consumer`].
#[derive(Clone, Debug)]
#[must_use = "nothing is built until `build`"]
pub struct ConsumerBuilder<S> {
    gate: Gate<S>,
    scope: Vec<u8>,
    settings: Settings,
}

/// How often and when messages are tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) attempts: u32,
    pub(super) heartbeat: Duration,
    first_retry: Duration,
    longest_retry: Duration,
}

/// Why a consumer cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// A message that may not be tried is never worked on.
    #[error("no message may be tried even once: allow at least one attempt")]
    NoAttempts,
    /// Attempts are forgotten a lease after the last one ended.
    #[error(
        "a retry after {retry:?} comes when attempts are forgotten, a lease of {lease:?} after \
         the last: retry sooner, or make the gate's lease longer"
    )]
    RetryTooLate {
        /// The longest delay asked for.
        retry: Duration,
        /// The gate's lease.
        lease: Duration,
    },
    /// Heartbeats must come before a lease ends, and not all the time.
    #[error(
        "a heartbeat every {heartbeat:?} does not keep a lease of {lease:?}: make it half the \
         lease at most, and more than nothing"
    )]
    Heartbeat {
        /// The time between heartbeats asked for.
        heartbeat: Duration,
        /// The gate's lease.
        lease: Duration,
    },
}

impl<S> ConsumerBuilder<S> {
    pub(super) fn new(gate: Gate<S>, scope: Vec<u8>) -> Self {
        let lease = gate.terms().lease;
        let longest_retry = LONGEST_RETRY.min(lease / 2);
        let settings = Settings {
            attempts: ATTEMPTS,
            heartbeat: HEARTBEAT.min(lease / 3),
            first_retry: FIRST_RETRY.min(longest_retry),
            longest_retry,
        };
        Self { gate, scope, settings }
    }

    /// How often a message is tried at most, those attempts included of which nobody heard
    /// again; ten times unless told.
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.settings.attempts = attempts;
        self
    }

    /// After how long a message is to be delivered again: `first`, and twice as long each
    /// time, up to `longest`, which must be less than a lease; 1 s and 1 min unless told, or
    /// half a lease if that is less.
    pub const fn retry(mut self, first: Duration, longest: Duration) -> Self {
        self.settings.first_retry = first;
        self.settings.longest_retry = longest;
        self
    }

    /// How often the lease is extended, and the broker told, while a handler works;
    /// every 10 s unless told, or three times a lease if that is shorter. More often
    /// than the broker delivers again what it does not hear of.
    pub const fn heartbeat(mut self, every: Duration) -> Self {
        self.settings.heartbeat = every;
        self
    }

    /// Builds it.
    ///
    /// # Errors
    ///
    /// [`ConsumerError`] if no attempt is allowed, or times do not fit the gate's lease.
    pub fn build(self) -> Result<Consumer<S>, ConsumerError> {
        let Self { gate, scope, settings } = self;
        let Settings { attempts, heartbeat, longest_retry: retry, .. } = settings;
        let lease = gate.terms().lease;
        if attempts == 0 {
            return Err(ConsumerError::NoAttempts);
        }
        if retry >= lease {
            return Err(ConsumerError::RetryTooLate { retry, lease });
        }
        if heartbeat.is_zero() || heartbeat > lease / 2 {
            return Err(ConsumerError::Heartbeat { heartbeat, lease });
        }
        Ok(Consumer { gate, scope, settings, counts: Box::default() })
    }
}

impl Settings {
    /// When to deliver a message again of which an attempt failed.
    pub(super) fn retry(&self, attempt: u32) -> Duration {
        let factor = 2_u32.saturating_pow(attempt.saturating_sub(1));
        self.first_retry.saturating_mul(factor).min(self.longest_retry)
    }

    /// When to deliver a message again that may be taken over after `remaining`.
    pub(super) fn retry_in_flight(&self, remaining: Duration) -> Duration {
        remaining.min(self.longest_retry)
    }
}
