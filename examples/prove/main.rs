//! Re-runs the claims that the project makes of itself and prints one line
//! each: the measure, its figure, the bar, and `ok`, `MISSED` or, for a run
//! that was shortened, `short`. `scripts/prove` builds and starts it.
//!
//! A topic is a file with a `run` function and a line in [`TOPICS`].

mod child;
mod claims;
mod comparison;
mod csv_model;
mod end_to_end;
mod filter;
mod fresh_clone;
mod jitter;
mod keys;
#[path = "../../benches/load/mod.rs"]
#[cfg_attr(not(test), expect(dead_code, reason = "the benchmark `latency` needs more of it"))]
mod load;
mod pipe;
mod process;
mod progress;
mod property;
mod report;
mod resident;
mod slow_path;
mod speed;
mod window_model;

use child::Work;
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;

/// Whatever kept a measure from being taken.
type Failure = Box<dyn std::error::Error>;

/// One topic: its name, what it is about, and what takes its measures.
type Topic = (&'static str, &'static str, fn(&Options, &mut Report));

const TOPICS: [Topic; 10] = [
    (
        "end-to-end",
        "the command line and the library on real input, against naive models",
        end_to_end::run,
    ),
    ("speed", "all of the following", speed::run),
    ("growth", "latency while a deduper grows", speed::growth::measure),
    (
        "throughput",
        "checks a second beside other packages and the limit",
        speed::throughput::measure,
    ),
    ("sizes", "resident memory a key over many sizes", speed::sizes::measure),
    ("flood", "memory given back after a flood", speed::flood::measure),
    ("verdicts", "every verdict of a long stream over many keys", speed::verdicts::measure),
    (
        "filter",
        "the filter mode: what it forgets, its rates, memory, speed and rotations",
        filter::run,
    ),
    (
        "slow-path",
        "confirmers on disk, in Redis and in PostgreSQL, and what happens when they fail",
        slow_path::run,
    ),
    ("claims", "one effect per key, whoever dies in the middle of it", claims::run),
];

/// How a topic is to be run.
struct Options {
    /// Nothing is shortened.
    full: bool,
    /// A log in Apache's combined format instead of the samples.
    log: Option<PathBuf>,
    /// Only measures with this in their names.
    only: Option<String>,
}

/// What the arguments ask for.
enum Request {
    Help,
    Topic(Topic, Options),
    /// This is a child process of another such program.
    Child(Work),
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(Request::Help) => {
            print!("{}", help());
            ExitCode::SUCCESS
        }
        Ok(Request::Topic((_, _, run), options)) => {
            let mut report = Report::only(options.only.clone());
            run(&options, &mut report);
            report.finish()
        }
        Ok(Request::Child(work)) => work.run(),
        Err(problem) => {
            eprintln!("prove: {problem}\n\n{}", help());
            ExitCode::from(2)
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Request, String> {
    let mut topic = None;
    let mut options = Options { full: false, log: None, only: None };
    while let Some(word) = words.next() {
        match word.as_str() {
            "-h" | "--help" => return Ok(Request::Help),
            "--full" => options.full = true,
            "--log" => options.log = Some(words.next().ok_or("--log needs a file")?.into()),
            "--only" => options.only = Some(words.next().ok_or("--only needs a text")?),
            child::FLAG => return Work::parse(words).map(Request::Child),
            name => match TOPICS.iter().find(|topic| topic.0 == name) {
                Some(found) if topic.is_none() => topic = Some(*found),
                Some(_) => return Err("one topic at a time".into()),
                None => return Err(format!("unknown topic or option '{name}'")),
            },
        }
    }
    topic.map(|topic| Request::Topic(topic, options)).ok_or_else(|| "which topic?".into())
}

fn help() -> String {
    let topics: Vec<_> =
        TOPICS.iter().map(|(name, about, _)| format!("  {name:<12} {about}\n")).collect();
    "usage: scripts/prove TOPIC [--full] [--only TEXT] [--log FILE]\n\n\
         Re-runs the project's claims about TOPIC, one line each: measure, figure, bar, and\n\
         ok, MISSED or, where the run was shortened, short. Exit status 1 if any is missed.\n\n\
         \x20 --full       shorten nothing (much longer)\n\
         \x20 --only TEXT  take only measures with TEXT in their names\n\
         \x20 --log FILE   take this log in Apache's combined format instead of the samples\n\n\
         topics:\n"
        .to_owned()
        + &topics.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&str]) -> Result<Request, String> {
        parse(words.iter().map(ToString::to_string))
    }

    #[test]
    fn arguments_are_read_in_any_order() {
        let Ok(Request::Topic(topic, options)) =
            request(&["--log", "x.log", "end-to-end", "--full"])
        else {
            panic!("not a topic")
        };
        assert_eq!(topic.0, "end-to-end");
        assert!(options.full);
        assert_eq!(options.log, Some("x.log".into()));
    }

    #[test]
    fn wrong_use_says_what_is_wrong() {
        for words in [&["nonsense"][..], &[], &["--log"], &["end-to-end", "speed"]] {
            assert!(request(words).is_err());
        }
    }
}
