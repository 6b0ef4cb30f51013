//! `cw outbox [session]`: messages to other nodes, and how far they have come.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Call, Reply};
use crate::cli::Cli;
use crate::error::Result;
use crate::locator::Session;
use crate::node::post::Record;
use crate::node::{Caller, Context};
use crate::show;

/// The most letters that one call shows.
const TAIL_MAX: u32 = 10_000;

/// Show the messages from here to other nodes, and how far they have come.
#[derive(Args, Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Outbox {
    /// Only those of this session: its name or number.
    #[arg(value_name = "SESSION", add = super::complete::sessions())]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Session>,
    /// At most this many, the latest.
    #[arg(short, long, default_value_t = 50)]
    #[serde(default)]
    pub tail: u32,
    /// Only those that wait for a node that is away.
    #[arg(long)]
    #[serde(default)]
    pub queued: bool,
    /// Print JSON.
    #[arg(short, long)]
    #[serde(skip)]
    pub json: bool,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Letters {
    /// Oldest first.
    pub letters: Vec<LetterInfo>,
}

/// A message to another node.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct LetterInfo {
    /// Its id.
    pub message_id: String,
    /// When it was sent, RFC 3339.
    pub timestamp: String,
    /// `direct.message`, `message.request` or `message.reply`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The session that sent it; none for the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u32>,
    /// Its name then, or `owner`.
    pub from_name: String,
    /// `node:session`.
    pub to: String,
    /// `accepted`, `queued`, `delivered`, `answered`, `expired` or `refused`.
    pub state: String,
    /// A stable word for why it is not further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For requests and replies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The text, or its beginning.
    pub body: String,
}

impl Outbox {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let json = self.json;
        let letters = match cli.ask(Call::MsgOutbox(self)).await? {
            Reply::MsgLetters(found) => found.letters,
            other => return Err(other.unexpected()),
        };
        if json {
            return cli.print_json(&letters);
        }
        if letters.is_empty() {
            return cli.print("No messages to other nodes\n");
        }
        cli.print(&letters.iter().map(line).collect::<String>())
    }

    pub(crate) fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let named = match &self.session {
            Some(session) => Some(super::find(context, session)?.id.0),
            None => None,
        };
        let whose = match &context.caller {
            // A session sees its own.
            Caller::Session(id, _) => {
                if named.is_some_and(|named| named != id.0) {
                    context.may(
                        &crate::node::Action::ReadInbox(Session::Id(named.unwrap_or_default())),
                        None,
                    )?;
                }
                Some(id.0)
            }
            Caller::Owner | Caller::Peer { .. } => named,
        };
        let tail = self.tail.clamp(1, TAIL_MAX) as usize;
        let all = if self.queued { usize::MAX } else { tail };
        let records = context.host.post.list(whose, all);
        let wanted = records
            .iter()
            .filter(|record| !self.queued || record.state.waits());
        let mut letters: Vec<_> = wanted.map(LetterInfo::from).collect();
        letters.drain(..letters.len().saturating_sub(tail));
        Ok(Reply::MsgLetters(Letters { letters }))
    }
}

impl From<&Record> for LetterInfo {
    fn from(record: &Record) -> Self {
        let letter = &record.letter;
        let request = letter.id.kind() == session::MessageKind::Request;
        let request = request.then_some(letter.id).or(letter.request_id);
        let name =
            |(id, name): &(u32, Option<String>)| name.clone().unwrap_or_else(|| id.to_string());
        let there = record
            .got_by
            .as_ref()
            .map(name)
            .or_else(|| letter.to.as_ref().map(ToString::to_string))
            .unwrap_or_else(|| "owner".to_owned());
        Self {
            message_id: letter.id.to_string(),
            timestamp: show::rfc3339(letter.at_ms),
            kind: super::inbox::type_of(letter.id.kind()).to_owned(),
            from: letter.from.as_ref().map(|(id, _)| *id),
            from_name: letter
                .from
                .as_ref()
                .map_or_else(|| "owner".to_owned(), name),
            to: format!("{}:{there}", letter.node),
            state: record.state.as_str().to_owned(),
            code: record.code.clone(),
            reason: record.reason.clone(),
            request_id: request.map(|id| id.to_string()),
            body: letter.body.clone(),
        }
    }
}

/// `[time] queued planner → dev-2:coder: text (dev-2 is down)`.
fn line(letter: &LetterInfo) -> String {
    let why = letter.reason.as_ref().map(|why| format!(" ({why})"));
    let line = format!(
        "[{}] {} {} → {}: {}{}",
        letter.timestamp,
        letter.state,
        letter.from_name,
        letter.to,
        show::cut(&letter.body, 80),
        why.unwrap_or_default()
    );
    show::clean(&line) + "\n"
}
