//! When each shard grows: never all at once.
//!
//! Keys are spread evenly, so shards of one pace would all grow at the same
//! time: for a twelfth of the time between two growths each new key would pay
//! for moving a dozen others, and at a million new keys a second a queue would
//! form.

use std::iter::successors;

/// Live keys per page of 448 slots at which shards grow: between 334 and 365
/// (0.75 to 0.82). Beyond about 0.85 the stash would fill.
const LEAST_LOAD: u32 = 334;
const LOADS: u64 = 32;

/// The sizes that a shard grows to, from this one on, are its own: that plus
/// none to three pages, and then a quarter more at each step. Neighbouring sizes
/// are 5 to 6 % apart, less than the loads, so at any time equally many shards
/// grow.
const FIRST_OWN: u32 = 16;
const WAYS: u64 = 4;

/// One shard's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    load: u16,
    lead: u16,
}

impl Pace {
    /// That of shard `number` of `count`. Neighbours have about the same, as
    /// their new pages share huge pages, which are resident whole once a single
    /// shard has come to them.
    pub(super) fn of(number: u32, count: u32) -> Self {
        let place = u64::from(number) * WAYS * LOADS / u64::from(count);
        Self { load: LEAST_LOAD as u16 + (place % LOADS) as u16, lead: (place / LOADS) as u16 }
    }

    /// The live keys for which so many pages have room.
    pub(super) const fn room(self, pages: u32) -> u32 {
        pages * self.load as u32
    }

    /// The size to grow to from `pages`: about a quarter more, whatever size the
    /// shard shrank to before.
    pub(super) fn after(self, pages: u32) -> u32 {
        let next = a_quarter_more(pages);
        if next < FIRST_OWN {
            return next;
        }
        successors(Some(FIRST_OWN + u32::from(self.lead)), |own| Some(a_quarter_more(*own)))
            .find(|own| *own > pages + pages / 8)
            .unwrap_or(next)
    }
}

const fn a_quarter_more(pages: u32) -> u32 {
    if pages < 4 { pages + 1 } else { pages + pages / 4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shards that grow while the keys of all become a percent more.
    fn growing_at(keys_per_shard: u32, paces: &[Pace]) -> usize {
        let grows = |pace: &&Pace| {
            let sizes = successors(Some(1), |size| Some(pace.after(*size)));
            let mut rooms = sizes.map(|size| pace.room(size));
            let first = rooms.find(|room| *room >= keys_per_shard).expect("sizes grow");
            first < keys_per_shard + keys_per_shard / 100
        };
        paces.iter().filter(grows).count()
    }

    #[test]
    fn shards_do_not_grow_all_at_once() {
        let paces: Vec<_> = (0..1_024).map(|number| Pace::of(number, 1_024)).collect();
        for keys in (8_000..1_000_000).step_by(7_777) {
            let share = growing_at(keys, &paces);
            assert!(share < 1_024 / 7, "{share} of 1,024 grow at {keys} keys a shard");
        }
    }

    #[test]
    fn a_step_is_an_eighth_to_a_half() {
        for pace in [Pace::of(0, 16), Pace::of(15, 16)] {
            for size in 4..2_000 {
                let step = pace.after(size) - size;
                assert!((size / 8..=size / 2).contains(&step), "{step} from {size}");
            }
        }
    }
}
