//! An entry as the file holds it.
//!
//! ```text
//! 0   version        1
//! 1   state          one of those below, with 0x80 if the grant took over
//! 2   expires        microseconds, as all times
//! 10  token
//! 18  fence
//! 26  attempt        4 bytes
//! 30  digest         32 bytes
//! 62  since, deadline if it is held; the answer if it is finished, and no tombstone
//! ```
//!
//! Numbers are little-endian. No two byte strings mean one entry.

use crate::confirm::Token;
use crate::confirm::claims::{Digest, Ending, Entry, Fence, Grant, Outcome, State};
use crate::time::Timestamp;

const VERSION: u8 = 1;

/// What every entry begins with.
pub(super) const HEAD_BYTES: usize = 62;

const FREE: u8 = 0;
const HELD: u8 = 1;
const SUCCESS: u8 = 2;
const FAILURE: u8 = 3;
const SUCCESS_TOMBSTONE: u8 = 4;
const FAILURE_TOMBSTONE: u8 = 5;

const IS_TAKEOVER: u8 = 0x80;

/// An entry's bytes.
pub(super) fn encode(entry: &Entry) -> Vec<u8> {
    let answer = answer_of(&entry.state);
    let mut bytes = Vec::with_capacity(HEAD_BYTES + 16 + answer.len());
    bytes.push(VERSION);
    bytes.push(state_of(&entry.state) | if entry.grant.is_takeover { IS_TAKEOVER } else { 0 });
    bytes.extend(entry.expires.as_micros().to_le_bytes());
    bytes.extend(entry.token.number().to_le_bytes());
    bytes.extend(entry.grant.fence.number().to_le_bytes());
    bytes.extend(entry.grant.attempt.to_le_bytes());
    bytes.extend(entry.digest.as_bytes());
    if let State::Held { since, deadline } = entry.state {
        bytes.extend(since.as_micros().to_le_bytes());
        bytes.extend(deadline.as_micros().to_le_bytes());
    }
    bytes.extend(answer);
    bytes
}

/// Reads what [`encode`] wrote; `None` if that is not what it is.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Entry> {
    let [VERSION, tag] = take(&mut bytes)? else { return None };
    let expires = take_time(&mut bytes)?;
    let token = Token::new(u64::from_le_bytes(take(&mut bytes)?));
    let fence = Fence::new(u64::from_le_bytes(take(&mut bytes)?));
    let attempt = u32::from_le_bytes(take(&mut bytes)?);
    let digest = Digest::from_bytes(take(&mut bytes)?);
    let grant = Grant { fence, attempt, is_takeover: tag & IS_TAKEOVER != 0 };
    let state = decode_state(tag & !IS_TAKEOVER, bytes)?;
    Some(Entry { digest, token, grant, state, expires })
}

/// When an entry expires, of its bytes alone.
pub(super) fn expires(mut bytes: &[u8]) -> Option<Timestamp> {
    let [VERSION, _] = take(&mut bytes)? else { return None };
    take_time(&mut bytes)
}

fn decode_state(tag: u8, mut rest: &[u8]) -> Option<State> {
    let state = match tag {
        SUCCESS => return Some(State::Finished(Outcome::success(rest))),
        FAILURE => return Some(State::Finished(Outcome::failure(rest))),
        SUCCESS_TOMBSTONE => State::Finished(Outcome::tombstone(Ending::Success)),
        FAILURE_TOMBSTONE => State::Finished(Outcome::tombstone(Ending::Failure)),
        HELD => {
            let since = take_time(&mut rest)?;
            State::Held { since, deadline: take_time(&mut rest)? }
        }
        FREE => State::Free,
        _ => return None,
    };
    rest.is_empty().then_some(state)
}

fn state_of(state: &State) -> u8 {
    let State::Finished(outcome) = state else {
        return if matches!(state, State::Free) { FREE } else { HELD };
    };
    match (outcome.ending(), outcome.bytes()) {
        (Ending::Success, Some(_)) => SUCCESS,
        (Ending::Failure, Some(_)) => FAILURE,
        (Ending::Success, None) => SUCCESS_TOMBSTONE,
        (Ending::Failure, None) => FAILURE_TOMBSTONE,
    }
}

fn answer_of(state: &State) -> &[u8] {
    match state {
        State::Finished(outcome) => outcome.bytes().unwrap_or_default(),
        State::Held { .. } | State::Free => &[],
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// A time that can be.
fn take_time(bytes: &mut &[u8]) -> Option<Timestamp> {
    let micros = i64::from_le_bytes(take(bytes)?);
    let time = Timestamp::from_micros(micros);
    (time.as_micros() == micros).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn time() -> impl Strategy<Value = Timestamp> {
        any::<i64>().prop_map(Timestamp::from_micros)
    }

    fn state() -> impl Strategy<Value = State> {
        let answer = || prop::collection::vec(any::<u8>(), 0..40);
        prop_oneof![
            Just(State::Free),
            (time(), time()).prop_map(|(since, deadline)| State::Held { since, deadline }),
            answer().prop_map(|bytes| State::Finished(Outcome::success(bytes))),
            answer().prop_map(|bytes| State::Finished(Outcome::failure(bytes))),
            Just(State::Finished(Outcome::tombstone(Ending::Success))),
            Just(State::Finished(Outcome::tombstone(Ending::Failure))),
        ]
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let grant = (any::<u64>(), any::<u32>(), any::<bool>());
        (any::<[u8; 32]>(), any::<u64>(), grant, state(), time()).prop_map(
            |(digest, token, (fence, attempt, is_takeover), state, expires)| Entry {
                digest: Digest::from_bytes(digest),
                token: Token::new(token),
                grant: Grant { fence: Fence::new(fence), attempt, is_takeover },
                state,
                expires,
            },
        )
    }

    /// Any bytes are one entry's, or none's.
    fn assert_decided(bytes: &[u8]) {
        match decode(bytes) {
            Some(entry) => {
                assert_eq!(expires(bytes), Some(entry.expires));
                assert_eq!(encode(&entry), bytes);
            }
            None => drop(expires(bytes)),
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(entry in entry()) {
            let bytes = encode(&entry);
            prop_assert_eq!(expires(&bytes), Some(entry.expires));
            prop_assert_eq!(decode(&bytes), Some(entry));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(
            tag in 0_u8..8,
            rest in prop::collection::vec(any::<u8>(), 0..120),
        ) {
            assert_decided(&rest);
            assert_decided(&[&[VERSION, tag], &*rest].concat());
        }

        #[test]
        fn a_flipped_bit_or_a_cut_is_told_or_means_another_entry(
            entry in entry(),
            bit in any::<prop::sample::Index>(),
            length in any::<prop::sample::Index>(),
        ) {
            let mut bytes = encode(&entry);
            assert_decided(&bytes[..length.index(bytes.len())]);
            let bit = bit.index(8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(decode(&bytes), Some(entry));
            assert_decided(&bytes);
        }
    }

    #[test]
    fn entries_of_other_versions_are_not_guessed_at() {
        let held = Entry {
            digest: Digest::of(b""),
            token: Token::new(1),
            grant: Grant { fence: Fence::new(1), attempt: 1, is_takeover: false },
            state: State::Free,
            expires: Timestamp::from_secs(1),
        };
        let mut bytes = encode(&held);
        assert_eq!(bytes.len(), HEAD_BYTES);
        bytes[0] = VERSION + 1;
        assert_eq!((decode(&bytes), expires(&bytes)), (None, None));
    }
}
