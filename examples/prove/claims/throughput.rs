//! How many claims a second memory takes, and answers.

use crate::keys::key;
use crate::report::{Report, Status};
use crate::{Failure, Options};
use hapax::claim::{Claim, Gate, Identity};
use hapax::confirm::claims::{Digest, MemoryClaims, Outcome};
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

const FULL_KEYS: u64 = 2_000_000;
const SHORT_KEYS: u64 = 200_000;
const ROUNDS: usize = 5;
const PAYLOAD: &[u8] = b"{\"amount\":1000,\"currency\":\"eur\",\"source\":\"tok_visa\"}";
const ANSWER: [u8; 64] = [b'a'; 64];

pub(super) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let keys = if full { FULL_KEYS } else { SHORT_KEYS };
    report.take("claim + complete, new keys, memory, one thread", "at least 1 M/s", || {
        let rate = median(|| processed_per_second(keys))?;
        Ok((millions(rate), Status::of_run(rate >= 1e6, !full)))
    });
    report.take("answered retries from memory, two threads", "at least 5 M/s", || {
        let rate = median(|| replayed_per_second(keys))?;
        Ok((millions(rate), Status::of_run(rate >= 5e6, !full)))
    });
}

fn millions(rate: f64) -> String {
    format!("{:.2} M/s", rate / 1e6)
}

fn median(mut take: impl FnMut() -> Result<f64, Failure>) -> Result<f64, Failure> {
    let mut rates = (0..ROUNDS).map(|_| take()).collect::<Result<Vec<_>, _>>()?;
    rates.sort_by(f64::total_cmp);
    Ok(rates[ROUNDS / 2])
}

fn gate() -> Result<Gate<MemoryClaims>, Failure> {
    // What memory keeps need not be remembered a second time.
    Ok(Gate::builder(MemoryClaims::new()).remember(0).build()?)
}

fn identity(number: u64) -> Identity {
    Identity::new("acct-7", "POST /charges", key(number))
}

/// New keys a second: named, their payload digested, claimed and completed.
fn processed_per_second(keys: u64) -> Result<f64, Failure> {
    let gate = gate()?;
    let start = Instant::now();
    process(&gate, keys)?;
    Ok(keys as f64 / start.elapsed().as_secs_f64())
}

fn process(gate: &Gate<MemoryClaims>, keys: u64) -> Result<(), Failure> {
    for number in 0..keys {
        let claim = gate.claim(&identity(number), Digest::of(PAYLOAD))?;
        let Claim::Granted(mut lease) = claim else { return Err("a new key was known".into()) };
        lease.complete(Outcome::success(ANSWER))?;
    }
    Ok(())
}

/// Finished keys a second: named, their payload digested, and answered, by two
/// threads together.
fn replayed_per_second(keys: u64) -> Result<f64, Failure> {
    let gate = gate()?;
    process(&gate, keys)?;
    let start = Barrier::new(3);
    let began = thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|thread| {
                let (gate, start) = (&gate, &start);
                scope.spawn(move || {
                    start.wait();
                    (0..keys).all(|number| is_replayed(gate, (number + thread * keys / 2) % keys))
                })
            })
            .collect();
        start.wait();
        let began = Instant::now();
        let all = threads.into_iter().all(|thread| thread.join().unwrap_or(false));
        all.then_some(began)
    });
    let began = began.ok_or("a finished key was not replayed")?;
    Ok(2.0 * keys as f64 / began.elapsed().as_secs_f64())
}

fn is_replayed(gate: &Gate<MemoryClaims>, number: u64) -> bool {
    matches!(gate.claim(&identity(number), Digest::of(PAYLOAD)), Ok(Claim::Replay(_)))
}
