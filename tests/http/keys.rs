//! Which requests are keyed, and by what.

use crate::api::{Api, layer, post, request};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method};

fn with_keys(values: &[&[u8]]) -> Request {
    let mut request = Request::post("/charges").body(Body::empty()).unwrap();
    for value in values {
        let value = HeaderValue::from_bytes(value).unwrap();
        request.headers_mut().append("Idempotency-Key", value);
    }
    request
}

#[tokio::test]
async fn a_missing_key_is_refused_where_it_is_required() {
    let api = Api::counting(layer().required());
    api.send(with_keys(&[])).await.assert_problem(400, "key-missing");
    assert_eq!(api.runs(), 0);
}

#[tokio::test]
async fn elsewhere_requests_without_a_key_pass_each_time() {
    let api = Api::counting(layer());
    api.send(with_keys(&[])).await.assert_fresh(201, "run 1");
    api.send(with_keys(&[])).await.assert_fresh(201, "run 2");
}

#[tokio::test]
async fn what_is_no_key_is_refused_though_none_is_required() {
    let api = Api::counting(layer());
    let long = [b'k'; 256];
    for values in [
        &[b"".as_slice()][..],
        &[b"a b"],
        &[b"a,b"],
        &[b"\"open"],
        &[b"\"a\", \"b\""],
        &[b"\xff"],
        &[&long],
        &[b"a", b"a"],
        &[b"a", b"b", b"c"],
    ] {
        let reply = api.send(with_keys(values)).await;
        reply.assert_problem(400, "key-malformed");
    }
    assert_eq!(api.runs(), 0);
}

#[tokio::test]
async fn one_key_in_two_spellings_is_one_key() {
    let api = Api::counting(layer());
    api.send(post("k-1")).await.assert_fresh(201, "run 1");
    api.send(post("\"k-1\"")).await.assert_replay(201, "run 1");
    api.send(post("\"k-1\";v=2")).await.assert_replay(201, "run 1");
    api.send(post("K-1")).await.assert_fresh(201, "run 2");
}

#[tokio::test]
async fn post_and_patch_are_keyed_unless_told_otherwise() {
    let api = Api::counting(layer().required());
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::OPTIONS] {
        for _ in 0..2 {
            let reply = api.send(request(method.clone(), "/charges", "k", "")).await;
            assert_eq!((reply.status.as_u16(), reply.is_replay()), (201, false), "{method}");
        }
    }
    for method in [Method::POST, Method::PATCH] {
        api.send(request(method.clone(), "/charges", "k", "")).await;
        let again = api.send(request(method.clone(), "/charges", "k", "")).await;
        assert!(again.is_replay(), "{method}");
    }
    let api = Api::counting(layer().methods([Method::PUT]));
    api.send(request(Method::PUT, "/", "k", "")).await.assert_fresh(201, "run 1");
    api.send(request(Method::PUT, "/", "k", "")).await.assert_replay(201, "run 1");
    api.send(request(Method::POST, "/", "k", "")).await.assert_fresh(201, "run 2");
}
