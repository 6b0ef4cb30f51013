//! All sessions of a node: who is called what, who may say what to whom, and
//! what follows from it.
//!
//! The engine decides and remembers; it does not act. `handle_*` checks
//! something that is to happen and returns the events that shall be written, or
//! the reason why not; nothing has changed by then. When an event is on disk,
//! [`Engine::apply`] makes it true. Reading all events back in order rebuilds
//! the same engine.

use std::collections::{BTreeMap, BTreeSet, HashMap};

mod messages;

pub use messages::{Delivery, Draft};

use crate::ask::Asks;
use crate::record::Place;
use crate::session::Session;
use crate::tag::MAX_TAGS;
use crate::{
    Created, Ended, Error, Event, EventKind, Exited, MessageId, Name, RequestState, SessionId,
    SessionRef, Tag,
};

/// Sessions that may run at once: each needs six descriptors and a terminal
/// (Linux has 4096 terminals unless told otherwise).
pub const MAX_LIVE: usize = 4000;

/// The state of all sessions.
#[derive(Debug, Default)]
pub struct Engine {
    sessions: BTreeMap<SessionId, Session>,
    /// Names of live sessions.
    names: HashMap<Name, SessionId>,
    /// Launched, but not known to run yet; nobody sees them.
    starting: BTreeSet<SessionId>,
    asks: Asks,
    /// Which session has got a message: one that is sent again does not go to
    /// another that has taken the name over.
    got: HashMap<MessageId, SessionId>,
    last_id: u32,
    last_cursor: u64,
    /// Events up to this one may have been removed with their sessions.
    pruned_to: u64,
}

impl Engine {
    /// Numbers up to this one have been used.
    pub fn handle_used_id(&mut self, id: SessionId) {
        self.last_id = self.last_id.max(id.0);
    }

    /// Cursors up to this one have been used, and some of their events have
    /// been removed with their sessions.
    pub fn handle_pruned(&mut self, cursor: u64) {
        self.pruned_to = self.pruned_to.max(cursor);
        self.last_cursor = self.last_cursor.max(cursor);
    }

    /// The highest number that has been used.
    #[must_use]
    pub const fn last_id(&self) -> SessionId {
        SessionId(self.last_id)
    }

    /// Finished sessions to be removed: those that ended before a time, unix
    /// milliseconds, and those that ended first of more than `keep`. A few more
    /// than that may be there, so that not each end costs a removal.
    #[must_use]
    pub fn prunable(&self, keep: usize, ended_before: u64) -> Vec<SessionId> {
        let finished = self.sessions.values();
        let mut finished: Vec<_> = finished
            .filter_map(|one| Some((one.exited?.1, one.id)))
            .collect();
        finished.sort_unstable();
        let old = finished.partition_point(|(at_ms, _)| *at_ms < ended_before);
        let many = if finished.len() > keep.saturating_add(keep / 32) {
            finished.len() - keep
        } else {
            0
        };
        finished.truncate(old.max(many));
        finished.into_iter().map(|(_, id)| id).collect()
    }

    /// A finished session has been removed with all its events.
    pub fn handle_removed(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.remove(&id) {
            self.asks.forget(id);
            for message in session.inbox.ids() {
                if self.got.get(&message) == Some(&id) {
                    self.got.remove(&message);
                }
            }
            self.handle_pruned(session.last_cursor);
        }
    }

    /// The cursor of the last event, and up to which one events may be missing.
    #[must_use]
    pub const fn cursors(&self) -> (u64, u64) {
        (self.last_cursor, self.pruned_to)
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
        self.check_name(created.name.as_ref())?;
        self.last_id += 1;
        let id = SessionId(self.last_id);
        if let Some(name) = &created.name {
            self.names.insert(name.clone(), id);
        }
        self.starting.insert(id);
        Ok(Event {
            seq: 1,
            cursor: 0,
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

    fn check_name(&self, name: Option<&Name>) -> Result<(), Error> {
        match name.and_then(|name| Some((name, *self.names.get(name)?))) {
            Some((name, by)) => Err(Error::NameTaken {
                name: name.to_string(),
                by,
            }),
            None => Ok(()),
        }
    }

    /// A session is to have another name, or none. `None` when it is its name
    /// already.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::NameTaken`].
    pub fn handle_rename(
        &self,
        id: SessionId,
        name: Option<Name>,
        now_ms: u64,
    ) -> Result<Option<Event>, Error> {
        let previous = self.get(id)?.name.clone();
        if previous == name {
            return Ok(None);
        }
        self.check_name(name.as_ref())?;
        let kind = EventKind::Renamed { name, previous };
        self.handle_happened(id, kind, now_ms).map(Some)
    }

    /// A session is to have some tags more and some less; one that is both
    /// added and removed is removed. `None` when nothing changes.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`]; [`Error::TagInvalid`] when they are too many.
    pub fn handle_retag(
        &self,
        id: SessionId,
        add: &[Tag],
        remove: &[Tag],
        now_ms: u64,
    ) -> Result<Option<Event>, Error> {
        let before = self.get(id)?.tags();
        let kept = before.iter().filter(|tag| !remove.contains(tag));
        let mut tags: Vec<Tag> = kept.cloned().collect();
        for tag in add {
            if !remove.contains(tag) && !tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
        if tags == before {
            return Ok(None);
        }
        if tags.len() > MAX_TAGS {
            return Err(Error::TagInvalid(format!("{} tags", tags.len())));
        }
        let kind = EventKind::Tagged { tags };
        self.handle_happened(id, kind, now_ms).map(Some)
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
            cursor: 0,
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
        ended: Ended,
        output: (u64, u64),
        now_ms: u64,
    ) -> Result<Option<Event>, Error> {
        let session = self.get(id)?;
        if session.exited.is_some() {
            return Ok(None);
        }
        let exited = Exited {
            outcome: ended.outcome,
            killed: session.killed,
            duration_ms: now_ms.saturating_sub(session.created_ms),
            output_bytes: output.0,
            output_lines: output.1,
            usage: ended.usage,
        };
        self.handle_happened(id, EventKind::Exited(exited), now_ms)
            .map(Some)
    }

    /// All events have been read back, session after session: who has which
    /// name is what came out of all of them.
    pub fn handle_read_back(&mut self) {
        let live = self.sessions.values().filter(|one| one.exited.is_none());
        self.names = live
            .filter_map(|one| Some((one.name.clone()?, one.id)))
            .collect();
    }

    /// Makes an event true that is on disk at `place`. Returns the requests
    /// that nobody will answer any more.
    pub fn apply(&mut self, event: &Event, place: Place) -> Vec<MessageId> {
        let id = event.session;
        self.last_cursor = self.last_cursor.max(event.cursor);
        if let EventKind::Created(created) = &event.kind {
            self.handle_used_id(id);
            if let Some(name) = &created.name {
                self.names.insert(name.clone(), id);
            }
            self.sessions
                .entry(id)
                .or_insert_with(|| Session::new(id, created.clone(), event));
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return Vec::new();
        };
        if let EventKind::Renamed { name, .. } = &event.kind
            && session.exited.is_none()
        {
            self.names.retain(|_, holder| *holder != id);
            if let Some(name) = name {
                self.names.insert(name.clone(), id);
            }
        }
        session.apply(event, place);
        let mut abandoned = Vec::new();
        match &event.kind {
            EventKind::Exited(_) => {
                if let Some(name) = &session.name
                    && self.names.get(name) == Some(&id)
                {
                    self.names.remove(name);
                }
                session.pending_requests = 0;
                abandoned = self.asks.abandon(id);
            }
            EventKind::Message(message) => {
                if message.is_for(id) {
                    self.got.entry(message.id).or_insert(id);
                }
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
                let named = newest_first.find(|one| one.name.as_ref() == Some(name));
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Delivery as Goes, Message, MessageKind, Outcome, Party, Size};

    /// An engine and the logs that it would have written.
    #[derive(Default)]
    struct World {
        engine: Engine,
        logs: Vec<(Event, Place)>,
        random: u8,
    }

    impl World {
        fn write(&mut self, event: Event) -> Vec<MessageId> {
            let offset = self.logs.len() as u64;
            let place = Place { offset, len: 1 };
            let abandoned = self.engine.apply(&event, place);
            self.logs.push((event, place));
            abandoned
        }

        fn launch(&mut self, name: &str) -> Result<SessionId, Error> {
            let created = Created {
                command: vec!["sh".into()],
                working_dir: "/".into(),
                tags: Vec::new(),
                name: (!name.is_empty()).then(|| name.parse().unwrap()),
                size: Size::default(),
            };
            let event = self.engine.handle_launch(created, 1)?;
            let id = event.session;
            self.write(event);
            self.engine.handle_started(id);
            Ok(id)
        }

        fn end(&mut self, id: SessionId) -> Vec<MessageId> {
            let exit = self
                .engine
                .handle_exit(id, Outcome::Code(0).into(), (0, 0), 9);
            self.write(exit.unwrap().unwrap())
        }

        fn id(&mut self, kind: MessageKind) -> MessageId {
            self.random += 1;
            MessageId::new(kind, [self.random; 16])
        }

        fn send(
            &mut self,
            kind: MessageKind,
            from: Party,
            to: SessionId,
        ) -> Result<MessageId, Error> {
            let id = self.id(kind);
            let draft = Draft {
                id,
                from,
                to: to.into(),
                body: "body".into(),
                delivery: Goes::default(),
                deadline_ms: None,
            };
            match self.engine.handle_draft(draft, 2)? {
                Delivery::New(events) => events.into_iter().for_each(|event| {
                    self.write(event);
                }),
                Delivery::Known { .. } => panic!("known"),
            }
            Ok(id)
        }

        fn reply(&mut self, request: MessageId, by: Option<SessionId>) -> Result<usize, Error> {
            let id = self.id(MessageKind::Reply);
            let events = self.engine.handle_reply(request, by, id, "42".into(), 3)?;
            let count = events.len();
            for event in events {
                self.write(event);
            }
            Ok(count)
        }

        /// The same from its logs, session by session.
        fn reborn(&self) -> Engine {
            let mut engine = Engine::default();
            let mut logs = self.logs.clone();
            logs.sort_by_key(|(event, _)| event.session);
            for (event, place) in &logs {
                engine.apply(event, *place);
            }
            engine.handle_read_back();
            engine
        }
    }

    fn name(text: &str) -> SessionRef {
        SessionRef::Name(text.parse().unwrap())
    }

    #[test]
    fn a_name_belongs_to_one_live_session_and_is_free_again() {
        let mut world = World::default();
        let first = world.launch("coder").unwrap();
        let error = world.launch("coder").unwrap_err();
        assert_eq!(error.code(), "name_taken");
        assert!(error.to_string().contains("session 1"));
        world.end(first);
        assert_eq!(world.engine.resolve(&name("coder")).unwrap(), first);
        let second = world.launch("coder").unwrap();
        assert_eq!(world.engine.resolve(&name("coder")).unwrap(), second);
        world.end(second);
        assert_eq!(world.engine.resolve(&name("coder")).unwrap(), second);
        assert_eq!(world.reborn().resolve(&name("coder")).unwrap(), second);
    }

    #[test]
    fn w13_a_live_session_wins_over_newer_dead_ones() {
        let mut world = World::default();
        let old = world.launch("coder").unwrap();
        world.end(old);
        let new = world.launch("coder").unwrap();
        let other = world.launch("other").unwrap();
        world.end(other);
        assert_eq!(world.engine.resolve(&name("coder")).unwrap(), new);
    }

    #[test]
    fn numbers_are_not_used_twice_and_failed_launches_leave_no_name() {
        let mut world = World::default();
        world.engine.handle_used_id(SessionId(41));
        assert_eq!(world.launch("a").unwrap(), SessionId(42));
        world.engine.handle_launch_failed(SessionId(42));
        assert!(world.engine.resolve(&name("a")).is_err());
        assert_eq!(world.launch("a").unwrap(), SessionId(43));
    }

    #[test]
    fn a_session_that_is_starting_is_hidden() {
        let mut engine = Engine::default();
        let created = Created {
            command: vec!["sh".into()],
            working_dir: "/".into(),
            tags: Vec::new(),
            name: Some("coder".parse().unwrap()),
            size: Size::default(),
        };
        let event = engine.handle_launch(created.clone(), 1).unwrap();
        engine.apply(&event, Place { offset: 0, len: 1 });
        assert_eq!(engine.iter().count(), 0);
        assert!(engine.resolve(&name("coder")).is_err());
        assert!(engine.resolve(&event.session.into()).is_err());
        // Its name is taken already.
        let error = engine.handle_launch(created, 1).unwrap_err();
        assert_eq!(error.code(), "name_taken");
        engine.handle_started(event.session);
        assert_eq!(engine.iter().count(), 1);
    }

    #[test]
    fn w26_only_the_session_that_was_asked_may_reply_and_only_once() {
        let mut world = World::default();
        let asker = world.launch("asker").unwrap();
        let asked = world.launch("asked").unwrap();
        let from = Party::local(asker, None);
        let request = world.send(MessageKind::Request, from, asked).unwrap();
        for by in [Some(asker), None, Some(SessionId(99))] {
            let error = world.reply(request, by).unwrap_err();
            assert_eq!(error.code(), "not_addressee");
            let text = error.to_string();
            assert!(
                text.contains("may only be replied to by session 2"),
                "{text}"
            );
        }
        assert_eq!(world.engine.get(asked).unwrap().pending_requests, 1);
        assert_eq!(world.reply(request, Some(asked)).unwrap(), 2);
        assert_eq!(world.engine.get(asked).unwrap().pending_requests, 0);
        let state = Some(RequestState::Answered);
        assert_eq!(world.engine.request_state(request), state);
        assert_eq!(world.reborn().request_state(request), state);
        let error = world.reply(request, Some(asked)).unwrap_err();
        assert_eq!(error.code(), "request_not_found");
        let text = format!("no pending request with ID \"{request}\"");
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_pending_request_is_pending_after_a_restart() {
        let mut world = World::default();
        let asked = world.launch("asked").unwrap();
        let owner = Party::owner();
        let request = world.send(MessageKind::Request, owner, asked).unwrap();
        world.engine = world.reborn();
        assert_eq!(world.engine.get(asked).unwrap().pending_requests, 1);
        assert_eq!(world.reply(request, Some(asked)).unwrap(), 1);
    }

    #[test]
    fn requests_to_a_session_that_ends_are_abandoned() {
        let mut world = World::default();
        let asked = world.launch("asked").unwrap();
        let owner = Party::owner();
        let request = world
            .send(MessageKind::Request, owner.clone(), asked)
            .unwrap();
        assert_eq!(world.end(asked), [request]);
        assert_eq!(
            world.reborn().request_state(request),
            Some(RequestState::Abandoned)
        );
        let error = world.reply(request, Some(asked)).unwrap_err();
        assert_eq!(error.code(), "request_not_found");
        let error = world.send(MessageKind::Direct, owner, asked).unwrap_err();
        assert_eq!(error.code(), "session_ended");
    }

    #[test]
    fn a_reply_that_reached_one_log_only_is_found_missing() {
        let mut world = World::default();
        let asker = world.launch("asker").unwrap();
        let asked = world.launch("asked").unwrap();
        let from = Party::local(asker, None);
        let request = world.send(MessageKind::Request, from, asked).unwrap();
        let reply = world.id(MessageKind::Reply);
        let events = world
            .engine
            .handle_reply(request, Some(asked), reply, "42".into(), 3)
            .unwrap();
        world.write(events[0].clone());
        let missing = [(asked, asker, reply)];
        assert_eq!(world.reborn().missing_replies(), missing);
        world.write(events[1].clone());
        assert_eq!(world.reborn().missing_replies(), []);
        // Once more changes nothing.
        world.write(events[1].clone());
        assert_eq!(world.engine.get(asker).unwrap().inbox.tail(10).len(), 2);
    }

    #[test]
    fn a_message_is_delivered_once_by_its_id() {
        let mut world = World::default();
        let to = world.launch("coder").unwrap();
        let draft = Draft {
            id: world.id(MessageKind::Direct),
            from: Party {
                node: Some("dev-1".into()),
                session: None,
            },
            to: to.into(),
            body: "hi".into(),
            delivery: Goes::default(),
            deadline_ms: None,
        };
        let Ok(Delivery::New(events)) = world.engine.handle_draft(draft.clone(), 2) else {
            panic!("not new");
        };
        assert_eq!(events.len(), 1);
        world.write(events[0].clone());
        world.end(to);
        for engine in [&world.engine, &world.reborn()] {
            let again = engine.handle_draft(draft.clone(), 5).unwrap();
            assert!(matches!(again, Delivery::Known { session, .. } if session == to));
        }
    }

    #[test]
    fn a_message_that_is_sent_again_does_not_go_to_who_has_the_name_now() {
        let mut world = World::default();
        let first = world.launch("coder").unwrap();
        let draft = Draft {
            id: world.id(MessageKind::Direct),
            from: Party {
                node: Some("dev-1".into()),
                session: None,
            },
            to: name("coder"),
            body: "hi".into(),
            delivery: Goes::default(),
            deadline_ms: None,
        };
        let Ok(Delivery::New(events)) = world.engine.handle_draft(draft.clone(), 2) else {
            panic!("not new");
        };
        world.write(events[0].clone());
        world.end(first);
        let second = world.launch("coder").unwrap();
        for engine in [&world.engine, &world.reborn()] {
            let again = engine.handle_draft(draft.clone(), 5).unwrap();
            assert!(matches!(again, Delivery::Known { session, .. } if session == first));
        }
        // When that one is forgotten, so is what it had got.
        world.engine.handle_removed(first);
        let again = world.engine.handle_draft(draft, 6).unwrap();
        assert!(matches!(again, Delivery::New(events) if events[0].session == second));
    }

    #[test]
    fn copies_for_the_sender_stop_when_its_inbox_is_full() {
        let mut world = World::default();
        let sender = world.launch("sender").unwrap();
        let to = world.launch("to").unwrap();
        let big = crate::inbox::MAX_BYTES as u32;
        let id = world.id(MessageKind::Direct);
        let fill = Message {
            id,
            at_ms: 0,
            kind: MessageKind::Direct,
            from: Party::owner(),
            to: Party::local(sender, None),
            body: String::new(),
            request_id: None,
            delivery: Goes::default(),
            deadline_ms: None,
        };
        let kind = EventKind::Message(fill);
        let event = world.engine.handle_happened(sender, kind, 1).unwrap();
        let place = Place {
            offset: 0,
            len: big,
        };
        world.engine.apply(&event, place);
        let error = world
            .send(MessageKind::Direct, Party::owner(), sender)
            .unwrap_err();
        assert_eq!(error.code(), "inbox_full");
        let from = Party::local(sender, None);
        world.send(MessageKind::Direct, from, to).unwrap();
        assert_eq!(world.engine.get(sender).unwrap().inbox.tail(9).len(), 1);
        assert_eq!(world.engine.get(to).unwrap().inbox.tail(9).len(), 1);
    }

    #[test]
    fn killed_is_remembered_until_the_end() {
        let mut world = World::default();
        let id = world.launch("").unwrap();
        let killed = world.engine.handle_kill(id, 4).unwrap().unwrap();
        world.write(killed);
        assert!(world.engine.handle_kill(id, 5).unwrap().is_none());
        world.end(id);
        assert_eq!(world.engine.get(id).unwrap().status().word(), "killed");
        let again = world
            .engine
            .handle_exit(id, Outcome::Unknown.into(), (0, 0), 9);
        assert!(again.unwrap().is_none());
        let error = world.engine.handle_kill(id, 9).unwrap_err();
        assert_eq!(error.code(), "session_not_running");
    }
}
