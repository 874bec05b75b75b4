//! Guarantee 7: where the system gives no more memory, a check is a typed error
//! that records nothing, whatever the policy at the limit. In a process of its
//! own, with little address space.

#![cfg(target_os = "linux")]

use hapax::{CheckError, Deduper, Mode, OnFull, Verdict, Window};
use std::process::Command;

/// Far beyond the address space that the tests have.
const LIMIT: u64 = 1 << 40;

/// So long that it is the memory of keys that gives out.
fn key(number: u32) -> Vec<u8> {
    let mut key = vec![b'.'; 60_000];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

#[test]
#[ignore = "needs little address space: run by the test below"]
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

#[test]
fn a_check_ends_when_the_system_gives_no_more_memory() {
    let test = std::env::current_exe().unwrap();
    let name = "fill_until_the_system_refuses";
    let script = format!("ulimit -v 250000; exec timeout 60 \"$0\" --exact {name} --ignored");
    let status = Command::new("sh").arg("-c").arg(script).arg(test).status().unwrap();
    assert!(status.success(), "{status}: 124 is a check that never ends");
}
