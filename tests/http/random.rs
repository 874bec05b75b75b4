//! Random requests against the naive model.

use crate::inputs::Subject;
use proptest::prelude::*;

/// Few characters, so that keys meet, and those that mean something.
fn header() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(b"ab\"\"\\;, =?:1\t\x80'".to_vec());
    prop_oneof![
        4 => prop::collection::vec(byte, 0..8),
        4 => "\"[ab\\\\]{0,4}\"(;[ab](=[?:1a@%\"]{0,3})?)?".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => "\"?a{250,260}\"?".prop_map(String::into_bytes),
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => prop::collection::vec(prop::sample::select(b"ab".to_vec()), 0..2),
        1 => prop::collection::vec(any::<u8>(), 60..70),
    ]
}

proptest! {
    #[test]
    fn any_requests_get_what_the_model_says(
        requests in prop::collection::vec(
            (prop_oneof![1 => Just(0), 12 => Just(1), 1 => Just(2usize)], [header(), header()], body()),
            0..200,
        ),
    ) {
        let mut subject = Subject::new();
        for (count, headers, body) in &requests {
            let keys: Vec<_> = headers.iter().take(*count).map(Vec::as_slice).collect();
            subject.feed(&keys, body);
        }
    }

    #[test]
    fn any_bytes_get_what_the_model_says(
        inputs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
    ) {
        let mut subject = Subject::new();
        for input in &inputs {
            subject.feed_bytes(input);
        }
    }
}

/// Each kind of answer is among what the model is asked.
#[test]
fn the_inputs_say_what_they_are_to_say() {
    let mut subject = Subject::new();
    let long = [b'x'; 65];
    for (keys, body) in [
        (&[b"k".as_slice()][..], b"body".as_slice()),
        (&[b"\"k\""], b"body"),
        (&[b"k"], b"other"),
        (&[b"k"], &long),
        (&[b"k", b"k"], b"body"),
        (&[], b"body"),
        (&[b"\""], b"body"),
    ] {
        subject.feed(keys, body);
    }
    subject.feed_bytes(b"\x01k\nbody");
    subject.feed_bytes(b"\x02k\nk");
    subject.feed_bytes(b"");
}
