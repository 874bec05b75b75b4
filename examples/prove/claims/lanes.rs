//! Work side by side, each lane with its share of the numbers.

use crate::Failure;
use std::thread;

/// So many workers live and die side by side.
const LANES: u64 = 8;

/// What `work` gives for each of the numbers below `count`, told its lane.
pub(super) fn each<T: Send>(
    count: u64,
    work: impl Fn(u64, u64) -> Result<T, Failure> + Sync,
) -> Result<Vec<T>, Failure> {
    let done = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                let (work, numbers) = (&work, (lane..count).step_by(LANES as usize));
                scope.spawn(move || {
                    let done = numbers.map(|number| work(lane, number));
                    done.collect::<Result<Vec<_>, _>>().map_err(|failure| failure.to_string())
                })
            })
            .collect();
        let lanes = lanes.into_iter().map(|lane| lane.join().expect("a lane does not panic"));
        lanes.collect::<Result<Vec<_>, _>>()
    })?;
    Ok(done.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_worked_on_once_and_a_failure_is_told() {
        let mut numbers = each(100, |lane, number| Ok((number, lane))).unwrap();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq((0..100).map(|number| (number, number % LANES))));
        let failing = each(100, |_, number| if number == 7 { Err("7".into()) } else { Ok(()) });
        assert_eq!(failing.unwrap_err().to_string(), "7");
    }
}
