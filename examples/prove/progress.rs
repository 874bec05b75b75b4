//! How far a long measure has come.

use indicatif::{ProgressBar, ProgressStyle};

/// Shown only where standard error is a terminal.
pub(crate) fn progress_bar(total: u64, unit: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} {msg}, {eta} left");
    ProgressBar::new(total).with_style(style.expect("a valid template")).with_message(unit)
}
