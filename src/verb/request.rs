//! `cw request <session> <text>`: asks and waits for the answer of exactly that session.
//!
//! The request is kept by the node of the session that is asked, or by this one until that can be
//! reached; whoever asks may leave, die and come back (`--resume`): the answer is kept too.
//!
//! A request has a deadline, which is written down with it: the time for which the reply is waited
//! for, or seven days for one that is not waited for. After it the request is shown as expired by
//! the inboxes of both; a reply that comes later is taken all the same, and is where it would have
//! been in time.

use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};
use session::engine::Draft;
use session::io::PendingReply;
use session::{MessageId, MessageKind, Party};

use super::msg::Delivery;
use super::{Call, Reply, again, sending};
use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::locator::Locator;
use crate::node::post::outbox::KEEP;
use crate::node::post::{Letter, Record, State};
use crate::node::{Caller, Context};
use crate::show;

/// Send a request to a session and wait for its reply.
#[derive(Args, Clone, Debug)]
pub struct Command {
    /// The session that is asked: its name or number, or node:session.
    #[arg(required_unless_present = "resume", add = super::complete::sessions())]
    to: Option<Locator>,
    /// The question, or - to read it from standard input. At most 1 MiB.
    #[arg(required_unless_present = "resume")]
    body: Option<String>,
    /// The session that asks; within a session, that session.
    #[arg(short, long, value_name = "SESSION", add = super::complete::sessions())]
    from: Option<Locator>,
    /// Where it goes: into the inbox, typed into the terminal, or both; auto is both when a
    /// session asks, else the inbox.
    #[arg(long, value_enum, default_value_t)]
    delivery: Delivery,
    /// How long to wait, in seconds; 60 unless told. After that the request is expired, and a
    /// late reply goes to the inbox of who asked.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Do not wait: print the id of the request, which expires after the timeout, or 7 days.
    #[arg(long = "async")]
    no_wait: bool,
    /// Wait for the reply to a request that was made before.
    #[arg(long, value_name = "ID", conflicts_with_all = ["to", "body", "no_wait"])]
    resume: Option<String>,
    /// Print the reply alone.
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Print JSON.
    #[arg(short, long)]
    json: bool,
}

/// The same on the wire.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Request {
    /// The session that is asked.
    #[serde(flatten, with = "crate::locator::to")]
    pub to: Locator,
    /// The question.
    pub body: String,
    /// The session that asks.
    #[serde(flatten, with = "crate::locator::sender")]
    pub from: Option<Locator>,
    /// Where it goes.
    #[serde(default)]
    pub delivery: Delivery,
    /// How long to wait, seconds; 0 is a minute.
    #[serde(rename = "timeout_seconds", default)]
    pub timeout: u64,
    /// For how long the reply is wanted, seconds, at most 7 days; then the request is expired. 0 is
    /// the timeout, or 7 days for a request that is not waited for and has none.
    #[serde(rename = "deadline_seconds", default)]
    pub deadline: u64,
    /// Not to wait at all.
    #[serde(rename = "async", default)]
    pub no_wait: bool,
    /// The id of the request, so that the call may be repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// Wait for the reply to a request that was made before.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Resume {
    /// The request.
    pub request_id: String,
    /// How long to wait, seconds; 0 is a minute.
    #[serde(rename = "timeout_seconds", default)]
    pub timeout: u64,
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

/// The answer to a request that is not waited for.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Asked {
    /// The request's id.
    pub request_id: String,
    /// `queued` or `delivered`.
    pub state: String,
    /// Why it is not further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Command {
    pub(crate) async fn run(self, cli: &Cli) -> Result<()> {
        let patience = sending::seconds(self.timeout.unwrap_or_default());
        let call = match (&self.resume, self.to.clone(), self.body.clone()) {
            (None, Some(to), Some(body)) => Call::MsgRequest(Request {
                to,
                body: cli.body(body)?,
                from: self.from.clone(),
                delivery: self.delivery,
                timeout: self.timeout.unwrap_or_default(),
                deadline: 0,
                no_wait: self.no_wait,
                request_id: Some(sending::new_id(MessageKind::Request)?.to_string()),
            }),
            (Some(id), ..) => Call::MsgResume(Resume {
                request_id: id.clone(),
                timeout: patience.as_secs(),
            }),
            _ => return Err(Error::new("usage", "whom to ask, and what?")),
        };
        let end = Instant::now() + patience;
        let call = || in_time(call.clone(), end);
        match again::ask_anew(cli, call).await? {
            Reply::MsgRequestResult(answer) => self.show(cli, &answer),
            Reply::MsgRequested(asked) if self.json => cli.print_json(&asked),
            Reply::MsgRequested(asked) => {
                if asked.state == "queued" {
                    let why = show::clean(asked.reason.as_deref().unwrap_or_default());
                    cli.note(&format!("[cw] {why}; the request is kept here until then"));
                }
                cli.print(&format!("{}\n", show::clean(&asked.request_id)))
            }
            other => Err(other.unexpected()),
        }
    }

    fn show(&self, cli: &Cli, answer: &Answered) -> Result<()> {
        if self.json {
            return cli.print_json(answer);
        }
        if self.raw {
            return cli.print(&format!("{}\n", answer.reply_body));
        }
        let from = answer
            .from_name
            .clone()
            .unwrap_or_else(|| answer.from_id.to_string());
        cli.print(&format!(
            "[reply from {}] {}\n",
            show::clean(&from),
            show::hang(&answer.reply_body)
        ))
    }
}

/// The call with what is left of the time for which the reply is waited for.
fn in_time(mut call: Call, end: Instant) -> Call {
    match &mut call {
        Call::MsgRequest(Request {
            no_wait: false,
            timeout,
            ..
        })
        | Call::MsgResume(Resume { timeout, .. }) => *timeout = again::seconds_until(end),
        _ => {}
    }
    call
}

impl Request {
    /// Until when the reply is wanted, unix milliseconds.
    fn deadline_ms(&self) -> u64 {
        let limit = match (self.deadline, self.timeout) {
            (0, 0) if self.no_wait => KEEP,
            (0, 0) => sending::seconds(0).as_secs() * 1000,
            (0, given) | (given, _) => given.saturating_mul(1000).min(KEEP),
        };
        show::now_ms().saturating_add(limit)
    }

    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let id = sending::chosen(self.request_id.as_deref(), MessageKind::Request)?;
        let (delivery, auto) = self.delivery.settle(&context.caller, &context.acting)?;
        let limit = sending::seconds(self.timeout);
        let (start, deadline_ms) = (Instant::now(), Some(self.deadline_ms()));
        let host = context.host;
        let Some(node) = self.to.node else {
            let draft = Draft {
                id,
                from: context.party(),
                to: self.to.session.to_ref()?,
                body: self.body,
                delivery,
                deadline_ms,
            };
            let to = host.sessions.recipient(draft.id, &draft.to)?;
            context.judge().may_ask(to)?;
            let (message, reply) = host.sessions.ask(draft).await?;
            let to = message.to.local_session();
            if let Some(to) = to.filter(|_| delivery.types() && !auto) {
                // What was asked for and is not done is an error, and the request stays.
                let typed = host
                    .sessions
                    .progressed(to, id, |progress, _| sending::has_outcome(progress));
                if let Ok(typed) = tokio::time::timeout(sending::TYPES, typed).await
                    && let (progress, _) = typed?
                    && progress.typed == Some(session::Step::Refused)
                {
                    let why = progress.reason.unwrap_or_default();
                    let why = format!("request {id} was not typed: {why}");
                    return Err(Error::new("not_typed", why)
                        .hint("it is in the inbox; 'cw request --resume' waits for a reply"));
                }
            }
            if self.no_wait {
                return Ok(asked(id, State::Delivered, None));
            }
            return here(context, id, reply, (limit, start.elapsed())).await;
        };
        let letter = sending::letter(
            context,
            id,
            &node,
            self.to.session,
            &self.body,
            (delivery, auto),
        )?;
        let letter = Letter {
            deadline_ms,
            ..letter
        };
        host.post.put(host, letter).await?;
        if self.no_wait {
            let record = sending::kept(context, id).await?;
            return Ok(asked(id, record.state, record.reason));
        }
        there(context, id, limit).await
    }
}

impl Resume {
    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let id: MessageId = self.request_id.parse()?;
        let limit = sending::seconds(self.timeout);
        if context.from_afar() {
            return Err(Error::new(
                "denied",
                "a request is resumed where it was made",
            ));
        }
        let mine = |from: &Party| match &context.caller {
            Caller::Session(me, _) => from.local_session() == Some(*me),
            Caller::Owner | Caller::Peer { .. } => from.node.is_none(),
        };
        let unknown = || Error::from(session::Error::RequestNotFound(id.to_string()));
        if let Some(record) = context.host.post.get(id) {
            let from = record.letter.from.as_ref();
            let from = from.map(|(id, _)| (sending::session(*id), None));
            let from = Party {
                node: None,
                session: from,
            };
            if id.kind() != MessageKind::Request || !mine(&from) {
                return Err(unknown());
            }
            return there(context, id, limit).await;
        }
        let (message, reply) = context.host.sessions.resume(id)?;
        if !mine(&message.from) {
            return Err(unknown());
        }
        here(context, id, reply, (limit, Duration::ZERO)).await
    }
}

fn asked(id: MessageId, state: State, reason: Option<String>) -> Reply {
    Reply::MsgRequested(Asked {
        request_id: id.to_string(),
        state: state.as_str().to_owned(),
        reason,
    })
}

/// The reply of a session of this node, within the first time, of which the second is spent.
async fn here(
    context: &mut Context<'_>,
    id: MessageId,
    reply: PendingReply,
    (limit, spent): (Duration, Duration),
) -> Result<Reply> {
    let reply = tokio::select! {
        reply = tokio::time::timeout(limit.saturating_sub(spent), reply) => reply,
        _ = context.channel.receiver.next_frame() => return Err(left()),
    };
    let reply = match reply {
        Ok(Err(session::Error::ShuttingDown)) => {
            return Err(Error::new("connection_lost", "the node is stopping"));
        }
        Ok(reply) => reply?,
        Err(_) => return Err(late(id, limit, "")),
    };
    let (from_id, from_name) = match &reply.from.session {
        Some((id, name)) => (id.0, name.as_ref().map(ToString::to_string)),
        None => (0, None),
    };
    Ok(Reply::MsgRequestResult(Answered {
        request_id: id.to_string(),
        reply_body: reply.body,
        from_id,
        from_name,
    }))
}

/// The reply of a session of another node.
async fn there(context: &mut Context<'_>, id: MessageId, limit: Duration) -> Result<Reply> {
    let post = &context.host.post;
    let answered = post.until(id, |record| {
        matches!(
            record.state,
            State::Answered | State::Refused | State::Expired
        )
    });
    let record = tokio::select! {
        record = tokio::time::timeout(limit, answered) => record,
        _ = context.channel.receiver.next_frame() => return Err(left()),
    };
    let Ok(record) = record else {
        let waits = post.get(id).filter(|record| record.state.waits());
        let why = waits.map(|record| {
            format!(
                ": {}",
                record
                    .reason
                    .unwrap_or_else(|| "it is on its way".to_owned())
            )
        });
        return Err(late(id, limit, &why.unwrap_or_default()));
    };
    let Record { answer, .. } = sending::check(record?)?;
    let answer = answer.ok_or_else(|| Error::internal("an answer without a text"))?;
    Ok(Reply::MsgRequestResult(Answered {
        request_id: id.to_string(),
        reply_body: answer.body,
        from_id: answer.from.0,
        from_name: answer.from.1,
    }))
}

fn left() -> Error {
    // Whoever asked may leave; the request stays, and so does a reply that comes later.
    Error::new("connection_lost", "the requester is gone")
}

fn late(id: MessageId, limit: Duration, why: &str) -> Error {
    let seconds = limit.as_secs();
    Error::new(
        "timeout",
        format!("request {id} timed out after {seconds}s{why}"),
    )
    .hint(format!(
        "a late reply is kept: 'cw request --resume {id}' waits for it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_repeated_waits_for_what_is_left() {
        let end = Instant::now();
        let resume = Call::MsgResume(Resume {
            request_id: "req_x".to_owned(),
            timeout: 4,
        });
        let Call::MsgResume(again) = in_time(resume, end) else {
            panic!("another call");
        };
        assert_eq!(again.timeout, 1);
    }

    #[test]
    fn what_is_not_waited_for_keeps_its_time() {
        for (no_wait, left) in [(false, 1), (true, 4)] {
            let call = Call::MsgRequest(Request {
                to: "coder".parse().unwrap(),
                body: "ready?".to_owned(),
                from: None,
                delivery: Delivery::default(),
                timeout: 4,
                deadline: 0,
                no_wait,
                request_id: None,
            });
            let Call::MsgRequest(again) = in_time(call, Instant::now()) else {
                panic!("another call");
            };
            assert_eq!(again.timeout, left, "{no_wait}");
        }
    }
}
