//! Ships each order once, from a queue that delivers at least once.
//!
//! A consumer has each message worked on under a lease, and acknowledges it only when what came
//! of it is kept. A process that dies between the two leaves the work done and nobody who knows, so
//! the work itself (`warehouse`) claims the message once more, in the transaction that
//! makes the parcel: whoever takes over finds out, and makes no second one.
//!
//! The queue is made of the lines of standard input, each a message whose first word is its
//! key. Two workers at once, or the same lines again, ship nothing twice:
//!
//! ```text
//! printf 'order-1 2 hats for Ann\norder-2 1 hat for Bob\norder-1 2 hats for Ann\n' |
//!     cargo run --example shipping --features claims,postgres -- "host=localhost dbname=shop"
//! ```

mod queue;
#[cfg(test)]
mod tests;
mod warehouse;

use hapax::claim::{Consumed, Consumer, Delivery as _};
use std::env::args;
use std::error::Error;
use std::io::stdin;
use std::time::Duration;
use warehouse::Warehouse;

/// Longer than a worker is cut off from the database without being given up.
const LEASE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Some(database) = args().nth(1) else {
        return Err("usage: shipping DATABASE < MESSAGES, the database in libpq's words".into());
    };
    Warehouse::create_schema(&database).await?;
    let warehouse = Warehouse::open(&database, LEASE).await?;
    let consumer = Consumer::builder(warehouse.gate().clone(), "shipping").build()?;
    let mut deliveries = queue::of(stdin().lines().collect::<Result<_, _>>()?);
    while let Some(message) = deliveries.recv().await {
        let line = message.line();
        match consumer.consume(&message, |_| warehouse.ship(&message)).await? {
            Consumed::Done(_) => println!("shipped: {line}"),
            Consumed::Replayed(_) => println!("shipped before: {line}"),
            Consumed::Retried { after, reason } => {
                eprintln!("again in {after:?}, {reason}: {line}");
            }
            Consumed::Dead(reason) => {
                // Where a real one would go to a queue for people.
                eprintln!("given up, {reason}: {line}");
                message.ack().await?;
            }
        }
    }
    Ok(())
}
