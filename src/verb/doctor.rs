//! `cw doctor`: what is set, by what it was set, and what is wrong with it and with the way to the
//! relay and the other nodes.
//!
//! It reads and asks; it changes nothing and starts nothing. The exit status is 1 when something
//! is wrong.

mod network;

use std::os::unix::fs::PermissionsExt;

use clap::Args;
use serde::Serialize;

use super::{Call, Reply};
use crate::cli::Cli;
use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::show;

/// Say what is set, by what, and what is wrong with it.
#[derive(Args, Clone, Debug)]
pub struct Doctor {
    /// Print JSON.
    #[arg(short, long)]
    pub json: bool,
}

#[derive(Serialize)]
struct Report {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    settings: Vec<config::Setting>,
    checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Serialize)]
pub(crate) struct Check {
    what: &'static str,
    ok: bool,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Check {
    pub(crate) fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            ok: true,
            found: found.into(),
            hint: None,
        }
    }

    pub(crate) fn bad(
        what: &'static str,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            what,
            ok: false,
            found: found.into(),
            hint: Some(hint.into()),
        }
    }

    pub(crate) fn of(what: &'static str, result: Result<String>) -> Self {
        match result {
            Ok(found) => Self::ok(what, found),
            Err(error) => Self {
                what,
                ok: false,
                found: error.message,
                hint: error.hint,
            },
        }
    }
}

impl Check {
    /// Whether nothing is wrong with it.
    pub(crate) const fn is_ok(&self) -> bool {
        self.ok
    }
}

impl Doctor {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let mut checks = vec![home(cli), Check::of("config", configuration(cli))];
        checks.extend(node(cli).await);
        checks.push(terminal());
        // What is wrong with them is among the checks.
        let settings = config::settings(&cli.home).unwrap_or_default();
        conclude(cli, self.json, settings, checks)
    }
}

/// Prints what was looked at.
///
/// # Errors
///
/// `unwell` when something is wrong.
pub(crate) fn conclude(
    cli: &Cli,
    json: bool,
    settings: Vec<config::Setting>,
    checks: Vec<Check>,
) -> Result<()> {
    let report = Report { settings, checks };
    let bad = report.checks.iter().filter(|check| !check.ok).count();
    if json {
        cli.print_json(&report)?;
    } else {
        cli.print(&text(&report))?;
    }
    match bad {
        0 => Ok(()),
        1 => Err(Error::new("unwell", "something is wrong")),
        bad => Err(Error::new("unwell", format!("{bad} things are wrong"))),
    }
}

/// Whether others can read what is in the node's directory.
fn home(cli: &Cli) -> Check {
    let dir = cli.home.dir();
    let shown = dir.display().to_string();
    match std::fs::metadata(dir) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 == 0 => Check::ok("directory", shown),
        Ok(metadata) => Check::bad(
            "directory",
            format!(
                "{shown} has mode {:o}",
                metadata.permissions().mode() & 0o777
            ),
            format!("chmod 700 {shown}"),
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Check::ok("directory", format!("{shown} (not there yet)"))
        }
        Err(error) => Check::bad("directory", format!("{shown}: {error}"), "make it readable"),
    }
}

fn configuration(cli: &Cli) -> Result<String> {
    Config::load(&cli.home)?;
    let strangers = config::unknown(&cli.home)?;
    if !strangers.is_empty() {
        let what = format!("config.toml: no such setting: {}", strangers.join(", "));
        return Err(Error::new("config_invalid", what).hint("those above are the settings"));
    }
    let path = cli.home.config();
    Ok(if path.exists() {
        path.display().to_string()
    } else {
        "defaults and environment".to_owned()
    })
}

/// The node, if it runs, and its network.
async fn node(cli: &Cli) -> Vec<Check> {
    let mut channel = match cli.reopen().await {
        Ok(channel) => channel,
        Err(error) if error.code == "node_not_running" => {
            return vec![Check::ok(
                "node",
                "does not run; a command that needs it starts it",
            )];
        }
        // Its keeper is there, or something else has taken its process number.
        Err(error) if error.code == "connection_lost" && cli.server.is_none() => {
            let hint = "'cw start' starts it, or says why it does not start";
            return vec![Check::bad("node", error.message, hint)];
        }
        Err(error) => return vec![Check::of("node", Err(error))],
    };
    let hello = Call::Hello(super::hello::Hello {
        version: super::hello::VERSION,
    });
    let mut checks = Vec::new();
    match channel.call(&hello).await {
        Ok(Reply::Hello(welcome)) => {
            let found = format!(
                "{}, release {}, pid {}",
                welcome.node, welcome.release, welcome.pid
            );
            checks.push(if welcome.release == env!("CARGO_PKG_VERSION") {
                Check::ok("node", found)
            } else {
                let mine = env!("CARGO_PKG_VERSION");
                Check::bad(
                    "node",
                    format!("{found}; this program is {mine}"),
                    "cw node restart",
                )
            });
        }
        Ok(other) => checks.push(Check::of("node", Err(other.unexpected()))),
        Err(error) => checks.push(Check::of("node", Err(error))),
    }
    match channel
        .call(&Call::ListNodes(super::node::List::default()))
        .await
    {
        Ok(Reply::NodeList(nodes)) => {
            let online = nodes.nodes.iter().filter(|node| node.online).count();
            let found = format!(
                "{}: {online} of {} nodes online",
                nodes.network,
                nodes.nodes.len()
            );
            checks.push(Check::ok("network", found));
            checks.push(if nodes.relay_connected {
                Check::ok("relay", "connected")
            } else {
                let why = nodes.reason.unwrap_or_else(|| "not connected".to_owned());
                let hint = super::node::status::remedy(&why);
                Check::bad("relay", why, hint)
            });
        }
        Ok(Reply::Error(failure)) if failure.code == "no_network" => {
            checks.push(Check::ok("network", "none was joined"));
        }
        Ok(other) => checks.push(Check::of("network", Err(other.unexpected()))),
        Err(error) => checks.push(Check::of("network", Err(error))),
    }
    checks.extend(network::checks(&mut channel).await);
    checks
}

fn terminal() -> Check {
    match (std::env::var("TERM"), crate::term::size()) {
        (Ok(term), Some((cols, rows))) => Check::ok("terminal", format!("{term}, {cols}x{rows}")),
        (_, None) => Check::ok("terminal", "none; attach needs one"),
        (Err(_), Some(_)) => Check::bad("terminal", "TERM is not set", "set TERM=xterm-256color"),
    }
}

fn text(report: &Report) -> String {
    let mut out = String::new();
    for setting in &report.settings {
        let value = show::clean(setting.value.as_deref().unwrap_or("-"));
        out += &format!("{:<26} {value:<32} {}\n", setting.key, setting.source);
    }
    if !out.is_empty() {
        out.push('\n');
    }
    for check in &report.checks {
        let mark = if check.ok { "ok " } else { "BAD" };
        out += &format!("{mark} {:<10} {}\n", check.what, show::clean(&check.found));
        if let Some(hint) = &check.hint {
            out += &format!("    {}\n", show::clean(hint));
        }
    }
    out
}
