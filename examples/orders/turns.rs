//! One order of a customer's at a time.

use hapax::claim::{Claim, ClaimError, Gate, GateError, Identity, Lease};
use hapax::confirm::claims::{Digest, MemoryClaims};
use std::time::Duration;

/// Longer than an order takes. A turn is given back when it is dropped, and only one that is
/// not, because its task hangs, ends so.
const LEASE: Duration = Duration::from_secs(10);

/// Who is having a turn, in this process: a fast lock, and a limit on what one customer
/// may take up.
pub(crate) struct Turns(Gate<MemoryClaims>);

/// Until it is dropped.
pub(crate) type Turn = Lease<MemoryClaims>;

impl Turns {
    pub(crate) fn new() -> Result<Self, GateError> {
        // A turn has no outcome: there is nothing to remember.
        Gate::builder(MemoryClaims::new()).lease(LEASE).keep(LEASE).remember(0).build().map(Self)
    }

    /// The customer's turn; `None` while he is having one.
    pub(crate) fn take(&self, customer: &str) -> Result<Option<Turn>, ClaimError> {
        let id = Identity::new(customer, "turn", "");
        match self.0.claim(&id, Digest::of(b""))? {
            Claim::Granted(turn) => Ok(Some(turn)),
            Claim::InFlight(_) | Claim::Replay(_) | Claim::Mismatch => Ok(None),
        }
    }
}
