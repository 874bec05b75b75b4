//! Workers that die at each step, over a real database.

#[path = "../../tests/servers/mod.rs"]
mod servers;

use crate::queue;
use crate::warehouse::Warehouse;
use hapax::claim::{Attempt, Consumed, Consumer, Delivery};
use servers::Server as _;
use servers::postgres::{Postgres, client, number, parameters, runtime, wait_for};
use servers::proxy::Proxy;
use std::convert::Infallible;
use std::future::pending;
use std::mem::forget;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_postgres::Client;

/// Short, because a test waits for it.
const LEASE: Duration = Duration::from_secs(1);

/// Where a worker dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    BeforeWork,
    /// The parcel is written, and not committed.
    InTransaction,
    AfterCommit,
    BeforeAck,
}

/// A message of a broker that this worker's death is seen by.
struct Message {
    key: String,
    fatal: Option<Step>,
    reached: Notify,
    is_acknowledged: AtomicBool,
}

impl Message {
    fn new(key: &str, fatal: Option<Step>) -> Arc<Self> {
        let (reached, is_acknowledged) = (Notify::new(), AtomicBool::new(false));
        Arc::new(Self { key: key.to_owned(), fatal, reached, is_acknowledged })
    }

    /// Goes on unless the worker dies here.
    async fn at(&self, step: Step) {
        if self.fatal == Some(step) {
            self.reached.notify_one();
            pending::<()>().await;
        }
    }
}

impl Delivery for Message {
    type Error = Infallible;

    fn key(&self) -> &[u8] {
        self.key.as_bytes()
    }

    fn payload(&self) -> &[u8] {
        b"2 hats for Ann"
    }

    async fn ack(&self) -> Result<(), Infallible> {
        self.at(Step::BeforeAck).await;
        self.is_acknowledged.store(true, SeqCst);
        Ok(())
    }

    async fn nack(&self, _delay: Duration) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A worker's process: all that it has can be cut off.
struct Worker {
    runtime: Runtime,
    proxy: Proxy,
    warehouse: Arc<Warehouse>,
}

impl Worker {
    fn start(server: &Postgres) -> Self {
        let (runtime, proxy) = (runtime(), Proxy::to(server.port()));
        let opened = runtime.block_on(Warehouse::open(&parameters(proxy.port()), LEASE));
        Self { warehouse: Arc::new(opened.unwrap()), runtime, proxy }
    }

    /// Starts to work on a message.
    fn consume(&self, message: &Arc<Message>) -> tokio::task::JoinHandle<Duration> {
        let (warehouse, message) = (Arc::clone(&self.warehouse), Arc::clone(message));
        self.runtime.spawn(async move {
            let gate = warehouse.gate().clone();
            let consumer = Consumer::builder(gate, "shipping").build().unwrap();
            let work = |_: Attempt| async {
                message.at(Step::BeforeWork).await;
                let shipped = warehouse.ship(&*message).await;
                message.at(Step::AfterCommit).await;
                shipped
            };
            match consumer.consume(&*message, work).await.unwrap() {
                Consumed::Retried { after, .. } => after,
                Consumed::Done(_) | Consumed::Replayed(_) => Duration::ZERO,
                Consumed::Dead(reason) => panic!("{reason:?}"),
            }
        })
    }

    /// As if its process had been killed: it says nothing to anybody any more.
    fn kill(self) {
        self.proxy.cut();
        forget(self.runtime);
    }
}

/// Has a message worked on by a worker that dies.
async fn work_and_die(server: &Postgres, database: &mut Client, key: &str, step: Step) {
    let message = Message::new(key, Some(step));
    let started = tokio::task::block_in_place(|| Worker::start(server));
    if step == Step::InTransaction {
        // Who inserts waits for whoever holds the table.
        let holder = database.transaction().await.unwrap();
        holder.batch_execute("LOCK TABLE parcel").await.unwrap();
        drop(started.consume(&message));
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        wait_for(&client(server).await, waits, 1).await;
        started.kill();
        holder.commit().await.unwrap();
    } else {
        drop(started.consume(&message));
        message.reached.notified().await;
        started.kill();
    }
    assert!(!message.is_acknowledged.load(SeqCst));
}

/// Has a message worked on until it is acknowledged.
async fn work(server: &Postgres, key: &str) {
    let message = Message::new(key, None);
    let worker = tokio::task::block_in_place(|| Worker::start(server));
    while !message.is_acknowledged.load(SeqCst) {
        sleep(worker.consume(&message).await.unwrap()).await;
    }
    worker.kill();
}

#[test]
fn a_worker_that_dies_at_any_step_leaves_one_parcel() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        Warehouse::create_schema(&server.parameters()).await.unwrap();
        let mut database = client(&server).await;
        for step in [Step::BeforeWork, Step::InTransaction, Step::AfterCommit, Step::BeforeAck] {
            let key = format!("{step:?}");
            work_and_die(&server, &mut database, &key, step).await;
            work(&server, &key).await;
            let parcels = format!("SELECT count(*) FROM parcel WHERE key = '{key}'");
            assert_eq!(number(&database, &parcels).await, 1, "{step:?}");
        }
    });
}

#[test]
fn a_queue_ends_when_all_its_messages_are_shipped() {
    let Some(server) = Postgres::start() else { return };
    runtime().block_on(async {
        Warehouse::create_schema(&server.parameters()).await.unwrap();
        let warehouse = Warehouse::open(&server.parameters(), LEASE).await.unwrap();
        let consumer = Consumer::builder(warehouse.gate().clone(), "shipping").build().unwrap();
        let lines = ["1 a hat", "2 two hats", "1 a hat", "3 a hat"].map(str::to_owned).to_vec();
        let mut deliveries = queue::of(lines);
        // The first message is handed back before any work.
        deliveries.recv().await.unwrap().nack(Duration::ZERO).await.unwrap();
        while let Some(message) = deliveries.recv().await {
            let came = consumer.consume(&message, |_| warehouse.ship(&message)).await.unwrap();
            assert!(matches!(came, Consumed::Done(_) | Consumed::Replayed(_)), "{came:?}");
        }
        assert_eq!((consumer.stats().done, consumer.stats().replayed), (3, 1));
        assert_eq!(number(&client(&server).await, "SELECT count(*) FROM parcel").await, 3);
    });
}
