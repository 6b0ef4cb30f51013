//! `cw list [node]`: the sessions of a node.

use clap::Args;
use serde::{Deserialize, Serialize};
use session::{Brief, Status, Tag};

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
        if !["", "all", "running", "completed", "killed"].contains(&self.status.as_str()) {
            return Err(
                Error::bad_request(format!("unknown status {:?}", self.status))
                    .hint("all, running, completed or killed"),
            );
        }
        let sessions = &context.host.sessions;
        if self.table {
            let mut table = Table::new(show::now_ms());
            sessions.glance(|session| {
                if self.wants(session.status, session.tags) {
                    table.add(&session);
                }
            });
            let text = table.text;
            return Ok(Reply::SessionTable(SessionTable { text }));
        }
        let mut all = sessions.list();
        all.retain(|info| self.wants(info.status, &info.tags));
        let sessions = all.iter().map(SessionInfo::from).collect();
        Ok(Reply::SessionList(SessionList { sessions }))
    }

    fn wants(&self, status: Status, tags: &[Tag]) -> bool {
        let so = match (self.status.as_str(), status) {
            ("running", status) => status == Status::Running,
            ("killed", status) => matches!(status, Status::Exited { killed: true, .. }),
            ("completed", status) => matches!(status, Status::Exited { killed: false, .. }),
            _ => true,
        };
        let tagged = |tag: &Tag| self.tags.iter().any(|wanted| *wanted == tag.as_str());
        so && (self.tags.is_empty() || tags.iter().any(tagged))
    }
}

/// Widths of the columns but the last, in characters.
const WIDTHS: [usize; 4] = [4, 14, 32, 14];

/// Most bytes of a line of plain text, about.
const LINE: usize = 80;

/// The sessions below a head, in the making. Sessions wait while their lines are made, so that
/// little is allocated.
struct Table {
    text: String,
    now_ms: u64,
    command: String,
}

impl Table {
    const fn new(now_ms: u64) -> Self {
        Self {
            text: String::new(),
            now_ms,
            command: String::new(),
        }
    }

    fn add(&mut self, session: &Brief<'_>) {
        if self.text.is_empty() {
            self.row(["ID", "NAME", "COMMAND", "STATUS", "AGE"]);
        }
        let [_, name_width, width, _] = WIDTHS;
        let mut command = std::mem::take(&mut self.command);
        command.clear();
        begin(&mut command, session.argv, width);
        let name = session.name.map_or("-", |name| name.as_str());
        self.row([
            &session.id.to_string(),
            &show::cut(name, name_width),
            &show::cut(&command, width),
            &status_text(&session.status),
            &show::since(session.created_ms, self.now_ms),
        ]);
        self.command = command;
    }

    fn row(&mut self, cells: [&str; 5]) {
        let [columns @ .., last] = cells;
        self.text.reserve(LINE);
        for (cell, width) in columns.into_iter().zip(WIDTHS) {
            show::pad(&mut self.text, cell, width);
            self.text.push(' ');
        }
        self.text.push_str(last);
        self.text.push('\n');
    }
}

/// As much of a command line as `width` characters can need, and one more.
fn begin(out: &mut String, argv: &[String], width: usize) {
    for (at, word) in argv.iter().enumerate() {
        if at > 0 {
            out.push(' ');
        }
        // No character has more than four bytes.
        if out.len() + word.len() > 4 * (width + 1) {
            return out.extend(word.chars().take(width + 1));
        }
        out.push_str(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_command_the_beginning_is_shown() {
        let beginning = |argv: &[String]| {
            let mut out = String::new();
            begin(&mut out, argv, 32);
            out
        };
        let short = ["sh", "-c", "true"].map(str::to_owned);
        assert_eq!(beginning(&short), "sh -c true");
        for word in ["x".repeat(1 << 20), "\u{1f600}".repeat(1 << 18)] {
            let shown = beginning(&["echo".to_owned(), word.clone(), "never".to_owned()]);
            assert!(shown.len() < 200);
            let whole = format!("echo {word} never");
            assert_eq!(show::cut(&shown, 32), show::cut(&whole, 32));
        }
        let many = vec!["a".to_owned(); 1000];
        let shown = beginning(&many);
        assert_eq!(show::cut(&shown, 32), show::cut(&many.join(" "), 32));
    }
}
