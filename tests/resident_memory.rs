//! Guarantee 5, as the operating system sees it: the resident memory of a
//! whole process under a flood. One test, in a process of its own, so that
//! nothing else allocates meanwhile.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use hapax::{Deduper, ManualClock, Mode, OnFull, Timestamp, Verdict, Window};
use std::sync::Arc;
use std::time::Duration;

const LIMIT: u64 = 32 << 20;
const SLACK: u64 = LIMIT / 20;
const SPAN: Duration = Duration::from_secs(600);

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1_024
}

/// Checks half as many new keys again as the limit has room for, over four buckets,
/// and gives the highest resident memory on the way.
fn flood(dedup: &Deduper, clock: &ManualClock, mode: Mode) -> u64 {
    let bytes_per_key = if mode == Mode::verified() { 36 } else { 14 };
    let count = 3 * LIMIT / bytes_per_key / 2;
    let mut highest = 0;
    let mut verdicts = [Verdict::Late; 4_096];
    for batch in 0..count / 4_096 {
        let number = |index: usize| u128::from(batch * 4_096 + index as u64).to_be_bytes();
        let keys: [_; 4_096] = std::array::from_fn(number);
        // Full under `Reject`: then the flood goes on against a closed door.
        let _ = dedup.check_batch(&keys, &mut verdicts);
        highest = highest.max(resident_bytes());
        if batch % (count / 4_096 / 4) == 0 {
            clock.advance(SPAN / 8);
        }
    }
    highest
}

fn flood_and_expire(mode: Mode, on_full: OnFull) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_790_000_000)));
    let before = resident_bytes();
    let dedup = Deduper::builder(Window::fixed(SPAN))
        .mode(mode)
        .memory_limit(LIMIT, on_full)
        .clock(Arc::clone(&clock))
        .build()
        .unwrap();
    let highest = flood(&dedup, &clock, mode) - before;
    assert!(highest > LIMIT / 2, "{highest} bytes: the flood did not fill the limit");
    assert!(highest <= LIMIT + SLACK, "{highest} bytes, {mode:?}, {on_full:?}");

    clock.advance(2 * SPAN);
    while !dedup.maintain(Duration::from_secs(1)) {}
    let after = resident_bytes().saturating_sub(before);
    assert!(after < highest / 4, "{after} of {highest} bytes kept, {mode:?}, {on_full:?}");
}

#[test]
fn a_flood_stays_within_the_limit_and_is_given_back() {
    for on_full in [OnFull::Reject, OnFull::EvictOldest] {
        flood_and_expire(Mode::fingerprint(), on_full);
        flood_and_expire(Mode::verified(), on_full);
    }
}
