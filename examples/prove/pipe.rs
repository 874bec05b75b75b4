//! How soon a line that was written to `hapax dedup` comes out again.

use crate::Failure;
use crate::end_to_end::hapax;
use crate::report::{Report, Status};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

const LINES: u32 = 50;
const BAR: Duration = Duration::from_millis(100);
/// Longer than the writer of a log that is followed ever waits.
const GIVE_UP: Duration = Duration::from_secs(10);

pub(crate) fn measure(report: &mut Report) {
    let what = format!("a line written to a pipe, {LINES} times");
    report.take(&what, "comes out within 100 ms", || {
        let mut child = Command::new(hapax()?)
            .arg("dedup")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let slowest = slowest(&mut child);
        // Its standard input is closed by now, so it ends by itself unless it hangs.
        if slowest.is_err() {
            child.kill()?;
        }
        child.wait()?;
        let slowest = slowest?;
        let figure = format!("{:.1} ms at most", slowest.as_secs_f64() * 1e3);
        Ok((figure, Status::of(slowest <= BAR)))
    });
}

/// The longest time between writing a line and reading it again. Each comes
/// after a pause and is followed by a duplicate, which must not come out.
fn slowest(child: &mut Child) -> Result<Duration, Failure> {
    let mut input = child.stdin.take().ok_or("no pipe to write to")?;
    let lines = lines_of(child)?;
    let mut slowest = Duration::ZERO;
    for number in 0..LINES {
        let line = format!("line {number}\n");
        thread::sleep(Duration::from_millis(20));
        let written = Instant::now();
        input.write_all(line.as_bytes())?;
        let (out, read) = lines.recv_timeout(GIVE_UP).map_err(|_| "a line never came out")?;
        if out != line {
            return Err(format!("wrote {line:?} and read {out:?}").into());
        }
        slowest = slowest.max(read.duration_since(written));
        input.write_all(line.as_bytes())?;
    }
    Ok(slowest)
}

/// The child's output lines with the time each was read at.
fn lines_of(child: &mut Child) -> Result<Receiver<(String, Instant)>, Failure> {
    let output = child.stdout.take().ok_or("no pipe to read from")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        while output.read_line(&mut line).is_ok_and(|length| length > 0) {
            if sender.send((std::mem::take(&mut line), Instant::now())).is_err() {
                break;
            }
        }
    });
    Ok(lines)
}
