//! The verbs that start and stop a node: `cw start`, `cw stop`, `cw node run`, and the two hidden
//! ones that it consists of.
//!
//! A node is two processes. The keeper holds the terminals and starts the node again when it
//! dies; the node does everything else. `cw node run` is the keeper in the foreground, `cw start`
//! (and any command that finds no node) starts it in the background.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::node::Context;

/// The longest grace that can be asked for, in seconds.
const GRACE_MAX: u32 = 600;

/// Stop the node and end its sessions.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Stop {
    /// Seconds that the sessions get to end by themselves.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub grace: u32,
}

/// Start the node again, onto the program that is installed now; sessions run on.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Restart {
    /// The program that the node runs from then on; this one if left out.
    #[arg(long, value_name = "PATH")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Stopping {
    /// How many running sessions are ended.
    pub sessions: u32,
}

/// Start the node in the background, if it does not run.
pub(crate) async fn start(cli: &Cli) -> Result<()> {
    let started = crate::client::ensure(&cli.home).await?;
    cli.note(if started {
        "[cw] node started"
    } else {
        "[cw] node is running"
    });
    Ok(())
}

/// A channel to the node that runs here; one that hangs is replaced first.
async fn there(cli: &Cli, hint: &str) -> Result<crate::rpc::Channel> {
    let found = crate::client::connect_or_replace(&cli.home).await;
    let (channel, killed) = found.map_err(|error| match error.code.as_str() {
        "node_not_running" | "connection_lost" => {
            Error::new("node_not_running", "no node runs here").hint(hint)
        }
        _ => error,
    })?;
    if let Some(pid) = killed {
        cli.note(&format!(
            "[cw] the node (process {pid}) did not answer and was replaced"
        ));
    }
    Ok(channel)
}

impl Stop {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let mut channel = there(cli, &cli.home.dir().display().to_string()).await?;
        let keeper = crate::client::keeper(&cli.home);
        match channel.call(&Call::StopNode(self)).await? {
            Reply::NodeStopping(stopping) => {
                // The node closes the connection with its last act.
                while let Ok(Some(_)) = channel.receiver.next_frame().await {}
                crate::client::gone(keeper).await?;
                let ended = match stopping.sessions {
                    0 => String::new(),
                    1 => "; 1 session ended".to_owned(),
                    count => format!("; {count} sessions ended"),
                };
                cli.note(&format!("[cw] node stopped{ended}"));
                Ok(())
            }
            other => Err(other.unexpected()),
        }
    }

    pub(crate) fn handle(self, context: &mut Context<'_>) -> Reply {
        let running = context
            .host
            .sessions
            .list()
            .iter()
            .filter(|info| info.pid.is_some())
            .count();
        context.host.stop(std::time::Duration::from_secs(
            self.grace.min(GRACE_MAX).into(),
        ));
        Reply::NodeStopping(Stopping {
            sessions: u32::try_from(running).unwrap_or(u32::MAX),
        })
    }
}

impl Restart {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        if self.program.is_none() {
            self.program = Some(std::env::current_exe()?.display().to_string());
        }
        let mut channel = there(cli, "'cw start' starts one").await?;
        let before = crate::client::process(&cli.home);
        match channel.call(&Call::RestartNode(self)).await? {
            Reply::NodeRestarting => {}
            other => return Err(other.unexpected()),
        }
        // The node closes the connection with its last act.
        while let Ok(Some(_)) = channel.receiver.next_frame().await {}
        let release = crate::client::successor(&cli.home, before).await?;
        cli.note(&format!("[cw] node restarted; it runs {release} now"));
        Ok(())
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        context.host.restart(self.program.map(Into::into)).await?;
        Ok(Reply::NodeRestarting)
    }
}

/// `cw node run`, and the hidden `cw keeper`: the keeper, until the node stops on purpose.
pub(crate) fn keeper(home: &Home, arguments: &[OsString]) -> Result<ExitCode> {
    crate::node::start_log();
    home.create()?;
    let program = std::env::current_exe()?;
    let node = [program.into_os_string(), "node".into(), "serve".into()];
    if arguments.iter().any(|argument| argument == "--adopt") {
        return Ok(session::io::keeper::adopt(home.dir(), &node)?);
    }
    Ok(session::io::keeper::run(home.dir(), &node)?)
}
