//! A broker in memory that delivers again what is not acknowledged.

use super::fate::{Fate, Step};
use crate::claim::Delivery;
use crate::time::{Clock, ManualClock, Timestamp};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// A queue, on the time of a clock that is moved by hand.
pub(super) struct Broker {
    clock: Arc<ManualClock>,
    messages: Mutex<Vec<Message>>,
    is_away: Mutex<bool>,
}

struct Message {
    key: String,
    payload: String,
    state: State,
    /// After how long it was handed back, each time.
    nacks: Vec<Duration>,
    /// How often it was said to be worked on.
    beats: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { due: Timestamp },
    Delivered,
    Acknowledged,
}

/// A message as delivered, to a process that may end before or after acknowledging it.
pub(super) struct Parcel {
    broker: Arc<Broker>,
    number: usize,
    key: String,
    payload: String,
    fate: Fate,
}

#[derive(Debug, PartialEq, Eq, Error)]
#[error("the broker is away")]
pub(super) struct Away;

impl Broker {
    pub(super) fn new(clock: Arc<ManualClock>) -> Arc<Self> {
        Arc::new(Self { clock, messages: Mutex::default(), is_away: Mutex::default() })
    }

    /// The new message's number.
    pub(super) fn publish(&self, key: &str, payload: &str) -> usize {
        let (key, payload) = (key.to_owned(), payload.to_owned());
        let state = State::Waiting { due: self.clock.now() };
        let mut messages = self.messages.lock();
        messages.push(Message { key, payload, state, nacks: Vec::new(), beats: 0 });
        messages.len() - 1
    }

    /// Delivers a message, to a process of this fate; first moves the clock to when it is
    /// due. `None`: it was acknowledged.
    pub(super) fn deliver(self: &Arc<Self>, number: usize, fate: &Fate) -> Option<Parcel> {
        let message = &mut self.messages.lock()[number];
        let State::Waiting { due } = message.state else {
            assert_eq!(message.state, State::Acknowledged, "it was never handed back");
            return None;
        };
        self.clock.set(due.max(self.clock.now()));
        message.state = State::Delivered;
        let (broker, fate) = (Arc::clone(self), fate.clone());
        let (key, payload) = (message.key.clone(), message.payload.clone());
        Some(Parcel { broker, number, key, payload, fate })
    }

    /// All processes have hung up: what they have is to be delivered again.
    pub(super) fn hang_up(&self) {
        let due = self.clock.now();
        for message in self.messages.lock().iter_mut() {
            if message.state == State::Delivered {
                message.state = State::Waiting { due };
            }
        }
    }

    /// Can processes reach it no more, or again?
    pub(super) fn set_away(&self, is_away: bool) {
        *self.is_away.lock() = is_away;
    }

    pub(super) fn is_acknowledged(&self, number: usize) -> bool {
        self.messages.lock()[number].state == State::Acknowledged
    }

    pub(super) fn nacks(&self, number: usize) -> Vec<Duration> {
        self.messages.lock()[number].nacks.clone()
    }

    pub(super) fn beats(&self, number: usize) -> u32 {
        self.messages.lock()[number].beats
    }
}

impl Parcel {
    fn tell(&self, change: impl FnOnce(&mut Message)) -> Result<(), Away> {
        if *self.broker.is_away.lock() {
            return Err(Away);
        }
        change(&mut self.broker.messages.lock()[self.number]);
        Ok(())
    }
}

impl Delivery for Parcel {
    type Error = Away;

    fn key(&self) -> &[u8] {
        self.key.as_bytes()
    }

    fn payload(&self) -> &[u8] {
        self.payload.as_bytes()
    }

    async fn ack(&self) -> Result<(), Away> {
        self.fate.at(Step::BeforeAck).await;
        let acked = self.tell(|message| message.state = State::Acknowledged);
        self.fate.at(Step::AfterAck).await;
        acked
    }

    async fn nack(&self, delay: Duration) -> Result<(), Away> {
        let due = self.broker.clock.now().saturating_add(delay);
        self.tell(|message| {
            message.state = State::Waiting { due };
            message.nacks.push(delay);
        })
    }

    async fn progress(&self) -> Result<(), Away> {
        self.tell(|message| message.beats += 1)
    }
}
