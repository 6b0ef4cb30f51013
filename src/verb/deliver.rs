//! What nodes say to each other to hand messages over. Nobody types this.
//!
//! The messages are for sessions of the node that is asked, in order. Each is answered for: it is
//! on disk, or it is refused for good, or it can be sent again later; nothing after that one was
//! looked at then. A message that is here already, by its id, is on disk.

use serde::{Deserialize, Serialize};
use session::engine::Draft;
use session::{Delivery, Message, MessageId, MessageKind, Party, SessionId};

use super::Reply;
use crate::error::{Error, Result};
use crate::locator::Session;
use crate::node::post::{Answer, Letter};
use crate::node::{Action, Caller, Context, Judge};
use crate::show;

/// Take these messages.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Deliver {
    /// In their order.
    pub parcels: Vec<Parcel>,
}

/// A message on the way.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Parcel {
    /// Its id, which says whether it is a message, a request or a reply.
    pub id: String,
    /// The session that sends it, for which its node vouches; none for the owner.
    pub from: Option<(u32, Option<String>)>,
    /// The session that gets it; none for the owner.
    pub to: Option<Session>,
    /// What it says.
    pub body: String,
    /// `inbox`, `pty` or `both`.
    pub delivery: String,
    /// Whether that was not asked for, but follows from who sends.
    pub auto: bool,
    /// For a reply, the request.
    pub request_id: Option<String>,
    /// For a request, until when its sender wants the reply, unix milliseconds.
    pub deadline_ms: Option<u64>,
    /// The node it was for has another key now; never sent.
    #[serde(skip)]
    pub misdirected: bool,
}

/// The answer.
#[derive(Clone, Debug, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Delivered {
    /// One for each, as far as was come.
    pub outcomes: Vec<Outcome>,
}

/// What became of one.
#[derive(Clone, Debug, Default, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub struct Outcome {
    /// `delivered`, `refused` or `later`.
    pub state: String,
    /// Why not.
    pub code: Option<String>,
    /// The same for people.
    pub reason: Option<String>,
    /// The session that got it.
    pub got_by: Option<(u32, Option<String>)>,
}

impl From<&Letter> for Parcel {
    fn from(letter: &Letter) -> Self {
        Self {
            id: letter.id.to_string(),
            from: letter.from.clone(),
            to: letter.to.clone(),
            body: letter.body.clone(),
            delivery: letter.delivery.clone(),
            auto: letter.auto,
            request_id: letter.request_id.map(|id| id.to_string()),
            deadline_ms: letter.deadline_ms,
            misdirected: false,
        }
    }
}

impl Outcome {
    /// It will never be taken.
    #[must_use]
    pub fn refused(error: &Error) -> Self {
        Self {
            state: "refused".to_owned(),
            code: Some(error.code.clone()),
            reason: Some(error.message.clone()),
            got_by: None,
        }
    }

    fn of(result: Result<Option<(u32, Option<String>)>>) -> Self {
        let error = match result {
            Ok(got_by) => {
                return Self {
                    state: "delivered".to_owned(),
                    got_by,
                    ..Self::default()
                };
            }
            Err(error) => error,
        };
        let mut outcome = Self::refused(&error);
        if passes(&error) {
            "later".clone_into(&mut outcome.state);
        }
        outcome
    }
}

/// Whether it is this node that cannot, and may be able to soon.
fn passes(error: &Error) -> bool {
    matches!(
        error.code.as_str(),
        "disk_full" | "shutting_down" | "io" | "internal" | "permission" | "node_unknown"
    )
}

impl Deliver {
    pub(crate) async fn handle(self, context: &mut Context<'_>) -> Result<Reply> {
        let Caller::Peer { .. } = context.caller else {
            return Err(Error::bad_request("only nodes hand messages over"));
        };
        let mut outcomes = Vec::new();
        for parcel in self.parcels {
            let taken = take(context.judge(), parcel).await;
            let outcome = Outcome::of(taken);
            let stop = outcome.state == "later";
            outcomes.push(outcome);
            if stop {
                break;
            }
        }
        Ok(Reply::MsgDelivered(Delivered { outcomes }))
    }
}

async fn take(mut judge: Judge, parcel: Parcel) -> Result<Option<(u32, Option<String>)>> {
    let id: MessageId = parcel
        .id
        .parse()
        .map_err(|_| Error::bad_request(format!("{:?} is no message id", parcel.id)))?;
    let name = |text: Option<String>| text.map(|text| text.parse()).transpose();
    let from = match parcel.from.clone() {
        Some((number, text)) => Some((SessionId(number), name(text)?)),
        None => None,
    };
    let (node, same_owner) = judge.speaks_as(from.clone())?;
    let host = judge.host();
    if id.kind() == MessageKind::Reply {
        return take_reply(&judge, &node, id, from, parcel).await;
    }
    let to = parcel
        .to
        .ok_or_else(|| Error::bad_request("a message to nobody"))?;
    let wanted = Delivery::parse(&parcel.delivery)
        .ok_or_else(|| Error::bad_request(format!("no delivery {:?}", parcel.delivery)))?;
    let draft = Draft {
        id,
        from: Party {
            node: Some(node),
            session: from,
        },
        to: to.to_ref()?,
        body: parcel.body,
        delivery: typed_by(same_owner, wanted, parcel.auto)?,
        deadline_ms: parcel.deadline_ms,
    };
    let recipient = host.sessions.recipient(id, &draft.to)?;
    if id.kind() == MessageKind::Request {
        judge.may_ask(recipient)?;
    } else {
        judge.may(&Action::Message, Some(recipient))?;
    }
    let (message, _) = host.sessions.accept(draft).await?;
    Ok(message
        .to
        .session
        .map(|(id, name)| (id.0, name.map(|name| name.to_string()))))
}

/// Only the owner's own nodes have messages typed: what is typed into a shell is run.
pub(super) fn typed_by(same_owner: bool, wanted: Delivery, auto: bool) -> Result<Delivery> {
    if same_owner || !wanted.types() {
        return Ok(wanted);
    }
    if auto {
        return Ok(Delivery::Inbox);
    }
    Err(Error::new(
        "denied",
        "messages of another owner are not typed into terminals here",
    )
    .hint("use --delivery inbox"))
}

async fn take_reply(
    judge: &Judge,
    node: &str,
    id: MessageId,
    from: Option<(SessionId, Option<session::Name>)>,
    parcel: Parcel,
) -> Result<Option<(u32, Option<String>)>> {
    let host = judge.host();
    let request: MessageId = parcel.request_id.unwrap_or_default().parse()?;
    let from = from.ok_or_else(|| Error::bad_request("a reply of nobody"))?;
    let key = host.network()?.peer(node)?.record.key;
    let at_ms = show::now_ms();
    let answer = Answer {
        id,
        body: parcel.body.clone(),
        from: (from.0.0, from.1.as_ref().map(ToString::to_string)),
        at_ms,
    };
    let asker = host.post.check_answer(request, (node, key), &answer)?;
    if let Some((asker, name)) = &asker {
        judge.may(&Action::Message, Some(SessionId(*asker)))?;
        let to = Party::local(
            SessionId(*asker),
            name.as_ref().and_then(|name| name.parse().ok()),
        );
        let message = Message {
            id,
            at_ms,
            kind: MessageKind::Reply,
            from: Party {
                node: Some(node.to_owned()),
                session: Some(from),
            },
            to,
            body: parcel.body,
            request_id: Some(request),
            delivery: Delivery::Inbox,
            deadline_ms: None,
        };
        // First the inbox: a reply that comes again finds it there.
        match host
            .sessions
            .receive_reply(SessionId(*asker), message)
            .await
        {
            // The session is gone with its inbox; the outbox has the reply.
            Ok(()) | Err(session::Error::SessionNotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    host.post.answer(request, (node, key), answer).await?;
    Ok(asker)
}
