//! Waiting for somebody else's claim.

use ahash::RandomState;
use event_listener::{Event, EventListener};
use std::time::{Duration, Instant};

/// The first pause before a store is asked again, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Keys share so many events: a wake-up too many costs one question to the store.
const EVENTS: usize = 64;

/// Tells those who wait in this process that a key was settled.
pub(super) struct Freed {
    events: [Event; EVENTS],
    hasher: RandomState,
}

impl Freed {
    /// Hears of all settlements of a key from now on.
    pub(super) fn listen(&self, id: &[u8]) -> EventListener {
        self.event(id).listen()
    }

    pub(super) fn notify(&self, id: &[u8]) {
        self.event(id).notify(usize::MAX);
    }

    fn event(&self, id: &[u8]) -> &Event {
        &self.events[self.hasher.hash_one(id) as usize % EVENTS]
    }
}

impl Default for Freed {
    fn default() -> Self {
        Self { events: std::array::from_fn(|_| Event::new()), hasher: RandomState::new() }
    }
}

/// How long somebody is still ready to wait.
pub(super) struct Patience {
    start: Instant,
    limit: Duration,
    pause: Duration,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self { start: Instant::now(), limit, pause: FIRST_PAUSE }
    }

    /// How long they are still ready to, in all.
    pub(super) fn left(&self) -> Duration {
        self.limit.saturating_sub(self.start.elapsed())
    }

    /// How long to wait before asking again, for a key that may be taken over after
    /// `remaining`; `None`: no longer.
    pub(super) fn pause(&mut self, remaining: Duration) -> Option<Duration> {
        let left = self.left();
        if left.is_zero() {
            return None;
        }
        let pause = self.pause.min(left).min(remaining.max(FIRST_PAUSE));
        self.pause = LONGEST_PAUSE.min(self.pause * 2);
        Some(pause)
    }
}
