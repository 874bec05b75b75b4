//! Setting the layer up.

use super::answer::{KEPT_HEADERS, may_keep};
use super::service::Idempotency;
use crate::claim::Gate;
use crate::confirm::claims::Digest;
use crate::hash::composite;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, request, response};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tower_layer::Layer;

/// Makes the routes under it idempotent: of requests with one `Idempotency-Key` the first is
/// processed, and the others get its answer.
///
/// Put it on single routes, or on groups of them that want the same settings, *inside* of
/// whatever authenticates, so that tenants are known. Layers inside of it count as the handler:
/// it keeps what they answer. Cloning is cheap, and clones share their gate. It needs a tokio
/// runtime with time.
///
/// The handler finds a [`Grant`](crate::confirm::claims::Grant) among the request's
/// extensions: which attempt it is, whether an earlier one was never heard of again, and a
/// fence to hand to whatever it writes to.
#[must_use = "a layer does nothing until it is put on a service"]
pub struct IdempotencyLayer<S> {
    gate: Gate<S>,
    settings: Arc<Settings>,
}

type FromRequest<T> = Arc<dyn Fn(&request::Parts) -> T + Send + Sync>;
type FromPayload<T> = Arc<dyn Fn(&request::Parts, &[u8]) -> T + Send + Sync>;
type FromAnswer<T> = Arc<dyn Fn(&response::Parts) -> T + Send + Sync>;

#[derive(Clone)]
pub(super) struct Settings {
    pub(super) tenant: FromRequest<Option<Vec<u8>>>,
    pub(super) scope: FromRequest<Vec<u8>>,
    pub(super) digest: FromPayload<Digest>,
    pub(super) remember: FromAnswer<bool>,
    pub(super) methods: Vec<Method>,
    pub(super) is_required: bool,
    pub(super) patience: Duration,
    pub(super) max_body_bytes: usize,
    pub(super) kept_headers: Vec<HeaderName>,
    pub(super) replays_created_as_ok: bool,
    pub(super) documentation: Option<Arc<str>>,
}

impl<S> IdempotencyLayer<S> {
    /// For a service with several tenants. `tenant` says whose a request is, for instance the
    /// account that an authenticating layer has found; `None`, and the request is refused with
    /// 403. It must not be something that a client can choose, or one gets another's answers.
    pub fn by_tenant(
        gate: Gate<S>,
        tenant: impl Fn(&request::Parts) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let settings = Settings {
            tenant: Arc::new(tenant),
            scope: Arc::new(method_and_path),
            digest: Arc::new(content_digest),
            remember: Arc::new(is_success),
            methods: vec![Method::POST, Method::PATCH],
            is_required: false,
            patience: Duration::ZERO,
            max_body_bytes: 1 << 20,
            kept_headers: KEPT_HEADERS.to_vec(),
            replays_created_as_ok: false,
            documentation: None,
        };
        Self { gate, settings: Arc::new(settings) }
    }

    /// For a service whose clients are all one tenant: whoever knows a key and the payload that
    /// came with it may have the answer.
    pub fn single_tenant(gate: Gate<S>) -> Self {
        Self::by_tenant(gate, |_| Some(Vec::new()))
    }

    /// Refuses requests without a key, with 400. Unless told they pass through.
    pub fn required(self) -> Self {
        self.set(|settings| settings.is_required = true)
    }

    /// The methods that it is for; POST and PATCH unless told. Others pass through, with or
    /// without a key.
    pub fn methods(self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.set(|settings| settings.methods = methods.into_iter().collect())
    }

    /// What a key is a key of: requests of different scopes never meet. Method and path unless
    /// told, the path as this layer sees it: in a router that is nested in another, axum cuts
    /// off what came before, and `axum::extract::OriginalUri` has the whole.
    ///
    /// Beware of a route's pattern, such as `/orders/{id}/pay`: one key for two orders would
    /// pay one of them.
    pub fn scope(self, scope: impl Fn(&request::Parts) -> Vec<u8> + Send + Sync + 'static) -> Self {
        self.set(|settings| settings.scope = Arc::new(scope))
    }

    /// What tells a retry from another request with the same key. Unless told that is the
    /// query, the content type and encoding, and the body, byte by byte: nothing that clients
    /// may well change between retries, such as an authorization.
    pub fn digest(
        self,
        digest: impl Fn(&request::Parts, &[u8]) -> Digest + Send + Sync + 'static,
    ) -> Self {
        self.set(|settings| settings.digest = Arc::new(digest))
    }

    /// Which answers are kept and replayed. Unless told those with a status of 2xx and 3xx:
    /// all others leave the key free, so that a retry is processed again. That is right where
    /// a failure means that nothing was done.
    ///
    /// Stripe keeps all answers but those of requests that were never begun, a 500 too:
    ///
    /// ```
    /// # use hapax::{claim::Gate, confirm::{Inline, claims::MemoryClaims}, http::IdempotencyLayer};
    /// # let gate = Gate::builder(Inline(MemoryClaims::new())).build()?;
    /// let as_stripe = IdempotencyLayer::single_tenant(gate).remember(|answer| {
    ///     !matches!(answer.status.as_u16(), 400 | 401 | 403 | 404 | 409 | 422 | 429)
    /// });
    /// # Ok::<_, hapax::claim::GateError>(())
    /// ```
    pub fn remember(
        self,
        remember: impl Fn(&response::Parts) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.set(|settings| settings.remember = Arc::new(remember))
    }

    /// How long a request waits for another with its key before it is told 409; not at all
    /// unless told.
    pub fn wait(self, patience: Duration) -> Self {
        self.set(|settings| settings.patience = patience)
    }

    /// The largest body of a request, in bytes; 1 MiB unless told. Larger ones are refused with
    /// 413. Bodies of requests with a key are held in memory as a whole.
    pub fn max_body(self, bytes: usize) -> Self {
        self.set(|settings| settings.max_body_bytes = bytes)
    }

    /// Which headers of an answer are kept beside its status and body. Unless told:
    /// `Cache-Control`, `Content-Disposition`, `-Encoding`, `-Language`, `-Location` and
    /// `-Type`, `ETag`, `Last-Modified`, `Link`, `Location` and `Vary`. Never, though told:
    /// `Set-Cookie`, `Date`, `Content-Length`, which is counted anew, and what belongs to one
    /// connection.
    pub fn keep_headers(self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        let names = names.into_iter().filter(may_keep).collect();
        self.set(|settings| settings.kept_headers = names)
    }

    /// Replays 201 as 200: this time nothing was created.
    pub fn replay_created_as_ok(self) -> Self {
        self.set(|settings| settings.replays_created_as_ok = true)
    }

    /// Where the service documents its keys: a problem's type is this address, `#`, and the
    /// problem's [code](super::Problem::code). Unless told it is `about:blank`.
    pub fn documented_at(self, address: impl Into<Arc<str>>) -> Self {
        self.set(|settings| settings.documentation = Some(address.into()))
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self
    }
}

fn method_and_path(request: &request::Parts) -> Vec<u8> {
    format!("{} {}", request.method, request.uri.path()).into_bytes()
}

fn content_digest(request: &request::Parts, body: &[u8]) -> Digest {
    let header = |name| request.headers.get(name).map_or(&[][..], HeaderValue::as_bytes);
    let query = request.uri.query().unwrap_or_default().as_bytes();
    let body = Digest::of(body);
    let parts = [query, header(CONTENT_TYPE), header(CONTENT_ENCODING), body.as_bytes()];
    Digest::of(&composite(&parts))
}

fn is_success(answer: &response::Parts) -> bool {
    answer.status.is_success() || answer.status.is_redirection()
}

impl<S, Inner> Layer<Inner> for IdempotencyLayer<S> {
    type Service = Idempotency<Inner, S>;

    fn layer(&self, inner: Inner) -> Self::Service {
        Idempotency::new(inner, self.gate.clone(), Arc::clone(&self.settings))
    }
}

impl<S> Clone for IdempotencyLayer<S> {
    fn clone(&self) -> Self {
        Self { gate: self.gate.clone(), settings: Arc::clone(&self.settings) }
    }
}

impl<S: fmt::Debug> fmt::Debug for IdempotencyLayer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyLayer")
            .field("gate", &self.gate)
            .field("methods", &self.settings.methods)
            .field("is_required", &self.settings.is_required)
            .finish_non_exhaustive()
    }
}
