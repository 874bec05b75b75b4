//! What a run has done, for people and for programs.

use crate::args::StatsStyle;
use hapax::{Stats, Verdict};
use serde_json::json;
use std::io::Write as _;
use std::time::Duration;

/// What became of the records.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) uniques: u64,
    pub(crate) duplicates: u64,
    pub(crate) late: u64,
    /// Records that could not be checked and were passed or dropped.
    pub(crate) errors: u64,
    pub(crate) read_bytes: u64,
}

impl Counts {
    /// Counts a checked record.
    pub(crate) fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Unique | Verdict::Unconfirmed => self.uniques += 1,
            Verdict::Duplicate => self.duplicates += 1,
            Verdict::Late => self.late += 1,
        }
    }

    fn records(&self) -> u64 {
        self.uniques + self.duplicates + self.late + self.errors
    }
}

/// A run as a whole.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) counts: Counts,
    pub(crate) written_bytes: u64,
    pub(crate) elapsed: Duration,
    pub(crate) engine: Stats,
    /// What the file takes in which keys are that do not fit into memory.
    pub(crate) file_bytes: u64,
}

impl Summary {
    /// Writes it to standard error; that nobody reads it is no failure.
    pub(crate) fn print(&self, style: StatsStyle) {
        let line = match style {
            StatsStyle::Text => self.text(),
            StatsStyle::Json => self.json(),
        };
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    fn text(&self) -> String {
        let Counts { uniques, duplicates, late, errors, read_bytes } = self.counts;
        let records = self.counts.records();
        let mut parts = vec![format!("{uniques} unique"), format!("{duplicates} duplicate")];
        let evicted = self.engine.evicted;
        for (count, what) in [
            (late, "late"),
            (errors, "with errors"),
            (evicted, "forgotten early at the cap"),
            (self.spilled(), "spilled"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        let seconds = self.elapsed.as_secs_f64();
        format!(
            "hapax: {records} records: {}; {read_bytes} bytes read, {} written, {seconds:.3} s, \
             {} bytes of keys{}",
            parts.join(", "),
            self.written_bytes,
            self.engine.memory_bytes,
            self.file(),
        )
    }

    fn file(&self) -> String {
        match self.file_bytes {
            0 => String::new(),
            bytes => format!(", {bytes} bytes of disk"),
        }
    }

    /// Keys that are no longer in memory, but in the file.
    fn spilled(&self) -> u64 {
        self.engine.confirmer.as_ref().map_or(0, |confirmer| confirmer.spilled)
    }

    fn json(&self) -> String {
        let Counts { uniques, duplicates, late, errors, read_bytes } = self.counts;
        json!({
            "records": self.counts.records(),
            "uniques": uniques,
            "duplicates": duplicates,
            "late": late,
            "errors": errors,
            "read_bytes": read_bytes,
            "written_bytes": self.written_bytes,
            "seconds": self.elapsed.as_secs_f64(),
            "live_keys": self.engine.live_keys,
            "memory_bytes": self.engine.memory_bytes,
            "evicted": self.engine.evicted,
            "spilled": self.spilled(),
            "file_bytes": self.file_bytes,
            "false_duplicate_rate": self.engine.false_duplicate_rate,
            "effective_window_seconds": self.engine.effective_window.map(|span| span.as_secs_f64()),
        })
        .to_string()
    }
}
