//! The property run: the test `soak`, in release.

use crate::process;
use crate::report::{Report, Status, grouped};

const FULL_CHECKS: u64 = 100_000_000;
const SHORT_CHECKS: u64 = 2_000_000;

pub(crate) fn measure(full: bool, report: &mut Report) {
    let wanted = if full { FULL_CHECKS } else { SHORT_CHECKS };
    let bar = format!("{} checks, none broken", grouped(FULL_CHECKS));
    report.take("property run against the naive model", &bar, || {
        let output = process::cargo()
            .args(["test", "--quiet", "--release", "--test", "soak", "--", "--nocapture"])
            .env("HAPAX_PROPERTY_CHECKS", wanted.to_string())
            .output()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        if !output.status.success() {
            return Err(format!("the test soak failed or did not run\n{text}").into());
        }
        let checks = checks_in(&text).ok_or("the test soak printed no number of checks")?;
        let status = Status::of_run(checks >= wanted, !full);
        Ok((format!("{} checks, none broken", grouped(checks)), status))
    });
}

/// The largest number that comes before the word "checks".
fn checks_in(text: &str) -> Option<u64> {
    let words: Vec<_> = text.split_whitespace().collect();
    let number = |word: &str| word.replace([',', '_'], "").parse().ok();
    words
        .windows(2)
        .filter(|pair| pair[1].starts_with("checks"))
        .filter_map(|pair| number(pair[0]))
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_checks_is_found() {
        assert_eq!(checks_in("ok\n12 checks\nsoak: 2,000,000 checks in 3 s"), Some(2_000_000));
        assert_eq!(checks_in("1 passed; 0 failed"), None);
    }
}
