//! Arbitrary headers and bodies, and a naive model of what the layer makes of them. Tests and the
//! fuzz target share it: it stands alone.

use axum::body::Bytes;
use axum::http::{HeaderValue, Method, Request, Response};
use hapax::claim::Gate;
use hapax::confirm::Inline;
use hapax::confirm::claims::MemoryClaims;
use hapax::http::{Buffered, Idempotency, IdempotencyLayer};
use http_body_util::Full;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::runtime::{Builder, Runtime};
use tower::{Layer as _, Service};

/// Small, so that inputs go beyond it.
const MAX_BODY_BYTES: usize = 64;

/// After so many keys a subject starts anew, to stay small.
const MOST_KEYS: usize = 10_000;

/// The layer over a handler that counts, and what it should answer. It panics where the two
/// differ.
pub(crate) struct Subject {
    runtime: Runtime,
    service: Idempotency<Counting, Inline<MemoryClaims>>,
    handler: Counting,
    model: Model,
}

/// The payload that each key came with first, and how often the handler was called.
#[derive(Default)]
struct Model {
    payloads: HashMap<Vec<u8>, Vec<u8>>,
    runs: u64,
}

#[derive(Clone, Default)]
struct Counting(Arc<AtomicU64>);

/// What a request's headers say.
#[derive(Debug)]
enum Reading {
    Absent,
    Malformed,
    Key(Vec<u8>),
    /// Parameters follow, which the model does not read: this key, or malformed.
    Unsure(Vec<u8>),
}

impl Subject {
    pub(crate) fn new() -> Self {
        let gate = Gate::builder(Inline(MemoryClaims::new())).remember(0).build();
        let gate = gate.expect("random bytes");
        let layer = IdempotencyLayer::single_tenant(gate).max_body(MAX_BODY_BYTES);
        let handler = Counting::default();
        Self {
            runtime: Builder::new_current_thread().enable_time().build().expect("a runtime"),
            service: layer.layer(handler.clone()),
            handler,
            model: Model::default(),
        }
    }

    /// Any bytes: the first says how many headers there are, each of which ends with a line
    /// feed; the rest is the body.
    pub(crate) fn feed_bytes(&mut self, input: &[u8]) {
        let Some((count, mut rest)) = input.split_first() else { return };
        let mut headers = Vec::new();
        for _ in 0..count % 4 {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            headers.push(&rest[..end]);
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        self.feed(&headers, rest);
    }

    /// Sends a request with these keys and this body, and judges the answer.
    pub(crate) fn feed(&mut self, keys: &[&[u8]], body: &[u8]) {
        let values: Result<Vec<_>, _> =
            keys.iter().map(|key| HeaderValue::from_bytes(key)).collect();
        // What is no header at all does not come so far.
        let Ok(values) = values else { return };
        if self.model.payloads.len() > MOST_KEYS {
            *self = Self::new();
        }
        let reading = Reading::of(keys);
        let answer = self.send(values, body);
        let status = answer.status().as_u16();
        let is_replay = answer.headers().contains_key("idempotency-replayed");
        let expected = self.model.answer(reading, body, status);
        assert_eq!((status, is_replay), expected, "{keys:?} {body:?}");
        assert_eq!(self.handler.calls(), self.model.runs, "{keys:?} {body:?}");
    }

    fn send(&mut self, values: Vec<HeaderValue>, body: &[u8]) -> Response<Buffered<Full<Bytes>>> {
        let mut request = Request::new(Full::new(Bytes::copy_from_slice(body)));
        *request.method_mut() = Method::POST;
        for value in values {
            request.headers_mut().append("idempotency-key", value);
        }
        let answer = self.runtime.block_on(self.service.call(request));
        answer.expect("the handler does not fail")
    }
}

impl Model {
    /// Status, and whether it is a replay. `given` decides only what the model cannot read.
    fn answer(&mut self, reading: Reading, body: &[u8], given: u16) -> (u16, bool) {
        let key = match reading {
            Reading::Absent => {
                self.runs += 1;
                return (200, false);
            }
            Reading::Malformed => return (400, false),
            Reading::Unsure(_) if given == 400 => return (400, false),
            Reading::Key(key) | Reading::Unsure(key) => key,
        };
        if body.len() > MAX_BODY_BYTES {
            return (413, false);
        }
        match self.payloads.get(&key) {
            Some(payload) if payload == body => (200, true),
            Some(_) => (422, false),
            None => {
                self.payloads.insert(key, body.to_vec());
                self.runs += 1;
                (200, false)
            }
        }
    }
}

impl Reading {
    fn of(values: &[&[u8]]) -> Self {
        match values {
            [] => Self::Absent,
            [value] => Self::of_one(value.trim_ascii()).filter(),
            _ => Self::Malformed,
        }
    }

    fn of_one(value: &[u8]) -> Self {
        let Some(text) = value.strip_prefix(b"\"") else {
            let is_plain =
                value.iter().all(|byte| matches!(byte, b'!'..=b'~') && !b"\",".contains(byte));
            return if is_plain { Self::Key(value.to_vec()) } else { Self::Malformed };
        };
        let (mut key, mut rest) = (Vec::new(), text);
        loop {
            match rest {
                [b'"'] => return Self::Key(key),
                [b'"', b';', ..] => return Self::Unsure(key),
                [b'\\', byte @ (b'"' | b'\\'), after @ ..] => {
                    key.push(*byte);
                    rest = after;
                }
                [b'"' | b'\\', ..] => return Self::Malformed,
                [byte @ b' '..=b'~', after @ ..] => {
                    key.push(*byte);
                    rest = after;
                }
                _ => return Self::Malformed,
            }
        }
    }

    /// A key has 1 to 255 bytes.
    fn filter(self) -> Self {
        match self {
            Self::Key(key) | Self::Unsure(key) if !(1..=255).contains(&key.len()) => {
                Self::Malformed
            }
            reading => reading,
        }
    }
}

impl Counting {
    fn calls(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl<B> Service<Request<B>> for Counting {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        self.0.fetch_add(1, Ordering::SeqCst);
        ready(Ok(Response::new(Full::from("done"))))
    }
}
