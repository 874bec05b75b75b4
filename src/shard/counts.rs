//! How many live keys each bucket holds.

use crate::time::Bucket;

/// Live keys per bucket, in a ring over the buckets that can be live at once.
#[derive(Debug)]
pub(super) struct Counts {
    keys: Box<[u32]>,
    live: u32,
}

impl Counts {
    /// For shards in which at most `reach` successive buckets are live.
    pub(super) fn new(reach: usize) -> Self {
        Self { keys: vec![0; reach].into(), live: 0 }
    }

    /// All live keys.
    #[inline]
    pub(super) const fn live(&self) -> u32 {
        self.live
    }

    #[inline]
    pub(super) fn add(&mut self, bucket: Bucket) {
        *self.cell(bucket) += 1;
        self.live += 1;
    }

    #[inline]
    pub(super) fn remove(&mut self, bucket: Bucket) {
        *self.cell(bucket) -= 1;
        self.live -= 1;
    }

    /// Drops a whole bucket; how many keys it held.
    pub(super) fn drop_bucket(&mut self, bucket: Bucket) -> u32 {
        let dropped = std::mem::take(self.cell(bucket));
        self.live -= dropped;
        dropped
    }

    /// The earliest bucket from `low` on that holds a key.
    pub(super) fn oldest(&mut self, low: Bucket) -> Option<Bucket> {
        (0..self.keys.len() as i64)
            .map(|step| low.plus(step))
            .find(|bucket| *self.cell(*bucket) > 0)
    }

    /// How many successive buckets the ring tells apart.
    pub(super) fn reach(&self) -> i64 {
        self.keys.len() as i64
    }

    #[inline]
    fn cell(&mut self, bucket: Bucket) -> &mut u32 {
        let index = bucket.0.rem_euclid(self.keys.len() as i64);
        &mut self.keys[index as usize]
    }
}
