//! Sizing: from the rate asked for to lines, bits and keys in a block.
//!
//! A block is a small Bloom filter for each generation, all of them over the
//! same positions. With `n` keys of `k` bits each in a generation's `P`
//! positions, a new key's `k` positions are all taken with a probability that
//! depends on how many positions the `n k` draws have hit, which is the
//! classic occupancy problem; `hits` holds it exactly. Over the blocks of a
//! layer, `n` is Poisson distributed about the *load*, keys per block, so
//!
//! ```text
//! rate(load) = sum over n of  e^-load load^n / n!  hits(n)
//! ```
//!
//! (Putze, Sanders and Singler 2007, "Cache-, Hash- and Space-Efficient Bloom
//! Filters", section 3; they take `hits` by its mean field, which at blocks of
//! a hundred positions is a tenth too low.) A check asks all generations at
//! once, so each may have its part of the rate asked for, and within one
//! generation the layers share that part (Almeida et al. 2007, "Scalable Bloom
//! Filters"): the layer a bucket begins in gets 4/5, the next 4/45, the place
//! `i` 4 / ((4i + 1)(4i + 5)), which sums to one over any number of layers.
//! Almeida's geometric shares would either cost the first layer, which in a
//! steady stream is the only one, or starve the later ones.

use super::block::{self, DRAWS, LINE_BITS};

/// The most bits that a key sets; always a multiple of [`DRAWS`].
pub(super) const MOST_BITS: u32 = 24;

/// The most lines in a block.
const MOST_LINES: u32 = 32;

/// A block gets one more line if that saves this part of the memory: each
/// line costs a check about a cache miss's share of the memory bandwidth.
const WORTH_A_LINE: f64 = 0.12;

/// Layers of one bucket whose shares are told apart.
const PLACES: usize = 16;

/// Steps of a bisection: to a millionth of the range.
const BISECTIONS: u32 = 40;

/// The shape of a filter's blocks, and the rates that follow from their load.
#[derive(Clone, Debug)]
pub(super) struct Sizing {
    rate: f64,
    /// One bucket's share of the rate.
    share: f64,
    /// Lines in a block.
    pub(super) lines: u32,
    /// Positions in a block; each has a bit for every generation.
    pub(super) positions: u32,
    /// Bits that a key sets in its generation.
    pub(super) bits: u32,
    hits: Box<[f64]>,
    /// The load at which a layer has its share, by the layer's place among
    /// those of one bucket.
    loads: [f64; PLACES],
}

impl Sizing {
    /// The cheapest shape that keeps `rate` over `generations`.
    pub(super) fn new(rate: f64, generations: u32) -> Self {
        let share = rate / f64::from(generations);
        let Shape { lines, positions, bits, .. } =
            Shape::cheapest(share * share_of(0), generations);
        let hits = hits(positions, bits);
        let loads = std::array::from_fn(|place| load_at(&hits, share * share_of(place)));
        Self { rate, share, lines, positions, bits, hits, loads }
    }

    /// Filter memory per live key, where each bucket holds as many keys as its
    /// layer is for and the newest one half as many.
    pub(super) fn bits_per_key(&self, generations: u32) -> f64 {
        let live = (f64::from(generations) - 0.5).max(1.0);
        f64::from(self.lines * LINE_BITS) / (self.loads[0] * live)
    }

    /// The rate asked for.
    pub(super) const fn rate(&self) -> f64 {
        self.rate
    }

    /// How many keys of one bucket so many blocks may take as the bucket's
    /// layer number `place`, where `left` is left of the rate.
    pub(super) fn room(&self, place: usize, blocks: u32, left: f64) -> u32 {
        let place = place.min(PLACES - 1);
        if left < self.share * share_of(place) {
            return self.room_at(left, blocks);
        }
        (self.loads[place] * f64::from(blocks)) as u32
    }

    /// How many keys so many blocks may take to add at most `rate`.
    pub(super) fn room_at(&self, rate: f64, blocks: u32) -> u32 {
        (load_at(&self.hits, rate) * f64::from(blocks)) as u32
    }

    /// The blocks that a bucket of so many keys needs as its layer number
    /// `place`, with room for what chance sends to one shard more than to the
    /// others: five deviations, or a layer would overflow every few hours.
    pub(super) fn blocks(&self, place: usize, keys: f64) -> f64 {
        (keys + 5.0 * keys.sqrt() + 1.0) / self.loads[place.min(PLACES - 1)]
    }

    /// The rate that one generation of so many keys in so many blocks adds.
    pub(super) fn rate_of(&self, keys: u32, blocks: u32) -> f64 {
        if keys == 0 { 0.0 } else { rate_at(&self.hits, f64::from(keys) / f64::from(blocks)) }
    }
}

/// The share of a bucket's rate that its layer number `place` may use.
fn share_of(place: usize) -> f64 {
    let place = 4.0 * place as f64;
    4.0 / ((place + 1.0) * (place + 5.0))
}

/// A block's shape, and the load that it bears at some rate.
#[derive(Clone, Copy)]
struct Shape {
    lines: u32,
    positions: u32,
    bits: u32,
    load: f64,
}

impl Shape {
    /// The first number of lines of which one more would save too little.
    fn cheapest(rate: f64, generations: u32) -> Self {
        let mut shape = Self::densest(rate, generations, 1);
        for lines in 2..=MOST_LINES {
            let larger = Self::densest(rate, generations, lines);
            let saved = 1.0 - larger.lines_per_key() / shape.lines_per_key();
            if saved < WORTH_A_LINE {
                break;
            }
            shape = larger;
        }
        shape
    }

    /// The number of bits that bears the highest load, of those that whole rounds
    /// draw.
    fn densest(rate: f64, generations: u32, lines: u32) -> Self {
        let positions = block::positions(lines, generations);
        let shapes = (DRAWS as u32..=MOST_BITS).step_by(DRAWS).map(|bits| {
            let load = load_at(&mean_hits(positions, bits), rate);
            Self { lines, positions, bits, load }
        });
        shapes.max_by(|a, b| a.load.total_cmp(&b.load)).expect("there are some numbers of bits")
    }

    fn lines_per_key(&self) -> f64 {
        f64::from(self.lines) / self.load
    }
}

/// So many keys that a new one is called known almost surely.
fn most_keys(positions: u32, bits: u32) -> u32 {
    5 * positions / bits + 8
}

/// By the number of keys in a block: P(a new key's positions are all taken),
/// by the exact distribution of how many positions are.
fn hits(positions: u32, bits: u32) -> Box<[f64]> {
    let count = f64::from(positions);
    let fractions: Vec<f64> = (0..=positions).map(|taken| f64::from(taken) / count).collect();
    let mut chances = vec![0.0; positions as usize + 1];
    chances[0] = 1.0;
    let mut hits = Vec::new();
    for _ in 0..most_keys(positions, bits) {
        let powers = fractions.iter().map(|fraction| fraction.powi(bits as i32));
        hits.push(chances.iter().zip(powers).map(|(chance, power)| chance * power).sum());
        for _ in 0..bits {
            draw(&mut chances, &fractions);
        }
    }
    hits.into()
}

/// One more position is drawn: `chances[taken]` afterwards.
fn draw(chances: &mut [f64], fractions: &[f64]) {
    for taken in (1..chances.len()).rev() {
        chances[taken] =
            chances[taken] * fractions[taken] + chances[taken - 1] * (1.0 - fractions[taken - 1]);
    }
    chances[0] = 0.0;
}

/// `hits` by the mean number of positions taken: quick, and good enough to
/// compare shapes.
fn mean_hits(positions: u32, bits: u32) -> Box<[f64]> {
    let spared = (1.0 - 1.0 / f64::from(positions)).powi(bits as i32);
    let mut free = 1.0;
    let hit = |_| {
        let hit = (1.0_f64 - free).powi(bits as i32);
        free *= spared;
        hit
    };
    (0..most_keys(positions, bits)).map(hit).collect()
}

/// The rate at a load: the mean of `hits` over Poisson distributed keys.
fn rate_at(hits: &[f64], load: f64) -> f64 {
    let (mut rate, mut rest, mut chance) = (0.0, 1.0, (-load).exp());
    for (keys, hit) in hits.iter().enumerate() {
        rate += chance * hit;
        rest -= chance;
        chance *= load / (keys as f64 + 1.0);
    }
    rate + rest.max(0.0)
}

/// The load that has this rate.
fn load_at(hits: &[f64], rate: f64) -> f64 {
    let (mut low, mut high) = (0.0, hits.len() as f64);
    for _ in 0..BISECTIONS {
        let middle = f64::midpoint(low, high);
        if rate_at(hits, middle) <= rate { low = middle } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_as_the_documentation_says() {
        let shape = |rate, generations| {
            let sizing = Sizing::new(rate, generations);
            (sizing.lines, sizing.bits, sizing.bits_per_key(generations).round() as u32)
        };
        assert_eq!(shape(1e-2, 9), (2, 8, 22));
        assert_eq!(shape(1e-4, 9), (3, 12, 46));
        assert_eq!(shape(1e-2, 1), (1, 8, 11));
        assert_eq!(shape(1e-4, 1), (1, 12, 24));
    }

    #[test]
    fn every_window_and_rate_has_a_shape_that_keeps_it() {
        for generations in [1, 2, 9, 18, 57, 58, 121, 242] {
            for rate in [0.3, 1e-2, 1e-4, 1e-6] {
                let sizing = Sizing::new(rate, generations);
                let keys = 1_000_000;
                let blocks = sizing.blocks(0, f64::from(keys)).ceil() as u32;
                let total = sizing.rate_of(keys, blocks) * f64::from(generations);
                assert!(total <= rate && total > rate / 2.0, "{generations}, {rate}: {total}");
                assert!(sizing.room(0, blocks, rate) >= keys);
            }
        }
    }

    #[test]
    fn shares_never_sum_to_more_than_one() {
        let total: f64 = (0..10_000).map(share_of).sum();
        assert!((0.999..1.0).contains(&total), "{total}");
    }

    #[test]
    fn the_load_is_the_inverse_of_the_rate() {
        let sizing = Sizing::new(1e-3, 9);
        for rate in [1e-6, 1e-4, 1e-2, 0.5] {
            let room = sizing.room_at(rate, 1_000_000);
            assert!((sizing.rate_of(room, 1_000_000) / rate - 1.0).abs() < 0.01);
        }
    }

    /// The occupancy of a few positions, counted by hand: two draws of two
    /// positions take one position half the time, both otherwise.
    #[test]
    fn hits_are_exact() {
        let hits = hits(2, 1);
        assert_eq!(hits[..3], [0.0, 0.5, 0.75]);
    }
}
