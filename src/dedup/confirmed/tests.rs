//! What callers cannot bring about from outside.

use crate::confirm::{AsyncConfirmer, Inline, MemoryConfirmer, Outage, Ownership, Reject};
use crate::dedup::Deduper;
use crate::time::Window;
use crate::verdict::Verdict;
use std::time::Duration;

/// The futures can be sent to other threads, whatever the confirmers.
#[test]
fn futures_are_send() {
    fn is_send<T: Send>(_: &T) {}
    fn all_are<C: AsyncConfirmer, P: Outage<Instead: AsyncConfirmer>>(dedup: &Deduper<C, P>) {
        is_send(&dedup.check_async(b"key"));
        is_send(&dedup.check_batch_async(&[b"key"], &mut [Verdict::Duplicate]));
        is_send(&dedup.contains_async(b"key"));
        is_send(&dedup.forget_async(b"key"));
        is_send(&dedup.maintain_async(Duration::ZERO));
    }
    let builder = Deduper::builder(Window::unbounded()).capacity(1);
    let store = Inline(MemoryConfirmer::new());
    all_are(&builder.confirm(store, Ownership::Shared, Reject).build().unwrap());
}
