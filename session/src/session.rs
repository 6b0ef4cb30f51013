//! One session, as its events add up to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::inbox::Inbox;
use crate::record::Place;
use crate::{Brief, Created, Event, EventKind, Exited, Name, SessionId, Status, Tag};

/// Changes of tags that are remembered, to judge old events by the tags of
/// their time. Of more than these, the oldest are taken for one.
const TAG_CHANGES: usize = 128;

/// The state of one session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its number.
    pub id: SessionId,
    /// How it began.
    pub created: Created,
    /// Its name now, or when it ended.
    pub name: Option<Name>,
    /// Its tags, and since which cursor; the last are those of now.
    tags: Vec<(u64, Arc<[Tag]>)>,
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
    /// Cursor of its first event; 0 for one from before there were cursors.
    pub first_cursor: u64,
    /// Cursor of its last event.
    pub last_cursor: u64,
    /// Bytes and lines of output at the last summary.
    pub summarised: (u64, u64),
    /// Clients that have come and not left.
    pub clients: BTreeSet<u64>,
}

impl Session {
    /// A session that begins with this event.
    #[must_use]
    pub fn new(id: SessionId, created: Created, event: &Event) -> Self {
        let at_ms = event.at_ms;
        Self {
            id,
            name: created.name.clone(),
            tags: vec![(event.cursor, created.tags.clone().into())],
            created,
            created_ms: at_ms,
            exited: None,
            killed: false,
            inbox: Inbox::default(),
            pending_requests: 0,
            last_seq: 0,
            last_event_ms: at_ms,
            first_cursor: event.cursor,
            last_cursor: event.cursor,
            summarised: (0, 0),
            clients: BTreeSet::new(),
        }
    }

    /// What a list says about it.
    #[must_use]
    pub fn brief(&self) -> Brief<'_> {
        Brief {
            id: self.id,
            name: self.name.as_ref(),
            tags: self.tags(),
            argv: &self.created.command,
            created_ms: self.created_ms,
            status: self.status(),
        }
    }

    /// Its tags now.
    #[must_use]
    pub fn tags(&self) -> &[Tag] {
        self.tags.last().map_or(&[], |(_, tags)| tags)
    }

    /// Whether an event of this session concerns one of these tags: it had one
    /// then, or lost one by this very event.
    #[must_use]
    pub fn had_tag(&self, wanted: &[Tag], cursor: u64) -> bool {
        let has = |tags: &[Tag]| wanted.iter().any(|tag| tags.contains(tag));
        let later = self.tags.partition_point(|(since, _)| *since <= cursor);
        let now = later.saturating_sub(1);
        let then = self.tags.get(now).is_some_and(|(_, tags)| has(tags));
        let changed = self
            .tags
            .get(now)
            .is_some_and(|(since, _)| *since == cursor);
        let before = now.checked_sub(1).filter(|_| changed);
        then || before.is_some_and(|before| has(&self.tags[before].1))
    }

    fn retag(&mut self, cursor: u64, tags: &[Tag]) {
        if self.tags.len() == TAG_CHANGES {
            let (since, _) = self.tags.remove(0);
            self.tags[0].0 = since;
        }
        self.tags.push((cursor, tags.into()));
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
        self.last_cursor = self.last_cursor.max(event.cursor);
        match &event.kind {
            // The first outcome counts; nothing is after the end.
            EventKind::Exited(exited) => {
                self.exited.get_or_insert((*exited, event.at_ms));
                self.inbox.close();
            }
            EventKind::Killed => self.killed = true,
            EventKind::Message(message) => self.inbox.add(self.id, message, place),
            EventKind::Receipt(receipt) => self.inbox.note(receipt),
            EventKind::Renamed { name, .. } => self.name.clone_from(name),
            EventKind::Tagged { tags } => self.retag(event.cursor, tags),
            EventKind::OutputSummary(summary) => {
                self.summarised = (summary.total_bytes, summary.total_lines);
            }
            EventKind::Attached { client } => {
                self.clients.insert(*client);
            }
            EventKind::Detached { client } => {
                self.clients.remove(client);
            }
            EventKind::Created(_) | EventKind::Input { .. } | EventKind::Restored { .. } => {}
        }
    }
}
