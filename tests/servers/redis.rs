//! Redis: one server, or a cluster.

use super::{Process, Server, free_port, wait_until};
use redis::{Cmd, Connection, FromRedisValue, RedisResult};
use std::process::Command;
use tempfile::TempDir;

/// What `is_installed` is to be asked about.
pub const PROGRAM: &str = "redis-server";

/// One server, that keeps what it acknowledged on disk.
pub struct Redis {
    port: u16,
    settings: Vec<String>,
    // Before its folder: it goes first.
    process: Process,
    folder: TempDir,
}

impl Redis {
    pub fn start(settings: &[&str]) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let settings: Vec<_> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let process = run(port, &folder, &settings);
        let server = Self { port, settings, process, folder };
        server.wait();
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub fn connection(&self) -> RedisResult<Connection> {
        redis::Client::open(self.url())?.get_connection()
    }

    /// Has a command done, words of a line.
    #[track_caller]
    pub fn ask<T: FromRedisValue>(&self, line: &str) -> T {
        command(line).query(&mut self.connection().unwrap()).unwrap()
    }

    fn setting(&self, name: &str) -> &str {
        let at = self.settings.iter().position(|setting| setting == name).unwrap();
        &self.settings[at + 1]
    }

    fn wait(&self) {
        wait_until("redis-server answers", || {
            let ping = |mut connection| command("PING").query::<String>(&mut connection);
            self.connection().and_then(ping).is_ok()
        });
    }
}

impl Server for Redis {
    fn port(&self) -> u16 {
        self.port
    }

    fn suspend(&self) {
        self.process.suspend();
    }

    fn resume(&self) {
        self.process.resume();
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    fn restart(&mut self) {
        self.process = run(self.port, &self.folder, &self.settings);
        self.wait();
    }
}

fn run(port: u16, folder: &TempDir, settings: &[String]) -> Process {
    let mut command = Command::new(PROGRAM);
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
    command.args(["--appendonly", "yes", "--appendfsync", "always", "--dir"]);
    Process::start(command.arg(folder.path()).args(settings))
}

fn command(line: &str) -> Cmd {
    let mut words = line.split_whitespace();
    let mut command = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        command.arg(word);
    });
    command
}

fn node() -> Redis {
    let bus = free_port().to_string();
    let mut settings = vec!["--cluster-enabled", "yes", BUS, &bus];
    settings.extend(["--cluster-node-timeout", NODE_TIMEOUT_MS]);
    settings.extend(["--cluster-require-full-coverage", "no"]);
    Redis::start(&settings)
}

/// Three servers, with a third of the slots each, and replicas.
pub struct RedisCluster {
    pub nodes: Vec<Redis>,
}

/// How long a server of a cluster is silent before the others take it for dead.
const NODE_TIMEOUT_MS: &str = "2000";
const BUS: &str = "--cluster-port";

impl RedisCluster {
    pub fn start() -> Self {
        let cluster = Self { nodes: (0..3).map(|_| node()).collect() };
        let thirds = ["0 5460", "5461 10922", "10923 16383"];
        for (epoch, (node, slots)) in (1..).zip(cluster.nodes.iter().zip(thirds)) {
            let _: () = node.ask(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
            let _: () = node.ask(&format!("CLUSTER SET-CONFIG-EPOCH {epoch}"));
        }
        cluster.nodes[1..].iter().for_each(|other| cluster.meet(other));
        cluster.wait_for(3);
        cluster
    }

    /// Adds a replica of one server, which comes last in `nodes`.
    pub fn add_replica(&mut self, of: usize) {
        let replica = node();
        self.meet(&replica);
        self.nodes.push(replica);
        self.wait_for(self.nodes.len());
        let (replica, id) = (&self.nodes[self.nodes.len() - 1], self.id(of));
        let _: () = replica.ask(&format!("CLUSTER REPLICATE {id}"));
        wait_until("the replica follows, on its disk too", || {
            let info: String = replica.ask("INFO");
            ["master_link_status:up", "aof_rewrite_scheduled:0", "aof_rewrite_in_progress:0"]
                .iter()
                .all(|state| info.contains(state))
        });
    }

    fn meet(&self, other: &Redis) {
        let bus = other.setting(BUS);
        let _: () = self.nodes[0].ask(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", other.port()));
    }

    fn wait_for(&self, size: usize) {
        let known = format!("cluster_known_nodes:{size}");
        wait_until("the cluster is whole", || {
            self.nodes.iter().all(|node| {
                let info: String = node.ask("CLUSTER INFO");
                ["cluster_state:ok", "cluster_slots_ok:16384", &known]
                    .iter()
                    .all(|state| info.contains(state))
            })
        });
    }

    fn id(&self, node: usize) -> String {
        self.nodes[node].ask("CLUSTER MYID")
    }

    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::url).collect()
    }

    /// Moves a slot and its keys from one server to another, as `redis-cli` does;
    /// `halfway` is called when some of the keys have moved.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize, mut halfway: impl FnMut()) {
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let (from_id, to_id) = (self.id(from), self.id(to));
        let _: () = target.ask(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"));
        let _: () = source.ask(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"));
        loop {
            let keys: Vec<Vec<u8>> = source.ask(&format!("CLUSTER GETKEYSINSLOT {slot} 50"));
            if keys.is_empty() {
                break;
            }
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(target.port()).arg("").arg(0).arg(5_000).arg("KEYS");
            migrate.arg(keys);
            let _: () = migrate.query(&mut source.connection().unwrap()).unwrap();
            halfway();
        }
        // The others hear of it from these two.
        for node in [target, source] {
            let _: () = node.ask(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
        }
    }
}
