//! Work under a lease that does not end while it goes on.

use super::{Lease, LeaseError};
use crate::confirm::claims::AsyncClaimStore;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::sleep;

/// What `work` comes to under a lease that is extended `every` so often; then `beat` is
/// done, too.
///
/// # Errors
///
/// [`LeaseError::Stale`] if the lease was lost meanwhile; the work is polled no more.
pub(crate) async fn under<S: AsyncClaimStore + 'static, B: Future, T>(
    lease: &mut Lease<S>,
    every: Duration,
    beat: impl Fn() -> B,
    work: impl Future<Output = T>,
) -> Result<T, LeaseError> {
    let mut work = pin!(work);
    let mut loss = pin!(loss(lease, every, beat));
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => loss.as_mut().poll(context).map(Err),
    })
    .await
}

/// Extends a lease until it is lost. A store that fails is asked again at the next
/// heartbeat: the lease may last longer than the failure.
async fn loss<S: AsyncClaimStore + 'static, B: Future>(
    lease: &mut Lease<S>,
    every: Duration,
    beat: impl Fn() -> B,
) -> LeaseError {
    loop {
        sleep(every).await;
        if let Err(stale @ LeaseError::Stale) = lease.extend_async().await {
            return stale;
        }
        beat().await;
    }
}
