//! What becomes of messages, counted.

use super::{Consumed, Retry};
use crate::claim::stats::counts;

/// What has become of messages since the consumer was built, in this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// Messages that were worked on, and their outcomes kept.
    pub done: u64,
    /// Messages that had been worked on before.
    pub replayed: u64,
    /// Messages handed back because somebody else was at them.
    pub in_flight: u64,
    /// Messages handed back because their handler failed.
    pub failed: u64,
    /// Messages handed back because of the store: not claimed, or not settled.
    pub unsettled: u64,
    /// Messages that will not be worked on.
    pub dead: u64,
    /// Messages, counted above too, whose broker could not be told.
    pub unanswered: u64,
}

counts!(
    Counts => ConsumerStats: done, replayed, in_flight, failed, unsettled, dead, unanswered
);

impl Counts {
    pub(super) fn count<E>(&self, consumed: &Consumed<E>) {
        match consumed {
            Consumed::Done(_) => &self.done,
            Consumed::Replayed(_) => &self.replayed,
            Consumed::Retried { reason: Retry::InFlight(_), .. } => &self.in_flight,
            Consumed::Retried { reason: Retry::Failed(_), .. } => &self.failed,
            Consumed::Retried { reason: Retry::Unclaimed(_) | Retry::Unsettled(_), .. } => {
                &self.unsettled
            }
            Consumed::Dead(_) => &self.dead,
        }
        .add(1);
    }
}
