//! Parcels, in PostgreSQL.

use deadpool_postgres::{Manager, Pool, PoolError};
use hapax::claim::{
    Consumer, Delivery, Gate, GateError, Identity, TransactionClaim, TransactionError,
};
use hapax::confirm::StoreError;
use hapax::confirm::claims::{Digest, Outcome, PostgresClaims};
use std::time::Duration;
use thiserror::Error;
use tokio_postgres::{Config, NoTls};

/// Nothing in it keeps a parcel from being made twice.
const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS parcel (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key bytea NOT NULL,
    content bytea NOT NULL
);";

/// How long a worker waits for another that is making the same parcel.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why no parcel was made.
#[derive(Debug, Error)]
pub(crate) enum WarehouseError {
    #[error("the database could not be reached")]
    Unreachable(#[from] PoolError),
    #[error("the database failed")]
    Database(#[from] tokio_postgres::Error),
    #[error("the message could not be claimed")]
    Claim(#[from] TransactionError),
    #[error("another is making the parcel")]
    InFlight,
    #[error("the key was used for another parcel")]
    KeyReused,
    #[error("claims cannot be used")]
    Store(#[from] StoreError),
    #[error("claims cannot be used")]
    Gate(#[from] GateError),
    #[error("the pool cannot be set up")]
    Pool(#[from] deadpool_postgres::BuildError),
}

pub(crate) struct Warehouse {
    gate: Gate<PostgresClaims>,
    pool: Pool,
}

impl Warehouse {
    /// Creates the tables that are not there.
    pub(crate) async fn create_schema(database: &str) -> Result<(), WarehouseError> {
        PostgresClaims::builder(database).create_schema().await?;
        Ok(pool(database)?.get().await?.batch_execute(SCHEMA).await?)
    }

    /// In a database that has the tables.
    pub(crate) async fn open(database: &str, lease: Duration) -> Result<Self, WarehouseError> {
        let claims = PostgresClaims::builder(database).connect().await?;
        Ok(Self { gate: Consumer::gate(claims).lease(lease).build()?, pool: pool(database)? })
    }

    /// The claims, also for who consumes messages.
    pub(crate) const fn gate(&self) -> &Gate<PostgresClaims> {
        &self.gate
    }

    /// Makes the parcel that a message asks for, or finds that it was made: parcel and claim come
    /// true together, with the commit.
    pub(crate) async fn ship(&self, message: &impl Delivery) -> Result<Outcome, WarehouseError> {
        let mut client = self.pool.get().await?;
        let transaction = client.transaction().await?;
        // Not the scope of the consumer, which is holding that one.
        let id = Identity::new("", "parcel", message.key());
        let payload = Digest::of(message.payload());
        let claims = self.gate.within(&transaction);
        let lease = match claims.claim_or_wait(&id, payload, PATIENCE).await? {
            TransactionClaim::Granted(lease) => lease,
            TransactionClaim::Replay(outcome) => return Ok(outcome),
            TransactionClaim::InFlight(_) => return Err(WarehouseError::InFlight),
            TransactionClaim::Mismatch => return Err(WarehouseError::KeyReused),
        };
        let insert = "INSERT INTO parcel (key, content) VALUES ($1, $2) RETURNING number";
        let row = transaction.query_one(insert, &[&message.key(), &message.payload()]).await?;
        let number: i64 = row.try_get(0)?;
        let outcome = Outcome::success(format!("parcel {number}").into_bytes());
        lease.complete(outcome.clone()).await?;
        transaction.commit().await?;
        Ok(outcome)
    }
}

fn pool(database: &str) -> Result<Pool, WarehouseError> {
    let config: Config = database.parse()?;
    Ok(Pool::builder(Manager::new(config, NoTls)).max_size(8).build()?)
}
