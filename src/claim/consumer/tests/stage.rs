//! A store and a broker that outlive the processes at them.

use super::broker::{Away, Broker, Parcel};
use super::fate::{End, Fate, Mortal, Step};
use crate::claim::{Attempt, Consumed, Consumer, ConsumerBuilder, Unanswered};
use crate::confirm::catching;
use crate::confirm::claims::{MemoryClaims, Outcome};
use crate::time::{Clock, ManualClock, Timestamp};
use parking_lot::Mutex;
use std::future::{Future, poll_fn};
use std::mem::forget;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use thiserror::Error;
use tokio::task::yield_now;

pub(super) const LEASE: Duration = Duration::from_secs(300);

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("out of hats")]
pub(super) struct OutOfHats;

pub(super) type Came = Result<Consumed<OutOfHats>, Unanswered<OutOfHats, Away>>;

pub(super) struct Stage {
    pub(super) clock: Arc<ManualClock>,
    pub(super) store: Arc<MemoryClaims>,
    pub(super) broker: Arc<Broker>,
    /// The turns of all handlers, in order.
    turns: Mutex<Vec<Attempt>>,
    /// What their work has changed outside.
    effects: Mutex<u32>,
}

impl Stage {
    pub(super) fn new() -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_secs(1_000_000)));
        Self {
            store: Arc::new(MemoryClaims::with_clock(Arc::clone(&clock) as Arc<dyn Clock>)),
            broker: Broker::new(Arc::clone(&clock)),
            clock,
            turns: Mutex::default(),
            effects: Mutex::default(),
        }
    }

    /// The consumer of a process that has just started.
    pub(super) fn builder(&self, fate: &Fate) -> ConsumerBuilder<Mortal> {
        let mortal = Mortal { store: Arc::clone(&self.store), fate: fate.clone() };
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Consumer::builder(Consumer::gate(mortal).clock(clock).build().unwrap(), "hats")
    }

    pub(super) fn consumer(&self) -> Consumer<Mortal> {
        self.builder(&Fate::default()).build().unwrap()
    }

    pub(super) fn turns(&self) -> Vec<Attempt> {
        self.turns.lock().clone()
    }

    pub(super) fn effects(&self) -> u32 {
        *self.effects.lock()
    }

    /// Work with one effect outside, in a process of this fate.
    pub(super) async fn work(&self, attempt: Attempt, fate: &Fate) -> Result<Outcome, OutOfHats> {
        self.turns.lock().push(attempt);
        fate.at(Step::MidWork).await;
        *self.effects.lock() += 1;
        fate.at(Step::AfterWork).await;
        Ok(Outcome::success(*b"a hat"))
    }

    /// Delivers a message to processes that have just started, until one ends like this, or
    /// it is acknowledged.
    pub(super) async fn run_and_end(&self, number: usize, step: Step, end: End) {
        let fate = Fate::new(step, end);
        while !fate.is_met() {
            let Some(parcel) = self.broker.deliver(number, &fate) else { return };
            self.run(&parcel, &fate, end).await;
            self.broker.hang_up();
        }
    }

    async fn run(&self, parcel: &Parcel, fate: &Fate, end: End) {
        let consumer = self.builder(fate).build().unwrap();
        let work = |attempt| self.work(attempt, fate);
        let mut running = Box::pin(catching(consumer.consume(parcel, work)));
        let polled = poll_fn(|context| Poll::Ready(running.as_mut().poll(context))).await;
        if polled.is_pending() && end == End::Killed {
            // Nothing of the process has a chance to tidy up.
            forget(running);
        } else {
            drop(running);
            // A lease that was dropped frees its key in a task.
            yield_now().await;
        }
    }

    /// Delivers a message to a process that has just started, until it is acknowledged.
    pub(super) async fn run_until_acknowledged(&self, number: usize) {
        while let Some(parcel) = self.broker.deliver(number, &Fate::default()) {
            let came = self.consume(&self.consumer(), &parcel).await;
            assert!(!matches!(came, Ok(Consumed::Dead(_)) | Err(_)), "{came:?}");
        }
    }

    /// Has a message worked on.
    pub(super) async fn consume(&self, consumer: &Consumer<Mortal>, parcel: &Parcel) -> Came {
        let fate = Fate::default();
        consumer.consume(parcel, |attempt| self.work(attempt, &fate)).await
    }

    /// Delivers a message.
    pub(super) fn deliver(&self, number: usize) -> Parcel {
        self.broker.deliver(number, &Fate::default()).unwrap()
    }
}
