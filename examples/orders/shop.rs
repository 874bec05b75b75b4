//! Orders and stock, in PostgreSQL.

use deadpool_postgres::{Manager, Pool, PoolError};
use hapax::claim::{ClaimError, Gate, GateError, Identity, TransactionClaim, TransactionError};
use hapax::confirm::StoreError;
use hapax::confirm::claims::{Digest, Outcome, PostgresClaims};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls, Transaction};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS stock (
    item text PRIMARY KEY,
    quantity bigint NOT NULL CHECK (quantity >= 0),
    version bigint NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS orders (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer text NOT NULL,
    reference text NOT NULL,
    item text NOT NULL REFERENCES stock,
    quantity bigint NOT NULL,
    UNIQUE (customer, reference)
);";

/// How long an order waits for another with its key, which is being made elsewhere.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a transaction is run in all that the database, or the way to it, has ended.
const TRIES: usize = 3;

/// What a customer wants to buy.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Wish {
    /// What the customer calls the order: a cart, say.
    pub(crate) reference: String,
    pub(crate) item: String,
    pub(crate) quantity: NonZeroU32,
}

/// What a customer has bought.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) number: i64,
    pub(crate) reference: String,
    pub(crate) item: String,
    pub(crate) quantity: NonZeroU32,
}

/// What comes of a wish.
#[derive(Debug)]
pub(crate) enum Bought {
    /// This order, made now, as JSON.
    Now(Arc<[u8]>),
    /// This order, made before.
    Before(Arc<[u8]>),
    /// The key is being used elsewhere.
    InFlight,
    /// The key was used for another wish.
    KeyReused,
    /// There is an order with this reference.
    Exists,
    /// There is not so much left.
    SoldOut,
}

/// Why the shop cannot say what came of a wish, or be opened.
#[derive(Debug, Error)]
pub(crate) enum ShopError {
    #[error("the database could not be reached")]
    Unreachable(#[from] PoolError),
    #[error("the database failed")]
    Database(#[from] tokio_postgres::Error),
    #[error("the order's key could not be claimed")]
    Claim(#[from] TransactionError),
    #[error("the order could not be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error("the order's outcome was not kept")]
    NotKept,
    #[error("claims cannot be used")]
    Store(#[from] StoreError),
    #[error("claims cannot be used")]
    Gate(#[from] GateError),
    #[error("the pool cannot be set up")]
    Pool(#[from] deadpool_postgres::BuildError),
}

impl ShopError {
    /// True iff the same transaction may succeed if it is run again from its start: the
    /// connection broke, perhaps in the middle of a commit, or others were in its way.
    fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Claim(error) => error.is_retryable(),
            Self::Database(error) => error.code().is_none_or(|code| {
                [
                    SqlState::T_R_SERIALIZATION_FAILURE,
                    SqlState::T_R_DEADLOCK_DETECTED,
                    SqlState::ADMIN_SHUTDOWN,
                ]
                .contains(code)
            }),
            _ => false,
        }
    }
}

pub(crate) struct Shop {
    gate: Gate<PostgresClaims>,
    pool: Pool,
}

impl Shop {
    /// Creates the tables that are not there.
    pub(crate) async fn create_schema(database: &str) -> Result<(), ShopError> {
        PostgresClaims::builder(database).create_schema().await?;
        Ok(pool(database)?.get().await?.batch_execute(SCHEMA).await?)
    }

    /// In a database that has the tables.
    pub(crate) async fn open(database: &str) -> Result<Self, ShopError> {
        let gate = Gate::builder(PostgresClaims::builder(database).connect().await?).build()?;
        Ok(Self { gate, pool: pool(database)? })
    }

    /// Makes an order, once for each of the customer's keys.
    pub(crate) async fn buy(
        &self,
        customer: &str,
        key: &str,
        wish: &Wish,
    ) -> Result<Bought, ShopError> {
        for _ in 1..TRIES {
            match self.try_to_buy(customer, key, wish).await {
                Err(error) if error.is_retryable() => {}
                bought => return bought,
            }
        }
        self.try_to_buy(customer, key, wish).await
    }

    /// In one transaction: all of it comes true, or, unless it ends with the commit, none.
    async fn try_to_buy(
        &self,
        customer: &str,
        key: &str,
        wish: &Wish,
    ) -> Result<Bought, ShopError> {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        let id = Identity::new(customer, "buy", key);
        let payload = Digest::of(&serde_json::to_vec(wish)?);
        let lease =
            match self.gate.within(&transaction).claim_or_wait(&id, payload, PATIENCE).await? {
                TransactionClaim::Granted(lease) => lease,
                TransactionClaim::Replay(outcome) => {
                    return outcome.into_bytes().map(Bought::Before).ok_or(ShopError::NotKept);
                }
                TransactionClaim::InFlight(_) => return Ok(Bought::InFlight),
                TransactionClaim::Mismatch => return Ok(Bought::KeyReused),
            };
        if !take_from_stock(&transaction, wish).await? {
            return Ok(Bought::SoldOut);
        }
        let Some(order) = write_down(&transaction, customer, wish).await? else {
            return Ok(Bought::Exists);
        };
        let order: Arc<[u8]> = serde_json::to_vec(&order)?.into();
        lease.complete(Outcome::success(Arc::clone(&order))).await?;
        transaction.commit().await?;
        Ok(Bought::Now(order))
    }

    /// Deletes claims that have expired, for so long at most.
    pub(crate) async fn sweep(&self, budget: Duration) -> Result<(), ClaimError> {
        self.gate.maintain_async(budget).await.map(drop)
    }
}

/// Takes what is wished for out of the stock; false: there is not so much.
///
/// Written is only over the version that was read. Where another was faster it is read
/// again: each time, somebody has bought something, so there is an end to it.
async fn take_from_stock(
    transaction: &Transaction<'_>,
    wish: &Wish,
) -> Result<bool, tokio_postgres::Error> {
    const READ: &str = "SELECT quantity, version FROM stock WHERE item = $1";
    const WRITE: &str = "
        UPDATE stock SET quantity = $2, version = version + 1 WHERE item = $1 AND version = $3";
    let wanted = i64::from(wish.quantity.get());
    loop {
        let Some(row) = transaction.query_opt(READ, &[&wish.item]).await? else {
            return Ok(false);
        };
        let (quantity, version): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        if quantity < wanted {
            return Ok(false);
        }
        let left = quantity - wanted;
        if transaction.execute(WRITE, &[&wish.item, &left, &version]).await? == 1 {
            return Ok(true);
        }
    }
}

/// Writes an order down; `None`: there is one with its reference.
async fn write_down(
    transaction: &Transaction<'_>,
    customer: &str,
    wish: &Wish,
) -> Result<Option<Order>, tokio_postgres::Error> {
    const WRITE: &str = "
        INSERT INTO orders (customer, reference, item, quantity) VALUES ($1, $2, $3, $4)
        ON CONFLICT DO NOTHING RETURNING number";
    let Wish { reference, item, quantity } = wish;
    let wanted = i64::from(quantity.get());
    let row = transaction.query_opt(WRITE, &[&customer, reference, item, &wanted]).await?;
    let Some(row) = row else { return Ok(None) };
    let Wish { reference, item, quantity } = wish.clone();
    Ok(Some(Order { number: row.try_get(0)?, reference, item, quantity }))
}

fn pool(database: &str) -> Result<Pool, ShopError> {
    let config: Config = database.parse()?;
    Ok(Pool::builder(Manager::new(config, NoTls)).max_size(8).build()?)
}
