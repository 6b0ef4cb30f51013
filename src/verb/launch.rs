//! `cw launch [name|node|node:name] -- command…`: a new session.
//!
//! The one word before `--` is a node when a node of that name is known, else the name of the
//! session; `node:name` is both. The session gets the environment of the caller, not that of
//! whoever happened to start the node; on another machine it gets that machine's.

use clap::Args;
use serde::{Deserialize, Serialize};
use session::io::LaunchSpec;
use session::{Name, Size, Tag};

use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::node::Context;
use crate::node::groups;
use crate::node::judge::{is_mark, mark};
use crate::rpc::codec::Base64;

/// No grace for a session that must not run.
const NOW: std::time::Duration = std::time::Duration::ZERO;

/// Start a command in a new session.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Launch {
    /// A name for the session, or the node to start it on, or node:name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// A name for the session.
    #[arg(long)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where to start it; here if left out (on another node: its home directory).
    #[arg(short, long = "dir", value_name = "DIR")]
    #[serde(
        rename = "working_dir",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub dir: Option<String>,
    /// A label; may be given several times, or several with commas between them.
    #[arg(short, long = "tag", value_name = "TAG", value_delimiter = ',')]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// A group of the network that the session is in from its start; may be given several times.
    #[arg(short, long = "group", value_name = "GROUP", value_parser = group)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// A variable for the session, KEY=VALUE; may be given several times.
    #[arg(short, long = "env", value_name = "KEY=VALUE")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The size of its terminal until somebody attaches, COLUMNSxROWS.
    #[arg(long, value_name = "COLSxROWS")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Type the text of this file into the session once it runs; - is standard input.
    #[arg(long, value_name = "PATH")]
    #[serde(skip)]
    pub prompt_file: Option<String>,
    /// The command and its arguments.
    #[arg(last = true)]
    pub command: Vec<String>,
    /// The node, once it is known.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The caller's whole environment, as KEY=VALUE; never sent to another machine.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<String>,
    /// The directory that the caller stands in; never sent to another machine.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller_dir: Option<String>,
    /// Typed into the session once it runs.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin_data: Option<Base64>,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Launched {
    /// The number of the new session.
    pub id: u32,
    /// Its name, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The node that it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Nothing stands after `--`, or there is none.
pub(crate) fn no_command() -> Error {
    Error::new("usage", "the command is missing; it stands after '--'")
        .hint("write: cw launch [name] -- <command> [arguments]")
}

impl Launch {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        if self.command.is_empty() {
            return Err(no_command());
        }
        if let Some(path) = self.prompt_file.take() {
            self.stdin_data = Some(Base64(super::send::read_input(&path)?));
        }
        self.bring_surroundings(cli);
        let command = self.command.join(" ");
        match cli.ask(Call::Launch(self)).await? {
            Reply::Launched(launched) => {
                let node = launched
                    .node
                    .map(|node| format!(" on {node}"))
                    .unwrap_or_default();
                let name = launched
                    .name
                    .map(|name| format!(" ({name})"))
                    .unwrap_or_default();
                cli.note(&format!(
                    "Session {}{name} launched{node}: {command}",
                    launched.id
                ));
                Ok(())
            }
            other => Err(other.unexpected()),
        }
    }

    /// The variables and the directory of this process; another machine has its own.
    pub(crate) fn bring_surroundings(&mut self, cli: &Cli) {
        if cli.server.is_some() {
            return;
        }
        self.environment = std::env::vars_os()
            .filter_map(|(key, value)| Some(format!("{}={}", key.to_str()?, value.to_str()?)))
            .collect();
        self.caller_dir = std::env::current_dir()
            .ok()
            .map(|dir| dir.display().to_string());
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        // A word that routing did not take for a node is the name.
        let name = match (self.name.clone(), self.target.clone()) {
            (Some(_), Some(target)) => {
                return Err(
                    Error::new("node_unknown", format!("no node named {target:?}")).hint(
                        "with --name the word before -- is a node; 'cw node list' shows the nodes",
                    ),
                );
            }
            (name, target) => name.or(target),
        };
        let groups = groups::to_enter(context, &self.groups)?;
        let tags = self.tags.iter().map(|tag| tag.parse::<Tag>());
        let mut tags = tags.collect::<Result<Vec<_>, _>>()?;
        if tags.iter().any(is_mark) {
            return Err(
                Error::new("tag_invalid", "tags with group: are made by groups")
                    .hint("use --group"),
            );
        }
        // Closed before anybody knows of it.
        tags.extend(groups.iter().map(mark));
        let spec = LaunchSpec {
            cwd: self.working_dir()?.into(),
            env: self.variables(&context.host.home)?,
            name: name.as_deref().map(str::parse::<Name>).transpose()?,
            tags,
            size: self
                .size
                .as_deref()
                .map_or_else(|| Ok(Size::default()), parse_size)?,
            input: self.stdin_data.map(|data| data.0.into()),
            argv: self.command,
        };
        let info = context.host.sessions.launch(spec).await?;
        if !groups.is_empty() {
            let label = info.name.as_ref().map(ToString::to_string);
            if let Err(error) = groups::enter(context.host, &groups, info.id, label).await {
                // What was to be closed by a group must not run without it.
                context.host.sessions.kill(info.id, NOW).await?;
                return Err(error.hint("the session was ended: it is not in its group"));
            }
        }
        Ok(Reply::Launched(Launched {
            id: info.id.0,
            name: info.name.as_ref().map(ToString::to_string),
            node: context.from_afar().then(|| context.host.name()),
        }))
    }

    /// An absolute directory: the one asked for, seen from the caller's, else the caller's, else
    /// the home of the node's user.
    fn working_dir(&self) -> Result<String> {
        let base = self
            .caller_dir
            .clone()
            .or_else(|| std::env::var("HOME").ok())
            .unwrap_or_else(|| "/".to_owned());
        let base = std::path::PathBuf::from(base);
        let dir = self
            .dir
            .as_ref()
            .map_or_else(|| base.clone(), |dir| base.join(dir));
        dir.to_str()
            .map(str::to_owned)
            .ok_or_else(|| Error::new("dir_not_found", "the directory's name is not UTF-8"))
    }

    /// The session's variables: the caller's (or, for a call from another machine, the node's
    /// own), then what was asked for. The marks of an agent that runs the caller are left out, so
    /// that an agent started from within another does not take itself for its child.
    ///
    /// In between come those of `environment.json`, which is read at each launch. An SSH agent is
    /// reached by a path that stays the same when its owner logs in again.
    fn variables(&self, home: &Home) -> Result<Vec<(String, String)>> {
        const AGENT_MARKS: [&str; 2] = ["CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT"];
        let mut variables = std::collections::BTreeMap::new();
        if self.environment.is_empty() {
            variables.extend(std::env::vars().filter(|(key, _)| key != "CW_KEEPER_FD"));
        } else {
            variables.extend(self.environment.iter().filter_map(|pair| split(pair)));
        }
        variables.retain(|key, _| {
            // The token of the relay is the owner's: a session speaks for itself.
            !AGENT_MARKS.contains(&key.as_str())
                && !key.starts_with("CW_SESSION")
                && key != "CODEWIRE_RELAY_AUTH_TOKEN"
        });
        let term = variables.get("TERM").map_or("", String::as_str);
        if term.is_empty() || term == "dumb" {
            variables.insert("TERM".to_owned(), "xterm-256color".to_owned());
        }
        variables
            .entry("COLORTERM".to_owned())
            .or_insert_with(|| "truecolor".to_owned());
        if let Some(socket) = variables.get_mut("SSH_AUTH_SOCK") {
            if !self.environment.is_empty() {
                home.offer_agent(socket.as_ref());
            }
            if home.agent().is_symlink() {
                *socket = home.agent().display().to_string();
            }
        }
        variables.extend(shared_variables(home)?);
        for pair in &self.env {
            let (key, value) = split(pair)
                .ok_or_else(|| Error::new("usage", format!("{pair:?} is not KEY=VALUE")))?;
            variables.insert(key, value);
        }
        Ok(variables.into_iter().collect())
    }
}

/// A group's name, checked before anything is asked.
fn group(text: &str) -> Result<String, crate::coord::Malformed> {
    let name = text.parse::<crate::paper::GroupName>()?;
    Ok(name.as_str().to_owned())
}

/// What `environment.json` says.
pub(super) fn shared_variables(home: &Home) -> Result<std::collections::BTreeMap<String, String>> {
    let path = home.environment();
    let invalid = |why: String| {
        Error::new("config_invalid", format!("{}: {why}", path.display()))
            .hint("it is one JSON object of strings: {\"KEY\": \"value\"}")
    };
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Default::default()),
        // The file is not at fault.
        Err(error) if crate::error::is_out_of_files(&error) => Err(error.into()),
        Err(error) => Err(invalid(error.to_string())),
    }
}

fn split(pair: &str) -> Option<(String, String)> {
    let (key, value) = pair.split_once('=')?;
    (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
}

fn parse_size(text: &str) -> Result<Size> {
    text.split_once(['x', 'X'])
        .and_then(|(cols, rows)| {
            Some(Size {
                cols: cols.parse().ok()?,
                rows: rows.parse().ok()?,
            })
        })
        .filter(|size| (1..=1000).contains(&size.cols) && (1..=1000).contains(&size.rows))
        .ok_or_else(|| {
            Error::new("size_invalid", format!("{text:?} is not a terminal size"))
                .hint("write COLUMNSxROWS, each from 1 to 1000, for example 120x40")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().to_owned()).unwrap();
        (dir, home)
    }

    #[test]
    fn sizes_are_checked() {
        assert_eq!(
            parse_size("120x40").unwrap(),
            Size {
                cols: 120,
                rows: 40
            }
        );
        for text in ["", "80", "0x5", "80x", "axb", "9999x9999", "-1x4"] {
            assert_eq!(parse_size(text).unwrap_err().code, "size_invalid", "{text}");
        }
    }

    #[test]
    fn the_callers_environment_wins_over_the_nodes() {
        let launch = Launch {
            environment: vec![
                "PATH=/x".into(),
                "TERM=dumb".into(),
                "CLAUDECODE=1".into(),
                "CW_SESSION_ID=9".into(),
            ],
            env: vec!["A=b=c".into()],
            ..Launch::default()
        };
        let variables: std::collections::BTreeMap<_, _> =
            launch.variables(&home().1).unwrap().into_iter().collect();
        assert_eq!(variables["PATH"], "/x");
        assert_eq!(variables["TERM"], "xterm-256color");
        assert_eq!(variables["A"], "b=c");
        assert!(!variables.contains_key("CLAUDECODE") && !variables.contains_key("CW_SESSION_ID"));
    }

    #[test]
    fn a_variable_without_a_value_is_refused() {
        let launch = Launch {
            env: vec!["NOVALUE".into()],
            ..Launch::default()
        };
        assert_eq!(launch.variables(&home().1).unwrap_err().code, "usage");
    }

    #[test]
    fn shared_variables_stand_between_the_callers_and_those_asked_for() {
        let (_dir, home) = home();
        std::fs::write(home.environment(), r#"{"A": "file", "B": "file"}"#).unwrap();
        let launch = Launch {
            environment: vec!["A=caller".into(), "B=caller".into(), "C=caller".into()],
            env: vec!["B=asked".into()],
            ..Launch::default()
        };
        let variables = launch.variables(&home).unwrap();
        for (key, value) in [("A", "file"), ("B", "asked"), ("C", "caller")] {
            assert!(
                variables.contains(&(key.to_owned(), value.to_owned())),
                "{key}"
            );
        }
        std::fs::write(home.environment(), "[]").unwrap();
        assert_eq!(launch.variables(&home).unwrap_err().code, "config_invalid");
    }

    #[test]
    fn the_way_to_an_agent_stays_when_the_agent_changes() {
        let (dir, home) = home();
        let socket = dir.path().join("first");
        let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let environment = vec![format!("SSH_AUTH_SOCK={}", socket.display())];
        let launch = Launch {
            environment,
            ..Launch::default()
        };
        let variables = launch.variables(&home).unwrap();
        let stable = (
            "SSH_AUTH_SOCK".to_owned(),
            home.agent().display().to_string(),
        );
        assert!(variables.contains(&stable));
        assert_eq!(std::fs::read_link(home.agent()).unwrap(), socket);
        let second = dir.path().join("second");
        let _agent = std::os::unix::net::UnixListener::bind(&second).unwrap();
        home.offer_agent(&second);
        home.offer_agent(&dir.path().join("no such socket"));
        assert_eq!(std::fs::read_link(home.agent()).unwrap(), second);
    }
}
