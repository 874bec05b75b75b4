//! Redis and PostgreSQL stopped, killed and restarted while checks go on, under
//! each outage policy.
//!
//! Batches of new keys, of keys that came a little earlier, and of keys that only
//! the store knows, are checked until all have verdicts. What each policy allows is
//! counted afterwards.

use super::runtime;
use super::servers::postgres::Postgres;
use super::servers::redis::{PROGRAM, Redis};
use super::servers::{Server, is_installed};
use crate::keys::{Key, key, mixed};
use crate::report::{Report, Status, grouped};
use crate::{Failure, Options};
use hapax::confirm::{
    Admit, AsyncConfirmer, Breaker, Durability, EmbeddedConfirmer, Fallback, Health, Inline,
    Outage, Ownership, PostgresConfirmer, RedisConfirmer, Reject,
};
use hapax::{Deduper, Verdict, Window};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a store may take for one call.
const TIMEOUT: Duration = Duration::from_millis(400);

/// A check asks twice if a reply is lost, and may have to wait for another check of
/// its keys that does so too; the machine is busy.
const LONGEST: Duration = Duration::from_secs(2);

const TASKS: u64 = 16;

/// Between the checks of a task: the server is to be lost, not overrun, and to have read
/// its log again soon.
const PAUSE: Duration = Duration::from_millis(50);

/// Keys that the store knows from an earlier process.
const KNOWN: u64 = 2_000;

/// In each batch: new keys, as many of two earlier batches each, and known ones.
const NEW: u64 = 16;
const EARLIER: [u64; 2] = [1, 40];
const OF_KNOWN: u64 = 4;

/// Redis would not answer in time while it rewrites its log, nor while it waits for a busy
/// disk, which no process has to that is only killed.
const NEVER_BUSY: [&str; 4] = ["--auto-aof-rewrite-percentage", "0", "--appendfsync", "no"];

/// More than there is time for, for each stop and kill.
const BATCHES_PER_OUTAGE: u64 = 50_000;

pub(super) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let outages = if full { 20 } else { 1 };
    let mut take = |name: &str, storm: fn(u64) -> Result<Found, Failure>| {
        let what = format!("{name} stopped and killed under load, {}x", 2 * outages);
        report.take(&what, "0 against the policy, 0 hangs", || {
            let Found { broken, hangs, checks, longest_ms } = storm(outages)?;
            let figure = format!(
                "{} and {} of {} checks, {longest_ms} ms",
                grouped(broken),
                grouped(hangs),
                grouped(checks)
            );
            Ok((figure, Status::of_run(broken + hangs == 0, !full)))
        });
    };
    take("Redis", redis);
    take("PostgreSQL", postgres);
}

fn redis(outages: u64) -> Result<Found, Failure> {
    if !is_installed(PROGRAM) {
        return Err("redis-server is not installed".into());
    }
    let start = || Ok(Redis::start(&NEVER_BUSY));
    let connect = async |server: &Redis| {
        let builder = RedisConfirmer::server(server.url());
        Ok(builder.timeout(TIMEOUT).connect().await?)
    };
    under_each_policy(start, &connect, outages)
}

fn postgres(outages: u64) -> Result<Found, Failure> {
    let start = || {
        let server = Postgres::start().ok_or("postgresql is not installed")?;
        let builder = PostgresConfirmer::builder(&server.parameters());
        runtime()?.block_on(builder.create_schema())?;
        Ok(server)
    };
    let connect = async |server: &Postgres| {
        let builder = PostgresConfirmer::builder(&server.parameters());
        Ok(builder.connect_timeout(TIMEOUT / 2).reply_timeout(TIMEOUT / 2).connect().await?)
    };
    under_each_policy(start, &connect, outages)
}

/// With a new server for each: one that has to read millions of keys is away for longer
/// than it was stopped.
fn under_each_policy<S: Server, C: AsyncConfirmer + 'static>(
    start: impl Fn() -> Result<S, Failure>,
    connect: &impl AsyncFn(&S) -> Result<C, Failure>,
    outages: u64,
) -> Result<Found, Failure> {
    let folder = tempfile::tempdir()?;
    let fallback = EmbeddedConfirmer::builder(folder.path().join("keys"));
    let fallback = Fallback::new(Inline(fallback.durability(Durability::Os).open()?));
    let mut found = Found::default();
    found += under(&mut start()?, connect, Expected::Reject, Reject, outages)?;
    found += under(&mut start()?, connect, Expected::Admit, Admit, outages)?;
    found += under(&mut start()?, connect, Expected::Fallback, fallback, outages)?;
    Ok(found)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Found {
    /// Verdicts and errors that the policy does not allow.
    broken: u64,
    /// Checks that took too long.
    hangs: u64,
    checks: u64,
    longest_ms: u64,
}

impl std::ops::AddAssign for Found {
    fn add_assign(&mut self, other: Self) {
        self.broken += other.broken;
        self.hangs += other.hangs;
        self.checks += other.checks;
        self.longest_ms = self.longest_ms.max(other.longest_ms);
    }
}

/// What a policy promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// Errors, and no key processed twice.
    Reject,
    /// No errors; keys that only the store knew may be processed twice, and the
    /// store does not know those that were let through.
    Admit,
    /// No errors; keys that only the store knew may be processed twice; the store
    /// is told of those that were let through.
    Fallback,
}

/// Outages under one policy.
fn under<S: Server, C: AsyncConfirmer + 'static, P: Outage<Instead: AsyncConfirmer> + 'static>(
    server: &mut S,
    connect: &impl AsyncFn(&S) -> Result<C, Failure>,
    expected: Expected,
    policy: P,
    outages: u64,
) -> Result<Found, Failure> {
    let runtime = runtime()?;
    let most_batches = outages * BATCHES_PER_OUTAGE;
    let other = open(runtime.block_on(connect(server))?, Reject)?;
    let known: Vec<_> = (0..KNOWN).map(key).collect();
    runtime.block_on(other.check_batch_async(&known, &mut vec![Verdict::Late; known.len()]))?;
    let load = Arc::new(Load {
        dedup: open(runtime.block_on(connect(server))?, policy)?,
        expected,
        tally: Tally::new(KNOWN + most_batches * NEW),
        most_batches,
        batches: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
        weather: AtomicU64::new(0),
    });
    let tasks: Vec<_> = (0..TASKS).map(|_| runtime.spawn(Arc::clone(&load).run())).collect();
    sleep(TIMEOUT);
    for outage in 0..outages {
        storm(server, &load, outage)?;
    }
    load.is_over.store(true, Ordering::SeqCst);
    for task in tasks {
        runtime.block_on(task)?;
    }
    runtime.block_on(load.look_back(&open(runtime.block_on(connect(server))?, Reject)?))
}

fn open<C: AsyncConfirmer, P: Outage>(store: C, policy: P) -> Result<Deduper<C, P>, Failure> {
    let builder = Deduper::builder(Window::fixed(Duration::from_secs(3_600)));
    let builder =
        builder.capacity(BATCHES_PER_OUTAGE * NEW).confirm(store, Ownership::Shared, policy);
    // It is to be back soon: the load waits for it.
    let breaker = Breaker::new().delay(TIMEOUT / 5, TIMEOUT);
    Ok(builder.breaker(breaker).build()?)
}

/// One stop and one kill, each until all is well again, and then some calm.
fn storm<C: AsyncConfirmer, P: Outage<Instead: AsyncConfirmer>>(
    server: &mut dyn Server,
    load: &Load<C, P>,
    number: u64,
) -> Result<(), Failure> {
    // From a tenth of the timeout to three times as long.
    let length = |salt| TIMEOUT / 10 * (1 + mixed(2 * number + salt) % 30) as u32;
    load.turn();
    server.suspend();
    sleep(length(0));
    server.resume();
    load.wait_for_calm()?;
    load.turn();
    server.kill();
    sleep(length(1));
    server.restart();
    load.wait_for_calm()
}

/// Checks that go on whatever happens.
struct Load<C, P> {
    dedup: Deduper<C, P>,
    expected: Expected,
    tally: Tally,
    /// How many have begun, and how many may.
    batches: AtomicU64,
    most_batches: u64,
    is_over: AtomicBool,
    /// Even where all is well; each change counts.
    weather: AtomicU64,
}

/// What was seen.
struct Tally {
    /// By key, how often it was `Unique`, and how often `Unconfirmed`.
    unique: Vec<AtomicU8>,
    unconfirmed: Vec<AtomicU8>,
    broken: AtomicU64,
    hangs: AtomicU64,
    checks: AtomicU64,
    longest_ms: AtomicU64,
}

impl Tally {
    fn new(keys: u64) -> Self {
        let counters = || (0..keys).map(|_| AtomicU8::new(0)).collect();
        Self {
            unique: counters(),
            unconfirmed: counters(),
            broken: AtomicU64::new(0),
            hangs: AtomicU64::new(0),
            checks: AtomicU64::new(0),
            longest_ms: AtomicU64::new(0),
        }
    }

    fn note(&self, number: u64, verdict: Verdict) {
        let counters = match verdict {
            Verdict::Unique => &self.unique,
            Verdict::Unconfirmed => &self.unconfirmed,
            Verdict::Duplicate => return,
            Verdict::Late => return self.breach("a key was late"),
        };
        counters[number as usize].fetch_add(1, Ordering::SeqCst);
    }

    fn breach(&self, what: &str) {
        if self.broken.fetch_add(1, Ordering::SeqCst) < 5 {
            eprintln!("against the policy: {what}");
        }
    }
}

impl<C: AsyncConfirmer, P: Outage<Instead: AsyncConfirmer>> Load<C, P> {
    async fn run(self: Arc<Self>) {
        while !self.is_over.load(Ordering::SeqCst) {
            let batch = self.batches.fetch_add(1, Ordering::SeqCst);
            if batch >= self.most_batches {
                return self.tally.breach("more checks than were counted on");
            }
            self.insist(&numbers(batch)).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Checks keys until all have verdicts.
    async fn insist(&self, mut numbers: &[u64]) {
        while !numbers.is_empty() {
            let completed = self.check(numbers).await;
            numbers = &numbers[completed..];
            if !numbers.is_empty() {
                tokio::time::sleep(TIMEOUT / 20).await;
            }
        }
    }

    /// Checks keys; how many have verdicts.
    async fn check(&self, numbers: &[u64]) -> usize {
        let keys: Vec<Key> = numbers.iter().copied().map(key).collect();
        let mut verdicts = vec![Verdict::Late; keys.len()];
        let (start, weather) = (Instant::now(), self.weather.load(Ordering::SeqCst));
        let checked = self.dedup.check_batch_async(&keys, &mut verdicts).await;
        self.note_time(start.elapsed());
        let was_calm = weather.is_multiple_of(2) && weather == self.weather.load(Ordering::SeqCst);
        if let Err(error) = &checked
            && (was_calm || self.expected != Expected::Reject)
        {
            self.tally.breach(&format!("{:?}, calm: {was_calm}: {error:?}", self.expected));
        }
        let completed = checked.map_or_else(|error| error.completed, |()| keys.len());
        for (number, verdict) in numbers.iter().zip(&verdicts[..completed]) {
            self.tally.note(*number, *verdict);
            if was_calm && *verdict == Verdict::Unconfirmed {
                self.tally.breach(&format!("{:?}: unconfirmed though all was well", self.expected));
            }
        }
        completed
    }

    fn note_time(&self, taken: Duration) {
        let tally = &self.tally;
        tally.checks.fetch_add(1, Ordering::SeqCst);
        tally.hangs.fetch_add(u64::from(taken > LONGEST), Ordering::SeqCst);
        tally.longest_ms.fetch_max(taken.as_millis() as u64, Ordering::SeqCst);
    }

    /// The weather changes.
    fn turn(&self) {
        self.weather.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until the store serves again, and then lets some calm pass.
    fn wait_for_calm(&self) -> Result<(), Failure> {
        let start = Instant::now();
        // Calls that were under way have ended, and the store has been asked since.
        sleep(LONGEST);
        while self.dedup.health() != Health::Serving {
            if start.elapsed() > 40 * TIMEOUT {
                return Err(format!("not serving again: {:?}", self.dedup.health()).into());
            }
            sleep(TIMEOUT / 50);
        }
        self.turn();
        sleep(TIMEOUT);
        Ok(())
    }

    /// When all is over: which keys were processed how often, and what this process
    /// and another one know now.
    async fn look_back(&self, other: &Deduper<C>) -> Result<Found, Failure> {
        let tally = &self.tally;
        let sent = KNOWN + NEW * self.batches.load(Ordering::SeqCst).min(self.most_batches);
        for first in (0..sent).step_by(256) {
            let numbers: Vec<_> = (first..sent.min(first + 256)).collect();
            let keys: Vec<_> = numbers.iter().copied().map(key).collect();
            let (mut own, mut others) =
                (vec![Verdict::Late; keys.len()], vec![Verdict::Late; keys.len()]);
            self.dedup.check_batch_async(&keys, &mut own).await?;
            other.check_batch_async(&keys, &mut others).await?;
            for ((number, own), others) in numbers.iter().zip(own).zip(others) {
                let count =
                    |counters: &[AtomicU8]| counters[*number as usize].load(Ordering::SeqCst);
                let (unique, unconfirmed) = (count(&tally.unique), count(&tally.unconfirmed));
                let seen = Seen { is_known: *number < KNOWN, unique, unconfirmed, own, others };
                if let Some(breach) = self.expected.breach(&seen) {
                    tally.breach(&format!("{:?}: key {number} {breach}", self.expected));
                }
            }
        }
        Ok(Found {
            broken: tally.broken.load(Ordering::SeqCst),
            hangs: tally.hangs.load(Ordering::SeqCst),
            checks: tally.checks.load(Ordering::SeqCst),
            longest_ms: tally.longest_ms.load(Ordering::SeqCst),
        })
    }
}

impl Expected {
    /// What is wrong with what became of a key, if anything.
    fn breach(self, key: &Seen) -> Option<&'static str> {
        // What was let through with nobody to vouch for it, the store may not know.
        let is_stored = key.unconfirmed == 0 || self != Self::Admit;
        match (key.unique, key.unconfirmed) {
            (0, 0) if !key.is_known => Some("was lost"),
            (1.., _) if key.is_known => Some("of the store's was unique"),
            (_, 1..) if self == Self::Reject => Some("was unconfirmed"),
            (2.., _) | (1, 1..) | (_, 2..) => Some("was processed twice"),
            _ if key.own != Verdict::Duplicate => Some("is not remembered"),
            _ if is_stored && key.others != Verdict::Duplicate => Some("is unknown to the store"),
            _ => None,
        }
    }
}

/// What became of a key.
struct Seen {
    /// Did the store know it from before?
    is_known: bool,
    /// How often it was called so.
    unique: u8,
    unconfirmed: u8,
    /// What this process says of it in the end, and what another one does.
    own: Verdict,
    others: Verdict,
}

/// The keys of a batch, by number.
fn numbers(batch: u64) -> Vec<u64> {
    let new = |batch: u64| (0..NEW).map(move |index| KNOWN + batch * NEW + index);
    let earlier = EARLIER.iter().filter_map(|back| batch.checked_sub(*back)).flat_map(new);
    let known = (0..OF_KNOWN).map(|index| mixed(batch * OF_KNOWN + index) % KNOWN);
    let mut numbers: Vec<_> = new(batch).chain(earlier).chain(known).collect();
    numbers.sort_unstable_by_key(|number| mixed(batch ^ number));
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_new_key_comes_three_times() {
        let mut times = std::collections::HashMap::new();
        let last = 100;
        for number in (0..last).flat_map(numbers).filter(|number| *number >= KNOWN) {
            *times.entry(number).or_insert(0) += 1;
        }
        let whole = KNOWN..KNOWN + (last - EARLIER[1]) * NEW;
        assert!(whole.clone().all(|number| times[&number] == 3));
    }

    #[test]
    fn what_a_policy_allows_is_told_from_what_it_does_not() {
        use Expected::{Admit, Fallback, Reject};
        use Verdict::{Duplicate, Unique};
        let seen = |is_known, unique, unconfirmed, others| Seen {
            is_known,
            unique,
            unconfirmed,
            own: Duplicate,
            others,
        };
        for expected in [Reject, Admit, Fallback] {
            assert_eq!(expected.breach(&seen(false, 1, 0, Duplicate)), None);
            assert_eq!(expected.breach(&seen(true, 0, 0, Duplicate)), None);
            for (is_known, unique, unconfirmed, others) in [
                (false, 0, 0, Duplicate),
                (false, 2, 0, Duplicate),
                (false, 1, 1, Duplicate),
                (true, 1, 0, Duplicate),
                (false, 1, 0, Unique),
            ] {
                let key = seen(is_known, unique, unconfirmed, others);
                assert!(expected.breach(&key).is_some(), "{expected:?} {unique} {unconfirmed}");
            }
        }
        let unconfirmed = |others| seen(false, 0, 1, others);
        assert!(Reject.breach(&unconfirmed(Duplicate)).is_some());
        assert!(Fallback.breach(&unconfirmed(Duplicate)).is_none());
        assert!(Fallback.breach(&unconfirmed(Unique)).is_some());
        assert!(Admit.breach(&unconfirmed(Unique)).is_none());
    }
}
