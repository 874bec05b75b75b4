//! Any headers and bodies through the HTTP layer, against the naive model of its tests.

#[path = "../../../tests/http/inputs.rs"]
#[expect(dead_code, reason = "the fuzz target has raw bytes, too")]
mod inputs;

use crate::Options;
use crate::keys::mixed;
use crate::report::{Report, Status, grouped};
use inputs::Subject;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

const FULL_INPUTS: u64 = 10_000_000;
const SHORT_INPUTS: u64 = 100_000;
const THREADS: u64 = 2;

/// Characters that mean something to somebody, so that inputs come far.
const HEADER_BYTES: &[u8] = b"ab\"\"\\;, =?:1\t\x80'";

pub(super) fn measure(&Options { full, .. }: &Options, report: &mut Report) {
    let inputs = if full { FULL_INPUTS } else { SHORT_INPUTS };
    let what = format!("{} headers and bodies through the layer", grouped(inputs));
    report.take(&what, "0 panics, 0 wrong statuses", || {
        let wrong: u64 = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| scope.spawn(move || wrong(thread, inputs / THREADS)))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("panics are caught")).sum()
        });
        let figure = format!("{} panics or wrong statuses", grouped(wrong));
        Ok((figure, Status::of_run(wrong == 0, !full)))
    });
}

/// How many of so many inputs did not get what the model says: it panics then, as the layer may.
fn wrong(seed: u64, inputs: u64) -> u64 {
    let mut subject = Subject::new();
    let mut wrong = 0;
    for number in 0..inputs {
        let mut random = Random(mixed(number ^ (seed << 48)));
        let count = [1, 1, 1, 1, 1, 1, 0, 2][random.below(8)];
        let headers: Vec<_> = (0..count).map(|_| header(&mut random)).collect();
        let keys: Vec<_> = headers.iter().map(Vec::as_slice).collect();
        let body = body(&mut random);
        if catch_unwind(AssertUnwindSafe(|| subject.feed(&keys, &body))).is_err() {
            wrong += 1;
            subject = Subject::new();
        }
    }
    wrong
}

fn header(random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0 => (0..random.below(40)).map(|_| random.next() as u8).collect(),
        1 => vec![b'k'; 250 + random.below(12)],
        2 => [b"\"", vec![b'k'; 250 + random.below(12)].as_slice(), b"\""].concat(),
        3 | 4 => format!("key-{}", random.below(1_000)).into_bytes(),
        5 => format!("\"key-{}\"", random.below(1_000)).into_bytes(),
        _ => (0..random.below(8)).map(|_| HEADER_BYTES[random.below(HEADER_BYTES.len())]).collect(),
    }
}

fn body(random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0 => (0..60 + random.below(10)).map(|_| random.next() as u8).collect(),
        _ => (0..random.below(2)).map(|_| b"ab"[random.below(2)]).collect(),
    }
}

/// Numbers that follow from the first.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = mixed(self.0.wrapping_add(1));
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_and_the_layer_agree() {
        assert_eq!(wrong(7, 2_000), 0);
    }
}
