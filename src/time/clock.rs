//! Where processing time comes from.

use super::Timestamp;
use super::recent::Recent;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// A source of processing time.
///
/// It may stand still, and it may go back: the engine never lets its own time
/// go back with it. It must not block; it is read once per check or batch.
pub trait Clock: Send + Sync {
    /// The present time.
    fn now(&self) -> Timestamp;
}

/// The wall clock read once, when made, and the boot-time clock from then on.
///
/// Later jumps of the wall clock do not reach it, and it goes on counting
/// while the machine sleeps (`CLOCK_BOOTTIME`; elsewhere than on Linux and
/// Android, the standard library's monotonic clock).
///
/// On x86-64 a reading serves for up to 2^15 ticks of the time-stamp counter,
/// some ten microseconds: so much older than the call can it be.
pub struct SystemClock {
    wall_at_start: Timestamp,
    boot_at_start: Boot,
    recent: Recent,
}

impl SystemClock {
    /// Reads both clocks once.
    pub fn new() -> Self {
        Self {
            wall_at_start: Timestamp::from(SystemTime::now()),
            boot_at_start: Boot::now(),
            recent: Recent::new(),
        }
    }

    fn read(&self) -> i64 {
        let elapsed = self.boot_at_start.elapsed_micros();
        self.wall_at_start.as_micros().saturating_add(elapsed)
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.recent.or_read(|| self.read()))
    }
}

impl fmt::Debug for SystemClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemClock")
            .field("wall_at_start", &self.wall_at_start)
            .finish_non_exhaustive()
    }
}

/// A reading of the clock that counts since boot, sleep included.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[derive(Clone, Copy)]
struct Boot(rustix::time::Timespec);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Boot {
    fn now() -> Self {
        Self(rustix::time::clock_gettime(rustix::time::ClockId::Boottime))
    }

    fn elapsed_micros(self) -> i64 {
        let now = Self::now().0;
        let micros =
            (now.tv_sec - self.0.tv_sec) * 1_000_000 + (now.tv_nsec - self.0.tv_nsec) / 1_000;
        micros.max(0)
    }
}

/// A reading of the monotonic clock, where no boot-time clock is known.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[derive(Clone, Copy)]
struct Boot(std::time::Instant);

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Boot {
    fn now() -> Self {
        Self(std::time::Instant::now())
    }

    fn elapsed_micros(self) -> i64 {
        i64::try_from(self.0.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}

/// A clock that moves only when told: for tests and simulations.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `start`.
    pub const fn new(start: Timestamp) -> Self {
        Self(AtomicI64::new(start.as_micros()))
    }

    /// Shows `time` from now on; earlier than before is allowed.
    pub fn set(&self, time: Timestamp) {
        // Release, with the Acquire of `now`: what the setter did before
        // turning the clock is visible to whoever reads the new time.
        self.0.store(time.as_micros(), Ordering::Release);
    }

    /// Moves on by `span`.
    pub fn advance(&self, span: Duration) {
        self.set(self.now().saturating_add(span));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        // Acquire, with the Release of `set`.
        Timestamp::from_micros(self.0.load(Ordering::Acquire))
    }
}

impl<C: Clock + ?Sized> Clock for std::sync::Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_starts_at_the_wall_clock_and_never_goes_back() {
        let before = Timestamp::from(SystemTime::now());
        let clock = SystemClock::new();
        let first = clock.now();
        assert!(first >= before);
        assert!(clock.now() >= first);
    }

    #[test]
    fn a_manual_clock_shows_what_it_was_told() {
        let clock = ManualClock::new(Timestamp::from_secs(5));
        clock.advance(Duration::from_secs(2));
        assert_eq!(clock.now(), Timestamp::from_secs(7));
        clock.set(Timestamp::from_secs(1));
        assert_eq!(clock.now(), Timestamp::from_secs(1));
    }
}
