//! Where claims are kept, told to another process in numbers.

use crate::Failure;
use crate::slow_path::servers::postgres::{self, Postgres};
use crate::slow_path::servers::redis::{PROGRAM, Redis};
use crate::slow_path::servers::{Server as _, is_installed};
use hapax::claim::Gate;
use hapax::confirm::Inline;
use hapax::confirm::claims::{
    AsyncClaimStore, EmbeddedClaims, MemoryClaims, PostgresClaims, RedisClaims,
};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// How long a store may take for anything: nothing fails here, but the machine is busy.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Where claims are kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Memory,
    /// A file of this number in the folder of the process of this number.
    Embedded(u64, u64),
    /// A port.
    Redis(u16),
    /// A port.
    Postgres(u16),
}

/// What is to be done with claims, wherever they are.
pub(super) trait Errand {
    type Done;

    async fn run<S: AsyncClaimStore + 'static>(self, gate: Gate<S>) -> Result<Self::Done, Failure>;
}

impl Place {
    pub(super) const NUMBERS: usize = 3;

    pub(super) fn numbers(self) -> [u64; Self::NUMBERS] {
        match self {
            Self::Memory => [0, 0, 0],
            Self::Embedded(process, file) => [1, process, file],
            Self::Redis(port) => [2, port.into(), 0],
            Self::Postgres(port) => [3, port.into(), 0],
        }
    }

    pub(super) fn of(numbers: [u64; Self::NUMBERS]) -> Result<Self, Failure> {
        match numbers {
            [0, ..] => Ok(Self::Memory),
            [1, process, file] => Ok(Self::Embedded(process, file)),
            [2, port, _] => Ok(Self::Redis(port.try_into()?)),
            [3, port, _] => Ok(Self::Postgres(port.try_into()?)),
            _ => Err("no such place".into()),
        }
    }

    /// Runs an errand over a gate to the place, opened for it alone.
    pub(super) async fn send<E: Errand>(
        self,
        lease: Duration,
        errand: E,
    ) -> Result<E::Done, Failure> {
        match self {
            Self::Memory => errand.run(gate(Inline(MemoryClaims::new()), lease)?).await,
            Self::Embedded(process, file) => {
                let claims = EmbeddedClaims::builder(path(process, file)).open()?;
                errand.run(gate(Inline(claims), lease)?).await
            }
            Self::Redis(port) => {
                let claims = RedisClaims::server(format!("redis://127.0.0.1:{port}/"));
                errand.run(gate(claims.timeout(PATIENCE).connect().await?, lease)?).await
            }
            Self::Postgres(port) => errand.run(gate(postgres_claims(port).await?, lease)?).await,
        }
    }
}

pub(super) async fn postgres_claims(port: u16) -> Result<PostgresClaims, Failure> {
    let builder = PostgresClaims::builder(&postgres::parameters(port));
    Ok(builder.connect_timeout(PATIENCE).reply_timeout(PATIENCE).connect().await?)
}

/// A gate that asks its store about everything.
pub(super) fn gate<S>(store: S, lease: Duration) -> Result<Gate<S>, Failure> {
    Ok(Gate::builder(store).lease(lease).remember(0).build()?)
}

fn folder(process: u64) -> PathBuf {
    std::env::temp_dir().join(format!("hapax-prove-claims-{process}"))
}

fn path(process: u64, file: u64) -> PathBuf {
    folder(process).join(format!("{file}.claims"))
}

/// Workers are killed here, and no server loses its power: for a busy disk Redis would let
/// all of them wait, one after the other.
const NOT_SYNCED: [&str; 2] = ["--appendfsync", "no"];

/// Places that last as long as this does.
pub(super) enum Store {
    Memory,
    Embedded { _folder: TempDir },
    Redis(Redis),
    Postgres(Postgres),
}

impl Store {
    pub(super) const NAMES: [&str; 4] = ["memory", "embedded", "Redis", "PostgreSQL"];

    /// Starts what is needed.
    pub(super) fn start(name: &str) -> Result<Self, Failure> {
        match name {
            "memory" => Ok(Self::Memory),
            "embedded" => {
                let folder = folder(std::process::id().into());
                let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let folder = tempfile::Builder::new().prefix(name).rand_bytes(0).tempdir()?;
                Ok(Self::Embedded { _folder: folder })
            }
            "Redis" if is_installed(PROGRAM) => Ok(Self::Redis(Redis::start(&NOT_SYNCED))),
            "PostgreSQL" => {
                let server = Postgres::start().ok_or("postgresql is not installed")?;
                let builder = PostgresClaims::builder(&server.parameters());
                crate::slow_path::runtime()?.block_on(builder.create_schema())?;
                Ok(Self::Postgres(server))
            }
            _ => Err(format!("{name} is not installed").into()),
        }
    }

    /// The place for one lane of work: only files are not shared.
    pub(super) fn place(&self, lane: u64) -> Place {
        match self {
            Self::Memory => Place::Memory,
            Self::Embedded { .. } => Place::Embedded(std::process::id().into(), lane),
            Self::Redis(server) => Place::Redis(server.port()),
            Self::Postgres(server) => Place::Postgres(server.port()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_in_numbers() {
        for place in [Place::Memory, Place::Embedded(7, 8), Place::Redis(9), Place::Postgres(10)] {
            let told = Place::of(place.numbers()).unwrap();
            assert_eq!(format!("{told:?}"), format!("{place:?}"));
        }
        assert!(Place::of([9, 0, 0]).is_err());
    }
}
