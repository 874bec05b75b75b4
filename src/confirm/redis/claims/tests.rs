//! The script against what it was written from; real servers are in
//! `tests/redis_claims.rs`.

#[path = "../../../../tests/servers/mod.rs"]
mod servers;

use super::call::{self, Call, NEVER_MICROS, SOURCE};
use crate::confirm::claims::{
    ClaimRequest, Digest, Ending, Entry, Outcome, SettleRequest, Settlement, State, Terms,
};
use crate::confirm::redis::script::{Naming, Script};
use crate::confirm::{StoreErrorKind, Token};
use crate::time::Timestamp;
use parking_lot::Mutex;
use proptest::prelude::*;
use redis::{Connection, Value};
use servers::redis::{PROGRAM, Redis};
use std::time::Duration;

const NAME: &[u8] = b"claim:0::\0id";

/// 2100: later than the server's clock, so that it expires nothing by itself.
const BEGIN: i64 = 4_102_444_800_000_000;

/// From then until never.
const REST_MICROS: u64 = NEVER_MICROS - BEGIN as u64;

/// The script, told the time instead of asking for it.
struct Timeless {
    script: Script,
    connection: Connection,
}

impl Timeless {
    fn new(server: &Redis) -> Self {
        let own = "redis.call('TIME')";
        assert_eq!(SOURCE.matches(own).count(), 1);
        let script = Script::new(SOURCE.replace(own, "{ARGV[8], ARGV[9]}"));
        Self { script, connection: server.connection().unwrap() }
    }

    fn ask(&mut self, call: Call<'_>, now: Timestamp) -> Value {
        let mut command = call.command(&self.script, NAME, Naming::BySource);
        let (secs, micros) = (now.as_micros() / 1_000_000, now.as_micros() % 1_000_000);
        command.arg(secs).arg(micros).query(&mut self.connection).unwrap()
    }

    /// When the server drops the entry, in milliseconds.
    fn dropped_at(&mut self) -> i64 {
        redis::cmd("PEXPIRETIME").arg(NAME).query(&mut self.connection).unwrap()
    }
}

/// One request, and after how many microseconds it comes.
#[derive(Clone, Debug)]
struct Step {
    what: What,
    token: Token,
    digest: Digest,
    outcome: Outcome,
    terms: Terms,
    after: i64,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Claim,
    Complete,
    Release,
    Extend,
    Adopt,
    Clear,
}

/// Spans that end when another begins, or about where doubles do.
fn span() -> impl Strategy<Value = Duration> {
    prop_oneof![
        8 => (0_u64..12).prop_map(Duration::from_micros),
        1 => (0_u64..12).prop_map(|micros| Duration::from_micros(REST_MICROS - micros)),
        1 => Just(Duration::MAX),
        // More than 64 bits hold, by little.
        1 => Just(Duration::from_micros(u64::MAX).saturating_add(Duration::from_micros(5))),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let bytes: Vec<u8> = (0..=255).collect();
    prop::sample::select(vec![
        Outcome::success(Vec::new()),
        Outcome::success(bytes.clone()),
        Outcome::failure(bytes),
        Outcome::tombstone(Ending::Success),
        Outcome::tombstone(Ending::Failure),
    ])
}

fn what() -> impl Strategy<Value = What> {
    use What::{Adopt, Claim, Clear, Complete, Extend, Release};
    prop_oneof![
        6 => Just(Claim),
        2 => Just(Complete),
        2 => Just(Release),
        2 => Just(Extend),
        1 => Just(Adopt),
        1 => Just(Clear),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    // Tokens that differ in their last bit alone, and not as doubles.
    let token = (0_u64..3).prop_map(|token| Token::new(u64::MAX - token));
    let digest = (0_u8..2).prop_map(|payload| Digest::of(&[payload]));
    let terms = (span(), span()).prop_map(|(lease, keep)| Terms { lease, keep });
    (what(), token, digest, outcome(), terms, -4_i64..12).prop_map(
        |(what, token, digest, outcome, terms, after)| Step {
            what,
            token,
            digest,
            outcome,
            terms,
            after,
        },
    )
}

/// Asks both the script and `Entry`, who must answer alike and know the same afterwards.
fn agree(redis: &mut Timeless, held: &mut Option<Entry>, step: &Step, now: Timestamp) {
    let Step { token, digest, terms, .. } = *step;
    let settlement = match step.what {
        What::Claim => None,
        What::Complete => Some(Settlement::Complete(&step.outcome)),
        What::Release => Some(Settlement::Release),
        What::Extend => Some(Settlement::Extend),
        What::Adopt => Some(Settlement::Adopt(&step.digest, &step.outcome)),
        What::Clear => Some(Settlement::Clear),
    };
    let write = if let Some(settlement) = settlement {
        let request = SettleRequest { token, settlement, terms };
        let decision = Entry::settle(held.as_ref(), &request, now);
        let reply = redis.ask(Call::Settle(&request), now);
        assert_eq!(call::settled(&reply).unwrap(), decision.answer, "{step:?} at {now:?}");
        decision.write
    } else {
        let request = ClaimRequest { token, digest, terms };
        let decision = Entry::claim(held.as_ref(), &request, now);
        let reply = redis.ask(Call::Claim(&request), now);
        assert_eq!(call::answer(&reply).unwrap(), decision.answer, "{step:?} at {now:?}");
        decision.write
    };
    if let Some(entry) = write.map(without_end) {
        let dropped = Timestamp::from_millis(redis.dropped_at());
        let late = Duration::from_millis(1);
        assert!(entry.expires <= dropped && dropped < entry.expires.saturating_add(late));
        *held = Some(entry);
    }
    let status = call::status(&redis.ask(Call::Look, now)).unwrap();
    assert_eq!(status, Entry::status(held.as_ref(), now), "after {step:?} at {now:?}");
}

/// An entry whose times end where the script's do.
fn without_end(mut entry: Entry) -> Entry {
    let never = Timestamp::from_micros(NEVER_MICROS as i64);
    entry.expires = entry.expires.min(never);
    if let State::Held { deadline, .. } = &mut entry.state {
        *deadline = never.min(*deadline);
    }
    entry
}

#[test]
fn the_script_decides_as_entries_do() {
    if !servers::is_installed(PROGRAM) {
        return;
    }
    let server = Redis::start(&["--appendfsync", "no"]);
    let mut redis = Timeless::new(&server);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let run = |steps: Vec<Step>| {
        let _: () = redis::cmd("DEL").arg(NAME).query(&mut redis.connection).unwrap();
        let (mut held, mut now) = (None, Timestamp::from_micros(BEGIN));
        for step in &steps {
            now = Timestamp::from_micros(now.as_micros() + step.after);
            agree(&mut redis, &mut held, step, now);
        }
        Ok(())
    };
    let steps = prop::collection::vec(step(), 1..40);
    // The runner wants to share what runs; the server has one connection.
    let run = Mutex::new(run);
    runner.run(&steps, |steps| (run.lock())(steps)).unwrap();
}

fn bytes(parts: &[&[u8]]) -> Value {
    Value::BulkString(parts.concat())
}

#[test]
fn replies_without_sense_are_errors() {
    let (number, grant) = ([0_u8; 8].as_slice(), [0_u8; 13].as_slice());
    let good = [b"G".as_slice(), grant].concat();
    assert!(call::answer(&Value::BulkString(good)).is_ok());
    assert!(call::answer(&bytes(&[b"I", number, number, grant])).is_ok());
    for reply in [
        Value::Nil,
        Value::Okay,
        Value::Int(7),
        Value::Array(vec![Value::Nil]),
        bytes(&[]),
        bytes(&[b"X"]),
        bytes(&[b"G"]),
        bytes(&[b"G", grant, b"\0"]),
        bytes(&[b"G", &grant[1..]]),
        bytes(&[b"G", &grant[1..], b"\x02"]),
        bytes(&[b"I", number, grant]),
        bytes(&[b"F"]),
        bytes(&[b"Fx"]),
        bytes(&[b"Fs", b"bytes of a tombstone"]),
        bytes(&[b"M", b"more"]),
        bytes(&[b"D", b"more"]),
        bytes(&[b"-", b"more"]),
    ] {
        let kinds = [
            call::answer(&reply).map(drop),
            call::settled(&reply).map(drop),
            call::status(&reply).map(drop),
        ]
        .map(|said| said.unwrap_err().kind());
        assert_eq!(kinds, [StoreErrorKind::Corrupt; 3], "{reply:?}");
    }
}
