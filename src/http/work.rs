//! One request with a key, from its claim to its answer.

use super::answer::{REPLAYED, decode, encode};
use super::layer::Settings;
use super::problem::{Problem, Refusal};
use super::service::Buffered;
use crate::claim::{Claim, ClaimError, Gate, Identity, InFlight, Lease, LeaseError, heartbeat};
use crate::confirm::claims::{AsyncClaimStore, Digest, Ending, Grant, Outcome};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderValue, Request, Response, StatusCode, response};
use http_body::Body;
use http_body_util::{BodyExt as _, Either, Full};
use std::error::Error;
use std::future::{Future, ready};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tower_service::Service;

/// A lease is extended each time that one part of so many has passed: two extensions may fail.
const BEATS_PER_LEASE: u32 = 3;

/// The shortest pause that clients are told: `Retry-After` counts seconds.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// For how long clients are sent away when the store cannot be reached: about as long as a
/// failover takes.
const OUTAGE_PAUSE: Duration = Duration::from_secs(5);

/// The first pause before a claim is settled again that could not be, and the longest.
const FIRST_SETTLE_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_SETTLE_PAUSE: Duration = Duration::from_secs(10);

/// What it takes to process a request once.
pub(super) struct Work<S> {
    pub(super) gate: Gate<S>,
    pub(super) settings: Arc<Settings>,
    pub(super) id: Identity,
    pub(super) digest: Digest,
}

impl<S: AsyncClaimStore + 'static> Work<S> {
    pub(super) async fn run<Inner, Sent, Given>(
        self,
        inner: Inner,
        request: Request<Buffered<Sent>>,
    ) -> Result<Response<Buffered<Given>>, Inner::Error>
    where
        Inner: Service<Request<Buffered<Sent>>, Response = Response<Given>>,
        Given: Body<Data = Bytes>,
        Given::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let refusal = match self.claim().await {
            Ok(Claim::Granted(lease)) => return self.process(lease, inner, request).await,
            Ok(Claim::Replay(outcome)) => match self.settings.replay(outcome) {
                Ok(response) => return Ok(response.map(Either::Left)),
                Err(refusal) => refusal,
            },
            Ok(Claim::InFlight(in_flight)) => {
                let pause = pause(self.gate.terms().lease, in_flight);
                Refusal::from(Problem::InFlight).retry_after(pause)
            }
            Ok(Claim::Mismatch) => Problem::KeyReused.into(),
            Err(error) => unclaimed(error),
        };
        Ok(self.settings.refuse(refusal))
    }

    async fn claim(&self) -> Result<Claim<S>, ClaimError> {
        let patience = self.settings.patience;
        if patience.is_zero() {
            self.gate.claim_async(&self.id, self.digest).await
        } else {
            self.gate.claim_or_wait_async(&self.id, self.digest, patience).await
        }
    }

    async fn process<Inner, Sent, Given>(
        self,
        mut lease: Lease<S>,
        inner: Inner,
        mut request: Request<Buffered<Sent>>,
    ) -> Result<Response<Buffered<Given>>, Inner::Error>
    where
        Inner: Service<Request<Buffered<Sent>>, Response = Response<Given>>,
        Given: Body<Data = Bytes>,
        Given::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { gate, settings, .. } = self;
        request.extensions_mut().insert(grant(&lease));
        let handled = handle(inner, request, &settings, gate.max_outcome());
        let every = gate.terms().lease / BEATS_PER_LEASE;
        match while_extended(&mut lease, every, handled).await {
            Ok(Handled { response, outcome }) => {
                Ok(settle(lease, outcome, response, &settings).await)
            }
            Err(error) => {
                // What became of the key is secondary to the service's own error.
                let _ = lease.free_async().await;
                Err(error)
            }
        }
    }
}

fn grant<S>(lease: &Lease<S>) -> Grant {
    Grant { fence: lease.fence(), attempt: lease.attempt(), is_takeover: lease.is_takeover() }
}

/// As long as it has been since the claim, or its last extension, so that pauses double; and not
/// beyond the time when another may take over.
fn pause(lease: Duration, in_flight: InFlight) -> Duration {
    let elapsed = lease.saturating_sub(in_flight.remaining);
    elapsed.min(in_flight.remaining).max(SHORTEST_PAUSE)
}

fn unclaimed(error: ClaimError) -> Refusal {
    let refusal: Refusal = match &error {
        ClaimError::TooLong(_) => Problem::ScopeTooLong.into(),
        ClaimError::Store(store) => {
            let refusal = Refusal::from(Problem::StoreUnavailable);
            if store.is_retryable() { refusal.retry_after(OUTAGE_PAUSE) } else { refusal }
        }
    };
    refusal.caused_by(error)
}

impl Settings {
    /// The answer that was given before.
    fn replay(&self, outcome: Outcome) -> Result<Response<Full<Bytes>>, Refusal> {
        let stored = outcome.into_bytes().ok_or(Problem::AnswerNotKept)?;
        let mut response = decode(stored).map_err(|damaged| {
            let cause: Arc<dyn Error + Send + Sync> = Arc::new(damaged);
            Refusal::from(Problem::AnswerDamaged).caused_by(cause)
        })?;
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        if self.replays_created_as_ok && response.status() == StatusCode::CREATED {
            *response.status_mut() = StatusCode::OK;
        }
        Ok(response)
    }
}

/// What came of the handler.
struct Handled<B> {
    response: Response<Buffered<B>>,
    /// What is to be kept; `None`: the key is to be free.
    outcome: Option<Outcome>,
}

async fn handle<Inner, Sent, Given>(
    mut inner: Inner,
    request: Request<Buffered<Sent>>,
    settings: &Settings,
    max_bytes: usize,
) -> Result<Handled<Given>, Inner::Error>
where
    Inner: Service<Request<Buffered<Sent>>, Response = Response<Given>>,
    Given: Body<Data = Bytes>,
    Given::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let called = AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind().await;
    let response = match called {
        Ok(answer) => answer?.map(Either::Right),
        Err(_) => settings.refuse(Problem::HandlerFailed.into()),
    };
    let (parts, body) = response.into_parts();
    if !(settings.remember)(&parts) {
        return Ok(Handled { response: Response::from_parts(parts, body), outcome: None });
    }
    let ending = ending(parts.status);
    // A tombstone before the first byte goes out: who gets a stream in part must not find the
    // key free, and a stream may never end.
    if body.size_hint().exact().is_none_or(|length| length > max_bytes as u64) {
        let response = Response::from_parts(parts, body);
        return Ok(Handled { response, outcome: Some(Outcome::tombstone(ending)) });
    }
    Ok(match AssertUnwindSafe(body.collect()).catch_unwind().await {
        Ok(Ok(body)) => keep(settings, parts, body.to_bytes()),
        // The work was done, so it is not done again.
        _ => Handled {
            response: settings.refuse(Problem::HandlerFailed.into()),
            outcome: Some(Outcome::tombstone(ending)),
        },
    })
}

fn keep<B>(settings: &Settings, parts: response::Parts, body: Bytes) -> Handled<B> {
    let ending = ending(parts.status);
    let outcome = match (encode(&parts, &body, &settings.kept_headers), ending) {
        (Some(bytes), Ending::Success) => Outcome::success(bytes),
        (Some(bytes), Ending::Failure) => Outcome::failure(bytes),
        (None, _) => Outcome::tombstone(ending),
    };
    let response = Response::from_parts(parts, Either::Left(Full::new(body)));
    Handled { response, outcome: Some(outcome) }
}

fn ending(status: StatusCode) -> Ending {
    let is_failure = status.is_client_error() || status.is_server_error();
    if is_failure { Ending::Failure } else { Ending::Success }
}

/// Does `work`, and does not let the lease run out over it. If it is lost all the same the work
/// goes on: what became of it is told where the lease is settled.
async fn while_extended<S: AsyncClaimStore + 'static, T>(
    lease: &mut Lease<S>,
    every: Duration,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    match heartbeat::under(lease, every, || ready(()), work.as_mut()).await {
        Ok(done) => done,
        Err(_) => work.await,
    }
}

/// Keeps the outcome or frees the key, and says what to answer.
///
/// Where the store fails the client gets the handler's answer nevertheless: sent away, it would
/// come again, and after the lease be processed again. The store is told later.
async fn settle<S: AsyncClaimStore + 'static, B>(
    mut lease: Lease<S>,
    outcome: Option<Outcome>,
    mut response: Response<Buffered<B>>,
    settings: &Settings,
) -> Response<Buffered<B>> {
    let Err(error) = try_to_settle(&mut lease, outcome.as_ref()).await else { return response };
    match &error {
        LeaseError::Stale if outcome.is_some() => {
            let refusal = Refusal::from(Problem::Superseded).retry_after(SHORTEST_PAUSE);
            return settings.refuse(refusal.caused_by(error));
        }
        LeaseError::Store(store) if store.is_retryable() => {
            tokio::spawn(settle_later(lease, outcome));
        }
        _ => {}
    }
    response.extensions_mut().insert(error);
    response
}

async fn try_to_settle<S: AsyncClaimStore + 'static>(
    lease: &mut Lease<S>,
    outcome: Option<&Outcome>,
) -> Result<(), LeaseError> {
    match outcome {
        Some(outcome) => lease.complete_async(outcome.clone()).await,
        None => lease.free_async().await,
    }
}

/// Goes on until the lease ends.
async fn settle_later<S: AsyncClaimStore + 'static>(mut lease: Lease<S>, outcome: Option<Outcome>) {
    let end = Instant::now() + lease.remaining();
    let mut pause = FIRST_SETTLE_PAUSE;
    while Instant::now() < end {
        sleep_until(end.min(Instant::now() + pause)).await;
        match try_to_settle(&mut lease, outcome.as_ref()).await {
            Err(LeaseError::Store(error)) if error.is_retryable() => {}
            _ => return,
        }
        pause = LONGEST_SETTLE_PAUSE.min(pause * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn pauses_grow_with_the_work_and_end_with_the_lease() {
        let lease = Duration::from_secs(300);
        for (remaining, expected) in [(300, 1), (299, 1), (290, 10), (200, 100), (100, 100), (0, 1)]
        {
            let in_flight = InFlight {
                since: Timestamp::from_secs(0),
                remaining: Duration::from_secs(remaining),
            };
            assert_eq!(pause(lease, in_flight), Duration::from_secs(expected), "{remaining}");
        }
    }
}
