//! What agents say to each other.

use std::fmt;

use crate::{Error, MessageId, MessageKind, Party, SessionId};

/// Bytes in the longest body. More than any prompt; little enough that a full
/// inbox is read back in moments.
pub const MAX_BODY: usize = 1024 * 1024;

/// One message, as it is kept in the inbox of whoever it concerns.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// Its name in the whole network.
    pub id: MessageId,
    /// When its recipient's node took it, unix milliseconds.
    pub at_ms: u64,
    /// Message, request or reply.
    pub kind: MessageKind,
    /// Who sent it.
    pub from: Party,
    /// Who it is for.
    pub to: Party,
    /// What it says.
    pub body: String,
    /// For a reply, the request it answers; for a request, its own id.
    pub request_id: Option<MessageId>,
    /// Where it goes at its recipient's.
    pub delivery: Delivery,
    /// For a request, until when its sender wants the reply, unix milliseconds.
    /// One that comes later is taken all the same.
    pub deadline_ms: Option<u64>,
}

/// Where a message goes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Delivery {
    /// Into the inbox.
    #[default]
    Inbox,
    /// Typed into the terminal; the inbox has it for the record.
    Pty,
    /// Into the inbox, and typed.
    Both,
}

impl Delivery {
    /// The word for it, on disk and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbox => "inbox",
            Self::Pty => "pty",
            Self::Both => "both",
        }
    }

    /// The reverse of [`Delivery::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Inbox, Self::Pty, Self::Both];
        all.into_iter().find(|one| one.as_str() == text)
    }

    /// Whether it is to be typed.
    #[must_use]
    pub const fn types(self) -> bool {
        matches!(self, Self::Pty | Self::Both)
    }
}

/// A step of a message. What becomes of one at its recipient's is in the log of
/// the recipient; what becomes of one to another node is in that of its sender.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Step {
    /// It is about to be typed.
    Typing,
    /// The program has read it from its terminal.
    Injected,
    /// It was typed, and Enter too; whether the program took it for input
    /// cannot be told.
    Unverified,
    /// The screen shows that the program has taken it.
    Submitted,
    /// It was not typed.
    Refused,
    /// The session has read it in its inbox.
    Read,
    /// It waits for another node, which is away.
    Queued,
    /// Another node has it on its disk.
    Delivered,
    /// The reply has come from another node.
    Answered,
    /// It has waited too long for another node.
    Expired,
}

impl Step {
    const ALL: [Self; 10] = [
        Self::Typing,
        Self::Injected,
        Self::Unverified,
        Self::Submitted,
        Self::Refused,
        Self::Read,
        Self::Queued,
        Self::Delivered,
        Self::Answered,
        Self::Expired,
    ];

    /// The word for it, on disk and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Typing => "typing",
            Self::Injected => "injected",
            Self::Unverified => "unverified",
            Self::Submitted => "submitted",
            Self::Refused => "refused",
            Self::Read => "read",
            Self::Queued => "queued",
            Self::Delivered => "delivered",
            Self::Answered => "answered",
            Self::Expired => "expired",
        }
    }

    /// The reverse of [`Step::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == text)
    }

    /// Whether it is one on the way to another node.
    #[must_use]
    pub const fn is_under_way(self) -> bool {
        matches!(
            self,
            Self::Queued | Self::Delivered | Self::Answered | Self::Expired
        )
    }

    /// Whether typing has come to its end with it.
    #[must_use]
    pub const fn is_outcome(self) -> bool {
        matches!(self, Self::Unverified | Self::Submitted | Self::Refused)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A step of some messages to one session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Receipt {
    /// Which.
    pub messages: Vec<MessageId>,
    /// What happened to them.
    pub step: Step,
    /// Why, for those that were refused or could not be verified.
    pub reason: Option<String>,
}

/// How far a message to a session has come.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// It is to be typed, and that has not come to an end.
    pub to_type: bool,
    /// The last step of its typing, if it is to be typed and that has begun.
    pub typed: Option<Step>,
    /// Why that was not a success.
    pub reason: Option<String>,
    /// The session has read it in its inbox.
    pub read: bool,
}

impl Message {
    /// Whether the message is for this local session. Its log may also hold
    /// copies of what it sent.
    #[must_use]
    pub fn is_for(&self, session: SessionId) -> bool {
        self.to.local_session() == Some(session)
    }

    /// Whether the reply to this request is late, if it has not come.
    #[must_use]
    pub fn is_overdue(&self, now_ms: u64) -> bool {
        self.deadline_ms.is_some_and(|deadline| deadline <= now_ms)
    }

    /// Refuses a body over [`MAX_BODY`].
    ///
    /// # Errors
    /// [`Error::BodyTooLarge`].
    pub fn check_body(body: &str) -> Result<(), Error> {
        if body.len() > MAX_BODY {
            return Err(Error::BodyTooLarge { len: body.len() });
        }
        Ok(())
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestState {
    /// Waits for the reply of the session it was addressed to.
    Pending,
    /// Was replied to.
    Answered,
    /// The session it was addressed to ended without a reply.
    Abandoned,
}

/// One line of an inbox.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InboxItem {
    /// The message.
    pub message: Message,
    /// For a request to this session: what became of it.
    pub state: Option<RequestState>,
    /// How far it has come, if it is to a session here.
    pub progress: Option<Progress>,
    /// Its position in the history of the node.
    pub cursor: u64,
}
