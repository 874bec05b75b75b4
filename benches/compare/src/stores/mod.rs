//! Stores on disk under the load of a confirmer: batches of new keys, rare
//! look-ups, buckets that are dropped whole.
//!
//! ```text
//! cargo run --release --manifest-path benches/compare/Cargo.toml -- stores
//! ```
//!
//! Each store is measured in a process of its own, whose peak of resident memory
//! is then its own. It is filled bucket by bucket; then keys of all buckets are
//! looked up, new ones and known ones; then the oldest bucket is dropped; last it is
//! closed and opened again, with whatever its opening checks.
//!
//! redb is used as one would at first, with a table for each bucket into which
//! keys are put as they come; fjall with a keyspace for each bucket. At `os` redb's
//! syncs are left out below it, because its own commits without durability do not
//! outlive the process.

mod fjall;
mod hapax;
mod measure;
mod redb;

use crate::report::table;
use crate::write;
use clap::{Args, ValueEnum};
use measure::Figures;
use serde::Serialize;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fmt};

/// Measures stores on disk: batches of new keys, look-ups, dropped buckets.
#[derive(Args, Debug)]
pub(crate) struct Stores {
    /// Only these stores
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    stores: Vec<Kind>,

    /// Only these durabilities
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    durabilities: Vec<Durability>,

    /// New keys of 16 bytes, over eight buckets
    #[arg(long, default_value_t = 10_000_000)]
    keys: u64,

    /// The folder for the stores' files, on the disk that is to be measured
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,

    /// Write the figures as JSON to a file, or to standard output if it is `-`
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Measure one store in this process and print its figures
    #[arg(long, hide = true)]
    here: bool,
}

/// A store to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    Hapax,
    Redb,
    Fjall,
}

/// What a written batch outlives: the process, or the machine's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Durability {
    Os,
    Synced,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hapax => "hapax",
            Self::Redb => "redb",
            Self::Fjall => "fjall",
        })
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Os { "os" } else { "synced" })
    }
}

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A key of the load.
type Key = [u8; 16];

/// What is measured of a store. Memory for pages is 64 MiB in all of them.
trait Store {
    /// Writes new keys of one bucket at once.
    fn write(&mut self, bucket: u64, keys: &[Key]) -> Outcome;

    /// True iff one of the buckets, 0 to `newest`, holds the key.
    fn find(&self, newest: u64, key: &Key) -> Outcome<bool>;

    /// Drops the oldest bucket.
    fn drop_oldest(&mut self) -> Outcome;
}

impl Stores {
    pub(crate) fn run(&self) -> Outcome {
        let figures = self.cases().map(|(store, durability)| self.measure(store, durability));
        let figures = figures.collect::<Outcome<Vec<_>>>()?;
        if self.here {
            return Ok(serde_json::to_writer(std::io::stdout(), &figures)?);
        }
        let mut rows = table(Figures::HEADER);
        for figure in &figures {
            rows.add_row(figure.row());
        }
        write(&rows.to_string(), &figures, self.json.as_deref())
    }

    fn cases(&self) -> impl Iterator<Item = (Kind, Durability)> {
        let chosen =
            |all: &[Kind]| if self.stores.is_empty() { all.to_vec() } else { self.stores.clone() };
        let durabilities = match self.durabilities.as_slice() {
            [] => vec![Durability::Os, Durability::Synced],
            some => some.to_vec(),
        };
        let stores = chosen(Kind::value_variants());
        durabilities.into_iter().flat_map(move |durability| {
            stores.clone().into_iter().map(move |store| (store, durability))
        })
    }

    fn measure(&self, store: Kind, durability: Durability) -> Outcome<Figures> {
        if self.here {
            let folder = self.folder.clone().unwrap_or_else(env::temp_dir);
            return measure::measure(store, durability, self.keys, &folder);
        }
        let mut child = Command::new(env::current_exe()?);
        child.args(["stores", "--here", "--stores", &store.to_string()]);
        child.args(["--durabilities", &durability.to_string(), "--keys", &self.keys.to_string()]);
        if let Some(folder) = &self.folder {
            child.arg("--folder").arg(folder);
        }
        let output = child.stderr(std::process::Stdio::inherit()).output()?;
        let figures: Vec<Figures> = serde_json::from_slice(&output.stdout)?;
        figures.into_iter().next().ok_or_else(|| format!("{store} gave no figures").into())
    }
}
