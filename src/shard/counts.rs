//! How many live keys each bucket holds.

use crate::time::Bucket;

/// Live keys per bucket, in a ring over the buckets that can be live at once.
/// Counting a key of the newest bucket touches no more than [`HOT_BYTES`](Counts::HOT_BYTES).
#[derive(Debug)]
#[repr(C)]
pub(super) struct Counts {
    /// All live keys.
    live: u32,
    /// Those of the newest bucket, which nearly all checks count in, are kept
    /// apart from the ring: one cache line less in each check of a new key.
    newest_keys: u32,
    newest: Bucket,
    older_keys: Box<[u32]>,
}

impl Counts {
    /// What counting a key of the newest bucket touches.
    pub(super) const HOT_BYTES: usize = std::mem::offset_of!(Self, newest);

    /// For shards in which at most `reach` successive buckets are live.
    pub(super) fn new(newest: Bucket, reach: usize) -> Self {
        Self { live: 0, newest_keys: 0, newest, older_keys: vec![0; reach].into() }
    }

    /// All live keys.
    #[inline]
    pub(super) const fn live(&self) -> u32 {
        self.live
    }

    #[inline]
    pub(super) fn add(&mut self, bucket: Bucket) {
        self.live += 1;
        *self.cell(bucket) += 1;
    }

    /// Counts a key of the newest bucket in.
    #[inline]
    pub(super) fn add_newest(&mut self) {
        self.live += 1;
        self.newest_keys += 1;
    }

    #[inline]
    pub(super) fn remove(&mut self, bucket: Bucket) {
        self.live -= 1;
        *self.cell(bucket) -= 1;
    }

    /// Drops a whole bucket; how many keys it held.
    pub(super) fn drop_bucket(&mut self, bucket: Bucket) -> u32 {
        let dropped = std::mem::take(self.cell(bucket));
        self.live -= dropped;
        dropped
    }

    /// Moves on to a later newest bucket. The buckets that fall out of the
    /// ring must have been dropped.
    pub(super) fn advance(&mut self, newest: Bucket) {
        let keys = std::mem::take(&mut self.newest_keys);
        *self.older(self.newest) = keys;
        self.newest = newest;
        self.newest_keys = std::mem::take(self.older(newest));
        debug_assert_eq!(self.newest_keys, 0, "a bucket in the future held keys");
    }

    /// The earliest bucket from `low` on that holds a key.
    pub(super) fn oldest(&mut self, low: Bucket) -> Option<Bucket> {
        (0..self.reach()).map(|step| low.plus(step)).find(|bucket| *self.cell(*bucket) > 0)
    }

    /// How many successive buckets the ring tells apart.
    pub(super) fn reach(&self) -> i64 {
        self.older_keys.len() as i64
    }

    #[inline]
    fn cell(&mut self, bucket: Bucket) -> &mut u32 {
        if bucket == self.newest { &mut self.newest_keys } else { self.older(bucket) }
    }

    fn older(&mut self, bucket: Bucket) -> &mut u32 {
        let index = bucket.0.rem_euclid(self.reach());
        &mut self.older_keys[index as usize]
    }
}
