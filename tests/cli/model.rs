//! What the tool should do, said as plainly as possible.

use std::collections::{HashMap, HashSet};

/// A record with its terminator, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) content: Vec<u8>,
    pub(crate) terminator: Vec<u8>,
    /// Unquoted fields; empty for plain lines.
    pub(crate) fields: Vec<Vec<u8>>,
}

/// Cuts a file into plain lines.
pub(crate) fn lines(file: &[u8], terminator: u8) -> Vec<Record> {
    let mut records = Vec::new();
    let mut content = Vec::new();
    for &byte in file {
        if byte == terminator {
            let content = std::mem::take(&mut content);
            records.push(Record { content, terminator: vec![byte], fields: Vec::new() });
        } else {
            content.push(byte);
        }
    }
    if !content.is_empty() {
        records.push(Record { content, terminator: Vec::new(), fields: Vec::new() });
    }
    records
}

/// Joins records to a file, with a separator wherever one without terminator
/// is followed by another.
pub(crate) fn join<'a>(records: impl IntoIterator<Item = &'a Record>, separator: u8) -> Vec<u8> {
    let mut file = Vec::new();
    let mut is_open = false;
    for record in records {
        if is_open {
            file.push(separator);
        }
        file.extend_from_slice(&record.content);
        file.extend_from_slice(&record.terminator);
        is_open = record.terminator.is_empty();
    }
    file
}

/// First sightings and later ones.
pub(crate) fn split(
    records: &[Record],
    key: impl Fn(&Record) -> Vec<Vec<u8>>,
) -> (Vec<&Record>, Vec<&Record>) {
    let mut seen = HashSet::new();
    records.iter().partition(|record| seen.insert(key(record)))
}

/// A window over event time, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) span: i64,
    pub(crate) buckets: i64,
    pub(crate) lateness: i64,
    pub(crate) is_sliding: bool,
}

/// A verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sighting {
    First,
    Again,
    Late,
}

/// The verdict on each of `events`, keys and their times.
pub(crate) fn sightings<K: Clone + Eq + std::hash::Hash>(
    events: &[(K, i64)],
    window: Window,
) -> Vec<Sighting> {
    let width = (window.span + window.buckets - 1) / window.buckets;
    let mut recorded: HashMap<K, i64> = HashMap::new();
    let mut largest = i64::MIN;
    let mut verdicts = Vec::new();
    for (key, time) in events {
        largest = largest.max(*time);
        let bucket = time.div_euclid(width);
        if bucket < (largest - window.lateness).div_euclid(width) {
            verdicts.push(Sighting::Late);
            continue;
        }
        let known = recorded.get(key).copied();
        if known.is_some_and(|known| bucket - known <= window.buckets) {
            if window.is_sliding {
                recorded.insert(key.clone(), bucket.max(known.unwrap_or(bucket)));
            }
            verdicts.push(Sighting::Again);
        } else {
            recorded.insert(key.clone(), bucket);
            verdicts.push(Sighting::First);
        }
    }
    verdicts
}
