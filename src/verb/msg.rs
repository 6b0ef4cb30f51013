//! `cw msg <session> <text>`: leaves a message for a session; it is on the recipient's disk when
//! the command returns, or on this node's if that of the recipient is away, which is said.
//!
//! The command gives the message its id. When the node dies under it, it asks again with the same
//! one, and the message is there once.

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::recipient::Recipient;
use super::{Call, Reply, again, sending};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::Locator;
use crate::node::Context;
use crate::show;

/// Send a message to a session.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Msg {
    /// The recipient: its name or number, node:session, @tag:worker for all with a tag, or
    /// @group:mesh for all of a group.
    #[arg(value_name = "SESSION|@tag:TAG|@group:GROUP", add = super::complete::sessions())]
    #[serde(flatten)]
    pub to: Recipient,
    /// The text, or - to read it from standard input. At most 1 MiB.
    pub body: String,
    /// The session that sends it; within a session, that session.
    #[arg(short, long, value_name = "SESSION", add = super::complete::sessions())]
    #[serde(flatten, with = "crate::locator::sender")]
    pub from: Option<Locator>,
    /// Where it goes: into the inbox, typed into the terminal, or both; auto is both when a
    /// session sends it, else the inbox.
    #[arg(long, value_enum, default_value_t)]
    #[serde(default)]
    pub delivery: Delivery,
    /// Wait until it has come so far; read is also what the program has taken when it was typed.
    #[arg(long, value_enum, value_name = "STATE")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Until>,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "wait")]
    #[serde(rename = "timeout_seconds", default)]
    pub timeout: u64,
    /// Fail when the recipient's node is away, instead of keeping the message for it.
    #[arg(long, conflicts_with = "wait")]
    #[serde(default)]
    pub no_queue: bool,
    /// The id of the message, so that the call may be repeated.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Print JSON.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
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
    /// Both when a session sends it, else the inbox.
    #[default]
    Auto,
    /// The inbox.
    Inbox,
    /// Typed into the terminal.
    Pty,
    /// The inbox and the terminal.
    Both,
}

/// How far to wait.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    ValueEnum,
    Serialize,
    Deserialize,
    bincode::Encode,
    bincode::Decode,
)]
#[serde(rename_all = "lowercase")]
pub enum Until {
    /// It is on the recipient's disk.
    Delivered,
    /// The recipient has read it.
    Read,
}

/// The answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct MsgSent {
    /// 128 random bits after `msg_`; empty when it went to several.
    pub message_id: String,
    /// When it was stored, RFC 3339.
    pub status: String,
    /// How far it has come: `queued`, `delivered`, `injected`, `unverified`, `submitted`, `read`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub state: String,
    /// What came of typing it: `submitted`, `unverified`, `refused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typed: Option<String>,
    /// Why it is not further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// One for each recipient of a message to several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub receipts: Vec<Receipt>,
}

/// What became of a message to one of several.
#[derive(Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Receipt {
    /// The session.
    pub recipient: String,
    /// The message's id.
    pub message_id: String,
    /// As in [`MsgSent`], or `refused`.
    pub state: String,
    /// Why it is not further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Msg {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        self.body = cli.body(self.body)?;
        self.message_id = Some(sending::new_id(session::MessageKind::Direct)?.to_string());
        let json = self.json;
        let end = Instant::now() + self.patience();
        let call = || {
            Call::MsgSend(Self {
                timeout: again::seconds_until(end),
                ..self.clone()
            })
        };
        let sent = match again::ask_anew(cli, call).await? {
            Reply::MsgSent(sent) => sent,
            other => return Err(other.unexpected()),
        };
        if json {
            return cli.print_json(&sent);
        }
        for one in &sent.receipts {
            let why = one.reason.as_ref().map(|why| format!(" ({why})"));
            let line = format!(
                "{}: {} {}{}",
                one.recipient,
                one.message_id,
                one.state,
                why.unwrap_or_default()
            );
            cli.print(&format!("{}\n", show::clean(&line)))?;
        }
        if !sent.receipts.is_empty() {
            return several(&sent.receipts);
        }
        cli.note(&format!("Message sent: {}", sent.message_id));
        let why = show::clean(sent.reason.as_deref().unwrap_or_default());
        match (sent.state.as_str(), sent.typed.as_deref()) {
            ("queued", _) => cli.note(&format!(
                "[cw] {why}; the message is kept here and delivered as soon as that can be"
            )),
            (_, Some("refused")) => cli.note(&format!("[cw] in the inbox, not typed: {why}")),
            (_, Some("unverified")) => cli.note(&format!("[cw] typed, unverified: {why}")),
            _ => {}
        }
        Ok(())
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        match self.to.clone() {
            Recipient::One(to) => Ok(Reply::MsgSent(sending::message(context, to, &self).await?)),
            Recipient::Tagged { node, tag } => {
                let found = sending::tagged(context, node.as_deref(), &tag).await?;
                let found = found.into_iter().map(|(id, name)| (node.clone(), id, name));
                self.broadcast(context, found.collect()).await
            }
            Recipient::Group { node, group } => {
                let found = sending::grouped(context, node.as_deref(), &group)?;
                self.broadcast(context, found).await
            }
        }
    }

    async fn broadcast(
        self,
        context: &mut Context<'_>,
        found: Vec<sending::Seat>,
    ) -> Result<Reply> {
        let acting = context.party().local_session();
        let mut receipts = Vec::new();
        for (node, id, name) in found {
            if node.is_none() && acting.is_some_and(|me| me.0 == id) {
                continue;
            }
            let to = Locator {
                node: node.clone(),
                session: crate::locator::Session::Id(id),
            };
            let prefix = node.as_ref().map(|node| format!("{node}:"));
            let recipient = format!(
                "{}{}",
                prefix.unwrap_or_default(),
                name.unwrap_or_else(|| id.to_string())
            );
            let mut call = self.clone();
            // One that was repeated finds the same ids.
            let (whose, key) = (
                self.message_id.as_deref(),
                node.as_deref().unwrap_or_default(),
            );
            call.message_id = Some(sending::derived(whose, key, id)?);
            let message_id = call.message_id.clone().unwrap_or_default();
            receipts.push(match sending::message(context, to, &call).await {
                Ok(sent) => Receipt {
                    recipient,
                    message_id: sent.message_id,
                    state: sent.state,
                    reason: sent.reason,
                },
                Err(error) => Receipt {
                    recipient,
                    message_id,
                    state: "refused".to_owned(),
                    reason: Some(error.message),
                },
            });
        }
        if receipts.is_empty() {
            return Err(Error::new(
                "session_not_found",
                format!("no other session that runs is meant by {}", self.to),
            ));
        }
        Ok(Reply::MsgSent(MsgSent {
            status: show::rfc3339(show::now_ms()),
            receipts,
            ..MsgSent::default()
        }))
    }

    pub(super) fn patience(&self) -> Duration {
        sending::seconds(self.timeout)
    }
}

/// Fails when it was refused by some.
fn several(receipts: &[Receipt]) -> Result<()> {
    let refused = receipts.iter().filter(|one| one.state == "refused").count();
    if refused == 0 {
        return Ok(());
    }
    let all = receipts.len();
    Err(Error::new(
        "partly_refused",
        format!("{refused} of {all} recipients did not get it"),
    ))
}
