//! Answers as they are kept, and given again.
//!
//! A kept answer is a version (1 byte), the XXH3-64 of all that follows (8 bytes, little
//! endian), status and headers in [postcard]'s format, and the body. The checksum is there
//! because a store hands back bytes that have been elsewhere: on a disk, or on a network.
//!
//! [postcard]: https://postcard.jamesmunns.com/wire-format

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE,
    CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, DATE, ETAG, LAST_MODIFIED, LINK, LOCATION,
    PROXY_AUTHENTICATE, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VARY,
};
use http::response::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use std::sync::Arc;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

const VERSION: u8 = 1;

/// A version and a checksum.
const PREFIX_BYTES: usize = 9;

/// What is said of an answer's content and of what was made: true of the replay, too.
pub(super) const KEPT_HEADERS: [HeaderName; 11] = [
    CACHE_CONTROL,
    CONTENT_DISPOSITION,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_LOCATION,
    CONTENT_TYPE,
    ETAG,
    LAST_MODIFIED,
    LINK,
    LOCATION,
    VARY,
];

/// True of one answer alone, of one connection, or for one client's eyes.
const NEVER_KEPT: [HeaderName; 12] = [
    CONNECTION,
    CONTENT_LENGTH,
    DATE,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-connection"),
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    REPLAYED,
];

/// Marks an answer that was given before.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Status and headers.
type Head<'a> = (u16, Vec<(&'a str, &'a [u8])>);

/// Why a kept answer cannot be given again.
#[derive(Debug, Error)]
pub(super) enum Damaged {
    #[error("it is shorter than its checksum")]
    Short,
    #[error("it has version {0}, and this one reads {VERSION}")]
    Version(u8),
    #[error("its checksum does not match")]
    Checksum,
    #[error("its head cannot be read")]
    Head(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// True iff answers may be replayed with this header.
pub(super) fn may_keep(name: &HeaderName) -> bool {
    !NEVER_KEPT.contains(name)
}

/// The answer with those of its headers that are in `kept`; `None` if it cannot be written
/// down.
pub(super) fn encode(parts: &Parts, body: &[u8], kept: &[HeaderName]) -> Option<Vec<u8>> {
    let headers = parts.headers.iter().filter(|(name, _)| kept.contains(name));
    let headers = headers.map(|(name, value)| (name.as_str(), value.as_bytes()));
    let head: Head<'_> = (parts.status.as_u16(), headers.collect());
    let mut bytes = postcard::to_extend(&head, vec![VERSION; PREFIX_BYTES]).ok()?;
    bytes.extend_from_slice(body);
    let checksum = xxh3_64(&bytes[PREFIX_BYTES..]).to_le_bytes();
    bytes[1..PREFIX_BYTES].copy_from_slice(&checksum);
    Some(bytes)
}

/// The answer again. Its body is not copied.
pub(super) fn decode(stored: Arc<[u8]>) -> Result<Response<Full<Bytes>>, Damaged> {
    let content = content(&stored)?;
    let (head, body): (Head<'_>, &[u8]) =
        postcard::take_from_bytes(content).map_err(|error| Damaged::Head(error.into()))?;
    let mut response = response(&head).map_err(|error| Damaged::Head(error.into()))?;
    let start = stored.len() - body.len();
    *response.body_mut() = Full::new(Bytes::from_owner(stored).slice(start..));
    Ok(response)
}

fn content(stored: &[u8]) -> Result<&[u8], Damaged> {
    let (prefix, content) = stored.split_first_chunk::<PREFIX_BYTES>().ok_or(Damaged::Short)?;
    let [version, checksum @ ..] = *prefix;
    if version != VERSION {
        return Err(Damaged::Version(version));
    }
    if u64::from_le_bytes(checksum) != xxh3_64(content) {
        return Err(Damaged::Checksum);
    }
    Ok(content)
}

fn response((status, headers): &Head<'_>) -> Result<Response<Full<Bytes>>, http::Error> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::from_u16(*status)?;
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes())?;
        response.headers_mut().append(name, HeaderValue::from_bytes(value)?);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::confirm::at_once;
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    fn kept(status: u16, headers: &[(HeaderName, &str)], body: &[u8]) -> Vec<u8> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            response.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
        }
        encode(&response.into_parts().0, body, &KEPT_HEADERS).unwrap()
    }

    fn sample() -> Vec<u8> {
        let headers = [(LOCATION, "/charges/7"), (LINK, "</a>"), (LINK, "</b>"), (DATE, "today")];
        kept(201, &headers, b"charged")
    }

    #[test]
    fn an_answer_is_given_as_it_was_kept() {
        let response = decode(sample().into()).unwrap();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()[LOCATION], "/charges/7");
        assert_eq!(response.headers().get_all(LINK).iter().collect::<Vec<_>>(), ["</a>", "</b>"]);
        assert_eq!(response.headers().len(), 3);
        let body = at_once(response.into_body().collect()).unwrap().to_bytes();
        assert_eq!(body, b"charged".as_slice());
    }

    /// The format is a promise to all who read what an earlier version kept.
    #[test]
    fn the_format_is_this() {
        let bytes = kept(200, &[(CONTENT_TYPE, "text/plain")], b"hi");
        assert_eq!(bytes[0], 1);
        assert_eq!(&bytes[PREFIX_BYTES..], b"\xc8\x01\x01\x0ccontent-type\x0atext/plainhi");
        assert_eq!(&bytes[1..PREFIX_BYTES], xxh3_64(&bytes[PREFIX_BYTES..]).to_le_bytes());
    }

    #[test]
    fn any_flipped_bit_and_any_missing_byte_is_noticed() {
        let sample = sample();
        for bit in 0..sample.len() * 8 {
            let mut damaged = sample.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(damaged.into()).is_err(), "bit {bit}");
        }
        for length in 0..sample.len() {
            assert!(decode(sample[..length].into()).is_err(), "{length} bytes");
        }
    }

    proptest! {
        /// Also where the checksum agrees, as it does for whoever can write to the store.
        #[test]
        fn nothing_makes_the_decoder_panic(content in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = vec![VERSION];
            bytes.extend_from_slice(&xxh3_64(&content).to_le_bytes());
            bytes.extend_from_slice(&content);
            let _ = decode(bytes.into());
        }
    }
}
