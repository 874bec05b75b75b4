//! What a probe asks of a line, for all its words at once.
//!
//! Two answers, one bit per word of the line: which words agree with the one
//! that is wanted, and which carry the tag of a live bucket. `generic` says
//! what is meant, and is what runs where there is no faster twin; `sse2` is
//! part of every x86-64 processor, so it needs no detection and is inlined.

use super::line::{Ages, Identity, Slot, WORDS};
use std::sync::atomic::AtomicU64;

#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
pub(super) use generic::{agreeing, glimpsed, live};
#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
pub(super) use sse2::{agreeing, glimpsed, live};

/// The words of a line: its header, then its slots.
///
/// Written under the lock of their shard alone, word by word, because others
/// may look at them without it; so whoever holds the lock may read them in any
/// way.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Words(pub(super) [AtomicU64; WORDS]);

/// A set of slots of a line: bit `2 * word` for each. Two bits a word is what
/// comes out of the vector unit, and counting zeros does not mind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mask(u32);

impl Mask {
    pub(super) const NONE: Self = Self(0);

    /// The even bits, without that of the header, which is no slot.
    const SLOTS: u32 = 0x5554;

    #[inline]
    const fn of_bits(bits: u32) -> Self {
        Self(bits & Self::SLOTS)
    }

    /// The slots that are not in the set.
    #[inline]
    pub(super) const fn not(&self) -> Self {
        Self::of_bits(!self.0)
    }
}

impl Iterator for Mask {
    /// The index of a word in its line.
    type Item = usize;

    /// Takes the first slot out of the set.
    #[inline]
    fn next(&mut self) -> Option<usize> {
        let first = self.0.trailing_zeros() as usize / 2;
        let has_any = self.0 != 0;
        self.0 &= self.0.wrapping_sub(1);
        has_any.then_some(first)
    }
}

mod generic {
    #[cfg(any(test, not(all(target_arch = "x86_64", target_feature = "sse2"))))]
    use super::Ages;
    use super::{Identity, Mask, Slot, Words};
    use std::sync::atomic::Ordering;

    pub(crate) fn agreeing(words: &Words, want: Slot, identity: Identity) -> Mask {
        mask(words, |slot| slot.agrees(want, identity))
    }

    #[cfg(any(test, not(all(target_arch = "x86_64", target_feature = "sse2"))))]
    pub(crate) fn live(words: &Words, ages: Ages) -> Mask {
        mask(words, |slot| ages.is_live(slot.tag()))
    }

    /// As `agreeing`, for who does not hold the lock: each word is read at a
    /// moment of its own.
    pub(crate) fn glimpsed(words: &Words, want: Slot, identity: Identity) -> Mask {
        agreeing(words, want, identity)
    }

    fn mask(words: &Words, is_in: impl Fn(Slot) -> bool) -> Mask {
        let is_in = |index: usize| is_in(Slot::of_word(words.0[index].load(Ordering::Relaxed)));
        let bit = |index: usize| u32::from(is_in(index)) << (2 * index);
        Mask::of_bits((0..words.0.len()).map(bit).fold(0, |bits, bit| bits | bit))
    }
}

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
mod sse2 {
    #![expect(unsafe_code, reason = "vector loads, and the promise that SSE2 is there")]

    use super::{Ages, Identity, Mask, Slot, Words, generic};
    use std::arch::asm;
    use std::arch::x86_64::{
        __m128i, _mm_add_epi8, _mm_and_si128, _mm_andnot_si128, _mm_cmpeq_epi8, _mm_cmpeq_epi32,
        _mm_loadu_si128, _mm_max_epu8, _mm_min_epu8, _mm_movemask_epi8, _mm_packs_epi16,
        _mm_packs_epi32, _mm_packus_epi16, _mm_set1_epi8, _mm_set1_epi64x, _mm_setzero_si128,
        _mm_sub_epi8, _mm_xor_si128,
    };

    #[inline]
    pub(crate) fn agreeing(words: &Words, want: Slot, identity: Identity) -> Mask {
        // SAFETY: this module is compiled only where SSE2 is there for all.
        unsafe { agreeing_sse2(load(words), want, identity) }
    }

    #[inline]
    pub(crate) fn live(words: &Words, ages: Ages) -> Mask {
        // SAFETY: as above.
        unsafe { live_sse2(words, ages) }
    }

    /// As `agreeing`, for who does not hold the lock: each word is read at a
    /// moment of its own.
    #[inline]
    pub(crate) fn glimpsed(words: &Words, want: Slot, identity: Identity) -> Mask {
        if is_x86_feature_detected!("avx") {
            // SAFETY: as above, and AVX is there.
            unsafe { agreeing_sse2(load_shared(words), want, identity) }
        } else {
            generic::glimpsed(words, want, identity)
        }
    }

    /// Slots whose difference from `want` has no bit of the identity.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn agreeing_sse2(mut equal: [__m128i; 4], want: Slot, identity: Identity) -> Mask {
        let want = _mm_set1_epi64x(want.word().cast_signed());
        let identity = _mm_set1_epi64x(identity.bits().cast_signed());
        let zero = _mm_setzero_si128();
        for pair in &mut equal {
            let difference = _mm_and_si128(_mm_xor_si128(*pair, want), identity);
            *pair = _mm_cmpeq_epi32(difference, zero);
        }
        let [a, b, c, d] = equal;
        let bytes = _mm_packs_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d));
        // A word agrees iff both its halves do.
        let halves = _mm_movemask_epi8(bytes) as u32;
        Mask::of_bits(halves & halves >> 1)
    }

    /// Slots with live tags: `Ages::is_live` on sixteen bytes, of which every
    /// second is a tag.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn live_sse2(words: &Words, ages: Ages) -> Mask {
        let Some(oldest) = ages.oldest_live() else { return Mask::NONE };
        let oldest = _mm_set1_epi8(oldest.cast_signed());
        let newest = _mm_set1_epi8(ages.newest_tag().cast_signed());
        let low_byte = _mm_set1_epi64x(0xFF);
        let mut low_bytes = load(words);
        for pair in &mut low_bytes {
            *pair = _mm_and_si128(*pair, low_byte);
        }
        let [a, b, c, d] = low_bytes;
        let tags = _mm_packus_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d));
        let is_in_order = _mm_cmpeq_epi8(_mm_max_epu8(tags, newest), newest);
        let missing = _mm_andnot_si128(is_in_order, _mm_set1_epi8(ages.tags().cast_signed()));
        let age = _mm_add_epi8(_mm_sub_epi8(newest, tags), missing);
        let is_young = _mm_cmpeq_epi8(_mm_min_epu8(age, oldest), age);
        let is_live = _mm_andnot_si128(_mm_cmpeq_epi8(tags, _mm_setzero_si128()), is_young);
        Mask::of_bits(_mm_movemask_epi8(is_live) as u32)
    }

    #[inline]
    #[expect(clippy::cast_ptr_alignment, reason = "the unaligned load asks for no alignment")]
    fn load(words: &Words) -> [__m128i; 4] {
        let first = words.0.as_ptr().cast::<__m128i>();
        // SAFETY: the words are 64 readable bytes, four vectors, and nobody
        // writes them meanwhile: the caller holds the shard's lock. Unaligned
        // loads cost nothing on an aligned line.
        [0, 1, 2, 3].map(|pair| unsafe { _mm_loadu_si128(first.add(pair)) })
    }

    /// Reads the words while others may write them: two at a time, each two at
    /// once.
    ///
    /// # Safety
    ///
    /// The processor must have AVX: those that do read sixteen aligned bytes by
    /// `VMOVDQA` at once (Intel, Software Developer's Manual, volume 3, 9.1.1;
    /// AMD has said the same of its own). The load is in assembly because the
    /// language has no atomic vectors; to it, this is a relaxed atomic load.
    #[inline]
    unsafe fn load_shared(words: &Words) -> [__m128i; 4] {
        let (a, b, c, d);
        // SAFETY: reads the 64 bytes of `words`, which its type aligns, and
        // nothing else.
        unsafe {
            asm!(
                "vmovdqa {a}, [{words}]",
                "vmovdqa {b}, [{words} + 16]",
                "vmovdqa {c}, [{words} + 32]",
                "vmovdqa {d}, [{words} + 48]",
                words = in(reg) words,
                a = lateout(xmm_reg) a,
                b = lateout(xmm_reg) b,
                c = lateout(xmm_reg) c,
                d = lateout(xmm_reg) d,
                options(readonly, nostack, preserves_flags),
            );
        }
        [a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Bucket;
    use proptest::prelude::*;

    #[test]
    fn a_mask_gives_the_slots_in_order() {
        let mask = Mask::of_bits(1 | 1 << 2 | 1 << 14);
        assert_eq!(mask.not().collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        assert_eq!(mask.collect::<Vec<_>>(), [1, 7], "word 0 is the header");
        assert_eq!(Mask::of_bits(0).next(), None);
    }

    proptest! {
        /// Few distinct halves and tags, so that words agree in part or whole.
        #[test]
        fn the_fast_twin_is_the_generic_one(
            words in prop::array::uniform8((0_u64..3, 0_u64..3, 0_u64..=255)),
            want in (0_u64..3, 0_u64..3),
            newest in -300_i64..300,
            live in 0_i64..260,
            tags in 8_u8..=255,
        ) {
            let word = |(high, low, tag): (u64, u64, u64)| high << 42 | low << 8 | (tag % (u64::from(tags) + 1));
            let line = Words(words.map(|parts| AtomicU64::new(word(parts))));
            let want = Slot::of_word(word((want.0, want.1, 0)));
            for identity in [Identity::FINGERPRINT, Identity::CODE] {
                prop_assert_eq!(
                    agreeing(&line, want, identity),
                    generic::agreeing(&line, want, identity)
                );
                prop_assert_eq!(
                    super::glimpsed(&line, want, identity),
                    generic::glimpsed(&line, want, identity)
                );
            }
            let ages = Ages::new(Bucket(newest), Bucket(newest - live + 1), tags);
            prop_assert_eq!(super::live(&line, ages), generic::live(&line, ages));
        }
    }
}
