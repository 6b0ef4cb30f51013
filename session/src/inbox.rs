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
                self.progress.insert(message.id, Progress::default());
                self.to_type.push_back(message.id);
            }
        }
    }

    /// Takes note of what became of messages.
    pub fn note(&mut self, receipt: &Receipt) {
        for id in &receipt.messages {
            if !self.known.contains_key(id) {
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
                self.to_type.retain(|other| other != id);
            }
        }
    }

    /// The program has ended: nothing more is typed.
    pub fn close(&mut self) {
        for id in std::mem::take(&mut self.to_type) {
            let progress = self.progress.entry(id).or_default();
            let begun = progress.typed.is_some();
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
