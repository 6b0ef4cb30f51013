//! `cw screen <session>`: what a session shows at this moment, as text.
//!
//! For full-screen programs, whose output read from top to bottom is no text.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::Locator;
use crate::node::Context;
use crate::show;

/// Show what a session shows now, as text.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Screen {
    /// The session: its name or number, or node:session.
    #[arg(add = super::complete::sessions())]
    #[serde(flatten)]
    pub target: Locator,
    /// Print JSON, with the cursor and the title.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct ScreenShown {
    /// The session.
    pub id: u32,
    /// The lines from the top, without blanks at their ends.
    pub lines: Vec<String>,
    /// The row of the cursor, from 0.
    pub cursor_row: u32,
    /// Its column, from 0.
    pub cursor_col: u32,
    /// The title that the program has set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Whether it is the screen of a full-screen program.
    pub alternate: bool,
}

impl Screen {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let json = self.json;
        match cli.ask(Call::Screen(self)).await? {
            Reply::ScreenShown(shown) if json => cli.print_json(&shown),
            Reply::ScreenShown(shown) => {
                let text = shown.lines.join("\n");
                cli.print(&format!("{}\n", show::clean(text.trim_end())))
            }
            other => Err(other.unexpected()),
        }
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let id = super::find(context, &self.target.session)?.id;
        let sessions = context.host.sessions.clone();
        // It may have much to read.
        let looked = tokio::task::spawn_blocking(move || sessions.screen(id)).await;
        let shown = looked.map_err(Error::internal)??;
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Ok(Reply::ScreenShown(ScreenShown {
            id: id.0,
            cursor_row: place(shown.cursor.0),
            cursor_col: place(shown.cursor.1),
            lines: shown.lines,
            title: shown.title,
            alternate: shown.alternate,
        }))
    }
}
