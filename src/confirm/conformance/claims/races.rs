//! One holder at a time, whoever else wants to be.

use super::case::{Case, Key, LONG};
use super::{ClaimHarness, Named};
use crate::confirm::claims::{Answer, Grant, Outcome, Settled, Settlement};
use crate::confirm::conformance::callers::{CALLERS, all_at_once};
use crate::confirm::conformance::checks::named;
use crate::confirm::conformance::report::{Checked, ensure};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// All of them.
pub(super) fn all<H: ClaimHarness>() -> impl Iterator<Item = Named<H>> {
    named![one_alone_is_granted, one_holder_at_a_time, one_takes_over].into_iter()
}

fn ids(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("key {number}").into_bytes()).collect()
}

fn one_alone_is_granted<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let (store, ids) = (case.open()?, ids(100));
    let answers =
        all_at_once(ids.len(), |_, round| Ok(case.key(&store, &ids[round]).claim(LONG)?.1))?;
    for round in 0..ids.len() {
        let granted = answers.iter().filter(|of| matches!(of[round], Answer::Granted(_))).count();
        let waiting = answers.iter().filter(|of| matches!(of[round], Answer::InFlight { .. }));
        ensure!(granted == 1, "{granted} of {CALLERS} callers were granted key {round}");
        ensure!(waiting.count() == CALLERS - 1, "not all others heard that it is in flight");
    }
    Ok(())
}

/// What the holders of a key have noted, each while it was theirs.
#[derive(Default)]
struct Notes {
    is_held: AtomicBool,
    is_finished: AtomicBool,
    fence: AtomicU64,
}

fn one_holder_at_a_time<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let (store, ids) = (case.open()?, ids(20));
    let notes: Vec<_> = ids.iter().map(|_| Notes::default()).collect();
    all_at_once(ids.len(), |_, round| {
        let key = case.key(&store, &ids[round]);
        hold_in_turn(&key, &notes[round])
    })?;
    Ok(())
}

/// Claims until the key is finished, or another caller's turn takes too long.
fn hold_in_turn<H: ClaimHarness>(key: &Key<'_, H>, notes: &Notes) -> Checked {
    let mut tries = 0..200;
    while tries.next().is_some() && !hold_once(key, notes)? {
        thread::yield_now();
    }
    Ok(())
}

/// The attempt that finishes a key; those before release it.
const LAST_ATTEMPT: u32 = 8;

/// Claims, and settles what is granted; true iff the key is finished.
fn hold_once<H: ClaimHarness>(key: &Key<'_, H>, notes: &Notes) -> Checked<bool> {
    let was_finished = notes.is_finished.load(Ordering::SeqCst);
    let (token, answer) = key.claim(LONG)?;
    let is_finished = matches!(answer, Answer::Finished(_));
    ensure!(is_finished || !was_finished, "{key} is finished, and then {answer:?}");
    let Answer::Granted(grant) = answer else { return Ok(is_finished) };
    note_holder(key, notes, grant)?;
    // So that a second holder, if there is one, comes now.
    thread::yield_now();
    notes.is_held.store(false, Ordering::SeqCst);
    if grant.attempt < LAST_ATTEMPT {
        key.done(token, Settlement::Release, "released by its holder")?;
        return Ok(false);
    }
    let outcome = Outcome::success(*b"charged 10");
    key.done(token, Settlement::Complete(&outcome), "completed by its holder")?;
    notes.is_finished.store(true, Ordering::SeqCst);
    Ok(true)
}

fn note_holder<H: ClaimHarness>(key: &Key<'_, H>, notes: &Notes, grant: Grant) -> Checked {
    let was_held = notes.is_held.swap(true, Ordering::SeqCst);
    ensure!(!was_held, "{key}: two hold it at once, one by {grant:?}");
    let fence = grant.fence.number();
    let before = notes.fence.swap(fence, Ordering::SeqCst);
    ensure!(before < fence || grant.attempt == 1, "{key}: fence {fence} came after {before}");
    Ok(())
}

/// What a caller in the race for a late holder's key came to.
enum Raced {
    Late(Settled),
    Other(Answer),
}

fn one_takes_over<H: ClaimHarness>(case: &Case<'_, H>) -> Checked {
    let (store, ids) = (case.open()?, ids(50));
    let keys: Vec<_> = ids.iter().map(|id| case.key(&store, id)).collect();
    let claims = keys.iter().map(|key| key.granted(case.lease(1), "first claim"));
    let late = claims.collect::<Checked<Vec<_>>>()?;
    case.pass(2);
    let outcome = Outcome::success(*b"charged 10");
    let raced = all_at_once(ids.len(), |caller, round| {
        let key = case.key(&store, &ids[round]);
        if caller == 0 {
            let settlement = Settlement::Complete(&outcome);
            return Ok(Raced::Late(key.settle(late[round].token, settlement)?));
        }
        Ok(Raced::Other(key.claim(LONG)?.1))
    })?;
    for (round, key) in keys.iter().enumerate() {
        let came_to = || raced.iter().map(|of| &of[round]);
        let is_completed = came_to().any(|raced| matches!(raced, Raced::Late(Settled::Done)));
        let is_granted = |raced: &&Raced| matches!(raced, Raced::Other(Answer::Granted(_)));
        let granted = came_to().filter(is_granted).count();
        let expected = usize::from(!is_completed);
        let late = if is_completed { "completed it" } else { "was too late" };
        ensure!(granted == expected, "{key}: its holder {late}, and {granted} others took over");
    }
    Ok(())
}
