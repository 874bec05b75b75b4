//! The deduper as the flags ask for it.

use hapax::{
    BatchError, CheckError, ConfigError, Deduper, Mode, OnFull, Stats, Timestamp, Verdict, Window,
};
use std::time::Duration;

/// Everything that the library is told.
#[derive(Clone, Debug)]
pub(crate) struct EnginePlan {
    /// `None`: the whole run.
    pub(crate) window: Option<WindowPlan>,
    /// `None`: the time of arrival counts.
    pub(crate) event_time: Option<EventTime>,
    pub(crate) mode: Mode,
    pub(crate) memory: Option<(u64, OnFull)>,
    /// Expected keys, where the size of the input tells.
    pub(crate) capacity: Option<u64>,
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
    /// The library's, naming every problem.
    pub(crate) fn build(&self) -> Result<Engine, ConfigError> {
        let window = self.window.map_or_else(Window::unbounded, WindowPlan::window);
        let mut builder = Deduper::builder(window).mode(self.mode);
        if let Some(capacity) = self.capacity {
            builder = builder.capacity(capacity);
        }
        if let Some((bytes, on_full)) = self.memory {
            builder = builder.memory_limit(bytes, on_full);
        }
        if let Some(EventTime { lateness, max_ahead }) = self.event_time {
            builder = builder.event_time(lateness);
            if let Some(max_ahead) = max_ahead {
                builder = builder.max_ahead(max_ahead);
            }
        }
        Ok(Engine { deduper: builder.build()?, is_event_time: self.event_time.is_some() })
    }

    /// Divides the memory limit between `engines` that share it.
    #[must_use]
    pub(crate) fn sharing_memory(mut self, engines: u64) -> Self {
        self.memory = self.memory.map(|(bytes, on_full)| (bytes / engines, on_full));
        self
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
    deduper: Deduper,
    is_event_time: bool,
}

impl Engine {
    /// Checks `keys` in order, at `times` in event time.
    pub(crate) fn check(
        &self,
        keys: &[&[u8]],
        times: &[Timestamp],
        verdicts: &mut [Verdict],
    ) -> Result<(), BatchError> {
        if self.is_event_time {
            self.deduper.check_batch_at(keys, times, verdicts)
        } else {
            self.deduper.check_batch(keys, verdicts)
        }
    }

    /// Checks one key, at `time` in event time.
    pub(crate) fn check_one(
        &self,
        key: &[u8],
        time: Option<Timestamp>,
    ) -> Result<Verdict, CheckError> {
        match time {
            Some(time) => self.deduper.check_at(key, time),
            None => self.deduper.check(key),
        }
    }

    /// Forgets one key.
    pub(crate) fn forget(&self, key: &[u8]) {
        self.deduper.forget(key);
    }

    /// The deduper's own counters.
    pub(crate) fn stats(&self) -> Stats {
        self.deduper.stats()
    }
}
