//! Guarantee 7: where the system gives no more memory, a check is a typed error
//! that records nothing, whatever the policy at the limit. In a process of its
//! own, with little address space.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use hapax::{CheckError, Deduper, Mode, OnFull, Verdict, Window};
use std::process::Command;

/// Set in the process that has little address space.
const IS_CONFINED: &str = "HAPAX_TEST_IS_CONFINED";

/// Far beyond the address space that the tests have.
const LIMIT: u64 = 1 << 40;

/// So long that it is the memory of keys that gives out.
fn key(number: u32) -> Vec<u8> {
    let mut key = vec![b'.'; 60_000];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Runs itself again with little address space.
#[test]
fn a_check_ends_when_the_system_gives_no_more_memory() {
    if std::env::var_os(IS_CONFINED).is_some() {
        return fill_until_the_system_refuses();
    }
    let test = std::env::current_exe().unwrap();
    let script = "ulimit -v 250000; exec timeout 60 \"$0\"";
    let status = Command::new("sh").args(["-c", script]).arg(test).env(IS_CONFINED, "1").status();
    let status = status.unwrap();
    assert!(status.success(), "{status}: 124 is a check that never ends");
}

fn fill_until_the_system_refuses() {
    for on_full in [OnFull::Reject, OnFull::EvictOldest] {
        let dedup = Deduper::builder(Window::unbounded())
            .mode(Mode::verified())
            .capacity(1)
            .memory_limit(LIMIT, on_full)
            .build()
            .unwrap();
        let refused = (0..10_000).find(|number| dedup.check(&key(*number)).is_err()).unwrap();
        assert_eq!(dedup.check(&key(refused)), Err(CheckError::OutOfMemory));
        assert_eq!(dedup.contains(&key(refused)), Ok(false));
        for number in 0..refused {
            assert_eq!(dedup.check(&key(number)), Ok(Verdict::Duplicate));
        }
        assert_eq!(dedup.stats().evicted, 0);
    }
}
