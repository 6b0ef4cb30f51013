//! Tools by which agents talk to each other. Inside a session they speak as that session; outside
//! one they speak for the owner, who may name any of its own sessions.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::tool::{Effect, Tool, Turn};
use super::who::{Who, optional, recipient};
use crate::error::{Error, Result};
use crate::locator::{Locator, Session};
use crate::verb::inbox::MessageInfo;
use crate::verb::sending;
use crate::verb::{Call, Reply};

/// A call, from the fields that every client of the socket knows; what is null is left out.
fn call(fields: Value) -> Result<Call> {
    let Value::Object(mut fields) = fields else {
        return Err(Error::internal("a call is an object"));
    };
    fields.retain(|_, value| !value.is_null());
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| Error::bad_request(error.to_string()))
}

/// The fields of a recipient and of a sender.
fn parties(to: &Locator, from: Option<&Locator>) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("node".to_owned(), json!(to.node));
    match &to.session {
        Session::Id(id) => fields.insert("to_id".to_owned(), json!(id)),
        Session::Name(name) => fields.insert("to_name".to_owned(), json!(name)),
    };
    fields.extend(sender(from));
    fields
}

/// The fields of a sender.
fn sender(from: Option<&Locator>) -> Map<String, Value> {
    let mut fields = Map::new();
    match from.map(|from| &from.session) {
        Some(Session::Id(id)) => fields.insert("id".to_owned(), json!(id)),
        Some(Session::Name(name)) => fields.insert("from_name".to_owned(), json!(name)),
        None => None,
    };
    fields.insert(
        "from_node".to_owned(),
        json!(from.and_then(|from| from.node.clone())),
    );
    fields
}

/// Send a message to a session. It is in the recipient's inbox when this returns, or kept here
/// (state queued) while the recipient's machine is away.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Message {
    /// The text, at most 1 MiB.
    body: String,
    /// The recipient: its number, or node:session.
    to_session_id: Option<Who>,
    /// The recipient: its name, or node:session.
    to_name: Option<Who>,
    /// The session that sends it; only outside of sessions.
    from_session_id: Option<Who>,
    /// inbox, pty (typed into its terminal), both or auto; auto if left out.
    delivery: Option<String>,
}

/// A message that was stored.
#[derive(Serialize, JsonSchema)]
pub(super) struct Stored {
    /// Its id.
    message_id: String,
    /// When it was stored.
    status: String,
    /// How far it has come: queued, delivered, injected, unverified, submitted, read.
    state: String,
    /// What came of typing it into the terminal: submitted, unverified, refused.
    typed: Option<String>,
    /// Why it is not further.
    reason: Option<String>,
}

impl Tool for Message {
    type Output = Stored;
    const NAME: &'static str = "codewire_msg";
    const TITLE: &'static str = "Send a message";
    const EFFECT: Effect = Effect::Adds;

    async fn call(self, turn: &Turn) -> Result<(String, Stored)> {
        let to = recipient(self.to_session_id.as_ref(), self.to_name.as_ref())?;
        let from = optional(self.from_session_id.as_ref())?;
        let mut fields = parties(&to, from.as_ref());
        fields.insert("type".to_owned(), json!("MsgSend"));
        fields.insert("body".to_owned(), json!(self.body));
        fields.insert("delivery".to_owned(), json!(self.delivery));
        match turn.ask(call(Value::Object(fields))?).await? {
            Reply::MsgSent(sent) => {
                let stored = Stored {
                    message_id: sent.message_id,
                    status: sent.status,
                    state: sent.state,
                    typed: sent.typed,
                    reason: sent.reason,
                };
                let why = stored.reason.as_ref().map(|why| format!(" ({why})"));
                let text = format!(
                    "Message sent: {} {}{}",
                    stored.message_id,
                    stored.state,
                    why.unwrap_or_default()
                );
                Ok((text, stored))
            }
            other => Err(other.unexpected()),
        }
    }
}

/// Read the messages of a session, the latest ones, oldest first. Requests that wait for an answer
/// have the state pending.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ReadMessages {
    /// The session: its number, its name, or node:session.
    session_id: Who,
    /// How many; 20 if left out.
    tail: Option<u32>,
}

/// Messages.
#[derive(Serialize, JsonSchema)]
pub(super) struct Messages {
    /// Oldest first.
    messages: Vec<MessageInfo>,
}

impl Tool for ReadMessages {
    type Output = Messages;
    const NAME: &'static str = "codewire_read_messages";
    const TITLE: &'static str = "Read messages";
    const EFFECT: Effect = Effect::Reads;

    async fn call(self, turn: &Turn) -> Result<(String, Messages)> {
        let of = self.session_id.locator()?;
        let (id, name) = match of.session {
            Session::Id(id) => (Some(id), None),
            Session::Name(name) => (None, Some(name)),
        };
        let tail = self.tail.unwrap_or(20);
        let inbox = json!({
            "type": "MsgRead", "id": id, "to_name": name, "node": of.node, "tail": tail,
        });
        match turn.ask(call(inbox)?).await? {
            Reply::MsgReadResult(read) => {
                let text = serde_json::to_string_pretty(&read.messages).map_err(Error::internal)?;
                Ok((
                    text,
                    Messages {
                        messages: read.messages,
                    },
                ))
            }
            other => Err(other.unexpected()),
        }
    }
}

/// Ask a session something and wait for its reply. When nobody answers in time, answered is false
/// and the request stays: call again with resume to wait on; a reply that comes later is in your
/// inbox too.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Request {
    /// The question, at most 1 MiB.
    body: Option<String>,
    /// Instead of a question: the id of a request that was made before, to wait for its reply.
    resume: Option<String>,
    /// Who is asked: its number, or node:session.
    to_session_id: Option<Who>,
    /// Who is asked: its name, or node:session.
    to_name: Option<Who>,
    /// The session that asks; only outside of sessions.
    from_session_id: Option<Who>,
    /// How long to wait, in seconds; 60 if left out.
    timeout_seconds: Option<u64>,
    /// inbox, pty (typed into its terminal), both or auto; auto if left out.
    delivery: Option<String>,
}

/// A reply, or that there is none yet.
#[derive(Serialize, JsonSchema)]
pub(super) struct Answered {
    /// The request's id.
    request_id: String,
    /// Whether the reply is there.
    answered: bool,
    /// What was replied.
    reply: Option<String>,
    /// The number of the session that replied.
    from_session_id: Option<u32>,
    /// Its name.
    from_name: Option<String>,
}

impl Tool for Request {
    type Output = Answered;
    const NAME: &'static str = "codewire_request";
    const TITLE: &'static str = "Ask and wait for the reply";
    const EFFECT: Effect = Effect::Adds;
    const LONG: bool = true;

    async fn call(self, turn: &Turn) -> Result<(String, Answered)> {
        let asked = Duration::from_secs(self.timeout_seconds.unwrap_or(60).max(1));
        let seconds = turn.patience(asked).as_secs().max(1);
        let (id, call) = self.wire(seconds, asked.as_secs())?;
        let answer = match turn.ask(call).await {
            Ok(Reply::MsgRequestResult(answer)) => answer,
            Ok(other) => return Err(other.unexpected()),
            Err(error) if error.code == "timeout" => return Ok(unanswered(id)),
            Err(error) => return Err(error),
        };
        let number = answer.from_id;
        let from = answer.from_name.clone();
        let from = from.unwrap_or_else(|| format!("session {number}"));
        let text = format!("Reply from {from}: {}", answer.reply_body);
        let answered = Answered {
            request_id: answer.request_id,
            answered: true,
            reply: Some(answer.reply_body),
            from_session_id: Some(answer.from_id),
            from_name: answer.from_name,
        };
        Ok((text, answered))
    }
}

impl Request {
    /// The request's id, and the call that makes it or waits for it.
    fn wire(&self, seconds: u64, wanted: u64) -> Result<(String, Call)> {
        if let Some(id) = &self.resume {
            let resume = json!({
                "type": "MsgResume", "request_id": id, "timeout_seconds": seconds,
            });
            return Ok((id.clone(), call(resume)?));
        }
        let body = self.body.as_ref();
        let body = body.ok_or_else(|| Error::new("usage", "a body or a request to resume"))?;
        let to = recipient(self.to_session_id.as_ref(), self.to_name.as_ref())?;
        let from = optional(self.from_session_id.as_ref())?;
        // Chosen here, so that it is known whatever becomes of the call.
        let id = sending::new_id(session::MessageKind::Request)?.to_string();
        let mut fields = parties(&to, from.as_ref());
        fields.insert("type".to_owned(), json!("MsgRequest"));
        fields.insert("body".to_owned(), json!(body));
        fields.insert("delivery".to_owned(), json!(self.delivery));
        fields.insert("timeout_seconds".to_owned(), json!(seconds));
        // Also when one call may not wait for all of it, and is made again.
        fields.insert("deadline_seconds".to_owned(), json!(wanted));
        fields.insert("request_id".to_owned(), json!(id));
        Ok((id, call(Value::Object(fields))?))
    }
}

fn unanswered(id: String) -> (String, Answered) {
    let text = format!("No reply yet. Call codewire_request with resume: {id} to wait on.");
    let unanswered = Answered {
        request_id: id,
        answered: false,
        reply: None,
        from_session_id: None,
        from_name: None,
    };
    (text, unanswered)
}

/// Answer a request that is pending in your inbox. Only the session that was asked may.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Answer {
    /// The request's id, from codewire_read_messages or a message.request event.
    request_id: String,
    /// The answer, at most 1 MiB.
    body: String,
    /// The session that answers; only outside of sessions.
    from_session_id: Option<Who>,
}

/// What was answered.
#[derive(Serialize, JsonSchema)]
pub(super) struct Replied {
    /// The request's id.
    request_id: String,
}

impl Tool for Answer {
    type Output = Replied;
    const NAME: &'static str = "codewire_reply";
    const TITLE: &'static str = "Answer a request";
    const EFFECT: Effect = Effect::Adds;

    async fn call(self, turn: &Turn) -> Result<(String, Replied)> {
        let from = optional(self.from_session_id.as_ref())?;
        let mut fields = sender(from.as_ref());
        fields.insert("type".to_owned(), json!("MsgReply"));
        fields.insert("request_id".to_owned(), json!(self.request_id));
        fields.insert("body".to_owned(), json!(self.body));
        match turn.ask(call(Value::Object(fields))?).await? {
            Reply::MsgReplySent(sent) => {
                let text = format!("Reply sent for request {}", sent.request_id);
                Ok((
                    text,
                    Replied {
                        request_id: sent.request_id,
                    },
                ))
            }
            other => Err(other.unexpected()),
        }
    }
}
