//! The few arguments that a generator takes: `--count N` and `--seed N`.

/// What to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// How many original records; copies come on top.
    pub(crate) count: u64,
    /// Equal seeds give equal bytes.
    pub(crate) seed: u64,
}

impl Arguments {
    /// Reads the process's arguments over `defaults`; prints what is wrong, or
    /// the help, and ends the process where there is nothing to generate.
    pub(crate) fn from_process(name: &str, defaults: Self) -> Self {
        match Self::parse(std::env::args().skip(1), defaults) {
            Ok(Some(arguments)) => arguments,
            Ok(None) => {
                println!(
                    "usage: cargo run --example {name} -- [--count N] [--seed N] > FILE\n\n\
                     Writes a sample to standard output. Without arguments, the one that lies \
                     beside this program: {} originals, seed {}.",
                    defaults.count, defaults.seed
                );
                std::process::exit(0)
            }
            Err(problem) => {
                eprintln!("{name}: {problem}; see --help");
                std::process::exit(2)
            }
        }
    }

    /// `None`: help is asked for.
    fn parse(
        mut words: impl Iterator<Item = String>,
        mut arguments: Self,
    ) -> Result<Option<Self>, String> {
        while let Some(word) = words.next() {
            let field = match word.as_str() {
                "-h" | "--help" => return Ok(None),
                "--count" => &mut arguments.count,
                "--seed" => &mut arguments.seed,
                _ => return Err(format!("unknown argument '{word}'")),
            };
            let value = words.next().ok_or_else(|| format!("{word} needs a number"))?;
            *field = value.parse().map_err(|_| format!("{word}: '{value}' is not a number"))?;
        }
        Ok(Some(arguments))
    }
}
