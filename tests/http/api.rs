//! A service under the layer, and requests to it.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{Extensions, HeaderMap, Method, StatusCode};
use axum::response::Response;
use hapax::claim::Gate;
use hapax::confirm::Inline;
use hapax::confirm::claims::{AsyncClaimStore, MemoryClaims};
use hapax::http::IdempotencyLayer;
use hapax::{ManualClock, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tower::ServiceExt as _;

pub(crate) type Claims = Inline<Arc<MemoryClaims>>;

pub(crate) const LEASE: Duration = Duration::from_secs(300);

/// A store, and its clock.
pub(crate) fn store() -> (Arc<ManualClock>, Arc<MemoryClaims>) {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000_000)));
    (Arc::clone(&clock), Arc::new(MemoryClaims::with_clock(clock)))
}

/// A gate that asks its store every time.
pub(crate) fn gate<S: AsyncClaimStore>(store: S) -> Gate<S> {
    Gate::builder(store).lease(LEASE).remember(0).build().unwrap()
}

/// A layer with a store of its own.
pub(crate) fn layer() -> IdempotencyLayer<Claims> {
    IdempotencyLayer::single_tenant(gate(Inline(store().1)))
}

/// A handler, the layer around it, and how often the handler was called.
#[derive(Clone)]
pub(crate) struct Api {
    app: Router,
    runs: Arc<AtomicU64>,
}

impl Api {
    /// The handler learns the how manieth call it is.
    pub(crate) fn new<S, F, R>(layer: IdempotencyLayer<S>, handle: F) -> Self
    where
        S: AsyncClaimStore + 'static,
        F: Fn(u64, Request) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        let runs = Arc::new(AtomicU64::new(0));
        let calls = Arc::clone(&runs);
        let counted = move |request: Request| {
            let run = calls.fetch_add(1, Ordering::SeqCst) + 1;
            handle(run, request)
        };
        Self { app: Router::new().fallback(counted).layer(layer), runs }
    }

    /// A handler that says the how manieth call it is.
    pub(crate) fn counting<S: AsyncClaimStore + 'static>(layer: IdempotencyLayer<S>) -> Self {
        Self::new(layer, |run, _| async move { created(&format!("run {run}")) })
    }

    pub(crate) fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }

    pub(crate) async fn send(&self, request: Request) -> Reply {
        Reply::of(self.app.clone().oneshot(request).await.unwrap()).await
    }

    pub(crate) fn router(&self) -> Router {
        self.app.clone()
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) extensions: Extensions,
    pub(crate) body: String,
}

impl Reply {
    async fn of(response: Response) -> Self {
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Self {
            status: parts.status,
            headers: parts.headers,
            extensions: parts.extensions,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub(crate) fn is_replay(&self) -> bool {
        self.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The problem's code, for answers that are one.
    pub(crate) fn code(&self) -> Option<String> {
        if self.header("content-type") != Some("application/problem+json") {
            return None;
        }
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["status"], self.status.as_u16());
        Some(problem["code"].as_str().unwrap().to_owned())
    }

    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.code().as_deref()), (status, Some(code)));
    }

    #[track_caller]
    pub(crate) fn assert_fresh(&self, status: u16, body: &str) {
        assert_eq!((self.status.as_u16(), self.body.as_str()), (status, body));
        assert!(!self.is_replay());
    }

    #[track_caller]
    pub(crate) fn assert_replay(&self, status: u16, body: &str) {
        assert_eq!((self.status.as_u16(), self.body.as_str()), (status, body));
        assert!(self.is_replay());
    }
}

/// A charge under this key.
pub(crate) fn post(key: &str) -> Request {
    charge(key, "amount=10")
}

pub(crate) fn charge(key: &str, body: &str) -> Request {
    request(Method::POST, "/charges", key, body)
}

pub(crate) fn request(method: Method, target: &str, key: &str, body: &str) -> Request {
    Request::builder()
        .method(method)
        .uri(target)
        .header("Idempotency-Key", key)
        .body(Body::from(body.to_owned()))
        .unwrap()
}

pub(crate) fn status(status: u16, body: &str) -> Response {
    Response::builder().status(status).body(Body::from(body.to_owned())).unwrap()
}

pub(crate) fn created(body: &str) -> Response {
    status(201, body)
}
