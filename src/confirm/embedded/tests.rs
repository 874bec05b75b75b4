//! The embedded confirmer keeps the contract, and agrees with a naive model,
//! whatever of its keys lies in memory and what in tables.

use super::commits::Serve as _;
use super::store::Request;
use super::{Durability, EmbeddedBuilder, EmbeddedConfirmer};
use crate::confirm::{
    Answer, Bucket, Confirmer, OwnedStore, Record, Rule, Sighting, StoreErrorKind, Token,
};
use crate::time::Window;
use proptest::prelude::*;
use redb::ReadableDatabase as _;
use std::collections::{BTreeMap, HashMap};
use std::error::Error as _;
use std::path::Path;
use std::time::Duration;

/// With an overlay of so many bytes.
fn builder(path: &Path, overlay_bytes: usize) -> EmbeddedBuilder {
    let mut builder = EmbeddedConfirmer::builder(path).durability(Durability::Os).cache(1 << 20);
    builder.overlay_bytes = overlay_bytes;
    builder
}

fn fixed() -> Rule {
    Rule::of(&Window::fixed(Duration::from_secs(80)))
}

fn sighting(key: &[u8], bucket: i64, token: u64) -> Sighting<'_> {
    Sighting { key, bucket: Bucket::new(bucket), token: Token::new(token) }
}

#[cfg(feature = "conformance")]
mod conformance {
    use super::*;
    use crate::confirm::StoreError;
    use crate::confirm::conformance::{Harness, Trouble, check_owned};
    use tempfile::TempDir;

    struct Files {
        folder: TempDir,
        overlay_bytes: usize,
        durability: Durability,
    }

    impl Harness for Files {
        type Confirmer = EmbeddedConfirmer;

        fn open(&self, namespace: &str) -> Result<EmbeddedConfirmer, StoreError> {
            let path = self.folder.path().join(namespace);
            builder(&path, self.overlay_bytes).durability(self.durability).open()
        }

        fn trouble(&self) -> &dyn Trouble {
            self
        }
    }

    impl Trouble for Files {
        /// A restart of the store is one more opening of its file.
        fn restart(&self) -> bool {
            true
        }
    }

    fn assert_conforms(overlay_bytes: usize, durability: Durability) {
        let folder = tempfile::tempdir().unwrap();
        check_owned(&Files { folder, overlay_bytes, durability }).assert();
    }

    #[test]
    fn keeps_the_contract_in_memory_and_log() {
        assert_conforms(super::super::overlay::CAP_BYTES, Durability::Os);
    }

    #[test]
    fn keeps_the_contract_in_tables() {
        assert_conforms(0, Durability::Os);
    }

    #[test]
    fn keeps_the_contract_on_the_way_between_and_synced() {
        assert_conforms(20_000, Durability::Synced);
    }
}

/// What is done to a store and its model.
#[derive(Clone, Debug)]
enum Step {
    Confirm(Vec<(u8, i64)>),
    Record(Vec<u8>),
    Forget(Vec<u8>),
    Expire,
    Advance(i64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let keys = || prop::collection::vec(any::<u8>().prop_map(|key| key % 40), 1..8);
    let sightings = prop::collection::vec((any::<u8>().prop_map(|key| key % 40), -3_i64..=0), 1..8);
    let step = prop_oneof![
        6 => sightings.prop_map(Step::Confirm),
        2 => keys().prop_map(Step::Record),
        2 => keys().prop_map(Step::Forget),
        1 => Just(Step::Expire),
        3 => (1_i64..4).prop_map(Step::Advance),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

/// A map, and the rule.
struct Model {
    records: HashMap<Vec<u8>, Record>,
    rule: Rule,
}

impl Model {
    fn confirm(&mut self, sighting: &Sighting<'_>) -> Answer {
        let decision = self.rule.decide(self.records.get(sighting.key).copied(), sighting);
        if let Some(record) = decision.write {
            self.records.insert(sighting.key.to_vec(), record);
        }
        decision.answer
    }

    fn record(&mut self, sighting: &Sighting<'_>) {
        let held = self.records.entry(sighting.key.to_vec()).or_insert(sighting.into());
        if held.bucket < sighting.bucket {
            *held = sighting.into();
        }
    }

    /// What a store must give back: the keys that still match.
    fn live(&self, now: i64) -> BTreeMap<Vec<u8>, i64> {
        let now = Bucket::new(now);
        let live = self.records.iter().filter(|(_, record)| self.rule.matches(record.bucket, now));
        live.map(|(key, record)| (key.clone(), record.bucket.number())).collect()
    }
}

fn recovered(store: &EmbeddedConfirmer, rule: Rule, now: i64) -> BTreeMap<Vec<u8>, i64> {
    let mut found = BTreeMap::new();
    let visit = &mut |key: &[u8], bucket: Bucket| {
        let latest = found.entry(key.to_vec()).or_insert(bucket.number());
        *latest = bucket.number().max(*latest);
    };
    store.recover(visit).unwrap();
    found.retain(|_, bucket| rule.matches(Bucket::new(*bucket), Bucket::new(now)));
    found
}

/// Takes the steps with a store and with the model; answers, what is held after
/// each step, and what is recovered agree.
fn assert_agrees(steps: &[Step], overlay_bytes: usize, window: &Window) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let mut store = Some(builder(&path, overlay_bytes).open().unwrap());
    let rule = Rule::of(window);
    let mut model = Model { records: HashMap::new(), rule };
    let (mut now, mut token) = (100, 0);
    let all: Vec<_> = (0..40).map(|key| [key]).collect();
    let all: Vec<_> = all.iter().map(<[u8; 1]>::as_slice).collect();
    for step in steps {
        let open = store.as_ref().unwrap();
        let mut see = |key, bucket| {
            token += 1;
            sighting(key, bucket, token)
        };
        match step {
            Step::Confirm(keys) => {
                let sightings: Vec<_> = keys
                    .iter()
                    .map(|(key, ago)| see(std::slice::from_ref(key), now + ago))
                    .collect();
                let expected: Vec<_> = sightings.iter().map(|each| model.confirm(each)).collect();
                assert_eq!(open.confirm(&sightings, rule).unwrap(), expected, "{step:?}");
            }
            Step::Record(keys) => {
                let live = model.live(now - 3);
                let new = keys.iter().filter(|key| !live.contains_key([**key].as_slice()));
                let new: Vec<_> = new.map(|key| see(std::slice::from_ref(key), now)).collect();
                open.record(&new).unwrap();
                for each in &new {
                    model.record(each);
                }
            }
            Step::Forget(keys) => {
                let keys: Vec<_> = keys.iter().map(std::slice::from_ref).collect();
                open.forget(&keys).unwrap();
                for key in keys {
                    model.records.remove(key);
                }
            }
            Step::Expire => {
                let before = Bucket::new(now - 3 - i64::from(rule.buckets()));
                open.expire(before).unwrap();
                model.records.retain(|_, record| record.bucket >= before);
            }
            Step::Advance(by) => now += by,
            Step::Reopen => {
                drop(store.take());
                store = Some(builder(&path, overlay_bytes).open().unwrap());
            }
        }
        let looked = store.as_ref().unwrap().look(&all).unwrap();
        let expected: Vec<_> = all.iter().map(|key| model.records.get(*key).copied()).collect();
        assert_eq!(looked, expected, "{step:?}");
    }
    assert_eq!(recovered(store.as_ref().unwrap(), rule, now), model.live(now));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn agrees_with_the_model(
        steps in steps(),
        overlay_bytes in prop_oneof![Just(0), Just(600), Just(3_000)],
        slides in any::<bool>(),
    ) {
        let span = Duration::from_secs(80);
        let window = if slides { Window::sliding(span) } else { Window::fixed(span) };
        assert_agrees(&steps, overlay_bytes, &window.buckets(4));
    }
}

#[test]
fn a_file_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let owner = builder(&path, 0).open().unwrap();
    let other = builder(&path, 0).open().unwrap_err();
    assert_eq!(other.kind(), StoreErrorKind::Unavailable);
    let epoch = owner.epoch();
    drop(owner);
    assert_eq!(builder(&path, 0).open().unwrap().epoch(), epoch + 1);
}

#[test]
fn what_cannot_be_opened_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let kind = |path: &Path| builder(path, 0).open().unwrap_err().kind();
    assert_eq!(kind(folder.path()), StoreErrorKind::Refused);
    assert_eq!(kind(&folder.path().join("missing/keys")), StoreErrorKind::Refused);
    let text = folder.path().join("text");
    std::fs::write(&text, "not a store\n".repeat(1_000)).unwrap();
    assert_eq!(kind(&text), StoreErrorKind::Corrupt);
    let small = builder(&folder.path().join("small"), 0).disk_limit(1 << 20).open().unwrap_err();
    assert_eq!(small.kind(), StoreErrorKind::Refused);
    assert!(small.source().unwrap().to_string().contains("16 MiB"));
}

#[test]
fn another_programs_database_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("theirs");
    let theirs: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("theirs");
    {
        let db = redb::Database::create(&path).unwrap();
        let tx = db.begin_write().unwrap();
        tx.open_table(theirs).unwrap().insert("key", 1).unwrap();
        tx.commit().unwrap();
    }
    assert_eq!(builder(&path, 0).open().unwrap_err().kind(), StoreErrorKind::Corrupt);
    let db = redb::Database::open(&path).unwrap();
    let tx = db.begin_read().unwrap();
    assert_eq!(tx.list_tables().unwrap().count(), 1);
}

#[test]
fn a_key_too_long_is_refused_and_nothing_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let store = builder(&folder.path().join("keys"), 0).open().unwrap();
    let long = vec![b'k'; crate::confirm::MAX_KEY_BYTES + 1];
    let sightings = [sighting(b"short", 1, 1), sighting(&long, 1, 2)];
    let error = store.confirm(&sightings, fixed()).unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Refused);
    let other = [sighting(b"short", 1, 3)];
    assert_eq!(store.confirm(&other, fixed()).unwrap(), [Answer::New]);
}

/// The log is never long for long.
fn assert_short_log(store: &EmbeddedConfirmer, live_keys: usize) {
    let serving = store.commits.serving.lock();
    let (log, live) = (serving.store.log_weight(), live_keys * super::overlay::weight(&[0; 4]));
    assert!(log <= 4 * live, "{log} bytes of log for {live} that live");
}

/// Keys that are refreshed again and again do not make the log grow.
#[test]
fn the_log_is_shortened_though_the_overlay_has_room() {
    let folder = tempfile::tempdir().unwrap();
    let store = builder(&folder.path().join("keys"), 20_000).open().unwrap();
    let rule = Rule::of(&Window::sliding(Duration::from_secs(80)));
    let keys: Vec<_> = (0..50_u32).map(u32::to_be_bytes).collect();
    for bucket in 0..400 {
        let sightings: Vec<_> =
            keys.iter().zip(0..).map(|(key, token)| sighting(key, bucket, token)).collect();
        let others: Vec<_> =
            sightings.iter().map(|each| Sighting { token: Token::new(1_000), ..*each }).collect();
        store.record(&sightings).unwrap();
        store.confirm(&others, rule).unwrap();
        store.expire(Bucket::new(bucket - 8)).unwrap();
    }
    assert_short_log(&store, 50);
}

/// Keys that expire before they would have been moved to the tables do not either, though
/// owners leave before a sweep has come round.
#[test]
fn the_log_is_shortened_though_its_keys_expire() {
    for buckets_of_an_owner in [1, 50] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let mut store = Some(builder(&path, 20_000).open().unwrap());
        for bucket in 0..400_u32 {
            if bucket % buckets_of_an_owner == 0 {
                drop(store.take());
                store = Some(builder(&path, 20_000).open().unwrap());
            }
            let store = store.as_ref().unwrap();
            let keys: Vec<_> = (0..10).map(|key| (bucket * 10 + key).to_be_bytes()).collect();
            let sightings: Vec<_> =
                keys.iter().map(|key| sighting(key, i64::from(bucket), 1)).collect();
            store.record(&sightings).unwrap();
            store.expire(Bucket::new(i64::from(bucket) - 8)).unwrap();
            assert_short_log(store, 90.min(10 * (bucket as usize + 1)));
        }
    }
}

/// Owners who write a little each leave no more to read, and to hold, than one who stays.
#[test]
fn owners_who_leave_soon_do_not_make_the_log_grow() {
    const OVERLAY_BYTES: usize = 3_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    for owner in 0..100_u32 {
        let store = builder(&path, OVERLAY_BYTES).open().unwrap();
        let held = store.commits.serving.lock().store.overlay_bytes();
        assert!(held <= OVERLAY_BYTES, "{held} bytes in memory for owner {owner}");
        let keys: Vec<_> = (0..4).map(|key| (owner * 4 + key).to_be_bytes()).collect();
        let sightings: Vec<_> = keys.iter().map(|key| sighting(key, 1, 1)).collect();
        store.record(&sightings).unwrap();
        assert_short_log(&store, 26);
    }
    let keys: Vec<_> = (0..400_u32).map(u32::to_be_bytes).collect();
    let keys: Vec<_> = keys.iter().map(<[u8; 4]>::as_slice).collect();
    let store = builder(&path, OVERLAY_BYTES).open().unwrap();
    assert!(store.look(&keys).unwrap().iter().all(Option::is_some));
}

/// An expiry outlives its owner, whether keys lay in the overlay or in tables, and what
/// is written next makes no table for a bucket that has expired.
#[test]
fn what_has_expired_does_not_come_back() {
    for overlay_bytes in [0, 300, 20_000] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let record = |store: &EmbeddedConfirmer, bucket: u8| {
            store.record(&[sighting(&[bucket], i64::from(bucket), 1)]).unwrap();
        };
        let store = builder(&path, overlay_bytes).open().unwrap();
        (0..50).for_each(|bucket| record(&store, bucket));
        store.expire(Bucket::new(48)).unwrap();
        drop(store);
        let store = builder(&path, overlay_bytes).open().unwrap();
        (50..100).for_each(|bucket| record(&store, bucket));
        let keys: Vec<_> = (0..100).map(|bucket| [bucket]).collect();
        let keys: Vec<_> = keys.iter().map(<[u8; 1]>::as_slice).collect();
        let looked = store.look(&keys).unwrap();
        let is_known = (0..100).map(|bucket| bucket >= 48);
        assert!(looked.iter().map(Option::is_some).eq(is_known), "{overlay_bytes}: {looked:?}");
        let buckets = store.commits.serving.lock().store.buckets();
        assert!(buckets.range(..Bucket::new(48)).next().is_none(), "{buckets:?}");
    }
}

/// Nor does a commit that brings keys and an expiry move what it expires.
#[test]
fn a_commit_that_expires_moves_only_what_lives() {
    let folder = tempfile::tempdir().unwrap();
    let store = builder(&folder.path().join("keys"), 0).open().unwrap();
    store.record(&[sighting(b"old", 1, 1)]).unwrap();
    let new = Request::record(&[sighting(b"new", 9, 1)]);
    let mut serving = store.commits.serving.lock();
    serving.store.serve(&[new, Request::Expire(Bucket::new(9))]).unwrap();
    assert!(serving.store.buckets().is_empty(), "{:?}", serving.store.buckets());
}

/// The clock of a later owner is far behind: what it records lasts, however old the
/// bucket that expired before; and what expired before does not come back when it expires
/// something, too.
#[test]
fn what_is_recorded_after_an_expiry_lasts() {
    for overlay_bytes in [0, 20_000] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let open = || builder(&path, overlay_bytes).open().unwrap();
        let store = open();
        for bucket in 0..50 {
            store.record(&[sighting(b"before", bucket, 1)]).unwrap();
        }
        store.expire(Bucket::new(50)).unwrap();
        drop(store);
        let store = open();
        store.record(&[sighting(b"after", 3, 2), sighting(b"later", 5, 3)]).unwrap();
        drop(store);
        let looked = || open().look(&[b"before", b"after", b"later"]).unwrap();
        let held =
            |bucket, token| Some(Record { bucket: Bucket::new(bucket), token: Token::new(token) });
        assert_eq!(looked(), [None, held(3, 2), held(5, 3)], "{overlay_bytes}");
        open().expire(Bucket::new(4)).unwrap();
        assert_eq!(looked(), [None, None, held(5, 3)], "{overlay_bytes}");
    }
}

/// A long key, one of many.
fn long_key(number: u64) -> Vec<u8> {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().repeat(64)
}

/// Records batches of new keys until the store is full; how many it took.
fn fill(store: &EmbeddedConfirmer, bucket: i64) -> u64 {
    for batch in 0..1_000 {
        let keys: Vec<_> = (0..64).map(|number| long_key(batch * 64 + number)).collect();
        let seen = |key| sighting(key, bucket, batch + 1);
        let sightings: Vec<_> = keys.iter().map(|key| seen(key)).collect();
        if let Err(error) = store.confirm(&sightings, fixed()) {
            assert_eq!(error.kind(), StoreErrorKind::Full);
            assert!(!error.is_retryable() && !error.may_have_recorded());
            return batch;
        }
    }
    panic!("the limit was never reached");
}

#[test]
fn at_the_limit_new_keys_are_refused_until_a_bucket_expires() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let limit = 16 << 20;
    let store = builder(&path, 1 << 20).disk_limit(limit).open().unwrap();
    let batches = fill(&store, 1);
    assert!(batches * 64 * 512 > limit / 3, "only {batches} batches fit");
    let known = store.confirm(&[sighting(&long_key(7), 2, 0)], fixed()).unwrap();
    assert_eq!(known, [Answer::Seen(Bucket::new(1))]);
    store.expire(Bucket::new(2)).unwrap();
    let again = fill(&store, 20);
    assert!(again * 10 > batches * 9, "{batches} batches fit at first, then {again}");
    assert_on_disk(&path, limit);
}

/// A small file that refreshed keys have filled, most of it with their log, has room again
/// when they have expired.
#[test]
fn a_full_log_is_let_go_with_its_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    for overlay_bytes in [1 << 20, 8 << 20] {
        let store = builder(&path, 0).disk_limit(16 << 20).open().unwrap();
        store.commits.serving.lock().store.set_overlay_bytes(overlay_bytes);
        let rule = Rule::of(&Window::sliding(Duration::from_secs(80)));
        let keys: Vec<_> = (0..5_000).map(|number| long_key(number).repeat(2)).collect();
        let refresh = |bucket: i64| {
            keys.chunks(100).try_for_each(|keys| {
                let token = bucket as u64;
                let seen = keys.iter().map(|key| sighting(key, bucket, token));
                store.confirm(&seen.collect::<Vec<_>>(), rule).map(drop)
            })
        };
        let error = (0..20).find_map(|bucket| refresh(bucket).err()).unwrap();
        assert_eq!(error.kind(), StoreErrorKind::Full);
        store.expire(Bucket::new(100)).unwrap();
        let some: Vec<_> = keys[..1_000].iter().map(|key| sighting(key, 200, 1)).collect();
        for sightings in some.chunks(100) {
            store.confirm(sightings, rule).unwrap();
        }
        store.expire(Bucket::new(300)).unwrap();
    }
}

#[test]
fn a_key_too_long_is_forgotten_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let store = builder(&folder.path().join("keys"), 20_000).open().unwrap();
    let long = vec![b'k'; crate::confirm::MAX_KEY_BYTES + 1];
    store.forget(&[&long]).unwrap();
    assert_eq!(store.commits.serving.lock().store.overlay_bytes(), 0);
}

/// The blocks that a file really takes are within a limit.
#[cfg(unix)]
fn assert_on_disk(path: &Path, limit: u64) {
    use std::os::unix::fs::MetadataExt as _;
    let used = std::fs::metadata(path).unwrap().blocks() * 512;
    assert!(used <= limit, "{used} bytes on disk, over the limit of {limit}");
}

#[cfg(not(unix))]
fn assert_on_disk(_: &Path, _: u64) {}
