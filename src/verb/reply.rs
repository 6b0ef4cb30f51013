//! `cw reply <request> <text>`: answers a request, as the session that was asked.

use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use session::MessageKind;

use super::{Call, again, sending};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::Locator;
use crate::node::post::{State, letter_of};
use crate::node::{Action, Context};

/// How long the requester's node may take before the one who replies is told that it is away.
const PROMPT: Duration = Duration::from_secs(2);

/// Answer a request that a session has got.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Reply {
    /// The request, as the inbox shows it: req_…
    pub request_id: String,
    /// The answer, or - to read it from standard input. At most 1 MiB.
    pub body: String,
    /// The session that answers; within a session, that session.
    #[arg(short, long, value_name = "SESSION", add = super::complete::sessions())]
    #[serde(flatten, with = "crate::locator::sender")]
    pub from: Option<Locator>,
    /// The node of the session, once it is known.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The id of the reply, so that the call may be repeated.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
}

/// The answer to it.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Sent {
    /// The request.
    pub request_id: String,
    /// `queued` when it waits for the requester's node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

impl Reply {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        self.body = cli.body(self.body)?;
        self.message_id = Some(sending::new_id(MessageKind::Reply)?.to_string());
        match again::ask(cli, Call::MsgReply(self)).await? {
            super::Reply::MsgReplySent(sent) => {
                cli.note(&format!("Reply sent for request {}", sent.request_id));
                if sent.state.as_deref() == Some("queued") {
                    cli.note("[cw] who asked is away; the reply is kept here until then");
                }
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
        let id = sending::chosen(self.message_id.as_deref(), MessageKind::Reply)?;
        let host = context.host;
        let asked = self.request_id.parse().ok();
        let asked = asked.and_then(|request| host.sessions.resume(request).ok());
        if let Some(asker) = asked.and_then(|(asked, _)| asked.from.local_session()) {
            context.may(&Action::Reply, Some(asker))?;
        }
        let message = host
            .sessions
            .reply_as(id, &self.request_id, Some(by), self.body)
            .await?;
        let mut state = None;
        if let Some(letter) = letter_of(&message) {
            // It is settled, and nobody else can reply any more: that there is no room for it on its
            // way is no failure.
            host.post.put_surely(host, letter).await;
            let carried = host
                .post
                .until(id, |record| record.state != State::Accepted);
            let carried = tokio::time::timeout(PROMPT, carried).await;
            let state_now = carried.ok().and_then(std::result::Result::ok);
            let state_now = state_now.map_or(State::Queued, |record| record.state);
            state = Some(state_now.as_str().to_owned());
        }
        Ok(super::Reply::MsgReplySent(Sent {
            request_id: message
                .request_id
                .map_or(self.request_id, |id| id.to_string()),
            state,
        }))
    }
}
