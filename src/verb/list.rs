//! `cw list [node]`: the sessions of a node.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::info::SessionInfo;
use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::node::Context;
use crate::show;

/// List the sessions, here or on another node.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct List {
    /// The node; this one if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[arg(value_parser = crate::locator::node_name)]
    pub node: Option<String>,
    /// Only sessions in this state: all, running, completed or killed.
    #[arg(long, default_value = "all", value_parser = ["all", "running", "completed", "killed"])]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Only sessions with one of these tags.
    #[arg(short, long = "tag", value_name = "TAG", value_delimiter = ',')]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Print JSON.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct SessionList {
    /// By number.
    pub sessions: Vec<SessionInfo>,
}

impl List {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let json = self.json;
        let sessions = match cli.ask(Call::ListSessions(self)).await? {
            Reply::SessionList(list) => list.sessions,
            other => return Err(other.unexpected()),
        };
        if json {
            return cli.print_json(&sessions);
        }
        if sessions.is_empty() {
            return cli.print("No sessions\n");
        }
        let mut out = String::new();
        let row = |cells: [&str; 5]| {
            let [id, name, command, status, age] = cells;
            format!("{id:<4} {name:<14} {command:<32} {status:<14} {age}\n")
        };
        out.push_str(&row(["ID", "NAME", "COMMAND", "STATUS", "AGE"]));
        for session in &sessions {
            out.push_str(&row([
                &session.id.to_string(),
                &show::cut(session.name.as_deref().unwrap_or("-"), 14),
                &show::cut(&session.prompt, 32),
                &session.status,
                &show::age(&session.created_at),
            ]));
        }
        cli.print(&out)
    }

    pub(crate) fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let wanted = |info: &SessionInfo| match self.status.as_str() {
            "running" => info.status == "running",
            "killed" => info.status == "killed",
            "completed" => info.status != "running" && info.status != "killed",
            _ => true,
        };
        if !["", "all", "running", "completed", "killed"].contains(&self.status.as_str()) {
            return Err(
                Error::bad_request(format!("unknown status {:?}", self.status))
                    .hint("all, running, completed or killed"),
            );
        }
        let sessions = context
            .host
            .sessions
            .list()
            .iter()
            .map(SessionInfo::from)
            .filter(wanted)
            .filter(|info| {
                self.tags.is_empty() || info.tags.iter().any(|tag| self.tags.contains(tag))
            })
            .collect();
        Ok(Reply::SessionList(SessionList { sessions }))
    }
}
