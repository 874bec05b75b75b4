//! A request's way to the gate: whose it is, which key it has, and what it asks for.

use super::key::IdempotencyKey;
use super::layer::Settings;
use super::problem::{Problem, Refusal};
use super::work::Work;
use crate::claim::{Gate, Identity};
use crate::confirm::claims::AsyncClaimStore;
use bytes::Bytes;
use http::{Request, Response, request};
use http_body::Body;
use http_body_util::{BodyExt as _, Either, Full, LengthLimitError, Limited};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_service::Service;

/// A body that is held in memory, or passes through as it comes: of the requests that an
/// [`Idempotency`] makes, and of its answers.
pub type Buffered<B> = Either<Full<Bytes>, B>;

/// The service that an [`IdempotencyLayer`](super::IdempotencyLayer) makes of another.
///
/// The inner service gets requests with a key with their body in memory and without trailers,
/// and is called in a task of its own, which goes on when the client goes away; what belongs to
/// the client's task, such as a tracing span, does not reach it. Errors of the inner service
/// leave the key free and pass through.
pub struct Idempotency<Inner, S> {
    inner: Inner,
    gate: Gate<S>,
    settings: Arc<Settings>,
}

impl<Inner, S> Idempotency<Inner, S> {
    pub(super) const fn new(inner: Inner, gate: Gate<S>, settings: Arc<Settings>) -> Self {
        Self { inner, gate, settings }
    }
}

impl<Inner, S, Sent, Given> Service<Request<Sent>> for Idempotency<Inner, S>
where
    S: AsyncClaimStore + 'static,
    Inner: Service<Request<Buffered<Sent>>, Response = Response<Given>> + Clone + Send + 'static,
    Inner::Future: Send,
    Inner::Error: Send + 'static,
    Sent: Body<Data = Bytes> + Send + 'static,
    Sent::Error: Into<Box<dyn Error + Send + Sync>>,
    Given: Body<Data = Bytes> + Send + 'static,
    Given::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<Buffered<Given>>;
    type Error = Inner::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Sent>) -> Self::Future {
        // A clone need not be ready: the one that is goes with the request.
        let clone = self.inner.clone();
        let inner = mem::replace(&mut self.inner, clone);
        let this = Self { inner, gate: self.gate.clone(), settings: Arc::clone(&self.settings) };
        Box::pin(this.serve(request))
    }
}

/// What is to be done with a request.
enum Admission {
    Pass,
    Claim { tenant: Vec<u8>, key: IdempotencyKey },
}

impl<Inner, S> Idempotency<Inner, S> {
    async fn serve<Sent, Given>(
        mut self,
        request: Request<Sent>,
    ) -> Result<Response<Buffered<Given>>, Inner::Error>
    where
        S: AsyncClaimStore + 'static,
        Inner: Service<Request<Buffered<Sent>>, Response = Response<Given>> + Send + 'static,
        Inner::Future: Send,
        Inner::Error: Send + 'static,
        Sent: Body<Data = Bytes> + Send + 'static,
        Sent::Error: Into<Box<dyn Error + Send + Sync>>,
        Given: Body<Data = Bytes> + Send + 'static,
        Given::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let (tenant, key) = match self.settings.admit(&parts) {
            Ok(Admission::Claim { tenant, key }) => (tenant, key),
            Ok(Admission::Pass) => {
                let request = Request::from_parts(parts, Either::Right(body));
                return Ok(self.inner.call(request).await?.map(Either::Right));
            }
            Err(refusal) => return Ok(self.settings.refuse(refusal)),
        };
        let body = match read(body, self.settings.max_body_bytes).await {
            Ok(body) => body,
            Err(refusal) => return Ok(self.settings.refuse(refusal)),
        };
        let id = Identity::new(tenant, (self.settings.scope)(&parts), key.as_str());
        let digest = (self.settings.digest)(&parts, &body);
        let request = Request::from_parts(parts, Either::Left(Full::new(body)));
        let settings = Arc::clone(&self.settings);
        let work = Work { gate: self.gate, settings: self.settings, id, digest };
        // Panics of the handler are caught within; what is left is a runtime that shuts down.
        let done = tokio::spawn(work.run(self.inner, request)).await;
        done.unwrap_or_else(|_| Ok(settings.refuse(Problem::HandlerFailed.into())))
    }
}

impl Settings {
    fn admit(&self, request: &request::Parts) -> Result<Admission, Refusal> {
        if !self.methods.contains(&request.method) {
            return Ok(Admission::Pass);
        }
        let key = IdempotencyKey::of(&request.headers).map_err(|error| {
            let detail = format!("Nothing was done: {error}.");
            Refusal::from(Problem::KeyMalformed).because(detail)
        })?;
        let Some(key) = key else {
            let missing = Err(Problem::KeyMissing.into());
            return if self.is_required { missing } else { Ok(Admission::Pass) };
        };
        let tenant = (self.tenant)(request).ok_or(Problem::TenantUnknown)?;
        Ok(Admission::Claim { tenant, key })
    }

    /// What clients get for it.
    pub(super) fn refuse<B>(&self, refusal: Refusal) -> Response<Buffered<B>> {
        refusal.into_response(self.documentation.as_deref()).map(Either::Left)
    }
}

/// The whole body, if it is not too large.
async fn read<B>(body: B, max_bytes: usize) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let too_large = || {
        let detail = format!("Nothing was done: send a body of {max_bytes} bytes at most.");
        Refusal::from(Problem::BodyTooLarge).because(detail)
    };
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large());
    }
    match Limited::new(body, max_bytes).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Problem::BodyUnreadable.into()),
    }
}

impl<Inner: Clone, S> Clone for Idempotency<Inner, S> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            gate: self.gate.clone(),
            settings: Arc::clone(&self.settings),
        }
    }
}

impl<Inner: fmt::Debug, S: fmt::Debug> fmt::Debug for Idempotency<Inner, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idempotency")
            .field("inner", &self.inner)
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}
