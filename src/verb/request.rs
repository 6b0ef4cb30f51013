//! `cw request <session> <text>`: asks and waits for the answer of exactly that session.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::msg::Delivery;
use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::Locator;
use crate::node::Context;
use crate::show;

/// The longest that a request waits, in seconds: a day.
const TIMEOUT_MAX: u64 = 24 * 60 * 60;

/// Send a request to a session and wait for its reply.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Request {
    /// The session that is asked: its name or number, or node:session.
    #[serde(flatten, with = "crate::locator::to")]
    pub to: Locator,
    /// The question, or - to read it from standard input. At most 1 MiB.
    pub body: String,
    /// The session that asks; within a session, that session.
    #[arg(short, long, value_name = "SESSION")]
    #[serde(flatten, with = "crate::locator::sender")]
    pub from: Option<Locator>,
    /// Where it goes: into the inbox, typed into the terminal, or both.
    #[arg(long, value_enum, default_value_t)]
    #[serde(default)]
    pub delivery: Delivery,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    #[serde(rename = "timeout_seconds", default)]
    pub timeout: u64,
    /// Print the reply alone.
    #[arg(long)]
    #[serde(skip)]
    pub raw: bool,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Answered {
    /// The request's id.
    pub request_id: String,
    /// What the session replied.
    pub reply_body: String,
    /// Its number on its node.
    pub from_id: u32,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_name: Option<String>,
}

impl Request {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        self.body = cli.body(self.body)?;
        let raw = self.raw;
        match cli.ask(Call::MsgRequest(self)).await? {
            Reply::MsgRequestResult(answer) if raw => {
                cli.print(&format!("{}\n", answer.reply_body))
            }
            Reply::MsgRequestResult(answer) => {
                let from = answer
                    .from_name
                    .unwrap_or_else(|| answer.from_id.to_string());
                cli.print(&format!(
                    "[reply from {}] {}\n",
                    show::clean(&from),
                    show::clean(&answer.reply_body)
                ))
            }
            other => Err(other.unexpected()),
        }
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        self.delivery.check()?;
        let seconds = if self.timeout == 0 {
            60
        } else {
            self.timeout.min(TIMEOUT_MAX)
        };
        let (request, answer) = context
            .host
            .sessions
            .request(&self.to.session.to_ref()?, context.party(), self.body)
            .await?;
        // Whoever asked may leave; the request stays, and so does a reply that comes later.
        let reply = tokio::select! {
            reply = tokio::time::timeout(Duration::from_secs(seconds), answer) => reply,
            _ = context.channel.receiver.next_frame() => {
                return Err(Error::new("connection_lost", "the requester is gone"));
            }
        };
        let reply = reply.map_err(|_| {
            Error::new(
                "timeout",
                format!("request {} timed out after {seconds}s", request.id),
            )
            .hint("the request stays in the inbox; a late reply is kept")
        })??;
        let (from_id, from_name) = match &reply.from.session {
            Some((id, name)) => (id.0, name.as_ref().map(ToString::to_string)),
            None => (0, None),
        };
        Ok(Reply::MsgRequestResult(Answered {
            request_id: request.id.to_string(),
            reply_body: reply.body,
            from_id,
            from_name,
        }))
    }
}
