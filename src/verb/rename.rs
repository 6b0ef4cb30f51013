//! `cw rename <session> <name>`: another name for a session that runs.

use clap::Args;
use serde::{Deserialize, Serialize};
use session::Name;

use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::Locator;
use crate::node::Context;

/// Give a session another name, or none.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Rename {
    /// The session: its name or number, or node:session.
    #[arg(add = super::complete::sessions())]
    #[serde(flatten)]
    pub target: Locator,
    /// The new name: 1 to 32 letters, digits and hyphens, starting with a letter or digit.
    #[arg(required_unless_present = "none")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_name: Option<String>,
    /// Take its name away.
    #[arg(long, conflicts_with = "new_name")]
    #[serde(skip)]
    pub none: bool,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Renamed {
    /// The session.
    pub id: u32,
    /// The name it has now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Rename {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        if let Some(name) = &self.new_name
            && name.contains(':')
        {
            return Err(Error::new("name_invalid", format!("invalid name {name:?}"))
                .hint("a session stays on its node; give the new name alone"));
        }
        match cli.ask(Call::Rename(self)).await? {
            Reply::Renamed(renamed) => {
                let name = renamed.name.map_or_else(
                    || "has no name now".to_owned(),
                    |name| format!("is {name} now"),
                );
                cli.note(&format!("Session {} {name}", renamed.id));
                Ok(())
            }
            other => Err(other.unexpected()),
        }
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let id = super::find(context, &self.target.session)?.id;
        let name = self.new_name.map(|name| name.parse::<Name>()).transpose()?;
        let info = context.host.sessions.rename(id, name).await?;
        Ok(Reply::Renamed(Renamed {
            id: info.id.0,
            name: info.name.as_ref().map(ToString::to_string),
        }))
    }
}
