//! What a consumer has to know of a message, and a handler of its turn.

use crate::claim::Lease;
use crate::confirm::claims::Fence;
use std::error::Error;
use std::future::{Future, ready};
use std::time::Duration;

/// A message as a broker's client delivers it, and the way back.
///
/// The broker must deliver again whatever is not acknowledged. Dropping a future of
/// these is like losing its reply.
pub trait Delivery: Sync {
    /// What goes wrong in telling the broker.
    type Error: Error + Send + Sync + 'static;

    /// What identifies the message: the same each time it is delivered, and also when its
    /// producer sends it twice.
    fn key(&self) -> &[u8];

    /// What it says. Another message with the same key is told from it by this.
    fn payload(&self) -> &[u8];

    /// Tells the broker that the message is done with.
    ///
    /// # Errors
    ///
    /// It may be delivered again.
    fn ack(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Hands the message back, to be delivered again after `delay`, or whenever the broker
    /// does so.
    ///
    /// # Errors
    ///
    /// It is delivered again when the broker finds that it was not acknowledged.
    fn nack(&self, delay: Duration) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Tells the broker, at each heartbeat, that the message is being worked on, so that
    /// it does not deliver it again meanwhile; by default nothing. Without it a long
    /// work has its message delivered again, which is handed back while it is in flight.
    ///
    /// # Errors
    ///
    /// The work goes on.
    fn progress(&self) -> impl Future<Output = Result<(), Self::Error>> + Send {
        ready(Ok(()))
    }
}

/// What a handler is told of its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The how manieth it is, from 1, since the message last came after none had for
    /// a lease's length.
    pub number: u32,
    /// True iff whoever had the message before was never heard of again: how much of the work
    /// was done nobody knows.
    pub is_takeover: bool,
    /// Larger than that of any handler before: for whoever the work writes to, to refuse
    /// those that come late.
    pub fence: Fence,
    /// False iff the store could not be asked, and the outage policy let the message
    /// through: another may be at it.
    pub is_confirmed: bool,
}

impl Attempt {
    pub(super) const fn of<S>(lease: &Lease<S>) -> Self {
        Self {
            number: lease.attempt(),
            is_takeover: lease.is_takeover(),
            fence: lease.fence(),
            is_confirmed: lease.is_confirmed(),
        }
    }
}
