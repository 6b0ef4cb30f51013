//! What agents say to each other.

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
}

impl Message {
    /// Whether the message is for this local session. Its log may also hold
    /// copies of what it sent.
    #[must_use]
    pub fn is_for(&self, session: SessionId) -> bool {
        self.to.local_session() == Some(session)
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
}
