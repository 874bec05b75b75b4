//! `--on-full spill`: keys that do not fit into memory go to a temporary file.

use crate::tool::{Folder, Outcome, command, dedup, wait};
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// The least memory that works.
const LEAST: &str = "--memory=32M";

/// Whole keys of so many records do not fit into the least memory.
const RECORDS: u64 = 250_000;

/// Nor do fingerprints of so many.
const MORE_RECORDS: u64 = 450_000;

/// Numbers in no order, each from its own.
const fn scatter(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

/// The key of each record: every third is one of those before, however long ago.
fn keys(records: u64) -> impl Iterator<Item = String> {
    (0..records).map(|number| {
        let earlier = scatter(number) % (number + 1);
        format!("key {:016x}", scatter(if number % 3 == 2 { earlier } else { number }))
    })
}

fn lines(records: u64) -> String {
    keys(records).map(|key| key + "\n").collect()
}

/// Rows of key and time, out of order by up to ten seconds; 200 records a second.
fn rows() -> String {
    let time = |number: u64| 1_700_000_000_000 + number * 5 - scatter(number) % 10_000;
    let rows: Vec<_> =
        keys(RECORDS).zip(0..).map(|(key, number)| format!("{key},{}\n", time(number))).collect();
    rows.concat()
}

/// The same run with little memory and without a limit.
#[track_caller]
fn compare(flags: &[&str], input: &str) {
    let spilled = dedup([flags, &[LEAST, "--on-full=spill", "--stats=json"]].concat(), input);
    assert_eq!(spilled.status, 0, "{}", spilled.errors);
    assert!(!spilled.errors.contains("\"spilled\":0,"), "{}", spilled.errors);
    assert!(!spilled.errors.contains("\"file_bytes\":0,"), "{}", spilled.errors);
    let unlimited = dedup(flags, input).ok();
    assert!(unlimited.len() > input.len() / 8 && unlimited.len() < input.len());
    assert!(spilled.output == unlimited, "{flags:?}");
}

#[test]
fn without_a_window_the_output_is_that_of_unlimited_memory() {
    compare(&["-D"], &lines(RECORDS));
    compare(&["--mode=fingerprint"], &lines(MORE_RECORDS));
}

#[test]
fn with_a_window_too() {
    let input = rows();
    let event_time = ["--format=csv", "-n", "-k1", "-t2"];
    for flags in [
        &["--window=15m", "--sliding"][..],
        &["--window=12m", "--buckets=3", "--on-late=drop", "--lateness=8s"],
    ] {
        compare(&[&event_time, flags].concat(), &input);
    }
    compare(&["--window=1h"], &lines(RECORDS));
}

#[test]
fn counts_and_the_other_output_take_part() {
    let folder = Folder::new();
    let (input, path) = (lines(RECORDS), folder.path("repeats"));
    let run = |flags: &[&str]| {
        let duplicates = format!("--duplicates={}", path.display());
        let outcome = dedup([flags, &["-c", &duplicates]].concat(), &input);
        (outcome.ok(), fs::read(&path).expect("it was written"))
    };
    assert!(run(&[LEAST, "--on-full=spill"]) == run(&[]));
}

#[test]
fn too_little_memory_says_what_would_do() {
    let outcome = dedup(["--memory=31M", "--on-full=spill"], "a\n");
    assert_eq!(outcome.failure(), "--memory is too small: give at least 32M");
    assert_eq!(dedup([LEAST, "--on-full=spill"], "a\nb\na\n").text(), "a\nb\n");
}

#[test]
fn wrong_uses() {
    let cases: &[(&[&str], &str)] = &[
        (
            &["--mode=filter=1e-4", LEAST, "--on-full=spill"],
            "--on-full spill moves whole keys, and a filter has none: give --mode fingerprint or \
             verified",
        ),
        (
            &["-d", LEAST, "--on-full=spill"],
            "-d keeps a second set of keys, which does not spill: write all repeats with -D, and \
             drop repeats of these with another `hapax dedup`",
        ),
        (
            &["-T/tmp", LEAST, "--on-full=reject"],
            "-T is where --on-full spill has its files: give --on-full spill, or leave -T out",
        ),
        (
            &["-T/no/such/folder", LEAST, "--on-full=spill"],
            "/no/such/folder: no place for the keys that do not fit into memory: No such file or \
             directory (os error 2): give another folder with -T",
        ),
    ];
    for (args, expected) in cases {
        let outcome = dedup(*args, "a\n");
        assert_eq!((outcome.failure(), outcome.output.as_slice()), (*expected, &b""[..]));
    }
}

/// A run that has its temporary files in `folder`.
fn spilling_in(folder: &Folder, more: &[&str]) -> Command {
    let mut command = command([LEAST, "--on-full=spill"].iter().chain(more));
    command.env("TMPDIR", folder.path(""));
    command
}

fn fed(mut command: Command, input: &str) -> Outcome {
    let mut child = command.spawn().expect("it starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        scope.spawn(move || drop(pipe.write_all(input.as_bytes())));
        wait(child)
    })
}

#[test]
fn no_file_is_left_however_the_run_ends() {
    let folder = Folder::new();
    let input = lines(RECORDS);
    assert_eq!(fed(spilling_in(&folder, &[]), &input).status, 0);
    assert_eq!(folder.names(), [""; 0]);
    let broken = input + "{";
    let outcome = fed(spilling_in(&folder, &["--format=jsonl", "-k.a"]), &broken);
    assert_eq!(outcome.status, 2);
    assert_eq!(folder.names(), [""; 0]);

    let mut child = spilling_in(&folder, &[]).spawn().expect("it starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    pipe.write_all(b"one\n").expect("it reads");
    let mut line = [0; 4];
    let output = child.stdout.as_mut().expect("a pipe");
    std::io::Read::read_exact(output, &mut line).expect("it writes");
    child.kill().expect("it is alive");
    child.wait().expect("it ends");
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn the_folder_can_be_chosen() {
    let (chosen, other) = (Folder::new(), Folder::new());
    fs::remove_dir(other.path("")).expect("it is empty");
    let folder = chosen.path("");
    let folder = folder.to_str().expect("its name is text");
    let chosen = fed(spilling_in(&other, &["-T", folder]), "a\na\n");
    assert_eq!(chosen.text(), "a\n");
    fs::create_dir(other.path("")).expect("it was there before");
}

/// As where the disk is full: files may grow to so many blocks of 512 bytes, or of
/// 1,024, as the shell counts.
fn with_small_files(blocks: u32, folder: &Path) -> Command {
    let mut shell = Command::new("sh");
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
    let hapax = OsStr::new(env!("CARGO_BIN_EXE_hapax"));
    shell.args(["-c", &script, "sh"]).arg(hapax).args(["dedup", LEAST, "--on-full=spill", "-T"]);
    shell.arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

#[test]
fn a_full_disk_ends_the_run_behind_complete_records() {
    let folder = Folder::new();
    let input = lines(RECORDS);
    let outcome = fed(with_small_files(2_048, &folder.path("")), &input);
    let message = outcome.failure();
    assert!(message.starts_with("standard input: line "), "{message}");
    let expected = format!(
        "{} has no room left, and keys that do not fit into memory go there: free some, give another \
         folder with -T, or raise --memory",
        folder.path("").display()
    );
    assert!(message.ends_with(&expected), "{message}");
    let unlimited = dedup([""; 0], &input).ok();
    assert!(unlimited.starts_with(&outcome.output) && outcome.output.ends_with(b"\n"));
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn keys_may_be_of_any_length() {
    let long = |number: usize| format!("{number} {}\n", "x".repeat(70_000));
    let lines: String = (0..400).chain(0..400).map(long).collect();
    let spilled = dedup([LEAST, "--on-full=spill", "--stats=json"], &lines);
    assert!(!spilled.errors.contains("\"spilled\":0,"), "{}", spilled.errors);
    assert!(spilled.output == lines.as_bytes()[..lines.len() / 2]);
}
