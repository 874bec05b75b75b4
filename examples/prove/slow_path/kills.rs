//! What an embedded store has acknowledged, after its process was killed and
//! after the power was cut, as the project's tests find it.

use super::suite::Tests;
use crate::report::{Report, Status, grouped};
use crate::{Failure, Options};

/// Optimised: each of a thousand owners reads what all before it have left.
const KILLED: Tests = Tests {
    target: &["--release", "--test", "killed"],
    filter: "what_was_acknowledged_outlives_a_kill",
};
const FAULTS: Tests = Tests { target: &["--lib"], filter: "confirm::embedded::faults::" };

const FULL_KILLS: u64 = 1_000;
const SHORT_KILLS: u64 = 25;

pub(super) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let kills = if full { FULL_KILLS } else { SHORT_KILLS };
    let what = format!("acknowledged keys after {} kill -9, embedded", grouped(kills));
    report.take(&what, "0 forgotten", || {
        let text = run(KILLED, &[("HAPAX_KILLS", kills.to_string())])?.text;
        let kept = kept_in(&text).ok_or("the test did not say how many keys it tried")?;
        Ok((format!("0 of {} forgotten", grouped(kept)), Status::of_run(true, !full)))
    });
    report.take("acknowledged keys after power cuts, synced", "0 lost", || {
        let passed = run(FAULTS, &[])?.passed;
        Ok((format!("0 lost, {passed} fault tests pass"), Status::Ok))
    });
}

fn run(tests: Tests, variables: &[(&str, String)]) -> Result<super::suite::Outcome, Failure> {
    let outcome = tests.run(variables)?;
    if !outcome.is_passed {
        return Err(
            format!("tests failed or did not run: {}\n{}", tests.filter, outcome.text).into()
        );
    }
    Ok(outcome)
}

/// The number before "keys acknowledged".
fn kept_in(text: &str) -> Option<u64> {
    let (before, _) = text.split_once(" keys acknowledged")?;
    before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_keys_is_found() {
        assert_eq!(kept_in("running 1 test\n512 keys acknowledged in 5 rounds"), Some(512));
        assert_eq!(kept_in("5 rounds"), None);
    }
}
