//! A queue of lines, in memory.

use hapax::claim::Delivery;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;

/// A line, and the queue that it goes back to.
#[derive(Clone)]
pub(crate) struct Message {
    line: String,
    queue: UnboundedSender<Self>,
}

/// A queue that ends when all its messages were acknowledged.
pub(crate) fn of(lines: Vec<String>) -> UnboundedReceiver<Message> {
    let (queue, deliveries) = unbounded_channel();
    for line in lines {
        Message { line, queue: queue.clone() }.put_back();
    }
    deliveries
}

impl Message {
    pub(crate) fn line(&self) -> &str {
        &self.line
    }

    fn put_back(self) {
        let queue = self.queue.clone();
        // Without a receiver nobody is left to deliver it to.
        let _ = queue.send(self);
    }
}

impl Delivery for Message {
    type Error = Infallible;

    fn key(&self) -> &[u8] {
        self.line.split_whitespace().next().unwrap_or_default().as_bytes()
    }

    fn payload(&self) -> &[u8] {
        self.line.as_bytes()
    }

    async fn ack(&self) -> Result<(), Infallible> {
        Ok(())
    }

    async fn nack(&self, delay: Duration) -> Result<(), Infallible> {
        let message = self.clone();
        tokio::spawn(async move {
            sleep(delay).await;
            message.put_back();
        });
        Ok(())
    }
}
