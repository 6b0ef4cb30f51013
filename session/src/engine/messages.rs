//! What the engine decides about messages: who may say what to whom, and what
//! is known of it later.

use super::Engine;
use crate::record::Place;
use crate::{
    Delivery as Goes, Error, Event, EventKind, Message, MessageId, MessageKind, Party, Receipt,
    RequestState, SessionId, SessionRef,
};

/// A message that somebody wants to send.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Its id, which also says whether it is a request.
    pub id: MessageId,
    /// Who sends it.
    pub from: Party,
    /// To whom.
    pub to: SessionRef,
    /// What it says.
    pub body: String,
    /// Where it goes there.
    pub delivery: Goes,
    /// Until when a reply is wanted, unix milliseconds; only a request keeps it.
    pub deadline_ms: Option<u64>,
}

/// What is to be done about a draft.
#[derive(Debug)]
pub enum Delivery {
    /// Write these: the first to the recipient's log, a second as copy to that
    /// of the sender.
    New(Vec<Event>),
    /// It was delivered before and is on disk here.
    Known {
        /// In whose log.
        session: SessionId,
        /// Where.
        place: Place,
    },
}

impl Engine {
    /// A message or request for a session. One whose id is known is not
    /// delivered again.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::SessionEnded`],
    /// [`Error::BodyTooLarge`], [`Error::InboxFull`].
    pub fn handle_draft(&self, draft: Draft, now_ms: u64) -> Result<Delivery, Error> {
        let Draft {
            id,
            from,
            to,
            body,
            delivery,
            deadline_ms,
        } = draft;
        Message::check_body(&body)?;
        // Also when that one has ended since, and another has its name: a
        // sender that asks again is told the same as before.
        if let Some(&session) = self.got.get(&id)
            && let Some(place) = self.get(session)?.inbox.find(id)
        {
            return Ok(Delivery::Known { session, place });
        }
        let session = self.get(self.resolve(&to)?)?;
        if session.exited.is_some() {
            return Err(Error::SessionEnded(session.id));
        }
        if session.inbox.is_full() {
            return Err(Error::InboxFull(session.id));
        }
        let kind = id.kind();
        let message = Message {
            id,
            at_ms: now_ms,
            kind,
            from,
            to: Party::local(session.id, session.name.clone()),
            body,
            request_id: (kind == MessageKind::Request).then_some(id),
            delivery,
            deadline_ms: deadline_ms.filter(|_| kind == MessageKind::Request),
        };
        let copy_for = message.from.local_session();
        Ok(Delivery::New(self.both(
            session.id,
            copy_for.filter(|&sender| self.has_room(sender)),
            message,
            now_ms,
        )))
    }

    /// Who has got a message, also when that session has ended since.
    #[must_use]
    pub fn got_by(&self, message: MessageId) -> Option<SessionId> {
        self.got.get(&message).copied()
    }

    /// A reply of session `by` to a request.
    ///
    /// The events are one in the log of who replied, which settles the matter,
    /// and one in that of who asked, if that is a session here.
    ///
    /// # Errors
    /// [`Error::RequestNotFound`], [`Error::NotAddressee`],
    /// [`Error::BodyTooLarge`].
    pub fn handle_reply(
        &self,
        request: MessageId,
        by: Option<SessionId>,
        reply: MessageId,
        body: String,
        now_ms: u64,
    ) -> Result<Vec<Event>, Error> {
        let ask = self.asks.check_reply(request, by)?;
        Message::check_body(&body)?;
        let name = self.get(ask.to)?.name.clone();
        let message = Message {
            id: reply,
            at_ms: now_ms,
            kind: MessageKind::Reply,
            from: Party::local(ask.to, name),
            to: ask.from.clone(),
            body,
            request_id: Some(request),
            delivery: Goes::Inbox,
            deadline_ms: None,
        };
        // A reply comes once for each request; it may exceed the limit.
        let asker = ask.from.local_session();
        Ok(self.both(ask.to, asker, message, now_ms))
    }

    /// A reply from another node to a request of a session here, as that node
    /// says. `None` when it is there already.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::BodyTooLarge`].
    pub fn handle_foreign_reply(
        &self,
        asker: SessionId,
        message: Message,
        now_ms: u64,
    ) -> Result<Option<Event>, Error> {
        Message::check_body(&message.body)?;
        if self.get(asker)?.inbox.find(message.id).is_some() {
            return Ok(None);
        }
        self.handle_happened(asker, EventKind::Message(message), now_ms)
            .map(Some)
    }

    /// Something has become of messages to a session. Those it has not got are
    /// left out; `None` when it has none of them, or nothing new is said.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub fn handle_receipt(
        &self,
        session: SessionId,
        mut receipt: Receipt,
        now_ms: u64,
    ) -> Result<Option<Event>, Error> {
        let inbox = &self.get(session)?.inbox;
        receipt.messages.retain(|id| {
            inbox.progress(*id).is_some_and(|progress| {
                if receipt.step == crate::Step::Read {
                    !progress.read
                } else {
                    !progress.typed.is_some_and(crate::Step::is_outcome)
                }
            })
        });
        if receipt.messages.is_empty() {
            return Ok(None);
        }
        self.handle_happened(session, EventKind::Receipt(receipt), now_ms)
            .map(Some)
    }

    /// A step that the disk did not take: it counts as long as this node lives.
    pub fn handle_unrecorded(&mut self, session: SessionId, receipt: &Receipt) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.inbox.note(receipt);
        }
    }

    /// Replies of sessions here to requests from other nodes, each with whose
    /// log it is in.
    pub fn foreign_replies(&self) -> impl Iterator<Item = (SessionId, MessageId)> {
        self.asks
            .answered()
            .filter(|(ask, _)| ask.from.node.is_some())
            .map(|(ask, reply)| (ask.to, reply))
    }

    /// The same message in one log and, if there is another, in that.
    fn both(
        &self,
        first: SessionId,
        second: Option<SessionId>,
        message: Message,
        now_ms: u64,
    ) -> Vec<Event> {
        let second = second.filter(|&second| second != first);
        let copy = second.map(|second| (second, message.clone()));
        std::iter::once((first, message))
            .chain(copy)
            .filter_map(|(id, message)| {
                let kind = EventKind::Message(message);
                self.handle_happened(id, kind, now_ms).ok()
            })
            .collect()
    }

    fn has_room(&self, id: SessionId) -> bool {
        self.sessions
            .get(&id)
            .is_some_and(|session| !session.inbox.is_full())
    }

    /// Replies that are in the log of who gave them and not in that of the
    /// local session that asked: a crash came between the two writes. Those of
    /// one session are in the order in which it gave them.
    #[must_use]
    pub fn missing_replies(&self) -> Vec<(SessionId, SessionId, MessageId)> {
        let mut missing = Vec::new();
        for (ask, reply) in self.asks.answered() {
            if let Some(asker) = ask.from.local_session()
                && let Some(session) = self.sessions.get(&asker)
                && session.inbox.find(reply).is_none()
            {
                missing.push((ask.to, asker, reply));
            }
        }
        missing.sort_by_key(|&(replier, _, reply)| {
            let replier = self.sessions.get(&replier);
            replier
                .and_then(|replier| replier.inbox.find(reply))
                .map(|place| place.offset)
        });
        missing
    }

    /// What became of a request to a session here.
    #[must_use]
    pub fn request_state(&self, request: MessageId) -> Option<RequestState> {
        self.asks.state(request)
    }

    /// Who was asked by a request, if that is a session here.
    #[must_use]
    pub fn asked(&self, request: MessageId) -> Option<SessionId> {
        self.asks.get(request).map(|ask| ask.to)
    }

    /// Where the reply to a request is: whose log, and the place in it.
    #[must_use]
    pub fn reply_to(&self, request: MessageId) -> Option<(SessionId, Place)> {
        let ask = self.asks.get(request)?;
        let place = self.sessions.get(&ask.to)?.inbox.find(ask.reply?)?;
        Some((ask.to, place))
    }
}
