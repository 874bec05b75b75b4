//! Through what threads share memory: the standard library's atomics and
//! `parking_lot`'s mutex.
//!
//! Built with `--cfg loom` they are loom's twins, which its model checker can
//! put into every order that the memory model allows; `scripts/models` does.

#[cfg(not(loom))]
pub(crate) use parking_lot::{Mutex, MutexGuard};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic;

#[cfg(loom)]
pub(crate) use loom::sync::{MutexGuard, atomic};

/// loom's mutex with the face of `parking_lot`'s.
#[cfg(loom)]
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(loom)]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("a model ends with its first panic")
    }
}
