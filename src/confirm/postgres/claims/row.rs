//! Entries as the table holds them.

use super::super::failure::{refused, unreadable};
use crate::confirm::claims::{Digest, Ending, Entry, Fence, Grant, Outcome, State};
use crate::confirm::{StoreError, Token};
use crate::time::Timestamp;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Error, Row};

/// The longest answer, in bytes. The server's messages and values end at 1 GiB, and it
/// holds an answer several times.
const MOST_BYTES: usize = 1 << 28;

/// The columns of an entry, but for whose it is.
pub(super) struct Columns<'entry> {
    pub(super) token: i64,
    pub(super) fence: i64,
    pub(super) attempt: i64,
    pub(super) is_takeover: bool,
    pub(super) digest: &'entry [u8],
    pub(super) state: &'entry str,
    pub(super) since: Option<i64>,
    pub(super) deadline: Option<i64>,
    pub(super) answer: Option<&'entry [u8]>,
    pub(super) expires: i64,
}

/// Their types, in this order.
pub(super) const TYPES: [Type; 10] = [
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::BOOL,
    Type::BYTEA,
    Type::TEXT,
    Type::INT8,
    Type::INT8,
    Type::BYTEA,
    Type::INT8,
];

/// The server's time, and what it holds for an identity.
pub(super) struct Looked {
    pub(super) now: Timestamp,
    pub(super) held: Option<Entry>,
}

impl Looked {
    pub(super) fn read(rows: &[Row]) -> Result<Self, StoreError> {
        let [row] = rows else { return Err(unreadable(format!("{} entries", rows.len()))) };
        let now = Timestamp::from_micros(row.try_get(0).map_err(unreadable)?);
        let columns = Columns::read(row).map_err(unreadable)?;
        Ok(Self { now, held: columns.map(|columns| columns.entry()).transpose()? })
    }
}

impl<'entry> Columns<'entry> {
    pub(super) fn of(entry: &'entry Entry) -> Result<Self, StoreError> {
        let Entry { digest, token, grant, state, expires } = entry;
        let (state, since, deadline, answer) = match state {
            State::Free => ("free", None, None, None),
            State::Held { since, deadline } => ("held", Some(*since), Some(*deadline), None),
            State::Finished(outcome) => (name(outcome.ending()), None, None, outcome.bytes()),
        };
        in_bounds(answer.map_or(0, <[u8]>::len))?;
        Ok(Self {
            token: token.number().cast_signed(),
            fence: grant.fence.number().cast_signed(),
            attempt: i64::from(grant.attempt),
            is_takeover: grant.is_takeover,
            digest: digest.as_bytes(),
            state,
            since: since.map(Timestamp::as_micros),
            deadline: deadline.map(Timestamp::as_micros),
            answer,
            expires: expires.as_micros(),
        })
    }

    /// What a row that tells the time holds beside it; nothing if the first column is null.
    fn read(row: &'entry Row) -> Result<Option<Self>, Error> {
        let Some(token) = row.try_get(1)? else { return Ok(None) };
        Ok(Some(Self {
            token,
            fence: column(row, 2)?,
            attempt: column(row, 3)?,
            is_takeover: column(row, 4)?,
            digest: column(row, 5)?,
            state: column(row, 6)?,
            since: column(row, 7)?,
            deadline: column(row, 8)?,
            answer: column(row, 9)?,
            expires: column(row, 10)?,
        }))
    }

    fn entry(&self) -> Result<Entry, StoreError> {
        let digest = self.digest.try_into().map_err(|_| unreadable("a digest is not 32 bytes"))?;
        let attempt = u32::try_from(self.attempt).map_err(unreadable)?;
        let fence = Fence::new(self.fence.cast_unsigned());
        Ok(Entry {
            digest: Digest::from_bytes(digest),
            token: Token::new(self.token.cast_unsigned()),
            grant: Grant { fence, attempt, is_takeover: self.is_takeover },
            state: self.entry_state()?,
            expires: Timestamp::from_micros(self.expires),
        })
    }

    fn entry_state(&self) -> Result<State, StoreError> {
        let finished = |ending| State::Finished(outcome(ending, self.answer));
        match (self.state, self.since, self.deadline) {
            ("free", ..) => Ok(State::Free),
            ("held", Some(since), Some(deadline)) => Ok(State::Held {
                since: Timestamp::from_micros(since),
                deadline: Timestamp::from_micros(deadline),
            }),
            (SUCCESS, ..) => Ok(finished(Ending::Success)),
            (FAILURE, ..) => Ok(finished(Ending::Failure)),
            (state, ..) => Err(unreadable(format!("an entry in no known state: {state}"))),
        }
    }
}

fn in_bounds(answer_bytes: usize) -> Result<(), StoreError> {
    if answer_bytes <= MOST_BYTES {
        return Ok(());
    }
    Err(refused(format!(
        "an answer of {answer_bytes} bytes: {MOST_BYTES} at most, or keep a tombstone"
    )))
}

fn column<'row, T: FromSql<'row>>(row: &'row Row, place: usize) -> Result<T, Error> {
    row.try_get(place)
}

const SUCCESS: &str = "success";
const FAILURE: &str = "failure";

const fn name(ending: Ending) -> &'static str {
    match ending {
        Ending::Success => SUCCESS,
        Ending::Failure => FAILURE,
    }
}

fn outcome(ending: Ending, answer: Option<&[u8]>) -> Outcome {
    match (ending, answer) {
        (_, None) => Outcome::tombstone(ending),
        (Ending::Success, Some(bytes)) => Outcome::success(bytes),
        (Ending::Failure, Some(bytes)) => Outcome::failure(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confirm::StoreErrorKind;

    fn entry(state: State) -> Entry {
        Entry {
            digest: Digest::of(b"payload"),
            token: Token::new(u64::MAX),
            grant: Grant { fence: Fence::new(1 << 63), attempt: u32::MAX, is_takeover: true },
            state,
            expires: Timestamp::MAX,
        }
    }

    fn states() -> Vec<State> {
        let (since, deadline) = (Timestamp::MIN, Timestamp::from_secs(7));
        let tombstones = [Ending::Success, Ending::Failure].map(Outcome::tombstone);
        let outcomes = [Outcome::success(*b"done"), Outcome::success(*b""), Outcome::failure([0])];
        let finished = outcomes.into_iter().chain(tombstones).map(State::Finished);
        finished.chain([State::Free, State::Held { since, deadline }]).collect()
    }

    #[test]
    fn every_entry_comes_back_from_its_columns() {
        for entry in states().into_iter().map(entry) {
            assert_eq!(Columns::of(&entry).unwrap().entry(), Ok(entry.clone()));
        }
    }

    #[test]
    fn columns_that_no_entry_has_are_errors() {
        let held = entry(State::Held { since: Timestamp::MIN, deadline: Timestamp::MAX });
        let columns = || Columns::of(&held).unwrap();
        for columns in [
            Columns { state: "", ..columns() },
            Columns { deadline: None, ..columns() },
            Columns { attempt: -1, ..columns() },
            Columns { digest: b"short", ..columns() },
        ] {
            assert_eq!(columns.entry().unwrap_err().kind(), StoreErrorKind::Corrupt);
        }
    }

    #[test]
    fn an_answer_that_the_server_could_not_take_is_refused() {
        assert_eq!(in_bounds(MOST_BYTES), Ok(()));
        assert_eq!(in_bounds(MOST_BYTES + 1).unwrap_err().kind(), StoreErrorKind::Refused);
    }
}
