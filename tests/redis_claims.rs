//! Claims in Redis, against real servers.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod servers;

use hapax::claim::{Claim, Gate, Identity, LeaseError};
use hapax::confirm::claims::{
    Answer, AsyncClaimStore, ClaimRequest, Digest, Grant, Outcome, RedisClaims, SettleRequest,
    Settled, Settlement, Status, Terms,
};
use hapax::confirm::conformance::{Blocking, ClaimHarness, Trouble, check_claims};
use hapax::confirm::{
    self, AsyncConfirmer, Bucket, MAX_KEY_BYTES, RedisBuilder, RedisConfirmer, Rule, Sighting,
    StoreError, StoreErrorKind, Token,
};
use hapax::{Timestamp, Window};
use servers::impostor::impostor;
use servers::on_tokio::OnTokio;
use servers::proxied::Proxied;
use servers::proxy::Proxy;
use servers::redis::{PROGRAM, Redis, RedisCluster};
use servers::{Server as _, is_installed, wait_until};
use std::env;
use std::error::Error;
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const TERMS: Terms = Terms { lease: Duration::from_secs(300), keep: Duration::from_secs(86_400) };

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn connected(runtime: &Runtime, builder: RedisBuilder<RedisClaims>) -> RedisClaims {
    runtime.block_on(builder.connect()).unwrap()
}

fn through(port: u16) -> RedisBuilder<RedisClaims> {
    RedisClaims::server(format!("redis://127.0.0.1:{port}/"))
}

/// A claim with a token that no other has.
fn claim() -> ClaimRequest {
    static TOKENS: AtomicU64 = AtomicU64::new(1);
    let token = Token::new(TOKENS.fetch_add(1, Ordering::Relaxed));
    ClaimRequest { token, digest: Digest::of(b"payload"), terms: TERMS }
}

fn settlement<'a>(claim: &ClaimRequest, settlement: Settlement<'a>) -> SettleRequest<'a> {
    SettleRequest { token: claim.token, settlement, terms: claim.terms }
}

fn done() -> Outcome {
    Outcome::success(*b"done\0\r\n\xff")
}

fn kind<T>(result: Result<T, StoreError>) -> Option<StoreErrorKind> {
    result.err().map(|error| error.kind())
}

#[track_caller]
fn granted(answer: &Answer) -> Grant {
    let Answer::Granted(grant) = answer else { panic!("{answer:?}") };
    *grant
}

/// Asks until there is an answer.
async fn insist<T, F: Future<Output = Result<T, StoreError>>>(ask: impl Fn() -> F) -> T {
    for _ in 0..2_000 {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no answer in 2,000 attempts");
}

/// Claims an identity that is free and completes it, however often it must ask.
async fn work(claims: &RedisClaims, id: &str) {
    let request = claim();
    let answer = insist(|| claims.claim(id.as_bytes(), &request)).await;
    assert_eq!(granted(&answer).attempt, 1, "{id}: who asks again is taken for another");
    let outcome = done();
    let complete = settlement(&request, Settlement::Complete(&outcome));
    assert_eq!(insist(|| claims.settle(id.as_bytes(), &complete)).await, Settled::Done);
}

async fn is_finished(claims: &RedisClaims, id: &str) -> bool {
    let status = insist(|| claims.look(id.as_bytes())).await;
    status == Some(Status::Finished(done()))
}

// --- the contract ------------------------------------------------------------

fn opened(
    runtime: &Runtime,
    builder: RedisBuilder<RedisClaims>,
    namespace: &str,
) -> Result<Blocking<RedisClaims, OnTokio>, StoreError> {
    let builder = builder.namespace(namespace).timeout(Duration::from_secs(10));
    let store = runtime.block_on(builder.connect())?;
    Ok(Blocking { store, runtime: OnTokio::of(runtime) })
}

struct Single {
    runtime: Runtime,
    server: Proxied<Redis>,
}

impl ClaimHarness for Single {
    type Store = Blocking<RedisClaims, OnTokio>;

    fn open(&self, namespace: &str) -> Result<Self::Store, StoreError> {
        opened(&self.runtime, through(self.server.port()), namespace)
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
    let report = check_claims(&Single { runtime: runtime(), server });
    report.assert();
    assert!(!report.to_string().contains("not run"), "{report}");
}

struct Clustered {
    runtime: Runtime,
    cluster: RedisCluster,
}

impl ClaimHarness for Clustered {
    type Store = Blocking<RedisClaims, OnTokio>;

    fn open(&self, namespace: &str) -> Result<Self::Store, StoreError> {
        opened(&self.runtime, RedisClaims::cluster(self.cluster.urls()), namespace)
    }
}

#[test]
fn a_cluster_keeps_the_contract() {
    if !is_installed(PROGRAM) {
        return;
    }
    check_claims(&Clustered { runtime: runtime(), cluster: RedisCluster::start() }).assert();
}

// --- what is answered and kept -----------------------------------------------

#[test]
fn of_many_tasks_that_race_one_is_granted_each_key() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&["--appendfsync", "no"]), runtime());
    let stores = [(); 2].map(|()| {
        let builder = RedisClaims::server(server.url()).timeout(Duration::from_secs(10));
        Arc::new(connected(&runtime, builder))
    });
    let tasks: Vec<_> = (0..64)
        .map(|task| {
            let claims = Arc::clone(&stores[task % 2]);
            runtime.spawn(async move {
                let mut wins = [0_u32; 50];
                for turn in 0..50 {
                    let id = (task + turn) % 50;
                    let answer = claims.claim(&[id as u8], &claim()).await.unwrap();
                    wins[id] += u32::from(matches!(answer, Answer::Granted(_)));
                }
                wins
            })
        })
        .collect();
    let mut wins = [0; 50];
    for task in tasks {
        for (wins, own) in wins.iter_mut().zip(runtime.block_on(task).unwrap()) {
            *wins += own;
        }
    }
    assert_eq!(wins, [1; 50]);
}

#[test]
fn entries_last_as_long_as_they_mean_something() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let claims = connected(&runtime, RedisClaims::server(server.url()).namespace("n"));
    let lasts = |secs: u64| {
        let left: u64 = server.ask("PTTL claim:1:n:id");
        assert!((secs * 1_000 - 5_000..=secs * 1_000 + 1).contains(&left), "{left} ms");
        server.ask::<Vec<u8>>("GET claim:1:n:id").len()
    };
    let settle = |request: &SettleRequest<'_>| {
        assert_eq!(runtime.block_on(claims.settle(b"id", request)).unwrap(), Settled::Done);
    };
    let (request, outcome) = (claim(), done());
    granted(&runtime.block_on(claims.claim(b"id", &request)).unwrap());
    assert_eq!(lasts(86_700), 78);
    settle(&settlement(&request, Settlement::Complete(&outcome)));
    assert_eq!(lasts(86_400), 79 + outcome.len());
    settle(&settlement(&request, Settlement::Clear));
    assert_eq!(lasts(300), 78);
    let terms = Terms { lease: Duration::MAX, keep: Duration::MAX };
    granted(&runtime.block_on(claims.claim(b"id", &ClaimRequest { terms, ..claim() })).unwrap());
    // The last millisecond that the script can count to.
    assert_eq!(server.ask::<u64>("PEXPIRETIME claim:1:n:id"), (1_u64 << 53).div_ceil(1_000));
    assert_eq!(server.ask::<usize>("DBSIZE"), 1);
}

#[test]
fn times_are_the_servers() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let claims = connected(&runtime, RedisClaims::server(server.url()));
    let time = || {
        let (secs, micros): (i64, i64) = server.ask("TIME");
        Timestamp::from_micros(secs * 1_000_000 + micros)
    };
    let before = time();
    let grant = granted(&runtime.block_on(claims.claim(b"id", &claim())).unwrap());
    let after = time();
    let answer = runtime.block_on(claims.claim(b"id", &claim())).unwrap();
    let Answer::InFlight { since, remaining } = answer else { panic!("{answer:?}") };
    assert!(before <= since && since <= after, "{before:?} {since:?} {after:?}");
    assert_eq!(grant.fence.number(), since.as_micros() as u64);
    let deadline = since.saturating_add(TERMS.lease);
    let (early, late) = (after.saturating_add(remaining), time().saturating_add(remaining));
    assert!(early <= deadline && deadline <= late, "{early:?} {deadline:?} {late:?}");
    let status = runtime.block_on(claims.look(b"id")).unwrap();
    assert!(matches!(status, Some(Status::InFlight { since: same, grant: held, .. })
        if same == since && held == grant));
}

#[test]
fn claims_and_keys_of_one_namespace_never_meet() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let builder = RedisConfirmer::server(server.url()).namespace("orders");
    let confirmer = runtime.block_on(builder.connect()).unwrap();
    let claims = confirmer.claims();
    let rule = Rule::of(&Window::fixed(Duration::from_secs(80)));
    let sighting = Sighting { key: b"id", bucket: Bucket::new(7), token: Token::new(1) };
    granted(&runtime.block_on(claims.claim(b"id", &claim())).unwrap());
    let answers = runtime.block_on(confirmer.confirm(&[sighting], rule)).unwrap();
    assert_eq!(answers, [confirm::Answer::New]);
    runtime.block_on(confirmer.forget(&[b"id"])).unwrap();
    let answer = runtime.block_on(claims.claim(b"id", &claim())).unwrap();
    assert!(matches!(answer, Answer::InFlight { .. }), "{answer:?}");
    assert_eq!((claims.stats().connections, confirmer.stats()), (1, claims.stats()));
}

#[test]
fn large_outcomes_and_long_identities() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let builder = RedisClaims::server(server.url()).timeout(Duration::from_secs(10));
    let claims = connected(&runtime, builder);
    let (request, id) = (claim(), vec![0xff; MAX_KEY_BYTES]);
    let bytes: Vec<u8> = (0..16 << 20).map(|index: u32| index as u8).collect();
    let outcome = Outcome::success(bytes);
    granted(&runtime.block_on(claims.claim(&id, &request)).unwrap());
    let complete = settlement(&request, Settlement::Complete(&outcome));
    assert_eq!(runtime.block_on(claims.settle(&id, &complete)).unwrap(), Settled::Done);
    let answer = runtime.block_on(claims.claim(&id, &claim())).unwrap();
    assert_eq!(answer, Answer::Finished(outcome));
    let too_long = vec![0; MAX_KEY_BYTES + 1];
    let refused = runtime.block_on(claims.claim(&too_long, &request));
    assert_eq!(kind(refused), Some(StoreErrorKind::Refused));
}

// --- failures ----------------------------------------------------------------

#[test]
fn a_lost_reply_is_asked_for_again_and_does_no_harm() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let proxy = Proxy::to(server.port());
    let gate =
        Gate::builder(connected(&runtime, through(proxy.port()))).remember(0).build().unwrap();
    let (id, digest) = (Identity::new("t", "s", "k"), Digest::of(b"payload"));
    proxy.lose_next_reply();
    let claimed = runtime.block_on(gate.claim_async(&id, digest)).unwrap();
    let Claim::Granted(mut lease) = claimed else { panic!("{claimed:?}") };
    assert_eq!(lease.attempt(), 1);
    proxy.lose_next_reply();
    runtime.block_on(lease.extend_async()).unwrap();
    proxy.lose_next_reply();
    runtime.block_on(lease.complete_async(done())).unwrap();
    proxy.lose_next_reply();
    let replay = runtime.block_on(gate.claim_async(&id, digest)).unwrap();
    assert!(matches!(replay, Claim::Replay(outcome) if outcome == done()));
    // Five of them lost: each made another connection.
    assert_eq!((gate.store().stats().connections, gate.store().stats().restarts), (5, 0));
}

#[test]
fn what_was_acknowledged_outlives_a_kill_under_load() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (mut server, runtime) = (Redis::start(&[]), runtime());
    let claims = &connected(&runtime, RedisClaims::server(server.url()));
    let (acknowledged, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    thread::scope(|scope| {
        for worker in 0..8 {
            let (acknowledged, stop, runtime) = (&acknowledged, &stop, &runtime);
            scope.spawn(move || {
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let id = format!("{worker} {round}");
                    runtime.block_on(work(claims, &id));
                    acknowledged.lock().unwrap().push(id);
                }
            });
        }
        for _ in 0..3 {
            let before = acknowledged.lock().unwrap().len();
            wait_until("load", || acknowledged.lock().unwrap().len() > before + 200);
            server.kill();
            server.restart();
        }
        stop.store(true, Ordering::SeqCst);
    });
    for id in acknowledged.into_inner().unwrap() {
        assert!(runtime.block_on(is_finished(claims, &id)), "{id} was lost");
    }
    assert_eq!(claims.stats().restarts, 3);
}

#[test]
fn a_hung_server_costs_the_timeout_and_no_more() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let timeout = Duration::from_secs(1);
    let claims = connected(&runtime, RedisClaims::server(server.url()).timeout(timeout));
    let request = claim();
    server.suspend();
    // With the connection that there is, and then with none.
    for expected in [Some(StoreErrorKind::Timeout), None, None] {
        let start = Instant::now();
        let hung = runtime.block_on(claims.claim(b"id", &request)).unwrap_err();
        assert!(start.elapsed() < timeout * 2, "{:?}", start.elapsed());
        assert!(hung.is_retryable(), "{hung:?}");
        assert!(expected.is_none_or(|kind| kind == hung.kind()), "{hung:?}");
    }
    server.resume();
    let answer = runtime.block_on(insist(|| claims.claim(b"id", &request)));
    assert_eq!(granted(&answer).attempt, 1);
}

/// Names the server to the child.
const SERVER: &str = "HAPAX_REDIS_CLAIMS_SERVER";

const LEASE: Duration = Duration::from_secs(2);

fn leased(runtime: &Runtime, url: &str) -> Gate<RedisClaims> {
    let claims = connected(runtime, RedisClaims::server(url));
    Gate::builder(claims).lease(LEASE).build().unwrap()
}

/// Claims a key and works on it for ever. Does nothing unless it is run as a child.
#[test]
fn child() {
    let Ok(url) = env::var(SERVER) else { return };
    let runtime = runtime();
    let gate = leased(&runtime, &url);
    let (id, digest) = (Identity::new("t", "s", "k"), Digest::of(b"payload"));
    let claimed = runtime.block_on(gate.claim_async(&id, digest)).unwrap();
    assert!(matches!(claimed, Claim::Granted(_)));
    println!("\ngranted");
    std::io::stdout().flush().unwrap();
    loop {
        thread::park();
    }
}

#[test]
fn a_killed_workers_key_goes_to_another_after_its_lease() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(SERVER, server.url());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line == "granted"), "the child ended");
    child.kill().unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    let gate = leased(&runtime, &server.url());
    let (id, digest) = (Identity::new("t", "s", "k"), Digest::of(b"payload"));
    let claimed = runtime.block_on(gate.claim_async(&id, digest)).unwrap();
    assert!(matches!(claimed, Claim::InFlight(_)), "{claimed:?}");
    let claimed = runtime.block_on(gate.claim_or_wait_async(&id, digest, LEASE * 5)).unwrap();
    let Claim::Granted(mut lease) = claimed else { panic!("{claimed:?}") };
    assert!(start.elapsed() < LEASE * 2, "{:?}", start.elapsed());
    assert!(lease.is_takeover() && lease.attempt() == 2);
    runtime.block_on(lease.complete_async(done())).unwrap();
}

#[test]
fn whoever_comes_late_is_refused() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let gates = [(); 2].map(|()| {
        let claims = connected(&runtime, RedisClaims::server(server.url()));
        Gate::builder(claims).lease(Duration::from_millis(20)).build().unwrap()
    });
    let digest = Digest::of(b"payload");
    for key in 0..50 {
        let id = Identity::new("t", "s", [key]);
        let claimed = runtime.block_on(gates[0].claim_async(&id, digest)).unwrap();
        let Claim::Granted(mut late) = claimed else { panic!("{claimed:?}") };
        let patience = Duration::from_secs(10);
        let claimed = runtime.block_on(gates[1].claim_or_wait_async(&id, digest, patience));
        let Claim::Granted(mut lease) = claimed.unwrap() else { panic!("it is held for ever") };
        assert!(lease.is_takeover() && lease.fence() > late.fence());
        let completed = runtime.block_on(late.complete_async(Outcome::success(*b"late")));
        assert_eq!(completed, Err(LeaseError::Stale));
        runtime.block_on(lease.complete_async(done())).unwrap();
        let replay = runtime.block_on(gates[0].claim_async(&id, digest)).unwrap();
        assert!(matches!(replay, Claim::Replay(outcome) if outcome == done()));
    }
}

#[test]
fn few_rights_are_enough() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let _: () = server.ask("ACL SETUSER few on >secret ~claim:* +evalsha +eval +get +set +time");
    let few = server.url().replace("redis://", "redis://few:secret@");
    let claims = connected(&runtime, RedisClaims::server(few));
    runtime.block_on(work(&claims, "id"));
    assert!(runtime.block_on(is_finished(&claims, "id")));
    let _: () = server.ask("ACL SETUSER few -set");
    let refused = runtime.block_on(claims.claim(b"other", &claim()));
    assert_eq!(kind(refused), Some(StoreErrorKind::Refused));
}

#[test]
fn a_server_that_cannot_be_used_is_refused() {
    if !is_installed(PROGRAM) {
        return;
    }
    let runtime = runtime();
    let connect = |builder: RedisBuilder<RedisClaims>| kind(runtime.block_on(builder.connect()));
    let evicting = Redis::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let refused = Some(StoreErrorKind::Refused);
    assert_eq!(connect(RedisClaims::server(evicting.url())), refused);
    assert_eq!(connect(RedisClaims::server("http://127.0.0.1/")), refused);
    let cluster = RedisCluster::start();
    let claims = connected(&runtime, RedisClaims::server(cluster.nodes[0].url()));
    let mut answers = (0_u8..50).map(|id| runtime.block_on(claims.claim(&[id], &claim())));
    assert_eq!(answers.find_map(kind), refused, "a cluster's server was taken for a single one");
}

#[test]
fn what_a_server_cannot_do_is_a_typed_error() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (server, runtime) = (Redis::start(&[]), runtime());
    let claims = connected(&runtime, RedisClaims::server(server.url()));
    let ask = |id: &str| kind(runtime.block_on(claims.claim(id.as_bytes(), &claim())));
    runtime.block_on(work(&claims, "known"));
    let _: () = server.ask("SET claim:0::foreign value");
    let _: () = server.ask("LPUSH claim:0::list value");
    assert_eq!(ask("foreign"), Some(StoreErrorKind::Corrupt));
    assert_eq!(ask("list"), Some(StoreErrorKind::Corrupt));
    let _: () = server.ask("CONFIG SET maxmemory 1");
    assert_eq!(ask("new"), Some(StoreErrorKind::Full));
    // What is written nowhere needs no room.
    assert_eq!(ask("known"), None);
    let _: () = server.ask("CONFIG SET maxmemory 0");
    let _: () = server.ask("CONFIG SET min-replicas-to-write 1");
    assert_eq!(ask("new"), Some(StoreErrorKind::Unavailable));
    let _: () = server.ask("CONFIG SET min-replicas-to-write 0");
    let _: () = server.ask("SCRIPT FLUSH");
    assert_eq!(ask("new"), None);
    let _: () = server.ask("REPLICAOF 127.0.0.1 1");
    assert_eq!(ask("newer"), Some(StoreErrorKind::Unavailable));
}

#[test]
fn replies_without_sense_are_typed_errors() {
    let runtime = runtime();
    for reply in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(),
        b"+OK\r\n+OK\r\n+OK\r\n",
        b"$1\r\nG\r\n$1\r\nG\r\n$1\r\nG\r\n",
        b":17\r\n:17\r\n:17\r\n",
        b"\0\0\0\0",
    ] {
        let url = format!("redis://127.0.0.1:{}/", impostor(reply));
        let builder = RedisClaims::server(url).timeout(Duration::from_millis(400));
        let asked =
            runtime.block_on(async { builder.connect().await?.claim(b"id", &claim()).await });
        let error = asked.expect_err("it is no Redis");
        assert!(error.source().is_some(), "{error:?}");
    }
}

// --- a cluster that changes --------------------------------------------------

#[test]
fn a_slot_may_move_while_claims_go_on() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (cluster, runtime) = (RedisCluster::start(), runtime());
    let builder = RedisClaims::cluster([cluster.nodes[0].url()]).namespace("{moving}");
    let claims = Arc::new(connected(&runtime, builder.timeout(Duration::from_secs(5))));
    let slot: u16 = cluster.nodes[0].ask("CLUSTER KEYSLOT {moving}");
    let home = usize::from(slot > 5_460) + usize::from(slot > 10_922);
    let stop = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let (claims, stop, rounds) =
                (Arc::clone(&claims), Arc::clone(&stop), Arc::clone(&rounds));
            runtime.spawn(async move {
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let ids: Vec<_> = (0..20).map(|id| format!("{worker} {round} {id}")).collect();
                    for id in &ids {
                        work(&claims, id).await;
                    }
                    for id in &ids {
                        assert!(is_finished(&claims, id).await, "{id} was lost");
                    }
                    rounds.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let progress = || {
        let before = rounds.load(Ordering::SeqCst);
        wait_until("claims", || rounds.load(Ordering::SeqCst) > before + 4);
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
    assert!(claims.stats().moved_slots >= 3, "{claims:?}");
}

#[test]
fn a_replica_takes_over_with_what_it_has() {
    if !is_installed(PROGRAM) {
        return;
    }
    let (mut cluster, runtime) = (RedisCluster::start(), runtime());
    cluster.add_replica(0);
    let builder = RedisClaims::cluster(cluster.urls()).timeout(Duration::from_secs(2));
    let claims = connected(&runtime, builder);
    let is_home = |id: &String| {
        let slot: u16 = cluster.nodes[2].ask(&format!("CLUSTER KEYSLOT claim:0::{id}"));
        slot <= 5_460
    };
    let ids: Vec<_> = (0..60).map(|id| format!("id-{id}")).filter(is_home).collect();
    let (finished, held) = ids.split_at(ids.len() / 2);
    for id in finished {
        runtime.block_on(work(&claims, id));
    }
    let requests: Vec<_> = held.iter().map(|_| claim()).collect();
    let grants: Vec<_> = held
        .iter()
        .zip(&requests)
        .map(|(id, request)| {
            granted(&runtime.block_on(insist(|| claims.claim(id.as_bytes(), request))))
        })
        .collect();
    wait_until("replication", || cluster.nodes[3].ask::<usize>("DBSIZE") == ids.len());
    let offset = |node: usize| {
        let info: String = cluster.nodes[node].ask("INFO replication");
        let line = info.lines().find(|line| line.starts_with("master_repl_offset"));
        line.unwrap().to_owned()
    };
    wait_until("all of it", || offset(0) == offset(3));
    cluster.nodes[0].kill();
    let _: () = cluster.nodes[3].ask("CLUSTER FAILOVER TAKEOVER");
    for id in finished {
        assert!(runtime.block_on(is_finished(&claims, id)), "{id} was lost");
    }
    // Each lease goes on, and is nobody else's.
    for ((id, request), grant) in held.iter().zip(&requests).zip(&grants) {
        let other = claim();
        let answer = runtime.block_on(insist(|| claims.claim(id.as_bytes(), &other)));
        assert!(matches!(answer, Answer::InFlight { .. }), "{answer:?}");
        let answer = runtime.block_on(insist(|| claims.claim(id.as_bytes(), request)));
        assert_eq!(granted(&answer), *grant);
        let release = settlement(request, Settlement::Release);
        let settled = runtime.block_on(insist(|| claims.settle(id.as_bytes(), &release)));
        assert_eq!(settled, Settled::Done);
    }
    assert_eq!(claims.stats().moved_slots, ids.len() as u64);
}
