//! JSON values as key bytes: two values are one key iff these bytes are equal.
//!
//! A tag tells the kinds apart. Strings count by their decoded value, numbers
//! and the rest as written, arrays by their items in order, objects by their
//! members whatever the order; of equal members the last counts.

use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Deep enough for any real key; each level costs stack.
const DEEPEST: u32 = 128;

/// Why a value makes no key.
#[derive(Debug)]
pub(crate) enum NoKey {
    /// It is nested more than [`DEEPEST`] levels.
    TooDeep,
    /// A string in it cannot be decoded.
    NotJson(serde_json::Error),
}

impl From<serde_json::Error> for NoKey {
    fn from(error: serde_json::Error) -> Self {
        Self::NotJson(error)
    }
}

/// Appends the key bytes of `value`, which is one JSON value without space
/// around it.
pub(crate) fn push_key(value: &str, key: &mut Vec<u8>) -> Result<(), NoKey> {
    push_nested(value, key, DEEPEST)
}

fn push_nested(value: &str, key: &mut Vec<u8>, levels: u32) -> Result<(), NoKey> {
    match value.as_bytes().first() {
        Some(b'"') => push(b's', decode(value)?.as_bytes(), key),
        Some(b'[') => push(b'a', &items(value, levels)?, key),
        Some(b'{') => push(b'o', &members(value, levels)?, key),
        _ => push(b'v', value.as_bytes(), key),
    }
    Ok(())
}

fn push(tag: u8, bytes: &[u8], key: &mut Vec<u8>) {
    key.push(tag);
    key.extend_from_slice(bytes);
}

/// The text of a JSON string.
pub(crate) fn decode(string: &str) -> serde_json::Result<Cow<'_, str>> {
    match string.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inside) if !inside.contains('\\') => Ok(Cow::Borrowed(inside)),
        _ => serde_json::from_str(string).map(Cow::Owned),
    }
}

fn items(array: &str, levels: u32) -> Result<Vec<u8>, NoKey> {
    let items: Vec<&RawValue> = serde_json::from_str(array)?;
    let keys: Vec<Vec<u8>> =
        items.into_iter().map(|item| nested(item, levels)).collect::<Result<_, _>>()?;
    Ok(hapax::composite(&keys))
}

fn members(object: &str, levels: u32) -> Result<Vec<u8>, NoKey> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(object)?;
    let mut keys = Vec::with_capacity(members.len() * 2);
    for (name, value) in members {
        keys.push(name.into_bytes());
        keys.push(nested(value, levels)?);
    }
    Ok(hapax::composite(&keys))
}

fn nested(value: &RawValue, levels: u32) -> Result<Vec<u8>, NoKey> {
    let mut key = Vec::new();
    push_nested(value.get(), &mut key, levels.checked_sub(1).ok_or(NoKey::TooDeep)?)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: &str) -> Vec<u8> {
        let mut key = Vec::new();
        push_key(value, &mut key).unwrap();
        key
    }

    #[test]
    fn equal_values_are_one_key() {
        assert_eq!(key(r#""\u0041""#), key(r#""A""#));
        assert_eq!(key(r#"{"a": 1, "b": [2, {}]}"#), key(r#"{"b":[2,{ }],"\u0061":1}"#));
        assert_eq!(key(r#"{"a": 1, "a": 2}"#), key(r#"{"a": 2}"#));
    }

    #[test]
    fn different_values_are_different_keys() {
        let values = [
            "1",
            "1.0",
            "1e0",
            "-1",
            r#""1""#,
            "true",
            r#""true""#,
            "[]",
            "{}",
            "[1]",
            "[1,1]",
            "[[1],1]",
            r#"["1"]"#,
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":{"b":1}}"#,
            r#"{"a":null}"#,
            r#""[]""#,
            r#""""#,
        ];
        for (index, one) in values.iter().enumerate() {
            for other in &values[index + 1..] {
                assert_ne!(key(one), key(other), "{one} {other}");
            }
        }
    }

    #[test]
    fn deep_values_are_refused() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(push_key(&deep, &mut Vec::new()), Err(NoKey::TooDeep)));
    }
}
