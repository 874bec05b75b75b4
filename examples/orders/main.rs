//! A shop that takes orders over HTTP, and sells nothing twice and nothing that it has not.
//!
//! Clients retry, send twice, and hang up; proxies repeat; processes and connections to the
//! database die. Five defences stand one behind the other, each for what those before it
//! let through:
//!
//! 1. The `Idempotency-Key` header at the edge, in this process's memory: a retry gets the
//!    first answer, one that comes too early 409, and one that asks for something else 422.
//! 2. A turn for each customer (`turns`), in memory as well: who sends orders all at once is
//!    told 429, before he takes up a connection to the database.
//! 3. The same key, claimed in the transaction that makes the order (`shop`): a retry that comes
//!    to another process, or to this one after a restart, gets the first answer, too. Claim
//!    and order commit together, or neither does.
//! 4. The order's own reference, unique for each customer: a client that lost its key and
//!    takes another for the same order is told 409.
//! 5. The stock, which is written only over the version that was read, and never goes below
//!    zero.
//!
//! ```text
//! cargo run --example orders --features http,postgres -- "host=localhost dbname=shop" 127.0.0.1:8080
//! psql -d shop -c "INSERT INTO stock VALUES ('hat', 40)"
//! curl -i 127.0.0.1:8080/orders -H 'Authorization: Bearer ann' -H 'Idempotency-Key: "17"' \
//!     --json '{"reference": "cart-17", "item": "hat", "quantity": 2}'
//! ```

mod api;
mod shop;
#[cfg(test)]
mod tests;
mod turns;

use shop::Shop;
use std::env::args;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::sleep;

/// How often claims that have expired are swept, and for how long at most.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
const SWEEP_FOR: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = args().skip(1).collect();
    let [database, address] = arguments.as_slice() else {
        return Err("usage: orders DATABASE ADDRESS, the database in libpq's words".into());
    };
    Shop::create_schema(database).await?;
    let shop = Arc::new(Shop::open(database).await?);
    tokio::spawn(sweep(Arc::clone(&shop)));
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, api::router(shop)?).await?;
    Ok(())
}

async fn sweep(shop: Arc<Shop>) {
    loop {
        if let Err(error) = shop.sweep(SWEEP_FOR).await {
            eprintln!("expired claims could not be swept: {error}");
        }
        sleep(SWEEP_EVERY).await;
    }
}
