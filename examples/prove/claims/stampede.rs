//! The same request, many times at once.

use super::place::{Errand, PATIENCE, Store};
use crate::report::{Report, Status, grouped};
use crate::slow_path::runtime;
use crate::{Failure, Options};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request};
use axum::routing::post;
use hapax::claim::Gate;
use hapax::confirm::claims::AsyncClaimStore;
use hapax::http::IdempotencyLayer;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Barrier;
use tower::ServiceExt as _;

const REQUESTS: usize = 100;
const FULL_ROUNDS: usize = 1_000;
const SHORT_ROUNDS: usize = 20;
const LEASE: Duration = Duration::from_secs(300);
const HEADER: &str = "idempotency-key";

pub(super) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let rounds = if full { FULL_ROUNDS } else { SHORT_ROUNDS };
    for name in Store::NAMES {
        let what = format!(
            "{REQUESTS} identical POSTs at once, {} rounds, {name}",
            grouped(rounds as u64)
        );
        report.take(&what, "the handler runs once a key", || {
            let store = Store::start(name)?;
            let errand = Stampede { rounds };
            let wrong = runtime()?.block_on(store.place(0).send(LEASE, errand))?;
            let figure = format!("{} keys otherwise, or answered otherwise", grouped(wrong));
            Ok((figure, Status::of_run(wrong == 0, !full)))
        });
    }
}

/// How often the handler ran for each key.
type Runs = Arc<Vec<AtomicU64>>;

/// Sends every key many times at once; how many keys did not run once and answer all alike.
struct Stampede {
    rounds: usize,
}

impl Errand for Stampede {
    type Done = u64;

    async fn run<S: AsyncClaimStore + 'static>(self, gate: Gate<S>) -> Result<u64, Failure> {
        let runs: Runs = Arc::new((0..self.rounds).map(|_| AtomicU64::new(0)).collect());
        let layer = IdempotencyLayer::single_tenant(gate).required().wait(PATIENCE);
        let app = Router::new()
            .route("/charges", post(charge))
            .route_layer(layer)
            .with_state(Arc::clone(&runs));
        let mut wrong = 0;
        for (round, runs) in runs.iter().enumerate() {
            let are_alike = send(&app, round).await?;
            wrong += u64::from(!are_alike || runs.load(Ordering::SeqCst) != 1);
        }
        Ok(wrong)
    }
}

async fn charge(State(runs): State<Runs>, headers: HeaderMap) -> String {
    let key = headers.get(HEADER).and_then(|key| key.to_str().ok()?.parse::<usize>().ok());
    let run = key.map(|key| runs[key].fetch_add(1, Ordering::SeqCst));
    // The others come meanwhile.
    tokio::time::sleep(Duration::from_millis(1)).await;
    format!("charged, run {run:?}")
}

/// True iff all answers say that the first run succeeded.
async fn send(app: &Router, key: usize) -> Result<bool, Failure> {
    let start = Arc::new(Barrier::new(REQUESTS));
    let requests: Vec<_> = (0..REQUESTS)
        .map(|_| {
            let request = Request::post("/charges").header(HEADER, key.to_string());
            let (request, app) = (request.body(Body::from("amount=10"))?, app.clone());
            let start = Arc::clone(&start);
            Ok(tokio::spawn(async move {
                start.wait().await;
                let Ok(response) = app.oneshot(request).await;
                let is_success = response.status().is_success();
                let body = to_bytes(response.into_body(), 1 << 10).await;
                is_success && body.is_ok_and(|body| body == "charged, run Some(0)")
            }))
        })
        .collect::<Result<_, Failure>>()?;
    let mut are_alike = true;
    for request in requests {
        are_alike &= request.await?;
    }
    Ok(are_alike)
}
