//! What sending a message and asking have in common: here or to another node, the same states.

use std::time::Duration;

use session::engine::Draft;
use session::io::Kept;
use session::{Message, MessageId, MessageKind, Party, Progress, RequestState, SessionId, Step};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::msg::{Delivery, Msg, MsgSent, Until};
use super::progress::{self, Ask};
use super::recipient::Recipient;
use super::{Call, Reply};
use crate::error::{Error, Result};
use crate::locator::{Locator, Session};
use crate::node::post::{Letter, Record, State, key_of};
use crate::node::{Action, Caller, Context, Judge};
use crate::show;

/// How long the other node may take to say yes or no before its sender is told that the message
/// waits. Longer than it takes to find out that a node does not answer.
const PROMPT: Duration = Duration::from_secs(12);

/// How long typing may take before its sender is told that it goes on.
pub(super) const TYPES: Duration = Duration::from_secs(20);

/// The longest that anything is waited for: a day.
const LONGEST: u64 = 24 * 60 * 60;

/// A time that was given in seconds; 0 is what is usual.
pub(super) fn seconds(given: u64) -> Duration {
    Duration::from_secs(if given == 0 { 60 } else { given.min(LONGEST) })
}

/// A new id.
pub(crate) fn new_id(kind: MessageKind) -> Result<MessageId> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(Error::internal)?;
    Ok(MessageId::new(kind, random))
}

/// The id for one of several recipients.
pub(super) fn derived(id: Option<&str>, node: &str, recipient: u32) -> Result<String> {
    let Some(id) = id else {
        return Ok(new_id(MessageKind::Direct)?.to_string());
    };
    let mut hash = Sha256::new();
    hash.update(id.as_bytes());
    hash.update(recipient.to_be_bytes());
    hash.update(node.as_bytes());
    let mut bits = [0; 16];
    bits.copy_from_slice(&hash.finalize()[..16]);
    Ok(MessageId::new(MessageKind::Direct, bits).to_string())
}

/// The id that a caller has chosen, or a new one.
pub(super) fn chosen(id: Option<&str>, kind: MessageKind) -> Result<MessageId> {
    let Some(text) = id else {
        return new_id(kind);
    };
    let id = text.parse::<MessageId>().ok();
    id.filter(|id| id.kind() == kind)
        .ok_or_else(|| Error::bad_request(format!("{text:?} is no id for this")))
}

impl Delivery {
    /// Where a message of this sender goes, and whether that was left to us.
    ///
    /// # Errors
    ///
    /// `denied` when another owner's is to be typed.
    pub(super) fn settle(
        self,
        caller: &Caller,
        acting: &Party,
    ) -> Result<(session::Delivery, bool)> {
        let auto = self == Self::Auto;
        let wanted = match self {
            Self::Auto if acting.session.is_some() => session::Delivery::Both,
            Self::Auto | Self::Inbox => session::Delivery::Inbox,
            Self::Pty => session::Delivery::Pty,
            Self::Both => session::Delivery::Both,
        };
        let same_owner = !matches!(
            caller,
            Caller::Peer {
                same_owner: false,
                ..
            }
        );
        Ok((super::deliver::typed_by(same_owner, wanted, auto)?, auto))
    }
}

/// Sends a message to one session, here or there.
pub(super) async fn message(context: &mut Context<'_>, to: Locator, call: &Msg) -> Result<MsgSent> {
    let id = chosen(call.message_id.as_deref(), MessageKind::Direct)?;
    let (delivery, auto) = call.delivery.settle(&context.caller, &context.acting)?;
    let Some(node) = to.node.clone() else {
        let draft = Draft {
            id,
            from: context.party(),
            to: to.session.to_ref()?,
            body: call.body.clone(),
            delivery,
            deadline_ms: None,
        };
        return here(context, draft, auto, call).await;
    };
    let letter = letter(context, id, &node, to.session, &call.body, (delivery, auto))?;
    let host = context.host;
    let record = if call.no_queue {
        host.post.send_now(host, letter).await?
    } else {
        host.post.put(host, letter).await?;
        kept(context, id).await?
    };
    let mut sent = MsgSent {
        message_id: id.to_string(),
        status: show::rfc3339(record.letter.at_ms),
        state: record.state.as_str().to_owned(),
        reason: record.reason.clone(),
        ..MsgSent::default()
    };
    let record = match (record.state, call.wait) {
        (State::Delivered, _) => record,
        (_, None) => return Ok(sent),
        (_, Some(_)) => {
            let arrived = host.post.until(id, |record| !record.state.waits());
            let arrived = timeout(call.patience(), arrived).await;
            check(arrived.map_err(|_| late(id, "queued"))??)?
        }
    };
    let Some((session, _)) = record.got_by.filter(|_| record.state == State::Delivered) else {
        return Ok(sent);
    };
    sent.state = State::Delivered.as_str().to_owned();
    sent.reason = None;
    let ask = Ask {
        session,
        message_id: id.to_string(),
        until: String::new(),
        timeout_ms: 0,
    };
    if delivery.types() {
        match progress::there(context, &node, ask.until("typed"), TYPES).await {
            Ok(now) => told(&mut sent, now, auto)?,
            // It is delivered; how far it has come since cannot be told.
            Err(error) => sent.reason = Some(error.message),
        }
    }
    if call.wait == Some(Until::Read) {
        let now = progress::there(context, &node, ask.until("read"), call.patience()).await?;
        if !now.is_read() {
            return Err(late(id, &now.state));
        }
        sent.state = now.state;
    }
    Ok(sent)
}

/// Writes a message to a session here that is not typed, if the call is that and does not wait for
/// anything; may be acknowledged when it is kept.
pub(crate) fn at_once(judge: &Judge, call: &Msg) -> Option<Result<(MsgSent, Kept)>> {
    let Recipient::One(Locator {
        node: None,
        session: to,
    }) = &call.to
    else {
        return None;
    };
    if call.wait.is_some() {
        return None;
    }
    let (delivery, _) = call.delivery.settle(&judge.caller, &judge.acting).ok()?;
    if delivery.types() {
        return None;
    }
    let written = || {
        let draft = Draft {
            id: chosen(call.message_id.as_deref(), MessageKind::Direct)?,
            from: judge.acting.clone(),
            to: to.to_ref()?,
            body: call.body.clone(),
            delivery,
            deadline_ms: None,
        };
        let (message, kept) = write(judge, draft)?;
        Ok((stored(&message), kept))
    };
    Some(written())
}

fn write(judge: &Judge, draft: Draft) -> Result<(Message, Kept)> {
    let sessions = &judge.host().sessions;
    let to = sessions.recipient(draft.id, &draft.to)?;
    judge.may(&Action::Message, Some(to))?;
    Ok(sessions.accept_now(draft)?)
}

fn stored(message: &Message) -> MsgSent {
    MsgSent {
        message_id: message.id.to_string(),
        status: show::rfc3339(message.at_ms),
        state: State::Delivered.as_str().to_owned(),
        ..MsgSent::default()
    }
}

async fn here(context: &mut Context<'_>, draft: Draft, auto: bool, call: &Msg) -> Result<MsgSent> {
    let (id, delivery) = (draft.id, draft.delivery);
    let sessions = &context.host.sessions;
    let (message, kept) = write(&context.judge(), draft)?;
    sessions.kept(kept).await;
    let mut sent = stored(&message);
    let Some(session) = message.to.local_session() else {
        return Ok(sent);
    };
    if delivery.types() {
        let typed = sessions.progressed(session, id, |progress, _| has_outcome(progress));
        if let Ok(typed) = timeout(TYPES, typed).await {
            let (progress, state) = typed?;
            told(&mut sent, progress::Now::of(&progress, state), auto)?;
        }
    }
    if call.wait == Some(Until::Read) {
        let read = sessions.progressed(session, id, is_read);
        let (progress, state) = timeout(call.patience(), read)
            .await
            .map_err(|_| late(id, &sent.state))??;
        sent.state = progress::Now::of(&progress, state).state;
    }
    Ok(sent)
}

/// Puts down what came of typing; that it was not done is an error if it was asked for.
fn told(sent: &mut MsgSent, now: progress::Now, auto: bool) -> Result<()> {
    if now.typed.as_deref() == Some("refused") && !auto {
        let why = now.reason.unwrap_or_default();
        return Err(Error::new(
            "not_typed",
            format!("the message was not typed: {why}"),
        ));
    }
    sent.state = now.state;
    sent.typed = now.typed;
    sent.reason = now.reason;
    Ok(())
}

/// Whether nothing more comes of typing it, if it was to be typed at all.
pub(super) const fn has_outcome(progress: &Progress) -> bool {
    !progress.to_type
}

/// Whether the recipient has it for certain.
pub(super) fn is_read(progress: &Progress, state: Option<RequestState>) -> bool {
    progress.read
        || progress.typed == Some(Step::Submitted)
        || state == Some(RequestState::Answered)
}

fn late(id: MessageId, state: &str) -> Error {
    Error::new("timeout", format!("message {id} is only {state}"))
        .hint("it stays where it is; 'cw outbox' and 'cw inbox' show how far it comes")
}

/// A letter to a session of another node.
pub(super) fn letter(
    context: &Context<'_>,
    id: MessageId,
    node: &str,
    to: Session,
    body: &str,
    (delivery, auto): (session::Delivery, bool),
) -> Result<Letter> {
    if context.from_afar() {
        return Err(Error::bad_request("a call for another node"));
    }
    // One that is asked for again is here, whatever the network looks like now.
    let key = match context.host.post.get(id) {
        Some(known) => known.letter.key,
        None => Some(key_of(&*context.host.network()?, node)?),
    };
    let from = context.party().session;
    Ok(Letter {
        id,
        node: node.to_owned(),
        key,
        from: from.map(|(id, name)| (id.0, name.map(|name| name.to_string()))),
        to: Some(to),
        body: body.to_owned(),
        delivery: delivery.as_str().to_owned(),
        auto,
        request_id: None,
        at_ms: show::now_ms(),
        deadline_ms: None,
    })
}

/// What became of a letter in a short time; one that is still on the way waits.
pub(super) async fn kept(context: &Context<'_>, id: MessageId) -> Result<Record> {
    let post = &context.host.post;
    let decided = post.until(id, |record| record.state != State::Accepted);
    if let Ok(record) = timeout(PROMPT, decided).await {
        return check(record?);
    }
    let mut record = post
        .get(id)
        .ok_or_else(|| session::Error::RequestNotFound(id.to_string()))?;
    record.state = State::Queued;
    record.reason = Some(format!("{} has not answered yet", record.letter.node));
    Ok(record)
}

/// The same, unless it will never be delivered.
///
/// # Errors
///
/// Why not.
pub(super) fn check(record: Record) -> Result<Record> {
    if !matches!(record.state, State::Refused | State::Expired) {
        return Ok(record);
    }
    let code = record.code.unwrap_or_else(|| "refused".to_owned());
    let why = record.reason.unwrap_or_else(|| "it was refused".to_owned());
    Err(Error::new(&code, why))
}

/// The sessions that run and have a tag, here or on another node.
pub(super) async fn tagged(
    context: &Context<'_>,
    node: Option<&str>,
    tag: &str,
) -> Result<Vec<(u32, Option<String>)>> {
    let call = super::list::List {
        status: "running".to_owned(),
        tags: vec![tag.to_owned()],
        ..super::list::List::default()
    };
    if let Some(node) = node {
        let reply = context
            .host
            .post
            .ask(context.host, node, Call::ListSessions(call), PROMPT)
            .await?;
        let Reply::SessionList(list) = reply else {
            return Err(reply.unexpected());
        };
        let found = list.sessions.into_iter();
        return Ok(found.map(|info| (info.id, info.name)).collect());
    }
    let tag: session::Tag = tag.parse()?;
    let all = context.host.sessions.list().into_iter();
    Ok(all
        .filter(|info| info.status.is_running() && info.tags.contains(&tag))
        .map(|info| (info.id.0, info.name.map(|name| name.to_string())))
        .collect())
}

/// A session of several: its node, none for this one, its number, and its name.
pub(super) type Seat = (Option<String>, u32, Option<String>);

/// The sessions of a group, on one node or on all, as the relay has last said.
pub(super) fn grouped(context: &Context<'_>, node: Option<&str>, group: &str) -> Result<Vec<Seat>> {
    let network = context.host.network()?;
    if let Some(node) = node.filter(|node| *node != network.name()) {
        let _ = network.peer(node)?;
    }
    let view = network.view();
    let unknown = || {
        Error::new(
            "group_unknown",
            format!("no group {group:?} in this network"),
        )
    };
    let found = view.rules.groups.values();
    let mut found = found.filter(|known| known.name.as_str() == group);
    let found = found.next().ok_or_else(unknown)?;
    let me = network.name();
    let members = found.members.iter().filter_map(|member| {
        let name = if member.node == view.me.key {
            me.clone()
        } else {
            network.by_key(&member.node)?.record.name.to_string()
        };
        let label = Some(member.label.clone()).filter(|label| !label.is_empty());
        node.is_none_or(|node| node == name)
            .then(|| (Some(name).filter(|name| *name != me), member.session, label))
    });
    Ok(members.collect())
}

/// The session of a number.
pub(super) const fn session(id: u32) -> SessionId {
    SessionId(id)
}
