//! Who gets which answer again.

use crate::api::{Api, charge, created, gate, layer, post, request, status, store};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, Method};
use axum::response::Response;
use hapax::confirm::Inline;
use hapax::confirm::claims::Digest;
use hapax::http::IdempotencyLayer;

fn by_account(request: Request, account: Option<&str>) -> Request {
    let mut request = request;
    if let Some(account) = account {
        request.headers_mut().insert("x-account", account.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_retry_gets_the_first_answer() {
    let api = Api::new(layer(), |run, _| async move {
        Response::builder()
            .status(201)
            .header("Location", format!("/charges/{run}"))
            .header("Content-Type", "application/json")
            .body(Body::from(format!("{{\"run\":{run}}}")))
            .unwrap()
    });
    let first = api.send(post("k")).await;
    first.assert_fresh(201, "{\"run\":1}");
    for _ in 0..3 {
        let again = api.send(post("k")).await;
        again.assert_replay(201, "{\"run\":1}");
        assert_eq!(again.header("location"), Some("/charges/1"));
        assert_eq!(again.header("content-type"), Some("application/json"));
    }
    api.send(post("other")).await.assert_fresh(201, "{\"run\":2}");
    assert_eq!(api.runs(), 2);
}

#[tokio::test]
async fn what_belongs_to_one_answer_alone_is_never_replayed() {
    let everything = ["set-cookie", "date", "connection", "keep-alive", "location", "x-request-id"];
    let names = everything.iter().map(|name| name.parse().unwrap());
    let api = Api::new(layer().keep_headers(names), |_, _| async move {
        Response::builder()
            .header("Set-Cookie", "session=secret")
            .header("Date", "Sat, 21 Nov 2026 19:00:00 GMT")
            .header("Connection", "close")
            .header("Keep-Alive", "timeout=5")
            .header("Location", "/charges/1")
            .header("X-Request-Id", "7")
            .header("X-Other", "1")
            .body(Body::empty())
            .unwrap()
    });
    let first = api.send(post("k")).await;
    assert_eq!(first.header("set-cookie"), Some("session=secret"));
    let again = api.send(post("k")).await;
    again.assert_replay(200, "");
    let mut names: Vec<_> = again.headers.keys().map(HeaderName::as_str).collect();
    names.retain(|name| *name != "content-length");
    names.sort_unstable();
    assert_eq!(names, ["idempotency-replayed", "location", "x-request-id"]);
}

#[tokio::test]
async fn a_replayed_creation_may_be_told_as_none() {
    let api = Api::counting(layer().replay_created_as_ok());
    api.send(post("k")).await.assert_fresh(201, "run 1");
    api.send(post("k")).await.assert_replay(200, "run 1");
}

#[tokio::test]
async fn tenants_do_not_meet() {
    let layer = IdempotencyLayer::by_tenant(gate(Inline(store().1)), |request| {
        Some(request.headers.get("x-account")?.as_bytes().to_vec())
    });
    let api = Api::counting(layer);
    api.send(by_account(post("k"), Some("anna"))).await.assert_fresh(201, "run 1");
    api.send(by_account(post("k"), Some("bert"))).await.assert_fresh(201, "run 2");
    api.send(by_account(post("k"), Some("anna"))).await.assert_replay(201, "run 1");
    let unknown = api.send(by_account(post("k"), None)).await;
    unknown.assert_problem(403, "tenant-unknown");
    assert_eq!(api.runs(), 2);
}

#[tokio::test]
async fn operations_do_not_meet() {
    let api = Api::counting(layer());
    let send = |method: Method, target: &'static str| api.send(request(method, target, "k", ""));
    send(Method::POST, "/orders/1/pay").await.assert_fresh(201, "run 1");
    send(Method::POST, "/orders/2/pay").await.assert_fresh(201, "run 2");
    send(Method::PATCH, "/orders/1/pay").await.assert_fresh(201, "run 3");
    send(Method::POST, "/orders/1/pay").await.assert_replay(201, "run 1");

    let api = Api::counting(layer().scope(|_| b"all".to_vec()));
    api.send(request(Method::POST, "/a", "k", "")).await.assert_fresh(201, "run 1");
    api.send(request(Method::PATCH, "/b", "k", "")).await.assert_replay(201, "run 1");
}

#[tokio::test]
async fn another_request_under_a_used_key_is_refused() {
    let api = Api::counting(layer());
    let typed = |target: &str, kind: &str| {
        let mut request = request(Method::POST, target, "k", "amount=10");
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        request
    };
    api.send(typed("/charges", "text/plain")).await.assert_fresh(201, "run 1");
    api.send(typed("/charges", "text/plain")).await.assert_replay(201, "run 1");
    for other in [
        charge("k", "amount=100"),
        charge("k", ""),
        typed("/charges", "application/json"),
        typed("/charges?amount=10", "text/plain"),
    ] {
        api.send(other).await.assert_problem(422, "key-reused");
    }
    let mut signed = typed("/charges", "text/plain");
    signed.headers_mut().insert("authorization", "a renewed token".parse().unwrap());
    api.send(signed).await.assert_replay(201, "run 1");
    assert_eq!(api.runs(), 1);
}

#[tokio::test]
async fn what_makes_a_retry_may_be_told() {
    let amount_alone =
        |_: &_, body: &[u8]| Digest::of(body.split(|byte| *byte == b'&').next().unwrap());
    let api = Api::counting(layer().digest(amount_alone));
    api.send(charge("k", "amount=10&sent=9:00")).await.assert_fresh(201, "run 1");
    api.send(charge("k", "amount=10&sent=9:01")).await.assert_replay(201, "run 1");
    api.send(charge("k", "amount=11&sent=9:01")).await.assert_problem(422, "key-reused");
}

#[tokio::test]
async fn failures_leave_the_key_free() {
    for failed in [400, 401, 403, 404, 409, 422, 429, 500, 503] {
        let api = Api::new(layer(), move |run, _| async move {
            if run == 1 { status(failed, "no") } else { created("yes") }
        });
        api.send(post("k")).await.assert_fresh(failed, "no");
        api.send(post("k")).await.assert_fresh(201, "yes");
        api.send(post("k")).await.assert_replay(201, "yes");
    }
}

#[tokio::test]
async fn successes_and_redirections_are_kept() {
    for kept in [200, 202, 204, 301, 303, 307] {
        let api = Api::new(layer(), move |_, _| async move { status(kept, "") });
        api.send(post("k")).await.assert_fresh(kept, "");
        api.send(post("k")).await.assert_replay(kept, "");
        assert_eq!(api.runs(), 1);
    }
}

#[tokio::test]
async fn which_answers_are_kept_may_be_told() {
    let layer = layer().remember(|answer| answer.status == 402 || answer.headers.contains_key("x"));
    let api = Api::new(layer, |run, request: Request| async move {
        let declined = request.uri().path() == "/declined";
        let mut answer = status(if declined { 402 } else { 500 }, &format!("run {run}"));
        if request.uri().path() == "/begun" {
            answer.headers_mut().insert("x", "begun".parse().unwrap());
        }
        answer
    });
    let send = |target: &'static str| api.send(request(Method::POST, target, "k", ""));
    send("/declined").await.assert_fresh(402, "run 1");
    send("/declined").await.assert_replay(402, "run 1");
    send("/begun").await.assert_fresh(500, "run 2");
    send("/begun").await.assert_replay(500, "run 2");
    send("/failed").await.assert_fresh(500, "run 3");
    send("/failed").await.assert_fresh(500, "run 4");
}
