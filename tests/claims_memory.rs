//! What claims in memory take, as the operating system sees it. One test, in a process
//! of its own, so that nothing else allocates meanwhile.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use hapax::confirm::claims::{
    Answer, ClaimRequest, ClaimStore, Digest, MemoryClaims, Outcome, SettleRequest, Settlement,
    Terms,
};
use hapax::confirm::{StoreErrorKind, Token};
use hapax::{ManualClock, Timestamp};
use std::sync::Arc;
use std::time::Duration;

const LIMIT: usize = 64 << 20;
const SLACK: usize = LIMIT / 20;

const TERMS: Terms = Terms { lease: Duration::from_secs(300), keep: Duration::from_secs(3_600) };

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1_024
}

/// How a flood's claims end.
#[derive(Clone, Copy, Debug)]
enum End {
    Abandoned,
    Released,
    Completed { bytes: usize },
}

/// Claims new keys until there is no room for more; how many there was room for.
/// Beyond `before` the allocator kept `left` of what the flood before gave back.
fn flood(claims: &MemoryClaims, end: End, (before, left): (usize, usize)) -> usize {
    let token = Token::new(1);
    for number in 0.. {
        let id = u128::to_be_bytes(number as u128);
        let request = ClaimRequest { token, digest: Digest::from_bytes([0; 32]), terms: TERMS };
        match claims.claim(&id, &request) {
            Ok(answer) => assert!(matches!(answer, Answer::Granted(_))),
            Err(error) => {
                assert_eq!(error.kind(), StoreErrorKind::Full);
                return number;
            }
        }
        let outcome;
        let settlement = match end {
            End::Abandoned => None,
            End::Released => Some(Settlement::Release),
            End::Completed { bytes } => {
                outcome = Outcome::success(vec![0; bytes]);
                Some(Settlement::Complete(&outcome))
            }
        };
        if let Some(settlement) = settlement {
            claims.settle(&id, &SettleRequest { token, settlement, terms: TERMS }).unwrap();
        }
        let estimated = claims.memory_bytes();
        if number % 4_096 == 0 {
            let resident = resident_bytes() - before;
            let most = SLACK + if left == 0 { estimated } else { LIMIT };
            assert!(resident <= most, "{resident} bytes, estimated {estimated}, {end:?}");
        }
    }
    unreachable!("a flood without end")
}

#[test]
fn floods_stay_within_the_limit_and_each_uses_what_the_one_before_gave_back() {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_790_000_000)));
    let before = resident_bytes();
    let claims = MemoryClaims::with_clock(clock.clone()).memory_limit(LIMIT);
    let ends = [
        End::Abandoned,
        End::Released,
        End::Completed { bytes: 100 },
        End::Completed { bytes: 10_000 },
        End::Abandoned,
    ];
    let mut left = 0;
    for end in ends {
        let entries = flood(&claims, end, (before, left));
        let taken = resident_bytes() - before;
        println!("{end:?}: {entries} entries, {} bytes each", taken / entries);
        assert!(taken <= LIMIT + SLACK, "{taken} bytes, {end:?}");
        assert!(taken > LIMIT / 2, "{taken} bytes: the flood did not fill the limit, {end:?}");
        // Each entry once or twice: while it is held, and after.
        for _ in 0..2 {
            clock.advance(TERMS.lease + TERMS.keep);
            while claims.sweep().unwrap() {}
        }
        left = resident_bytes().saturating_sub(before);
        assert_eq!((claims.len(), claims.memory_bytes()), (0, 0));
    }
}
