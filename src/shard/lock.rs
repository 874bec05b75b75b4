//! The lock of a shard.
//!
//! A shard's lock is taken for some fifty nanoseconds and hardly ever found
//! taken, so what counts is the way in and out: one atomic exchange in, and a
//! plain store out. (An unlock that exchanges, to learn of waiters, costs as
//! much again as the lock.)
//!
//! A plain store can be overtaken by the look for waiters that follows it: a
//! waiter may announce itself and still find the lock taken, while the holder,
//! leaving, does not see it. So waiters spin for a while, then sleep, and are
//! woken if they are seen; one that was missed wakes by itself after
//! [`LONGEST_SLEEP`].

#![expect(unsafe_code, reason = "the contract of `RawMutex`")]

use parking_lot::lock_api::{GuardNoSend, Mutex, MutexGuard, RawMutex};
use parking_lot_core::{DEFAULT_PARK_TOKEN, DEFAULT_UNPARK_TOKEN, SpinWait};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A value under a [`RawLock`].
pub(super) type Lock<T> = Mutex<RawLock, T>;

/// Holds the lock.
pub(super) type Guard<'a, T> = MutexGuard<'a, RawLock, T>;

/// How long a waiter sleeps that nobody has seen.
const LONGEST_SLEEP: Duration = Duration::from_millis(1);

/// Whether the lock is held, and how many sleep until it is not.
pub(super) struct RawLock {
    is_held: AtomicBool,
    sleepers: AtomicU32,
}

// SAFETY: only the thread whose exchange found `is_held` false has the lock,
// until it stores false again. Acquire and Release make what it did in between
// known to the next.
unsafe impl RawMutex for RawLock {
    const INIT: Self = Self { is_held: AtomicBool::new(false), sleepers: AtomicU32::new(0) };

    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock(&self) {
        if !self.try_lock() {
            self.wait_and_lock();
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        !self.is_held.swap(true, Ordering::Acquire)
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.is_held.store(false, Ordering::Release);
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            self.wake_one();
        }
    }
}

impl RawLock {
    #[cold]
    fn wait_and_lock(&self) {
        let mut spin = SpinWait::new();
        while self.is_held.load(Ordering::Relaxed) || !self.try_lock() {
            if !spin.spin() {
                self.sleep();
                spin.reset();
            }
        }
    }

    /// Sleeps until woken, or for `LONGEST_SLEEP`; not at all if the lock is
    /// free.
    fn sleep(&self) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let is_held = || self.is_held.load(Ordering::SeqCst);
        let until = Instant::now() + LONGEST_SLEEP;
        // SAFETY: the key is this lock's own address, and the closures call
        // neither into the parking lot nor panic.
        unsafe {
            parking_lot_core::park(
                self.address(),
                is_held,
                || {},
                |_, _| {},
                DEFAULT_PARK_TOKEN,
                Some(until),
            );
        }
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
    }

    #[cold]
    fn wake_one(&self) {
        // SAFETY: as above.
        unsafe { parking_lot_core::unpark_one(self.address(), |_| DEFAULT_UNPARK_TOKEN) };
    }

    fn address(&self) -> usize {
        (&raw const *self).addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn one_holder_at_a_time() {
        let lock = Lock::new(0_u64);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for turn in 0..20_000 {
                        let mut held = lock.lock();
                        let before = *held;
                        if turn % 1_000 == 0 {
                            thread::yield_now();
                        }
                        *held = before + 1;
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), 160_000);
    }

    #[test]
    fn a_sleeper_wakes_however_long_the_lock_is_held() {
        let lock = Lock::new(());
        thread::scope(|scope| {
            let held = lock.lock();
            let waiters: Vec<_> = (0..4).map(|_| scope.spawn(|| drop(lock.lock()))).collect();
            thread::sleep(Duration::from_millis(20));
            drop(held);
            for waiter in waiters {
                waiter.join().expect("no panic");
            }
        });
        assert!(lock.try_lock().is_some());
    }
}
