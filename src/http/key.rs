//! What a client calls its operation.

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Item, Parser};
use std::fmt;
use thiserror::Error;

/// The longest key, in bytes, as Stripe has it.
const MAX_BYTES: usize = 255;

/// The header.
pub(super) const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// The key that a request came with: 1 to 255 visible ASCII characters, and spaces if it was
/// quoted.
///
/// The draft wants a *string* of [RFC 9651]: quoted, with `\"` and `\\` for a quote and a
/// backslash. Most clients send the key bare; that is taken, too, and both spellings are one
/// key. Parameters after a quoted key mean nothing.
///
/// ```
/// use hapax::http::IdempotencyKey;
///
/// let quoted = IdempotencyKey::parse(br#""8e03978e-40d5""#)?;
/// assert_eq!(quoted, IdempotencyKey::parse(b"8e03978e-40d5")?);
/// assert_eq!(quoted.as_str(), "8e03978e-40d5");
/// assert!(IdempotencyKey::parse(b"two, keys").is_err());
/// # Ok::<_, hapax::http::KeyError>(())
/// ```
///
/// [RFC 9651]: https://www.rfc-editor.org/rfc/rfc9651#name-strings
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// Why a request's key cannot be taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There are several headers.
    #[error("the request has {0} Idempotency-Key headers: send one")]
    Several(usize),
    /// There is nothing in it.
    #[error("the Idempotency-Key is empty: send 1 to {MAX_BYTES} characters")]
    Empty,
    /// It is too long.
    #[error("the Idempotency-Key has {0} characters: send {MAX_BYTES} at most, such as a UUID")]
    TooLong(usize),
    /// It is bare, and has a character that only a quoted one may have, or none.
    #[error(
        "the Idempotency-Key has a character that is not visible ASCII, a comma, or a quote: put \
         it in double quotes, with a backslash before quotes and backslashes, or send a UUID"
    )]
    Bare,
    /// It begins with a quote, and is not what RFC 9651 calls a string.
    #[error(
        "the Idempotency-Key is not a quoted string ({0}): close the quotes, put a backslash \
         before quotes and backslashes within, and use ASCII"
    )]
    Quoted(#[source] sfv::Error),
}

impl IdempotencyKey {
    /// The key among these headers; `None` if there is no such header.
    ///
    /// # Errors
    ///
    /// [`KeyError`]
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, KeyError> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(None) };
        match values.count() {
            0 => Self::parse(value.as_bytes()).map(Some),
            more => Err(KeyError::Several(more + 1)),
        }
    }

    /// Reads a header's value. Allocates once, and a second time for a quoted key.
    ///
    /// # Errors
    ///
    /// [`KeyError`]
    pub fn parse(value: &[u8]) -> Result<Self, KeyError> {
        let value = value.trim_ascii();
        let key = if value.starts_with(b"\"") { quoted(value)? } else { bare(value)? };
        match key.len() {
            0 => Err(KeyError::Empty),
            1..=MAX_BYTES => Ok(Self(key)),
            length => Err(KeyError::TooLong(length)),
        }
    }

    /// The key, without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn quoted(value: &[u8]) -> Result<String, KeyError> {
    let item: Item = Parser::new(value).parse().map_err(KeyError::Quoted)?;
    match item.bare_item {
        BareItem::String(key) => Ok(key.into()),
        // What begins with a quote is a string or an error.
        _ => Err(KeyError::Bare),
    }
}

/// A comma is refused, too: it may be two headers that a proxy has joined.
fn bare(value: &[u8]) -> Result<String, KeyError> {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',');
    if !value.iter().all(is_plain) {
        return Err(KeyError::Bare);
    }
    Ok(value.iter().copied().map(char::from).collect())
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn key(value: &str) -> Option<String> {
        IdempotencyKey::parse(value.as_bytes()).ok().map(|key| key.0)
    }

    #[test]
    fn keys_are_bare_or_quoted() {
        let longest = "k".repeat(255);
        let quoted_longest = format!("\"{longest}\"");
        for (value, expected) in [
            ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
            ("\"8e03978e-40d5\"", "8e03978e-40d5"),
            ("  k  ", "k"),
            ("  \"k\"  ", "k"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            ("\"a b, c\"", "a b, c"),
            ("\" k \"", " k "),
            ("\"k\";version=1;draft", "k"),
            ("a;b=1", "a;b=1"),
            (r"a\b", r"a\b"),
            ("'k'", "'k'"),
            ("?1", "?1"),
            (":aGk=:", ":aGk=:"),
            (&longest, &longest),
            (&quoted_longest, &longest),
        ] {
            assert_eq!(key(value).as_deref(), Some(expected), "{value}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let too_long = "k".repeat(256);
        let quoted_too_long = format!("\"{too_long}\"");
        for value in [
            "",
            "   ",
            "\"\"",
            "\"",
            "\"k",
            "k\"",
            "\"k\" \"l\"",
            "\"k\", \"l\"",
            "\"k\"l",
            "\"k\";",
            "k, l",
            "k,l",
            "k l",
            "\"\\k\"",
            "\"k\\",
            "kéy",
            "\"kéy\"",
            "a\tb",
            "\"a\tb\"",
            "\u{7f}",
            &too_long,
            &quoted_too_long,
        ] {
            assert_eq!(key(value), None, "{value:?}");
        }
    }

    #[test]
    fn one_header_alone_counts() {
        let mut headers = HeaderMap::new();
        assert!(matches!(IdempotencyKey::of(&headers), Ok(None)));
        headers.append(HEADER, HeaderValue::from_static("k"));
        assert!(matches!(IdempotencyKey::of(&headers), Ok(Some(key)) if key.as_str() == "k"));
        headers.append(HEADER, HeaderValue::from_static("k"));
        assert!(matches!(IdempotencyKey::of(&headers), Err(KeyError::Several(2))));
    }
}
