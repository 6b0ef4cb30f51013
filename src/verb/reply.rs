//! `cw reply <request> <text>`: answers a request, as the session that was asked.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::Call;
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::Locator;
use crate::node::Context;

/// Answer a request that a session has got.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Reply {
    /// The request, as the inbox shows it: req_…
    pub request_id: String,
    /// The answer, or - to read it from standard input. At most 1 MiB.
    pub body: String,
    /// The session that answers; within a session, that session.
    #[arg(short, long, value_name = "SESSION")]
    #[serde(flatten, with = "crate::locator::sender")]
    pub from: Option<Locator>,
    /// The node of the session, once it is known.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// The answer to it.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Sent {
    /// The request.
    pub request_id: String,
}

impl Reply {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        self.body = cli.body(self.body)?;
        match cli.ask(Call::MsgReply(self)).await? {
            super::Reply::MsgReplySent(sent) => {
                cli.note(&format!("Reply sent for request {}", sent.request_id));
                Ok(())
            }
            other => Err(other.unexpected()),
        }
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<super::Reply> {
        let by = match context.party() {
            session::Party {
                node: None,
                session: Some((id, _)),
            } => id,
            // The node that a session lives on speaks for it; another node cannot.
            session::Party { node: Some(_), .. } => {
                return Err(Error::new(
                    "sender_forbidden",
                    "a reply is sent from the node of the session that was asked",
                ));
            }
            session::Party { .. } => {
                return Err(Error::new(
                    "sender_required",
                    "missing sender identity: which session replies?",
                ));
            }
        };
        let message = context
            .host
            .sessions
            .reply(&self.request_id, Some(by), self.body)
            .await?;
        Ok(super::Reply::MsgReplySent(Sent {
            request_id: message
                .request_id
                .map_or(self.request_id, |id| id.to_string()),
        }))
    }
}
