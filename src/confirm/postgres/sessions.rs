//! Connections to the server: a pool of them, and how long anybody waits.

use super::failure::{
    has_lost, no_connection, no_reply, of_connecting, of_request, refused, unreadable,
};
use super::sql;
use crate::confirm::StoreError;
use deadpool_postgres::{Hook, HookError, Manager, Object, Pool};
use scopeguard::{ScopeGuard, guard};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};

/// One parameter of a statement.
pub(super) type Parameter<'value> = &'value (dyn ToSql + Sync);

/// A request has at most two waits: for a connection, when nothing has been asked
/// yet, and for the reply, when anything may have happened.
pub(super) struct Sessions {
    pool: Pool,
    connect_timeout: Duration,
    reply_timeout: Duration,
}

impl Sessions {
    pub(super) fn new(
        manager: Manager,
        connections: usize,
        connect_timeout: Duration,
        reply_timeout: Duration,
    ) -> Result<Self, StoreError> {
        let settings = sql::session(reply_timeout);
        let set_up = Hook::async_fn(move |client, _| {
            let settings = settings.clone();
            Box::pin(async move {
                // Not every server can; if it is the connection that broke, what follows fails.
                let _ = client.batch_execute(sql::WATCH).await;
                client.batch_execute(&settings).await.map_err(HookError::Backend)
            })
        });
        let pool = Pool::builder(manager).max_size(connections).post_create(set_up).build();
        Ok(Self { pool: pool.map_err(refused)?, connect_timeout, reply_timeout })
    }

    /// What a statement gives, prepared once for each connection.
    pub(super) async fn rows(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let session = self.session().await?;
        let reply = timeout(self.reply_timeout, rows(&session, statement, parameters)).await;
        self.settle(session, reply)
    }

    /// The one number that a statement gives.
    pub(super) async fn number(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<i64, StoreError> {
        let rows = self.rows(statement, parameters).await?;
        let [row] = &*rows else { return Err(unreadable(format!("{} numbers", rows.len()))) };
        row.try_get(0).map_err(unreadable)
    }

    /// Has statements done that give nothing.
    pub(super) async fn execute(&self, statements: &str) -> Result<(), StoreError> {
        let session = self.session().await?;
        let reply = timeout(self.reply_timeout, session.batch_execute(statements)).await;
        self.settle(session, reply)
    }

    async fn session(&self) -> Result<Loan, StoreError> {
        // Without a runtime, what follows would panic.
        Handle::try_current().map_err(refused)?;
        match timeout(self.connect_timeout, self.pool.get()).await {
            Ok(session) => Ok(guard(session.map_err(of_connecting)?, close as fn(Object))),
            Err(_) => Err(no_connection(self.connect_timeout)),
        }
    }

    fn settle<T>(
        &self,
        session: Loan,
        reply: Result<Result<T, Error>, Elapsed>,
    ) -> Result<T, StoreError> {
        match reply {
            Ok(Ok(reply)) => {
                give_back(session);
                Ok(reply)
            }
            Ok(Err(error)) => Err(of_request(error)),
            Err(_) => Err(no_reply(self.reply_timeout)),
        }
    }
}

/// A session that is closed, and replaced by a new one, unless its request got a
/// reply. If that failed, or the caller gave up, what the session is still doing is
/// unknown, and the next caller would wait for it.
type Loan = ScopeGuard<Object, fn(Object)>;

fn give_back(session: Loan) {
    drop(ScopeGuard::into_inner(session));
}

fn close(session: Object) {
    drop(Object::take(session));
}

/// A statement that lost to other transactions was taken back whole: it is asked
/// again at once, until the caller's time is up.
async fn rows(
    session: &Object,
    statement: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>, Error> {
    let statement = session.prepare_cached(statement).await?;
    loop {
        match session.query(&statement, parameters).await {
            Err(error) if has_lost(&error) => {}
            reply => return reply,
        }
    }
}
