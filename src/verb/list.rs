//! `cw list [node]`: the sessions of a node.

use std::fmt::Write as _;

use clap::Args;
use serde::{Deserialize, Serialize};
use session::{Info, Status};

use super::info::{SessionInfo, status_text};
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
    /// Answer with the table as it is printed: a tenth of what all is that there is to say.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub table: bool,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct SessionList {
    /// By number.
    pub sessions: Vec<SessionInfo>,
}

/// The answer, as a table.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct SessionTable {
    /// A line for each session below a head; empty without sessions.
    pub text: String,
}

impl List {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        let json = self.json;
        self.table = !json;
        match cli.ask(Call::ListSessions(self)).await? {
            Reply::SessionList(list) if json => cli.print_json(&list.sessions),
            Reply::SessionTable(table) if table.text.is_empty() => cli.print("No sessions\n"),
            Reply::SessionTable(table) => cli.print(&show::clean(&table.text)),
            other => Err(other.unexpected()),
        }
    }

    pub(crate) fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let wanted = |info: &Info| match (self.status.as_str(), info.status) {
            ("running", status) => status == Status::Running,
            ("killed", status) => matches!(status, Status::Exited { killed: true, .. }),
            ("completed", status) => matches!(status, Status::Exited { killed: false, .. }),
            _ => true,
        };
        if !["", "all", "running", "completed", "killed"].contains(&self.status.as_str()) {
            return Err(
                Error::bad_request(format!("unknown status {:?}", self.status))
                    .hint("all, running, completed or killed"),
            );
        }
        let mut sessions = context.host.sessions.list();
        sessions.retain(|info| {
            let tagged =
                |tag: &session::Tag| self.tags.iter().any(|wanted| *wanted == tag.as_str());
            wanted(info) && (self.tags.is_empty() || info.tags.iter().any(tagged))
        });
        if self.table {
            let text = table(&sessions);
            return Ok(Reply::SessionTable(SessionTable { text }));
        }
        let sessions = sessions.iter().map(SessionInfo::from).collect();
        Ok(Reply::SessionList(SessionList { sessions }))
    }
}

fn table(sessions: &[Info]) -> String {
    let mut out = String::new();
    let mut row = |cells: [&str; 5]| {
        let [id, name, command, status, age] = cells;
        // Into a string, which takes everything.
        let _ = writeln!(out, "{id:<4} {name:<14} {command:<32} {status:<14} {age}");
    };
    if !sessions.is_empty() {
        row(["ID", "NAME", "COMMAND", "STATUS", "AGE"]);
    }
    let now = show::now_ms();
    for info in sessions {
        row([
            &info.id.to_string(),
            &show::cut(info.name.as_ref().map_or("-", |name| name.as_str()), 14),
            &show::cut(&info.argv.join(" "), 32),
            &status_text(&info.status),
            &show::since(info.created_ms, now),
        ]);
    }
    out
}
