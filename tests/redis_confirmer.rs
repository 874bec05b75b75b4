//! The Redis confirmer against real servers.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod servers;

use hapax::Window;
use hapax::confirm::conformance::{Blocking, Harness, Trouble, check};
use hapax::confirm::{
    Answer, AsyncConfirmer, Bucket, Confirmer, MAX_KEY_BYTES, MemoryConfirmer, Record,
    RedisBuilder, RedisConfirmer, Rule, Sighting, StoreError, StoreErrorKind, Token,
};
use proptest::prelude::*;
use servers::impostor::impostor;
use servers::on_tokio::OnTokio;
use servers::proxied::Proxied;
use servers::proxy::Proxy;
use servers::redis::{PROGRAM, Redis, RedisCluster};
use servers::{Server as _, is_installed, wait_until};
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

fn fixed() -> Rule {
    Rule::of(&Window::fixed(Duration::from_secs(80)))
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Tokens of one test, none twice.
static TOKENS: AtomicU64 = AtomicU64::new(1);

fn sightings<K: AsRef<[u8]>>(keys: &[K], bucket: i64) -> Vec<Sighting<'_>> {
    let sighting = |key| {
        let token = Token::new(TOKENS.fetch_add(1, Ordering::Relaxed));
        Sighting { key, bucket: Bucket::new(bucket), token }
    };
    keys.iter().map(|key| sighting(key.as_ref())).collect()
}

fn keys(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{name} {number}")).collect()
}

const fn seen(bucket: i64) -> Answer {
    Answer::Seen(Bucket::new(bucket))
}

fn kind<T>(result: Result<T, StoreError>) -> Option<StoreErrorKind> {
    result.err().map(|error| error.kind())
}

fn connected(runtime: &Runtime, builder: RedisBuilder) -> RedisConfirmer {
    runtime.block_on(builder.connect()).unwrap()
}

/// Asks until there is an answer, with the same tokens.
async fn insist(confirmer: &RedisConfirmer, asked: &[Sighting<'_>]) -> Vec<Answer> {
    for _ in 0..2_000 {
        match confirmer.confirm(asked, fixed()).await {
            Ok(answers) => return answers,
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no answer in 2,000 attempts");
}

// --- the contract ------------------------------------------------------------

struct Single {
    runtime: Runtime,
    server: Proxied<Redis>,
}

impl Harness for Single {
    type Confirmer = Blocking<RedisConfirmer, OnTokio>;

    fn open(&self, namespace: &str) -> Result<Self::Confirmer, StoreError> {
        let url = format!("redis://127.0.0.1:{}/", self.server.port());
        let builder = RedisConfirmer::server(url).namespace(namespace);
        let confirmer =
            self.runtime.block_on(builder.timeout(Duration::from_secs(10)).connect())?;
        Ok(Blocking { store: confirmer, runtime: OnTokio::of(&self.runtime) })
    }

    fn trouble(&self) -> &dyn Trouble {
        &self.server
    }
}

#[test]
fn one_server_keeps_the_contract() {
    if !is_installed(PROGRAM) {
        return;
    }
    let server = Proxied::new(Redis::start(&[]));
    let report = check(&Single { runtime: runtime(), server });
    report.assert();
    assert!(!report.to_string().contains("not run"), "{report}");
}

struct Clustered {
    runtime: Runtime,
    cluster: RedisCluster,
}

impl Harness for Clustered {
    type Confirmer = Blocking<RedisConfirmer, OnTokio>;

    fn open(&self, namespace: &str) -> Result<Self::Confirmer, StoreError> {
        let builder = RedisConfirmer::cluster(self.cluster.urls()).namespace(namespace);
        let confirmer =
            self.runtime.block_on(builder.timeout(Duration::from_secs(10)).connect())?;
        Ok(Blocking { store: confirmer, runtime: OnTokio::of(&self.runtime) })
    }
}

#[test]
fn a_cluster_keeps_the_contract() {
    if !is_installed(PROGRAM) {
        return;
    }
    check(&Clustered { runtime: runtime(), cluster: RedisCluster::start() }).assert();
}

// --- what is answered --------------------------------------------------------

/// Buckets where halves, signs and what a double holds end.
fn bucket() -> impl Strategy<Value = i64> {
    let edge = prop::sample::select(vec![
        i64::MIN,
        -(1 << 53),
        -(1 << 32),
        0,
        1 << 31,
        1 << 32,
        1 << 53,
        i64::MAX,
    ]);
    (edge, -20_i64..20).prop_map(|(edge, near)| edge.saturating_add(near))
}

#[test]
fn the_script_decides_as_the_rule_does() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&["--appendfsync", "no"]), runtime());
    let rules = [Window::fixed(Duration::from_secs(8)), Window::sliding(Duration::from_secs(8))]
        .map(|window| Rule::of(&window));
    let confirmer = connected(&runtime, RedisConfirmer::server(server.url()));
    let step = (0_u8..4, bucket(), 0_u64..4, 0_usize..2);
    let steps = prop::collection::vec(prop::collection::vec(step, 1..8), 1..40);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let run = |batches: Vec<Vec<(u8, i64, u64, usize)>>| {
        let memory = MemoryConfirmer::new();
        runtime.block_on(confirmer.forget(&[&[0], &[1], &[2], &[3]])).unwrap();
        for batch in batches {
            let rule = rules[batch[0].3];
            let keys: Vec<_> = batch.iter().map(|step| [step.0]).collect();
            let asked: Vec<_> = batch
                .iter()
                .zip(&keys)
                .map(|((_, bucket, token, _), key)| Sighting {
                    key,
                    bucket: Bucket::new(*bucket),
                    // Tokens that differ in their last bit alone, and not as doubles.
                    token: Token::new(u64::MAX - token),
                })
                .collect();
            let answers = runtime.block_on(confirmer.confirm(&asked, rule)).unwrap();
            prop_assert_eq!(answers, memory.confirm(&asked, rule).unwrap());
        }
        Ok(())
    };
    runner.run(&steps, run).unwrap();
}

#[test]
fn large_batches_with_repeats() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let builder = RedisConfirmer::server(server.url()).timeout(Duration::from_secs(10));
    let confirmer = connected(&runtime, builder);
    let once = keys("key", 5_000);
    let twice = [once.as_slice(), &once].concat();
    let answers = runtime.block_on(confirmer.confirm(&sightings(&twice, 7), fixed())).unwrap();
    assert!(answers[..5_000].iter().all(|answer| *answer == Answer::New));
    assert!(answers[5_000..].iter().all(|answer| *answer == seen(7)));
    // 16 MiB of keys in one batch, over several calls.
    let long: Vec<_> = (0..=255).map(|byte| vec![byte; MAX_KEY_BYTES]).collect();
    for expected in [Answer::New, seen(7)] {
        let answers = runtime.block_on(confirmer.confirm(&sightings(&long, 7), fixed())).unwrap();
        assert!(answers.iter().all(|answer| *answer == expected));
    }
    let too_long = [vec![0; MAX_KEY_BYTES + 1]];
    let refused = runtime.block_on(confirmer.confirm(&sightings(&too_long, 7), fixed()));
    assert_eq!(kind(refused), Some(StoreErrorKind::Refused));
}

#[test]
fn looks_are_plain_reads() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let confirmer = connected(&runtime, RedisConfirmer::server(server.url()));
    let keys = keys("key", 2_000);
    let asked = sightings(&keys, 7);
    runtime.block_on(confirmer.confirm(&asked[500..], fixed())).unwrap();
    let _: () = server.ask("CONFIG RESETSTAT");
    let all: Vec<_> = keys.iter().map(String::as_bytes).collect();
    let held = runtime.block_on(confirmer.look(&all)).unwrap();
    let records = asked[500..].iter().map(|each| Some(Record::from(each)));
    let expected: Vec<_> = std::iter::repeat_n(None, 500).chain(records).collect();
    assert_eq!(held, expected);
    let calls: String = server.ask("INFO commandstats");
    assert!(calls.contains("cmdstat_mget:calls=2,") && !calls.contains("evalsha"), "{calls}");
}

#[test]
fn a_batch_is_one_call() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let confirmer = connected(&runtime, RedisConfirmer::server(server.url()));
    let keys = keys("key", 256);
    let confirm = || runtime.block_on(confirmer.confirm(&sightings(&keys, 7), fixed())).unwrap();
    confirm();
    let _: () = server.ask("CONFIG RESETSTAT");
    confirm();
    let calls: String = server.ask("INFO commandstats");
    assert!(calls.contains("cmdstat_evalsha:calls=1,"), "{calls}");
}

#[test]
fn of_many_tasks_that_race_one_wins_each_key() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&["--appendfsync", "no"]), runtime());
    let confirmers = [(); 2].map(|()| {
        let builder = RedisConfirmer::server(server.url()).timeout(Duration::from_secs(10));
        Arc::new(connected(&runtime, builder))
    });
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let confirmer = Arc::clone(&confirmers[task % 2]);
            runtime.spawn(async move {
                let keys = keys("contested", 50);
                let mut asked = sightings(&keys, 7);
                asked.rotate_left(task % 50);
                let mut answers = confirmer.confirm(&asked, fixed()).await.unwrap();
                answers.rotate_right(task % 50);
                answers
            })
        })
        .collect();
    let mut wins = [0; 50];
    for task in tasks {
        for (wins, answer) in wins.iter_mut().zip(runtime.block_on(task).unwrap()) {
            *wins += u8::from(answer == Answer::New);
        }
    }
    assert_eq!(wins, [1; 50]);
}

#[test]
fn records_last_as_long_as_the_rule_or_the_retention_says() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let builder = || RedisConfirmer::server(server.url()).namespace("n");
    let forever = connected(&runtime, builder());
    let retained = connected(&runtime, builder().retention(Duration::from_secs(1_000)));
    let lasting = fixed().lifetime(Duration::from_secs(100));
    let ask = |confirmer: &RedisConfirmer, key: &str, rule| {
        runtime.block_on(confirmer.confirm(&sightings(&[key], 7), rule)).unwrap();
        server.ask::<i64>(&format!("PTTL 1:n:{key}"))
    };
    assert_eq!(ask(&forever, "a", fixed()), -1);
    assert!((90_000..=100_001).contains(&ask(&forever, "b", lasting)));
    assert!((990_000..=1_000_001).contains(&ask(&retained, "c", fixed())));
    assert!((90_000..=100_001).contains(&ask(&retained, "d", lasting)));
    let held: Vec<u8> = server.ask("GET 1:n:a");
    assert_eq!(held.len(), 16);
}

// --- failures ----------------------------------------------------------------

#[test]
fn what_was_acknowledged_outlives_a_kill_under_load() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (mut server, runtime) = (Redis::start(&[]), runtime());
    let confirmer = &connected(&runtime, RedisConfirmer::server(server.url()));
    let acknowledged = Mutex::new(Vec::new());
    let (stop, failures) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for worker in 0..8 {
            let (acknowledged, stop, failures, runtime) =
                (&acknowledged, &stop, &failures, &runtime);
            scope.spawn(move || {
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let keys = keys(&format!("{worker} {round}"), 16);
                    let asked = sightings(&keys, 7);
                    match runtime.block_on(confirmer.confirm(&asked, fixed())) {
                        Ok(_) => acknowledged.lock().unwrap().extend(keys),
                        Err(error) => {
                            assert!(error.is_retryable(), "{error:?}");
                            failures.fetch_add(1, Ordering::SeqCst);
                            let answers = runtime.block_on(insist(confirmer, &asked));
                            assert!(answers.iter().all(|answer| *answer == Answer::New));
                            acknowledged.lock().unwrap().extend(keys);
                        }
                    }
                }
            });
        }
        for _ in 0..3 {
            let before = acknowledged.lock().unwrap().len();
            wait_until("load", || acknowledged.lock().unwrap().len() > before + 500);
            server.kill();
            server.restart();
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert!(failures.into_inner() > 0, "no call met the kill");
    for keys in acknowledged.into_inner().unwrap().chunks(1_000) {
        let answers = runtime.block_on(insist(confirmer, &sightings(keys, 7)));
        assert!(answers.iter().all(|answer| *answer == seen(7)), "keys were lost");
    }
    assert_eq!(confirmer.stats().restarts, 3);
}

#[test]
fn a_hung_server_costs_the_timeout_and_no_more() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let timeout = Duration::from_secs(1);
    let confirmer = connected(&runtime, RedisConfirmer::server(server.url()).timeout(timeout));
    let asked = ["a", "b"];
    let asked = sightings(&asked, 7);
    let new = runtime.block_on(confirmer.confirm(&asked[..1], fixed())).unwrap();
    assert_eq!(new, [Answer::New]);
    server.suspend();
    // With the connection that there is, and then with none.
    for expected in [Some(StoreErrorKind::Timeout), None, None] {
        let start = Instant::now();
        let hung = runtime.block_on(confirmer.confirm(&asked, fixed())).unwrap_err();
        assert!(start.elapsed() < timeout * 2, "{:?}", start.elapsed());
        assert!(hung.is_retryable(), "{hung:?}");
        assert!(expected.is_none_or(|kind| kind == hung.kind()), "{hung:?}");
    }
    server.resume();
    let answers = runtime.block_on(insist(&confirmer, &asked));
    assert_eq!(answers, [Answer::New, Answer::New]);
    assert_eq!(confirmer.stats().restarts, 0);
}

#[test]
fn a_call_given_up_never_undoes_a_later_forget() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let proxy = Proxy::to(server.port());
    let url = format!("redis://127.0.0.1:{}/", proxy.port());
    let builder = RedisConfirmer::server(url).timeout(Duration::from_secs(1));
    let confirmer = connected(&runtime, builder);
    let ask = |key: &str| runtime.block_on(confirmer.confirm(&sightings(&[key], 7), fixed()));
    // The server must know the script.
    ask("another key").unwrap();
    proxy.hold();
    assert_eq!(kind(ask("key")), Some(StoreErrorKind::Timeout));
    runtime.block_on(confirmer.forget(&[b"key"])).unwrap();
    proxy.release();
    wait_until("the held call arrives or never will", || {
        // That of the confirmer, and the one that asks.
        server.ask::<String>("INFO clients").contains("connected_clients:2\r")
    });
    assert_eq!(ask("key").unwrap(), [Answer::New], "the call that was given up recorded the key");
}

#[test]
fn callers_who_give_up_early_are_not_left_with_a_dead_connection() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let proxy = Proxy::to(server.port());
    let url = format!("redis://127.0.0.1:{}/", proxy.port());
    let builder = RedisConfirmer::server(url).timeout(Duration::from_secs(1));
    let confirmer = connected(&runtime, builder);
    let asked = sightings(&["key"], 7);
    let hurried = || {
        runtime.block_on(async {
            let call = confirmer.confirm(&asked, fixed());
            tokio::time::timeout(Duration::from_millis(100), call).await.ok()?.ok()
        })
    };
    for connections in [2, 3] {
        proxy.hold();
        let start = Instant::now();
        let answers = std::iter::repeat_with(hurried)
            .take_while(|_| start.elapsed() < Duration::from_secs(10))
            .find_map(|answers| answers);
        assert_eq!(answers, Some(vec![Answer::New]));
        assert_eq!(confirmer.stats().connections, connections);
    }
}

#[test]
fn a_call_given_up_costs_no_connection_that_lives() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let proxy = Proxy::to(server.port());
    let url = format!("redis://127.0.0.1:{}/", proxy.port());
    let timeout = Duration::from_secs(4);
    let confirmer = connected(&runtime, RedisConfirmer::server(url).timeout(timeout));
    let ask = async || confirmer.confirm(&sightings(&["key"], 7), fixed()).await;
    assert_eq!(runtime.block_on(ask()).unwrap(), [Answer::New]);
    proxy.hold();
    let given_up = async { tokio::time::timeout(Duration::from_millis(10), ask()).await };
    assert!(runtime.block_on(given_up).is_err());
    proxy.release();
    let start = Instant::now();
    while start.elapsed() < timeout {
        assert_eq!(runtime.block_on(ask()).unwrap(), [seen(7)]);
    }
    assert_eq!(confirmer.stats().connections, 1);
}

#[test]
fn a_server_that_lost_its_records_shows() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (mut server, runtime) = (Redis::start(&["--appendonly", "no"]), runtime());
    let confirmer = connected(&runtime, RedisConfirmer::server(server.url()));
    let ask = || runtime.block_on(insist(&confirmer, &sightings(&["key"], 7)));
    assert_eq!([ask(), ask()], [[Answer::New], [seen(7)]]);
    assert_eq!(confirmer.stats().restarts, 0);
    server.kill();
    server.restart();
    assert_eq!(ask(), [Answer::New], "nothing was kept");
    assert_eq!(confirmer.stats().restarts, 1);
}

#[test]
fn few_rights_are_enough() {
    if !is_installed(PROGRAM) {
        return;
    }
    let no_commands = ["--rename-command", "INFO", "", "--rename-command", "CLIENT", ""];
    let (server, poor, runtime) = (Redis::start(&[]), Redis::start(&no_commands), runtime());
    let _: () = server.ask("ACL SETUSER few on >secret ~* +evalsha +eval +mget +set +unlink");
    let few = server.url().replace("redis://", "redis://few:secret@");
    let confirmers = [few, poor.url()].map(|url| connected(&runtime, RedisConfirmer::server(url)));
    for confirmer in &confirmers {
        let asked = [sightings(&["key"], 7), sightings(&["key"], 7)];
        let answers = asked.map(|asked| runtime.block_on(confirmer.confirm(&asked, fixed())));
        assert_eq!(answers.map(Result::unwrap), [[Answer::New], [seen(7)]]);
        runtime.block_on(confirmer.forget(&[b"key"])).unwrap();
    }
    let _: () = server.ask("ACL SETUSER few -set");
    let refused = runtime.block_on(confirmers[0].confirm(&sightings(&["key"], 7), fixed()));
    assert_eq!(kind(refused), Some(StoreErrorKind::Refused));
}

#[test]
fn a_server_that_cannot_be_used_is_refused() {
    if !is_installed(PROGRAM) {
        return;
    }
    let runtime = runtime();
    let connect = |url: String| kind(runtime.block_on(RedisConfirmer::server(url).connect()));
    let guarded = Redis::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    assert_eq!(connect(guarded.url()), Some(StoreErrorKind::Refused));
    assert_eq!(connect("http://127.0.0.1/".to_owned()), Some(StoreErrorKind::Refused));
    let port = servers::free_port();
    let nobody = format!("redis://127.0.0.1:{port}/");
    assert_eq!(connect(nobody), Some(StoreErrorKind::Unavailable));
    let clustered = RedisConfirmer::cluster([guarded.url()]).connect();
    assert_eq!(kind(runtime.block_on(clustered)), Some(StoreErrorKind::Refused));
    let none = RedisConfirmer::cluster(Vec::<String>::new()).connect();
    assert_eq!(kind(runtime.block_on(none)), Some(StoreErrorKind::Refused));
    let open = Redis::start(&[]);
    let wrong = open.url().replace("redis://", "redis://:wrong@");
    assert_eq!(connect(wrong), Some(StoreErrorKind::Refused));
}

#[test]
fn a_replica_is_not_taken_for_its_primary() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (primary, replica, runtime) = (Redis::start(&[]), Redis::start(&[]), runtime());
    let connect = || runtime.block_on(RedisConfirmer::server(replica.url()).connect());
    let _: () = replica.ask(&format!("REPLICAOF 127.0.0.1 {}", primary.port()));
    let error = connect().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    let cause = error.source().unwrap().to_string();
    assert!(cause.contains("name the primary"), "{cause}");
    let _: () = replica.ask("REPLICAOF NO ONE");
    assert!(connect().is_ok());
}

#[test]
fn what_a_server_cannot_do_is_a_typed_error() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let confirmer = connected(&runtime, RedisConfirmer::server(server.url()));
    let ask = |key: &str| runtime.block_on(confirmer.confirm(&sightings(&[key], 7), fixed()));
    assert_eq!(ask("known").unwrap(), [Answer::New]);
    let _: () = server.ask("SET 0::foreign value");
    let _: () = server.ask("LPUSH 0::list value");
    assert_eq!(kind(ask("foreign")), Some(StoreErrorKind::Corrupt));
    assert_eq!(kind(ask("list")), Some(StoreErrorKind::Corrupt));
    let _: () = server.ask("CONFIG SET maxmemory 1");
    assert_eq!(kind(ask("new")), Some(StoreErrorKind::Full));
    // What is written nowhere needs no room.
    assert_eq!(ask("known").unwrap(), [seen(7)]);
    let _: () = server.ask("CONFIG SET maxmemory 0");
    let _: () = server.ask("CONFIG SET min-replicas-to-write 1");
    assert_eq!(kind(ask("new")), Some(StoreErrorKind::Unavailable));
    let _: () = server.ask("CONFIG SET min-replicas-to-write 0");
    let _: () = server.ask("SCRIPT FLUSH");
    assert_eq!(ask("new").unwrap(), [Answer::New]);
    let _: () = server.ask("REPLICAOF 127.0.0.1 1");
    assert_eq!(kind(ask("newer")), Some(StoreErrorKind::Unavailable));
    // Now it is known for a replica, and what it still knows is not asked for.
    assert_eq!(kind(ask("known")), Some(StoreErrorKind::Unavailable));
}

#[test]
fn replies_without_sense_are_typed_errors() {
    let runtime = runtime();
    for reply in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(),
        b"+OK\r\n+OK\r\n+OK\r\n",
        b":17\r\n:17\r\n:17\r\n",
        b"*-7\r\n",
        b"$99999999999999\r\n",
        b"\0\0\0\0",
    ] {
        let builder = RedisConfirmer::server(format!("redis://127.0.0.1:{}/", impostor(reply)))
            .timeout(Duration::from_millis(400));
        let asked = runtime.block_on(async {
            builder.connect().await?.confirm(&sightings(&["a"], 7), fixed()).await
        });
        let error = asked.expect_err("it is no Redis");
        assert!(error.source().is_some(), "{error:?}");
    }
}

// --- a cluster that changes --------------------------------------------------

#[test]
fn a_slot_may_move_while_checks_go_on() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (cluster, runtime) = (RedisCluster::start(), runtime());
    let builder = RedisConfirmer::cluster([cluster.nodes[0].url()]).namespace("{moving}");
    let confirmer = Arc::new(connected(&runtime, builder.timeout(Duration::from_secs(5))));
    let slot: u16 = cluster.nodes[0].ask("CLUSTER KEYSLOT {moving}");
    let home = usize::from(slot > 5_460) + usize::from(slot > 10_922);
    let stop = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let (confirmer, stop, rounds) =
                (Arc::clone(&confirmer), Arc::clone(&stop), Arc::clone(&rounds));
            runtime.spawn(async move {
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let keys = keys(&format!("{worker} {round}"), 20);
                    let first = insist(&confirmer, &sightings(&keys, 7)).await;
                    assert!(first.iter().all(|answer| *answer == Answer::New), "seen too early");
                    let again = insist(&confirmer, &sightings(&keys, 7)).await;
                    assert!(again.iter().all(|answer| *answer == seen(7)), "forgotten");
                    rounds.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let progress = || {
        let before = rounds.load(Ordering::SeqCst);
        wait_until("checks", || rounds.load(Ordering::SeqCst) > before + 4);
    };
    for hop in 0..3 {
        let mut stops = 0;
        cluster.move_slot(slot, (home + hop) % 3, (home + hop + 1) % 3, || {
            // Not each time, or the source never empties.
            stops += 1;
            if stops <= 2 {
                progress();
            }
        });
        progress();
    }
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        runtime.block_on(worker).unwrap();
    }
    assert!(confirmer.stats().moved_slots >= 3, "{confirmer:?}");
    assert_eq!(confirmer.stats().restarts, 0);
}

/// Which of the three servers a key is at, without a namespace.
fn home(cluster: &RedisCluster, key: &str) -> usize {
    let slot: u16 = cluster.nodes[2].ask(&format!("CLUSTER KEYSLOT 0::{key}"));
    usize::from(slot > 5_460) + usize::from(slot > 10_922)
}

#[test]
fn a_hung_server_holds_up_its_own_slots_alone() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (cluster, runtime) = (RedisCluster::start(), runtime());
    let timeout = Duration::from_secs(4);
    let builder = RedisConfirmer::cluster(cluster.urls()).timeout(timeout);
    let confirmer = connected(&runtime, builder);
    let ask = |key: &str| runtime.block_on(confirmer.confirm(&sightings(&[key], 7), fixed()));
    let all: Vec<_> = (0..60).map(|number| format!("key-{number}")).collect();
    let (hung, well): (Vec<_>, Vec<_>) = all.iter().partition(|key| home(&cluster, key) == 0);
    let _ = ask(hung[0]).unwrap();
    cluster.nodes[0].suspend();
    assert_eq!(kind(ask(hung[0])), Some(StoreErrorKind::Timeout));
    let moved: u16 = cluster.nodes[2].ask(&format!("CLUSTER KEYSLOT 0::{}", well[0]));
    // Slots of which nothing is known yet, and one that moves meanwhile.
    let start = Instant::now();
    for key in &well {
        assert_eq!(ask(key).unwrap(), [Answer::New]);
    }
    let from = home(&cluster, well[0]);
    cluster.move_slot(moved, from, 3 - from, || ());
    for key in &well {
        assert_eq!(ask(key).unwrap(), [seen(7)]);
    }
    assert!(start.elapsed() < timeout / 2, "{:?}", start.elapsed());
    assert!(confirmer.stats().moved_slots >= 1, "{confirmer:?}");
    cluster.nodes[0].resume();
}

#[test]
fn a_replica_takes_over_with_what_it_has() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (mut cluster, runtime) = (RedisCluster::start(), runtime());
    cluster.add_replica(0);
    let builder = RedisConfirmer::cluster(cluster.urls()).timeout(Duration::from_secs(2));
    let confirmer = connected(&runtime, builder);
    let by_replica = RedisConfirmer::cluster([cluster.nodes[3].url()]);
    let by_replica = connected(&runtime, by_replica.timeout(Duration::from_secs(2)));
    assert_eq!(runtime.block_on(by_replica.look(&[b"key"])).unwrap(), [None]);
    let all: Vec<_> = (0..60).map(|number| format!("key-{number}")).collect();
    let keys: Vec<_> = all.iter().filter(|key| home(&cluster, key) == 0).collect();
    let (known, lost) = keys.split_at(keys.len() / 2);
    let ask = |keys: &[&String]| {
        let answers = runtime.block_on(insist(&confirmer, &sightings(keys, 7)));
        answers.iter().filter(|answer| **answer == Answer::New).count()
    };
    assert_eq!(ask(known), known.len());
    wait_until("replication", || cluster.nodes[3].ask::<usize>("DBSIZE") == known.len());
    cluster.nodes[3].kill();
    assert_eq!(ask(lost), lost.len());
    assert_eq!(confirmer.stats().moved_slots, 0);
    cluster.nodes[0].kill();
    cluster.nodes[3].restart();
    let _: () = cluster.nodes[3].ask("CLUSTER FAILOVER TAKEOVER");
    assert_eq!(ask(known), 0, "the replica had them");
    assert_eq!(ask(lost), lost.len(), "it never had them");
    assert_eq!(confirmer.stats().moved_slots, keys.len() as u64);
}

#[test]
fn a_clusters_server_is_not_taken_for_a_single_one() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (cluster, runtime) = (RedisCluster::start(), runtime());
    let confirmer = connected(&runtime, RedisConfirmer::server(cluster.nodes[0].url()));
    for count in [1, 20] {
        // Of single keys a third is at home.
        let mut batches = (0..10).map(|batch| keys(&batch.to_string(), count));
        let asked = batches.find_map(|keys| {
            kind(runtime.block_on(confirmer.confirm(&sightings(&keys, 7), fixed())))
        });
        assert_eq!(asked, Some(StoreErrorKind::Refused));
    }
}

#[test]
fn a_cluster_with_a_dead_server_answers_for_the_others() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (mut cluster, runtime) = (RedisCluster::start(), runtime());
    let builder = RedisConfirmer::cluster(cluster.urls()).timeout(Duration::from_secs(2));
    let confirmer = connected(&runtime, builder);
    let keys = keys("key", 100);
    let asked = sightings(&keys, 7);
    let new = runtime.block_on(confirmer.confirm(&asked, fixed())).unwrap();
    assert!(new.iter().all(|answer| *answer == Answer::New));
    cluster.nodes[0].kill();
    let mut outcomes = [0, 0];
    for sighting in &asked {
        let start = Instant::now();
        match runtime.block_on(confirmer.confirm(&[*sighting], fixed())) {
            Ok(answers) => {
                assert_eq!(answers, [Answer::New], "the sighting's own token");
                outcomes[0] += 1;
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                outcomes[1] += 1;
            }
        }
        assert!(start.elapsed() < Duration::from_secs(3));
    }
    assert!(outcomes[0] > 30 && outcomes[1] > 10, "{outcomes:?}");
    let whole = runtime.block_on(confirmer.confirm(&asked, fixed())).unwrap_err();
    assert!(whole.is_retryable() && whole.may_have_recorded(), "{whole:?}");
    cluster.nodes[0].restart();
    let answers = runtime.block_on(insist(&confirmer, &asked));
    assert!(answers.iter().all(|answer| *answer == Answer::New));
}

#[test]
fn a_full_server_of_a_cluster_says_so_and_what_others_recorded_is_not_denied() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (cluster, runtime) = (RedisCluster::start(), runtime());
    let builder = RedisConfirmer::cluster(cluster.urls()).timeout(Duration::from_secs(10));
    let confirmer = connected(&runtime, builder);
    let keys = keys("key", 60);
    let asked = sightings(&keys, 7);
    let _: () = cluster.nodes[0].ask("CONFIG SET maxmemory 1");
    let full = runtime.block_on(confirmer.confirm(&asked, fixed())).unwrap_err();
    assert_eq!(full.kind(), StoreErrorKind::Full);
    assert!(full.may_have_recorded() && !full.is_retryable(), "{full:?}");
    assert!(cluster.nodes[1].ask::<usize>("DBSIZE") > 0);
    let _: () = cluster.nodes[0].ask("CONFIG SET maxmemory 0");
    let answers = runtime.block_on(confirmer.confirm(&asked, fixed())).unwrap();
    assert!(answers.iter().all(|answer| *answer == Answer::New), "{answers:?}");
}
