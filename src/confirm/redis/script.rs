//! A script, and how a server is told to run it.

use redis::Cmd;

/// How a command names the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    ByHash,
    BySource,
}

/// A script that servers know by its hash once they have run it.
pub(super) struct Script {
    source: String,
    hash: String,
}

impl Script {
    pub(super) fn new(source: impl Into<String>) -> Self {
        let source = source.into();
        let hash = redis::Script::new(&source).get_hash().to_owned();
        Self { source, hash }
    }

    /// The beginning of a command that has it run about so many keys: their names and
    /// its arguments follow.
    pub(super) fn about(&self, keys: usize, naming: Naming) -> Cmd {
        let (name, script) = match naming {
            Naming::ByHash => ("EVALSHA", &self.hash),
            Naming::BySource => ("EVAL", &self.source),
        };
        let mut command = redis::cmd(name);
        command.arg(script).arg(keys);
        command
    }
}
