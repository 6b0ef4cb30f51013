//! `cw relay serve`: the relay, in the foreground; `backup`, `restore` and `doctor` for whoever
//! keeps one, `openapi` for who writes a client.

mod certificate;
mod doctor;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use crate::cli::Cli;
use crate::error::Result;
use crate::relay::{Contents, default_dir};
use crate::show;

/// The relay that introduces nodes to each other.
#[derive(Subcommand, Clone, Debug)]
pub enum Relay {
    /// Run a relay.
    Serve(Box<crate::relay::Config>),
    /// Save what a relay knows into a new directory. The relay may run.
    Backup(Backup),
    /// Bring a backup back. The relay must not run.
    Restore(Restore),
    /// Say what is wrong with a relay: with its directory here, and with how it answers.
    Doctor(doctor::Doctor),
    /// Print how a relay is asked over HTTP, as OpenAPI. The same is at /api/v1/openapi.json.
    Openapi,
}

/// See [`Relay::Backup`].
#[derive(Args, Clone, Debug)]
pub struct Backup {
    /// Where the relay keeps its files [default: relay/ in the home of cw]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
    /// The directory to make; it holds secrets and is for you alone.
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub to: PathBuf,
}

/// See [`Relay::Restore`].
#[derive(Args, Clone, Debug)]
pub struct Restore {
    /// Where the relay keeps its files [default: relay/ in the home of cw]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,
    /// Put aside what is there.
    #[arg(long)]
    pub replace: bool,
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
    /// The directory that 'cw relay backup' made.
    #[arg(value_name = "BACKUP", value_hint = ValueHint::DirPath)]
    pub from: PathBuf,
}

impl Relay {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        match self {
            Self::Serve(config) => {
                crate::node::start_log();
                crate::relay::serve(*config).await
            }
            Self::Backup(backup) => backup.run(cli).await,
            Self::Restore(restore) => restore.run(cli).await,
            Self::Doctor(doctor) => doctor.run(cli).await,
            Self::Openapi => cli.print_json(crate::relay::openapi()),
        }
    }
}

impl Backup {
    async fn run(self, cli: &Cli) -> Result<()> {
        let dir = self.data_dir.map_or_else(default_dir, Ok)?;
        let contents = crate::relay::backup(&dir, &self.to).await?;
        if self.json {
            return cli.print_json(&contents);
        }
        let to = show::clean(&self.to.display().to_string());
        cli.note(&format!("Saved {} in {to}", text(contents)));
        Ok(())
    }
}

impl Restore {
    async fn run(self, cli: &Cli) -> Result<()> {
        let restored = crate::relay::restore(&self.from, self.data_dir, self.replace).await;
        let (contents, aside) = restored?;
        if self.json {
            cli.print_json(&contents)?;
        } else {
            cli.note(&format!("Restored {}", text(contents)));
        }
        if let Some(aside) = aside {
            let aside = show::clean(&aside.display().to_string());
            cli.note(&format!("[cw] what was there is in {aside}"));
        }
        cli.note("[cw] nodes that were revoked since the backup have to be revoked again");
        cli.note("[cw] who was logged in has to log in again");
        Ok(())
    }
}

fn text(contents: Contents) -> String {
    let count = |number: i64, what: &str| match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    };
    let networks = count(contents.networks, "network");
    format!("{networks}, {}", count(contents.nodes, "node"))
}
