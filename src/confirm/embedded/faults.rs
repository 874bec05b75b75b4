//! What lasts when the disk fails or the power goes.

use super::disk::{Disk, Failing, Random};
use super::{Durability, EmbeddedConfirmer};
use crate::confirm::{
    Answer, Bucket, Confirmer, OwnedStore, Rule, Sighting, StoreError, StoreErrorKind, Token,
};
use crate::time::Window;
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

fn open(disk: &Disk, durability: Durability) -> Result<EmbeddedConfirmer, StoreError> {
    let mut builder = EmbeddedConfirmer::builder("").durability(durability).cache(1 << 20);
    builder.overlay_bytes = 4_000;
    EmbeddedConfirmer::on(disk.clone(), &builder)
}

fn rule() -> Rule {
    Rule::of(&Window::fixed(Duration::from_secs(80)))
}

/// The sighting of key `number` in its bucket.
fn with_key<T>(number: u64, token: u64, work: impl FnOnce(Sighting<'_>) -> T) -> T {
    let key = number.to_be_bytes();
    let bucket = Bucket::new((number / 200) as i64);
    work(Sighting { key: &key, bucket, token: Token::new(token) })
}

fn ask(store: &EmbeddedConfirmer, number: u64, token: u64) -> Result<Answer, StoreError> {
    with_key(number, token, |sighting| Ok(store.confirm(&[sighting], rule())?[0]))
}

/// Records keys until the store fails or `keys` are done; how many were
/// acknowledged, and the failure.
fn work(store: &EmbeddedConfirmer, keys: u64) -> (u64, Option<StoreError>) {
    for number in 0..keys {
        if let Err(error) = ask(store, number, number) {
            return (number, Some(error));
        }
        if number % 200 == 199 {
            let before = Bucket::new((number / 200) as i64 - 9);
            if let Err(error) = store.expire(before) {
                return (number + 1, Some(error));
            }
        }
    }
    (keys, None)
}

/// All acknowledged keys are there; those that never were asked about are not.
fn assert_kept(image: Vec<u8>, acknowledged: u64, context: &str) {
    let store = open(&Disk::with(image, Failing::Never), Durability::Os)
        .unwrap_or_else(|error| panic!("{context}: {error:?}"));
    for number in 0..acknowledged {
        let answer = ask(&store, number, u64::MAX).unwrap();
        assert!(matches!(answer, Answer::Seen(_)), "{context}: key {number} was lost");
    }
    // The one that failed may have been recorded; its own retry is new either way.
    assert_eq!(ask(&store, acknowledged, acknowledged).unwrap(), Answer::New, "{context}");
    for number in acknowledged + 1..acknowledged + 50 {
        assert_eq!(ask(&store, number, u64::MAX).unwrap(), Answer::New, "{context}: {number}");
    }
}

const KEYS: u64 = 400;

/// How many changes and syncs a whole run takes.
fn whole_run() -> (u64, u64) {
    let disk = Disk::with(Vec::new(), Failing::Never);
    assert!(work(&open(&disk, Durability::Synced).unwrap(), KEYS).1.is_none());
    let state = disk.0.lock();
    (state.changes, state.syncs)
}

#[test]
fn what_was_acknowledged_outlives_the_power() {
    let (changes, _) = whole_run();
    for seed in 0..40 {
        let mut random = Random(seed);
        let disk = Disk::with(Vec::new(), Failing::From(random.below(changes)));
        let acknowledged = match open(&disk, Durability::Synced) {
            Ok(store) => work(&store, KEYS).0,
            Err(_) => 0,
        };
        let image = disk.after_power_cut(&mut random);
        assert_kept(image, acknowledged, &format!("seed {seed}"));
    }
}

/// Opening writes, too: the share of the overlay that is too much, and the log anew.
#[test]
fn power_cut_again_and_again_while_reopening() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let disk = Disk::with(Vec::new(), Failing::Never);
        let (acknowledged, _) = work(&open(&disk, Durability::Synced).unwrap(), 100);
        let mut image = disk.after_power_cut(&mut random);
        let changes = {
            let disk = Disk::with(image.clone(), Failing::Never);
            drop(open(&disk, Durability::Synced).unwrap());
            disk.0.lock().changes
        };
        for _ in 0..4 {
            let disk = Disk::with(image, Failing::From(random.below(changes + 4)));
            if let Err(error) = open(&disk, Durability::Synced) {
                assert_eq!(error.kind(), StoreErrorKind::Unavailable, "seed {seed}: {error:?}");
            }
            image = disk.after_power_cut(&mut random);
        }
        assert_kept(image, acknowledged, &format!("seed {seed}"));
    }
}

/// Without syncs the power may take keys along, or the whole file; but what
/// opens gives no wrong answer.
#[test]
fn without_syncs_a_power_cut_is_noticed() {
    let (changes, _) = whole_run();
    let mut opened = 0;
    for seed in 0..40 {
        let mut random = Random(seed);
        let disk = Disk::with(Vec::new(), Failing::From(random.below(changes)));
        let Ok(store) = open(&disk, Durability::Os) else { continue };
        let (asked, _) = work(&store, KEYS);
        let image = if seed % 2 == 0 {
            disk.after_power_cut(&mut random)
        } else {
            disk.after_losing_the_last_writes(&mut random)
        };
        let disk = Disk::with(image, Failing::Never);
        match open(&disk, Durability::Os) {
            Ok(store) => {
                opened += 1;
                for number in asked + 1..asked + 50 {
                    assert_eq!(ask(&store, number, u64::MAX).unwrap(), Answer::New, "seed {seed}");
                }
            }
            Err(error) => assert_eq!(error.kind(), StoreErrorKind::Corrupt, "seed {seed}"),
        }
    }
    assert!(opened > 0, "no file opened: the test shows nothing of answers");
}

#[test]
fn without_syncs_what_was_acknowledged_outlives_the_process() {
    let (changes, _) = whole_run();
    for seed in 0..25 {
        let disk = Disk::with(Vec::new(), Failing::From(Random(seed).below(changes)));
        let acknowledged = match open(&disk, Durability::Os) {
            Ok(store) => work(&store, KEYS).0,
            Err(_) => 0,
        };
        let image = disk.written();
        assert_kept(image, acknowledged, &format!("seed {seed}"));
    }
}

#[test]
fn callers_share_a_commit() {
    let disk = Disk::with(Vec::new(), Failing::Never);
    let store = &open(&disk, Durability::Synced).unwrap();
    let syncs = || disk.0.lock().syncs;
    let before = syncs();
    assert_eq!(ask(store, 0, 0).unwrap(), Answer::New);
    let of_one = syncs() - before;
    let before = syncs();
    thread::scope(|scope| {
        let held = store.commits.serving.lock();
        let callers: Vec<_> =
            (0..64).map(|token| scope.spawn(move || ask(store, 1, token))).collect();
        while store.commits.waiting.lock().len() < 64 {
            thread::yield_now();
        }
        drop(held);
        let answers = callers.into_iter().map(|caller| caller.join().unwrap().unwrap());
        assert_eq!(answers.filter(|answer| *answer == Answer::New).count(), 1);
    });
    assert_eq!(syncs() - before, of_one);
}

#[test]
fn a_failed_sync_is_final() {
    let (_, syncs) = whole_run();
    let opening = {
        let disk = Disk::with(Vec::new(), Failing::Never);
        let _store = open(&disk, Durability::Synced).unwrap();
        disk.0.lock().syncs
    };
    for at in (opening..syncs - 5).step_by(syncs as usize / 12) {
        let disk = Disk::with(Vec::new(), Failing::OneSync(at));
        let store = open(&disk, Durability::Synced).unwrap();
        let (acknowledged, failure) = work(&store, KEYS);
        let failure = failure.unwrap();
        assert_eq!(failure.kind(), StoreErrorKind::Broken, "sync {at}");
        assert!(!failure.is_retryable() && failure.may_have_recorded());
        // The disk works again, and still nothing is served.
        for again in [0, KEYS + 1] {
            let kind = ask(&store, again, u64::MAX).unwrap_err().kind();
            assert_eq!(kind, StoreErrorKind::Broken, "sync {at}");
        }
        assert_eq!(store.forget(&[b"k"]).unwrap_err().kind(), StoreErrorKind::Broken);
        let recovered = store.recover(&mut |_, _| {}).unwrap_err();
        assert_eq!(recovered.kind(), StoreErrorKind::Broken);
        drop(store);
        let image = disk.0.lock().synced.clone();
        assert_kept(image, acknowledged, &format!("sync {at}"));
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
            damaged.truncate(random.below(image.len() as u64) as usize);
        } else {
            let bit = random.below(8 * image.len() as u64) as usize;
            damaged[bit / 8] ^= 1 << (bit % 8);
        }
        match open(&Disk::with(damaged, Failing::Never), Durability::Os) {
            Ok(store) => assert_intact(&store, seed),
            Err(error) => {
                told += 1;
                assert_eq!(error.kind(), StoreErrorKind::Corrupt, "seed {seed}: {error:?}");
            }
        }
    }
    assert!(told > 30, "damage was told {told} times only");
}

/// Where the damaged byte is one that nothing uses, all is as it was. A file cut
/// to nothing is a new one.
fn assert_intact(store: &EmbeddedConfirmer, seed: u64) {
    let mut recovered = BTreeSet::new();
    let visit = &mut |key: &[u8], _| {
        recovered.insert(key.to_vec());
    };
    store.recover(visit).unwrap();
    let expected: BTreeSet<_> = (0..KEYS).map(|number| number.to_be_bytes().to_vec()).collect();
    assert_eq!(recovered, expected, "seed {seed}");
}

#[test]
fn an_owner_after_which_there_was_another_writes_nothing() {
    let disk = Disk::with(Vec::new(), Failing::Never);
    let store = open(&disk, Durability::Synced).unwrap();
    assert_eq!(ask(&store, 1, 1).unwrap(), Answer::New);
    store.commits.serving.lock().store.file.be_followed();
    for _ in 0..2 {
        assert_eq!(ask(&store, 2, 2).unwrap_err().kind(), StoreErrorKind::Fenced);
        assert_eq!(store.forget(&[b"k"]).unwrap_err().kind(), StoreErrorKind::Fenced);
    }
    drop(store);
    let store = open(&disk, Durability::Synced).unwrap();
    assert_eq!(ask(&store, 2, 10).unwrap(), Answer::New);
    assert_eq!(ask(&store, 1, 10).unwrap(), Answer::Seen(Bucket::new(0)));
}
