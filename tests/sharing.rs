//! What the types promise before any check is made.

use hapax::{Builder, Deduper, ManualClock, Stats, SystemClock, Verdict, Window};
use std::time::Duration;

const fn shared_between_threads<T: Send + Sync>() {}
const fn sent_to_a_thread<T: Send>() {}

const _: () = {
    shared_between_threads::<Deduper>();
    shared_between_threads::<ManualClock>();
    shared_between_threads::<SystemClock>();
    shared_between_threads::<Stats>();
    sent_to_a_thread::<Verdict>();
};

#[test]
fn the_defaults_work_on_the_system_clock() {
    let builder: Builder = Deduper::builder(Window::fixed(Duration::from_secs(600)));
    let dedup = builder.build().expect("the defaults are a valid configuration");
    assert_eq!(dedup.check(b"order-17"), Ok(Verdict::Unique));
    assert_eq!(dedup.check(b"order-17"), Ok(Verdict::Duplicate));
    assert_eq!(dedup.check(b"order-18"), Ok(Verdict::Unique));
    assert_eq!(dedup.contains(b"order-18"), Ok(true));
    assert!(dedup.forget(b"order-18"));
    assert_eq!(dedup.contains(b"order-18"), Ok(false));
}
