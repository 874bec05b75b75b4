//! What the HTTP layer adds to a request.

use super::place::gate;
use crate::report::{Report, Status, grouped};
use crate::{Failure, Options};
use axum::Router;
use axum::routing::post;
use hapax::confirm::Inline;
use hapax::confirm::claims::MemoryClaims;
use hapax::http::IdempotencyLayer;
use hdrhistogram::Histogram;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

const FULL_REQUESTS: u64 = 200_000;
const SHORT_REQUESTS: u64 = 10_000;

/// The first requests only warm up.
const WARM_UP: u64 = 1_000;

const BODY: &str = "{\"amount\":1000,\"currency\":\"eur\",\"source\":\"tok_visa\"}";

pub(super) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let requests = if full { FULL_REQUESTS } else { SHORT_REQUESTS };
    let what = format!("added by the HTTP layer, {} new keys, p50 · p99", grouped(requests));
    report.take(&what, "at most 20 us · 100 us", || {
        let [plain, layered] = latencies(requests)?;
        let added = |quantile| {
            let [plain, layered] = [&plain, &layered].map(|all| all.value_at_quantile(quantile));
            layered.saturating_sub(plain) as f64 / 1e3
        };
        let (p50, p99) = (added(0.5), added(0.99));
        let plain = plain.value_at_quantile(0.5) as f64 / 1e3;
        let figure = format!("{p50:.1} us · {p99:.1} us (without it {plain:.1} us)");
        Ok((figure, Status::of_run(p50 <= 20.0 && p99 <= 100.0, !full)))
    });
}

/// Round trips in nanoseconds over loopback, without the layer and with it, in turn.
fn latencies(requests: u64) -> Result<[Histogram<u64>; 2], Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let app = Router::new().route("/charges", post(async || "charged"));
    let gate = gate(Inline(MemoryClaims::new()), Duration::from_secs(300))?;
    let layered = app.clone().route_layer(IdempotencyLayer::single_tenant(gate).required());
    let mut clients = [Client::of(&runtime, app)?, Client::of(&runtime, layered)?];
    let mut all = [Histogram::new(3)?, Histogram::new(3)?];
    for number in 0..WARM_UP + requests {
        for (client, all) in clients.iter_mut().zip(&mut all) {
            let nanos = client.post(number)?;
            if number >= WARM_UP {
                all.record(nanos)?;
            }
        }
    }
    Ok(all)
}

/// A client that waits for each answer, over one connection.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Serves `app`, and connects to it.
    fn of(runtime: &Runtime, app: Router) -> Result<Self, Failure> {
        let listener =
            runtime.block_on(TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))))?;
        let stream = TcpStream::connect(listener.local_addr()?)?;
        stream.set_nodelay(true)?;
        runtime.spawn(async move { axum::serve(listener, app).await });
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a request with a key of its own, and gives how long its answer took.
    fn post(&mut self, number: u64) -> Result<u64, Failure> {
        let request = format!(
            "POST /charges HTTP/1.1\r\nhost: localhost\r\nidempotency-key: key-{number}\r\n\
             content-length: {}\r\n\r\n{BODY}",
            BODY.len()
        );
        let start = Instant::now();
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (mut line, mut length, mut is_success) = (String::new(), 0, false);
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            is_success |= line.starts_with("http/1.1 200");
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        let nanos = u64::try_from(start.elapsed().as_nanos())?;
        if !is_success || body != b"charged" {
            return Err("a request was refused".into());
        }
        Ok(nanos)
    }
}
