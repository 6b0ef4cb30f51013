//! `cw msg <session> <text>`: leaves a message for a session; it is on the recipient's disk when
//! the command returns.

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::Locator;
use crate::node::Context;
use crate::show;

/// Send a message to a session.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Msg {
    /// The recipient: its name or number, or node:session.
    #[serde(flatten, with = "crate::locator::to")]
    pub to: Locator,
    /// The text, or - to read it from standard input. At most 1 MiB.
    pub body: String,
    /// The session that sends it; within a session, that session.
    #[arg(short, long, value_name = "SESSION")]
    #[serde(flatten, with = "crate::locator::sender")]
    pub from: Option<Locator>,
    /// Where it goes: into the inbox, typed into the terminal, or both.
    #[arg(long, value_enum, default_value_t)]
    #[serde(default)]
    pub delivery: Delivery,
}

/// How a message reaches a session; means the same locally, remotely and for every client.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    ValueEnum,
    Serialize,
    Deserialize,
    bincode::Encode,
    bincode::Decode,
)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// The inbox.
    #[default]
    Auto,
    /// The inbox.
    Inbox,
    /// Typed into the terminal.
    Pty,
    /// The inbox and the terminal.
    Both,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct MsgSent {
    /// 128 random bits after `msg_`.
    pub message_id: String,
    /// When it was stored, RFC 3339.
    pub status: String,
}

impl Msg {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        self.body = cli.body(self.body)?;
        match cli.ask(Call::MsgSend(self)).await? {
            Reply::MsgSent(sent) => {
                cli.note(&format!("Message sent: {}", sent.message_id));
                Ok(())
            }
            other => Err(other.unexpected()),
        }
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        self.delivery.check()?;
        let message = context
            .host
            .sessions
            .deliver(&self.to.session.to_ref()?, context.party(), self.body)
            .await?;
        Ok(Reply::MsgSent(MsgSent {
            message_id: message.id.to_string(),
            status: show::rfc3339(message.at_ms),
        }))
    }
}

impl Delivery {
    /// # Errors
    ///
    /// `not_built` for what types into a terminal: a delivery that did not happen is never
    /// reported as done.
    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Auto | Self::Inbox => Ok(()),
            Self::Pty | Self::Both => Err(Error::not_built("delivery into a terminal")
                .hint("use --delivery inbox, or 'cw send' to type into the session")),
        }
    }
}
