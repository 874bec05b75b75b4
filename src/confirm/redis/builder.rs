//! Setting up what keeps keys or claims in Redis.

use super::name::prefix;
use super::nodes::Nodes;
use super::{RedisConfirmer, within};
use crate::confirm::StoreError;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// Sets up a [`RedisConfirmer`], or, with the feature `claims`, `RedisClaims`.
#[must_use = "nothing is connected until `connect`"]
pub struct RedisBuilder<T = RedisConfirmer> {
    urls: Vec<String>,
    is_cluster: bool,
    namespace: String,
    timeout: Duration,
    retention: Option<Duration>,
    connects: PhantomData<fn() -> T>,
}

impl<T> RedisBuilder<T> {
    pub(super) fn server(url: impl Into<String>) -> Self {
        Self {
            urls: vec![url.into()],
            is_cluster: false,
            namespace: String::new(),
            timeout: Duration::from_secs(1),
            retention: None,
            connects: PhantomData,
        }
    }

    pub(super) fn cluster(urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let urls = urls.into_iter().map(Into::into).collect();
        Self { urls, is_cluster: true, ..Self::server("") }
    }

    /// Keeps these keys apart from those of other namespaces; the empty one
    /// unless told.
    ///
    /// In Redis a key's name is its namespace's length, the namespace and the key,
    /// as in `6:orders:order-17`; before a claim's stands `claim:`. In a cluster a
    /// namespace with a hash tag, such as `{orders}`, keeps all of its keys in one slot:
    /// one call for each batch, on one server.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// How long a call may take in all; one second unless told. Connecting, and
    /// each reply, may take half of it.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What keys are asked about with: servers that can be reached, what the names of
    /// keys begin with, and how long a call may take.
    pub(super) async fn connected(&self) -> Result<(Arc<Nodes>, Vec<u8>, Duration), StoreError> {
        let nodes = Nodes::new(&self.urls, self.is_cluster, self.timeout / 2)?;
        within(self.timeout, nodes.reach()).await?;
        Ok((Arc::new(nodes), prefix(&self.namespace), self.timeout))
    }
}

impl RedisBuilder {
    /// How long a record is kept after it was last written, where the
    /// [`Rule`](crate::confirm::Rule) says nothing
    /// ([`Rule::lifetime`](crate::confirm::Rule::lifetime)); for ever unless told.
    ///
    /// It must cover the window, and in event time also how long a stream may stand
    /// still or be replayed. Without it such records stay until they are deleted:
    /// [`expire`](crate::confirm::AsyncConfirmer::expire) does nothing here, because it would
    /// have to walk through all keys.
    pub const fn retention(mut self, retention: Duration) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Connects, in a tokio runtime with time and I/O, which every later call needs,
    /// too.
    ///
    /// # Errors
    ///
    /// [`Unavailable`](crate::confirm::StoreErrorKind::Unavailable) or
    /// [`Timeout`](crate::confirm::StoreErrorKind::Timeout) if no server can be reached, or
    /// the one that was named is a replica;
    /// [`Refused`](crate::confirm::StoreErrorKind::Refused) if a URL or the credentials are
    /// wrong, it is no Redis, or its `maxmemory-policy` makes it forget keys.
    pub async fn connect(self) -> Result<RedisConfirmer, StoreError> {
        let (nodes, prefix, timeout) = self.connected().await?;
        Ok(RedisConfirmer { nodes, prefix, timeout, retention: self.retention })
    }
}

impl<T> Clone for RedisBuilder<T> {
    fn clone(&self) -> Self {
        Self { urls: self.urls.clone(), namespace: self.namespace.clone(), ..*self }
    }
}

impl<T> fmt::Debug for RedisBuilder<T> {
    /// Without the URLs, in which passwords may stand.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuilder").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        let shown = format!("{:?}", RedisConfirmer::server("redis://u:secret@h/"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
