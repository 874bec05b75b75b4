//! Work that commits together with its claim, under the same kills.

use super::lanes;
use super::place::{PATIENCE, Store, gate, postgres_claims};
use crate::child::InTurns;
use crate::keys::key;
use crate::report::{Report, Status, grouped};
use crate::slow_path::runtime;
use crate::slow_path::servers::{Server as _, postgres};
use crate::{Failure, Options, child};
use hapax::claim::{Gate, Identity, TransactionClaim};
use hapax::confirm::claims::{Digest, Outcome, PostgresClaims};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

/// The name of [`buy`] as a child's work.
pub(crate) const BUYER: &str = "buyer";

const FULL_KILLS: u64 = 1_000;
const SHORT_KILLS: u64 = 8;
const LEASE: Duration = Duration::from_secs(1);

/// After the claim, in the middle of the work, after the outcome is stored, before the reply.
const STEPS: u64 = 4;

/// A table that takes anything twice.
const TABLE: &str = "CREATE TABLE purchase (number int8 NOT NULL)";
const PURCHASE: &str = "INSERT INTO purchase VALUES ($1)";

/// How many numbers were bought, and how often in all.
const SUMS: &str = "SELECT count(DISTINCT number), count(*) FROM purchase";

pub(super) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let kills = if full { FULL_KILLS } else { SHORT_KILLS };
    let what = format!("one transaction, killed at {STEPS} steps, {} times each", grouped(kills));
    report.take(&what, "0 done twice, 0 lost", || {
        let store = Store::start("PostgreSQL")?;
        let Store::Postgres(server) = &store else { return Err("no server".into()) };
        let (bought, times) = killed(server.port(), kills * STEPS)?;
        let (twice, lost) = (times - bought, kills * STEPS - bought);
        let figure = format!("{} done twice, {} lost", grouped(twice), grouped(lost));
        Ok((figure, Status::of_run(twice + lost == 0, !full)))
    });
}

/// Has every number bought by somebody who is killed, and then once more.
fn killed(port: u16, numbers: u64) -> Result<(u64, u64), Failure> {
    let runtime = runtime()?;
    let client = runtime.block_on(connect(port))?;
    runtime.block_on(client.batch_execute(TABLE))?;
    lanes::each(numbers, |_, number| buy_again(&runtime, port, number))?;
    let sums = runtime.block_on(client.query_one(SUMS, &[]))?;
    Ok((sums.get::<_, i64>(0).try_into()?, sums.get::<_, i64>(1).try_into()?))
}

/// Kills a buyer, and buys what it was about to.
fn buy_again(runtime: &Runtime, port: u16, number: u64) -> Result<(), Failure> {
    let mut buyer = InTurns::start(BUYER, &[port.into(), number])?;
    buyer.next()?;
    buyer.kill();
    runtime.block_on(async {
        let shop = Shop::open(port).await?;
        shop.buy(number, None).await
    })
}

/// With a port and a number: buys it, as far as the number says, until it is killed.
pub(super) fn buy(numbers: &[u64]) -> Result<Vec<u64>, Failure> {
    let [port, number] = *numbers else { return Err("two numbers are needed".into()) };
    runtime()?.block_on(async {
        let shop = Shop::open(port.try_into()?).await?;
        shop.buy(number, Some(number % STEPS)).await
    })?;
    Ok(Vec::new())
}

async fn connect(port: u16) -> Result<Client, Failure> {
    let (client, connection) = tokio_postgres::connect(&postgres::parameters(port), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

struct Shop {
    gate: Gate<PostgresClaims>,
    client: Client,
}

impl Shop {
    async fn open(port: u16) -> Result<Self, Failure> {
        let gate = gate(postgres_claims(port).await?, LEASE)?;
        Ok(Self { gate, client: connect(port).await? })
    }

    /// Buys what was not bought; stops for ever after one of the steps.
    async fn buy(mut self, number: u64, last: Option<u64>) -> Result<(), Failure> {
        let stop_after = |step| {
            if last == Some(step) { child::rounds(|| Ok(vec![step])).map(drop) } else { Ok(()) }
        };
        let transaction = self.client.transaction().await?;
        let id = Identity::new("acct-7", "POST /purchases", key(number));
        let within = self.gate.within(&transaction);
        let claim = within.claim_or_wait(&id, Digest::of(b"10 EUR"), PATIENCE).await?;
        let lease = match claim {
            TransactionClaim::Granted(lease) => lease,
            TransactionClaim::Replay(_) => return Ok(()),
            other => return Err(format!("{other:?}").into()),
        };
        stop_after(0)?;
        transaction.execute(PURCHASE, &[&i64::try_from(number)?]).await?;
        stop_after(1)?;
        lease.complete(Outcome::success(*b"bought")).await?;
        stop_after(2)?;
        transaction.commit().await?;
        stop_after(3)
    }
}
