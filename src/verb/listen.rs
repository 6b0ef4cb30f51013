//! `cw listen`: messages as they happen, of one session or of the whole node.

use clap::Args;
use serde::{Deserialize, Serialize};
use session::io::{Filter, Notice};
use session::{Event, EventKind, EventType};

use super::event::Happened;
use super::inbox::MessageInfo;
use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::{Locator, Session};
use crate::node::Context;
use crate::rpc::Incoming;
use crate::show;

/// Follow messages until you stop it.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Listen {
    /// Only messages of this session: its name or number, or node:session.
    #[arg(id = "session", long = "session", value_name = "SESSION")]
    #[serde(skip)]
    pub target: Option<Locator>,
    /// Messages on this node.
    #[arg(long, value_name = "NODE", value_parser = crate::locator::node_name, conflicts_with = "session")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The session, without its node.
    #[arg(skip)]
    #[serde(flatten, with = "crate::locator::one")]
    pub session: Option<Session>,
    /// Print one JSON object a line.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

impl Listen {
    pub(crate) async fn run(mut self, cli: &Cli) -> Result<()> {
        if let Some(target) = self.target.take() {
            self.node = target.node;
            self.session = Some(target.session);
        }
        let json = self.json;
        let mut channel = cli.open().await?;
        channel.sender.send(&Call::MsgListen(self)).await?;
        loop {
            match channel.receiver.next::<Reply>().await? {
                Some(Incoming::Control(Reply::MsgListenAck)) => {
                    cli.note("[cw] listening for messages...")
                }
                Some(Incoming::Control(Reply::Event(happened))) if json => {
                    cli.print(&format!(
                        "{}\n",
                        serde_json::to_string(&happened).map_err(Error::internal)?
                    ))?;
                }
                Some(Incoming::Control(Reply::Event(happened))) => cli.print(&line(happened))?,
                Some(Incoming::Control(other)) => return Err(other.unexpected()),
                Some(Incoming::Data(_)) => {
                    return Err(Error::bad_request("raw bytes among events"));
                }
                None => return Err(Error::new("connection_lost", "connection lost")),
            }
        }
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let session = match &self.session {
            Some(session) => Some(super::find(context, session)?.id),
            None => None,
        };
        let mut events = context.host.sessions.subscribe(Filter {
            session,
            tags: Vec::new(),
            kinds: EventType::ALL
                .into_iter()
                .filter(|kind| kind.is_message())
                .collect(),
        });
        context.channel.sender.send(&Reply::MsgListenAck).await?;
        let (receiver, sender) = (&mut context.channel.receiver, &mut context.channel.sender);
        let mut twins = std::collections::VecDeque::new();
        loop {
            let heard = tokio::select! {
                heard = events.next() => heard,
                _ = receiver.next_frame() => return Err(Error::new("connection_lost", "the client is gone")),
            };
            let event = match heard {
                Some(Notice::Event(event)) => event,
                Some(Notice::Gap { .. }) => {
                    return Err(Error::new("gap", "some events cannot be read")
                        .hint("listen again; 'cw inbox' has every message"));
                }
                None => return Err(Error::new("node_stopping", "the node is stopping")),
            };
            // A message between two sessions of this node stands in both files; it is told once.
            if session.is_none() && seen(&mut twins, &event) {
                continue;
            }
            sender.send(&Reply::Event(Happened::from(&*event))).await?;
        }
    }
}

/// How many message ids are remembered to tell twins by.
const TWINS: usize = 1024;

fn seen(twins: &mut std::collections::VecDeque<String>, event: &Event) -> bool {
    let EventKind::Message(message) = &event.kind else {
        return false;
    };
    if twins.contains(&message.id.to_string()) {
        return true;
    }
    if twins.len() == TWINS {
        twins.pop_front();
    }
    twins.push_back(message.id.to_string());
    false
}

/// `[a → b] body`, `[a → b] REQUEST (id): body`, `[b] REPLY (id): body`.
fn line(happened: Happened) -> String {
    let Ok(message) = serde_json::from_value::<MessageInfo>(happened.event.data.0) else {
        return String::new();
    };
    let label = |id: u32, name: &Option<String>| name.clone().unwrap_or_else(|| id.to_string());
    let from = show::clean(&label(message.from, &message.from_name));
    let to = show::clean(&label(message.to, &message.to_name));
    let request = message.request_id.as_deref().unwrap_or(&message.message_id);
    let body = show::clean(&message.body);
    match happened.event.kind.as_str() {
        "message.request" => format!("[{from} → {to}] REQUEST ({request}): {body}\n"),
        "message.reply" => format!("[{from}] REPLY ({request}): {body}\n"),
        _ => format!("[{from} → {to}] {body}\n"),
    }
}
