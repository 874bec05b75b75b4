//! What is asked about a batch of keys, as commands, and what the replies say.

use super::failure::senseless;
use super::name::slot;
use super::script::{Naming, Script};
use crate::confirm::{Answer, Bucket, Record, Rule, Sighting, StoreError, Token};
use redis::{Cmd, Value};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("script.lua")));

/// At most so many keys go into one call: the server does nothing else
/// meanwhile, some 3 ms on a small virtual machine. Lua's stack holds 8,000.
const CALL_KEYS: usize = 1_024;

/// And at most so many bytes of names, unless one alone is longer.
const CALL_BYTES: usize = 1 << 20;

/// Of an answer in a reply.
const ANSWER_BYTES: usize = 9;

/// Longer lifetimes, of some 35,000 years, would overflow the server's clock.
const LONGEST_MS: u128 = 1 << 50;

/// A batch of keys and what is to be done with them.
pub(super) struct Batch<'batch> {
    names: Vec<Vec<u8>>,
    task: Task<'batch>,
}

enum Task<'batch> {
    Confirm { sightings: &'batch [Sighting<'batch>], rule: Rule, lifetime: Option<Duration> },
    Look,
    Forget,
}

/// What a reply says of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Answer(Answer),
    Held(Option<Record>),
    Forgotten,
}

impl<'batch> Batch<'batch> {
    /// Sightings to answer; where the rule gives no lifetime, records last for
    /// `retention`.
    pub(super) fn confirm(
        prefix: &[u8],
        sightings: &'batch [Sighting<'batch>],
        rule: Rule,
        retention: Option<Duration>,
    ) -> Self {
        Self {
            names: sightings.iter().map(|sighting| [prefix, sighting.key].concat()).collect(),
            task: Task::Confirm { sightings, rule, lifetime: rule.max_lifetime().or(retention) },
        }
    }

    /// Keys to look for.
    pub(super) fn look(prefix: &[u8], keys: &[&[u8]]) -> Self {
        Self { names: names(prefix, keys), task: Task::Look }
    }

    /// Keys to forget.
    pub(super) fn forget(prefix: &[u8], keys: &[&[u8]]) -> Self {
        Self { names: names(prefix, keys), task: Task::Forget }
    }

    /// The members of each slot, in their order.
    pub(super) fn by_slot(&self) -> BTreeMap<u16, Vec<usize>> {
        let mut slots = BTreeMap::<_, Vec<_>>::new();
        for (member, name) in self.names.iter().enumerate() {
            slots.entry(slot(name)).or_default().push(member);
        }
        slots
    }

    /// All members, as if they were of one slot.
    pub(super) fn undivided(&self) -> BTreeMap<u16, Vec<usize>> {
        let members: Vec<_> = (0..self.names.len()).collect();
        if members.is_empty() { BTreeMap::new() } else { BTreeMap::from([(0, members)]) }
    }

    /// How many of `members`, from the first on, go into one call.
    pub(super) fn call_len(&self, members: &[usize]) -> usize {
        let mut bytes = 0;
        let fits = |member: &&usize| {
            bytes += self.names[**member].len();
            bytes <= CALL_BYTES
        };
        members.iter().take(CALL_KEYS).take_while(fits).count().max(1)
    }

    /// What asks a server about `members`, all of one slot.
    pub(super) fn command(&self, members: &[usize], naming: Naming) -> Cmd {
        let mut command = match &self.task {
            Task::Look => redis::cmd("MGET"),
            Task::Forget => redis::cmd("UNLINK"),
            Task::Confirm { .. } => SCRIPT.about(members.len(), naming),
        };
        for member in members {
            command.arg(self.names[*member].as_slice());
        }
        if let Task::Confirm { sightings, rule, lifetime } = &self.task {
            let asked: Vec<_> =
                members.iter().flat_map(|member| encoded(&sightings[*member], *rule)).collect();
            command.arg(u8::from(rule.is_sliding())).arg(millis(*lifetime)).arg(asked);
        }
        command
    }

    /// What the reply to a command about so many members says of each.
    pub(super) fn entries(&self, members: usize, reply: &Value) -> Result<Vec<Entry>, StoreError> {
        let entries: Option<Vec<_>> = match (&self.task, reply) {
            (Task::Forget, _) => Some(vec![Entry::Forgotten; members]),
            (Task::Look, Value::Array(values)) => values.iter().map(held).collect(),
            (Task::Confirm { .. }, Value::BulkString(bytes)) => {
                bytes.chunks(ANSWER_BYTES).map(answer).collect()
            }
            _ => None,
        };
        entries
            .filter(|entries| entries.len() == members)
            .ok_or_else(|| senseless(format_args!("of {members} keys"), reply))
    }
}

fn names(prefix: &[u8], keys: &[&[u8]]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| [prefix, key].concat()).collect()
}

/// The least bucket that matches the sighting, its bucket, its token.
fn encoded(sighting: &Sighting<'_>, rule: Rule) -> [u8; 24] {
    let bucket = sighting.bucket.number();
    // As `Rule::matches`, solved for the recorded bucket.
    let least = bucket.saturating_sub(i64::from(rule.buckets()));
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&least.to_be_bytes());
    bytes[8..16].copy_from_slice(&bucket.to_be_bytes());
    bytes[16..].copy_from_slice(&sighting.token.number().to_be_bytes());
    bytes
}

fn answer(bytes: &[u8]) -> Option<Entry> {
    let (kind, bucket) = bytes.split_first()?;
    let bucket = Bucket::new(i64::from_be_bytes(bucket.try_into().ok()?));
    match kind {
        b'N' => Some(Entry::Answer(Answer::New)),
        b'S' => Some(Entry::Answer(Answer::Seen(bucket))),
        _ => None,
    }
}

fn held(value: &Value) -> Option<Entry> {
    match value {
        Value::Nil => Some(Entry::Held(None)),
        Value::BulkString(bytes) => {
            let (bucket, token) = bytes.split_first_chunk()?;
            let bucket = Bucket::new(i64::from_be_bytes(*bucket));
            let token = Token::new(u64::from_be_bytes(token.try_into().ok()?));
            Some(Entry::Held(Some(Record { bucket, token })))
        }
        _ => None,
    }
}

/// Rounded up; 0 for ever.
fn millis(lifetime: Option<Duration>) -> u64 {
    lifetime.map_or(0, |lifetime| (lifetime.as_millis() + 1).min(LONGEST_MS) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confirm::StoreErrorKind;
    use crate::time::Window;

    fn rule() -> Rule {
        Rule::of(&Window::fixed(Duration::from_secs(80)))
    }

    fn sightings(keys: &[Vec<u8>]) -> Vec<Sighting<'_>> {
        let seen = |key| Sighting { key, bucket: Bucket::new(7), token: Token::new(1) };
        keys.iter().map(|key| seen(key)).collect()
    }

    #[test]
    fn calls_are_bounded_in_keys_and_in_bytes() {
        let short = vec![b"k".to_vec(); 3_000];
        let seen = sightings(&short);
        let batch = Batch::confirm(b"", &seen, rule(), None);
        assert_eq!(batch.call_len(&(0..3_000).collect::<Vec<_>>()), CALL_KEYS);
        let long = vec![vec![b'k'; CALL_BYTES / 2]; 3];
        let seen = sightings(&long);
        let batch = Batch::confirm(b"", &seen, rule(), None);
        assert_eq!(batch.call_len(&[0, 1, 2]), 2);
        let seen = [vec![b'k'; CALL_BYTES + 1]];
        let seen = sightings(&seen);
        assert_eq!(Batch::confirm(b"", &seen, rule(), None).call_len(&[0]), 1);
    }

    #[test]
    fn replies_without_sense_are_errors() {
        let keys = [b"a".to_vec(), b"b".to_vec()];
        let seen = sightings(&keys);
        let batch = Batch::confirm(b"", &seen, rule(), None);
        let good = b"N\0\0\0\0\0\0\0\x07S\xff\xff\xff\xff\xff\xff\xff\xff".to_vec();
        let entries = batch.entries(2, &Value::BulkString(good.clone())).unwrap();
        let expected = [Answer::New, Answer::Seen(Bucket::new(-1))].map(Entry::Answer);
        assert_eq!(entries, expected);
        let unknown = [b"X".as_slice(), &good[1..]].concat();
        let short = good[1..].to_vec();
        for reply in [
            Value::Nil,
            Value::Okay,
            Value::Int(2),
            Value::Array(vec![Value::Nil, Value::Nil]),
            Value::BulkString(unknown),
            Value::BulkString(short),
            Value::BulkString(Vec::new()),
        ] {
            let kind = batch.entries(2, &reply).unwrap_err().kind();
            assert_eq!(kind, StoreErrorKind::Corrupt, "{reply:?}");
        }
    }

    #[test]
    fn looks_find_records_or_nothing() {
        let batch = Batch::look(b"", &[b"a", b"b"]);
        let own = Value::BulkString(encoded(&sightings(&[b"a".to_vec()])[0], rule())[8..].to_vec());
        let record = Record { bucket: Bucket::new(7), token: Token::new(1) };
        let entries = batch.entries(2, &Value::Array(vec![own.clone(), Value::Nil])).unwrap();
        assert_eq!(entries, [Entry::Held(Some(record)), Entry::Held(None)]);
        let short = Value::BulkString(vec![0; 15]);
        let (long, number) = (Value::BulkString(vec![0; 17]), Value::Int(2));
        for reply in [short, long, number].map(|wrong| Value::Array(vec![own.clone(), wrong])) {
            assert!(batch.entries(2, &reply).is_err(), "{reply:?}");
        }
        assert!(batch.entries(2, &Value::Array(vec![own])).is_err());
    }

    #[test]
    fn lifetimes_are_rounded_up_and_bounded() {
        assert_eq!(millis(None), 0);
        assert_eq!(millis(Some(Duration::from_nanos(1))), 1);
        assert_eq!(millis(Some(Duration::MAX)), LONGEST_MS as u64);
    }
}
