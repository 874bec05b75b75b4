//! A payments API whose charges are made once, however often they are sent.
//!
//! ```text
//! cargo run --example payments --features embedded,http,postgres,redis
//! ```
//!
//! Claims are kept in a file beside the ledger; with `--redis URL` or `--postgres URL` in a
//! server, for several such processes. The ledger stands for whatever really moves money: a
//! line in it is a charge.
//!
//! # A walk-through
//!
//! Anna charges 10, under a key of her own making:
//!
//! ```text
//! $ curl -si localhost:3000/charges -H 'Authorization: Bearer anna' -H 'Idempotency-Key: 7f3a' --json '{"amount":10}'
//! HTTP/1.1 201 Created
//! location: /charges/7f3a
//! {"account":"anna","amount":10,"key":"7f3a"}
//! ```
//!
//! Her connection breaks, say, and she sends it again. She gets the same answer, and nothing is
//! charged:
//!
//! ```text
//! $ curl -si localhost:3000/charges -H 'Authorization: Bearer anna' -H 'Idempotency-Key: 7f3a' --json '{"amount":10}'
//! HTTP/1.1 201 Created
//! idempotency-replayed: true
//! {"account":"anna","amount":10,"key":"7f3a"}
//! $ curl -s localhost:3000/charges -H 'Authorization: Bearer anna'
//! [{"account":"anna","amount":10,"key":"7f3a"}]
//! ```
//!
//! Another amount under that key is a mistake:
//!
//! ```text
//! $ curl -si localhost:3000/charges -H 'Authorization: Bearer anna' -H 'Idempotency-Key: 7f3a' --json '{"amount":100}'
//! HTTP/1.1 422 Unprocessable Entity
//! content-type: application/problem+json
//! "code":"key-reused"
//! ```
//!
//! So is no key at all:
//!
//! ```text
//! $ curl -si localhost:3000/charges -H 'Authorization: Bearer anna' --json '{"amount":10}'
//! HTTP/1.1 400 Bad Request
//! "code":"key-missing"
//! ```
//!
//! Bert may take the same key: it is another one, because he is another tenant. His first try is
//! refused, which is not kept, so that he can put it right under the same key:
//!
//! ```text
//! $ curl -si localhost:3000/charges -H 'Authorization: Bearer bert' -H 'Idempotency-Key: 7f3a' --json '{"amount":0}'
//! HTTP/1.1 400 Bad Request
//! an amount is at least 1
//! $ curl -si localhost:3000/charges -H 'Authorization: Bearer bert' -H 'Idempotency-Key: 7f3a' --json '{"amount":20}'
//! HTTP/1.1 201 Created
//! {"account":"bert","amount":20,"key":"7f3a"}
//! ```

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, LOCATION};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use clap::Parser;
use hapax::claim::Gate;
use hapax::confirm::Inline;
use hapax::confirm::claims::{AsyncClaimStore, EmbeddedClaims, Grant, PostgresClaims, RedisClaims};
use hapax::http::{IdempotencyKey, IdempotencyLayer};
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::iter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A payments API whose charges are made once, however often they are sent.
#[derive(Parser)]
struct Arguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: String,
    /// A folder for the ledger and, unless they are in a server, the claims
    #[arg(long, default_value = "payments-data")]
    data: PathBuf,
    /// Keep claims in the Redis server with this address
    #[arg(long, value_name = "URL", conflicts_with = "postgres")]
    redis: Option<String>,
    /// Keep claims in the PostgreSQL database with this address
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Err(failure) = run(Arguments::parse()).await else { return ExitCode::SUCCESS };
    eprint!("payments: {failure}");
    for cause in iter::successors(failure.source(), |cause| cause.source()) {
        eprint!(": {cause}");
    }
    eprintln!();
    ExitCode::FAILURE
}

async fn run(Arguments { listen, data, redis, postgres }: Arguments) -> Result<(), Failure> {
    let listener = TcpListener::bind(&listen).await?;
    if let Some(url) = redis {
        let claims = RedisClaims::server(&url).namespace("payments").connect().await?;
        return serve(listener, claims, &data).await;
    }
    if let Some(url) = postgres {
        let builder = PostgresClaims::builder(&url).namespace("payments");
        builder.create_schema().await?;
        return serve(listener, builder.connect().await?, &data).await;
    }
    serve(listener, Inline(embedded(&data)?), &data).await
}

fn embedded(data: &Path) -> Result<EmbeddedClaims, Failure> {
    fs::create_dir_all(data)?;
    Ok(EmbeddedClaims::builder(data.join("claims.redb")).open()?)
}

/// Serves for as long as the process lives.
async fn serve<S: AsyncClaimStore + 'static>(
    listener: TcpListener,
    claims: S,
    data: &Path,
) -> Result<(), Failure> {
    let gate = Gate::builder(claims).lease(Duration::from_secs(30)).build()?;
    tokio::spawn(sweep(gate.clone()));
    let ledger = Arc::new(Ledger::open(data)?);
    println!("listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, app(gate, ledger)).await?)
}

/// Stores that do not drop what has expired by themselves are told to.
async fn sweep<S: AsyncClaimStore + 'static>(gate: Gate<S>) {
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
        if let Err(error) = gate.maintain_async(Duration::from_millis(100)).await {
            eprintln!("claims were not swept: {error}");
        }
    }
}

/// Whoever sends the request, as authentication has found.
#[derive(Clone)]
struct Account(String);

fn app<S: AsyncClaimStore + 'static>(gate: Gate<S>, ledger: Arc<Ledger>) -> Router {
    let idempotency = IdempotencyLayer::by_tenant(gate, |request| {
        request.extensions.get::<Account>().map(|account| account.0.clone().into_bytes())
    });
    Router::new()
        .route("/charges", get(charges).post(charge))
        .route_layer(idempotency.required())
        // Added last, so it comes first, and the tenant is known.
        .route_layer(middleware::from_fn(authenticate))
        .with_state(ledger)
}

/// A token that is the account's name will do for an example.
async fn authenticate(mut request: Request, next: Next) -> Response {
    let header = request.headers().get(AUTHORIZATION);
    let token = header.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let Some(account) = token.map(str::to_owned) else {
        return (StatusCode::UNAUTHORIZED, "send a bearer token\n").into_response();
    };
    request.extensions_mut().insert(Account(account));
    next.run(request).await
}

async fn charge(
    State(ledger): State<Arc<Ledger>>,
    Extension(Account(account)): Extension<Account>,
    Extension(grant): Extension<Grant>,
    headers: HeaderMap,
    Json(order): Json<Value>,
) -> Result<Response, Rejection> {
    let amount = order["amount"].as_u64().filter(|amount| *amount > 0);
    let amount = amount.ok_or(Rejection::Amount)?;
    let key = IdempotencyKey::of(&headers).ok().flatten().ok_or(Rejection::Key)?;
    let charge = json!({"account": account, "amount": amount, "key": key.as_str()});
    let location = format!("/charges/{key}");
    let entry = charge.clone();
    // Whoever tried before may have come as far as the ledger, and no farther: look first.
    let may_be_there = grant.attempt > 1;
    spawn_blocking(move || ledger.enter(&entry, may_be_there)).await??;
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(charge)).into_response())
}

async fn charges(
    State(ledger): State<Arc<Ledger>>,
    Extension(Account(account)): Extension<Account>,
) -> Result<Json<Vec<Value>>, Rejection> {
    let mut charges = spawn_blocking(move || ledger.entries()).await??;
    charges.retain(|charge| charge["account"] == account.as_str());
    Ok(Json(charges))
}

/// The charges that were made, one a line.
struct Ledger {
    path: PathBuf,
    end: Mutex<File>,
}

impl Ledger {
    fn open(data: &Path) -> io::Result<Self> {
        fs::create_dir_all(data)?;
        let path = data.join("ledger.jsonl");
        let end = Mutex::new(OpenOptions::new().create(true).append(true).open(&path)?);
        Ok(Self { path, end })
    }

    /// Makes a charge that lasts.
    fn enter(&self, charge: &Value, may_be_there: bool) -> io::Result<()> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        if may_be_there && self.entries()?.contains(charge) {
            return Ok(());
        }
        end.write_all(format!("{charge}\n").as_bytes())?;
        end.sync_all()
    }

    fn entries(&self) -> io::Result<Vec<Value>> {
        let text = fs::read_to_string(&self.path)?;
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }
}

/// Why a request was not processed. None of it is kept: the key stays free.
enum Rejection {
    Amount,
    Key,
    Ledger(io::Error),
}

impl From<io::Error> for Rejection {
    fn from(error: io::Error) -> Self {
        Self::Ledger(error)
    }
}

impl From<tokio::task::JoinError> for Rejection {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Ledger(error.into())
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        match self {
            Self::Amount => (StatusCode::BAD_REQUEST, "an amount is at least 1\n"),
            Self::Key => (StatusCode::BAD_REQUEST, "a charge needs an Idempotency-Key\n"),
            Self::Ledger(error) => {
                eprintln!("the ledger failed: {error}");
                (StatusCode::INTERNAL_SERVER_ERROR, "the ledger cannot be written\n")
            }
        }
        .into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::process::Command;

    /// A command of the walk-through, and what its output has, in this order.
    struct Step {
        command: String,
        expected: Vec<&'static str>,
    }

    fn walk_through() -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        let mut is_open = false;
        for line in include_str!("payments.rs").lines() {
            let Some(line) = line.strip_prefix("//!") else { break };
            let line = line.trim_start();
            if let Some(command) = line.strip_prefix("$ ") {
                steps.push(Step { command: command.to_owned(), expected: Vec::new() });
                is_open = true;
            } else if line.starts_with("```") {
                is_open = false;
            } else if is_open {
                steps.last_mut().expect("a command").expected.push(line);
            }
        }
        steps
    }

    fn run(step: &Step, address: SocketAddr) {
        let command = step.command.replace("localhost:3000", &address.to_string());
        let output = Command::new("sh").args(["-c", &command]).output().expect("a shell");
        let text = String::from_utf8(output.stdout).expect("text");
        let mut rest = text.as_str();
        for expected in &step.expected {
            let at = rest.find(expected).unwrap_or_else(|| {
                panic!("`{command}` said {text}, without `{expected}` or in another order")
            });
            rest = &rest[at + expected.len()..];
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_walk_through_is_as_it_says() {
        let data = tempfile::tempdir().expect("a folder");
        let steps = walk_through();
        assert_eq!(steps.len(), 7);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let claims = Inline(embedded(data.path()).expect("claims"));
        let path = data.path().to_owned();
        let server = tokio::spawn(async move { serve(listener, claims, &path).await });
        spawn_blocking(move || steps.iter().for_each(|step| run(step, address)))
            .await
            .expect("the walk-through is as it says");
        server.abort();
        let ledger = Ledger::open(data.path()).expect("a ledger");
        assert_eq!(ledger.entries().expect("charges").len(), 2);
    }

    #[test]
    fn a_charge_that_is_there_is_not_made_again() {
        let data = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::open(data.path()).expect("a ledger");
        let charge = json!({"account": "anna", "amount": 10, "key": "k"});
        ledger.enter(&charge, false).expect("room");
        ledger.enter(&charge, true).expect("room");
        assert_eq!(ledger.entries().expect("charges"), [charge]);
    }
}
