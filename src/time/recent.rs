//! A clock reading that serves for the next few microseconds.
//!
//! A reading of the boot-time clock costs as much as a check whose line is in
//! the cache; the processor's time-stamp counter costs a fifth of that, and
//! tells whether the latest reading is still good.

#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "reads the time-stamp counter"))]

use crate::sync::atomic::{AtomicI64, AtomicU64, Ordering, fence};

/// For how many ticks of the counter a reading serves: 8 to 16 microseconds on
/// processors of 2 to 4 GHz, some tens of readings in a loop of single checks.
const SERVES_FOR: u64 = 1 << 15;

/// In place of ticks: there is no reading yet.
const NONE: u64 = 0;
/// In place of ticks: the reading is being replaced. Neither is recent.
const REPLACING: u64 = 1;

/// The latest reading, and the counter just before it.
///
/// A lock that nobody waits for: who finds the reading too old, and is first to
/// say so, replaces it; others read the clock for themselves meanwhile.
#[derive(Debug)]
pub(super) struct Recent {
    has_steady_ticks: bool,
    ticks: AtomicU64,
    micros: AtomicI64,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self {
            has_steady_ticks: has_steady_ticks(),
            ticks: AtomicU64::new(NONE),
            micros: AtomicI64::new(0),
        }
    }

    /// The latest reading if it is recent, else one that `read` makes.
    #[inline]
    pub(super) fn or_read(&self, read: impl FnOnce() -> i64) -> i64 {
        if self.has_steady_ticks { self.at(ticks(), read) } else { read() }
    }

    #[inline]
    fn at(&self, now: u64, read: impl FnOnce() -> i64) -> i64 {
        // Acquire: the reading of these ticks is there, or a later one.
        let then = self.ticks.load(Ordering::Acquire);
        if now.wrapping_sub(then) < SERVES_FOR {
            let micros = self.micros.load(Ordering::Relaxed);
            // If that is a later reading, its `NONE` is seen below.
            fence(Ordering::Acquire);
            if self.ticks.load(Ordering::Relaxed) == then {
                return micros;
            }
        }
        self.replace(then, now, read())
    }

    #[cold]
    fn replace(&self, then: u64, now: u64, micros: i64) -> i64 {
        let (taken, relaxed) = (REPLACING, Ordering::Relaxed);
        if then != taken && self.ticks.compare_exchange(then, taken, relaxed, relaxed).is_ok() {
            // Release: who sees the new reading sees that it was taken.
            fence(Ordering::Release);
            self.micros.store(micros, Ordering::Relaxed);
            self.ticks.store(now, Ordering::Release);
        }
        micros
    }
}

/// Does the processor have a time-stamp counter that goes on at one rate while
/// it sleeps? Else it says nothing about how long ago something was. (Intel,
/// Software Developer's Manual, volume 3, 18.17.1; AMD, Architecture
/// Programmer's Manual, volume 3, E.4.5.)
#[cfg(all(target_arch = "x86_64", not(loom)))]
fn has_steady_ticks() -> bool {
    use std::arch::x86_64::__cpuid;
    // SAFETY: every x86-64 processor has CPUID.
    #[allow(unused_unsafe, reason = "it was unsafe up to Rust 1.92")]
    unsafe {
        __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx >> 8 & 1 == 1
    }
}

/// The time-stamp counter. Not in order with other instructions, which is what
/// makes it cheap.
#[cfg(all(target_arch = "x86_64", not(loom)))]
#[inline]
fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has this counter.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(any(not(target_arch = "x86_64"), loom))]
fn has_steady_ticks() -> bool {
    false
}

#[cfg(any(not(target_arch = "x86_64"), loom))]
fn ticks() -> u64 {
    NONE
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_reading_serves_until_it_is_old() {
        let recent = Recent::new();
        let start = 1 << 40;
        assert_eq!(recent.at(start, || 7), 7);
        assert_eq!(recent.at(start + SERVES_FOR - 1, || unreachable!("still recent")), 7);
        assert_eq!(recent.at(start + SERVES_FOR, || 8), 8);
        assert_eq!(recent.at(start + SERVES_FOR + 1, || unreachable!("still recent")), 8);
    }

    #[test]
    fn a_counter_that_went_back_has_the_clock_read() {
        let recent = Recent::new();
        recent.at(1 << 40, || 7);
        assert_eq!(recent.at((1 << 40) - 1, || 8), 8);
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::thread;
    use std::sync::Arc;

    /// A thread that fell behind replaces a recent reading by an older one: who
    /// reads meanwhile gets one that is as young as its ticks say. (Without
    /// either fence this fails.)
    #[test]
    fn a_reading_is_never_older_than_its_ticks() {
        loom::model(|| {
            let recent = Arc::new(Recent::new());
            // The clock shows the ticks themselves.
            let read = |recent: &Recent, ticks: u64| recent.at(ticks, || ticks as i64);
            let now = 4 * SERVES_FOR;
            read(&recent, now);
            let late = Arc::clone(&recent);
            let late = thread::spawn(move || read(&late, now - 2 * SERVES_FOR));
            assert!(now - read(&recent, now) as u64 <= SERVES_FOR);
            late.join().unwrap();
        });
    }
}
