//! Any headers and bodies through the HTTP layer, against a naive model.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::{LazyLock, Mutex};

#[path = "../../tests/http/inputs.rs"]
mod inputs;

/// Kept from input to input: what a key came with before matters.
static SUBJECT: LazyLock<Mutex<inputs::Subject>> =
    LazyLock::new(|| Mutex::new(inputs::Subject::new()));

fuzz_target!(|input: &[u8]| {
    SUBJECT.lock().expect("an earlier input failed").feed_bytes(input);
});
