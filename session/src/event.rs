//! What happened to a session. Events are its history and its only truth: the
//! state of a session is what its events add up to.

use crate::{Message, MessageKind, Name, Outcome, Receipt, SessionId, Size, Tag, Usage};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Position in the history of its session, counted from 1 without gaps.
    pub seq: u64,
    /// Position in the history of the node: grows from event to event over all
    /// sessions, with gaps. 0 for an event that is not on disk yet, and for
    /// those written before there were such numbers.
    pub cursor: u64,
    /// When, unix milliseconds.
    pub at_ms: u64,
    /// To whom.
    pub session: SessionId,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// `session.created`
    Created(Created),
    /// `session.status`: the session ended.
    Exited(Exited),
    /// `session.input`: somebody typed. Collected over about a second.
    Input {
        /// Who: `input` or `launch`.
        source: String,
        /// How many bytes since the last such event.
        bytes: u64,
    },
    /// `session.attached`
    Attached {
        /// Number of the client, unique in one life of the node.
        client: u64,
    },
    /// `session.detached`
    Detached {
        /// Number of the client.
        client: u64,
    },
    /// `session.killed`: somebody asked for the end. The end itself is a
    /// `session.status` that follows.
    Killed,
    /// `session.restored`: the history was damaged and has been repaired.
    Restored {
        /// Bytes cut from a last line that was not written to its end.
        torn_bytes: u64,
        /// Lines in the middle that could not be read and are left out.
        damaged_lines: u64,
    },
    /// `session.renamed`
    Renamed {
        /// The name from now on.
        name: Option<Name>,
        /// The one before.
        previous: Option<Name>,
    },
    /// `session.tagged`: the tags from now on, all of them.
    Tagged {
        /// In the order in which they were given.
        tags: Vec<Tag>,
    },
    /// `session.output_summary`: what came since the last one. At most one
    /// every few seconds, and one before the end.
    OutputSummary(OutputSummary),
    /// `direct.message`, `message.request` or `message.reply`.
    Message(Message),
    /// `message.receipt`: what became of messages to this session.
    Receipt(Receipt),
}

/// How much a session wrote, now and then.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OutputSummary {
    /// Bytes since the last summary.
    pub bytes_delta: u64,
    /// Line feeds since the last summary.
    pub lines_delta: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Line feeds in all.
    pub total_lines: u64,
    /// The last line with text in it, without escape sequences, at most
    /// [`MAX_PREVIEW`] characters of its end.
    pub preview: String,
}

/// Characters in the text of an [`OutputSummary`]: a line of a wide terminal.
pub const MAX_PREVIEW: usize = 200;

/// How a session began.
#[derive(Clone, Debug, PartialEq)]
pub struct Created {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it started.
    pub working_dir: String,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// Its name.
    pub name: Option<Name>,
    /// The size of its terminal at the start.
    pub size: Size,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Exited {
    /// Exit code or signal.
    pub outcome: Outcome,
    /// Whether somebody asked for it.
    pub killed: bool,
    /// From launch to end, milliseconds.
    pub duration_ms: u64,
    /// Bytes of output in all.
    pub output_bytes: u64,
    /// Line feeds in the output.
    pub output_lines: u64,
    /// What the program used, if that is known.
    pub usage: Option<Usage>,
}

/// The kinds of events, for filters. [`EventType::as_str`] is the `type` on
/// disk and on the wire.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(
    missing_docs,
    reason = "the names are those of EventKind and its texts"
)]
pub enum EventType {
    Created,
    Status,
    Input,
    Attached,
    Detached,
    Killed,
    Restored,
    Renamed,
    Tagged,
    OutputSummary,
    DirectMessage,
    MessageRequest,
    MessageReply,
    MessageReceipt,
}

impl EventType {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Created,
        Self::Status,
        Self::Input,
        Self::Attached,
        Self::Detached,
        Self::Killed,
        Self::Restored,
        Self::Renamed,
        Self::Tagged,
        Self::OutputSummary,
        Self::DirectMessage,
        Self::MessageRequest,
        Self::MessageReply,
        Self::MessageReceipt,
    ];

    /// The `type` of the event in `events.jsonl` and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "session.created",
            Self::Status => "session.status",
            Self::Input => "session.input",
            Self::Attached => "session.attached",
            Self::Detached => "session.detached",
            Self::Killed => "session.killed",
            Self::Restored => "session.restored",
            Self::Renamed => "session.renamed",
            Self::Tagged => "session.tagged",
            Self::OutputSummary => "session.output_summary",
            Self::DirectMessage => "direct.message",
            Self::MessageRequest => "message.request",
            Self::MessageReply => "message.reply",
            Self::MessageReceipt => "message.receipt",
        }
    }

    /// The kind with this text, if there is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether it is a message of some kind, or what became of one.
    #[must_use]
    pub const fn is_message(self) -> bool {
        matches!(
            self,
            Self::DirectMessage | Self::MessageRequest | Self::MessageReply | Self::MessageReceipt
        )
    }
}

impl EventKind {
    /// Which kind it is.
    #[must_use]
    pub const fn event_type(&self) -> EventType {
        match self {
            Self::Created(_) => EventType::Created,
            Self::Exited(_) => EventType::Status,
            Self::Input { .. } => EventType::Input,
            Self::Attached { .. } => EventType::Attached,
            Self::Detached { .. } => EventType::Detached,
            Self::Killed => EventType::Killed,
            Self::Restored { .. } => EventType::Restored,
            Self::Renamed { .. } => EventType::Renamed,
            Self::Tagged { .. } => EventType::Tagged,
            Self::OutputSummary(_) => EventType::OutputSummary,
            Self::Message(message) => match message.kind {
                MessageKind::Direct => EventType::DirectMessage,
                MessageKind::Request => EventType::MessageRequest,
                MessageKind::Reply => EventType::MessageReply,
            },
            Self::Receipt(_) => EventType::MessageReceipt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_types_and_their_texts_are_one_to_one() {
        for kind in EventType::ALL {
            assert_eq!(EventType::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(EventType::parse("session.unheard_of"), None);
    }
}
