//! Events as they happen.
//!
//! What is passed around is where an event is on disk; each subscriber reads it
//! there. So a thousand subscribers to large messages cost little memory.

use std::sync::{Arc, Weak};

use tokio::sync::broadcast;

use super::inner::Inner;
use crate::record::Place;
use crate::{Event, EventKind, EventType, SessionId};

/// Events that a subscriber may be behind, at 40 bytes each, before it is told
/// that it missed some.
pub(super) const NEWS: usize = 16 * 1024;

/// Which events to hear of.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of this session, with the messages it sends; `None` is all, also
    /// those launched later, and each message once.
    pub session: Option<SessionId>,
    /// Only these kinds; empty is all.
    pub kinds: Vec<EventType>,
}

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// It happened.
    Event(Box<Event>),
    /// The subscriber was so slow that this many events of the node, wanted or
    /// not, passed it by. They are in the logs.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// Where an event is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pointer {
    session: SessionId,
    kind: EventType,
    place: Place,
    /// The same message is also in the log of another session.
    copy: bool,
}

impl Pointer {
    /// To an event that is on disk at `place`.
    pub(super) fn new(event: &Event, place: Place) -> Self {
        let copy = match &event.kind {
            EventKind::Message(message) => message
                .to
                .local_session()
                .is_some_and(|to| to != event.session),
            _ => false,
        };
        Self {
            session: event.session,
            kind: event.kind.event_type(),
            place,
            copy,
        }
    }

    /// Tells all subscribers. Returns `flush`, for brevity of the caller.
    pub(super) fn announce(self, inner: &Inner, flush: u64) -> u64 {
        // Nobody may be listening.
        let _ = inner.news.send(self);
        if matches!(self.kind, EventType::Status | EventType::Killed) {
            inner.changed.notify_one();
        }
        flush
    }
}

/// Events from the moment of [`Sessions::subscribe`](super::Sessions::subscribe) on.
#[derive(Debug)]
pub struct Subscription {
    inner: Weak<Inner>,
    news: broadcast::Receiver<Pointer>,
    filter: Filter,
}

impl Subscription {
    pub(super) fn new(inner: &Arc<Inner>, filter: Filter) -> Self {
        Self {
            inner: Arc::downgrade(inner),
            news: inner.news.subscribe(),
            filter,
        }
    }

    /// The next event; waits for it. `None` when the node shuts down. May be
    /// cancelled and called again.
    pub async fn next(&mut self) -> Option<Notice> {
        loop {
            let pointer = match self.news.recv().await {
                Ok(pointer) => pointer,
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    return Some(Notice::Lagged { missed });
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            };
            if !self.wants(&pointer) {
                continue;
            }
            let inner = self.inner.upgrade()?;
            match inner.read_event(pointer.session, pointer.place) {
                Ok(event) => return Some(Notice::Event(Box::new(event))),
                Err(error) => {
                    tracing::error!(%error, session = %pointer.session, "an event is lost");
                    return Some(Notice::Lagged { missed: 1 });
                }
            }
        }
    }

    fn wants(&self, pointer: &Pointer) -> bool {
        let session = match self.filter.session {
            Some(session) => session == pointer.session,
            None => !pointer.copy,
        };
        session && (self.filter.kinds.is_empty() || self.filter.kinds.contains(&pointer.kind))
    }
}
