//! A line: 64 bytes, one header and seven slots.
//!
//! ```text
//! slot, 64 bits:    [ code: 22 | rest: 34 | tag: 8 ]
//!   fingerprint mode: code and rest are the 56 fingerprint bits
//!   verified mode:    code is a 22-bit fingerprint, rest the key's address
//!   tag:              the bucket, 1 + bucket mod tags; 0 is an empty slot
//! header, 64 bits:  [ spilled codes: 32 | stashed codes: 16 | stashed until: 8 | spilled until: 8 ]
//!   until:            tag of the latest bucket of any key that belongs here and
//!                     lies in another line (spilled) or in the stash (stashed)
//!   codes:            a bit per class of such keys, so that most look-ups of
//!                     other keys end in this line
//! ```
//!
//! Where a key belongs is a function of the *code* alone, in both modes, so
//! that a table can grow without the keys.

use super::blocks::Address;
use super::probe::{self, Words};
use crate::time::Bucket;
use std::sync::atomic::Ordering;

/// Words in a line: the header, then the slots.
pub(super) const WORDS: usize = 8;

/// Slots in a line.
pub(crate) const SLOTS: usize = WORDS - 1;

/// One entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub(crate) struct Slot(u64);

const TAG_BITS: u64 = 0xFF;
const ADDRESS_SHIFT: u32 = 8;
const CODE_SHIFT: u32 = ADDRESS_SHIFT + Address::BITS;

/// Which bits of a slot must agree for a key to be found in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity(u64);

impl Identity {
    #[inline]
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// All 56 fingerprint bits.
    pub(crate) const FINGERPRINT: Self = Self(!TAG_BITS);
    /// The code only; the key itself decides.
    pub(crate) const CODE: Self = Self(u64::MAX << CODE_SHIFT);
}

impl Slot {
    pub(crate) const EMPTY: Self = Self(0);

    /// What the generic twin of the probe reads.
    pub(super) const fn of_word(word: u64) -> Self {
        Self(word)
    }

    #[inline]
    pub(super) const fn word(self) -> u64 {
        self.0
    }

    /// The slot of a key with these fingerprint bits; not yet in a bucket.
    #[inline]
    pub(crate) const fn of_fingerprint(bits: u64) -> Self {
        Self(bits & !TAG_BITS)
    }

    /// The same key at `address` in the memory for keys.
    #[inline]
    pub(crate) const fn at_address(self, address: Address) -> Self {
        Self(self.0 & (Identity::CODE.0 | TAG_BITS) | address.bits() << ADDRESS_SHIFT)
    }

    /// The same key in another bucket.
    #[inline]
    pub(crate) const fn tagged(self, tag: Tag) -> Self {
        Self(self.0 & !TAG_BITS | tag.0 as u64)
    }

    #[inline]
    pub(crate) const fn tag(self) -> Tag {
        Tag((self.0 & TAG_BITS) as u8)
    }

    #[inline]
    pub(crate) const fn address(self) -> Address {
        Address::of_bits(self.0 >> ADDRESS_SHIFT & ((1 << Address::BITS) - 1))
    }

    /// The 22 bits that say where the key belongs.
    #[inline]
    pub(crate) const fn code(self) -> Code {
        Code((self.0 >> CODE_SHIFT) as u32)
    }

    #[inline]
    pub(crate) const fn agrees(self, other: Self, identity: Identity) -> bool {
        (self.0 ^ other.0) & identity.0 == 0
    }
}

/// The 22 bits of a key that place it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Code(pub(crate) u32);

impl Code {
    pub(crate) const BITS: u32 = u64::BITS - CODE_SHIFT;

    const fn spilled_bit(self) -> u64 {
        1 << (32 + (self.0 >> 11) % 32)
    }

    const fn stashed_bit(self) -> u64 {
        1 << (16 + (self.0 >> 7) % 16)
    }
}

/// A bucket's tag in a slot: 1 to the number of tags; 0 stands for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u8);

/// How the tags of one shard are read at this moment.
///
/// Every tag in the shard stands for one of the last `tags` buckets up to
/// `newest`; the shard clears dead slots before that could become ambiguous.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    newest: Bucket,
    newest_tag: u8,
    tags: u8,
    /// How many buckets up to the newest are live; 0 when none is.
    live: u8,
}

impl Ages {
    /// Reads tags of buckets up to `newest`, of which those before `low` are
    /// dead.
    #[inline]
    pub(crate) fn new(newest: Bucket, low: Bucket, tags: u8) -> Self {
        let live = (newest.since(low) + 1).clamp(0, i64::from(tags)) as u8;
        Self { newest, newest_tag: tag_of(newest, tags), tags, live }
    }

    #[inline]
    pub(super) const fn newest_tag(self) -> u8 {
        self.newest_tag
    }

    #[inline]
    pub(super) const fn tags(self) -> u8 {
        self.tags
    }

    /// The age of the oldest live bucket; `None` when none is live.
    #[inline]
    pub(super) const fn oldest_live(self) -> Option<u8> {
        self.live.checked_sub(1)
    }

    /// The latest bucket.
    #[inline]
    pub(crate) const fn newest(self) -> Bucket {
        self.newest
    }

    /// A slot in the newest bucket.
    #[inline]
    pub(crate) const fn newest_slot(self, slot: Slot) -> Slot {
        slot.tagged(Tag(self.newest_tag))
    }

    /// The tag of `bucket`, one of the last `tags` up to the newest.
    #[inline]
    pub(crate) fn tag(self, bucket: Bucket) -> Tag {
        debug_assert!((0..i64::from(self.tags)).contains(&self.newest.since(bucket)));
        let behind = self.newest.since(bucket) as u8;
        let missing = if behind < self.newest_tag { 0 } else { self.tags };
        Tag(self.newest_tag.wrapping_sub(behind).wrapping_add(missing))
    }

    /// How many buckets before the newest a tag's bucket is.
    #[inline]
    const fn age(self, tag: Tag) -> u8 {
        let missing = if tag.0 <= self.newest_tag { 0 } else { self.tags };
        self.newest_tag.wrapping_sub(tag.0).wrapping_add(missing)
    }

    /// The bucket that `tag` stands for.
    #[inline]
    pub(crate) const fn bucket(self, tag: Tag) -> Bucket {
        self.newest.minus(self.age(tag) as i64)
    }

    /// False for the tags of dead buckets and of empty slots.
    #[inline]
    pub(crate) const fn is_live(self, tag: Tag) -> bool {
        tag.0 != 0 && self.age(tag) < self.live
    }

    /// The tag of the later bucket; a dead one is earlier than any.
    const fn later(self, a: Tag, b: Tag) -> Tag {
        if self.is_live(a) && self.age(a) <= self.age(b) { a } else { b }
    }
}

#[inline]
fn tag_of(bucket: Bucket, tags: u8) -> u8 {
    let place = match tags {
        // The usual number, as a constant: a multiplication, not a division.
        u8::MAX => bucket.0.rem_euclid(i64::from(u8::MAX)),
        _ => bucket.0.rem_euclid(i64::from(tags)),
    };
    1 + place as u8
}

/// What a line knows of the keys that belong to it and lie elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
struct Header(u64);

const SPILLED_UNTIL: Field = Field { tag_shift: 0, codes: 0xFFFF_FFFF << 32 };
const STASHED_UNTIL: Field = Field { tag_shift: 8, codes: 0xFFFF << 16 };

/// One of the header's two notes: a tag and a summary of codes.
#[derive(Clone, Copy)]
struct Field {
    tag_shift: u32,
    codes: u64,
}

impl Header {
    const fn tag(self, field: Field) -> Tag {
        Tag((self.0 >> field.tag_shift) as u8)
    }

    fn says(self, field: Field, bit: u64, ages: Ages) -> bool {
        self.0 & bit != 0 && ages.is_live(self.tag(field))
    }

    /// Notes a key of `tag`, and forgets what was noted of dead ones.
    fn note(&mut self, field: Field, bit: u64, tag: Tag, ages: Ages) {
        let noted = self.tag(field);
        if !ages.is_live(noted) {
            self.0 &= !field.codes;
        }
        let until = ages.later(noted, tag);
        self.0 =
            self.0 & !(TAG_BITS << field.tag_shift) | u64::from(until.0) << field.tag_shift | bit;
    }

    fn clear_if_dead(&mut self, field: Field, ages: Ages) {
        if !ages.is_live(self.tag(field)) {
            self.0 &= !(field.codes | TAG_BITS << field.tag_shift);
        }
    }
}

/// 64 bytes of table memory, one cache line: a header, and then the slots.
///
/// The words are atomic so that a line can be *glanced at* without its shard's
/// lock; everything else is done by whoever holds the lock.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Line {
    words: Words,
}

/// The header's place in a line.
const HEADER: usize = 0;

const _: () = assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64);

impl Line {
    #[inline]
    fn word(&self, index: usize) -> u64 {
        self.words.0[index].load(Ordering::Relaxed)
    }

    #[inline]
    fn set_word(&self, index: usize, word: u64) {
        self.words.0[index].store(word, Ordering::Relaxed);
    }

    /// The slots that agree with `want` and are live, with their places.
    #[inline]
    pub(crate) fn matches(
        &self,
        want: Slot,
        identity: Identity,
        ages: Ages,
    ) -> impl Iterator<Item = (usize, Slot)> {
        probe::agreeing(&self.words, want, identity)
            .map(|index| (index, Slot(self.word(index))))
            .filter(move |(_, slot)| ages.is_live(slot.tag()))
    }

    /// Is a live slot with the fingerprint of `want` here? Needs no lock: tells
    /// by one word, read at one moment.
    #[inline]
    pub(super) fn holds(&self, want: Slot, ages: &Ages) -> bool {
        probe::glimpsed(&self.words, want, Identity::FINGERPRINT).next().is_some_and(|place| {
            let slot = Slot(self.word(place));
            slot.agrees(want, Identity::FINGERPRINT) && ages.is_live(slot.tag())
        })
    }

    /// The first live slot with the code of `want`. Needs no lock: what one word
    /// was, read at one moment.
    #[inline]
    pub(super) fn namesake(&self, want: Slot, ages: &Ages) -> Option<Slot> {
        probe::glimpsed(&self.words, want, Identity::CODE)
            .map(|place| Slot(self.word(place)))
            .find(|slot| slot.agrees(want, Identity::CODE) && ages.is_live(slot.tag()))
    }

    /// Might a key that belongs here lie, or come to lie, in another line?
    /// Needs no lock; a guess.
    #[inline]
    pub(super) fn seems_full(&self) -> bool {
        self.word(SLOTS) != 0
    }

    /// The place of a slot that is empty or dead, if there is one.
    #[inline]
    pub(crate) fn free_slot(&self, ages: Ages) -> Option<usize> {
        probe::live(&self.words, ages).not().next()
    }

    #[cfg(test)]
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> {
        (1..WORDS).map(|index| Slot(self.word(index)))
    }

    /// Puts a slot into a place that `matches` or `free_slot` gave.
    #[inline]
    pub(crate) fn set_slot(&self, index: usize, slot: Slot) {
        debug_assert_ne!(index, HEADER);
        self.set_word(index, slot.0);
    }

    /// Empties the first live slot; what it held.
    pub(crate) fn take_live(&self, ages: Ages) -> Option<Slot> {
        let index = probe::live(&self.words, ages).next()?;
        let slot = Slot(self.word(index));
        self.set_slot(index, Slot::EMPTY);
        Some(slot)
    }

    /// Empties the line; the live slots that it held.
    pub(crate) fn take(&self, ages: Ages) -> impl Iterator<Item = Slot> + use<> {
        let live = probe::live(&self.words, ages);
        let held: [u64; WORDS] = std::array::from_fn(|index| self.word(index));
        (0..WORDS).for_each(|index| self.set_word(index, 0));
        live.map(move |index| Slot(held[index]))
    }

    /// Shows each live slot to `visit`, which may change it.
    #[inline]
    pub(crate) fn for_each_live(&self, ages: Ages, mut visit: impl FnMut(&mut Slot)) {
        for index in probe::live(&self.words, ages) {
            let mut slot = Slot(self.word(index));
            visit(&mut slot);
            self.set_slot(index, slot);
        }
    }

    fn header(&self) -> Header {
        Header(self.word(HEADER))
    }

    fn change_header(&self, change: impl FnOnce(&mut Header)) {
        let mut header = self.header();
        change(&mut header);
        self.set_word(HEADER, header.0);
    }

    /// True if no slot agrees with `want`, and surely none does that belongs
    /// here and lies elsewhere.
    #[inline]
    pub(super) fn surely_lacks(&self, want: Slot, identity: Identity) -> bool {
        let code = want.code();
        self.header().0 & (code.spilled_bit() | code.stashed_bit()) == 0
            && probe::agreeing(&self.words, want, identity) == probe::Mask::NONE
    }

    /// Might a key of `code` that belongs here lie in another line?
    pub(crate) fn may_have_spilled(&self, code: Code, ages: Ages) -> bool {
        self.header().says(SPILLED_UNTIL, code.spilled_bit(), ages)
    }

    /// Might a key of `code` that belongs here lie in the stash?
    #[inline]
    pub(crate) fn may_have_stashed(&self, code: Code, ages: Ages) -> bool {
        self.header().says(STASHED_UNTIL, code.stashed_bit(), ages)
    }

    /// Notes that a key that belongs here lies in another line.
    pub(crate) fn note_spilled(&self, slot: Slot, ages: Ages) {
        let bit = slot.code().spilled_bit();
        self.change_header(|header| header.note(SPILLED_UNTIL, bit, slot.tag(), ages));
    }

    /// Notes that a key that belongs here lies in the stash.
    pub(crate) fn note_stashed(&self, slot: Slot, ages: Ages) {
        let bit = slot.code().stashed_bit();
        self.change_header(|header| header.note(STASHED_UNTIL, bit, slot.tag(), ages));
    }

    /// Empties dead slots and forgets dead notes.
    pub(crate) fn clear_dead(&self, ages: Ages) {
        for index in probe::live(&self.words, ages).not() {
            self.set_slot(index, Slot::EMPTY);
        }
        self.change_header(|header| {
            header.clear_if_dead(SPILLED_UNTIL, ages);
            header.clear_if_dead(STASHED_UNTIL, ages);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ages(newest: i64, low: i64, tags: u8) -> Ages {
        Ages::new(Bucket(newest), Bucket(low), tags)
    }

    #[test]
    fn tags_read_back_as_their_buckets() {
        for newest in -40..40 {
            let ages = ages(newest, newest - 5, 11);
            for bucket in newest - 10..=newest {
                let tag = ages.tag(Bucket(bucket));
                assert_eq!(tag, Tag(tag_of(Bucket(bucket), 11)));
                assert_eq!(ages.bucket(tag), Bucket(bucket));
                assert_eq!(ages.is_live(tag), bucket >= newest - 5);
            }
            assert!(!ages.is_live(Tag(0)));
        }
    }

    #[test]
    fn nothing_is_live_when_low_is_past_newest() {
        let ages = ages(5, 9, 255);
        assert!(!ages.is_live(ages.tag(Bucket(5))));
    }

    #[test]
    fn an_address_replaces_all_but_code_and_tag() {
        let address = Address::of_bits(0x3_1234_5678);
        let slot = Slot::of_fingerprint(u64::MAX).tagged(Tag(3)).at_address(address);
        assert_eq!(slot.address(), address);
        assert_eq!(slot.code(), Code(0x3F_FFFF));
        assert_eq!(slot.tag(), Tag(3));
    }

    #[test]
    fn notes_keep_the_later_bucket_and_drop_dead_codes() {
        let early = ages(10, 5, 255);
        let a = Slot::of_fingerprint(1 << 53).tagged(early.tag(Bucket(9)));
        let b = Slot::of_fingerprint(2 << 53).tagged(early.tag(Bucket(7)));
        let line = Line::default();
        line.note_spilled(a, early);
        line.note_spilled(b, early);
        assert!(line.may_have_spilled(a.code(), early) && line.may_have_spilled(b.code(), early));
        let later = ages(15, 9, 255);
        assert!(line.may_have_spilled(b.code(), later), "noted until bucket 9");
        let dead = ages(15, 10, 255);
        assert!(!line.may_have_spilled(a.code(), dead));
        line.note_spilled(b.tagged(dead.tag(Bucket(15))), dead);
        assert!(!line.may_have_spilled(a.code(), dead), "codes of the dead are gone");
        line.clear_dead(ages(40, 30, 255));
        assert_eq!(line.header(), Header(0));
    }

    #[test]
    fn both_notes_are_independent() {
        let ages = ages(3, 0, 255);
        let slot = Slot::of_fingerprint(u64::MAX).tagged(ages.tag(Bucket(3)));
        let line = Line::default();
        line.note_stashed(slot, ages);
        assert!(line.may_have_stashed(slot.code(), ages));
        assert!(!line.may_have_spilled(slot.code(), ages));
    }
}
