//! Writes `events.jsonl`: the order and payment events of two shops, as a
//! consumer of an at-least-once queue sees them.
//!
//! Three things make copies, as in life. A producer that saw no
//! acknowledgement sends again within seconds (`attempt` counts up); the queue
//! delivers again within minutes when a consumer dies with its messages; a
//! consumer group that rewinds reads a stretch of the log again hours later.
//! Producers also buffer, so that records come up to 40 seconds late. Both
//! shops number their events from 1: the tenant belongs to the key.
//!
//! ```text
//! cargo run --example generate-events > examples/events/events.jsonl
//! ```

#[path = "../synthetic/mod.rs"]
mod synthetic;

use std::io::{self, Write as _};
use synthetic::arguments::Arguments;
use synthetic::calendar::moment;
use synthetic::random::Random;

/// What the sample in the repository was made with.
const SAMPLE: Arguments = Arguments { count: 1_650, seed: 17 };

/// 2026-03-02T06:00:00Z, a Monday morning, in milliseconds.
const START_MS: u64 = 1_772_431_200_000;

const TENANTS: [&str; 2] = ["acme", "globex"];
const TYPES: [&str; 6] = [
    "order.created",
    "payment.authorized",
    "payment.captured",
    "payment.failed",
    "refund.issued",
    "order.shipped",
];
const CURRENCIES: [&str; 3] = ["EUR", "GBP", "USD"];

/// One business event; every delivery of it is the same, but for `attempt`.
#[derive(Clone)]
struct Event {
    id: u64,
    tenant: &'static str,
    kind: &'static str,
    occurred_ms: u64,
    order: u64,
    amount_cents: u64,
    currency: &'static str,
}

/// An event on its way to the consumer.
struct Delivery {
    arrives_ms: u64,
    attempt: u64,
    event: Event,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::from_process("generate-events", SAMPLE);
    io::stdout().lock().write_all(sample(arguments).as_bytes())
}

/// The whole sample, in the order of arrival.
fn sample(arguments: Arguments) -> String {
    let mut random = Random::new(arguments.seed);
    let mut deliveries = Vec::new();
    for event in events(arguments.count, &mut random) {
        deliver(&event, &mut random, &mut deliveries);
    }
    rewind(&mut random, &mut deliveries);
    deliveries.sort_by_key(|delivery| delivery.arrives_ms);
    deliveries.iter().map(line).collect()
}

/// The business events, in the order in which they occurred.
fn events(count: u64, random: &mut Random) -> Vec<Event> {
    let mut occurred_ms = START_MS;
    let mut last_ids = [0; TENANTS.len()];
    (0..count)
        .map(|_| {
            occurred_ms += random.between(200, 45_000);
            let tenant = usize::from(random.once_in(3));
            last_ids[tenant] += 1;
            Event {
                id: last_ids[tenant],
                tenant: TENANTS[tenant],
                kind: random.one_of(&TYPES),
                occurred_ms,
                order: 70_000 + last_ids[tenant] / 3,
                amount_cents: random.between(350, 40_000),
                currency: random.one_of(&CURRENCIES),
            }
        })
        .collect()
}

/// The first delivery of `event`, and the copies that follow it closely.
fn deliver(event: &Event, random: &mut Random, deliveries: &mut Vec<Delivery>) {
    let buffered_ms = if random.once_in(12) { random.between(1_000, 40_000) } else { 0 };
    let mut arrives_ms = event.occurred_ms + random.between(20, 400) + buffered_ms;
    let mut attempt = 1;
    deliveries.push(Delivery { arrives_ms, attempt, event: event.clone() });
    while attempt < 4 && random.once_in(9) {
        arrives_ms += 1_000 * (1 << attempt) + random.between(0, 500);
        attempt += 1;
        deliveries.push(Delivery { arrives_ms, attempt, event: event.clone() });
    }
    if random.once_in(20) {
        arrives_ms += random.between(30_000, 9 * 60_000);
        deliveries.push(Delivery { arrives_ms, attempt, event: event.clone() });
    }
}

/// Reads 60 deliveries again, in their order, two hours after the last of them.
fn rewind(random: &mut Random, deliveries: &mut Vec<Delivery>) {
    const STRETCH: usize = 60;
    deliveries.sort_by_key(|delivery| delivery.arrives_ms);
    let Some(starts) = deliveries.len().checked_sub(4 * STRETCH) else { return };
    let first = random.between(0, starts as u64 / 2) as usize;
    let stretch = first..first + STRETCH;
    let resumes_ms = deliveries[stretch.end - 1].arrives_ms + 2 * 60 * 60_000;
    let again: Vec<_> = deliveries[stretch]
        .iter()
        .zip(0..)
        .map(|(delivery, nth)| Delivery {
            arrives_ms: resumes_ms + 15 * nth,
            attempt: delivery.attempt,
            event: delivery.event.clone(),
        })
        .collect();
    deliveries.extend(again);
}

/// One line of JSON, its newline included. No text in it needs escaping.
fn line(delivery: &Delivery) -> String {
    let Delivery { attempt, event, .. } = delivery;
    let at = moment(event.occurred_ms / 1_000);
    format!(
        "{{\"event_id\":\"evt-{:06}\",\"tenant\":\"{}\",\"type\":\"{}\",\
         \"occurred_at\":\"{}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z\",\"attempt\":{},\
         \"order\":{{\"id\":{},\"amount\":{}.{:02},\"currency\":\"{}\"}}}}\n",
        event.id,
        event.tenant,
        event.kind,
        at.year,
        at.month,
        at.day,
        at.hour,
        at.minute,
        at.second,
        event.occurred_ms % 1_000,
        attempt,
        event.order,
        event.amount_cents / 100,
        event.amount_cents % 100,
        event.currency,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn the_sample_in_the_repository_is_what_the_generator_writes() {
        assert!(sample(SAMPLE) == include_str!("events.jsonl"), "regenerate events.jsonl");
    }

    #[test]
    fn the_seed_and_the_count_matter() {
        let other = sample(Arguments { seed: SAMPLE.seed + 1, ..SAMPLE });
        assert_ne!(sample(SAMPLE), other);
        let few = sample(Arguments { count: 3, ..SAMPLE });
        assert!((3..=15).contains(&few.lines().count()));
    }

    #[test]
    fn the_sample_holds_what_it_is_there_to_show() {
        let mut random = Random::new(SAMPLE.seed);
        let ids = events(SAMPLE.count, &mut random);
        let mut tenants_of = HashMap::<u64, Vec<&str>>::new();
        for event in &ids {
            tenants_of.entry(event.id).or_default().push(event.tenant);
        }
        assert!(tenants_of.values().any(|tenants| tenants.len() == 2), "ids that both shops use");
        let text = sample(SAMPLE);
        assert!(text.lines().count() as u64 > SAMPLE.count + 200, "copies");
        assert!(text.contains("\"attempt\":3"), "retries of retries");
        let times: Vec<_> = text.lines().filter_map(|line| line.split("_at\":\"").nth(1)).collect();
        assert!(times.windows(2).any(|pair| pair[0] > pair[1]), "late arrivals");
    }
}
