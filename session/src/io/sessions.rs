//! The handle on all sessions of a directory.
#![expect(unused_variables, clippy::unused_async, reason = "signatures first")]

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use super::keeper::Link;
use super::{Attachment, Filter, From, LaunchSpec, Options, Reader, Subscription};
use crate::{Error, InboxItem, Info, Message, MessageId, Party, SessionId, SessionRef, Size};

/// All sessions of one directory. Clones are handles on the same ones.
#[derive(Clone, Debug)]
pub struct Sessions {}

fn later<T>() -> Result<T, Error> {
    Err(Error::Protocol("not built yet".into()))
}

impl Sessions {
    /// Takes over a directory: reads back every session from disk and connects
    /// the live ones that the keeper holds.
    ///
    /// # Errors
    /// [`Error::KeeperUnavailable`], [`Error::Io`].
    pub async fn open(dir: PathBuf, keeper: Link, options: Options) -> Result<Self, Error> {
        later()
    }

    /// Starts a program in a new terminal.
    ///
    /// # Errors
    /// [`Error::NameTaken`], [`Error::CommandNotFound`], [`Error::DirNotFound`], …
    pub async fn launch(&self, spec: LaunchSpec) -> Result<Info, Error> {
        later()
    }

    /// Every session, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Info> {
        Vec::new()
    }

    /// One session.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub fn find(&self, session: &SessionRef) -> Result<Info, Error> {
        later()
    }

    /// Ends a session: SIGTERM, and after `grace` SIGKILL, to its whole tree.
    /// Returns when it has ended. Goes on when the caller leaves.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::SessionNotRunning`].
    pub async fn kill(&self, id: SessionId, grace: Duration) -> Result<Info, Error> {
        later()
    }

    /// Types into the terminal. Waits for room in the queue (1 MiB a session).
    ///
    /// # Errors
    /// [`Error::SessionNotRunning`], [`Error::SessionEnded`].
    pub async fn input(&self, id: SessionId, bytes: Bytes) -> Result<usize, Error> {
        later()
    }

    /// Changes the size of the terminal.
    ///
    /// # Errors
    /// [`Error::SessionNotRunning`].
    pub fn resize(&self, id: SessionId, size: Size) -> Result<(), Error> {
        later()
    }

    /// A cursor into the output.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::Io`].
    pub fn reader(&self, id: SessionId, from: From) -> Result<Reader, Error> {
        later()
    }

    /// Comes to the terminal.
    ///
    /// # Errors
    /// [`Error::SessionNotRunning`].
    pub fn attach(&self, id: SessionId) -> Result<Attachment, Error> {
        later()
    }

    /// Puts a message into the inbox of a live session.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::SessionEnded`], [`Error::BodyTooLarge`], [`Error::InboxFull`].
    pub async fn deliver(
        &self,
        to: &SessionRef,
        from: Party,
        body: String,
    ) -> Result<Message, Error> {
        later()
    }

    /// As [`Sessions::deliver`], with the id the sender's node gave it: a second
    /// delivery of the same id changes nothing and returns the first message.
    ///
    /// # Errors
    /// As [`Sessions::deliver`].
    pub async fn deliver_as(
        &self,
        id: MessageId,
        to: &SessionRef,
        from: Party,
        body: String,
    ) -> Result<Message, Error> {
        later()
    }

    /// Asks a live session something.
    ///
    /// # Errors
    /// As [`Sessions::deliver`].
    pub async fn request(
        &self,
        to: &SessionRef,
        from: Party,
        body: String,
    ) -> Result<(Message, PendingReply), Error> {
        later()
    }

    /// As [`Sessions::request`], with a given id; may be repeated. A repeated
    /// one also waits for (or at once gets) the one reply.
    ///
    /// # Errors
    /// As [`Sessions::deliver`].
    pub async fn request_as(
        &self,
        id: MessageId,
        to: &SessionRef,
        from: Party,
        body: String,
    ) -> Result<(Message, PendingReply), Error> {
        later()
    }

    /// Answers a request, as the session `by`.
    ///
    /// # Errors
    /// [`Error::RequestNotFound`], [`Error::NotAddressee`], [`Error::BodyTooLarge`].
    pub async fn reply(
        &self,
        request_id: &str,
        by: Option<SessionId>,
        body: String,
    ) -> Result<Message, Error> {
        later()
    }

    /// The last `tail` messages of a session, oldest first: received and sent.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::Io`].
    pub fn inbox(&self, session: &SessionRef, tail: usize) -> Result<Vec<InboxItem>, Error> {
        later()
    }

    /// Events from now on.
    #[must_use]
    pub fn subscribe(&self, filter: Filter) -> Subscription {
        Subscription {}
    }

    /// The live session to whose process tree a process belongs. Always `None`
    /// where there is no `/proc`.
    #[must_use]
    pub fn session_of_pid(&self, pid: u32) -> Option<SessionId> {
        None
    }

    /// Ends all sessions, writes everything and tells the keeper that the node
    /// will now exit on purpose.
    pub async fn shutdown(&self, grace: Duration) {}
}

/// The reply to a request, when it comes. Dropping it loses nothing: the reply
/// is in the logs, and in the inbox of a requester that is a local session.
#[derive(Debug)]
pub struct PendingReply {}

impl Future for PendingReply {
    /// [`Error::SessionEnded`] when the session that was asked ended without a
    /// reply.
    type Output = Result<Message, Error>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(later())
    }
}
