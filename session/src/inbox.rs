//! The messages of one session: where each is on disk, and which are known.
//!
//! Bodies stay on disk. What a session sent is kept beside what it received;
//! only the latter counts against the limits.

use std::collections::{HashMap, VecDeque};

use crate::record::Place;
use crate::{Message, MessageId, Progress, Receipt, SessionId, Step};

/// Messages that a session may have received. Each costs about 100 bytes of
/// memory; nobody reads this many.
pub const MAX_MESSAGES: usize = 100_000;

/// Bytes of received messages on disk: they are read back when the node starts.
pub const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Index of the messages of one session, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    places: Vec<Place>,
    known: HashMap<MessageId, usize>,
    received: usize,
    received_bytes: u64,
    /// Of those that were read or are to be typed.
    progress: HashMap<MessageId, Progress>,
    /// What is to be typed, in order.
    to_type: VecDeque<MessageId>,
}

impl Inbox {
    /// Adds a message that is on disk. One that is known already is ignored.
    pub fn add(&mut self, owner: SessionId, message: &Message, place: Place) {
        if self.known.contains_key(&message.id) {
            return;
        }
        self.known.insert(message.id, self.places.len());
        self.places.push(place);
        if message.is_for(owner) {
            self.received += 1;
            self.received_bytes += u64::from(place.len);
            if message.delivery.types() {
                let progress = Progress {
                    to_type: true,
                    ..Progress::default()
                };
                self.progress.insert(message.id, progress);
                self.to_type.push_back(message.id);
            }
        }
    }

    /// Takes note of what became of messages.
    pub fn note(&mut self, receipt: &Receipt) {
        for id in &receipt.messages {
            if !self.known.contains_key(id) || receipt.step.is_under_way() {
                continue;
            }
            let progress = self.progress.entry(*id).or_default();
            if receipt.step == Step::Read {
                progress.read = true;
                continue;
            }
            if progress.typed.is_some_and(Step::is_outcome) {
                continue;
            }
            progress.typed = Some(receipt.step);
            progress.reason.clone_from(&receipt.reason);
            if receipt.step.is_outcome() {
                progress.to_type = false;
                self.to_type.retain(|other| other != id);
            }
        }
    }

    /// The program has ended: nothing more is typed.
    pub fn close(&mut self) {
        for id in std::mem::take(&mut self.to_type) {
            let progress = self.progress.entry(id).or_default();
            let begun = progress.typed.is_some();
            progress.to_type = false;
            progress.typed = Some(if begun {
                Step::Unverified
            } else {
                Step::Refused
            });
            progress.reason = Some("the session has ended".to_owned());
        }
    }

    /// The next message to be typed, and whether that has begun before.
    #[must_use]
    pub fn next_to_type(&self) -> Option<(MessageId, bool)> {
        let id = *self.to_type.front()?;
        let begun = self.progress.get(&id)?.typed.is_some();
        Some((id, begun))
    }

    /// How far a message has come, if it is here.
    #[must_use]
    pub fn progress(&self, id: MessageId) -> Option<Progress> {
        let known = self.known.contains_key(&id);
        known.then(|| self.progress.get(&id).cloned().unwrap_or_default())
    }

    /// Whether it takes no more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.received >= MAX_MESSAGES || self.received_bytes >= MAX_BYTES
    }

    /// Where a message is, if it is here.
    #[must_use]
    pub fn find(&self, id: MessageId) -> Option<Place> {
        self.known.get(&id).map(|&at| self.places[at])
    }

    /// The ids of all messages, in no order.
    pub fn ids(&self) -> impl Iterator<Item = MessageId> {
        self.known.keys().copied()
    }

    /// Every message, oldest first.
    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The last `count` messages, oldest first.
    #[must_use]
    pub fn tail(&self, count: usize) -> &[Place] {
        &self.places[self.places.len().saturating_sub(count)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Delivery, MessageKind, Party};

    const OWNER: SessionId = SessionId(1);

    fn inbox(messages: u8) -> (Inbox, Vec<MessageId>) {
        let mut inbox = Inbox::default();
        let ids: Vec<_> = (0..messages)
            .map(|number| MessageId::new(MessageKind::Direct, [number; 16]))
            .collect();
        for id in &ids {
            let message = Message {
                id: *id,
                at_ms: 0,
                kind: MessageKind::Direct,
                from: Party::owner(),
                to: Party::local(OWNER, None),
                body: String::new(),
                request_id: None,
                delivery: Delivery::Both,
                deadline_ms: None,
            };
            inbox.add(OWNER, &message, Place { offset: 0, len: 1 });
        }
        (inbox, ids)
    }

    fn note(inbox: &mut Inbox, id: MessageId, step: Step) {
        inbox.note(&Receipt {
            messages: vec![id],
            step,
            reason: None,
        });
    }

    #[test]
    fn what_is_typed_is_typed_in_order_and_once() {
        let (mut inbox, ids) = inbox(2);
        assert_eq!(inbox.next_to_type(), Some((ids[0], false)));
        note(&mut inbox, ids[0], Step::Typing);
        // So the next node knows that it was begun.
        assert_eq!(inbox.next_to_type(), Some((ids[0], true)));
        note(&mut inbox, ids[0], Step::Injected);
        note(&mut inbox, ids[0], Step::Submitted);
        note(&mut inbox, ids[0], Step::Unverified);
        let progress = inbox.progress(ids[0]).unwrap();
        assert_eq!(progress.typed, Some(Step::Submitted));
        assert!(!progress.to_type && !progress.read);
        note(&mut inbox, ids[0], Step::Read);
        assert!(inbox.progress(ids[0]).unwrap().read);
        assert_eq!(inbox.next_to_type(), Some((ids[1], false)));
    }

    #[test]
    fn nothing_is_typed_after_the_end() {
        let (mut inbox, ids) = inbox(2);
        note(&mut inbox, ids[0], Step::Typing);
        inbox.close();
        assert_eq!(inbox.next_to_type(), None);
        let typed = |id| inbox.progress(id).unwrap().typed;
        assert_eq!(typed(ids[0]), Some(Step::Unverified));
        assert_eq!(typed(ids[1]), Some(Step::Refused));
        let stranger = MessageId::new(MessageKind::Direct, [9; 16]);
        assert_eq!(inbox.progress(stranger), None);
    }
}
