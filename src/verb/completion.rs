//! `cw completion <shell>`: the script that makes the shell complete `cw`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::{Cli, CommandLine};
use crate::error::Result;

/// Print a completion script for your shell.
#[derive(Args, Clone, Debug)]
pub struct Completion {
    /// The shell.
    #[arg(value_enum, default_value = "zsh")]
    pub shell: Shell,
}

impl Completion {
    pub(crate) fn run(self, cli: &Cli) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut CommandLine::command(), "cw", &mut script);
        cli.print(&String::from_utf8_lossy(&script))
    }
}
