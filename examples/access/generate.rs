//! Writes `access.log`: requests to a small web shop in Apache's combined
//! format, as two front servers wrote them into one file.
//!
//! Clients reload pages and double-click, scripts poll, and a proxy repeats a
//! request that it got no answer to: the same client asks for the same thing
//! again within seconds or minutes. Some lines are repeated byte for byte. The
//! second server flushes its log late, so time runs backwards by up to a
//! minute. Quoted fields hold spaces.
//!
//! ```text
//! cargo run --example generate-access > examples/access/access.log
//! ```

#[path = "../synthetic/mod.rs"]
mod synthetic;

use std::io::{self, Write as _};
use synthetic::arguments::Arguments;
use synthetic::calendar::moment;
use synthetic::random::Random;

/// What the sample in the repository was made with.
const SAMPLE: Arguments = Arguments { count: 1_500, seed: 6 };

/// 2026-03-02T06:00:00Z, in seconds.
const START_SECS: u64 = 1_772_431_200;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const PATHS: [&str; 8] = [
    "/",
    "/basket",
    "/checkout?step=2",
    "/search?q=blue%20kettle",
    "/static/site.css",
    "/static/logo.svg",
    "/feed.xml",
    "/products/",
];
const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Safari/537.36",
    "curl/8.5.0",
    "-",
];
const REFERRERS: [&str; 3] = ["-", "https://shop.example/", "https://shop.example/search?q=kettle"];

/// One line of the log.
#[derive(Clone)]
struct Request {
    written_secs: u64,
    at_secs: u64,
    client: String,
    asks_for: String,
    status: u64,
    bytes: u64,
    referrer: &'static str,
    agent: &'static str,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::from_process("generate-access", SAMPLE);
    io::stdout().lock().write_all(sample(arguments).as_bytes())
}

/// The whole sample, in the order of writing.
fn sample(arguments: Arguments) -> String {
    let mut random = Random::new(arguments.seed);
    let mut requests = Vec::new();
    let mut at_secs = START_SECS;
    for _ in 0..arguments.count {
        at_secs += random.between(0, 25);
        ask(at_secs, &mut random, &mut requests);
    }
    requests.sort_by_key(|request| request.written_secs);
    requests.iter().map(line).collect()
}

/// A request and its repetitions.
fn ask(at_secs: u64, random: &mut Random, requests: &mut Vec<Request>) {
    let mut request = first(at_secs, random);
    requests.push(request.clone());
    if random.once_in(60) {
        requests.push(request.clone());
    }
    while random.once_in(5) {
        let pause_secs = if random.once_in(4) { random.between(60, 1_500) } else { 2 };
        request.at_secs += pause_secs;
        request.written_secs += pause_secs;
        request.bytes = random.between(200, 60_000);
        requests.push(request.clone());
    }
}

/// A request that nobody made before.
fn first(at_secs: u64, random: &mut Random) -> Request {
    let path = random.one_of(&PATHS);
    let product =
        if path == "/products/" { random.between(1, 400).to_string() } else { String::new() };
    let method = if path == "/basket" { "POST" } else { "GET" };
    let held_back_secs = if random.once_in(6) { random.between(1, 60) } else { 0 };
    Request {
        written_secs: at_secs + held_back_secs,
        at_secs,
        client: format!("192.0.2.{}", random.between(1, 40)),
        asks_for: format!("{method} {path}{product} HTTP/1.1"),
        status: if random.once_in(30) { 503 } else { 200 },
        bytes: random.between(200, 60_000),
        referrer: random.one_of(&REFERRERS),
        agent: random.one_of(&AGENTS),
    }
}

/// One line in Apache's combined format, its newline included.
fn line(request: &Request) -> String {
    let at = moment(request.at_secs);
    format!(
        "{} - - [{:02}/{}/{}:{:02}:{:02}:{:02} +0000] \"{}\" {} {} \"{}\" \"{}\"\n",
        request.client,
        at.day,
        MONTHS[at.month as usize - 1],
        at.year,
        at.hour,
        at.minute,
        at.second,
        request.asks_for,
        request.status,
        request.bytes,
        request.referrer,
        request.agent,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_sample_in_the_repository_is_what_the_generator_writes() {
        assert!(sample(SAMPLE) == include_str!("access.log"), "regenerate access.log");
    }

    #[test]
    fn the_sample_holds_what_it_is_there_to_show() {
        let text = sample(SAMPLE);
        let distinct: HashSet<_> = text.lines().collect();
        assert!(distinct.len() + 10 < text.lines().count(), "lines repeated byte for byte");
        let times: Vec<_> = text.lines().filter_map(|line| line.split(['[', ' ']).nth(4)).collect();
        assert!(times.windows(2).any(|pair| pair[0] > pair[1]), "time that runs backwards");
    }
}
