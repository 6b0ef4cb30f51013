//! Events as they happen.
use crate::{Event, EventType, SessionId};

/// Which events to hear of.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of this session; `None` is all, also those launched later.
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

/// Events from the moment of [`Sessions::subscribe`](super::Sessions::subscribe) on.
#[derive(Debug)]
pub struct Subscription {}

impl Subscription {
    /// The next event; waits for it. `None` when the node shuts down.
    #[expect(clippy::unused_async, reason = "signature first")]
    pub async fn next(&mut self) -> Option<Notice> {
        None
    }
}
