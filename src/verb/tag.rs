//! `cw tag <session> [tag…] [--remove tag…]`: shows or changes the tags of a session.

use clap::Args;
use serde::{Deserialize, Serialize};
use session::Tag as Label;

use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::Locator;
use crate::node::judge::is_mark;
use crate::node::{Action, Context};
use crate::show;

/// Show the tags of a session, or change them.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Tag {
    /// The session: its name or number, or node:session.
    #[arg(add = super::complete::sessions())]
    #[serde(flatten)]
    pub target: Locator,
    /// Tags to add.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// A tag to take away; may be given several times.
    #[arg(short, long, value_name = "TAG", add = super::complete::tags())]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Print JSON.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Tagged {
    /// The session.
    pub id: u32,
    /// Its tags now.
    pub tags: Vec<String>,
}

impl Tag {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let json = self.json;
        match cli.ask(Call::Tag(self)).await? {
            Reply::Tagged(tagged) if json => cli.print_json(&tagged.tags),
            Reply::Tagged(tagged) => tagged
                .tags
                .iter()
                .try_for_each(|tag| cli.print(&format!("{}\n", show::clean(tag)))),
            other => Err(other.unexpected()),
        }
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let mut info = super::find(context, &self.target.session)?;
        let labels = |texts: &[String]| {
            let labels = texts.iter().map(|text| text.parse::<Label>());
            labels.collect::<Result<Vec<_>, _>>()
        };
        let (add, remove) = (labels(&self.add)?, labels(&self.remove)?);
        if add.iter().any(is_mark) {
            return Err(
                Error::new("tag_invalid", "tags with group: are made by groups")
                    .hint("'cw group add' puts a session into a group"),
            );
        }
        if remove.iter().any(is_mark) {
            // It keeps the session closed, so only who may open it takes it away.
            context.may(&Action::Administer, None)?;
        }
        if !add.is_empty() || !remove.is_empty() {
            info = context.host.sessions.retag(info.id, add, remove).await?;
        }
        Ok(Reply::Tagged(Tagged {
            id: info.id.0,
            tags: info.tags.iter().map(ToString::to_string).collect(),
        }))
    }
}
