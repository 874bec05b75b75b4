//! What claims come to, counted.

use crate::confirm::claims::Answer;

/// What claims have come to since the gate was built, in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GateStats {
    /// Claims that were granted.
    pub granted: u64,
    /// Of them, those whose holder before was never heard of again.
    pub taken_over: u64,
    /// Claims of finished keys.
    pub replayed: u64,
    /// Claims of keys that somebody else was at.
    pub in_flight: u64,
    /// Claims of keys that had come with another payload.
    pub mismatched: u64,
    /// Leases completed with a success.
    pub succeeded: u64,
    /// Leases completed with a failure that is kept.
    pub failed: u64,
    /// Outcomes that were too large to keep.
    pub tombstones: u64,
    /// Settlements that came too late: another had taken over.
    pub stale: u64,
}

/// Counts, and how they are read as statistics with the same fields.
macro_rules! counts {
    ($counts:ident => $stats:ident: $($name:ident),+) => {
        #[derive(Default)]
        pub(super) struct $counts {
            $(pub(super) $name: $crate::stats::StripedCounter),+
        }

        impl $counts {
            pub(super) fn read(&self) -> $stats {
                $stats { $($name: self.$name.sum()),+ }
            }
        }
    };
}

pub(super) use counts;

counts!(
    Counts => GateStats:
    granted, taken_over, replayed, in_flight, mismatched, succeeded, failed, tombstones, stale
);

impl Counts {
    /// What a claim has come to.
    pub(super) fn claimed(&self, answer: &Answer) {
        match answer {
            Answer::Granted(grant) | Answer::Unconfirmed(grant) => {
                self.granted.add(1);
                if grant.is_takeover {
                    self.taken_over.add(1);
                }
            }
            Answer::Finished(_) => self.replayed.add(1),
            Answer::InFlight { .. } => self.in_flight.add(1),
            Answer::Mismatch => self.mismatched.add(1),
        }
    }
}
