//! PostgreSQL, one server.

use super::{Process, Server, free_port, is_installed, wait_until};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};

/// How long a busy machine may take for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Debian's `nobody` and `nogroup`: the server refuses to run as root.
const NOBODY: u32 = 65_534;

const ROOT: u32 = 0;

/// One server, that keeps what it acknowledged unless the machine fails.
pub struct Postgres {
    port: u16,
    process: Process,
    folder: TempDir,
}

impl Postgres {
    /// `None` where it is not installed: then the test is skipped.
    pub fn start() -> Option<Self> {
        if !is_installed(program("initdb").to_str()?) {
            return None;
        }
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        if is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        initialise(&folder);
        let process = run(port, &folder);
        let server = Self { port, process, folder };
        server.wait();
        Some(server)
    }

    /// What connects to it, in libpq's words.
    pub fn parameters(&self) -> String {
        parameters(self.port)
    }

    /// Starts it again as a standby, which has no primary.
    pub fn restart_as_standby(&mut self) {
        self.stop("-INT");
        fs::write(self.folder.path().join("data/standby.signal"), "").unwrap();
        self.restart();
    }

    /// What it has logged since it was started.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn stop(&mut self, signal: &str) {
        self.process.signal(signal);
        wait_until("postgres ends", || self.process.0.try_wait().unwrap().is_some());
    }

    fn signal_children(&self, signal: &str) {
        let parent = self.process.0.id();
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let children = children.unwrap();
        // Some may have ended meanwhile.
        let _ = Command::new("kill")
            .arg(signal)
            .args(children.split_whitespace())
            .stderr(Stdio::null())
            .status();
    }

    fn wait(&self) {
        let status = self.folder.path().join("data/postmaster.pid");
        let own = format!("{}\n", self.process.0.id());
        wait_until("postgres is ready", || {
            let text = fs::read_to_string(&status).unwrap_or_default();
            // The eighth line says what it is ready for: all, or reading.
            let ready = text.lines().nth(7).unwrap_or_default().trim();
            text.starts_with(&own) && ["ready", "standby"].contains(&ready)
        });
    }
}

impl Server for Postgres {
    fn port(&self) -> u16 {
        self.port
    }

    fn suspend(&self) {
        // The parent first: then it has no more children afterwards.
        self.process.suspend();
        self.signal_children("-STOP");
    }

    fn resume(&self) {
        self.signal_children("-CONT");
        self.process.resume();
    }

    fn kill(&mut self) {
        // Killed, it would leave its children behind; so it writes nothing either.
        self.stop("-QUIT");
    }

    fn restart(&mut self) {
        self.process = run(self.port, &self.folder);
        self.wait();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.process.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            // In case it is suspended.
            self.resume();
            self.kill();
        }
    }
}

pub fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
}

/// A connection past what is tested.
pub async fn client(server: &Postgres) -> Client {
    connect(&server.parameters()).await
}

/// A connection of the test's own, none of whose statements waits for ever.
pub async fn connect(parameters: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(parameters, NoTls).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client.batch_execute("SET statement_timeout = '30s'").await.unwrap();
    client
}

/// What a query that gives one number gives.
pub async fn number(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.unwrap().get(0)
}

/// How many of the pools' connections wait for a lock.
pub const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE application_name = 'hapax' AND wait_event_type = 'Lock'";

/// Waits until a query gives `wanted`.
pub async fn wait_for(client: &Client, query: &str, wanted: i64) {
    let started = Instant::now();
    while number(client, query).await != wanted {
        assert!(started.elapsed() < PATIENCE, "gave up waiting for {wanted}: {query}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// What connects to the server that is reached at a port.
pub fn parameters(port: u16) -> String {
    format!("host=127.0.0.1 port={port} user=hapax dbname=postgres sslmode=disable")
}

fn initialise(folder: &TempDir) {
    let mut initdb = command("initdb", folder);
    initdb.args(["-D", "data", "-U", "hapax", "-A", "trust", "-E", "UTF8", "--locale=C"]);
    let done = initdb.arg("--no-sync").output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

fn run(port: u16, folder: &TempDir) -> Process {
    let mut postgres = command("postgres", folder);
    postgres.args(["-D", "data", "-p", &port.to_string()]);
    // Nothing here outlives the machine, only the server.
    for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"] {
        postgres.args(["-c", setting]);
    }
    let log = fs::File::create(folder.path().join("log")).unwrap();
    Process(postgres.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
}

/// A program of the server's, as a user that it accepts.
fn command(name: &str, folder: &TempDir) -> Command {
    let mut command = Command::new(program(name));
    command.current_dir(folder.path());
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == ROOT
}

/// Debian keeps the programs out of the path, in a folder for each version.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let programs = versions.map(|version| version.path().join("bin").join(name));
    programs.filter(|program| program.exists()).max().unwrap_or_else(|| name.into())
}
