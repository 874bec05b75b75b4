//! One step: look, decide, write.

use super::super::failure::{of_transaction, unreadable};
use super::super::key::stored;
use super::super::sessions::{Parameter, Sessions};
use super::row::{Columns, Looked, TYPES};
use super::sql;
use crate::confirm::claims::{Answer, ClaimRequest, Decision, Entry, SettleRequest, Settled};
use crate::confirm::{StoreError, StoreErrorKind};
use crate::hash::composite;
use crate::time::Timestamp;
use sha2::{Digest, Sha256};
use std::future::Future;
use std::time::Duration;
use tokio_postgres::types::Type;
use tokio_postgres::{Row, Transaction};

/// How often a key may be written by others between a look and its write. Each time
/// somebody has got somewhere: whoever is granted it, or settles it.
const TRIES: usize = 100;

/// Where statements go: to a session of the pool, each a transaction of its own, or into a
/// caller's transaction.
pub(super) trait Channel: Sync {
    fn rows(
        &self,
        statement: &str,
        parameters: &[Typed<'_>],
    ) -> impl Future<Output = Result<Vec<Row>, StoreError>> + Send;
}

/// One parameter of a statement, and its type.
pub(super) type Typed<'value> = (Parameter<'value>, Type);

/// Each statement is prepared once for a session.
impl Channel for Sessions {
    async fn rows(
        &self,
        statement: &str,
        parameters: &[Typed<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let parameters: Vec<_> = parameters.iter().map(|(parameter, _)| *parameter).collect();
        Self::rows(self, statement, &parameters).await
    }
}

/// Nothing is prepared: that would be a round trip more, for a session that may never
/// send the statement again.
impl Channel for Transaction<'_> {
    async fn rows(
        &self,
        statement: &str,
        parameters: &[Typed<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        self.query_typed(statement, parameters).await.map_err(of_transaction)
    }
}

/// One namespace's claims, as one channel sees them.
pub(super) struct Table<'c, C> {
    pub(super) channel: &'c C,
    pub(super) namespace: &'c str,
}

/// What a step comes to.
enum Step<T> {
    Answered(T),
    /// Nothing was written: a transaction that has not ended, or another step, has the turn.
    /// With the server's time.
    Busy(Timestamp),
}

enum Written {
    Done,
    /// Another came between.
    Missed,
    /// Another has the turn.
    Busy,
}

impl<C: Channel> Table<'_, C> {
    /// What is held for an identity, and the server's time.
    pub(super) async fn look(&self, id: &[u8]) -> Result<Looked, StoreError> {
        let id = &*stored(id);
        let parameters: [Typed<'_>; 2] = [(&self.namespace, Type::TEXT), (&id, Type::BYTEA)];
        Looked::read(&self.channel.rows(sql::LOOK, &parameters).await?)
    }

    /// Claims an identity, and waits for nobody: one that a transaction is at that has not
    /// ended is in flight, and may be free at any moment.
    pub(super) async fn claim(
        &self,
        id: &[u8],
        request: &ClaimRequest,
    ) -> Result<Answer, StoreError> {
        let decide = |held: Option<&Entry>, now| Entry::claim(held, request, now);
        Ok(match self.step(id, Some(self.turn(id)), decide).await? {
            Step::Answered(answer) => answer,
            Step::Busy(since) => Answer::InFlight { since, remaining: Duration::ZERO },
        })
    }

    /// Settles a claim; waits for a transaction that is at it.
    pub(super) async fn settle(
        &self,
        id: &[u8],
        request: &SettleRequest<'_>,
    ) -> Result<Settled, StoreError> {
        let decide = |held: Option<&Entry>, now| Entry::settle(held, request, now);
        match self.step(id, None, decide).await? {
            Step::Answered(settled) => Ok(settled),
            Step::Busy(_) => Err(unreadable("no turn, though none was asked for")),
        }
    }

    /// Reads, decides and writes as one step: what is written replaces what was
    /// decided upon, or nothing. So no lock is held while this side decides, and who writes
    /// nothing takes none.
    ///
    /// With a `turn`, it writes only if no other transaction has it, and waits for no other that
    /// asks for its turn; without, it waits for whoever is writing the row.
    async fn step<T>(
        &self,
        id: &[u8],
        turn: Option<i64>,
        decide: impl Fn(Option<&Entry>, Timestamp) -> Decision<T> + Send,
    ) -> Result<Step<T>, StoreError> {
        for _ in 0..TRIES {
            let Looked { now, held } = self.look(id).await?;
            let Decision { answer, write } = decide(held.as_ref(), now);
            let Some(entry) = write else { return Ok(Step::Answered(answer)) };
            match self.replace(id, held.as_ref(), &entry, turn).await? {
                Written::Done => return Ok(Step::Answered(answer)),
                Written::Missed => {}
                Written::Busy => return Ok(Step::Busy(now)),
            }
        }
        let cause = format!("others changed the entry {TRIES} times in between");
        Err(StoreError::new(StoreErrorKind::Unavailable, cause))
    }

    async fn replace(
        &self,
        id: &[u8],
        held: Option<&Entry>,
        entry: &Entry,
        turn: Option<i64>,
    ) -> Result<Written, StoreError> {
        let id = &*stored(id);
        let new = Columns::of(entry)?;
        let old = held.map(Columns::of).transpose()?;
        let old_token = old.as_ref().map(|old| old.token);
        let old_state = old.as_ref().map(|old| old.state);
        let old_expires = old.as_ref().map(|old| old.expires);
        let values: [Parameter<'_>; 10] = [
            &new.token,
            &new.fence,
            &new.attempt,
            &new.is_takeover,
            &new.digest,
            &new.state,
            &new.since,
            &new.deadline,
            &new.answer,
            &new.expires,
        ];
        let mut parameters: Vec<Typed<'_>> =
            vec![(&self.namespace, Type::TEXT), (&id, Type::BYTEA)];
        parameters.extend(values.into_iter().zip(TYPES));
        parameters.push((&old_token, Type::INT8));
        parameters.push((&old_state, Type::TEXT));
        parameters.push((&old_expires, Type::INT8));
        parameters.push((&turn, Type::INT8));
        written(&self.channel.rows(sql::WRITE, &parameters).await?)
    }

    /// The turn of an identity, a lock's number: one that another identity, or another program,
    /// has too, of 2^64, would hold it up, and nothing else.
    pub(super) fn turn(&self, id: &[u8]) -> i64 {
        let name = composite(&[b"hapax_claim", self.namespace.as_bytes(), id]);
        let mut number = [0; 8];
        number.copy_from_slice(&Sha256::digest(name)[..8]);
        i64::from_le_bytes(number)
    }
}

fn written(rows: &[Row]) -> Result<Written, StoreError> {
    let [row] = rows else { return Err(unreadable(format!("{} replies", rows.len()))) };
    let is_turn: bool = row.try_get(0).map_err(unreadable)?;
    let is_written: bool = row.try_get(1).map_err(unreadable)?;
    Ok(match (is_turn, is_written) {
        (false, _) => Written::Busy,
        (true, false) => Written::Missed,
        (true, true) => Written::Done,
    })
}
