//! What an embedded store has acknowledged outlives its process, however
//! that ends: a child says what was acknowledged, and is killed.
//!
//! `HAPAX_KILLS` sets how often; `scripts/prove` asks for a thousand.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(feature = "claims")]
#[path = "killed/claims.rs"]
mod claims;

use hapax::Window;
use hapax::confirm::{
    Answer, Bucket, Confirmer, Durability, EmbeddedConfirmer, Rule, Sighting, Token,
};
use std::env;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

/// Names the file to the child.
const FILE: &str = "HAPAX_KILLED_FILE";

/// The first key of a child's round.
const FIRST: &str = "HAPAX_KILLED_FIRST";

const THREADS: u64 = 4;
const BATCH: u64 = 64;

/// Keys between those of one round and those of the next.
const ROUND: u64 = 1 << 32;

fn rule() -> Rule {
    Rule::of(&Window::fixed(Duration::from_secs(80)))
}

/// Asks about the keys from `first` on, `BATCH` of them, with tokens from `token` on.
fn ask(store: &EmbeddedConfirmer, first: u64, token: u64) -> Vec<Answer> {
    let keys: Vec<_> = (first..first + BATCH).map(key).collect();
    let bucket = Bucket::new((first / ROUND) as i64);
    let tokens = (token..).map(Token::new);
    let seen = |(key, token)| Sighting { key, bucket, token };
    let keys = keys.iter().map(<[u8; 16]>::as_slice);
    let sightings: Vec<_> = keys.zip(tokens).map(seen).collect();
    store.confirm(&sightings, rule()).unwrap()
}

/// Keys in no order, as they come in life.
fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

fn open(path: &Path) -> EmbeddedConfirmer {
    EmbeddedConfirmer::builder(path).durability(Durability::Os).cache(1 << 20).open().unwrap()
}

/// Records keys for ever, and prints the first key of each batch that was
/// acknowledged. Does nothing unless it is run as a child.
#[test]
fn child() {
    let Some(path) = env::var_os(FILE) else { return };
    let first: u64 = env::var(FIRST).unwrap().parse().unwrap();
    let store = &open(Path::new(&path));
    thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for batch in (thread..).step_by(THREADS as usize) {
                    let from = first + batch * BATCH;
                    let answers = ask(store, from, from);
                    assert!(answers.iter().all(|answer| *answer == Answer::New));
                    acknowledge(from);
                }
            });
        }
    });
}

/// Says that something was acknowledged.
fn acknowledge(what: impl Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "acknowledged {what}").unwrap();
    out.flush().unwrap();
}

/// Runs a child until it has acknowledged so much, kills it, and gives what it has
/// acknowledged by then.
fn killed<T: FromStr>(child: &str, path: &Path, first: u64, after: usize) -> Vec<T> {
    let mut child = Command::new(env::current_exe().unwrap())
        .args([child, "--exact", "--nocapture"])
        .env(FILE, path)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok());
    let mut acknowledged: Vec<T> = said.by_ref().take(after).collect();
    child.kill().unwrap();
    acknowledged.extend(said);
    child.wait().unwrap();
    assert!(acknowledged.len() >= after, "the child ended by itself");
    acknowledged
}

/// How often a child is killed.
fn rounds() -> u64 {
    env::var("HAPAX_KILLS").map_or(5, |rounds| rounds.parse().unwrap())
}

/// How much a child is let do in a round.
fn patience(round: u64) -> usize {
    (round.wrapping_mul(0x9e37_79b9) % 40 + 1) as usize
}

#[test]
fn what_was_acknowledged_outlives_a_kill() {
    let rounds = rounds();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let mut kept = 0;
    for round in 0..rounds {
        let first = round * ROUND;
        let acknowledged: Vec<u64> = killed("child", &path, first, patience(round));
        let store = open(&path);
        for from in &acknowledged {
            let answers = ask(&store, *from, u64::MAX / 2);
            let seen = |answer: &Answer| matches!(answer, Answer::Seen(_));
            assert!(answers.iter().all(seen), "round {round}: keys from {from} were lost");
        }
        kept += acknowledged.len() as u64 * BATCH;
        store.expire(Bucket::new(round as i64 - 8)).unwrap();
    }
    println!("{kept} keys acknowledged in {rounds} rounds, none lost");
}
