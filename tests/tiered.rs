//! Redis before PostgreSQL, against real servers: the contract, caches that die,
//! hang or start anew under load, and what is between the two when somebody crashes.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod servers;

use hapax::Window;
use hapax::confirm::conformance::{Blocking, Harness, Outcome, Trouble, check};
use hapax::confirm::{
    Answer, AsyncConfirmer, Bucket, PostgresConfirmer, Record, RedisConfirmer, Rule, Sighting,
    StoreError, StoreErrorKind, Tiered, Token,
};
use servers::on_tokio::OnTokio;
use servers::postgres::{Postgres, parameters};
use servers::proxied::Proxied;
use servers::redis::{PROGRAM, Redis};
use servers::{Server as _, is_installed, wait_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

const NOW: i64 = 29_000_000;

/// How long a busy machine may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a cache that does not answer is waited for.
const CACHE_TIMEOUT: Duration = Duration::from_millis(300);

type RedisBeforePostgres = Tiered<RedisConfirmer, PostgresConfirmer>;

fn fixed() -> Rule {
    Rule::of(&Window::fixed(Duration::from_secs(480)).buckets(8))
}

fn sighting(key: &[u8], token: u64) -> Sighting<'_> {
    Sighting { key, bucket: Bucket::new(NOW), token: Token::new(token) }
}

const SEEN: Answer = Answer::Seen(Bucket::new(NOW));

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
}

/// Both servers, each behind a proxy. The cache keeps nothing on disk.
struct Servers {
    cache: Proxied<Redis>,
    authority: Proxied<Postgres>,
    runtime: Runtime,
}

impl Servers {
    /// `None` where they are not installed: then the test is skipped.
    fn start() -> Option<Self> {
        let authority = Postgres::start()?;
        if !is_installed(PROGRAM) {
            return None;
        }
        let (cache, runtime) = (Redis::start(&["--appendonly", "no"]), runtime());
        let schema = PostgresConfirmer::builder(&authority.parameters());
        runtime.block_on(schema.create_schema()).unwrap();
        Some(Self { cache: Proxied::new(cache), authority: Proxied::new(authority), runtime })
    }

    /// As another process would; its cache is given up after `patience`.
    async fn connect(
        &self,
        namespace: &str,
        patience: Duration,
    ) -> Result<RedisBeforePostgres, StoreError> {
        let (cache, authority) = self.connect_both(namespace, patience).await?;
        Ok(Tiered::new(cache, authority).rest(Duration::from_millis(50)))
    }

    async fn connect_both(
        &self,
        namespace: &str,
        patience: Duration,
    ) -> Result<(RedisConfirmer, PostgresConfirmer), StoreError> {
        let url = format!("redis://127.0.0.1:{}/", self.cache.port());
        let cache = RedisConfirmer::server(url).namespace(namespace).timeout(patience).connect();
        let parameters = parameters(self.authority.port());
        let authority = PostgresConfirmer::builder(&parameters).namespace(namespace);
        let authority = authority.connect_timeout(PATIENCE).reply_timeout(PATIENCE).connect();
        Ok((cache.await?, authority.await?))
    }

    fn connected(&self) -> RedisBeforePostgres {
        self.runtime.block_on(self.connect("test", CACHE_TIMEOUT)).unwrap()
    }
}

// --- the contract ------------------------------------------------------------

impl Harness for Servers {
    type Confirmer = Blocking<RedisBeforePostgres, OnTokio>;

    fn open(&self, namespace: &str) -> Result<Self::Confirmer, StoreError> {
        let confirmer = self.runtime.block_on(self.connect(namespace, PATIENCE))?;
        Ok(Blocking { store: confirmer, runtime: OnTokio::of(&self.runtime) })
    }

    fn trouble(&self) -> &dyn Trouble {
        self
    }
}

impl Trouble for Servers {
    fn lose_next_reply(&self) -> bool {
        self.authority.lose_next_reply()
    }

    fn cut_off(&self) -> bool {
        self.cache.cut_off() && self.authority.cut_off()
    }

    fn reconnect(&self) {
        self.cache.reconnect();
        self.authority.reconnect();
    }

    /// The cache loses everything by that.
    fn restart(&self) -> bool {
        self.cache.restart() && self.authority.restart()
    }
}

#[test]
fn the_contract_holds() {
    let Some(servers) = Servers::start() else { return };
    let report = check(&servers);
    report.assert();
    let passed = |(name, outcome): (_, &Outcome)| assert_eq!(*outcome, Outcome::Passed, "{name}");
    report.outcomes().for_each(passed);
}

// --- caches that fail --------------------------------------------------------

const KEYS: usize = 3_000;
const TASKS: usize = 6;

/// Sends each key three times, by six tasks of two processes, while `trouble` goes
/// on. Every key is new once, and no call fails or takes longer than the cache's
/// timeouts and the authority need.
fn every_key_is_new_once(servers: &Servers, trouble: impl FnOnce(&AtomicUsize)) {
    let wins: Arc<Vec<AtomicU64>> = Arc::new((0..KEYS).map(|_| AtomicU64::new(0)).collect());
    let (sent, tokens) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(1)));
    let processes = [(); 2].map(|()| Arc::new(servers.connected()));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (wins, sent, tokens) = (Arc::clone(&wins), Arc::clone(&sent), Arc::clone(&tokens));
        let confirmer = Arc::clone(&processes[task % 2]);
        let load = async move {
            // In three orders, each shared by two tasks.
            let stride = [7, 11, 13][task / 2];
            let order: Vec<_> = (0..KEYS).map(|step| step * stride % KEYS).collect();
            let (first, second) = order.split_at(KEYS / 2);
            let half = if task % 2 == 0 { first } else { second };
            for numbers in half.chunks(20) {
                let keys: Vec<_> = numbers.iter().map(|number| format!("key {number}")).collect();
                let token = || tokens.fetch_add(1, Relaxed);
                let batch: Vec<_> =
                    keys.iter().map(|key| sighting(key.as_bytes(), token())).collect();
                let began = Instant::now();
                let answers = confirmer.confirm(&batch, fixed()).await.unwrap();
                let longest = 4 * CACHE_TIMEOUT + Duration::from_secs(5);
                assert!(began.elapsed() < longest, "{:?}", began.elapsed());
                for (number, answer) in numbers.iter().zip(answers) {
                    wins[*number].fetch_add(u64::from(answer == Answer::New), Relaxed);
                }
                sent.fetch_add(numbers.len(), Relaxed);
            }
        };
        tasks.spawn_on(load, servers.runtime.handle());
    }
    trouble(&sent);
    servers.runtime.block_on(tasks.join_all());
    let wrong = wins.iter().filter(|wins| wins.load(Relaxed) != 1).count();
    assert_eq!(wrong, 0, "keys that were not new exactly once");
    assert!(processes.iter().any(|process| process.stats().cache_failures > 0));
    assert_is_used_again(servers, &processes[0]);
}

/// The cache settles duplicates once it is back, and has been refilled.
fn assert_is_used_again(servers: &Servers, confirmer: &RedisBeforePostgres) {
    let mut token = 1 << 32;
    wait_until("the cache is used again", || {
        token += 1;
        let before = confirmer.stats().short_cut;
        let asked = [sighting(b"key 7", token)];
        let answers = servers.runtime.block_on(confirmer.confirm(&asked, fixed())).unwrap();
        assert_eq!(answers, [SEEN]);
        confirmer.stats().short_cut > before
    });
}

fn wait_for_share(sent: &AtomicUsize, numerator: usize) {
    wait_until("a part of the load is done", || sent.load(Relaxed) >= KEYS * 3 * numerator / 8);
}

#[test]
fn a_cache_that_is_killed_and_starts_empty_under_load() {
    let Some(servers) = Servers::start() else { return };
    every_key_is_new_once(&servers, |sent| {
        for part in [1, 3] {
            wait_for_share(sent, part);
            servers.cache.server().kill();
            wait_for_share(sent, part + 1);
            servers.cache.server().restart();
        }
    });
}

#[test]
fn a_cache_that_hangs_under_load() {
    let Some(servers) = Servers::start() else { return };
    every_key_is_new_once(&servers, |sent| {
        wait_for_share(sent, 1);
        servers.cache.server().suspend();
        wait_for_share(sent, 4);
        servers.cache.server().resume();
    });
}

#[test]
fn a_forget_during_an_outage_of_the_cache_fails_until_it_is_repeated() {
    let Some(servers) = Servers::start() else { return };
    let tiered = servers.connected();
    let ask = |token| {
        let asked = [sighting(b"k", token)];
        servers.runtime.block_on(tiered.confirm(&asked, fixed())).unwrap()[0]
    };
    assert_eq!(ask(1), Answer::New);
    servers.cache.server().suspend();
    let forgotten = servers.runtime.block_on(tiered.forget(&[b"k"])).unwrap_err();
    assert!(forgotten.is_retryable(), "{forgotten:?}");
    servers.cache.server().resume();
    servers.runtime.block_on(async {
        while let Err(error) = tiered.forget(&[b"k"]).await {
            assert!(error.is_retryable(), "{error:?}");
        }
    });
    assert_eq!(ask(2), Answer::New);
    assert_eq!(ask(3), SEEN);
}

#[test]
fn a_full_cache_goes_on_with_what_it_holds() {
    let Some(servers) = Servers::start() else { return };
    let tiered = servers.connected();
    let ask = |key: &str, token| {
        let asked = [sighting(key.as_bytes(), token)];
        servers.runtime.block_on(tiered.confirm(&asked, fixed())).unwrap()[0]
    };
    assert_eq!(ask("known", 1), Answer::New);
    let _: () = servers.cache.server().ask("CONFIG SET maxmemory 1");
    assert_eq!(ask("new", 2), Answer::New);
    assert_eq!(ask("new", 3), SEEN);
    let before = tiered.stats().short_cut;
    assert_eq!(ask("known", 4), SEEN);
    assert_eq!(tiered.stats().short_cut, before + 1);
    let forgotten = servers.runtime.block_on(tiered.forget(&[b"known"])).unwrap_err();
    assert_eq!(forgotten.kind(), StoreErrorKind::Full);
}

// --- crashes between the two -------------------------------------------------

/// A cache that what it is told reaches only when it is let through.
struct Held {
    cache: RedisConfirmer,
    has_come: Notify,
    may_pass: Notify,
}

impl AsyncConfirmer for Held {
    async fn confirm(
        &self,
        sightings: &[Sighting<'_>],
        rule: Rule,
    ) -> Result<Vec<Answer>, StoreError> {
        self.has_come.notify_one();
        self.may_pass.notified().await;
        self.cache.confirm(sightings, rule).await
    }

    async fn look(&self, keys: &[&[u8]]) -> Result<Vec<Option<Record>>, StoreError> {
        self.cache.look(keys).await
    }

    async fn forget(&self, keys: &[&[u8]]) -> Result<(), StoreError> {
        self.cache.forget(keys).await
    }
}

/// A process that sees the key `k` first, and stops before it has told the cache.
struct Stopped {
    tiered: Arc<Tiered<Held, PostgresConfirmer>>,
    task: JoinHandle<Vec<Answer>>,
}

impl Stopped {
    async fn at(servers: &Servers) -> Self {
        let (cache, authority) = servers.connect_both("test", CACHE_TIMEOUT).await.unwrap();
        let held = Held { cache, has_come: Notify::new(), may_pass: Notify::new() };
        let tiered = Arc::new(Tiered::new(held, authority));
        let own = Arc::clone(&tiered);
        let task =
            tokio::spawn(async move { own.confirm(&[sighting(b"k", 1)], fixed()).await.unwrap() });
        tiered.cache().has_come.notified().await;
        Self { tiered, task }
    }

    async fn goes_on(self) -> Vec<Answer> {
        self.tiered.cache().may_pass.notify_one();
        self.task.await.unwrap()
    }
}

async fn ask(tiered: &RedisBeforePostgres, token: u64) -> Answer {
    tiered.confirm(&[sighting(b"k", token)], fixed()).await.unwrap()[0]
}

#[test]
fn a_winner_that_crashed_before_it_told_the_cache() {
    let Some(servers) = Servers::start() else { return };
    let other = servers.connected();
    servers.runtime.block_on(async {
        let crashed = Stopped::at(&servers).await;
        crashed.task.abort();
        assert!(crashed.task.await.unwrap_err().is_cancelled());
        // A duplicate, which refills the cache; one that the cache settles; and the
        // winner, who comes back.
        assert_eq!(ask(&other, 2).await, SEEN);
        assert_eq!(other.stats().short_cut, 0);
        assert_eq!(ask(&other, 3).await, SEEN);
        assert_eq!(other.stats().short_cut, 1);
        assert_eq!(ask(&other, 1).await, Answer::New);
    });
}

#[test]
fn a_winner_that_tells_the_cache_of_a_key_forgotten_meanwhile() {
    let Some(servers) = Servers::start() else { return };
    let other = servers.connected();
    servers.runtime.block_on(async {
        let paused = Stopped::at(&servers).await;
        other.forget(&[b"k"]).await.unwrap();
        assert_eq!(paused.goes_on().await, [Answer::New]);
        assert_eq!(ask(&other, 2).await, Answer::New, "the retry gets in");
        assert_eq!(ask(&other, 3).await, SEEN);
    });
}
