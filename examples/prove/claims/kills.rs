//! Workers that are killed in the middle, and who goes on for them.

use super::lanes;
use super::place::{Errand, PATIENCE, Place, Store};
use crate::child::InTurns;
use crate::keys::key;
use crate::report::{Report, Status, grouped};
use crate::slow_path::runtime;
use crate::{Failure, Options, child};
use hapax::claim::{Claim, Gate, Identity};
use hapax::confirm::claims::{AsyncClaimStore, Digest, Outcome};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The name of [`hold`] as a child's work.
pub(crate) const HOLDER: &str = "holder";

const FULL_KILLS: u64 = 1_000;
const SHORT_KILLS: u64 = 8;

const LEASE: Duration = Duration::from_secs(1);

/// What a busy machine may take to wake whoever waits.
const GRACE: Duration = Duration::from_millis(100);

/// After the claim, in the middle of the work, after the outcome is stored, before the reply.
const STEPS: u64 = 4;

/// From this one on the outcome is stored.
const STORED: u64 = 2;

pub(super) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let kills = if full { FULL_KILLS } else { SHORT_KILLS };
    for name in &Store::NAMES[1..] {
        let what = format!("killed at {STEPS} steps, {} times each, {name}", grouped(kills));
        report.take(&what, "100 % usable within a lease + 0.1 s", || {
            let store = Store::start(name)?;
            let waits = killed(&store, kills)?;
            let in_time = waits.iter().flatten().filter(|wait| **wait <= LEASE + GRACE).count();
            let longest = waits.iter().flatten().max().ok_or("no key was usable again")?;
            let figure = format!("{in_time} of {}, longest {longest:.2?}", waits.len());
            Ok((figure, Status::of_run(in_time == waits.len(), !full)))
        });
    }
}

/// How long each key had to be waited for; `None`: it was not as it must be.
fn killed(store: &Store, kills: u64) -> Result<Vec<Option<Duration>>, Failure> {
    let runtime = runtime()?;
    lanes::each(kills * STEPS, |lane, number| wait(&runtime, store.place(lane), number))
}

/// Kills a holder of this key, and waits for the key.
fn wait(runtime: &Runtime, place: Place, number: u64) -> Result<Option<Duration>, Failure> {
    let [kind, where_, lane] = place.numbers();
    let mut holder = InTurns::start(HOLDER, &[kind, where_, lane, number])?;
    holder.next()?;
    holder.kill();
    let killed = Instant::now();
    let is_right = runtime.block_on(place.send(LEASE, TakeOver { number }))?;
    Ok(is_right.then(|| killed.elapsed()))
}

/// With a place's numbers and a key's: holds the key, as far as its number says, until it is killed.
pub(super) fn hold(numbers: &[u64]) -> Result<Vec<u64>, Failure> {
    let [kind, where_, lane, number] = *numbers else {
        return Err("four numbers are needed".into());
    };
    let (runtime, place) = (runtime()?, Place::of([kind, where_, lane])?);
    runtime.block_on(place.send(LEASE, Hold { number }))?;
    Ok(Vec::new())
}

fn identity(number: u64) -> Identity {
    Identity::new("acct-7", "POST /charges", key(number))
}

fn payload() -> Digest {
    Digest::of(b"amount=10")
}

struct Hold {
    number: u64,
}

impl Errand for Hold {
    type Done = ();

    async fn run<S: AsyncClaimStore + 'static>(self, gate: Gate<S>) -> Result<(), Failure> {
        let claim = gate.claim_async(&identity(self.number), payload()).await?;
        let Claim::Granted(mut lease) = claim else { return Err("a new key was known".into()) };
        let step = self.number % STEPS;
        if step >= STORED {
            lease.complete_async(Outcome::success(self.number.to_be_bytes())).await?;
        }
        // Work, or a reply that is being written: the process ends in it.
        child::rounds(|| Ok(vec![step]))?;
        Ok(())
    }
}

/// Goes on after the holder; true iff the key was as it must be.
struct TakeOver {
    number: u64,
}

impl Errand for TakeOver {
    type Done = bool;

    async fn run<S: AsyncClaimStore + 'static>(self, gate: Gate<S>) -> Result<bool, Failure> {
        let is_stored = self.number % STEPS >= STORED;
        let id = identity(self.number);
        let outcome = Outcome::success(self.number.to_be_bytes());
        match gate.claim_or_wait_async(&id, payload(), PATIENCE).await? {
            Claim::Granted(mut lease) => {
                lease.complete_async(outcome).await?;
                Ok(!is_stored && lease.is_takeover())
            }
            Claim::Replay(replayed) => Ok(is_stored && replayed == outcome),
            Claim::InFlight(_) | Claim::Mismatch => Ok(false),
        }
    }
}
