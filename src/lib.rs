//! In-process deduplication: *has this key been seen within the window?*
//!
//! ```
//! use hapax::{Deduper, Verdict, Window};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dedup = Deduper::builder(Window::fixed(Duration::from_secs(600))).build()?;
//! assert_eq!(dedup.check(b"order-17")?, Verdict::Unique);
//! assert_eq!(dedup.check(b"order-17")?, Verdict::Duplicate);
//! # Ok(())
//! # }
//! ```

/// What tests share with those outside of the crate calls it by its name.
#[cfg(test)]
extern crate self as hapax;

#[cfg(feature = "claims")]
pub mod claim;
pub mod confirm;
mod dedup;
mod filter;
mod hash;
#[cfg(feature = "http")]
pub mod http;
mod map;
mod memory;
mod mode;
mod shard;
mod stats;
mod sync;
mod table;
mod time;
mod verdict;

pub use dedup::{
    BatchError, BatchErrorKind, Builder, CheckError, ConfigError, ConfigProblem, Deduper,
};
pub use hash::{KeyHash, composite};
pub use memory::OnFull;
pub use mode::Mode;
pub use stats::{ConfirmerStats, FilterStats, Stats};
pub use time::{Clock, MAX_BUCKETS, ManualClock, SystemClock, Timestamp, Window};
pub use verdict::Verdict;

/// The README's examples, as tests.
#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct ReadmeDoctests;
