//! What callers cannot bring about from outside.

use super::Begun;
use crate::confirm::{
    AnsweredBy, AsyncConfirmer, Confirmed, Confirmer as _, Inline, MemoryConfirmer, Outage,
    Ownership, Reject, StoreErrorKind,
};
use crate::dedup::tier::{Next, Replies, Round};
use crate::dedup::{CheckError, Deduper};
use crate::time::Window;
use crate::verdict::Verdict;
use std::sync::Arc;
use std::time::Duration;

type Tiered = Deduper<Arc<MemoryConfirmer>>;

fn tiered(store: &Arc<MemoryConfirmer>, ownership: Ownership<Arc<MemoryConfirmer>>) -> Tiered {
    Deduper::builder(Window::unbounded())
        .capacity(1)
        .confirm(Arc::clone(store), ownership, Reject)
        .build()
        .unwrap()
}

fn asking<'a>(dedup: &'a Tiered, key: &'a [u8]) -> Round<'a> {
    match dedup.begin_one(key, None) {
        Ok(Begun::Asking(round)) => round,
        _ => panic!("memory cannot judge a new key"),
    }
}

/// The store records the keys that it is asked about, and its answers get lost.
fn is_unheard(ownership: Ownership<Arc<MemoryConfirmer>>, answers: Option<Confirmed>) {
    let store = Arc::new(MemoryConfirmer::new());
    let dedup = tiered(&store, ownership);
    let mut round = asking(&dedup, b"key");
    let mut verdicts = [Verdict::Duplicate];
    assert!(matches!(round.next(&mut verdicts), Next::Ask));
    let sightings = [round.questions(), round.recordings()].concat();
    store.confirm(&sightings, dedup.behind().tiers.rule()).unwrap();
    let reply = answers.map(Ok);
    let replies = if round.questions().is_empty() {
        Replies { judged: None, recorded: reply }
    } else {
        Replies { judged: reply, recorded: None }
    };
    let (index, error) = round.settle(replies, &mut verdicts).unwrap_err();
    assert_eq!((index, error.kind()), (0, StoreErrorKind::Faulty));
    assert!(matches!(CheckError::from(error), CheckError::Uncertain(_)));
    drop(round);
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Unique), "asked about again in its stead");
    assert_eq!(dedup.check(b"key"), Ok(Verdict::Duplicate));
}

#[test]
fn a_key_without_an_answer_is_no_duplicate() {
    for ownership in [Ownership::Shared, Ownership::Exclusive] {
        is_unheard(ownership, None);
        is_unheard(ownership, Some(Confirmed::by(AnsweredBy::Primary, vec![])));
    }
}

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
