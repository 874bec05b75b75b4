//! What is asked about an identity, as a command, and what the reply says.

use crate::confirm::claims::{
    Answer, ClaimRequest, Ending, Fence, Grant, Outcome, SettleRequest, Settled, Settlement,
    Status, Terms,
};
use crate::confirm::redis::failure::senseless;
use crate::confirm::redis::script::{Naming, Script};
use crate::confirm::{StoreError, Token};
use crate::time::Timestamp;
use redis::{Cmd, Value};
use std::sync::LazyLock;
use std::time::Duration;

pub(super) const SOURCE: &str = include_str!("script.lua");

pub(super) static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(SOURCE));

/// The script's numbers are exact up to here, in microseconds: what ends later, after
/// 2255, never does.
pub(super) const NEVER_MICROS: u64 = 1 << 53;

/// What is asked about an identity.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call<'a> {
    Claim(&'a ClaimRequest),
    Settle(&'a SettleRequest<'a>),
    Look,
}

impl<'a> Call<'a> {
    /// What has a script answer it about the identity that goes by `name`.
    pub(super) fn command(self, script: &Script, name: &[u8], naming: Naming) -> Cmd {
        let Arguments { word, token, terms, digest, outcome } = self.arguments();
        let mut command = script.about(1, naming);
        command.arg(name).arg(word).arg(token.number().to_be_bytes().as_slice());
        command.arg(micros(terms.lease)).arg(micros(terms.keep)).arg(digest);
        command.arg(outcome.map_or("", how)).arg(outcome.and_then(Outcome::bytes).unwrap_or(b""));
        command
    }

    fn arguments(self) -> Arguments<'a> {
        match self {
            Self::Claim(ClaimRequest { token, digest, terms }) => {
                let digest = digest.as_bytes().as_slice();
                Arguments { digest, ..Arguments::new("claim", *token, *terms) }
            }
            Self::Settle(SettleRequest { token, settlement, terms }) => match settlement {
                Settlement::Complete(outcome) => {
                    let outcome = Some(*outcome);
                    Arguments { outcome, ..Arguments::new("complete", *token, *terms) }
                }
                Settlement::Release => Arguments::new("release", *token, *terms),
                Settlement::Extend => Arguments::new("extend", *token, *terms),
                Settlement::Adopt(digest, outcome) => {
                    let (digest, outcome) = (digest.as_bytes().as_slice(), Some(*outcome));
                    Arguments { digest, outcome, ..Arguments::new("adopt", *token, *terms) }
                }
                Settlement::Clear => Arguments::new("clear", *token, *terms),
            },
            Self::Look => {
                let terms = Terms { lease: Duration::ZERO, keep: Duration::ZERO };
                Arguments::new("look", Token::new(0), terms)
            }
        }
    }
}

/// What the script is told.
struct Arguments<'a> {
    word: &'static str,
    token: Token,
    terms: Terms,
    digest: &'a [u8],
    outcome: Option<&'a Outcome>,
}

impl Arguments<'_> {
    const fn new(word: &'static str, token: Token, terms: Terms) -> Self {
        Self { word, token, terms, digest: b"", outcome: None }
    }
}

/// What the reply to a claim says.
pub(super) fn answer(reply: &Value) -> Result<Answer, StoreError> {
    let answer = match said(reply) {
        Some((b'G', rest)) => grant(rest).map(Answer::Granted),
        Some((b'F', rest)) => outcome(rest).map(Answer::Finished),
        Some((b'I', rest)) => {
            in_flight(rest).map(|(since, remaining, _)| Answer::InFlight { since, remaining })
        }
        Some((b'M', [])) => Some(Answer::Mismatch),
        _ => None,
    };
    answer.ok_or_else(|| senseless("of a claim", reply))
}

/// What the reply to a settlement says.
pub(super) fn settled(reply: &Value) -> Result<Settled, StoreError> {
    match said(reply) {
        Some((b'D', [])) => Ok(Settled::Done),
        Some((b'S', [])) => Ok(Settled::Stale),
        _ => Err(senseless("of a settlement", reply)),
    }
}

/// What the reply to a look says.
pub(super) fn status(reply: &Value) -> Result<Option<Status>, StoreError> {
    let status =
        match said(reply) {
            Some((b'-', [])) => return Ok(None),
            Some((b'F', rest)) => outcome(rest).map(Status::Finished),
            Some((b'I', rest)) => in_flight(rest)
                .map(|(since, remaining, grant)| Status::InFlight { since, remaining, grant }),
            _ => None,
        };
    status.map(Some).ok_or_else(|| senseless("of an identity", reply))
}

/// What it is that a reply says, and the rest of it.
fn said(reply: &Value) -> Option<(u8, &[u8])> {
    let Value::BulkString(bytes) = reply else { return None };
    bytes.split_first().map(|(what, rest)| (*what, rest))
}

fn grant(bytes: &[u8]) -> Option<Grant> {
    let (fence, bytes) = bytes.split_first_chunk()?;
    let (attempt, bytes) = bytes.split_first_chunk()?;
    let is_takeover = match bytes {
        [0] => false,
        [1] => true,
        _ => return None,
    };
    let fence = Fence::new(u64::from_be_bytes(*fence));
    Some(Grant { fence, attempt: u32::from_be_bytes(*attempt), is_takeover })
}

/// Since when, for how long, and whose.
fn in_flight(bytes: &[u8]) -> Option<(Timestamp, Duration, Grant)> {
    let (since, bytes) = bytes.split_first_chunk()?;
    let (remaining, bytes) = bytes.split_first_chunk()?;
    let since = Timestamp::from_micros(i64::from_be_bytes(*since));
    Some((since, Duration::from_micros(u64::from_be_bytes(*remaining)), grant(bytes)?))
}

/// How it ended, and whether its bytes are kept, as a letter.
fn how(outcome: &Outcome) -> &'static str {
    match (outcome.ending(), outcome.bytes()) {
        (Ending::Success, Some(_)) => "S",
        (Ending::Success, None) => "s",
        (Ending::Failure, Some(_)) => "F",
        (Ending::Failure, None) => "f",
    }
}

fn outcome(bytes: &[u8]) -> Option<Outcome> {
    match bytes.split_first()? {
        (b'S', bytes) => Some(Outcome::success(bytes)),
        (b's', []) => Some(Outcome::tombstone(Ending::Success)),
        (b'F', bytes) => Some(Outcome::failure(bytes)),
        (b'f', []) => Some(Outcome::tombstone(Ending::Failure)),
        _ => None,
    }
}

/// As the script counts: part of a microsecond is cut.
fn micros(span: Duration) -> u64 {
    span.as_micros().min(u128::from(NEVER_MICROS)) as u64
}
