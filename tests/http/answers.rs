//! Bodies: too large, of unknown length, broken off, damaged in the store.

use crate::api::{Api, charge, created, gate, layer, post, store};
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use hapax::claim::{Claim, Gate, Identity};
use hapax::confirm::Inline;
use hapax::confirm::claims::{Digest, Outcome};
use hapax::http::{IdempotencyLayer, Problem};
use std::io;

fn chunks(chunks: &'static [&'static str]) -> Body {
    Body::from_stream(stream::iter(chunks).map(|chunk| Ok::<_, io::Error>(Bytes::from(*chunk))))
}

fn broken() -> Body {
    let end = stream::once(async { Err::<Bytes, _>(io::Error::other("broken off")) });
    Body::from_stream(stream::iter([Ok(Bytes::from("amount="))]).chain(end))
}

fn post_body(body: Body) -> Request {
    Request::post("/charges").header("Idempotency-Key", "k").body(body).unwrap()
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let api = Api::counting(layer().max_body(8));
    api.send(charge("k", "123456789")).await.assert_problem(413, "body-too-large");
    api.send(post_body(chunks(&["1234", "56789"]))).await.assert_problem(413, "body-too-large");
    assert_eq!(api.runs(), 0);
    api.send(charge("k", "12345678")).await.assert_fresh(201, "run 1");
}

#[tokio::test]
async fn a_body_that_comes_in_pieces_is_the_same_body() {
    let api = Api::new(layer(), |_, request: Request| async move {
        let body = axum::body::to_bytes(request.into_body(), 100).await.unwrap();
        created(std::str::from_utf8(&body).unwrap())
    });
    api.send(charge("k", "amount=10")).await.assert_fresh(201, "amount=10");
    api.send(post_body(chunks(&["amou", "nt=10"]))).await.assert_replay(201, "amount=10");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_never_processed() {
    let api = Api::counting(layer());
    api.send(post_body(broken())).await.assert_problem(400, "body-unreadable");
    assert_eq!(api.runs(), 0);
    api.send(post("k")).await.assert_fresh(201, "run 1");
}

#[tokio::test]
async fn a_stream_passes_through_and_is_not_made_again() {
    let api = Api::new(layer(), |_, _| async move { Response::new(chunks(&["one ", "two"])) });
    api.send(post("k")).await.assert_fresh(200, "one two");
    let again = api.send(post("k")).await;
    again.assert_problem(410, "answer-not-kept");
    assert_eq!(again.extensions.get(), Some(&Problem::AnswerNotKept));
    assert_eq!(api.runs(), 1);
}

/// The key is finished before the first byte of a stream goes out.
#[tokio::test]
async fn a_stream_that_never_ends_is_not_waited_for() {
    use tower::ServiceExt as _;
    let api = Api::new(layer(), |_, _| async move {
        let start = stream::iter([Ok::<_, io::Error>(Bytes::from("first"))]);
        Response::new(Body::from_stream(start.chain(stream::pending())))
    });
    let response = api.router().oneshot(post("k")).await.unwrap();
    let mut body = response.into_body().into_data_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), "first");
    api.send(post("k")).await.assert_problem(410, "answer-not-kept");
}

#[tokio::test]
async fn a_large_answer_passes_through_and_is_not_made_again() {
    let gate = |bytes| Gate::builder(Inline(store().1)).max_outcome(bytes).build().unwrap();
    for max_outcome in [99, 100, 120] {
        let layer = IdempotencyLayer::single_tenant(gate(max_outcome));
        let api = Api::new(layer, |_, _| async move { created(&"x".repeat(100)) });
        api.send(post("k")).await.assert_fresh(201, &"x".repeat(100));
        let again = api.send(post("k")).await;
        // Status and headers take a few bytes, too.
        match max_outcome {
            120 => again.assert_replay(201, &"x".repeat(100)),
            _ => again.assert_problem(410, "answer-not-kept"),
        }
        assert_eq!(api.runs(), 1);
    }
}

/// Its length is known, so it was to be kept.
#[tokio::test]
async fn an_answer_that_breaks_off_is_not_made_again() {
    struct Short(bool);
    impl axum::body::HttpBody for Short {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
            assert!(!self.0, "a body panics, too");
            self.0 = true;
            std::task::Poll::Ready(Some(Err(io::Error::other("broken off"))))
        }

        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(5)
        }
    }
    for panics in [false, true] {
        let api =
            Api::new(layer(), move |_, _| async move { Response::new(Body::new(Short(panics))) });
        api.send(post("k")).await.assert_problem(500, "handler-failed");
        api.send(post("k")).await.assert_problem(410, "answer-not-kept");
        assert_eq!(api.runs(), 1);
    }
}

#[tokio::test]
async fn a_damaged_answer_is_a_problem() {
    let gate = gate(Inline(store().1));
    let layer = IdempotencyLayer::single_tenant(gate.clone())
        .scope(|_| b"charges".to_vec())
        .digest(|_, _| Digest::of(b""));
    let api = Api::counting(layer);
    for (key, outcome) in [("short", &b"x"[..]), ("version", &[9; 20]), ("sum", &[1; 20])] {
        let id = Identity::new("", "charges", key);
        let claim = gate.claim_async(&id, Digest::of(b"")).await.unwrap();
        let Claim::Granted(mut lease) = claim else { panic!("{claim:?}") };
        lease.complete_async(Outcome::success(outcome)).await.unwrap();
        api.send(post(key)).await.assert_problem(500, "answer-damaged");
    }
    assert_eq!(api.runs(), 0);
}

#[tokio::test]
async fn a_scope_too_long_for_stores_is_refused() {
    let api = Api::counting(layer().scope(|_| vec![b'x'; 1 << 16]));
    api.send(post("k")).await.assert_problem(414, "scope-too-long");
    assert_eq!(api.runs(), 0);
}
