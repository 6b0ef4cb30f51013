//! What can go wrong, each with a code that programs may rely on.

use crate::{MessageId, SessionId};

/// Why an operation on sessions failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No session has this number or name.
    #[error("session {0} not found")]
    SessionNotFound(String),
    /// The operation needs a live session.
    #[error("session {0} is not running")]
    SessionNotRunning(SessionId),
    /// The session ended while the operation waited for it.
    #[error("session {0} has ended")]
    SessionEnded(SessionId),
    /// A live session has this name.
    #[error("name {name:?} is already used by session {by}")]
    NameTaken {
        /// The name asked for.
        name: String,
        /// Who has it.
        by: SessionId,
    },
    /// Not a legal name.
    #[error(
        "invalid session name {0:?}: 1 to 32 letters, digits and hyphens, \
         not starting with a hyphen, not only digits"
    )]
    NameInvalid(String),
    /// Not a legal tag, or too many.
    #[error("invalid tag {0:?}: at most 32 tags of 1 to 128 bytes, without control characters")]
    TagInvalid(String),
    /// The command to launch is empty or has a NUL byte.
    #[error("invalid command: {0}")]
    CommandInvalid(&'static str),
    /// The program to launch is not there or not executable.
    #[error("command not found: {0}")]
    CommandNotFound(String),
    /// The working directory is not there.
    #[error("working directory {0:?} does not exist")]
    DirNotFound(String),
    /// The operating system refused to start the program.
    #[error("cannot launch: {0}")]
    LaunchFailed(String),
    /// No more sessions fit.
    #[error("too many sessions: the limit is {limit}")]
    TooManySessions {
        /// The limit that was reached.
        limit: usize,
    },
    /// A message body over the limit.
    #[error(
        "message body of {len} bytes is over the limit of {} bytes",
        crate::MAX_BODY
    )]
    BodyTooLarge {
        /// The size of the body.
        len: usize,
    },
    /// No request of this id waits for a reply.
    #[error("no pending request with ID {0:?}")]
    RequestNotFound(String),
    /// Somebody other than the addressed session tried to reply.
    #[error("request \"{request}\" may only be replied to by session {session}")]
    NotAddressee {
        /// The request.
        request: MessageId,
        /// Who may reply.
        session: SessionId,
    },
    /// Another sender's message has this id.
    #[error("{0} is another sender's message")]
    IdTaken(MessageId),
    /// The recipient's inbox holds as much as it may.
    #[error("inbox of session {0} is full")]
    InboxFull(SessionId),
    /// The disk takes no more.
    #[error("no space left on the disk")]
    DiskFull,
    /// A session was ended, but the disk does not take what its program wrote last.
    #[error("session {0} is ended, but its last output waits for room on the disk")]
    OutputWaits(SessionId),
    /// The process has as many files open as it may have.
    #[error("too many open files: no more sessions fit below the node's limit")]
    TooManyFiles,
    /// It is not known whose process calls.
    #[error("it cannot be told who calls: {0}")]
    CallerUnknown(String),
    /// Another process works in this directory.
    #[error("the directory is in use by process {pid}")]
    Locked {
        /// Who holds it, as it wrote into the lock file; `?` if it did not.
        pid: String,
    },
    /// The process that holds the terminals is gone or does not answer.
    #[error("the keeper is not available: {0}")]
    KeeperUnavailable(String),
    /// The node ends; nothing more will come from this handle.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// Something was not as it must be in what another process or file said.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// The operating system said no.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// A word for programs. Stable; the text is not.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::SessionNotFound(_) => "session_not_found",
            Self::SessionNotRunning(_) => "session_not_running",
            Self::SessionEnded(_) => "session_ended",
            Self::NameTaken { .. } => "name_taken",
            Self::NameInvalid(_) => "name_invalid",
            Self::TagInvalid(_) => "tag_invalid",
            Self::CommandInvalid(_) => "command_invalid",
            Self::CommandNotFound(_) => "command_not_found",
            Self::DirNotFound(_) => "dir_not_found",
            Self::LaunchFailed(_) => "launch_failed",
            Self::TooManySessions { .. } => "too_many_sessions",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::RequestNotFound(_) => "request_not_found",
            Self::NotAddressee { .. } => "not_addressee",
            Self::IdTaken(_) => "id_taken",
            Self::InboxFull(_) => "inbox_full",
            Self::DiskFull | Self::OutputWaits(_) => "disk_full",
            Self::TooManyFiles => "too_many_files",
            Self::CallerUnknown(_) => "caller_unknown",
            Self::Locked { .. } => "locked",
            Self::KeeperUnavailable(_) => "keeper_unavailable",
            Self::ShuttingDown => "shutting_down",
            Self::Protocol(_) => "protocol",
            Self::Io { .. } => "io",
        }
    }

    /// Wraps what the system said with what was being done.
    #[must_use]
    pub fn io(context: impl Into<String>, source: std::io::Error) -> Self {
        Self::Io {
            context: context.into(),
            source,
        }
    }
}
