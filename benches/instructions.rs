//! How many instructions a check takes: the gate against slow decay, because a
//! count is the same on a busy machine. `scripts/instructions` runs it and
//! compares.
//!
//! Every case checks [`KEYS`] keys of 16 bytes against a window that holds as
//! many; only the checks are counted.

#![expect(missing_docs, reason = "gungraun's macros make public modules")]

use gungraun::{Callgrind, LibraryBenchmarkConfig};
use gungraun::{library_benchmark, library_benchmark_group, main};
use hapax::{Deduper, ManualClock, Mode, Timestamp, Verdict, Window};
use std::hint::black_box;
use std::time::Duration;

const KEYS: u64 = 16_384;

type Key = [u8; 16];

/// How keys are hashed.
#[derive(Clone, Copy)]
enum Hash {
    Keyed,
    Trusted,
}

/// Of ten keys, how many were seen before.
type SeenOfTen = u64;

/// A full window, and the keys that are to be checked.
struct Case {
    dedup: Deduper,
    keys: Vec<Key>,
    verdicts: Vec<Verdict>,
}

fn prepare(mode: Mode, hash: Hash, seen: SeenOfTen) -> Case {
    let builder = Deduper::builder(Window::fixed(Duration::from_secs(600)))
        .capacity(2 * KEYS)
        .mode(mode)
        .hash_secret([7; 32])
        .clock(ManualClock::new(Timestamp::from_secs(1_000_000)));
    let builder = match hash {
        Hash::Keyed => builder,
        Hash::Trusted => builder.trusted_keys(),
    };
    let dedup = builder.build().expect("a valid configuration");
    let known: Vec<Key> = (0..KEYS).map(key).collect();
    let mut verdicts = vec![Verdict::Late; known.len()];
    dedup.check_batch(&known, &mut verdicts).expect("no limit is set");
    let is_seen = |number: u64| number % 10 < seen;
    let number = |number: u64| if is_seen(number) { number } else { KEYS + number };
    Case { dedup, keys: (0..KEYS).map(number).map(key).collect(), verdicts }
}

/// Numbers far apart, so that all bytes differ.
fn key(number: u64) -> Key {
    u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_le_bytes()
}

#[library_benchmark(setup = prepare)]
#[bench::fingerprint_keyed_new(Mode::fingerprint(), Hash::Keyed, 0)]
#[bench::fingerprint_keyed_half(Mode::fingerprint(), Hash::Keyed, 5)]
#[bench::fingerprint_keyed_duplicates(Mode::fingerprint(), Hash::Keyed, 10)]
#[bench::fingerprint_trusted_new(Mode::fingerprint(), Hash::Trusted, 0)]
#[bench::fingerprint_trusted_half(Mode::fingerprint(), Hash::Trusted, 5)]
#[bench::fingerprint_trusted_duplicates(Mode::fingerprint(), Hash::Trusted, 10)]
#[bench::verified_keyed_new(Mode::verified(), Hash::Keyed, 0)]
#[bench::verified_keyed_half(Mode::verified(), Hash::Keyed, 5)]
#[bench::verified_keyed_duplicates(Mode::verified(), Hash::Keyed, 10)]
#[bench::verified_trusted_new(Mode::verified(), Hash::Trusted, 0)]
#[bench::verified_trusted_half(Mode::verified(), Hash::Trusted, 5)]
#[bench::verified_trusted_duplicates(Mode::verified(), Hash::Trusted, 10)]
fn check_batch(mut case: Case) -> Case {
    let checked = case.dedup.check_batch(black_box(&case.keys), &mut case.verdicts);
    black_box(checked).expect("no limit is set");
    case
}

#[library_benchmark(setup = prepare)]
#[bench::fingerprint_keyed_duplicates(Mode::fingerprint(), Hash::Keyed, 10)]
fn check(case: Case) -> Case {
    for key in black_box(&case.keys) {
        let _ = black_box(case.dedup.check(key));
    }
    case
}

library_benchmark_group!(name = checks, benchmarks = [check_batch, check]);

main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args(["--cache-sim=no"])),
    library_benchmark_groups = checks
);
