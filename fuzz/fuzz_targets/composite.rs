//! Composite keys are injective, and can be read back part by part.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|lists: (Vec<Vec<u8>>, Vec<Vec<u8>>)| {
    let (ours, theirs) = lists;
    let key = hapax::composite(&ours);
    assert_eq!(ours == theirs, key == hapax::composite(&theirs));
    assert_eq!(parts(&key), ours);
});

/// Reads a composite key back: the documented encoding, each part's length in
/// LEB128 and then the part.
fn parts(mut key: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    while !key.is_empty() {
        let mut length = 0;
        for shift in (0..).step_by(7) {
            let (&byte, rest) = key.split_first().expect("a length ends");
            key = rest;
            length |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        let (part, rest) = key.split_at(length);
        parts.push(part.to_vec());
        key = rest;
    }
    parts
}
