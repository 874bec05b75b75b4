//! The conformance suite on every implementation of the project.

use super::suite::Tests;
use crate::Failure;
use crate::report::{Report, Status};

const LIBRARY: &[&str] = &["--lib"];
const REDIS: &[&str] = &["--test", "redis_confirmer"];
const POSTGRES: &[&str] = &["--test", "postgres"];

/// Every implementation, and the tests that run the suite on it.
const IMPLEMENTATIONS: [(&str, Tests); 6] = [
    ("memory", Tests { target: LIBRARY, filter: "the_memory_confirmer_keeps_the_contract" }),
    (
        "embedded",
        Tests { target: LIBRARY, filter: "embedded::tests::conformance::keeps_the_contract" },
    ),
    ("Redis", Tests { target: REDIS, filter: "one_server_keeps_the_contract" }),
    ("Redis Cluster", Tests { target: REDIS, filter: "a_cluster_keeps_the_contract" }),
    ("PostgreSQL", Tests { target: POSTGRES, filter: "the_contract_holds" }),
    (
        "Tiered",
        Tests {
            target: LIBRARY,
            filter: "confirm::tiered::tests::conformance::keeps_the_contract",
        },
    ),
];

pub(super) fn measure(report: &mut Report) {
    report.take("conformance suite", "all implementations pass", || {
        let passed: Vec<_> = IMPLEMENTATIONS
            .iter()
            .map(|(name, tests)| Ok((*name, is_passed(name, *tests)?)))
            .collect::<Result<_, Failure>>()?;
        let failed: Vec<_> =
            passed.iter().filter(|(_, is_passed)| !is_passed).map(|(name, _)| *name).collect();
        let all = IMPLEMENTATIONS.map(|(name, _)| name).join(", ");
        let figure = if failed.is_empty() { all } else { format!("failed: {}", failed.join(", ")) };
        Ok((figure, Status::of(failed.is_empty())))
    });
}

fn is_passed(name: &str, tests: Tests) -> Result<bool, Failure> {
    let outcome = tests.run(&[])?;
    if !outcome.is_passed {
        eprintln!("{name}:\n{}", outcome.text);
    }
    Ok(outcome.is_passed)
}
