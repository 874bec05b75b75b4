//! Keys from numbers.

pub(crate) type Key = [u8; 16];

/// The 16-byte key with this number: distinct, and not in numeric order.
pub(crate) fn key(number: u64) -> Key {
    (u128::from(number) << 64 | u128::from(mixed(number))).to_le_bytes()
}

/// The finalizer of `SplitMix64` (Steele, Lea and Flood 2014): of successive
/// numbers, numbers that look random.
pub(crate) const fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
