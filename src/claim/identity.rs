//! What is claimed.

use crate::hash::composite;
use std::fmt;

/// What a claim is about: a key, of one tenant, in one scope.
///
/// A *tenant* never hears of another's claims, though both send the same key: a
/// customer's account, say. A *scope* is an operation: the same key for `POST /charges`
/// and for `POST /refunds` means two things.
///
/// ```
/// use hapax::claim::Identity;
///
/// let charge = Identity::new("acct-7", "POST /charges", "order-17");
/// assert_ne!(charge, Identity::new("acct-7", "POST /refunds", "order-17"));
/// assert_ne!(charge, Identity::new("acct-8", "POST /charges", "order-17"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Identity(Vec<u8>);

impl Identity {
    /// Of these parts, as [`composite`](crate::composite) encodes them. Allocates once.
    pub fn new(tenant: impl AsRef<[u8]>, scope: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        Self(composite(&[tenant.as_ref(), scope.as_ref(), key.as_ref()]))
    }

    /// As stores know it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity(\"{}\")", self.0.escape_ascii())
    }
}
