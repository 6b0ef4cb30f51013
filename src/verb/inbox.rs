//! `cw inbox <session>`: the messages that a session has got and sent, oldest first.

use clap::Args;
use serde::{Deserialize, Serialize};
use session::{Message, MessageKind, Party, RequestState};

use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::Result;
use crate::locator::Locator;
use crate::node::Context;
use crate::show;

/// The most messages that one call reads.
const TAIL_MAX: u32 = 10_000;

/// Show the messages of a session, with pending requests marked.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Inbox {
    /// The session: its name or number, or node:session.
    #[serde(flatten, with = "target")]
    pub target: Locator,
    /// At most this many, the latest.
    #[arg(short, long, default_value_t = 50)]
    #[serde(default = "fifty")]
    pub tail: u32,
    /// Print JSON.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

fn fifty() -> u32 {
    50
}

/// `id` or `to_name`, as existing clients say it, or `name`.
mod target {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    use crate::locator::{Locator, Session};

    #[derive(Serialize, Deserialize)]
    struct Wire {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<u32>,
        #[serde(default, alias = "name", skip_serializing_if = "Option::is_none")]
        to_name: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<String>,
    }

    pub(super) fn serialize<S: Serializer>(
        target: &Locator,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let (id, to_name) = match &target.session {
            Session::Id(id) => (Some(*id), None),
            Session::Name(name) => (None, Some(name.clone())),
        };
        Wire {
            id,
            to_name,
            node: target.node.clone(),
        }
        .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Locator, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let session = wire
            .id
            .map(Session::Id)
            .or_else(|| wire.to_name.map(Session::Name))
            .ok_or_else(|| D::Error::custom("session id or name required"))?;
        Ok(Locator {
            node: wire.node,
            session,
        })
    }
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Messages {
    /// Oldest first.
    pub messages: Vec<MessageInfo>,
}

/// A message on the wire.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct MessageInfo {
    /// Its id; of a request, the request's.
    pub message_id: String,
    /// RFC 3339.
    pub timestamp: String,
    /// The sender's number when it is a session of this node, else 0.
    pub from: u32,
    /// The sender as it is proven: `planner`, or `dev-1:planner` from another node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_name: Option<String>,
    /// The recipient's number when it is a session of this node, else 0.
    pub to: u32,
    /// The recipient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_name: Option<String>,
    /// The text, as it was sent.
    pub body: String,
    /// `direct.message`, `message.request` or `message.reply`.
    #[serde(rename = "type")]
    pub kind: String,
    /// For requests and replies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// For requests to this session: `pending`, `answered` or `abandoned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

impl Inbox {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let json = self.json;
        let messages = match cli.ask(Call::MsgRead(self)).await? {
            Reply::MsgReadResult(read) => read.messages,
            other => return Err(other.unexpected()),
        };
        if json {
            return cli.print_json(&messages);
        }
        if messages.is_empty() {
            return cli.print("No messages\n");
        }
        cli.print(&messages.iter().map(line).collect::<String>())
    }

    pub(crate) fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let tail = self.tail.min(TAIL_MAX) as usize;
        let items = context
            .host
            .sessions
            .inbox(&self.target.session.to_ref()?, tail)?;
        let messages = items
            .into_iter()
            .map(|item| MessageInfo {
                state: item.state.map(|state| state_text(state).to_owned()),
                ..MessageInfo::from(&item.message)
            })
            .collect();
        Ok(Reply::MsgReadResult(Messages { messages }))
    }
}

impl From<&Message> for MessageInfo {
    fn from(message: &Message) -> Self {
        let (from, from_name) = address(&message.from);
        let (to, to_name) = address(&message.to);
        Self {
            message_id: message.id.to_string(),
            timestamp: show::rfc3339(message.at_ms),
            from,
            from_name,
            to,
            to_name,
            body: message.body.clone(),
            kind: kind_text(message.kind).to_owned(),
            request_id: message.request_id.as_ref().map(ToString::to_string),
            state: None,
        }
    }
}

/// The type of a message's event.
#[must_use]
pub fn kind_text(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Direct => "direct.message",
        MessageKind::Request => "message.request",
        MessageKind::Reply => "message.reply",
    }
}

fn state_text(state: RequestState) -> &'static str {
    match state {
        RequestState::Pending => "pending",
        RequestState::Answered => "answered",
        RequestState::Abandoned => "abandoned",
    }
}

fn address(party: &Party) -> (u32, Option<String>) {
    match (&party.node, &party.session) {
        (None, Some((id, name))) => (id.0, name.as_ref().map(ToString::to_string)),
        (None, None) => (0, Some("owner".to_owned())),
        (Some(_), _) => (0, Some(party.to_string())),
    }
}

/// A message as people read it; what others wrote cannot move the cursor.
pub(crate) fn line(message: &MessageInfo) -> String {
    let label = |id: u32, name: &Option<String>| name.clone().unwrap_or_else(|| id.to_string());
    let from = label(message.from, &message.from_name);
    let to = label(message.to, &message.to_name);
    let request = message.request_id.as_deref().unwrap_or(&message.message_id);
    let state = message
        .state
        .as_deref()
        .map(|state| format!(", {state}"))
        .unwrap_or_default();
    let head = match message.kind.as_str() {
        "message.request" => format!("REQUEST {from} → {to} (req={request}{state})"),
        "message.reply" => format!("REPLY {from} (req={request})"),
        _ => format!("{from} → {to}"),
    };
    format!(
        "[{}] {}: {}\n",
        message.timestamp,
        show::clean(&head),
        show::clean(&message.body)
    )
}
