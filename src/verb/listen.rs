//! `cw listen`: messages as they happen, of one session or of the whole node.
//!
//! It goes on by itself where it was when the node is restarted under it, or the way to another
//! machine is lost for a while; what is no longer kept by then is told as a gap.

use clap::Args;
use serde::{Deserialize, Serialize};
use session::EventType;
use session::io::{Filter, Notice};

use super::event::Happened;
use super::inbox::MessageInfo;
use super::subscribe::Gap;
use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::{Locator, Session};
use crate::node::Context;
use crate::rpc::{Channel, Incoming};
use crate::show;
use crate::verb::again::{Patience, until_done};

/// Follow messages until you stop it.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Listen {
    /// Only messages of this session: its name or number, or node:session.
    #[arg(id = "session", long = "session", value_name = "SESSION", add = super::complete::sessions())]
    #[serde(skip)]
    pub target: Option<Locator>,
    /// Messages on this node.
    #[arg(long, value_name = "NODE", value_parser = crate::locator::node_name, conflicts_with = "session", add = super::complete::nodes())]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The session, without its node.
    #[arg(skip)]
    #[serde(flatten, with = "crate::locator::one")]
    pub session: Option<Session>,
    /// Begin after this cursor; 0 is everything that is kept.
    #[arg(long, value_name = "CURSOR")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Also what becomes of messages: typed, read, refused, and of those to other nodes queued,
    /// delivered, answered, expired.
    #[arg(long)]
    #[serde(default)]
    pub receipts: bool,
    /// The token of a grant, for a session of somebody else's node.
    #[arg(long, value_name = "TOKEN")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// Print one JSON object a line.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

/// The answer; events follow.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Listening {
    /// Where it begins.
    #[serde(default)]
    pub cursor: u64,
}

/// What has been heard so far.
struct Heard {
    json: bool,
    cursor: Option<u64>,
    told: bool,
}

impl Listen {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        if let Some(target) = self.target.take() {
            self.node = target.node;
            self.session = Some(target.session);
        }
        let mut heard = Heard {
            json: self.json,
            cursor: self.since,
            told: false,
        };
        until_done(cli, async |channel, patience| {
            let call = Self {
                since: heard.cursor,
                ..self.clone()
            };
            follow(cli, call, channel, patience, &mut heard).await
        })
        .await
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let session = match &self.session {
            Some(session) => Some(super::find(context, session)?.id),
            None => None,
        };
        let wanted = |kind: &EventType| {
            kind.is_message() && (self.receipts || *kind != EventType::MessageReceipt)
        };
        let filter = Filter {
            session,
            tags: Vec::new(),
            kinds: EventType::ALL.into_iter().filter(wanted).collect(),
        };
        let sessions = &context.host.sessions;
        let cursor = self.since.unwrap_or_else(|| sessions.cursor());
        let mut events = sessions.subscribe_since(filter, cursor);
        let ack = Reply::MsgListenAck(Listening { cursor });
        context.channel.sender.send(&ack).await?;
        let (receiver, sender) = (&mut context.channel.receiver, &mut context.channel.sender);
        loop {
            let heard = tokio::select! {
                heard = events.next() => heard,
                _ = receiver.next_frame() => return Err(Error::new("connection_lost", "the client is gone")),
            };
            match heard {
                Some(Notice::Event(event)) => {
                    sender.send(&Reply::Event(Happened::from(&*event))).await?;
                }
                Some(Notice::Gap { from, to }) => {
                    sender.send(&Reply::EventGap(Gap { from, to })).await?;
                }
                None => return Err(Error::new("connection_lost", "the node is stopping")),
            }
        }
    }
}

async fn follow(
    cli: &Cli,
    call: Listen,
    mut channel: Channel,
    patience: &mut Patience,
    heard: &mut Heard,
) -> Result<()> {
    channel.sender.send(&Call::MsgListen(call)).await?;
    loop {
        let reply = match channel.receiver.next::<Reply>().await? {
            Some(Incoming::Control(reply)) => reply,
            Some(Incoming::Data(_)) => return Err(Error::bad_request("raw bytes among events")),
            None => return Err(Error::new("connection_lost", "connection lost")),
        };
        match reply {
            Reply::MsgListenAck(ack) => {
                patience.heard();
                heard.cursor.get_or_insert(ack.cursor);
                if !std::mem::replace(&mut heard.told, true) {
                    cli.note("[cw] listening for messages...");
                }
            }
            Reply::Event(happened) => {
                patience.heard();
                heard.cursor = Some(happened.event.cursor);
                if heard.json {
                    let text = serde_json::to_string(&happened).map_err(Error::internal)?;
                    cli.print(&format!("{text}\n"))?;
                } else {
                    cli.print(&line(happened))?;
                }
            }
            Reply::EventGap(gap) => {
                patience.heard();
                heard.cursor = Some(gap.to);
                if heard.json {
                    cli.print(&format!("{}\n", serde_json::json!({"gap": gap})))?;
                } else {
                    cli.note(&gap.text("messages"));
                }
            }
            other => return Err(other.unexpected()),
        }
    }
}

/// `[a → b] body`, `[a → b] REQUEST (id): body`, `[b] REPLY (id): body`.
fn line(happened: Happened) -> String {
    if happened.event.kind == EventType::MessageReceipt.as_str() {
        return receipt(happened.session_id, &happened.event.data.0);
    }
    let Ok(message) = serde_json::from_value::<MessageInfo>(happened.event.data.0) else {
        return String::new();
    };
    let label = |id: u32, name: &Option<String>| name.clone().unwrap_or_else(|| id.to_string());
    let from = show::clean(&label(message.from, &message.from_name));
    let to = show::clean(&label(message.to, &message.to_name));
    let request = message.request_id.as_deref().unwrap_or(&message.message_id);
    let body = show::hang(&message.body);
    match happened.event.kind.as_str() {
        "message.request" => format!("[{from} → {to}] REQUEST ({request}): {body}\n"),
        "message.reply" => format!("[{from}] REPLY ({request}): {body}\n"),
        _ => format!("[{from} → {to}] {body}\n"),
    }
}

/// `[3] msg_… submitted`.
fn receipt(session: u32, data: &serde_json::Value) -> String {
    let ids = data["message_ids"].as_array().into_iter().flatten();
    let state = data["state"].as_str().unwrap_or_default();
    let why = data["reason"].as_str().map(|why| format!(" ({why})"));
    let why = why.unwrap_or_default();
    ids.filter_map(serde_json::Value::as_str)
        .map(|id| show::clean(&format!("[{session}] {id} {state}{why}")) + "\n")
        .collect()
}
