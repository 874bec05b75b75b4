//! The shop over HTTP.

use crate::shop::{Bought, Shop, Wish};
use crate::turns::Turns;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use hapax::claim::{Gate, GateError};
use hapax::confirm::Inline;
use hapax::confirm::claims::MemoryClaims;
use hapax::http::{IdempotencyKey, IdempotencyLayer};
use serde_json::json;
use std::error::Error;
use std::sync::Arc;

/// Whose request it is.
#[derive(Clone)]
struct Customer(String);

#[derive(Clone)]
struct Counter {
    shop: Arc<Shop>,
    turns: Arc<Turns>,
}

/// `POST /orders`, with a [`Wish`] as JSON, gives 201 and the order.
pub(crate) fn router(shop: Arc<Shop>) -> Result<Router, GateError> {
    let counter = Counter { shop, turns: Arc::new(Turns::new()?) };
    let edge = Gate::builder(Inline(MemoryClaims::new())).remember(0).build()?;
    let idempotency = IdempotencyLayer::by_tenant(edge, |request| {
        let customer: Option<&Customer> = request.extensions.get();
        customer.map(|customer| customer.0.clone().into_bytes())
    });
    Ok(Router::new()
        .route("/orders", post(take_order))
        .route_layer(idempotency.required())
        .route_layer(from_fn(authenticate))
        .with_state(counter))
}

/// Stands for real authentication: believes whatever name it is told.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some(name) = header.and_then(|header| header.strip_prefix("Bearer ")) else {
        return problem(StatusCode::UNAUTHORIZED, "unknown-customer", "Say who you are.");
    };
    let customer = Customer(name.to_owned());
    request.extensions_mut().insert(customer);
    next.run(request).await
}

async fn take_order(
    State(counter): State<Counter>,
    Extension(Customer(customer)): Extension<Customer>,
    headers: HeaderMap,
    Json(wish): Json<Wish>,
) -> Response {
    // The layer has refused requests without one.
    let Ok(Some(key)) = IdempotencyKey::of(&headers) else {
        return problem(StatusCode::BAD_REQUEST, "key-missing", "Send an Idempotency-Key.");
    };
    let turn = match counter.turns.take(&customer) {
        Ok(Some(turn)) => turn,
        Ok(None) => {
            let detail = "One order at a time: send this one again when the other is done.";
            return retry_later(problem(StatusCode::TOO_MANY_REQUESTS, "turn-taken", detail));
        }
        Err(error) => return unavailable(&error),
    };
    let bought = counter.shop.buy(&customer, key.as_str(), &wish).await;
    drop(turn);
    match bought {
        Ok(bought) => answer(bought),
        Err(error) => unavailable(&error),
    }
}

fn answer(bought: Bought) -> Response {
    match bought {
        Bought::Now(order) => made(order),
        Bought::Before(order) => {
            ([(HeaderName::from_static("idempotency-replayed"), "true")], made(order))
                .into_response()
        }
        Bought::InFlight => {
            let detail = "The order is being made: send it again, with the same key.";
            retry_later(problem(StatusCode::CONFLICT, "in-flight", detail))
        }
        Bought::KeyReused => {
            let detail = "The key was used for another order: take a new one.";
            problem(StatusCode::UNPROCESSABLE_ENTITY, "key-reused", detail)
        }
        Bought::Exists => {
            let detail = "There is an order with this reference, made with another key.";
            problem(StatusCode::CONFLICT, "order-exists", detail)
        }
        Bought::SoldOut => {
            problem(StatusCode::CONFLICT, "sold-out", "There is not so much of it left.")
        }
    }
}

fn made(order: Arc<[u8]>) -> Response {
    let json = [(CONTENT_TYPE, "application/json")];
    (StatusCode::CREATED, json, Bytes::from_owner(order)).into_response()
}

/// What went wrong is for the shop's own eyes.
fn unavailable(error: &dyn Error) -> Response {
    let mut cause = Some(error);
    while let Some(error) = cause {
        eprintln!("no order was taken: {error}");
        cause = error.source();
    }
    let detail = "Send the order again, with the same key.";
    retry_later(problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail))
}

fn retry_later(response: Response) -> Response {
    ([(RETRY_AFTER, "1")], response).into_response()
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    let problem = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "detail": detail,
        "code": code,
    });
    let json = [(CONTENT_TYPE, "application/problem+json")];
    (status, json, problem.to_string()).into_response()
}
