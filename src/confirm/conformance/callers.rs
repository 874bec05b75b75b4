//! Many callers who begin at once.

use super::report::{Checked, Unmet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::thread;

/// How many callers race.
pub(super) const CALLERS: usize = 64;

/// What each caller's call came to in each round, by caller. `call` is given the
/// caller's number and the round's.
pub(super) fn all_at_once<T: Send>(
    rounds: usize,
    call: impl Fn(usize, usize) -> Checked<T> + Sync,
) -> Checked<Vec<Vec<T>>> {
    let start = Barrier::new(CALLERS);
    let in_rounds = |caller| {
        let mut results = Ok(Vec::with_capacity(rounds));
        for round in 0..rounds {
            // All at once, each time: a caller that is ahead meets nobody. So one
            // that fails must come along, too.
            start.wait();
            let result = catch_unwind(AssertUnwindSafe(|| call(caller, round)));
            let result = result.unwrap_or_else(|_| Err(panicked()));
            results = results.and_then(|mut results| {
                results.push(result?);
                Ok(results)
            });
        }
        results
    };
    let in_rounds = &in_rounds;
    thread::scope(|scope| {
        let callers: Vec<_> =
            (0..CALLERS).map(|caller| scope.spawn(move || in_rounds(caller))).collect();
        callers.into_iter().map(|caller| caller.join().map_err(|_| panicked())?).collect()
    })
}

fn panicked() -> Unmet {
    Unmet::Failed("the store panicked".to_owned())
}
