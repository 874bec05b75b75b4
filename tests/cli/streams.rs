//! Pipes: nothing is held back, and a closed one is no failure.

use crate::tool::{Folder, command, read, wait};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// Far more than any machine takes; passing needs none of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The lines that `child` writes, as they come.
fn lines(child: &mut Child) -> Receiver<String> {
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in output.lines() {
            if sender.send(line.expect("text")).is_err() {
                break;
            }
        }
    });
    receiver
}

#[test]
fn each_line_comes_out_while_the_input_stays_open() {
    type Write = fn(u32) -> String;
    let formats: [(&[&str], Write); 3] = [
        (&["--window=1h"], |n| format!("line {n}")),
        (&["--format=csv", "-n", "-k1", "-q"], |n| format!("{n},\"quoted\"\r")),
        (&["--format=jsonl", "-k.n"], |n| format!("{{\"n\":{n}}}")),
    ];
    for (flags, write) in formats {
        let mut child = command(flags).spawn().expect("the tool starts");
        let mut input = child.stdin.take().expect("a pipe");
        let output = lines(&mut child);
        for n in 0..3 {
            let line = write(n);
            // A duplicate before it, and a beginning of the next one behind it.
            write!(input, "{}\n{line}\n", write(0)).expect("the tool reads");
            if n == 0 {
                continue;
            }
            let expected = if n == 1 { vec![write(0), line] } else { vec![line] };
            for line in expected {
                let came = output.recv_timeout(PATIENCE).expect("it came out");
                assert_eq!(came.trim_end(), line.trim_end());
            }
        }
        drop(input);
        assert_eq!(wait(child).status, 0);
    }
}

#[test]
fn duplicates_come_out_at_once_too() {
    let mut child =
        command(["--duplicates=/dev/stdout", "-o/dev/null"]).spawn().expect("it starts");
    let mut input = child.stdin.take().expect("a pipe");
    let output = lines(&mut child);
    input.write_all(b"a\na\n").expect("the tool reads");
    assert_eq!(output.recv_timeout(PATIENCE).as_deref(), Ok("a"));
    drop(input);
    assert_eq!(wait(child).status, 0);
}

#[test]
fn a_closed_pipe_is_a_quiet_success() {
    let folder = Folder::new();
    let lines: Vec<String> = (0..200_000).map(|n| format!("line {n}\n")).collect();
    let file = folder.file("many.txt", lines.concat());
    for flag in ["--quiet", "--count"] {
        let mut child = command([flag.as_ref(), file.as_os_str()]).spawn().expect("it starts");
        drop(child.stdout.take());
        let outcome = wait(child);
        assert_eq!((outcome.status, outcome.errors.as_str()), (0, ""));
    }
}

#[test]
fn a_closed_pipe_does_not_cost_the_other_output_its_records() {
    let folder = Folder::new();
    let lines: Vec<String> = (0..200_000).map(|n| format!("line {n}\n")).collect();
    let file = folder.file("many.txt", lines.concat().repeat(2));
    for flags in [["-o", "--duplicates=/dev/stdout"], ["--duplicates", "-q"]] {
        let out = folder.path("out");
        let args = [flags[0].as_ref(), out.as_os_str(), flags[1].as_ref(), file.as_os_str()];
        let mut child = command(args).spawn().expect("it starts");
        drop(child.stdout.take());
        let outcome = wait(child);
        assert_eq!((outcome.status, outcome.errors.as_str()), (0, ""));
        assert!(read(&out) == lines.concat().as_bytes());
        fs::remove_file(out).expect("it was written");
    }
}
