//! What of claims lasts when the disk fails or the power goes.

use super::super::disk::{Disk, Failing, Random};
use super::EmbeddedClaims;
use crate::confirm::claims::{
    Answer, ClaimRequest, ClaimStore, Digest, Outcome, SettleRequest, Settled, Settlement, Terms,
};
use crate::confirm::{Durability, StoreError, StoreErrorKind, Token};
use crate::time::{ManualClock, Timestamp};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const TERMS: Terms = Terms { lease: Duration::from_secs(300), keep: Duration::from_secs(3_600) };

fn open(disk: &Disk, durability: Durability) -> Result<EmbeddedClaims, StoreError> {
    let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000_000)));
    let builder = EmbeddedClaims::builder("").durability(durability).cache(1 << 20).clock(clock);
    EmbeddedClaims::on(disk.clone(), builder)
}

fn claim(claims: &EmbeddedClaims, number: u64, token: u64) -> Result<Answer, StoreError> {
    let request =
        ClaimRequest { token: Token::new(token), digest: Digest::of(b"payload"), terms: TERMS };
    claims.claim(&number.to_be_bytes(), &request)
}

/// Longer ones and shorter ones, each known by its number.
fn outcome(number: u64) -> Outcome {
    Outcome::success(number.to_be_bytes().repeat(1 + (number % 7) as usize * 60))
}

fn complete(claims: &EmbeddedClaims, number: u64) -> Result<Settled, StoreError> {
    let outcome = outcome(number);
    let settlement = Settlement::Complete(&outcome);
    let request = SettleRequest { token: Token::new(number), settlement, terms: TERMS };
    claims.settle(&number.to_be_bytes(), &request)
}

/// Claims keys and completes them; how many steps were acknowledged, two for each key,
/// and the failure.
fn work(claims: &EmbeddedClaims, keys: u64) -> (u64, Option<StoreError>) {
    for number in 0..keys {
        match claim(claims, number, number) {
            Ok(answer) => assert!(matches!(answer, Answer::Granted(_)), "{answer:?}"),
            Err(error) => return (2 * number, Some(error)),
        }
        match complete(claims, number) {
            Ok(settled) => assert_eq!(settled, Settled::Done),
            Err(error) => return (2 * number + 1, Some(error)),
        }
    }
    (2 * keys, None)
}

const OTHER: u64 = u64::MAX;

/// All acknowledged steps are there; what never was claimed is free.
fn assert_kept(image: Vec<u8>, steps: u64, context: &str) {
    let claims = open(&Disk::with(image, Failing::Never), Durability::Os)
        .unwrap_or_else(|error| panic!("{context}: {error:?}"));
    assert_holds(&claims, steps, context);
}

fn assert_holds(claims: &EmbeddedClaims, steps: u64, context: &str) {
    let finished = steps / 2;
    for number in 0..finished {
        let answer = claim(claims, number, OTHER).unwrap();
        assert_eq!(answer, Answer::Finished(outcome(number)), "{context}: key {number}");
    }
    // The step that failed may have been done; done again, it comes to the same.
    let was_claimed = steps % 2 == 1;
    let answer = claim(claims, finished, if was_claimed { OTHER } else { finished }).unwrap();
    let is_possible = match &answer {
        Answer::InFlight { .. } => was_claimed,
        Answer::Finished(kept) => was_claimed && *kept == outcome(finished),
        Answer::Granted(_) => !was_claimed,
        Answer::Unconfirmed(_) | Answer::Mismatch => false,
    };
    assert!(is_possible, "{context}: {answer:?} after {steps} steps");
    for number in finished + 1..finished + 30 {
        let answer = claim(claims, number, OTHER).unwrap();
        assert!(matches!(answer, Answer::Granted(_)), "{context}: {number}: {answer:?}");
    }
}

const KEYS: u64 = 150;

/// How many changes and syncs a whole run takes.
fn whole_run() -> (u64, u64) {
    let disk = Disk::with(Vec::new(), Failing::Never);
    assert!(work(&open(&disk, Durability::Synced).unwrap(), KEYS).1.is_none());
    let state = disk.0.lock();
    (state.changes, state.syncs)
}

fn acknowledged(disk: &Disk, durability: Durability) -> u64 {
    open(disk, durability).map_or(0, |claims| work(&claims, KEYS).0)
}

#[test]
fn what_was_acknowledged_outlives_the_power() {
    let (changes, _) = whole_run();
    for seed in 0..40 {
        let mut random = Random(seed);
        let disk = Disk::with(Vec::new(), Failing::From(random.below(changes)));
        let steps = acknowledged(&disk, Durability::Synced);
        let image = disk.after_power_cut(&mut random);
        assert_kept(image, steps, &format!("seed {seed}"));
    }
}

#[test]
fn without_syncs_what_was_acknowledged_outlives_the_process() {
    let (changes, _) = whole_run();
    for seed in 0..25 {
        let disk = Disk::with(Vec::new(), Failing::From(Random(seed).below(changes)));
        let steps = acknowledged(&disk, Durability::Os);
        assert_kept(disk.written(), steps, &format!("seed {seed}"));
    }
}

/// Without syncs the power may take claims along, or the whole file; but what opens
/// gives no outcome that never was.
#[test]
fn without_syncs_a_power_cut_is_noticed() {
    let (changes, _) = whole_run();
    let mut opened = 0;
    for seed in 0..40 {
        let mut random = Random(seed);
        let disk = Disk::with(Vec::new(), Failing::From(random.below(changes)));
        acknowledged(&disk, Durability::Os);
        let image = if seed % 2 == 0 {
            disk.after_power_cut(&mut random)
        } else {
            disk.after_losing_the_last_writes(&mut random)
        };
        match open(&Disk::with(image, Failing::Never), Durability::Os) {
            Ok(claims) => {
                opened += 1;
                for number in 0..KEYS {
                    if let Answer::Finished(kept) = claim(&claims, number, OTHER).unwrap() {
                        assert_eq!(kept, outcome(number), "seed {seed}");
                    }
                }
            }
            Err(error) => assert_eq!(error.kind(), StoreErrorKind::Corrupt, "seed {seed}"),
        }
    }
    assert!(opened > 0, "no file opened: the test shows nothing of answers");
}

#[test]
fn callers_share_a_commit() {
    let disk = Disk::with(Vec::new(), Failing::Never);
    let claims = &open(&disk, Durability::Synced).unwrap();
    let syncs = || disk.0.lock().syncs;
    let before = syncs();
    assert!(matches!(claim(claims, 0, 0), Ok(Answer::Granted(_))));
    let of_one = syncs() - before;
    let before = syncs();
    thread::scope(|scope| {
        let held = claims.commits.serving.lock();
        // Settlements and claims, of which one is granted.
        let settles = scope.spawn(move || complete(claims, 0));
        let callers: Vec<_> =
            (0..63).map(|token| scope.spawn(move || claim(claims, 1, token))).collect();
        while claims.commits.waiting.lock().len() < 64 {
            thread::yield_now();
        }
        drop(held);
        assert_eq!(settles.join().unwrap(), Ok(Settled::Done));
        let answers = callers.into_iter().map(|caller| caller.join().unwrap().unwrap());
        assert_eq!(answers.filter(|answer| matches!(answer, Answer::Granted(_))).count(), 1);
    });
    assert_eq!(syncs() - before, of_one);
    let before = syncs();
    assert!(matches!(claim(claims, 1, OTHER), Ok(Answer::InFlight { .. })));
    assert_eq!(syncs(), before, "a claim that changed nothing was synced");
}

#[test]
fn a_failed_sync_is_final() {
    let (_, syncs) = whole_run();
    let opening = {
        let disk = Disk::with(Vec::new(), Failing::Never);
        let _claims = open(&disk, Durability::Synced).unwrap();
        disk.0.lock().syncs
    };
    for at in (opening..syncs - 5).step_by(syncs as usize / 12) {
        let disk = Disk::with(Vec::new(), Failing::OneSync(at));
        let claims = open(&disk, Durability::Synced).unwrap();
        let (steps, failure) = work(&claims, KEYS);
        let failure = failure.unwrap();
        assert_eq!(failure.kind(), StoreErrorKind::Broken, "sync {at}");
        assert!(!failure.is_retryable() && failure.may_have_recorded());
        // The disk works again, and still nothing is served.
        let broken = |result: Result<(), StoreError>| {
            assert_eq!(result.unwrap_err().kind(), StoreErrorKind::Broken, "sync {at}");
        };
        broken(claim(&claims, 0, OTHER).map(drop));
        broken(complete(&claims, 0).map(drop));
        broken(claims.look(&0_u64.to_be_bytes()).map(drop));
        broken(claims.sweep().map(drop));
        drop(claims);
        let image = disk.0.lock().synced.clone();
        assert_kept(image, steps, &format!("sync {at}"));
    }
}

#[test]
fn damage_is_told_and_never_answered_with() {
    let disk = Disk::with(Vec::new(), Failing::Never);
    drop(work(&open(&disk, Durability::Synced).unwrap(), KEYS));
    let image = disk.written();
    let mut told = 0;
    for seed in 0..150 {
        let mut random = Random(seed);
        let mut damaged = image.clone();
        if seed % 5 == 0 {
            damaged.truncate(1 + random.below(image.len() as u64 - 1) as usize);
        } else {
            let bit = random.below(8 * image.len() as u64) as usize;
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
        match open(&Disk::with(damaged, Failing::Never), Durability::Os) {
            // The damaged byte is one that nothing uses.
            Ok(claims) => assert_holds(&claims, 2 * KEYS, &format!("seed {seed}")),
            Err(error) => {
                told += 1;
                assert_eq!(error.kind(), StoreErrorKind::Corrupt, "seed {seed}: {error:?}");
            }
        }
    }
    assert!(told > 30, "damage was told {told} times only");
}

#[test]
fn an_owner_after_which_there_was_another_writes_nothing() {
    let disk = Disk::with(Vec::new(), Failing::Never);
    let claims = open(&disk, Durability::Synced).unwrap();
    assert!(matches!(claim(&claims, 1, 1), Ok(Answer::Granted(_))));
    claims.commits.serving.lock().store.file.be_followed();
    for _ in 0..2 {
        assert_eq!(claim(&claims, 2, 2).unwrap_err().kind(), StoreErrorKind::Fenced);
        assert_eq!(complete(&claims, 1).unwrap_err().kind(), StoreErrorKind::Fenced);
    }
    drop(claims);
    let claims = open(&disk, Durability::Synced).unwrap();
    assert!(matches!(claim(&claims, 2, 3), Ok(Answer::Granted(_))));
    assert_eq!(complete(&claims, 1), Ok(Settled::Done));
}
