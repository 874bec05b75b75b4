//! The command line as its users see it: bytes in, bytes out, one line on
//! standard error, and an exit status.
//!
//! What comes out is compared with models in `cli/model.rs`, which know
//! nothing of how the tool works.

#[path = "cli/model.rs"]
mod model;
#[path = "cli/tool.rs"]
mod tool;

#[path = "cli/csv.rs"]
mod csv;
#[path = "cli/jsonl.rs"]
mod jsonl;
#[path = "cli/lines.rs"]
mod lines;
#[path = "cli/memory.rs"]
mod memory;
#[path = "cli/output.rs"]
mod output;
#[path = "cli/spill.rs"]
mod spill;
#[path = "cli/streams.rs"]
mod streams;
#[path = "cli/usage.rs"]
mod usage;
#[path = "cli/windows.rs"]
mod windows;
