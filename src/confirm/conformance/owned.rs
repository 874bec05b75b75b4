//! What must hold of every store with one owner.

use super::Harness;
use super::case::{BUCKETS, Case, NOW, expect_all, fixed, seen, sliding};
use super::checks::{Named, named};
use super::report::{Checked, ensure};
use crate::confirm::{Answer, Bucket, Confirmer, OwnedStore, StoreError, StoreErrorKind};
use std::collections::HashMap;
use std::time::Duration;

/// All of them.
pub(super) fn all<H: Harness<Confirmer: OwnedStore>>() -> impl Iterator<Item = Named<H>> {
    named![
        recorded_is_seen,
        recording_again_changes_nothing,
        recording_moves_the_bucket_up,
        recover_visits_all,
        epochs_rise,
        new_owner_fences_the_previous,
        stays_bound_to_its_buckets,
    ]
    .into_iter()
}

fn recorded_is_seen<H: Harness<Confirmer: OwnedStore>>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    let keys: Vec<_> = (0..1_000).map(|number| format!("key {number}")).collect();
    let sightings = case.sightings(&keys, NOW);
    confirmer.record(&sightings)?;
    confirmer.record(&[])?;
    expect_all(&confirmer, fixed(), &case.sightings(&keys, NOW), seen(NOW), "recorded keys")?;
    expect_all(&confirmer, fixed(), &sightings, Answer::New, "the recorded sightings themselves")?;
    case.expect(&confirmer, fixed(), (b"other", NOW), Answer::New, "a key not recorded")
}

fn recording_again_changes_nothing<H: Harness<Confirmer: OwnedStore>>(
    case: &Case<'_, H>,
) -> Checked {
    let confirmer = case.open()?;
    let sightings = [case.sighting(b"k", NOW)];
    confirmer.record(&sightings)?;
    case.expect(&confirmer, sliding(), (b"k", NOW + 2), seen(NOW + 2), "refreshed")?;
    confirmer.record(&sightings)?;
    case.expect(&confirmer, fixed(), (b"k", NOW + 2), seen(NOW + 2), "recorded again")
}

fn recording_moves_the_bucket_up<H: Harness<Confirmer: OwnedStore>>(case: &Case<'_, H>) -> Checked {
    let confirmer = case.open()?;
    let later = NOW + BUCKETS + 1;
    confirmer.record(&[case.sighting(b"k", NOW)])?;
    confirmer.record(&[case.sighting(b"k", later)])?;
    case.expect(&confirmer, fixed(), (b"k", later), seen(later), "recorded after the window")
}

fn recover_visits_all<H: Harness<Confirmer: OwnedStore>>(case: &Case<'_, H>) -> Checked {
    let keys: Vec<_> = (0..1_000).map(|number| format!("key {number}")).collect();
    let mut expected = HashMap::new();
    {
        let confirmer = case.open()?;
        for (number, key) in (0..).zip(&keys) {
            expected.insert(key.clone().into_bytes(), NOW + number % BUCKETS);
        }
        for bucket in 0..BUCKETS {
            let some: Vec<_> =
                keys.iter().skip(bucket as usize).step_by(BUCKETS as usize).collect();
            confirmer.record(&case.sightings(&some, NOW + bucket))?;
        }
        case.expect(&confirmer, sliding(), (b"key 8", NOW + 3), seen(NOW + 3), "refreshed")?;
        expected.insert(b"key 8".to_vec(), NOW + 3);
        confirmer.forget(&[b"key 9"])?;
        expected.remove(b"key 9".as_slice());
        case.expect(&confirmer, fixed(), (b"asked", NOW), Answer::New, "asked about")?;
        expected.insert(b"asked".to_vec(), NOW);
    }
    let mut recovered = HashMap::new();
    case.open()?.recover(&mut |key, bucket| {
        let latest = recovered.entry(key.to_vec()).or_insert(bucket.number());
        *latest = bucket.number().max(*latest);
    })?;
    for (key, bucket) in &expected {
        let found = recovered.get(key);
        ensure!(
            found == Some(bucket),
            "{}: recovered {found:?} instead of {bucket}",
            key.escape_ascii()
        );
    }
    ensure!(
        recovered.len() == expected.len(),
        "{} keys were recovered, {} recorded",
        recovered.len(),
        expected.len()
    );
    Ok(())
}

fn epochs_rise<H: Harness<Confirmer: OwnedStore>>(case: &Case<'_, H>) -> Checked {
    let first = case.open()?.epoch();
    let second = case.open()?.epoch();
    ensure!(second > first, "epoch {second} came after epoch {first}");
    Ok(())
}

fn new_owner_fences_the_previous<H: Harness<Confirmer: OwnedStore>>(case: &Case<'_, H>) -> Checked {
    let previous = case.open()?;
    case.expect(&previous, fixed(), (b"before", NOW), Answer::New, "while it was the owner")?;
    // A store that is not opened twice needs no fence.
    let Ok(owner) = case.open() else { return Ok(()) };
    let late = [case.sighting(b"late", NOW)];
    fenced("confirm", previous.confirm(&late, fixed()))?;
    fenced("record", previous.record(&late))?;
    fenced("forget", previous.forget(&[b"before"]))?;
    fenced("expire", previous.expire(Bucket::new(NOW + 1)))?;
    case.expect(&owner, fixed(), (b"before", NOW), seen(NOW), "recorded by the previous owner")?;
    case.expect(&owner, fixed(), (b"late", NOW), Answer::New, "refused to the previous owner")
}

fn stays_bound_to_its_buckets<H: Harness<Confirmer: OwnedStore>>(case: &Case<'_, H>) -> Checked {
    let (width, other) = (Some(Duration::from_secs(10)), Some(Duration::from_secs(11)));
    {
        let confirmer = case.open()?;
        confirmer.bind(other)?;
        confirmer.bind(width)?;
        confirmer.record(&[case.sighting(b"k", NOW)])?;
        confirmer.bind(width)?;
    }
    let confirmer = case.open()?;
    for wrong in [other, None] {
        let kind = confirmer.bind(wrong).err().map(|error| error.kind());
        ensure!(kind == Some(StoreErrorKind::Refused), "bound to {wrong:?}, too: {kind:?}");
    }
    confirmer.bind(width)?;
    case.expect(&confirmer, fixed(), (b"k", NOW), seen(NOW), "after it was bound again")
}

fn fenced<T>(call: &str, result: Result<T, StoreError>) -> Checked {
    let kind = result.err().map(|error| error.kind());
    ensure!(kind == Some(StoreErrorKind::Fenced), "the previous owner's {call}: {kind:?}");
    Ok(())
}
