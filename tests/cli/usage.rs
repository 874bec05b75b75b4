//! Wrong use: one line that says what to do, status 2, and no output.

use crate::tool::{Folder, dedup};
use std::process::Command;

/// The message of a run that goes wrong before anything is written.
#[track_caller]
fn message(args: &[&str]) -> String {
    let outcome = dedup(args, "a,1\n");
    assert_eq!(outcome.output, b"");
    outcome.failure().to_owned()
}

#[test]
fn flags_that_contradict_one_another() {
    let cases: &[(&[&str], &str)] = &[
        (&["-k", "1"], "-k needs fields: give --format csv, tsv or jsonl"),
        (&["-t", "1", "--window=1m"], "-t needs fields: give --format csv, tsv or jsonl"),
        (&["-z", "--format=csv"], "-z goes with plain lines: give --format lines"),
        (&["--delimiter=;"], "--delimiter goes with --format csv or tsv"),
        (&["-n", "--format=jsonl"], "--no-headers goes with --format csv or tsv"),
        (
            &["--format=csv", "-n", "-k", "id"],
            "`id`: without a header columns go by number, from 1",
        ),
        (&["--format=csv", "-n", "-k", "0"], "`0`: without a header columns go by number, from 1"),
        (
            &["--format=jsonl", "-k", ".a["],
            "`.a[` is no JSON path: write it like .a.b[0] or .[\"a b\"]",
        ),
        (
            &["--format=csv", "-t", "1"],
            "-t without a window has no effect: add --window, such as --window 10m",
        ),
        (
            &["--window=0s"],
            "a window of no length: give it one, or leave --window out to cover the whole run",
        ),
        (
            &["--format=csv", "-n", "-t2", "--window=10m", "--lateness=20m"],
            "--lateness is longer than --window: shorten it",
        ),
        (
            &["-o", "same", "--duplicates", "same"],
            "the output and --duplicates are one file: give each its own",
        ),
        (
            &["--window=91251d", "-d"],
            "a window of more than 250 years: shorten it, or leave --window out to cover the whole \
             run",
        ),
        (
            &["--duplicates=-"],
            "--duplicates needs a file: -D writes the suppressed records instead",
        ),
        (&["a.csv", "b.jsonl"], "a.csv and b.jsonl look like different formats: give --format"),
        (&["a.csv", "b"], "a.csv and b look like different formats: give --format"),
    ];
    for (args, expected) in cases {
        assert_eq!(message(args), *expected, "{args:?}");
    }
}

#[test]
fn values_that_flags_do_not_take() {
    let cases: &[(&[&str], &str)] = &[
        (&["--window", "10"], "give a number and a unit"),
        (&["--window", "1mo"], "give days or weeks"),
        (&["--memory", "1.5G"], "give a whole number and K, M, G or T"),
        (&["--delimiter", "::", "--format=csv"], "give one byte"),
        (&["--format=csv", "-t1", "--window=1m", "--time-format=%H:%M"], "tells no date"),
        (&["--format=csv", "-t1", "--window=1m", "--time-format=iso"], "give rfc3339, seconds"),
        (&["--window=1m", "--buckets=121"], "121 is not in 1..=120"),
        (&["--mode=exact"], "verified"),
        (&["--mode=filter"], "such as filter=1e-4"),
        (&["--mode=filter=2"], "give a rate from 1e-9 to 0.5"),
        (&["--mode=filter=1e-4", "-d", "--window=1m"], "-d --window"),
        (&["--sliding"], "--window <SPAN>"),
        (&["--on-full=reject"], "--memory <SIZE>"),
        (&["--window=1m", "--lateness=1s"], "--time <FIELD>"),
        (&["-d", "-D"], "cannot be used with"),
        (&["-d", "-c"], "cannot be used with"),
        (&["--no-such-flag"], "--no-such-flag"),
    ];
    for (args, expected) in cases {
        let outcome = dedup(*args, "a\n");
        assert_eq!((outcome.status, outcome.output.as_slice()), (2, &b""[..]), "{args:?}");
        assert!(outcome.errors.contains(expected), "{args:?}: {}", outcome.errors);
    }
}

#[test]
fn an_unreadable_file_among_several_stops_the_run_before_any_output() {
    let folder = Folder::new();
    let good = folder.file("good", "a\n");
    let lost = folder.path("lost");
    let outcome = dedup([good.clone(), lost.clone(), good.clone()], "");
    assert_eq!(outcome.output, b"");
    assert_eq!(
        outcome.failure(),
        format!("{}: No such file or directory (os error 2)", lost.display())
    );
    let outcome = dedup([good, folder.path("")], "");
    assert_eq!(outcome.output, b"");
    assert!(outcome.failure().ends_with(": is a directory"));
}

#[test]
fn help_and_version_succeed() {
    for (args, expected) in [
        (&["--version"][..], "hapax 0."),
        (&["dedup", "--help"], "Examples:"),
        (&["dedup", "-h"], "--on-error"),
        (&["--help"], "dedup"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_hapax")).args(args).output().expect("starts");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(output.status.success() && text.contains(expected), "{args:?}: {text}");
    }
}

#[test]
fn standard_input_goes_along_with_any_ending() {
    let folder = Folder::new();
    let file = folder.file("x.csv", "id\n1\n");
    assert_eq!(dedup([file, "-".into()], "id\n1\n2\n").text(), "id\n1\n2\n");
}
