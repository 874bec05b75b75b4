//! How long single checks take at a fixed offered rate, from the moment each
//! was due, beside the same loop without the engine.
//!
//! ```text
//! cargo bench --bench latency -- --scenario growth --full
//! ```

#[expect(
    dead_code,
    unused_imports,
    reason = "cargo compiles a bench with cfg(test) and leaves its tests out; `prove` runs them"
)]
mod load;

use clap::Parser;
use hapax::Mode;
use load::latencies::{Comparison, Latencies, POINTS};
use load::scenario::{Plan, Scenario};
use serde_json::{Map, Value, json};

/// Latencies of single checks, beside those of the same loop without the engine.
#[derive(Parser)]
struct Arguments {
    /// Only this scenario; repeatable
    #[arg(long, value_enum)]
    scenario: Vec<Scenario>,
    /// Live keys; in growth, those in the end
    #[arg(long, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000_000))]
    keys: Option<u64>,
    /// Checks offered per second, by all threads together
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: u64,
    /// How long each run lasts; in growth, keys and rate say that
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    seconds: Option<u64>,
    /// Runs of the engine, and as many of the control in turn
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    runs: Option<u64>,
    /// Threads, each with its own share of the schedule
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_024))]
    threads: Option<u64>,
    /// The sizes that the project's figures are taken at
    #[arg(long)]
    full: bool,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// What a scenario is measured at unless told.
struct Defaults {
    keys: u64,
    seconds: u64,
    threads: u64,
}

fn defaults(scenario: Scenario, full: bool) -> Defaults {
    let sized = |short, whole| if full { whole } else { short };
    let (keys, threads) = match scenario {
        Scenario::Steady => (sized(2_000_000, 10_000_000), 1),
        Scenario::Growth => (sized(5_000_000, 50_000_000), 1),
        Scenario::Rotation => (500_000, 1),
        Scenario::Oversubscribed => (sized(2_000_000, 10_000_000), 4 * cores()),
    };
    Defaults { keys, seconds: sized(5, 20), threads }
}

fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

impl Arguments {
    fn scenarios(&self) -> &[Scenario] {
        if self.scenario.is_empty() { &Scenario::ALL } else { &self.scenario }
    }

    fn runs(&self) -> u64 {
        self.runs.unwrap_or(if self.full { 5 } else { 3 })
    }

    fn plan(&self, scenario: Scenario) -> Plan {
        let defaults = defaults(scenario, self.full);
        let keys = self.keys.unwrap_or(defaults.keys);
        let checks = match scenario {
            Scenario::Growth => keys,
            _ => self.seconds.unwrap_or(defaults.seconds) * self.rate,
        };
        let threads = self.threads.unwrap_or(defaults.threads);
        Plan {
            scenario,
            mode: Mode::fingerprint(),
            keys,
            checks_per_second: self.rate,
            checks,
            threads,
        }
    }
}

/// All runs of one scenario.
struct Outcome {
    plan: Plan,
    engine: Vec<Latencies>,
    control: Vec<Latencies>,
}

impl Outcome {
    fn measure(plan: Plan, runs: u64) -> Self {
        let mut outcome = Self { plan, engine: Vec::new(), control: Vec::new() };
        for run in 1..=runs {
            eprintln!("{}: run {run} of {runs}", plan.scenario.name());
            outcome.control.push(plan.control());
            outcome.engine.push(plan.engine());
        }
        outcome
    }

    fn comparison(&self) -> Comparison {
        Comparison::of(&self.engine, &self.control)
    }

    fn print(&self) {
        let Plan { scenario, keys, checks_per_second, checks, threads, .. } = self.plan;
        println!(
            "{}: {keys} keys, {checks} checks at {checks_per_second} a second, threads: {threads}, \
             medians of {} runs\n{}",
            scenario.name(),
            self.engine.len(),
            self.comparison()
        );
    }

    fn json(&self) -> Value {
        let Plan { scenario, keys, checks_per_second, checks, threads, .. } = self.plan;
        let all = |runs: &[Latencies]| runs.iter().map(|run| named(run.0)).collect::<Vec<_>>();
        let comparison = self.comparison();
        json!({
            "scenario": scenario.name(),
            "keys": keys,
            "checks_per_second": checks_per_second,
            "checks": checks,
            "threads": threads,
            "engine_ns": named(comparison.engine.0),
            "control_ns": named(comparison.control.0),
            "beyond_ns": named(comparison.beyond_nanos()),
            "engine_runs_ns": all(&self.engine),
            "control_runs_ns": all(&self.control),
        })
    }
}

/// Figures under the names of their percentiles.
fn named<T: Into<Value>>(figures: [T; POINTS.len()]) -> Value {
    let names = POINTS.iter().map(|(name, _)| (*name).to_owned());
    Value::Object(names.zip(figures.map(Into::into)).collect::<Map<_, _>>())
}

fn main() {
    let arguments = Arguments::parse();
    let outcomes = arguments.scenarios().iter().map(|scenario| {
        let outcome = Outcome::measure(arguments.plan(*scenario), arguments.runs());
        if !arguments.json {
            outcome.print();
        }
        outcome.json()
    });
    let outcomes: Vec<_> = outcomes.collect();
    if arguments.json {
        println!("{:#}", Value::Array(outcomes));
    }
}
