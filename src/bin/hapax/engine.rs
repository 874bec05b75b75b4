//! The deduper as the flags ask for it.

use crate::error::Failure;
use crate::spill::Spilling;
use hapax::{BatchError, Builder, Deduper, Mode, OnFull, Stats, Timestamp, Verdict, Window};
use std::path::PathBuf;
use std::time::Duration;

/// Everything that the library is told.
#[derive(Clone, Debug)]
pub(crate) struct EnginePlan {
    /// `None`: the whole run.
    pub(crate) window: Option<WindowPlan>,
    /// `None`: the time of arrival counts.
    pub(crate) event_time: Option<EventTime>,
    pub(crate) mode: Mode,
    pub(crate) cap: Option<Cap>,
    /// Expected keys, where the size of the input tells.
    pub(crate) capacity: Option<u64>,
    /// How many such engines there are.
    pub(crate) sharers: u64,
}

/// A cap on memory, and what happens to new keys there.
#[derive(Clone, Debug)]
pub(crate) enum Cap {
    Reject {
        bytes: u64,
    },
    EvictOldest {
        bytes: u64,
    },
    /// Older keys go to a file in `folder`; the cap is on the process as a whole.
    Spill {
        process_bytes: u64,
        folder: PathBuf,
    },
}

/// For how long a record counts as seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowPlan {
    pub(crate) span: Duration,
    pub(crate) is_sliding: bool,
    /// `None`: as many as the library thinks best.
    pub(crate) buckets: Option<u32>,
}

impl WindowPlan {
    fn window(self) -> Window {
        let kind = if self.is_sliding { Window::sliding } else { Window::fixed };
        let window = kind(self.span);
        self.buckets.map_or(window, |buckets| window.buckets(buckets))
    }
}

/// How far records may be out of order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventTime {
    pub(crate) lateness: Duration,
    pub(crate) max_ahead: Option<Duration>,
}

impl EnginePlan {
    /// Builds the engine.
    ///
    /// # Errors
    ///
    /// The library's, naming every problem; and there may be no place for keys
    /// that do not fit into memory.
    pub(crate) fn build(&self) -> Result<Engine, Failure> {
        let keys = match &self.cap {
            Some(Cap::Spill { process_bytes, folder }) => {
                Keys::Spilling(Spilling::build(self.builder(), *process_bytes, folder)?)
            }
            _ => Keys::InMemory(self.build_in_memory()?),
        };
        Ok(Engine { keys, is_event_time: self.event_time.is_some() })
    }

    /// Builds a deduper whose keys are all in memory.
    ///
    /// # Errors
    ///
    /// The library's, naming every problem.
    pub(crate) fn build_in_memory(&self) -> Result<Deduper, Failure> {
        let mut builder = self.builder();
        if let Some(capacity) = self.capacity {
            builder = builder.capacity(capacity);
        }
        let cap = match self.cap {
            Some(Cap::Reject { bytes }) => Some((bytes, OnFull::Reject)),
            Some(Cap::EvictOldest { bytes }) => Some((bytes, OnFull::EvictOldest)),
            None | Some(Cap::Spill { .. }) => None,
        };
        if let Some((bytes, on_full)) = cap {
            builder = builder.memory_limit(bytes / self.sharers, on_full);
        }
        builder.build().map_err(|error| Failure::config(error, self.sharers))
    }

    /// All but how much memory there is, and how many keys.
    fn builder(&self) -> Builder {
        let window = self.window.map_or_else(Window::unbounded, WindowPlan::window);
        let mut builder = Deduper::builder(window).mode(self.mode);
        if let Some(EventTime { lateness, max_ahead }) = self.event_time {
            builder = builder.event_time(lateness);
            if let Some(max_ahead) = max_ahead {
                builder = builder.max_ahead(max_ahead);
            }
        }
        builder
    }

    /// One of `engines` that share the memory limit.
    #[must_use]
    pub(crate) fn sharing_memory(self, engines: u64) -> Self {
        Self { sharers: engines, ..self }
    }

    /// A plan for an engine that is asked about a part of this one's keys and
    /// never forgets one of them earlier than this one does.
    ///
    /// Its window is wider than what a window, its lateness and two buckets
    /// can add up to. It has seen no later time than this one, and is more
    /// patient by more than a bucket, so nothing that this one accepts is late
    /// for it; nor may it be too far ahead.
    pub(crate) fn outlasting(&self) -> Self {
        let Some(window) = self.window else { return self.clone() };
        let event_time = self.event_time.map(|event| EventTime {
            lateness: event.lateness.saturating_add(window.span),
            max_ahead: Some(Duration::MAX),
        });
        let window = WindowPlan { span: window.span.saturating_mul(4), ..window };
        Self { window: Some(window), event_time, ..self.clone() }
    }
}

/// A deduper that knows which of its calls is meant.
pub(crate) struct Engine {
    keys: Keys,
    is_event_time: bool,
}

/// Where keys are.
enum Keys {
    InMemory(Deduper),
    Spilling(Spilling),
}

impl Engine {
    /// Checks `keys` in order, at `times` in event time.
    pub(crate) fn check(
        &self,
        keys: &[&[u8]],
        times: &[Timestamp],
        verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        let times = self.is_event_time.then_some(times);
        match (&self.keys, times) {
            (Keys::Spilling(spilling), times) => spilling.check(keys, times, verdicts),
            (Keys::InMemory(deduper), Some(times)) => deduper.check_batch_at(keys, times, verdicts),
            (Keys::InMemory(deduper), None) => deduper.check_batch(keys, verdicts),
        }
    }

    /// Where keys go that do not fit into memory.
    pub(crate) fn spilling(&self) -> Option<&Spilling> {
        match &self.keys {
            Keys::InMemory(_) => None,
            Keys::Spilling(spilling) => Some(spilling),
        }
    }

    /// The deduper's own counters.
    pub(crate) fn stats(&self) -> Stats {
        match &self.keys {
            Keys::InMemory(deduper) => deduper.stats(),
            Keys::Spilling(spilling) => spilling.stats(),
        }
    }
}
