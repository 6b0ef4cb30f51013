//! The messages of one session: where each is on disk, and which are known.
//!
//! Bodies stay on disk. What a session sent is kept beside what it received;
//! only the latter counts against the limits.

use std::collections::HashMap;

use crate::record::Place;
use crate::{Message, MessageId, SessionId};

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
        }
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

    /// The last `count` messages, oldest first.
    #[must_use]
    pub fn tail(&self, count: usize) -> &[Place] {
        &self.places[self.places.len().saturating_sub(count)..]
    }
}
