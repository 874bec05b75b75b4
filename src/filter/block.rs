//! A block: what one check reads and one new key changes.
//!
//! A block is a few adjacent lines. Each line begins with the tag of the
//! bucket in which it was last touched; the rest is cut into *positions*, and
//! each position has one bit per generation. A key has `bits` positions, drawn
//! by its hash; a generation has the key iff its bit is set at all of them. So
//! the words at a key's positions, and-ed together, answer for all
//! generations at once, and no bit of a line is wasted on alignment, whatever
//! the number of generations.
//!
//! A generation that a bucket takes over is cleared line by line, when the line
//! is next touched: its tag says how many buckets ago that was.

use super::sizing::{MOST_BITS, Sizing};
use crate::hash::KeyHash;

/// Bytes in a line.
pub(super) const LINE_BYTES: usize = 64;
/// Bits in a line.
pub(super) const LINE_BITS: u32 = LINE_BYTES as u32 * 8;
/// Bits of a line that hold its tag.
pub(super) const TAG_BITS: u32 = 8;

/// Generations that are read in one go: eight bytes from any byte on hold at
/// least 57 bits, whatever the bit that is wanted first.
const GENERATIONS_PER_WORD: u32 = 57;

/// Where the generations of a position begin: `shift` bits into the eight
/// bytes from `byte` of the block on.
#[derive(Clone, Copy, Debug)]
struct Spot {
    byte: u16,
    shift: u16,
}

impl Spot {
    /// The spot that begins at a bit of a line of the block. The eight bytes
    /// lie within that line.
    fn new(line: u32, bit: u32) -> Self {
        let byte = (bit / 8).min(LINE_BYTES as u32 - 8);
        Self { byte: (line * LINE_BYTES as u32 + byte) as u16, shift: (bit - 8 * byte) as u16 }
    }
}

/// The layout of every block of one deduper.
#[derive(Debug)]
pub(super) struct Layout {
    generations: u32,
    lines: u32,
    bits: u32,
    positions: u32,
    /// For each word of generations, the spot of each position.
    spots: Box<[Box<[Spot]>]>,
    /// By generation: a line's bits without that generation's.
    others: Box<[[u8; LINE_BYTES]]>,
}

/// Which bucket is the newest, as blocks know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newest {
    /// The newest bucket's tag.
    pub(super) tag: u8,
    /// Its generation.
    pub(super) generation: u32,
    /// The number of tags.
    pub(super) tags: u8,
}

/// Where a key belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    block: u32,
    positions: [u16; MOST_BITS as usize],
}

impl Probe {
    /// The block, of so many.
    #[inline]
    pub(super) const fn block(&self, blocks: u32) -> usize {
        block_of(self.block, blocks)
    }
}

/// Multiply-shift (Lemire 2019).
#[inline]
const fn block_of(bits: u32, blocks: u32) -> usize {
    ((bits as u64 * blocks as u64) >> 32) as usize
}

/// The block, of so many, that a key belongs to.
#[inline]
pub(super) const fn home(hash: KeyHash, blocks: u32) -> usize {
    block_of(block_bits(hash), blocks)
}

#[inline]
const fn block_bits(hash: KeyHash) -> u32 {
    (hash.low() >> 32) as u32
}

impl Layout {
    pub(super) fn new(sizing: &Sizing, generations: u32) -> Self {
        let per_line = sizing.positions / sizing.lines;
        let words = generations.div_ceil(GENERATIONS_PER_WORD);
        let spot = |word: u32, position: u32| {
            let bit = TAG_BITS + position % per_line * generations + word * GENERATIONS_PER_WORD;
            Spot::new(position / per_line, bit)
        };
        let spots =
            |word: u32| (0..sizing.positions).map(|position| spot(word, position)).collect();
        Self {
            generations,
            lines: sizing.lines,
            bits: sizing.bits,
            positions: sizing.positions,
            spots: (0..words).map(spots).collect(),
            others: (0..generations).map(|own| others(own, generations, per_line)).collect(),
        }
    }

    /// Bytes in a block.
    #[inline]
    pub(super) const fn block_bytes(&self) -> usize {
        self.lines as usize * LINE_BYTES
    }

    pub(super) const fn generations(&self) -> u32 {
        self.generations
    }

    /// The generation of the bucket that is `age` buckets before the newest.
    #[inline]
    pub(super) const fn generation(&self, newest: Newest, age: u32) -> u32 {
        let generation = newest.generation + self.generations - age;
        if generation >= self.generations { generation - self.generations } else { generation }
    }

    /// Where a key belongs: the upper half of the hash's lower word chooses the
    /// block; the rest, mixed, draws the positions, 16 bits each.
    #[inline]
    pub(super) fn probe(&self, hash: KeyHash) -> Probe {
        let mut positions = [0; MOST_BITS as usize];
        let mut random = hash.high() ^ hash.low().rotate_left(32);
        for four in positions[..self.bits as usize].chunks_mut(4) {
            random = mix(random);
            for (draw, position) in four.iter_mut().enumerate() {
                let draw = (random >> (16 * draw)) as u16;
                *position = ((u32::from(draw) * self.positions) >> 16) as u16;
            }
        }
        Probe { block: block_bits(hash), positions }
    }

    /// Clears the generations that buckets have taken over since each line of
    /// the block was last touched.
    #[inline]
    pub(super) fn freshen(&self, block: &mut [u8], newest: Newest) {
        for line in block.as_chunks_mut::<LINE_BYTES>().0 {
            if line[0] != newest.tag {
                self.freshen_line(line, newest);
            }
        }
    }

    fn freshen_line(&self, line: &mut [u8; LINE_BYTES], newest: Newest) {
        let behind = match newest.tag.checked_sub(line[0]) {
            Some(behind) => behind,
            None => newest.tags - (line[0] - newest.tag),
        };
        if u32::from(behind) >= self.generations {
            line.fill(0);
        } else {
            for age in 0..u32::from(behind) {
                self.clear_line(line, self.generation(newest, age));
            }
        }
        line[0] = newest.tag;
    }

    /// Clears one generation.
    pub(super) fn clear(&self, block: &mut [u8], generation: u32) {
        for line in block.as_chunks_mut::<LINE_BYTES>().0 {
            self.clear_line(line, generation);
        }
    }

    fn clear_line(&self, line: &mut [u8; LINE_BYTES], generation: u32) {
        let others = &self.others[generation as usize];
        line.iter_mut().zip(others).for_each(|(byte, others)| *byte &= others);
    }

    /// The age of the youngest generation that has the key, if one does. The
    /// block must be fresh.
    #[inline]
    pub(super) fn youngest(&self, block: &[u8], probe: &Probe, newest: Newest) -> Option<u32> {
        let mut youngest = None;
        for (word, spots) in self.spots.iter().enumerate() {
            let first = word as u32 * GENERATIONS_PER_WORD;
            let count = (self.generations - first).min(GENERATIONS_PER_WORD);
            let mut having = u64::MAX >> (u64::BITS - count);
            for position in &probe.positions[..self.bits as usize] {
                having &= read(block, spots[usize::from(*position)]);
            }
            while having != 0 {
                let age = self.age(newest, first + having.trailing_zeros());
                youngest = Some(youngest.map_or(age, |youngest: u32| youngest.min(age)));
                having &= having - 1;
            }
        }
        youngest
    }

    /// How many buckets before the newest a generation's is.
    #[inline]
    const fn age(&self, newest: Newest, generation: u32) -> u32 {
        if generation <= newest.generation {
            newest.generation - generation
        } else {
            newest.generation + self.generations - generation
        }
    }

    /// Lets a generation have the key. The block must be fresh.
    #[inline]
    pub(super) fn insert(&self, block: &mut [u8], probe: &Probe, generation: u32) {
        let spots = &self.spots[(generation / GENERATIONS_PER_WORD) as usize];
        let within = generation % GENERATIONS_PER_WORD;
        for position in &probe.positions[..self.bits as usize] {
            let spot = spots[usize::from(*position)];
            let bit = u32::from(spot.shift) + within;
            block[usize::from(spot.byte) + bit as usize / 8] |= 1 << (bit % 8);
        }
    }
}

/// The generations at a spot, from the first on.
#[inline]
fn read(block: &[u8], spot: Spot) -> u64 {
    let bytes = block[usize::from(spot.byte)..].first_chunk().expect("a spot lies in its line");
    u64::from_le_bytes(*bytes) >> spot.shift
}

/// A line in which every bit is set but those of one generation.
fn others(own: u32, generations: u32, per_line: u32) -> [u8; LINE_BYTES] {
    let mut line = [u8::MAX; LINE_BYTES];
    for position in 0..per_line {
        let bit = TAG_BITS + position * generations + own;
        line[bit as usize / 8] &= !(1 << (bit % 8));
    }
    line
}

/// The output step of `SplitMix64` (Steele, Lea and Flood 2014), cut to what
/// spreads the entropy that the hash already has: a multiplication carries it
/// upwards, a shift back down.
#[inline]
const fn mix(bits: u64) -> u64 {
    let bits = (bits ^ bits >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits ^ bits >> 29
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn layout(generations: u32) -> Layout {
        Layout::new(&Sizing::new(1e-3, generations), generations)
    }

    fn newest(bucket: u32, generations: u32, tags: u8) -> Newest {
        Newest { tag: (bucket % u32::from(tags)) as u8, generation: bucket % generations, tags }
    }

    /// The plainest reading of a block: is the bit of every position set?
    fn has(layout: &Layout, block: &[u8], probe: &Probe, generation: u32) -> bool {
        let per_line = layout.positions / layout.lines;
        probe.positions[..layout.bits as usize].iter().all(|position| {
            let position = u32::from(*position);
            let bit = position / per_line * LINE_BITS
                + TAG_BITS
                + position % per_line * layout.generations
                + generation;
            block[bit as usize / 8] >> (bit % 8) & 1 == 1
        })
    }

    #[test]
    fn no_two_positions_share_a_bit_and_none_leaves_its_line() {
        for generations in [1, 2, 9, 18, 57, 58, 121, 242] {
            let layout = layout(generations);
            let mut bits = HashSet::new();
            for generation in 0..generations {
                let spots = &layout.spots[(generation / GENERATIONS_PER_WORD) as usize];
                for (position, spot) in spots.iter().enumerate() {
                    let line = position as u32 / (layout.positions / layout.lines);
                    let start = u32::from(spot.byte) * 8;
                    assert_eq!(u32::from(spot.byte) / 64, line);
                    assert_eq!((u32::from(spot.byte) + 7) / 64, line);
                    let bit = start + u32::from(spot.shift) + generation % GENERATIONS_PER_WORD;
                    assert!(bit < start + 64 && bit % LINE_BITS >= TAG_BITS);
                    assert!(bits.insert(bit), "bit {bit} has two owners");
                }
            }
        }
    }

    proptest! {
        /// Buckets pass, keys come: a fresh block has each key of a live
        /// generation, and what it says agrees with the plainest reading.
        #[test]
        fn a_block_forgets_nothing_live_and_clears_what_is_dead(
            generations in prop::sample::select(vec![1_u32, 2, 9, 57, 60, 121]),
            spare_tags in 1_u8..60,
            steps in prop::collection::vec((0_u32..6, any::<u128>()), 1..60),
        ) {
            let layout = layout(generations);
            let tags = generations as u8 + spare_tags;
            let mut block = vec![0; layout.block_bytes()];
            let mut keys = Vec::new();
            let mut bucket = 1_000;
            for (step, hash) in steps {
                bucket += step.min(generations - 1);
                let newest = newest(bucket, generations, tags);
                layout.freshen(&mut block, newest);
                let probe = layout.probe(KeyHash::new(hash));
                layout.insert(&mut block, &probe, newest.generation);
                keys.push((bucket, probe));
                for (recorded, probe) in &keys {
                    let age = bucket - recorded;
                    let seen = layout.youngest(&block, probe, newest);
                    let plain = (0..generations)
                        .find(|age| has(&layout, &block, probe, layout.generation(newest, *age)));
                    prop_assert_eq!(seen, plain);
                    if age < generations {
                        prop_assert!(seen.is_some_and(|youngest| youngest <= age));
                    }
                }
            }
            let after = newest(bucket + generations, generations, tags);
            for line in block.as_chunks_mut().0 {
                layout.freshen_line(line, after);
                prop_assert!(line[1..].iter().all(|byte| *byte == 0));
            }
        }
    }
}
