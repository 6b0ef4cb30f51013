//! `cw completion <shell>`: the script that makes the shell complete `cw`.
//!
//! The script asks `cw` itself at each word, so that names of sessions, tags and nodes are
//! completed too.

use clap::{Args, ValueEnum};
use clap_complete::env::Shells;

use crate::cli::Cli;
use crate::error::{Error, Result};

/// Print a completion script for your shell.
#[derive(Args, Clone, Debug)]
pub struct Completion {
    /// The shell.
    #[arg(value_enum, default_value = "zsh")]
    pub shell: Shell,
}

/// A shell that we know.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[expect(missing_docs, reason = "the names are those of the shells")]
pub enum Shell {
    Bash,
    Elvish,
    Fish,
    #[value(name = "powershell")]
    PowerShell,
    Zsh,
}

impl Completion {
    pub(crate) fn run(self, cli: &Cli) -> Result<()> {
        let name = self
            .shell
            .to_possible_value()
            .map(|value| value.get_name().to_owned());
        let shells = Shells::builtins();
        let shell = name.as_deref().and_then(|name| shells.completer(name));
        let shell = shell.ok_or_else(|| Error::internal("no such shell"))?;
        let mut script = Vec::new();
        // The name alone: the script is to work wherever `cw` is installed.
        shell.write_registration("COMPLETE", "cw", "cw", "cw", &mut script)?;
        cli.print_bytes(&script)
    }
}
