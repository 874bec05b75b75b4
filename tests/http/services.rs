//! Services of other kinds than routers, and routers as they are built.

use crate::api::{gate, layer, post, store};
use axum::body::{Body, Bytes};
use axum::extract::{OriginalUri, Request};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post as on_post};
use axum::{Extension, Json, Router};
use hapax::confirm::Inline;
use hapax::confirm::claims::Grant;
use hapax::http::{Buffered, IdempotencyLayer};
use http_body_util::Full;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _, service_fn};

type Sent = axum::http::Request<Buffered<Body>>;

/// Must be asked whether it is ready before each call, and a clone anew.
struct Picky {
    is_ready: bool,
    calls: Arc<AtomicU64>,
}

impl Clone for Picky {
    fn clone(&self) -> Self {
        Self { is_ready: false, calls: Arc::clone(&self.calls) }
    }
}

impl Service<Sent> for Picky {
    type Response = Response<Full<Bytes>>;
    type Error = &'static str;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Sent) -> Self::Future {
        assert!(self.is_ready, "called before it was ready");
        self.is_ready = false;
        std::future::ready(match self.calls.fetch_add(1, Ordering::SeqCst) {
            0 => panic!("on purpose"),
            1 => Err("failed"),
            _ => Ok(Response::new(Full::from("done"))),
        })
    }
}

/// A panic in the call itself and an error free the key; and the service that was ready is the
/// one that is called.
#[tokio::test]
async fn any_service_will_do() {
    let calls = Arc::new(AtomicU64::new(0));
    let mut service = layer().layer(Picky { is_ready: false, calls: Arc::clone(&calls) });
    let panicked = service.ready().await.unwrap().call(post("k")).await.unwrap();
    assert_eq!(panicked.status(), 500);
    let failed = service.ready().await.unwrap().call(post("k")).await;
    assert_eq!(failed.unwrap_err(), "failed");
    let mut clone = service.clone();
    for replayed in [false, true] {
        let done = clone.ready().await.unwrap().call(post("k")).await.unwrap();
        assert_eq!(done.headers().contains_key("idempotency-replayed"), replayed);
    }
    let without_key = Request::new(Body::empty());
    assert_eq!(service.ready().await.unwrap().call(without_key).await.unwrap().status(), 200);
    assert_eq!(calls.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_stack_of_layers_will_do() {
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    let service = ServiceBuilder::new()
        .concurrency_limit(10)
        .layer(layer())
        .concurrency_limit(1)
        .service(service_fn(move |_: axum::http::Request<Buffered<Full<Bytes>>>| {
            let call = counter.fetch_add(1, Ordering::SeqCst);
            async move { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(format!("{call}")))) }
        }));
    for _ in 0..3 {
        let request = post("k").map(|_| Full::<Bytes>::from("amount=10"));
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn routes_have_layers_of_their_own() {
    async fn charge(Extension(grant): Extension<Grant>, Json(amount): Json<u64>) -> String {
        format!("{amount}, attempt {}", grant.attempt)
    }
    let gate = gate(Inline(store().1));
    let idempotency = IdempotencyLayer::single_tenant(gate);
    let app: Router = Router::new()
        .route("/charges", on_post(charge).layer(idempotency.clone().required()))
        .route("/refunds", on_post(async || "refunded"))
        .route_layer(idempotency)
        .route("/health", get(async || "well").post(async || "well"));
    let send = |target: &str, key: Option<&str>| {
        let request = Request::post(target).header("Content-Type", "application/json");
        let request =
            key.into_iter().fold(request, |request, key| request.header("Idempotency-Key", key));
        app.clone().oneshot(request.body(Body::from("10")).unwrap())
    };
    let status = async |target, key| send(target, key).await.unwrap().status();
    assert_eq!(status("/charges", None).await, StatusCode::BAD_REQUEST);
    assert_eq!(status("/refunds", None).await, StatusCode::OK);
    assert_eq!(status("/health", Some("not, a key")).await, StatusCode::OK);
    assert_eq!(status("/nowhere", Some("not, a key")).await, StatusCode::NOT_FOUND);
    assert_eq!(status("/refunds", Some("not, a key")).await, StatusCode::BAD_REQUEST);
    let charged = send("/refunds", Some("k")).await.unwrap();
    assert_eq!(axum::body::to_bytes(charged.into_body(), 100).await.unwrap(), "refunded");
}

/// As `docs/http.md` has it.
#[tokio::test]
async fn nested_routers_are_told_apart_by_the_whole_path() {
    let by_what_it_sees = IdempotencyLayer::single_tenant(gate(Inline(store().1)));
    let by_the_whole_path = by_what_it_sees.clone().scope(|request| {
        let uri = request.extensions.get::<OriginalUri>().map_or(&request.uri, |uri| &uri.0);
        format!("{} {}", request.method, uri.path()).into_bytes()
    });
    for (layer, is_told_apart) in [(by_what_it_sees, false), (by_the_whole_path, true)] {
        let charges = || Router::new().route("/charges", on_post(async || "charged"));
        let app: Router = Router::new()
            .nest("/v1", charges().layer(layer.clone()))
            .nest("/v2", charges().layer(layer));
        let is_replay = async |target| {
            let request = Request::post(target).header("Idempotency-Key", "k");
            let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!(response.status(), 200);
            response.headers().contains_key("idempotency-replayed")
        };
        assert!(!is_replay("/v1/charges").await);
        assert!(is_replay("/v1/charges").await);
        assert_eq!(is_replay("/v2/charges").await, !is_told_apart);
    }
}
