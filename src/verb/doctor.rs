//! `cw doctor`: what is set, by what it was set, and what is wrong with it and with the way to the
//! relay and the other nodes.
//!
//! It reads and asks; it starts nothing, and changes nothing: a file that it writes, to see whether
//! that can be done, is gone again. The exit status is 1 when something is wrong.

mod network;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::{Call, Reply};
use crate::cli::Cli;
use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::home::{ANOTHER_HOME, Home, write_private};
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
        let mut checks = vec![
            home(cli.home.dir()),
            Check::of("config", configuration(cli)),
        ];
        checks.extend(variables(&cli.home));
        checks.extend(log(std::env::var("CODEWIRE_LOG").ok().as_deref()));
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

/// Whether others can read what is in the node's directory, and the node can write there.
fn home(dir: &Path) -> Check {
    let shown = dir.display().to_string();
    let mode = match std::fs::metadata(dir) {
        Ok(metadata) => metadata.permissions().mode() & 0o777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Check::ok("directory", format!("{shown} (not there yet)"));
        }
        Err(error) => {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => "make it readable",
                _ => ANOTHER_HOME,
            };
            return Check::bad("directory", format!("{shown}: {error}"), hint);
        }
    };
    let wrong = match try_write(dir).map_err(|error| (error.kind(), error)) {
        Err((io::ErrorKind::PermissionDenied, _)) if mode & 0o300 != 0o300 => None,
        Err((io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, error)) => {
            Some((error, "free some space; nothing can be kept until then"))
        }
        Err((_, error)) => Some((error, ANOTHER_HOME)),
        Ok(()) => None,
    };
    match wrong {
        Some((error, hint)) => Check::bad("directory", format!("{shown}: {error}"), hint),
        None if mode == 0o700 => Check::ok("directory", shown),
        None => Check::bad(
            "directory",
            format!("{shown} has mode {mode:o}"),
            format!("chmod 700 {shown}"),
        ),
    }
}

/// Writes a file as large as the small ones that a node keeps, and takes it away again.
fn try_write(dir: &Path) -> io::Result<()> {
    let path = dir.join(format!("doctor.tmp{}", std::process::id()));
    let written = write_private(&path, &[0; 16 * 1024]);
    match std::fs::remove_file(&path) {
        Err(error) if written.is_ok() => Err(error),
        _ => written,
    }
}

/// What every session gets, if that is set.
fn variables(home: &Home) -> Option<Check> {
    let found = match super::launch::shared_variables(home) {
        Ok(variables) if variables.is_empty() => return None,
        Ok(variables) => Ok(format!("{} for every session", variables.len())),
        Err(error) => Err(error),
    };
    Some(Check::of("variables", found))
}

/// What is logged, if that is set.
fn log(value: Option<&str>) -> Option<Check> {
    let value = value?;
    let found = crate::node::log_filter(Some(value)).map(|_| value.to_owned());
    Some(Check::of("log", found))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("home")).unwrap();
        home.create().unwrap();
        (dir, home)
    }

    #[test]
    fn a_directory_is_private_and_can_be_written() {
        let (_dir, home) = directory();
        assert!(super::home(home.dir()).ok);
        let left = std::fs::read_dir(home.dir()).unwrap().count();
        assert_eq!(left, 0, "nothing stays there");
        for mode in [0o755, 0o500] {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(home.dir(), mode).unwrap();
            let check = super::home(home.dir());
            assert!(check.hint.unwrap().starts_with("chmod 700"));
        }
    }

    #[test]
    fn a_directory_that_takes_no_file_needs_no_other_mode() {
        // As on a file system that is read only, nothing can be made in it, by root either.
        let file = tempfile::NamedTempFile::new().unwrap();
        let check = home(file.path());
        assert!(!check.ok);
        assert_eq!(check.hint.as_deref(), Some(ANOTHER_HOME), "{}", check.found);
    }

    #[test]
    fn variables_for_sessions_are_read_as_a_launch_reads_them() {
        let (_dir, home) = directory();
        assert!(variables(&home).is_none());
        for (text, ok) in [
            ("{\"A\": \"b\"}", true),
            ("{\"A\": 1}", false),
            ("{", false),
        ] {
            std::fs::write(home.environment(), text).unwrap();
            let check = variables(&home).unwrap();
            assert_eq!(check.ok, ok, "{text}");
            assert_eq!(check.hint.is_none(), ok, "{text}");
        }
    }

    #[test]
    fn a_log_that_is_set_wrongly_is_said_so() {
        assert!(log(None).is_none());
        assert!(log(Some("info,mesh=debug")).unwrap().ok);
        let check = log(Some("mesh=loud")).unwrap();
        assert!(!check.ok);
        assert!(check.found.contains("mesh=loud") && check.hint.is_some());
    }
}
