//! While its primary is well, a guarded store is as good as it; and a lost reply, or a
//! primary that is away, is one of its own under `Reject`.

use super::stage::{Mood, Moody};
use crate::confirm::StoreError;
use crate::confirm::claims::{ClaimStore, Guarded, MemoryClaims};
use crate::confirm::conformance::{ClaimHarness, Trouble, check_claims};
use crate::confirm::outage::{Admit, Breaker, Fallback, Outage, Reject};
use crate::time::{ManualClock, Timestamp};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Guarded stores over one primary for each namespace.
struct Harness<P> {
    clock: Arc<ManualClock>,
    primaries: Mutex<HashMap<String, Moody>>,
    policy: fn(Arc<ManualClock>) -> P,
    /// Whether what happens to the primary is the caller's to hear.
    is_heard: bool,
}

impl<P> Harness<P> {
    fn new(policy: fn(Arc<ManualClock>) -> P, is_heard: bool) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_790_000_000)));
        Self { clock, primaries: Mutex::default(), policy, is_heard }
    }

    fn each(&self, act: impl Fn(&Moody)) -> bool {
        if self.is_heard {
            self.primaries.lock().values().for_each(act);
        }
        self.is_heard
    }
}

impl<P: Outage<Instead: ClaimStore>> ClaimHarness for Harness<P> {
    type Store = Guarded<Moody, P>;

    fn open(&self, namespace: &str) -> Result<Self::Store, StoreError> {
        let clock = &self.clock;
        let mut primaries = self.primaries.lock();
        let primary = primaries
            .entry(namespace.to_owned())
            .or_insert_with(|| Moody::new(clock.clone()))
            .clone();
        let breaker = Breaker::new().failures(1_000);
        Ok(Guarded::with(primary, (self.policy)(clock.clone()), breaker, clock.clone()))
    }

    fn clock(&self) -> Option<&ManualClock> {
        Some(&self.clock)
    }

    fn trouble(&self) -> &dyn Trouble {
        self
    }
}

impl<P: Outage<Instead: ClaimStore>> Trouble for Harness<P> {
    fn lose_next_reply(&self) -> bool {
        self.each(|primary| primary.next([Mood::Lost]))
    }

    fn cut_off(&self) -> bool {
        self.each(|primary| primary.is(Mood::DOWN))
    }

    fn reconnect(&self) {
        self.each(|primary| primary.is(Mood::Well));
    }
}

#[test]
fn a_guarded_store_keeps_the_contract() {
    check_claims(&Harness::new(|_| Reject, true)).assert();
    check_claims(&Harness::new(|_| Admit, false)).assert();
    let fallback = |clock: Arc<ManualClock>| Fallback::new(MemoryClaims::with_clock(clock));
    check_claims(&Harness::new(fallback, false)).assert();
}
