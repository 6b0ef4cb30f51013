//! `cw inbox <session>`: the messages that a session has got and sent, oldest first.

use clap::Args;
use serde::{Deserialize, Serialize};
use session::{InboxItem, Message, MessageKind, Party, RequestState};

use super::outbox::LetterInfo;
use super::progress::Now;
use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::Result;
use crate::locator::Locator;
use crate::node::post::Record;
use crate::node::{Caller, Context};
use crate::show;

/// The most messages that one call reads.
const TAIL_MAX: u32 = 10_000;

/// Show the messages of a session, with pending requests marked.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Inbox {
    /// The session: its name or number, or node:session.
    #[arg(add = super::complete::sessions())]
    #[serde(flatten, with = "target")]
    pub target: Locator,
    /// At most this many, the latest.
    #[arg(short, long, default_value_t = 50)]
    #[serde(default = "fifty")]
    pub tail: u32,
    /// Only those after this cursor, oldest first; the JSON has a cursor for each message, and
    /// the last one's is where to go on.
    #[arg(long, value_name = "CURSOR", conflicts_with = "tail")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The token of a grant, for a session of somebody else's node.
    #[arg(long, value_name = "TOKEN")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
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
#[derive(
    Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode, schemars::JsonSchema,
)]
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
    /// For requests `pending`, `expired` (its deadline is over; a reply is still taken), `answered`
    /// or `abandoned`; for other messages how far they have
    /// come: `queued`, `delivered`, `injected`, `unverified`, `submitted`, `read`, `refused`,
    /// `expired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Until when the sender of a request wants the reply, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// What came of typing it into the terminal: `submitted`, `unverified`, `refused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typed: Option<String>,
    /// Why it is not further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether the session has read it.
    #[serde(default)]
    pub read: bool,
    /// `pty` or `both`, when it is to be typed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// Its number on its node, for `--since`; 0 for one that is on its way to another node.
    #[serde(default)]
    pub cursor: u64,
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

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let tail = self.tail.min(TAIL_MAX) as usize;
        let session = self.target.session.to_ref()?;
        let sessions = &context.host.sessions;
        let id = sessions.find(&session)?.id;
        let items = match self.since {
            Some(since) => sessions.inbox_since(&session, since, TAIL_MAX as usize)?,
            None => sessions.inbox(&session, tail)?,
        };
        if matches!(context.caller, Caller::Session(me, _) if me == id) {
            let new = items
                .iter()
                .filter(|item| item.message.is_for(id))
                .filter(|item| item.progress.as_ref().is_some_and(|one| !one.read));
            let new: Vec<_> = new.map(|item| item.message.id).collect();
            if let Err(error) = sessions.read(id, new).await {
                // What was asked for is there all the same.
                tracing::warn!(%error, "it is not recorded that messages were read");
            }
        }
        let mut messages: Vec<_> = items.iter().map(MessageInfo::from).collect();
        if self.since.is_none() {
            // What the session has sent to other nodes.
            let sent = context.host.post.list(Some(id.0), tail);
            let sent = sent
                .iter()
                .filter(|record| record.letter.id.kind() != MessageKind::Reply);
            messages.extend(sent.map(MessageInfo::from));
            messages.sort_by(|one, other| one.timestamp.cmp(&other.timestamp));
            messages.drain(..messages.len().saturating_sub(tail));
        }
        Ok(Reply::MsgReadResult(Messages { messages }))
    }
}

impl From<&InboxItem> for MessageInfo {
    fn from(item: &InboxItem) -> Self {
        let mut info = Self::from(&item.message);
        info.cursor = item.cursor;
        let overdue = item.message.is_overdue(show::now_ms());
        let state = item.state.map(|state| state_text(state, overdue));
        info.state = state.map(str::to_owned);
        if let Some(progress) = &item.progress {
            let now = Now::of(progress, None);
            info.state.get_or_insert(now.state);
            (info.typed, info.reason, info.read) = (now.typed, now.reason, progress.read);
        }
        info
    }
}

impl From<&Record> for MessageInfo {
    fn from(record: &Record) -> Self {
        let letter = LetterInfo::from(record);
        let pending = record.letter.id.kind() == MessageKind::Request
            && record.state == crate::node::post::State::Delivered;
        Self {
            message_id: letter.message_id,
            timestamp: letter.timestamp,
            from: letter.from.unwrap_or_default(),
            from_name: Some(letter.from_name),
            to: 0,
            to_name: Some(letter.to),
            body: letter.body,
            kind: letter.kind,
            request_id: letter.request_id,
            state: Some(match record.letter.deadline_ms {
                Some(deadline) if pending && deadline <= show::now_ms() => "expired".to_owned(),
                _ if pending => "pending".to_owned(),
                _ => letter.state,
            }),
            deadline: record.letter.deadline_ms.map(show::rfc3339),
            typed: None,
            reason: letter.reason,
            read: false,
            delivery: None,
            cursor: 0,
        }
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
            kind: type_of(message.kind).to_owned(),
            request_id: message.request_id.as_ref().map(ToString::to_string),
            state: None,
            deadline: message.deadline_ms.map(show::rfc3339),
            typed: None,
            reason: None,
            read: false,
            delivery: message
                .delivery
                .types()
                .then(|| message.delivery.as_str().to_owned()),
            cursor: 0,
        }
    }
}

/// The type of a message's event.
#[must_use]
pub fn type_of(kind: MessageKind) -> &'static str {
    match kind {
        MessageKind::Direct => "direct.message",
        MessageKind::Request => "message.request",
        MessageKind::Reply => "message.reply",
    }
}

const fn state_text(state: RequestState, overdue: bool) -> &'static str {
    match state {
        RequestState::Pending if overdue => "expired",
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
        _ => match message.state.as_deref() {
            Some(state @ ("accepted" | "queued" | "refused" | "expired")) => {
                format!("{from} → {to} ({state})")
            }
            _ => format!("{from} → {to}"),
        },
    };
    format!(
        "[{}] {}: {}\n",
        message.timestamp,
        show::clean(&head),
        show::hang(&message.body)
    )
}
