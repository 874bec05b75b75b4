//! `-o` and `--duplicates`: whole or not at all; and the summary.

use crate::tool::{Folder, command, dedup, read, wait};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Runs over `input` with the flags `flags` and `-o path`.
fn to_file(flags: &[&str], path: &Path, input: &str) -> crate::tool::Outcome {
    let flags = flags.iter().map(PathBuf::from).chain(["-o".into(), path.to_owned()]);
    dedup::<PathBuf>(flags, input)
}

#[test]
fn a_file_is_written_whole_and_nothing_is_left_beside_it() {
    let folder = Folder::new();
    let (output, duplicates) = (folder.path("out"), folder.path("dup"));
    let args = ["-o".into(), output.clone(), "--duplicates".into(), duplicates.clone()];
    assert_eq!(dedup(args, "a\nb\na\nb\na").ok(), b"");
    assert_eq!(read(&output), b"a\nb\n");
    assert_eq!(read(&duplicates), b"a\nb\na");
    assert_eq!(folder.names(), ["dup", "out"]);
}

#[test]
fn a_failed_run_leaves_the_old_file_alone() {
    let folder = Folder::new();
    let output = folder.file("out", "old");
    let flags = ["--format=csv", "-n", "-k2"];
    assert!(to_file(&flags, &output, "a,b\nc\n").failure().contains("line 2"));
    assert_eq!(read(&output), b"old");
    let never = folder.path("never");
    assert!(to_file(&flags, &never, "a,b\nc\n").failure().contains("line 2"));
    assert_eq!(folder.names(), ["out"]);
}

#[test]
fn a_killed_run_leaves_the_old_file_alone_and_no_other() {
    let folder = Folder::new();
    let output = folder.file("out", "old");
    let mut child = command(["-o".into(), output.clone()]).spawn().expect("the tool starts");
    let mut pipe = child.stdin.take().expect("a pipe");
    // More than any pipe holds: when it is gone, the output has been opened.
    pipe.write_all(&vec![b'\n'; 8 << 20]).expect("the tool reads");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert_eq!(read(&output), b"old");
    assert_eq!(folder.names(), ["out"]);
}

#[test]
fn an_input_may_be_replaced() {
    let folder = Folder::new();
    let file = folder.file("x.txt", "a\na\nb\n");
    assert_eq!(dedup([file.clone(), "-o".into(), file.clone()], "").ok(), b"");
    assert_eq!(read(&file), b"a\nb\n");
}

#[test]
fn a_replaced_file_keeps_its_mode_and_its_links() {
    let folder = Folder::new();
    let file = folder.file("real", "old");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("it is ours");
    let link = folder.path("link");
    symlink(&file, &link).expect("links can be made");
    assert_eq!(to_file(&[], &link, "a\na\n").ok(), b"");
    assert!(fs::symlink_metadata(&link).expect("still there").is_symlink());
    assert_eq!(read(&file), b"a\n");
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o640);
}

#[test]
fn devices_and_pipes_are_written_to_not_replaced() {
    assert_eq!(to_file(&[], Path::new("/dev/stdout"), "a\na\n").ok(), b"a\n");
    assert_eq!(to_file(&[], Path::new("/dev/null"), "a\n").ok(), b"");
    assert!(!fs::metadata("/dev/null").expect("there").is_file());
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let folder = Folder::new();
    let lost = folder.path("lost/out");
    assert_eq!(
        to_file(&[], &lost, "a\n").failure(),
        format!("{}: No such file or directory (os error 2)", lost.display())
    );
    assert!(to_file(&[], &folder.path(""), "a\n").failure().contains("Is a directory"));
    assert!(to_file(&[], &folder.path("new/"), "a\n").failure().contains("is a directory"));
    assert!(
        dedup(["--stats=text", "-o/dev/full"], "a\n").failure().starts_with("/dev/full: No space")
    );
}

#[test]
fn standard_output_that_is_an_input_is_refused() {
    let folder = Folder::new();
    let file = folder.file("x.txt", "a\na\n");
    let append = || fs::File::options().append(true).open(&file).expect("it was written");
    let child = command([&file]).stdout(append()).spawn().expect("the tool starts");
    let outcome = wait(child);
    assert!(outcome.failure().contains("the input is also the output: give it as `-o FILE`"));
    assert_eq!(read(&file), b"a\na\n");
}

#[test]
fn two_outputs_at_one_place_are_refused_whatever_they_are_called() {
    let folder = Folder::new();
    let file = folder.file("x.txt", "a\na\n");
    let out = folder.file("out", "old");
    let detour = folder.path(".").join("out");
    let message = "the output and --duplicates are one file: give each its own";
    for (output, duplicates) in [(&out, &detour), (&folder.path("new"), &folder.path("./new"))] {
        let args = [&file, &"-o".into(), output, &"--duplicates".into(), duplicates];
        assert_eq!(dedup(args, "").failure(), message);
    }
    let append = fs::File::options().append(true).open(&out).expect("it was written");
    let child = command([&file, &"--duplicates".into(), &out]).stdout(append).spawn();
    assert_eq!(wait(child.expect("the tool starts")).failure(), message);
    assert_eq!(read(&out), b"old");
    assert_eq!(folder.names(), ["out", "x.txt"]);
}

#[test]
fn suppressed_records_do_not_replace_an_input() {
    let folder = Folder::new();
    let file = folder.file("x.txt", "a\na\n");
    let outcome = dedup([&file, &"--duplicates".into(), &file], "");
    assert!(
        outcome.failure().ends_with("--duplicates would replace this input: give it another file")
    );
    assert_eq!(read(&file), b"a\na\n");
}

#[test]
fn a_file_behind_standard_output_or_standard_error_is_added_to() {
    let folder = Folder::new();
    let file = folder.file("x.txt", "a\nb\na\n");
    for name in ["-", "/dev/stdout"] {
        let log = folder.file("log", "kept\n");
        let append = fs::File::options().append(true).open(&log).expect("it was written");
        let child = command([&file, &"-o".into(), &name.into()]).stdout(append).spawn();
        wait(child.expect("the tool starts")).ok();
        assert_eq!(read(&log), b"kept\na\nb\n");
    }
    let log = folder.file("log", "kept\n");
    let append = fs::File::options().append(true).open(&log).expect("it was written");
    let child = command([&file, &"--duplicates=/dev/stderr".into()]).stderr(append).spawn();
    wait(child.expect("the tool starts")).ok();
    assert_eq!(read(&log), b"kept\na\n");
}

#[test]
fn the_summary_comes_when_asked_for() {
    let text = dedup(["--stats=text", "-q"], "a\nb\na\n");
    assert_eq!(text.output, b"a\nb\n");
    assert!(
        text.errors.starts_with("hapax: 3 records: 2 unique, 1 duplicate; 6 bytes read, 4 written")
    );
    let json = dedup(["--stats", "json"], "a\nb\na\n").errors;
    for part in [
        "\"records\":3,",
        "\"uniques\":2,",
        "\"duplicates\":1,",
        "\"late\":0,",
        "\"errors\":0,",
        "\"read_bytes\":6,",
        "\"written_bytes\":4",
    ] {
        assert!(json.contains(part), "{part} {json}");
    }
    assert_eq!(json.lines().count(), 1);
}
