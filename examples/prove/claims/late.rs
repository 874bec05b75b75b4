//! Holders that come too late.

use super::place::{Errand, PATIENCE, Store};
use crate::keys::key;
use crate::report::{Report, Status, grouped};
use crate::slow_path::runtime;
use crate::{Failure, Options};
use hapax::claim::{Claim, Gate, Identity, LeaseError};
use hapax::confirm::claims::{AsyncClaimStore, Digest, Outcome};
use std::time::Duration;
use tokio::time::sleep;

const FULL_KEYS: u64 = 1_000;
const SHORT_KEYS: u64 = 50;
const LEASE: Duration = Duration::from_millis(100);

pub(super) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let keys = if full { FULL_KEYS } else { SHORT_KEYS };
    for name in Store::NAMES {
        let what = format!("{} late finishers after a takeover, {name}", grouped(keys));
        report.take(&what, "100 % refused", || {
            let store = Store::start(name)?;
            let errand = ComeLate { keys };
            let refused = runtime()?.block_on(store.place(0).send(LEASE, errand))?;
            let figure = format!("{} of {} refused", grouped(refused), grouped(keys));
            Ok((figure, Status::of_run(refused == keys, !full)))
        });
    }
}

/// Lets every key be taken over, and its first holder finish afterwards; how many were
/// refused, and left the second's outcome as it was.
struct ComeLate {
    keys: u64,
}

impl Errand for ComeLate {
    type Done = u64;

    async fn run<S: AsyncClaimStore + 'static>(self, gate: Gate<S>) -> Result<u64, Failure> {
        let mut refused = 0;
        for number in 0..self.keys {
            refused += u64::from(is_refused(&gate, number).await?);
        }
        Ok(refused)
    }
}

async fn is_refused<S: AsyncClaimStore + 'static>(
    gate: &Gate<S>,
    number: u64,
) -> Result<bool, Failure> {
    let (id, digest) = (Identity::new("acct-7", "POST /charges", key(number)), Digest::of(b"10"));
    let Claim::Granted(mut first) = gate.claim_async(&id, digest).await? else {
        return Err("a new key was known".into());
    };
    sleep(LEASE).await;
    let claim = gate.claim_or_wait_async(&id, digest, PATIENCE).await?;
    let Claim::Granted(mut second) = claim else { return Err("nobody could take over".into()) };
    let is_earlier = number.is_multiple_of(2);
    if is_earlier {
        second.complete_async(Outcome::success(*b"second")).await?;
    }
    let late = first.complete_async(Outcome::success(*b"first")).await;
    if !is_earlier {
        second.complete_async(Outcome::success(*b"second")).await?;
    }
    let Claim::Replay(outcome) = gate.claim_async(&id, digest).await? else { return Ok(false) };
    let is_kept = outcome.bytes() == Some(b"second");
    Ok(second.is_takeover() && late == Err(LeaseError::Stale) && is_kept)
}
