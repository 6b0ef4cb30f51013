//! All sessions of a node: who is called what, who may say what to whom, and
//! what follows from it.
//!
//! The engine decides and remembers; it does not act. `handle_*` checks
//! something that is to happen and returns the events that shall be written, or
//! the reason why not; nothing has changed by then. When an event is on disk,
//! [`Engine::apply`] makes it true. Reading all events back in order rebuilds
//! the same engine.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::ask::Asks;
use crate::record::Place;
use crate::session::Session;
use crate::tag::MAX_TAGS;
use crate::{
    Created, Error, Event, EventKind, Exited, Message, MessageId, MessageKind, Name, Outcome,
    Party, RequestState, SessionId, SessionRef,
};

/// Sessions that may run at once: each needs six descriptors and a terminal
/// (Linux has 4096 terminals unless told otherwise).
pub const MAX_LIVE: usize = 4000;

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

/// The state of all sessions.
#[derive(Debug, Default)]
pub struct Engine {
    sessions: BTreeMap<SessionId, Session>,
    /// Names of live sessions.
    names: HashMap<Name, SessionId>,
    /// Launched, but not known to run yet; nobody sees them.
    starting: BTreeSet<SessionId>,
    asks: Asks,
    last_id: u32,
}

impl Engine {
    /// Numbers up to this one have been used.
    pub fn handle_used_id(&mut self, id: SessionId) {
        self.last_id = self.last_id.max(id.0);
    }

    /// A launch: takes the next number and the name. The event is the first of
    /// the new session, which stays hidden until [`Engine::handle_started`].
    ///
    /// # Errors
    /// [`Error::NameTaken`], [`Error::TagInvalid`], [`Error::TooManySessions`].
    pub fn handle_launch(&mut self, created: Created, now_ms: u64) -> Result<Event, Error> {
        if created.tags.len() > MAX_TAGS {
            return Err(Error::TagInvalid(format!("{} tags", created.tags.len())));
        }
        let live = self.sessions.values().filter(|one| one.exited.is_none());
        if live.count() >= MAX_LIVE || self.last_id == u32::MAX {
            return Err(Error::TooManySessions { limit: MAX_LIVE });
        }
        if let Some(name) = &created.name
            && let Some(&by) = self.names.get(name)
        {
            let name = name.to_string();
            return Err(Error::NameTaken { name, by });
        }
        self.last_id += 1;
        let id = SessionId(self.last_id);
        if let Some(name) = &created.name {
            self.names.insert(name.clone(), id);
        }
        self.starting.insert(id);
        Ok(Event {
            seq: 1,
            at_ms: now_ms,
            session: id,
            kind: EventKind::Created(created),
        })
    }

    /// The program of a launched session runs.
    pub fn handle_started(&mut self, id: SessionId) {
        self.starting.remove(&id);
    }

    /// A launch came to nothing. Its number stays used.
    pub fn handle_launch_failed(&mut self, id: SessionId) {
        self.starting.remove(&id);
        self.sessions.remove(&id);
        self.names.retain(|_, holder| *holder != id);
    }

    /// The event of something that has happened to a session.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub fn handle_happened(
        &self,
        id: SessionId,
        kind: EventKind,
        now_ms: u64,
    ) -> Result<Event, Error> {
        let session = self.get(id)?;
        Ok(Event {
            seq: session.last_seq + 1,
            at_ms: now_ms,
            session: id,
            kind,
        })
    }

    /// Somebody wants a session to end. `None` when that is already known.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::SessionNotRunning`].
    pub fn handle_kill(&self, id: SessionId, now_ms: u64) -> Result<Option<Event>, Error> {
        let session = self.running(id)?;
        if session.killed {
            return Ok(None);
        }
        self.handle_happened(id, EventKind::Killed, now_ms)
            .map(Some)
    }

    /// The program of a session has ended and its output is on disk. `None`
    /// when that is already known.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub fn handle_exit(
        &self,
        id: SessionId,
        outcome: Outcome,
        output: (u64, u64),
        now_ms: u64,
    ) -> Result<Option<Event>, Error> {
        let session = self.get(id)?;
        if session.exited.is_some() {
            return Ok(None);
        }
        let exited = Exited {
            outcome,
            killed: session.killed,
            duration_ms: now_ms.saturating_sub(session.created_ms),
            output_bytes: output.0,
            output_lines: output.1,
        };
        self.handle_happened(id, EventKind::Exited(exited), now_ms)
            .map(Some)
    }

    /// A message or request for a session. One whose id is known is not
    /// delivered again.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::SessionEnded`],
    /// [`Error::BodyTooLarge`], [`Error::InboxFull`].
    pub fn handle_draft(&self, draft: Draft, now_ms: u64) -> Result<Delivery, Error> {
        let Draft { id, from, to, body } = draft;
        Message::check_body(&body)?;
        let session = self.get(self.resolve(&to)?)?;
        // Also when it has ended since: a sender that asks again is told the
        // same as before.
        if let Some(place) = session.inbox.find(id) {
            let session = session.id;
            return Ok(Delivery::Known { session, place });
        }
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
            to: Party::local(session.id, session.created.name.clone()),
            body,
            request_id: (kind == MessageKind::Request).then_some(id),
        };
        let copy_for = message.from.local_session();
        Ok(Delivery::New(self.both(
            session.id,
            copy_for.filter(|&sender| self.has_room(sender)),
            message,
            now_ms,
        )))
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
        let name = self.get(ask.to)?.created.name.clone();
        let message = Message {
            id: reply,
            at_ms: now_ms,
            kind: MessageKind::Reply,
            from: Party::local(ask.to, name),
            to: ask.from.clone(),
            body,
            request_id: Some(request),
        };
        // A reply comes once for each request; it may exceed the limit.
        let asker = ask.from.local_session();
        Ok(self.both(ask.to, asker, message, now_ms))
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
        std::iter::once(first)
            .chain(second)
            .filter_map(|id| {
                let kind = EventKind::Message(message.clone());
                self.handle_happened(id, kind, now_ms).ok()
            })
            .collect()
    }

    fn has_room(&self, id: SessionId) -> bool {
        self.sessions
            .get(&id)
            .is_some_and(|session| !session.inbox.is_full())
    }

    /// Makes an event true that is on disk at `place`. Returns the requests
    /// that nobody will answer any more.
    pub fn apply(&mut self, event: &Event, place: Place) -> Vec<MessageId> {
        let id = event.session;
        if let EventKind::Created(created) = &event.kind {
            self.handle_used_id(id);
            if let Some(name) = &created.name {
                self.names.insert(name.clone(), id);
            }
            self.sessions
                .entry(id)
                .or_insert_with(|| Session::new(id, created.clone(), event.at_ms));
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return Vec::new();
        };
        session.apply(event, place);
        let mut abandoned = Vec::new();
        match &event.kind {
            EventKind::Exited(_) => {
                if let Some(name) = &session.created.name
                    && self.names.get(name) == Some(&id)
                {
                    self.names.remove(name);
                }
                session.pending_requests = 0;
                abandoned = self.asks.abandon(id);
            }
            EventKind::Message(message) => {
                let request = message.request_id;
                let before = request.and_then(|request| self.asks.state(request));
                self.asks.note(id, message);
                let after = request.and_then(|request| self.asks.state(request));
                match (before, after) {
                    (None, Some(RequestState::Pending)) => session.pending_requests += 1,
                    (Some(RequestState::Pending), Some(RequestState::Answered)) => {
                        session.pending_requests = session.pending_requests.saturating_sub(1);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        abandoned
    }

    /// Replies that are in the log of who gave them and not in that of the
    /// local session that asked: a crash came between the two writes.
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
        missing
    }

    /// Which session is meant: by number; by name the live one, else the newest
    /// that had it.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub fn resolve(&self, session: &SessionRef) -> Result<SessionId, Error> {
        let found = match session {
            SessionRef::Id(id) => Some(*id).filter(|id| self.sessions.contains_key(id)),
            SessionRef::Name(name) => self.names.get(name).copied().or_else(|| {
                let mut newest_first = self.sessions.values().rev();
                let named = newest_first.find(|one| one.created.name.as_ref() == Some(name));
                named.map(|one| one.id)
            }),
        };
        found
            .filter(|id| !self.starting.contains(id))
            .ok_or_else(|| Error::SessionNotFound(session.to_string()))
    }

    /// A session by number, even one that is only starting.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub fn get(&self, id: SessionId) -> Result<&Session, Error> {
        self.sessions
            .get(&id)
            .ok_or_else(|| Error::SessionNotFound(id.to_string()))
    }

    /// A session that runs.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::SessionNotRunning`].
    pub fn running(&self, id: SessionId) -> Result<&Session, Error> {
        let session = self.get(id)?;
        if session.exited.is_some() {
            return Err(Error::SessionNotRunning(id));
        }
        Ok(session)
    }

    /// All sessions that anybody may see, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.sessions
            .values()
            .filter(|session| !self.starting.contains(&session.id))
    }

    /// What became of a request to a session here.
    #[must_use]
    pub fn request_state(&self, request: MessageId) -> Option<RequestState> {
        self.asks.state(request)
    }

    /// Where the reply to a request is: whose log, and the place in it.
    #[must_use]
    pub fn reply_to(&self, request: MessageId) -> Option<(SessionId, Place)> {
        let ask = self.asks.get(request)?;
        let place = self.sessions.get(&ask.to)?.inbox.find(ask.reply?)?;
        Some((ask.to, place))
    }
}
