//! What this node sends to others, until it is there: the state, without clock, file or network.
//!
//! Every letter has its place in the order in which it was put in; those for one node are carried
//! in that order. What changes is returned as a [`Change`], written down by the caller, and made
//! true by [`Outbox::apply`]; all changes in order rebuild the same outbox.

use std::collections::{BTreeMap, HashMap};

use mesh::NodeKey;
use serde::{Deserialize, Serialize};
use session::{MessageId, MessageKind, Step};

use crate::error::{Error, Result};
use crate::locator::Session;

/// How long a letter waits for its node, milliseconds: 7 days.
pub(crate) const KEEP: u64 = 7 * 24 * 60 * 60 * 1000;

/// Letters that may wait at a time, to all nodes.
pub(crate) const WAITING_MAX: usize = 10_000;

/// Bytes of their bodies: they are kept in memory.
pub(crate) const WAITING_BYTES: usize = 64 * 1024 * 1024;

/// Letters that are remembered after they were settled, for `cw outbox` and to know a repeated
/// one; the oldest go first.
const SETTLED_MAX: usize = 10_000;

/// Characters that are kept of the body of a settled letter.
const PREVIEW: usize = 200;

/// A message to a session of another node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// Its name in the whole network; tells message, request and reply apart.
    pub id: MessageId,
    /// The other node's name.
    pub node: String,
    /// Its key, when the letter was put in. A node that has the name later does not get it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<NodeKey>,
    /// The session here that sends it; none for the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<(u32, Option<String>)>,
    /// The session there; none for the owner, who may get a reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Session>,
    /// What it says.
    pub body: String,
    /// `inbox`, `pty` or `both`.
    pub delivery: String,
    /// Whether the sender left the choice to us.
    #[serde(default)]
    pub auto: bool,
    /// For a reply, the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<MessageId>,
    /// When it was put in, unix milliseconds.
    pub at_ms: u64,
    /// For a request, until when its sender wants the reply, unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// How far a letter has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Kept here; nothing was tried yet.
    Accepted,
    /// Kept here; its node is away.
    Queued,
    /// On the recipient's disk.
    Delivered,
    /// A request whose reply is here.
    Answered,
    /// It has waited too long.
    Expired,
    /// The recipient's node does not take it.
    Refused,
}

impl State {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Queued => "queued",
            Self::Delivered => "delivered",
            Self::Answered => "answered",
            Self::Expired => "expired",
            Self::Refused => "refused",
        }
    }

    /// Whether it waits to be carried.
    #[must_use]
    pub const fn waits(self) -> bool {
        matches!(self, Self::Accepted | Self::Queued)
    }
}

/// A reply that has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Its id.
    pub id: MessageId,
    /// What it says.
    pub body: String,
    /// The session that replied.
    pub from: (u32, Option<String>),
    /// When it came, unix milliseconds.
    pub at_ms: u64,
}

/// A letter and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The letter.
    pub letter: Letter,
    /// How far it has come.
    pub state: State,
    /// A stable word for why it is not further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The session that got it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub got_by: Option<(u32, Option<String>)>,
    /// The reply, if it is a request that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

/// Something that is to be written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Change {
    /// A letter, or all that is known of it.
    Put(Box<Record>),
    /// What became of one.
    Set {
        /// Which.
        id: MessageId,
        /// How far it has come.
        state: State,
        /// See [`Record::code`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// See [`Record::reason`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// See [`Record::got_by`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        got_by: Option<(u32, Option<String>)>,
    },
    /// The reply to a request.
    Answer {
        /// The request.
        id: MessageId,
        /// The reply.
        answer: Answer,
    },
}

impl Change {
    /// What it means to who has sent the letter.
    pub(crate) fn step(&self) -> Option<(MessageId, Step, Option<String>)> {
        let (id, state, reason) = match self {
            Self::Put(_) => return None,
            Self::Answer { id, .. } => return Some((*id, Step::Answered, None)),
            Self::Set {
                id, state, reason, ..
            } => (*id, *state, reason.clone()),
        };
        let step = match state {
            State::Accepted => return None,
            State::Queued => Step::Queued,
            State::Delivered => Step::Delivered,
            State::Answered => Step::Answered,
            State::Expired => Step::Expired,
            State::Refused => Step::Refused,
        };
        Some((id, step, reason))
    }
}

/// All letters.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    records: BTreeMap<u64, Record>,
    by_id: HashMap<MessageId, u64>,
    next: u64,
    waiting: usize,
    waiting_bytes: usize,
}

impl Outbox {
    /// A new letter; none when it is known already, which a repeated call leads to.
    ///
    /// # Errors
    ///
    /// `outbox_full`; `id_taken` when another sender's letter has this id.
    pub(crate) fn handle_letter(&self, letter: Letter) -> Result<Option<Change>> {
        if let Some(known) = self.get(letter.id) {
            let same = known.letter.node == letter.node
                && known.letter.from.as_ref().map(|from| from.0)
                    == letter.from.as_ref().map(|from| from.0);
            return if same {
                Ok(None)
            } else {
                Err(session::Error::IdTaken(letter.id).into())
            };
        }
        session::Message::check_body(&letter.body)?;
        let bytes = self.waiting_bytes + letter.body.len();
        if self.waiting >= WAITING_MAX || bytes > WAITING_BYTES {
            return Err(Error::new(
                "outbox_full",
                format!("{} messages wait for nodes that are away", self.waiting),
            ));
        }
        Ok(Some(Change::Put(Box::new(Record {
            letter,
            state: State::Accepted,
            code: None,
            reason: None,
            got_by: None,
            answer: None,
        }))))
    }

    /// What became of a letter; none when it is settled or that is known.
    pub(crate) fn handle_state(
        &self,
        id: MessageId,
        state: State,
        why: Option<(String, String)>,
        got_by: Option<(u32, Option<String>)>,
    ) -> Option<Change> {
        let record = self.get(id)?;
        let (code, reason) = why.unzip();
        let known = record.state == state && record.reason == reason;
        if !record.state.waits() || known {
            return None;
        }
        Some(Change::Set {
            id,
            state,
            code,
            reason,
            got_by,
        })
    }

    /// A reply to a request, from a session of the node `key`. None when it is here already.
    ///
    /// # Errors
    ///
    /// `request_not_found` for a request that was not sent there or is answered,
    /// `not_addressee` for a session that was not asked.
    pub(crate) fn handle_answer(
        &self,
        request: MessageId,
        node: (&str, NodeKey),
        answer: Answer,
    ) -> Result<Option<Change>> {
        let not_found = || session::Error::RequestNotFound(request.to_string());
        let record = self.get(request).ok_or_else(not_found)?;
        let letter = &record.letter;
        let there = letter.node == node.0 && letter.key.is_none_or(|key| key == node.1);
        if letter.id.kind() != MessageKind::Request || !there {
            return Err(not_found().into());
        }
        if let Some(known) = &record.answer {
            return if known.id == answer.id {
                Ok(None)
            } else {
                Err(not_found().into())
            };
        }
        // A quick answer may come before its node has said which session got the request.
        let asked = match (&record.got_by, &letter.to) {
            (Some((id, _)), _) | (None, Some(Session::Id(id))) => Some(*id),
            (None, Some(Session::Name(_)) | None) => None,
        };
        if asked.is_some_and(|asked| asked != answer.from.0) {
            return Err(Error::new(
                "not_addressee",
                format!("request \"{request}\" was not addressed to that session"),
            ));
        }
        Ok(Some(Change::Answer {
            id: request,
            answer,
        }))
    }

    /// The letters that have waited too long.
    pub(crate) fn poll_expired(&self, now_ms: u64) -> Vec<Change> {
        let late = self.records.values().filter(|record| {
            record.state.waits() && record.letter.at_ms.saturating_add(KEEP) < now_ms
        });
        late.map(|record| Change::Set {
            id: record.letter.id,
            state: State::Expired,
            code: Some("expired".to_owned()),
            reason: Some(format!("{} was away for 7 days", record.letter.node)),
            got_by: None,
        })
        .collect()
    }

    /// Makes a change true.
    pub(crate) fn apply(&mut self, change: Change) {
        match change {
            Change::Put(record) => self.put(*record),
            Change::Set {
                id,
                state,
                code,
                reason,
                got_by,
            } => self.change(id, |record| {
                record.state = state;
                (record.code, record.reason) = (code, reason);
                record.got_by = got_by.or_else(|| record.got_by.take());
            }),
            Change::Answer { id, answer } => self.change(id, |record| {
                record.state = State::Answered;
                (record.code, record.reason) = (None, None);
                record.got_by = Some(answer.from.clone());
                record.answer = Some(answer);
            }),
        }
    }

    fn put(&mut self, record: Record) {
        if self.by_id.contains_key(&record.letter.id) {
            return;
        }
        let (place, id) = (self.next, record.letter.id);
        self.next += 1;
        self.by_id.insert(id, place);
        self.count(&record, true);
        self.records.insert(place, record);
        self.forget();
    }

    fn change(&mut self, id: MessageId, with: impl FnOnce(&mut Record)) {
        let Some(place) = self.by_id.get(&id).copied() else {
            return;
        };
        let Some(mut record) = self.records.remove(&place) else {
            return;
        };
        self.count(&record, false);
        with(&mut record);
        if !record.state.waits() {
            let preview = record.letter.body.char_indices().nth(PREVIEW);
            if let Some((end, _)) = preview {
                record.letter.body.truncate(end);
                record.letter.body.shrink_to_fit();
            }
        }
        self.count(&record, true);
        self.records.insert(place, record);
    }

    fn count(&mut self, record: &Record, add: bool) {
        if !record.state.waits() {
            return;
        }
        let bytes = record.letter.body.len();
        if add {
            self.waiting += 1;
            self.waiting_bytes += bytes;
        } else {
            self.waiting -= 1;
            self.waiting_bytes -= bytes;
        }
    }

    /// Settled letters beyond the limit go; those that wait stay.
    fn forget(&mut self) {
        while self.records.len() - self.waiting > SETTLED_MAX {
            let oldest = self.records.iter().find(|(_, one)| !one.state.waits());
            let Some(place) = oldest.map(|(place, _)| *place) else {
                return;
            };
            if let Some(record) = self.records.remove(&place) {
                self.by_id.remove(&record.letter.id);
            }
        }
    }

    /// A letter and what became of it.
    pub(crate) fn get(&self, id: MessageId) -> Option<&Record> {
        self.records.get(self.by_id.get(&id)?)
    }

    /// All, in order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.records.values()
    }

    /// The next letters for a node, in order: at most `most`, and no more after `bytes`.
    pub(crate) fn next_for(&self, node: &str, most: usize, bytes: usize) -> Vec<Letter> {
        let mut size = 0;
        let waiting = self
            .iter()
            .filter(|record| record.state.waits() && record.letter.node == node);
        waiting
            .take(most)
            .take_while(|record| {
                let fits = size < bytes;
                size += record.letter.body.len();
                fits
            })
            .map(|record| record.letter.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(number: u8, kind: MessageKind, node: &str) -> Letter {
        Letter {
            id: MessageId::new(kind, [number; 16]),
            node: node.to_owned(),
            key: Some(NodeKey::from_bytes([1; 32])),
            from: Some((1, None)),
            to: Some(Session::Name("coder".into())),
            body: format!("body {number}"),
            delivery: "inbox".into(),
            auto: false,
            request_id: None,
            at_ms: u64::from(number),
            deadline_ms: None,
        }
    }

    #[derive(Default)]
    struct World {
        outbox: Outbox,
        journal: Vec<Change>,
    }

    impl World {
        fn did(&mut self, change: Change) {
            // As it comes back from the disk.
            let line = serde_json::to_string(&change).unwrap();
            self.outbox.apply(serde_json::from_str(&line).unwrap());
            self.journal.push(change);
        }

        fn put(&mut self, letter: Letter) {
            let change = self.outbox.handle_letter(letter).unwrap().unwrap();
            self.did(change);
        }

        fn set(&mut self, id: MessageId, state: State) {
            let got = Some((7, None));
            let change = self.outbox.handle_state(id, state, None, got).unwrap();
            self.did(change);
        }

        fn bodies(&self, node: &str) -> Vec<String> {
            let next = self.outbox.next_for(node, 64, 1 << 20);
            next.into_iter().map(|letter| letter.body).collect()
        }
    }

    #[test]
    fn letters_are_carried_in_order_once() {
        let mut world = World::default();
        for number in 1..=4 {
            let node = if number == 2 { "dev-3" } else { "dev-2" };
            world.put(letter(number, MessageKind::Direct, node));
        }
        assert_eq!(world.bodies("dev-2"), ["body 1", "body 3", "body 4"]);
        let first = letter(1, MessageKind::Direct, "dev-2");
        world.set(first.id, State::Queued);
        world.set(first.id, State::Delivered);
        assert_eq!(world.bodies("dev-2"), ["body 3", "body 4"]);
        // A repeated call changes nothing, and nothing happens to what is settled.
        assert_eq!(world.outbox.handle_letter(first.clone()).unwrap(), None);
        let again = world
            .outbox
            .handle_state(first.id, State::Refused, None, None);
        assert_eq!(again, None);
        let stranger = Letter {
            from: Some((2, None)),
            ..first
        };
        let taken = world.outbox.handle_letter(stranger).unwrap_err();
        assert_eq!(taken.code, "id_taken");
        let mut reborn = Outbox::default();
        world
            .journal
            .into_iter()
            .for_each(|change| reborn.apply(change));
        let records = |outbox: &Outbox| outbox.iter().cloned().collect::<Vec<_>>();
        assert_eq!(records(&reborn), records(&world.outbox));
        assert_eq!((reborn.waiting, reborn.waiting_bytes), (3, 18));
    }

    #[test]
    fn b15_only_who_was_asked_may_answer_and_once() {
        let mut world = World::default();
        let asked = letter(1, MessageKind::Request, "dev-2");
        let (id, key) = (asked.id, NodeKey::from_bytes([1; 32]));
        world.put(asked);
        world.set(id, State::Delivered);
        let answer = |number: u8, from| Answer {
            id: MessageId::new(MessageKind::Reply, [number; 16]),
            body: "so".into(),
            from: (from, None),
            at_ms: 9,
        };
        let other = NodeKey::from_bytes([2; 32]);
        let code = |result: Result<Option<Change>>| result.unwrap_err().code;
        let outbox = &world.outbox;
        assert_eq!(
            code(outbox.handle_answer(id, ("dev-3", other), answer(1, 7))),
            "request_not_found"
        );
        assert_eq!(
            code(outbox.handle_answer(id, ("dev-2", other), answer(1, 7))),
            "request_not_found"
        );
        assert_eq!(
            code(outbox.handle_answer(id, ("dev-2", key), answer(1, 8))),
            "not_addressee"
        );
        let change = outbox.handle_answer(id, ("dev-2", key), answer(1, 7));
        world.did(change.unwrap().unwrap());
        let outbox = &world.outbox;
        assert_eq!(outbox.get(id).unwrap().state, State::Answered);
        let again = outbox.handle_answer(id, ("dev-2", key), answer(1, 7));
        assert_eq!(again.unwrap(), None);
        assert_eq!(
            code(outbox.handle_answer(id, ("dev-2", key), answer(2, 7))),
            "request_not_found"
        );
    }

    #[test]
    fn b15_an_answer_may_overtake_the_receipt_but_not_come_from_another_session() {
        for (to, refused) in [
            (Session::Id(7), Some("not_addressee")),
            (Session::Name("coder".to_owned()), None),
        ] {
            let mut world = World::default();
            let mut asked = letter(1, MessageKind::Request, "dev-2");
            asked.to = Some(to);
            let (id, key) = (asked.id, NodeKey::from_bytes([1; 32]));
            world.put(asked);
            for (from, expected) in [(8, refused), (7, None)] {
                let answer = Answer {
                    id: MessageId::new(MessageKind::Reply, [1; 16]),
                    body: "so".into(),
                    from: (from, None),
                    at_ms: 9,
                };
                let result = world.outbox.handle_answer(id, ("dev-2", key), answer);
                let code = result.err().map(|error| error.code);
                assert_eq!(code.as_deref(), expected);
            }
        }
    }

    #[test]
    fn it_is_bounded_and_says_so() {
        let mut world = World::default();
        let big = |number| Letter {
            body: "x".repeat(1024 * 1024),
            ..letter(number, MessageKind::Direct, "dev-2")
        };
        for number in 0..64 {
            world
                .outbox
                .apply(world.outbox.handle_letter(big(number)).unwrap().unwrap());
        }
        let full = world.outbox.handle_letter(big(64)).unwrap_err();
        assert_eq!(full.code, "outbox_full");
        let late = world.outbox.poll_expired(KEEP + 5);
        assert_eq!(late.len(), 5);
        late.into_iter()
            .for_each(|change| world.outbox.apply(change));
        assert_eq!(world.outbox.waiting, 59);
        assert_eq!(
            world.outbox.iter().next().unwrap().letter.body.len(),
            PREVIEW
        );
        world.outbox.handle_letter(big(64)).unwrap();
    }
}
