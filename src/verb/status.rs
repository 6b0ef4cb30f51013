//! `cw status <session>`: everything about one session.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::info::SessionInfo;
use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::Result;
use crate::locator::Locator;
use crate::node::Context;
use crate::show;

/// Show the state of a session.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Status {
    /// The session: its name or number, or node:session.
    #[serde(flatten)]
    pub target: Locator,
    /// Print JSON.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct SessionStatus {
    /// The session.
    pub info: SessionInfo,
    /// Bytes printed since its start.
    pub output_size: u64,
}

/// How much of the end of the output is shown.
const LAST_LINES: usize = 5;

impl Status {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let json = self.json;
        let info = match cli.ask(Call::GetStatus(self)).await? {
            Reply::SessionStatus(status) => status.info,
            other => return Err(other.unexpected()),
        };
        if json {
            cli.print_json(&info)
        } else {
            cli.print(&text(&info))
        }
    }

    pub(crate) fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let info = super::find(context, &self.target.session)?;
        let mut wire = SessionInfo::from(&info);
        wire.last_output_snippet =
            super::wait::last_lines(&context.host.sessions, &info, LAST_LINES);
        Ok(Reply::SessionStatus(Box::new(SessionStatus {
            info: wire,
            output_size: info.output_end,
        })))
    }
}

fn text(info: &SessionInfo) -> String {
    let mut out = format!("Session {}\n", info.id);
    let mut row = |name: &str, value: &str| {
        let (name, value) = (format!("{name}:"), show::hang(value));
        out.push_str(&format!("  {name:<14}{value}\n"));
    };
    if let Some(name) = &info.name {
        row("Name", name);
    }
    row("Command", &info.prompt);
    row("Working Dir", &info.working_dir);
    row("Status", &info.status);
    if info.disk_full {
        row("Waiting", "the disk is full; it goes on when there is room");
    }
    if !info.tags.is_empty() {
        row("Tags", &info.tags.join(" "));
    }
    row("Created", &info.created_at);
    if let Some(at) = &info.completed_at {
        row("Ended", at);
    }
    row("Attached", &info.attached_count.to_string());
    if let Some(pid) = info.pid {
        row("PID", &pid.to_string());
    }
    row("Output Size", &format!("{} bytes", info.output_bytes));
    if let Some(at) = &info.last_output_at {
        row("Last Output", at);
    }
    if let Some(seconds) = info.idle_seconds {
        row("Idle", &format!("{seconds}s"));
    }
    for line in info
        .last_output_snippet
        .iter()
        .flat_map(|text| text.lines())
    {
        out.push_str(&format!("  | {}\n", show::clean(line)));
    }
    out
}
