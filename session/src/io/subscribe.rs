//! Events as they happen, and those that have happened before.
//!
//! A subscriber has a position, the cursor of the last event that it was told
//! or that did not concern it. It begins with what is in the files after its
//! position, goes on with what happens, and returns to the files by itself when
//! it was too slow to hear everything.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::inner::Inner;
use super::news::Pointer;
use super::replay::{Entry, Past, Replay};
use crate::{Error, Event, EventType, SessionId, Tag};

/// Which events to hear of. What is empty does not restrict.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of this session, with the messages it sends; `None` is all, also
    /// those launched later, and each message once.
    pub session: Option<SessionId>,
    /// Only of sessions that had one of these tags when it happened, or lost
    /// one by it. Also of those launched later.
    pub tags: Vec<Tag>,
    /// Only these kinds.
    pub kinds: Vec<EventType>,
}

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// It happened.
    Event(Box<Event>),
    /// Events after the cursor `from` up to `to`, wanted or not, are missing:
    /// they were removed with old sessions, cannot be read, or the node has
    /// lost them. Those of them that are there follow all the same. When `to`
    /// is less than `from`, the subscriber came with a cursor that this node
    /// has not reached; it goes on from `to`.
    Gap {
        /// The last cursor before the gap.
        from: u64,
        /// The last cursor in the gap.
        to: u64,
    },
}

/// Events from a position on. See [`Sessions::subscribe`](super::Sessions::subscribe)
/// and [`Sessions::subscribe_since`](super::Sessions::subscribe_since).
#[derive(Debug)]
pub struct Subscription {
    inner: Weak<Inner>,
    news: Receiver<Pointer>,
    filter: Filter,
    /// Everything up to this cursor is dealt with.
    at: u64,
    replay: Option<Replay>,
    notices: VecDeque<Notice>,
}

impl Subscription {
    pub(super) fn new(inner: &Arc<Inner>, filter: Filter, since: Option<u64>) -> Self {
        // First this, then the position: what is between them comes twice and
        // is told once.
        let news = inner.news.hear();
        let told = inner.news.told();
        let mut subscription = Self {
            inner: Arc::downgrade(inner),
            news,
            filter,
            at: told,
            replay: None,
            notices: VecDeque::new(),
        };
        match since {
            Some(since) if since > told => {
                let gap = Notice::Gap {
                    from: since,
                    to: told,
                };
                subscription.notices.push_back(gap);
            }
            Some(since) => subscription.look_back(inner, since),
            None => {}
        }
        subscription
    }

    /// The next event; waits for it. `None` when the node shuts down. May be
    /// cancelled and called again.
    pub async fn next(&mut self) -> Option<Notice> {
        loop {
            if let Some(notice) = self.notices.pop_front() {
                return Some(notice);
            }
            let Some(replay) = &mut self.replay else {
                if let Some(notice) = self.next_live().await? {
                    return Some(notice);
                }
                continue;
            };
            // Reading takes no time worth speaking of, much reading does.
            tokio::task::consume_budget().await;
            let inner = self.inner.upgrade()?;
            match replay.next(&inner) {
                Some(Past::Event { session, entry }) => {
                    self.at = self.at.max(entry.cursor);
                    if let Some(notice) = self.past(&inner, session, entry) {
                        return Some(notice);
                    }
                }
                Some(Past::Lost { to }) => return Some(Notice::Gap { from: self.at, to }),
                None => {
                    self.at = self.at.max(replay.to());
                    self.replay = None;
                }
            }
        }
    }

    /// The cursor to come back with: everything up to it has been told, or did
    /// not concern this subscriber.
    #[must_use]
    pub const fn cursor(&self) -> u64 {
        self.at
    }

    fn past(&self, inner: &Inner, session: SessionId, entry: Entry) -> Option<Notice> {
        if !self.wants_kind(entry.kind) {
            return None;
        }
        let event = inner.read_event(session, entry.place);
        let pointer = event.as_ref().map(|event| Pointer::new(event, entry.place));
        let copy_of = pointer.ok().and_then(|pointer| pointer.copy_of);
        self.wants(inner, session, entry.cursor, copy_of)
            .then(|| notice(entry.cursor, event))
    }

    async fn next_live(&mut self) -> Option<Option<Notice>> {
        let pointer = match self.news.recv().await {
            Ok(pointer) => pointer,
            Err(RecvError::Lagged(_)) => {
                let inner = self.inner.upgrade()?;
                self.news = inner.news.hear();
                self.look_back(&inner, self.at);
                return Some(None);
            }
            Err(RecvError::Closed) => return None,
        };
        if pointer.cursor <= self.at {
            return Some(None);
        }
        self.at = pointer.cursor;
        let inner = self.inner.upgrade()?;
        let Pointer {
            session,
            cursor,
            kind,
            place,
            copy_of,
        } = pointer;
        if !self.wants_kind(kind) || !self.wants(&inner, session, cursor, copy_of) {
            return Some(None);
        }
        Some(Some(notice(cursor, inner.read_event(session, place))))
    }

    /// Goes on from the files after this cursor, up to what will be heard.
    fn look_back(&mut self, inner: &Inner, since: u64) {
        let to = inner.news.told();
        let pruned_to = inner.engine.lock().cursors().1;
        let whole = self.filter.session.is_some_and(|id| inner.desk(id).is_ok());
        if since < pruned_to && !whole {
            self.notices.push_back(Notice::Gap {
                from: since,
                to: pruned_to,
            });
        }
        self.at = since;
        self.replay = Some(Replay::new(inner, self.filter.session, since, to));
    }

    fn wants_kind(&self, kind: EventType) -> bool {
        self.filter.kinds.is_empty() || self.filter.kinds.contains(&kind)
    }

    fn wants(
        &self,
        inner: &Inner,
        session: SessionId,
        cursor: u64,
        copy_of: Option<SessionId>,
    ) -> bool {
        let Filter {
            session: only,
            tags,
            ..
        } = &self.filter;
        if only.is_some_and(|only| only != session) {
            return false;
        }
        if tags.is_empty() {
            return only.is_some() || copy_of.is_none();
        }
        let engine = inner.engine.lock();
        let tagged = |id| engine.get(id).is_ok_and(|one| one.had_tag(tags, cursor));
        // A message between two of them is told once, by who gets it.
        tagged(session) && (only.is_some() || !copy_of.is_some_and(tagged))
    }
}

fn notice(cursor: u64, event: Result<Event, Error>) -> Notice {
    match event {
        Ok(event) => Notice::Event(Box::new(event)),
        Err(error) => {
            tracing::warn!(%error, cursor, "an event is lost");
            Notice::Gap {
                from: cursor.saturating_sub(1),
                to: cursor,
            }
        }
    }
}
