//! What asking Redis about many keys at once is worth, on one connection.

use super::runtime;
use super::servers::is_installed;
use super::servers::redis::{PROGRAM, Redis};
use crate::comparison::times;
use crate::keys::key;
use crate::report::{Report, Status, grouped};
use crate::{Failure, Options};
use hapax::Window;
use hapax::confirm::{Answer, AsyncConfirmer as _, Bucket, RedisConfirmer, Rule, Sighting, Token};
use std::time::{Duration, Instant};

const BATCH: u64 = 256;
const BAR: f64 = 10.0;

/// Batched keys in a round for each that is asked about alone: about as much time.
const BATCHED: u64 = 16;

pub(super) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let rounds = if full { 30 } else { 5 };
    report.take("Redis, batches of 256 over one call a key", "at least 10.00x", || {
        if !is_installed(PROGRAM) {
            return Err("redis-server is not installed".into());
        }
        // Without a log: syncs would make single calls look worse than the network does.
        let server = Redis::start(&["--appendonly", "no"]);
        let [batched, single] = runtime()?.block_on(rates(&server.url(), rounds))?;
        let ratio = batched / single;
        let figure = format!(
            "{} ({} / {} keys/s)",
            times(ratio),
            grouped(batched as u64),
            grouped(single as u64)
        );
        Ok((figure, Status::of_run(ratio >= BAR, !full)))
    });
}

/// New keys a second, in batches and one by one, in turns.
async fn rates(url: &str, rounds: u64) -> Result<[f64; 2], Failure> {
    let store = RedisConfirmer::server(url).timeout(Duration::from_secs(10)).connect().await?;
    let singles = 10 * BATCH;
    let round = singles * (BATCHED + 1);
    let mut taken = [Duration::ZERO; 2];
    for first in (0..rounds).map(|number| number * round) {
        taken[0] += record(&store, first, singles * BATCHED, BATCH).await?;
        taken[1] += record(&store, first + singles * BATCHED, singles, 1).await?;
    }
    let rate = |keys: u64, taken: Duration| (rounds * keys) as f64 / taken.as_secs_f64();
    Ok([rate(singles * BATCHED, taken[0]), rate(singles, taken[1])])
}

/// Records new keys in batches, one after the other; how long that takes.
async fn record(
    store: &RedisConfirmer,
    first: u64,
    count: u64,
    batch: u64,
) -> Result<Duration, Failure> {
    let rule = Rule::of(&Window::fixed(Duration::from_secs(600)));
    let keys: Vec<_> =
        (first..first + count).map(|number| (key(number), Token::new(number))).collect();
    let start = Instant::now();
    for keys in keys.chunks(batch as usize) {
        let sightings =
            keys.iter().map(|(key, token)| Sighting { key, bucket: Bucket::new(1), token: *token });
        let answers = store.confirm(&sightings.collect::<Vec<_>>(), rule).await?;
        if answers.iter().any(|answer| *answer != Answer::New) {
            return Err("a new key was not new".into());
        }
    }
    Ok(start.elapsed())
}
