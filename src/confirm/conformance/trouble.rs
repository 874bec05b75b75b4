//! What befalls a store while it is checked.

/// Makes trouble for the store of a harness. Checks that need what it has no means to do
/// are not run, and the report says so.
pub trait Trouble: Sync {
    /// Lets the next request that writes take effect, from any opened one, while its reply is
    /// lost. False without the means to.
    fn lose_next_reply(&self) -> bool {
        false
    }

    /// Cuts all that is open off from the store until [`reconnect`](Self::reconnect).
    /// False without the means to.
    fn cut_off(&self) -> bool {
        false
    }

    /// Ends what [`cut_off`](Self::cut_off) began.
    fn reconnect(&self) {}

    /// Stops the store, losing what it only held in memory, and starts it again, while
    /// nothing is open. False without the means to.
    fn restart(&self) -> bool {
        false
    }
}

/// Leaves a store in peace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peace;

impl Trouble for Peace {}
