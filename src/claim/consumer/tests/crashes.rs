//! Processes that end at each step of a message.

use super::fate::{End, Step};
use super::stage::{LEASE, Stage};
use crate::time::Clock;

/// What must have happened once processes have ended at these steps, and another has come
/// to no harm.
#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    effects: u32,
    is_kept: bool,
    is_acknowledged: bool,
}

impl Expected {
    fn after(steps: &[Step]) -> Self {
        let mut expected = Self::default();
        for step in steps {
            expected.end_at(*step);
        }
        // The last one.
        expected.end_at(Step::AfterAck);
        expected
    }

    fn end_at(&mut self, step: Step) {
        use Step::{AfterAck, AfterClaim, AfterOutcome, AfterWork, BeforeAck};
        use Step::{BeforeClaim, BeforeOutcome, MidWork};
        if self.is_acknowledged {
            return;
        }
        let works = !self.is_kept && !matches!(step, BeforeClaim | AfterClaim | MidWork);
        self.effects += u32::from(works);
        self.is_kept |= matches!(step, AfterOutcome | BeforeAck | AfterAck);
        // A process in which the key is finished comes to no step of the work.
        let skips = matches!(step, MidWork | AfterWork | BeforeOutcome | AfterOutcome);
        self.is_acknowledged = step == AfterAck || (self.is_kept && !works && skips);
    }
}

async fn check(steps: &[Step], end: End) {
    let stage = Stage::new();
    let started = stage.clock.now();
    let number = stage.broker.publish("hat-17", "2 hats");
    for step in steps {
        stage.run_and_end(number, *step, end).await;
    }
    stage.run_until_acknowledged(number).await;
    let expected = Expected::after(steps);
    assert_eq!(stage.effects(), expected.effects, "{end:?} at {steps:?}");
    // No end keeps the key for longer than a lease.
    let longest = started.saturating_add(LEASE * (steps.len() as u32));
    assert!(stage.clock.now() <= longest, "{end:?} at {steps:?}");
    for turn in stage.turns().iter().skip(1) {
        assert!(turn.number > 1, "{end:?} at {steps:?}");
        assert!(turn.is_takeover || end != End::Killed, "{end:?} at {steps:?}");
    }
}

/// All sequences of up to so many steps.
fn sequences(longest: usize) -> Vec<Vec<Step>> {
    let mut all = vec![Vec::new()];
    let mut start = 0;
    for _ in 0..longest {
        let end = all.len();
        for index in start..end {
            for step in Step::ALL {
                all.push([all[index].as_slice(), &[step]].concat());
            }
        }
        start = end;
    }
    all
}

#[tokio::test(start_paused = true)]
async fn no_message_is_lost_and_only_an_end_between_work_and_outcome_repeats_it() {
    let sequences = sequences(3);
    assert_eq!(sequences.len(), 1 + 8 + 64 + 512);
    for end in [End::Killed, End::Dropped] {
        for steps in &sequences {
            check(steps, end).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_at_any_step_loses_no_message_either() {
    for steps in &sequences(2) {
        check(steps, End::Panicked).await;
    }
}

/// One step at a time, for whoever reads: effects, and whether the repeated work was told.
#[tokio::test(start_paused = true)]
async fn what_each_crash_comes_to() {
    let table = [
        (Step::BeforeClaim, 1, [false].as_slice()),
        // Nothing was done, and nobody knows.
        (Step::AfterClaim, 1, &[true]),
        (Step::MidWork, 1, &[false, true]),
        (Step::AfterWork, 2, &[false, true]),
        (Step::BeforeOutcome, 2, &[false, true]),
        (Step::AfterOutcome, 1, &[false]),
        (Step::BeforeAck, 1, &[false]),
        (Step::AfterAck, 1, &[false]),
    ];
    for (step, effects, takeovers) in table {
        let stage = Stage::new();
        let number = stage.broker.publish("hat-17", "2 hats");
        stage.run_and_end(number, step, End::Killed).await;
        stage.run_until_acknowledged(number).await;
        let told: Vec<bool> = stage.turns().iter().map(|turn| turn.is_takeover).collect();
        assert_eq!((stage.effects(), told.as_slice()), (effects, takeovers), "{step:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_comes_back_late_cannot_keep_its_outcome() {
    use crate::claim::{Consumed, LeaseError, Retry};
    use std::future::Future;
    use std::task::Poll;

    let stage = Stage::new();
    let number = stage.broker.publish("hat-17", "2 hats");
    let consumer = stage.consumer();
    let parcel = stage.deliver(number);
    let (go_on, paused) = tokio::sync::oneshot::channel();
    let stage = &stage;
    let mut late = Box::pin(consumer.consume(&parcel, |attempt| async move {
        paused.await.unwrap();
        stage.work(attempt, &super::fate::Fate::default()).await
    }));
    let polled = std::future::poll_fn(|context| Poll::Ready(late.as_mut().poll(context))).await;
    assert!(polled.is_pending());
    // The broker gives up on it, and so does the store.
    stage.broker.hang_up();
    stage.clock.advance(LEASE);
    stage.run_until_acknowledged(number).await;
    go_on.send(()).unwrap();
    let Ok(Consumed::Retried { reason, .. }) = late.await else { panic!("not handed back") };
    assert_eq!(reason, Retry::Unsettled(LeaseError::Stale));
    assert_eq!(
        stage.turns().iter().map(|turn| turn.is_takeover).collect::<Vec<_>>(),
        [true, false]
    );
}
