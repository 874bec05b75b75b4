//! What is kept of a key, as bytes: what was last said of it, and what its name does not
//! say.

use hapax::confirm::{Bucket, Record, Token};

/// What was last said of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Record(Record),
    Forgotten,
}

impl Value {
    /// Bytes that each takes.
    pub(super) const BYTES: usize = 17;

    pub(super) const fn record(self) -> Option<Record> {
        match self {
            Self::Record(record) => Some(record),
            Self::Forgotten => None,
        }
    }

    /// Whether there is a record, its bucket and its token.
    pub(super) fn encode(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        if let Self::Record(record) = self {
            bytes[0] = 1;
            bytes[1..9].copy_from_slice(&record.bucket.number().to_le_bytes());
            bytes[9..].copy_from_slice(&record.token.number().to_le_bytes());
        }
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote from the beginning of what is kept; and
    /// the rest. `None` if that is not what it is.
    pub(super) fn decode(kept: &[u8]) -> Option<(Self, &[u8])> {
        let (bytes, rest) = kept.split_first_chunk::<{ Self::BYTES }>()?;
        let (&is_record, bytes) = bytes.split_first()?;
        let (bucket, token) = bytes.split_first_chunk()?;
        let token = u64::from_le_bytes(token.try_into().ok()?);
        let bucket = Bucket::new(i64::from_le_bytes(*bucket));
        match is_record {
            0 => Some((Self::Forgotten, rest)),
            1 => Some((Self::Record(Record { bucket, token: Token::new(token) }), rest)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let record = Record { bucket: Bucket::new(-3), token: Token::new(u64::MAX) };
        for value in [Value::Record(record), Value::Forgotten] {
            assert_eq!(Value::decode(&value.encode()), Some((value, &[][..])));
            let kept = [&value.encode()[..], b"rest"].concat();
            assert_eq!(Value::decode(&kept), Some((value, &b"rest"[..])));
        }
        assert_eq!(Value::decode(&[1; 16]), None);
        assert_eq!(Value::decode(&[2; 17]), None);
        assert_eq!(Value::decode(&[]), None);
    }
}
