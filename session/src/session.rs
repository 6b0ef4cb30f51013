//! One session, as its events add up to it.

use crate::inbox::Inbox;
use crate::record::Place;
use crate::{Created, Event, EventKind, Exited, SessionId, Status};

/// The state of one session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its number.
    pub id: SessionId,
    /// How it began.
    pub created: Created,
    /// When, unix milliseconds.
    pub created_ms: u64,
    /// How it ended and when, if it has.
    pub exited: Option<(Exited, u64)>,
    /// Somebody asked for its end.
    pub killed: bool,
    /// Its messages.
    pub inbox: Inbox,
    /// Requests to it without a reply.
    pub pending_requests: usize,
    /// Number of its last event.
    pub last_seq: u64,
    /// When that was, unix milliseconds.
    pub last_event_ms: u64,
}

impl Session {
    /// A session that begins with this event.
    #[must_use]
    pub fn new(id: SessionId, created: Created, at_ms: u64) -> Self {
        Self {
            id,
            created,
            created_ms: at_ms,
            exited: None,
            killed: false,
            inbox: Inbox::default(),
            pending_requests: 0,
            last_seq: 0,
            last_event_ms: at_ms,
        }
    }

    /// Whether it runs.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.exited {
            None => Status::Running,
            Some((exited, _)) => Status::Exited {
                outcome: exited.outcome,
                killed: exited.killed,
            },
        }
    }

    /// Takes note of an event of this session that is on disk at `place`.
    pub(crate) fn apply(&mut self, event: &Event, place: Place) {
        self.last_seq = self.last_seq.max(event.seq);
        self.last_event_ms = event.at_ms;
        match &event.kind {
            // The first outcome counts; nothing is after the end.
            EventKind::Exited(exited) => {
                self.exited.get_or_insert((*exited, event.at_ms));
            }
            EventKind::Killed => self.killed = true,
            EventKind::Message(message) => self.inbox.add(self.id, message, place),
            EventKind::Created(_)
            | EventKind::Input { .. }
            | EventKind::Attached { .. }
            | EventKind::Detached { .. }
            | EventKind::Restored { .. } => {}
        }
    }
}
