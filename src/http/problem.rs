//! What clients are told in place of the handler's answer.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Extensions, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// Why a request got no answer of the handler's.
///
/// Clients get it as `application/problem+json` ([RFC 9457]), with its [`code`](Self::code),
/// which never changes, as an extension. Layers outside of this one find it among the answer's
/// extensions, and next to it the [`ClaimError`](crate::claim::ClaimError) or
/// [`LeaseError`](crate::claim::LeaseError) that led to it: those say more than clients should
/// know.
///
/// [RFC 9457]: https://www.rfc-editor.org/rfc/rfc9457
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Problem {
    /// The route wants a key.
    KeyMissing,
    /// The key is not one.
    KeyMalformed,
    /// The request's body broke off.
    BodyUnreadable,
    /// Nobody knows whose request it is.
    TenantUnknown,
    /// Another request with the key is being processed.
    InFlight,
    /// The request was processed, but so slowly that another one took over.
    Superseded,
    /// The request was processed before, and its answer was not kept.
    AnswerNotKept,
    /// The request's body is too large to be compared with a retry's.
    BodyTooLarge,
    /// Tenant, scope and key together are too long.
    ScopeTooLong,
    /// The key came with another request before.
    KeyReused,
    /// The handler panicked, or its answer broke off.
    HandlerFailed,
    /// The request was processed before, and its answer cannot be read.
    AnswerDamaged,
    /// The claims' store does not answer; the handler was not called.
    StoreUnavailable,
}

impl Problem {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::KeyMissing,
        Self::KeyMalformed,
        Self::BodyUnreadable,
        Self::TenantUnknown,
        Self::InFlight,
        Self::Superseded,
        Self::AnswerNotKept,
        Self::BodyTooLarge,
        Self::ScopeTooLong,
        Self::KeyReused,
        Self::HandlerFailed,
        Self::AnswerDamaged,
        Self::StoreUnavailable,
    ];

    /// The answer's status.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::KeyMissing | Self::KeyMalformed | Self::BodyUnreadable => StatusCode::BAD_REQUEST,
            Self::TenantUnknown => StatusCode::FORBIDDEN,
            Self::InFlight | Self::Superseded => StatusCode::CONFLICT,
            Self::AnswerNotKept => StatusCode::GONE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::ScopeTooLong => StatusCode::URI_TOO_LONG,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::HandlerFailed | Self::AnswerDamaged => StatusCode::INTERNAL_SERVER_ERROR,
            Self::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Its name, for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::KeyMissing => "key-missing",
            Self::KeyMalformed => "key-malformed",
            Self::BodyUnreadable => "body-unreadable",
            Self::TenantUnknown => "tenant-unknown",
            Self::InFlight => "in-flight",
            Self::Superseded => "superseded",
            Self::AnswerNotKept => "answer-not-kept",
            Self::BodyTooLarge => "body-too-large",
            Self::ScopeTooLong => "scope-too-long",
            Self::KeyReused => "key-reused",
            Self::HandlerFailed => "handler-failed",
            Self::AnswerDamaged => "answer-damaged",
            Self::StoreUnavailable => "store-unavailable",
        }
    }

    /// What it is, for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::KeyMissing => "Idempotency-Key is missing",
            Self::KeyMalformed => "Idempotency-Key is malformed",
            Self::BodyUnreadable => "The request's body could not be read",
            Self::TenantUnknown => "It is not known whose request this is",
            Self::InFlight => "A request with this Idempotency-Key is being processed",
            Self::Superseded => "Another request with this Idempotency-Key took over",
            Self::AnswerNotKept => "Already done, and the answer was not kept",
            Self::BodyTooLarge => "The request's body is too large",
            Self::ScopeTooLong => "The request's target is too long",
            Self::KeyReused => "Idempotency-Key was used for another request",
            Self::HandlerFailed => "The request could not be processed",
            Self::AnswerDamaged => "Already done, and the answer cannot be read",
            Self::StoreUnavailable => "Idempotency-Keys cannot be looked up",
        }
    }

    /// What the client should do.
    const fn advice(self) -> &'static str {
        match self {
            Self::KeyMissing => {
                "Send an Idempotency-Key header: a new UUID for each operation, and the same one \
                 when you retry it."
            }
            Self::KeyMalformed => "Send a UUID.",
            Self::BodyUnreadable => "Nothing was done: send the request again.",
            Self::TenantUnknown => "Nothing was done: authenticate, and send the request again.",
            Self::InFlight => {
                "Send the same request again after the seconds in Retry-After: you will get the \
                 first one's answer."
            }
            Self::Superseded => {
                "This one took too long, and its answer does not count. Send the same request \
                 again after the seconds in Retry-After: you will get the answer that does."
            }
            Self::AnswerNotKept => {
                "A request with this key was processed, and is not processed again; its answer \
                 was too large, or a stream. Look up what came of it, and take a new key for a \
                 new operation."
            }
            Self::BodyTooLarge => "Nothing was done: send a smaller body.",
            Self::ScopeTooLong => "Nothing was done: send a shorter target.",
            Self::KeyReused => {
                "Nothing was done: take a new key for a new operation, and repeat a retry's \
                 query, content type and body byte by byte."
            }
            Self::HandlerFailed => {
                "How much of it was done is not known: send the same request again, with the same \
                 key."
            }
            Self::AnswerDamaged => {
                "A request with this key was processed, and is not processed again. Look up what \
                 came of it, and take a new key for a new operation."
            }
            Self::StoreUnavailable => {
                "Nothing was done: send the same request again later, with the same key."
            }
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title())
    }
}

/// One case of a problem.
#[derive(Debug)]
pub(super) struct Refusal {
    problem: Problem,
    detail: Cow<'static, str>,
    retry_after: Option<Duration>,
    /// What led to it, for those inside.
    extensions: Extensions,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let detail = Cow::Borrowed(problem.advice());
        Self { problem, detail, retry_after: None, extensions: Extensions::new() }
    }
}

impl Refusal {
    /// With a detail of its own.
    pub(super) fn because(self, detail: String) -> Self {
        Self { detail: Cow::Owned(detail), ..self }
    }

    /// To be tried again after so long.
    pub(super) fn retry_after(self, pause: Duration) -> Self {
        Self { retry_after: Some(pause), ..self }
    }

    /// Because of this.
    pub(super) fn caused_by(mut self, error: impl Clone + Send + Sync + 'static) -> Self {
        self.extensions.insert(error);
        self
    }

    /// As clients get it. Without the address of a documentation its type is `about:blank`,
    /// whose title is the status's own.
    pub(super) fn into_response(self, documentation: Option<&str>) -> Response<Full<Bytes>> {
        let Self { problem, detail, retry_after, mut extensions } = self;
        let (status, code) = (problem.status(), problem.code());
        let (kind, title) = match documentation {
            Some(address) => (format!("{address}#{code}"), problem.title()),
            None => ("about:blank".to_owned(), status.canonical_reason().unwrap_or_default()),
        };
        let body = json!({
            "type": kind,
            "title": title,
            "status": status.as_u16(),
            "detail": detail,
            "code": code,
        });
        let mut response = Response::new(Full::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(pause) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds(pause)));
        }
        extensions.insert(problem);
        *response.extensions_mut() = extensions;
        response
    }
}

/// Rounded up: whoever comes earlier comes in vain.
fn seconds(pause: Duration) -> u64 {
    (pause.as_secs() + u64::from(pause.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::HashSet;

    fn body(refusal: Refusal, documentation: Option<&str>) -> (Response<()>, Value) {
        let response = refusal.into_response(documentation);
        let (parts, body) = response.into_parts();
        let collected = crate::confirm::at_once(http_body_util::BodyExt::collect(body)).unwrap();
        let json = serde_json::from_slice(&collected.to_bytes()).unwrap();
        (Response::from_parts(parts, ()), json)
    }

    #[test]
    fn each_problem_has_a_code_and_says_what_to_do() {
        let mut codes = HashSet::new();
        for problem in Problem::ALL {
            let (response, json) = body(problem.into(), Some("https://example.com/keys"));
            assert!(codes.insert(problem.code()), "{problem:?}");
            assert_eq!(response.status(), problem.status());
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
            assert_eq!(json["type"], format!("https://example.com/keys#{}", problem.code()));
            assert_eq!(json["status"], problem.status().as_u16());
            assert_eq!(json["title"], problem.title());
            assert_eq!(json["code"], problem.code());
            assert!(json["detail"].as_str().is_some_and(|detail| detail.ends_with('.')));
            assert_eq!(response.extensions().get(), Some(&problem));
        }
    }

    #[test]
    fn without_documentation_the_status_is_the_type() {
        let (_, json) = body(Problem::InFlight.into(), None);
        assert_eq!(
            (json["type"].as_str(), json["title"].as_str()),
            (Some("about:blank"), Some("Conflict"))
        );
    }

    #[test]
    fn a_pause_is_rounded_up_to_seconds() {
        for (millis, expected) in [(1, "1"), (1_000, "1"), (1_001, "2"), (299_999, "300")] {
            let refusal = Refusal::from(Problem::InFlight);
            let refusal = refusal.retry_after(Duration::from_millis(millis));
            assert_eq!(body(refusal, None).0.headers()[RETRY_AFTER], expected);
        }
    }
}
