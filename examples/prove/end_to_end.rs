//! The topic `end-to-end`: the command line on a log and in a pipe, the
//! property run, memory per key, and the README's commands.

use crate::process::output_of;
use crate::report::{Report, Status, grouped};
use crate::window_model::WindowModel;
use crate::{Failure, Options, csv_model, fresh_clone, pipe, property, resident};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const EVENTS: &str = "examples/events/events.jsonl";
const ACCESS: &str = "examples/access/access.log";

pub(crate) fn run(options: &Options, report: &mut Report) {
    let access = options.log.clone().unwrap_or_else(|| ACCESS.into());
    whole_lines(&access, report);
    if options.log.is_none() {
        whole_lines(Path::new(EVENTS), report);
    }
    composite_keys(&access, report);
    pipe::measure(report);
    resident::measure(report);
    property::measure(options.full, report);
    fresh_clone::measure(options.full, report);
}

/// The binary that was built beside this program.
pub(crate) fn hapax() -> Result<PathBuf, Failure> {
    let this = std::env::current_exe()?;
    let folder = this.parent().and_then(Path::parent).ok_or("this program lies in no folder")?;
    let hapax = folder.join(format!("hapax{}", std::env::consts::EXE_SUFFIX));
    if hapax.exists() { Ok(hapax) } else { Err("hapax is not built: start scripts/prove".into()) }
}

fn line_count(bytes: &[u8]) -> u64 {
    bytes.split_inclusive(|byte| *byte == b'\n').count() as u64
}

/// `hapax dedup LOG` against the classic awk one-liner.
fn whole_lines(log: &Path, report: &mut Report) {
    let name = log.file_name().unwrap_or_default().display();
    let what = format!("hapax dedup {name}, whole lines");
    report.take(&what, "byte for byte what awk prints", || {
        let ours = output_of(Command::new(hapax()?).args([OsStr::new("dedup"), log.as_os_str()]))?;
        let theirs = output_of(Command::new("awk").env("LC_ALL", "C").arg("!s[$0]++").arg(log))?;
        let lines = grouped(line_count(&ours));
        let met = ours == theirs;
        let compared = if met { "identical" } else { "DIFFERENT" };
        Ok((format!("{lines} lines, {compared}"), Status::of(met)))
    });
}

/// Client and request as a composite key in a ten-minute window of event time,
/// against [`WindowModel`], record by record.
fn composite_keys(log: &Path, report: &mut Report) {
    let name = log.file_name().unwrap_or_default().display();
    let what = format!("{name}, client and request, 10 minutes");
    report.take(&what, "no record differs from the model", || {
        let folder = tempfile::tempdir()?;
        let suppressed_path = folder.path().join("suppressed");
        let kept = output_of(
            Command::new(hapax()?)
                .args(["dedup", "--format", "csv", "--delimiter", " ", "--no-headers"])
                .args(["--key", "1", "--key", "6", "--time", "4"])
                .args(["--time-format", "[%d/%b/%Y:%H:%M:%S"])
                .args(["--window", "10m", "--lateness", "60s"])
                .arg("--duplicates")
                .arg(&suppressed_path)
                .arg(log),
        )?;
        let input = fs::read(log)?;
        let suppressed = fs::read(suppressed_path).map_err(|_| "no duplicates were written")?;
        let comparison = compare(&input, &kept, &suppressed)?;
        Ok((
            format!(
                "{} lines; {} of {} records differ",
                grouped(line_count(&kept)),
                grouped(comparison.differing),
                grouped(comparison.records)
            ),
            Status::of(comparison.differing == 0),
        ))
    });
}

/// How many records there are, and of how many the verdicts differ.
struct Comparison {
    records: u64,
    differing: u64,
}

/// Walks the input beside both outputs: each record must be the next one of
/// the output that the model says. What is left over in an output differs too.
fn compare(input: &[u8], kept: &[u8], suppressed: &[u8]) -> Result<Comparison, Failure> {
    let (mut kept, mut suppressed) = (kept, suppressed);
    let mut model = WindowModel::new(600, 8, 60);
    let mut comparison = Comparison { records: 0, differing: 0 };
    for record in csv_model::records(input) {
        let [client, _, _, time, _, request, ..] = &record.fields[..] else {
            let line = String::from_utf8_lossy(record.raw);
            return Err(format!("fewer than six fields: {line}").into());
        };
        let passes =
            model.passes(vec![client.clone(), request.clone()], csv_model::apache_secs(time)?);
        let (expected, other) =
            if passes { (&mut kept, &mut suppressed) } else { (&mut suppressed, &mut kept) };
        comparison.records += 1;
        if !take_prefix(expected, record.raw) {
            comparison.differing += 1;
            take_prefix(other, record.raw);
        }
    }
    comparison.differing += line_count(kept) + line_count(suppressed);
    Ok(comparison)
}

/// Moves `output` past `record` if that comes next in it.
fn take_prefix(output: &mut &[u8], record: &[u8]) -> bool {
    output.strip_prefix(record).map(|rest| *output = rest).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: &[u8] = b"\
        a - - [01/Jan/2026:00:00:00 +0000] \"GET / HTTP/1.1\" 200\n\
        a - - [01/Jan/2026:00:00:01 +0000] \"GET / HTTP/1.1\" 200\n\
        b - - [01/Jan/2026:00:00:02 +0000] \"GET / HTTP/1.1\" 200\n";

    fn lines() -> Vec<&'static [u8]> {
        INPUT.split_inclusive(|byte| *byte == b'\n').collect()
    }

    #[test]
    fn equal_verdicts_do_not_differ() {
        let comparison = compare(INPUT, &[lines()[0], lines()[2]].concat(), lines()[1]).unwrap();
        assert_eq!((comparison.records, comparison.differing), (3, 0));
    }

    #[test]
    fn a_wrong_verdict_and_a_lost_or_invented_record_differ() {
        let differing =
            |kept: &[u8], suppressed: &[u8]| compare(INPUT, kept, suppressed).unwrap().differing;
        assert_eq!(differing(INPUT, b""), 1);
        assert_eq!(differing(lines()[0], lines()[1]), 1);
        assert_eq!(differing(&[lines()[0], lines()[2], lines()[2]].concat(), lines()[1]), 1);
    }

    #[test]
    fn a_record_with_too_few_fields_is_reported() {
        assert!(compare(b"a b\n", b"", b"").is_err());
    }
}
