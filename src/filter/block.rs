//! A block: what one check reads and one new key changes.
//!
//! A block is a few adjacent lines. It is cut into *positions*, and each
//! position has one bit per generation; its last byte is the tag of the bucket
//! in which it was last touched. A key has `bits` positions, drawn by its hash;
//! a generation has the key iff its bit is set at all of them. So the words
//! that begin at a key's positions, and-ed together, answer for all generations
//! at once, and no bit of a block is wasted on alignment, whatever the number
//! of generations.
//!
//! A generation that a bucket takes over is cleared block by block, when the
//! block is next touched: its tag says how many buckets ago that was.

use super::sizing::{MOST_BITS, Sizing};
use crate::hash::KeyHash;

/// Bytes in a line.
pub(super) const LINE_BYTES: usize = 64;
/// Bits in a line.
pub(super) const LINE_BITS: u32 = LINE_BYTES as u32 * 8;
/// Bits of a block that hold its tag.
pub(super) const TAG_BITS: u32 = 8;

/// Bytes in a block of two lines, the most frequent one.
pub(super) const PAIR_BYTES: usize = 2 * LINE_BYTES;

/// Bytes that are read in one go where there are few generations.
const SHORT_BYTES: usize = 4;
/// So few: four bytes from any byte on hold at least 25 bits, whatever the bit
/// that is wanted first.
const FEW_GENERATIONS: u32 = 25;

/// Bytes that are read in one go where there are more generations.
const WORD_BYTES: usize = 8;
/// Generations in these.
const GENERATIONS_PER_WORD: u32 = 57;

/// Positions that are drawn in one round, by 16 bits each of one random word.
pub(super) const DRAWS: usize = 4;
/// The most rounds.
const ROUNDS: usize = MOST_BITS as usize / DRAWS;

/// The even halves of a word of four numbers.
const EVEN: u64 = 0x0000_FFFF_0000_FFFF;

/// The bits of a block at which the positions of one round begin.
type Starts = [u16; DRAWS];

/// How many positions a block of so many lines has.
pub(super) const fn positions(lines: u32, generations: u32) -> u32 {
    let bits = lines * LINE_BITS;
    let positions = (bits - TAG_BITS) / generations;
    if generations > FEW_GENERATIONS {
        return positions;
    }
    // From each one on, a short word can be read without looking at the end.
    let last_start = bits - 8 * SHORT_BYTES as u32 + 7;
    let readable = last_start / generations + 1;
    if readable < positions { readable } else { positions }
}

/// The layout of every block of one deduper.
#[derive(Debug)]
pub(super) struct Layout {
    generations: u32,
    /// A bit for each generation, where they are few.
    mask: u32,
    block_bytes: usize,
    /// Rounds of draws.
    rounds: usize,
    positions: u16,
    /// By generation: a block's bits without that generation's.
    others: Box<[Box<[u8]>]>,
}

/// Which bucket is the newest, as blocks know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newest {
    /// The newest bucket's tag.
    pub(super) tag: u8,
    /// The number of tags.
    pub(super) tags: u8,
    /// Its generation.
    pub(super) generation: u16,
}

/// Where a key belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    block: u32,
    /// The bits of the block at which the key's positions begin.
    rounds: [Starts; ROUNDS],
}

impl Probe {
    /// No key's.
    pub(crate) const NONE: Self = Self { block: 0, rounds: [[0; DRAWS]; ROUNDS] };

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
        let block_bytes = sizing.lines as usize * LINE_BYTES;
        let others = |own| others(own, generations, sizing.positions, block_bytes);
        Self {
            generations,
            mask: u32::MAX >> (u32::BITS - generations.min(FEW_GENERATIONS)),
            block_bytes,
            rounds: sizing.bits as usize / DRAWS,
            positions: sizing.positions as u16,
            others: (0..generations).map(others).collect(),
        }
    }

    /// Bytes in a block.
    #[inline]
    pub(super) const fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    pub(super) const fn generations(&self) -> u32 {
        self.generations
    }

    /// The generation of the bucket that is `age` buckets before the newest.
    #[inline]
    pub(super) fn generation(&self, newest: Newest, age: u32) -> u32 {
        let generation = u32::from(newest.generation) + self.generations - age;
        if generation >= self.generations { generation - self.generations } else { generation }
    }

    /// Finds out where a key belongs: the upper half of the hash's lower word
    /// chooses the block; the rest, mixed, draws the positions.
    ///
    /// Writes the probe in place: words that were just written, copied as
    /// vectors, hold up the processor until they have left its store buffer.
    #[inline]
    pub(super) fn aim(&self, probe: &mut Probe, hash: KeyHash) {
        probe.block = block_bits(hash);
        let mut random = hash.high() ^ hash.low().rotate_left(32);
        for starts in &mut probe.rounds[..self.rounds] {
            random = mix(random);
            *starts = self.starts(random);
        }
    }

    /// Where a key belongs.
    #[inline]
    pub(super) fn probe(&self, hash: KeyHash) -> Probe {
        let mut probe = Probe::NONE;
        self.aim(&mut probe, hash);
        probe
    }

    /// Where the positions begin that a random word draws: two at a time, in
    /// the even and then in the odd quarters of the word.
    #[inline]
    fn starts(&self, random: u64) -> Starts {
        let start = |draw: u64| {
            let positions = ((draw & EVEN) * u64::from(self.positions)) >> 16 & EVEN;
            positions * u64::from(self.generations)
        };
        quarters(start(random) | start(random >> 16) << 16)
    }

    /// Clears the generations that buckets have taken over since the block was
    /// last touched.
    #[inline]
    pub(super) fn freshen(&self, block: &mut [u8], newest: Newest) {
        if block[block.len() - 1] != newest.tag {
            self.catch_up(block, newest);
        }
    }

    #[inline(never)]
    fn catch_up(&self, block: &mut [u8], newest: Newest) {
        let tag = block.len() - 1;
        let behind = match newest.tag.checked_sub(block[tag]) {
            Some(behind) => behind,
            None => newest.tags - (block[tag] - newest.tag),
        };
        if u32::from(behind) >= self.generations {
            block.fill(0);
        } else {
            for age in 0..u32::from(behind) {
                self.clear(block, self.generation(newest, age));
            }
        }
        block[tag] = newest.tag;
    }

    /// Clears one generation.
    pub(super) fn clear(&self, block: &mut [u8], generation: u32) {
        let others = &self.others[generation as usize];
        block.iter_mut().zip(others).for_each(|(byte, others)| *byte &= others);
    }

    /// The age of the youngest generation that has the key, if one does. The
    /// block must be fresh.
    #[expect(clippy::inline_always, reason = "or a check pays for calls and spilled registers")]
    #[inline(always)]
    pub(super) fn youngest(&self, block: &[u8], probe: &Probe, newest: Newest) -> Option<u32> {
        if self.generations > FEW_GENERATIONS {
            return self.youngest_of_many(block, probe, newest);
        }
        let having = common(block, &probe.rounds[..self.rounds]) & self.mask;
        (having != 0).then(|| self.youngest_of(having.into(), 0, newest))
    }

    /// Where there are more generations than in a short word.
    #[inline(never)]
    fn youngest_of_many(&self, block: &[u8], probe: &Probe, newest: Newest) -> Option<u32> {
        let words = (0..self.generations).step_by(GENERATIONS_PER_WORD as usize);
        let having = words.map(|first| (first, self.having(block, probe, first)));
        let having = having.filter(|(_, having)| *having != 0);
        having.map(|(first, having)| self.youngest_of(having, first, newest)).min()
    }

    /// The generations, from the first on, that have the key, up to a word of
    /// them.
    fn having(&self, block: &[u8], probe: &Probe, first: u32) -> u64 {
        let count = (self.generations - first).min(GENERATIONS_PER_WORD);
        let starts = probe.rounds[..self.rounds].as_flattened().iter();
        let words = starts.map(|start| word(block, usize::from(*start) + first as usize));
        words.fold(u64::MAX >> (u64::BITS - count), |having, word| having & word)
    }

    /// The age of the youngest of some generations, counted from the first.
    #[inline]
    fn youngest_of(&self, having: u64, first: u32, newest: Newest) -> u32 {
        // Ages run downwards from the newest generation, and on from the last.
        let up_to_newest = match u32::from(newest.generation).checked_sub(first) {
            Some(newest) if newest < u64::BITS => having & (u64::MAX >> (63 - newest)),
            Some(_) => having,
            None => 0,
        };
        let youngest = if up_to_newest == 0 { having } else { up_to_newest };
        self.age(newest, first + youngest.ilog2())
    }

    /// How many buckets before the newest a generation's is.
    #[inline]
    fn age(&self, newest: Newest, generation: u32) -> u32 {
        let newest = u32::from(newest.generation);
        if generation <= newest {
            newest - generation
        } else {
            newest + self.generations - generation
        }
    }

    /// Lets a generation have the key. The block must be fresh.
    #[expect(clippy::inline_always, reason = "or a check pays for calls and spilled registers")]
    #[inline(always)]
    pub(super) fn insert(&self, block: &mut [u8], probe: &Probe, generation: u32) {
        set(block, &probe.rounds[..self.rounds], generation as u16);
    }
}

/// Sets the bits of a block that lie `offset` after the starts.
#[expect(clippy::inline_always, reason = "or a check pays for calls and spilled registers")]
#[inline(always)]
fn set(block: &mut [u8], rounds: &[Starts], offset: u16) {
    if let Ok(pair) = <&mut [u8; PAIR_BYTES]>::try_from(&mut *block) {
        for starts in rounds {
            for bit in starts.map(|start| start + offset) {
                // The remainder changes nothing, and saves the check of bounds.
                pair[usize::from(bit / 8) % PAIR_BYTES] |= mask(bit);
            }
        }
    } else {
        for bit in rounds.as_flattened().iter().map(|start| start + offset) {
            block[usize::from(bit / 8)] |= mask(bit);
        }
    }
}

/// A bit's place in its byte.
#[inline]
const fn mask(bit: u16) -> u8 {
    // A shift would have to be cut to the byte's bits first.
    1_u8.rotate_left(bit as u32)
}

/// A word as four numbers of 16 bits.
#[inline]
fn quarters(word: u64) -> Starts {
    let bytes = word.to_le_bytes();
    std::array::from_fn(|draw| u16::from_le_bytes([bytes[2 * draw], bytes[2 * draw + 1]]))
}

/// What the short words of a block that begin at the starts have in common.
#[expect(clippy::inline_always, reason = "or a check pays for calls and spilled registers")]
#[inline(always)]
fn common(block: &[u8], rounds: &[Starts]) -> u32 {
    let mut common = u32::MAX;
    if let Ok(pair) = <&[u8; PAIR_BYTES]>::try_from(block) {
        // The same, compiled for a length that is known.
        for starts in rounds {
            for start in starts {
                common &= short(pair, *start);
            }
        }
    } else {
        for start in rounds.as_flattened() {
            common &= short(block, *start);
        }
    }
    common
}

/// The bits of a block from one on, at least 25.
#[expect(clippy::inline_always, reason = "or a check pays for calls and spilled registers")]
#[inline(always)]
fn short(block: &[u8], bit: u16) -> u32 {
    // The minimum changes nothing, and is cheaper than a check of bounds.
    let byte = usize::from(bit / 8).min(block.len() - SHORT_BYTES);
    let bytes = block[byte..byte + SHORT_BYTES].try_into().expect("four bytes");
    u32::from_le_bytes(bytes) >> (bit % 8)
}

/// The bits of a block from one on: 57, or all that there are.
fn word(block: &[u8], bit: usize) -> u64 {
    let byte = (bit / 8).min(block.len() - WORD_BYTES);
    let bytes = block[byte..byte + WORD_BYTES].try_into().expect("eight bytes");
    u64::from_le_bytes(bytes) >> (bit - 8 * byte)
}

/// A block in which every bit is set but those of one generation.
fn others(own: u32, generations: u32, positions: u32, block_bytes: usize) -> Box<[u8]> {
    let mut block: Box<[u8]> = vec![u8::MAX; block_bytes].into();
    for position in 0..positions {
        let bit = position * generations + own;
        block[bit as usize / 8] &= !(1 << (bit % 8));
    }
    block
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
    use siphasher::sip128::SipHasher13;

    fn layout(generations: u32) -> Layout {
        Layout::new(&Sizing::new(1e-3, generations), generations)
    }

    fn newest(bucket: u32, generations: u32, tags: u8) -> Newest {
        let generation = (bucket % generations) as u16;
        Newest { tag: (bucket % u32::from(tags)) as u8, tags, generation }
    }

    /// The bit of a position that is a generation's.
    fn bit(layout: &Layout, position: u32, generation: u32) -> usize {
        (position * layout.generations + generation) as usize
    }

    /// The plainest reading of a block: is the bit of every position set?
    fn has(layout: &Layout, block: &[u8], probe: &Probe, generation: u32) -> bool {
        let starts = probe.rounds[..layout.rounds].as_flattened().iter();
        starts.map(|start| usize::from(*start) + generation as usize).all(|bit| {
            let position = bit as u32 / layout.generations;
            assert_eq!(bit, self::bit(layout, position, generation));
            block[bit / 8] >> (bit % 8) & 1 == 1
        })
    }

    #[test]
    fn positions_fill_the_block_and_no_two_generations_share_a_bit() {
        for generations in [1, 2, 9, 18, 57, 58, 121, 242] {
            let layout = layout(generations);
            let bits = 8 * layout.block_bytes;
            let last = bit(&layout, u32::from(layout.positions) - 1, generations - 1);
            let unread = generations as usize + 8 * (SHORT_BYTES - 1);
            assert!((bits - unread..bits - TAG_BITS as usize).contains(&last), "{last} of {bits}");
            for generation in 0..generations {
                let mut block = vec![u8::MAX; layout.block_bytes];
                layout.clear(&mut block, generation);
                let cleared: u32 = block.iter().map(|byte| byte.count_zeros()).sum();
                assert_eq!(cleared, u32::from(layout.positions));
                assert_eq!(block.last(), Some(&u8::MAX), "the tag stays");
            }
        }
    }

    #[test]
    fn all_positions_are_drawn_alike() {
        for generations in [1, 9, 121] {
            let layout = layout(generations);
            let mut drawn = vec![0_u32; usize::from(layout.positions)];
            let probes = 200 * u64::from(layout.positions);
            for number in 0..probes {
                let hash = SipHasher13::new_with_key(&[7; 16]).hash(&number.to_le_bytes());
                let probe = layout.probe(KeyHash::new(hash.as_u128()));
                for start in probe.rounds[..layout.rounds].as_flattened() {
                    let position = usize::from(*start) / generations as usize;
                    drawn[position] += 1;
                }
            }
            let expected = 200.0 * (DRAWS * layout.rounds) as f64;
            let deviation = |count: &u32| (f64::from(*count) - expected) / expected.sqrt();
            assert!(drawn.iter().all(|count| deviation(count).abs() < 6.0));
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
                layout.insert(&mut block, &probe, newest.generation.into());
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
            layout.catch_up(&mut block, after);
            prop_assert!(block.iter().rev().skip(1).all(|byte| *byte == 0));
        }
    }
}
