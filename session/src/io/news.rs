//! Telling what has happened, in the order of cursors.
//!
//! What is passed around is where an event is on disk; each subscriber reads it
//! there. So a thousand subscribers to large messages cost little memory.
//!
//! A launch has its event on disk before its program runs, and nobody is told
//! until it does. What happens meanwhile waits for it, a few milliseconds: were
//! it told first, whoever left with its cursor would never hear of the launch.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::record::Place;
use crate::{Event, EventKind, EventType, SessionId};

/// Events that a subscriber may be behind before it goes on from the files. They
/// are held in memory from the start, at some 80 bytes each.
const NEWS: usize = 1024;

/// Where an event is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pointer {
    pub(super) session: SessionId,
    pub(super) cursor: u64,
    pub(super) kind: EventType,
    pub(super) place: Place,
    /// The same message is also in the log of this session, to which it was.
    pub(super) copy_of: Option<SessionId>,
}

impl Pointer {
    /// To an event that is on disk at `place`.
    pub(super) fn new(event: &Event, place: Place) -> Self {
        let copy_of = match &event.kind {
            EventKind::Message(message) => {
                message.to.local_session().filter(|to| *to != event.session)
            }
            _ => None,
        };
        Self {
            session: event.session,
            cursor: event.cursor,
            kind: event.kind.event_type(),
            place,
            copy_of,
        }
    }
}

/// All that is to be told, and who listens.
#[derive(Debug)]
pub(super) struct News {
    sender: broadcast::Sender<Pointer>,
    told: AtomicU64,
    /// By cursor, from the first that is held back; `None` is held back.
    waiting: Mutex<BTreeMap<u64, Option<Pointer>>>,
}

impl News {
    /// Everything up to this cursor is old.
    pub(super) fn new(told: u64) -> Self {
        Self {
            sender: broadcast::Sender::new(NEWS),
            told: AtomicU64::new(told),
            waiting: Mutex::default(),
        }
    }

    /// The last cursor that was told.
    pub(super) fn told(&self) -> u64 {
        self.told.load(Ordering::Acquire)
    }

    /// Hears what is told from now on.
    pub(super) fn hear(&self) -> broadcast::Receiver<Pointer> {
        self.sender.subscribe()
    }

    /// The event of this cursor, the last there is, is not to be told yet.
    pub(super) fn hold_back(&self, cursor: u64) {
        self.waiting.lock().insert(cursor, None);
    }

    /// The event of this cursor never came to be.
    pub(super) fn take_back(&self, cursor: u64) {
        let mut waiting = self.waiting.lock();
        waiting.remove(&cursor);
        self.tell_what_may_be(&mut waiting);
    }

    /// An event is to be told: the last one there is, or one held back.
    pub(super) fn tell(&self, pointer: Pointer) {
        let mut waiting = self.waiting.lock();
        waiting.insert(pointer.cursor, Some(pointer));
        self.tell_what_may_be(&mut waiting);
    }

    fn tell_what_may_be(&self, waiting: &mut BTreeMap<u64, Option<Pointer>>) {
        while let Some(first) = waiting.first_entry()
            && let Some(pointer) = *first.get()
        {
            first.remove();
            // Before it is sent: who has heard it may ask.
            self.told.store(pointer.cursor, Ordering::Release);
            // Nobody may be listening.
            let _ = self.sender.send(pointer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(cursor: u64) -> Pointer {
        Pointer {
            session: SessionId(1),
            cursor,
            kind: EventType::Killed,
            place: Place { offset: 0, len: 0 },
            copy_of: None,
        }
    }

    #[test]
    fn what_is_held_back_holds_back_what_comes_after() {
        let news = News::new(4);
        let mut heard = news.hear();
        let mut heard = || heard.try_recv().ok().map(|pointer| pointer.cursor);
        news.tell(pointer(5));
        news.hold_back(6);
        news.tell(pointer(7));
        news.hold_back(8);
        news.tell(pointer(9));
        assert_eq!((heard(), heard(), news.told()), (Some(5), None, 5));
        news.tell(pointer(6));
        assert_eq!((heard(), heard(), heard()), (Some(6), Some(7), None));
        // A launch that failed: nobody may think that it was told.
        news.take_back(8);
        assert_eq!((heard(), heard(), news.told()), (Some(9), None, 9));
        news.hold_back(10);
        news.take_back(10);
        assert_eq!(news.told(), 9);
    }
}
