//! Real servers for tests: each is started by the test that needs it, in a folder
//! of its own, and gone with it, also when the test panics.

#![allow(dead_code, reason = "each test binary compiles all of it and uses its own part")]
#![allow(unreachable_pub, reason = "a module of a test binary has nobody outside to reach it")]

pub mod impostor;
#[cfg(feature = "conformance")]
pub mod on_tokio;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "conformance")]
pub mod proxied;
pub mod proxy;
#[cfg(feature = "redis")]
pub mod redis;

use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a server may take to start, which includes reading all that it had written,
/// or to notice something.
const PATIENCE: Duration = Duration::from_secs(60);

/// True iff `program` can be run; else says that the test is skipped, which
/// `scripts/test` takes for a failure.
pub fn is_installed(program: &str) -> bool {
    let version = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    let is_installed = version.is_ok_and(|status| status.success());
    if !is_installed {
        // Not `eprintln!`, whose output is held back while a test passes.
        let _ = writeln!(std::io::stderr(), "\nskipped: {program} is not installed");
    }
    is_installed
}

/// A port that is free now. The system gives none of these to clients: one that
/// calls a server that is down could meet itself there, and keep the port.
pub fn free_port() -> u16 {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 100) as u16 * 100;
    loop {
        let offset = first.wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let port = 20_000 + offset;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "gave up waiting: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// What can happen to a server.
pub trait Server: Send {
    /// Where it listens.
    fn port(&self) -> u16;

    /// Lets it hang until [`resume`](Self::resume).
    fn suspend(&self);

    fn resume(&self);

    /// Ends it at once, as a crash would.
    fn kill(&mut self);

    /// Starts it again after [`kill`](Self::kill).
    fn restart(&mut self);
}

/// A child process, killed when it is dropped.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.spawn().unwrap())
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Lets it hang until [`resume`](Self::resume).
    pub fn suspend(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success(), "kill {signal}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
