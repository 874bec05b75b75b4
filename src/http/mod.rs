//! The `Idempotency-Key` header: one effect per key, over HTTP.
//!
//! It owns how a request's key, tenant, scope and payload are read, which answers are kept
//! and how they are replayed, and what clients are told otherwise. It leaves out who gets in,
//! which is the [`Gate`](crate::claim::Gate)'s to say. It follows the [IETF's draft][draft]
//! and, where that leaves a choice, what [Stripe][stripe] does; `docs/http.md` has it all in a
//! table. Invariants:
//!
//! - the handler runs under a lease, in a task of its own: a client that goes away leaves
//!   neither the work undone nor its key in doubt;
//! - an answer is stored before it is given;
//! - nobody gets an answer to another tenant's request, or to another request of his own.
//!
//! ```
//! use axum::{Router, routing::post};
//! use hapax::claim::Gate;
//! use hapax::confirm::{Inline, claims::MemoryClaims};
//! use hapax::http::IdempotencyLayer;
//!
//! # fn main() -> Result<(), hapax::claim::GateError> {
//! let gate = Gate::builder(Inline(MemoryClaims::new())).build()?;
//! let idempotency = IdempotencyLayer::by_tenant(gate, |request| {
//!     // Whoever the authentication, in a layer outside of this one, says it is.
//!     request.extensions.get::<String>().map(|account| account.as_bytes().to_vec())
//! })
//! .required();
//! let app: Router = Router::new()
//!     .route("/charges", post(async || "charged"))
//!     .route_layer(idempotency);
//! # Ok(())
//! # }
//! ```
//!
//! [draft]: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
//! [stripe]: https://docs.stripe.com/api/idempotent_requests

mod answer;
mod key;
mod layer;
mod problem;
mod service;
mod work;

pub use key::{IdempotencyKey, KeyError};
pub use layer::IdempotencyLayer;
pub use problem::Problem;
pub use service::{Buffered, Idempotency};
