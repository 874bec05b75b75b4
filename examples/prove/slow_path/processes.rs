//! Many tasks in several processes that share one store, and the same keys.

use super::runtime;
use super::servers::postgres::{self, Postgres};
use super::servers::redis::{PROGRAM, Redis};
use super::servers::{Server as _, is_installed};
use crate::keys::{key, mixed};
use crate::report::{Report, Status, grouped};
use crate::{Failure, Options, child};
use hapax::confirm::{AsyncConfirmer, Ownership, PostgresConfirmer, RedisConfirmer, Reject};
use hapax::{Deduper, Verdict, Window};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// The name of [`work`] as a child's work.
pub(crate) const WORKER: &str = "worker";

const PROCESSES: u64 = 4;
const TASKS: u64 = 64 / PROCESSES;
const TIMES_SENT: u64 = 3;
const BATCH: usize = 64;

const FULL_KEYS: u64 = 1_000_000;
const SHORT_KEYS: u64 = 50_000;

/// How long a store may take for anything: nothing fails here, but the machine is busy.
const PATIENCE: Duration = Duration::from_secs(60);

const REDIS: u64 = 0;
const POSTGRES: u64 = 1;

pub(super) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let keys = if full { FULL_KEYS } else { SHORT_KEYS };
    let mut take = |name: &str, process: fn(u64) -> Result<Processed, Failure>| {
        let what =
            format!("64 tasks in {PROCESSES} processes, one {name}, {} k keys", keys / 1_000);
        report.take(&what, "0 processed twice, 0 lost", || {
            let Processed { twice, lost } = process(keys)?;
            let figure = format!("{} processed twice, {} lost", grouped(twice), grouped(lost));
            Ok((figure, Status::of_run(twice + lost == 0, !full)))
        });
    };
    take("Redis", |keys| {
        if !is_installed(PROGRAM) {
            return Err("redis-server is not installed".into());
        }
        let server = Redis::start(&[]);
        process(REDIS, server.port(), keys)
    });
    take("PostgreSQL", |keys| {
        let server = Postgres::start().ok_or("postgresql is not installed")?;
        let builder = PostgresConfirmer::builder(&server.parameters());
        runtime()?.block_on(builder.create_schema())?;
        process(POSTGRES, server.port(), keys)
    });
}

/// Keys that were not processed once.
#[derive(Debug, PartialEq, Eq)]
struct Processed {
    twice: u64,
    lost: u64,
}

/// Has all processes work, and sees what became of each key.
fn process(store: u64, port: u16, keys: u64) -> Result<Processed, Failure> {
    let processed = thread::scope(|scope| {
        let workers: Vec<_> = (0..PROCESSES)
            .map(|process| [store, port.into(), keys, process])
            .map(|numbers| {
                scope.spawn(move || {
                    child::run(WORKER, &numbers).map_err(|failure| failure.to_string())
                })
            })
            .collect();
        let outcomes =
            workers.into_iter().map(|worker| worker.join().expect("a child does not panic here"));
        outcomes.collect::<Result<Vec<_>, _>>()
    })?;
    counted(keys, processed.iter().flatten().copied())
}

fn counted(keys: u64, processed: impl Iterator<Item = u64>) -> Result<Processed, Failure> {
    let mut times = vec![0_u32; keys as usize];
    for number in processed {
        *times.get_mut(number as usize).ok_or("a key that nobody sent was processed")? += 1;
    }
    let count = |is_meant: fn(u32) -> bool| times.iter().filter(|times| is_meant(**times)).count();
    Ok(Processed { twice: count(|times| times > 1) as u64, lost: count(|times| times == 0) as u64 })
}

/// With `[store, port, keys, process]`: the numbers of the keys that this process
/// was to process, having received its share of the messages.
pub(super) fn work(numbers: &[u64]) -> Result<Vec<u64>, Failure> {
    let [store, port, keys, process] = *numbers else {
        return Err("four numbers are needed".into());
    };
    let messages = messages(keys);
    let shares = (0..TASKS).map(|task| {
        let first = process * TASKS + task;
        messages
            .iter()
            .skip(first as usize)
            .step_by((PROCESSES * TASKS) as usize)
            .copied()
            .collect()
    });
    let shares: Vec<Vec<u32>> = shares.collect();
    runtime()?.block_on(async {
        if store == REDIS {
            let builder = RedisConfirmer::server(format!("redis://127.0.0.1:{port}/"));
            receive(builder.timeout(PATIENCE).connect().await?, keys, shares).await
        } else {
            let builder = PostgresConfirmer::builder(&postgres::parameters(port as u16));
            let builder = builder.connect_timeout(PATIENCE).reply_timeout(PATIENCE);
            receive(builder.connect().await?, keys, shares).await
        }
    })
}

/// All messages, as numbers of keys, in an order that all processes know.
fn messages(keys: u64) -> Vec<u32> {
    let mut messages: Vec<_> =
        (0..keys * TIMES_SENT).map(|message| (message % keys) as u32).collect();
    for last in (1..messages.len()).rev() {
        messages.swap(last, (mixed(last as u64) % (last as u64 + 1)) as usize);
    }
    messages
}

/// Has a task check each share's messages; the keys to process.
async fn receive<C: AsyncConfirmer + 'static>(
    store: C,
    keys: u64,
    shares: Vec<Vec<u32>>,
) -> Result<Vec<u64>, Failure> {
    let dedup = Deduper::builder(Window::fixed(Duration::from_secs(3_600)))
        .capacity(keys)
        .confirm(store, Ownership::Shared, Reject)
        .build()?;
    let dedup = Arc::new(dedup);
    let tasks: Vec<_> =
        shares.into_iter().map(|share| tokio::spawn(unique(Arc::clone(&dedup), share))).collect();
    let mut processed = Vec::new();
    for task in tasks {
        processed.extend(task.await??);
    }
    Ok(processed)
}

/// The numbers of the keys that were unique.
async fn unique<C: AsyncConfirmer>(
    dedup: Arc<Deduper<C>>,
    messages: Vec<u32>,
) -> Result<Vec<u64>, hapax::BatchError> {
    let mut unique = Vec::new();
    for numbers in messages.chunks(BATCH) {
        let keys: Vec<_> = numbers.iter().map(|number| key((*number).into())).collect();
        let mut verdicts = vec![Verdict::Late; keys.len()];
        dedup.check_batch_async(&keys, &mut verdicts).await?;
        let checked = numbers.iter().zip(&verdicts);
        unique.extend(
            checked
                .filter(|(_, verdict)| verdict.is_unique())
                .map(|(number, _)| u64::from(*number)),
        );
    }
    Ok(unique)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_sent_three_times_in_no_order() {
        let mut messages = messages(1_000);
        assert!(!messages.is_sorted() && messages[..1_000].iter().any(|key| *key > 900));
        messages.sort_unstable();
        assert!(messages.chunks(3).zip(0..).all(|(sent, key)| sent == [key; 3]));
    }

    #[test]
    fn keys_that_are_not_processed_once_are_counted() {
        let counted = |processed: &[u64]| counted(4, processed.iter().copied());
        assert_eq!(counted(&[3, 0, 3, 1]).unwrap(), Processed { twice: 1, lost: 1 });
        assert!(counted(&[4]).is_err());
    }
}
