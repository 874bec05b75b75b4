//! Claims in a caller's own transaction.

use super::super::failure::{is_locked_out, of_transaction};
use super::sql;
use super::table::Table;
use crate::confirm::StoreError;
use crate::confirm::claims::{Answer, ClaimRequest, SettleRequest, Settled};
use std::time::Duration;
use tokio_postgres::Transaction;

/// Claims that become true, or never were, with whatever else a transaction does.
///
/// After an error the transaction can only be rolled back. So it can after a future that was dropped.
pub(crate) struct InTransaction<'t> {
    table: Table<'t, Transaction<'t>>,
}

impl<'t> InTransaction<'t> {
    pub(super) const fn new(table: Table<'t, Transaction<'t>>) -> Self {
        Self { table }
    }

    /// Claims an identity, and waits for nobody; nothing remains of one that another
    /// transaction is at.
    pub(crate) async fn claim(
        &self,
        id: &[u8],
        request: &ClaimRequest,
    ) -> Result<Answer, StoreError> {
        self.table.claim(id, request).await
    }

    /// Waits until no other transaction is at an identity, for `most` at most.
    pub(crate) async fn wait(&self, id: &[u8], most: Duration) -> Result<(), StoreError> {
        let waiting = sql::wait(self.table.turn(id), most.as_millis());
        let waited = self.table.channel.batch_execute(&waiting).await;
        let left = self.table.channel.batch_execute(sql::LEAVE).await;
        match waited {
            Err(error) if !is_locked_out(&error) => Err(of_transaction(error)),
            _ => left.map_err(of_transaction),
        }
    }

    /// Says how a claim of this transaction ended.
    pub(crate) async fn settle(
        &self,
        id: &[u8],
        request: &SettleRequest<'_>,
    ) -> Result<Settled, StoreError> {
        self.table.settle(id, request).await
    }
}
