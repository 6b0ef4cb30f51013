//! The messages of all sessions, for whoever has the handle.

use super::Sessions;
use crate::engine::Draft;
use crate::io::PendingReply;
use crate::io::messages::random_id;
use crate::io::unix_ms_now;
use crate::{
    Delivery, Error, EventKind, InboxItem, Message, MessageId, MessageKind, Party, Progress,
    Receipt, RequestState, SessionId, SessionRef, Step,
};

/// When something that was written is on the disk; a later one has what is
/// before it. The default is now.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Kept(u64);

impl Sessions {
    /// Puts a message into the inbox of a live session, with a copy in that of
    /// a local sender. It is kept when this returns.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::SessionEnded`],
    /// [`Error::BodyTooLarge`], [`Error::InboxFull`], [`Error::DiskFull`].
    pub async fn deliver(
        &self,
        to: &SessionRef,
        from: Party,
        body: String,
    ) -> Result<Message, Error> {
        let id = random_id(MessageKind::Direct)?;
        self.deliver_as(id, to, from, body).await
    }

    /// As [`Sessions::deliver`], with the id the sender's node gave it: a second
    /// delivery of the same id changes nothing and returns the first message.
    ///
    /// # Errors
    /// As [`Sessions::deliver`]; [`Error::Protocol`] when the id is not that of
    /// a message.
    pub async fn deliver_as(
        &self,
        id: MessageId,
        to: &SessionRef,
        from: Party,
        body: String,
    ) -> Result<Message, Error> {
        self.inner
            .send(draft(MessageKind::Direct, id, to, from, body)?)
            .await
            .map(|(message, _)| message)
    }

    /// A message as its sender wants it, with an id of its own; may be repeated.
    /// Returns what is kept and whether it is new.
    ///
    /// # Errors
    /// As [`Sessions::deliver`]; [`Error::IdTaken`] when another sender's
    /// message has this id.
    pub async fn accept(&self, draft: Draft) -> Result<(Message, bool), Error> {
        self.inner.send(draft).await
    }

    /// As [`Sessions::accept`], but does not wait for the disk, if that is what
    /// acknowledgements do: [`Sessions::kept`] does, for many at once.
    ///
    /// # Errors
    /// As [`Sessions::accept`].
    pub fn accept_now(&self, draft: Draft) -> Result<(Message, Kept), Error> {
        let (message, flush) = self.inner.send_open(draft)?;
        Ok((message, Kept(flush.unwrap_or(0))))
    }

    /// Waits until it may be said of a message that it is kept, and so of all
    /// that were accepted before it.
    pub async fn kept(&self, kept: Kept) {
        self.inner.flusher.acknowledge(kept.0).await;
    }

    /// As [`Sessions::accept`], and waits for the reply from this moment on.
    ///
    /// # Errors
    /// As [`Sessions::accept`].
    pub async fn ask(&self, draft: Draft) -> Result<(Message, PendingReply), Error> {
        self.inner.ask(draft).await
    }

    /// The request of this id to a session here, and its reply when it comes.
    ///
    /// # Errors
    /// [`Error::RequestNotFound`], [`Error::Io`].
    pub fn resume(&self, request: MessageId) -> Result<(Message, PendingReply), Error> {
        self.inner.resume(request)
    }

    /// Puts a reply that another node has sent into the inbox of the session
    /// that asked. May be repeated.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::BodyTooLarge`], [`Error::DiskFull`].
    pub async fn receive_reply(&self, asker: SessionId, message: Message) -> Result<(), Error> {
        self.inner.receive_reply(asker, message).await
    }

    /// The replies of sessions here to requests from other nodes, oldest first.
    #[must_use]
    pub fn foreign_replies(&self, since_ms: u64) -> Vec<Message> {
        self.inner.foreign_replies(since_ms)
    }

    /// A session has read these messages in its inbox.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::DiskFull`], [`Error::Io`].
    pub async fn read(&self, session: SessionId, messages: Vec<MessageId>) -> Result<(), Error> {
        self.inner.check_open()?;
        let receipt = Receipt {
            messages,
            step: Step::Read,
            reason: None,
        };
        if let Some(flush) = self.inner.receipt(session, receipt)? {
            self.inner.flusher.acknowledge(flush).await;
        }
        Ok(())
    }

    /// Something has become of messages that a session has sent to another
    /// node: subscribers are told, and it is in the session's log.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::DiskFull`], [`Error::Io`].
    pub fn under_way(&self, sender: SessionId, receipt: Receipt) -> Result<(), Error> {
        let kind = EventKind::Receipt(receipt);
        let mut engine = self.inner.engine.lock();
        let event = engine.handle_happened(sender, kind, unix_ms_now())?;
        self.inner.write(&mut engine, event).map(drop)
    }

    /// How far a message to a session here has come, and of a request what
    /// became of it.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], also when the session has no such message.
    pub fn progress(
        &self,
        session: SessionId,
        message: MessageId,
    ) -> Result<(Progress, Option<RequestState>), Error> {
        let engine = self.inner.engine.lock();
        let progress = engine.get(session)?.inbox.progress(message);
        let progress = progress.ok_or_else(|| Error::RequestNotFound(message.to_string()))?;
        Ok((progress, engine.request_state(message)))
    }

    /// Waits until `done` says so of how far a message has come. May be
    /// cancelled.
    ///
    /// # Errors
    /// As [`Sessions::progress`].
    pub async fn progressed(
        &self,
        session: SessionId,
        message: MessageId,
        done: impl Fn(&Progress, Option<RequestState>) -> bool,
    ) -> Result<(Progress, Option<RequestState>), Error> {
        let mut news = self.inner.progressed.subscribe();
        loop {
            news.borrow_and_update();
            let (progress, state) = self.progress(session, message)?;
            if done(&progress, state) {
                return Ok((progress, state));
            }
            // The sender lives as long as we do.
            let _ = news.changed().await;
        }
    }

    /// Asks a live session something. The request is kept when this returns.
    ///
    /// # Errors
    /// As [`Sessions::deliver`].
    pub async fn request(
        &self,
        to: &SessionRef,
        from: Party,
        body: String,
    ) -> Result<(Message, PendingReply), Error> {
        let id = random_id(MessageKind::Request)?;
        self.request_as(id, to, from, body).await
    }

    /// As [`Sessions::request`], with a given id; may be repeated. A repeated
    /// one also waits for (or at once gets) the one reply.
    ///
    /// # Errors
    /// As [`Sessions::deliver_as`].
    pub async fn request_as(
        &self,
        id: MessageId,
        to: &SessionRef,
        from: Party,
        body: String,
    ) -> Result<(Message, PendingReply), Error> {
        self.inner
            .ask(draft(MessageKind::Request, id, to, from, body)?)
            .await
    }

    /// The session that a message is for: for one that is sent again that which has
    /// got it, whoever has the name now.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`].
    pub fn recipient(&self, id: MessageId, to: &SessionRef) -> Result<SessionId, Error> {
        let engine = self.inner.engine.lock();
        engine.got_by(id).map_or_else(|| engine.resolve(to), Ok)
    }

    /// Answers a request, as the session `by`; `None`, which is nobody, is
    /// refused.
    ///
    /// # Errors
    /// [`Error::RequestNotFound`], also for a second reply;
    /// [`Error::NotAddressee`], [`Error::BodyTooLarge`], [`Error::DiskFull`].
    pub async fn reply(
        &self,
        request_id: &str,
        by: Option<SessionId>,
        body: String,
    ) -> Result<Message, Error> {
        let id = random_id(MessageKind::Reply)?;
        self.reply_as(id, request_id, by, body).await
    }

    /// As [`Sessions::reply`], with a given id; may be repeated.
    ///
    /// # Errors
    /// As [`Sessions::reply`]; [`Error::Protocol`] when the id is not that of a
    /// reply.
    pub async fn reply_as(
        &self,
        id: MessageId,
        request_id: &str,
        by: Option<SessionId>,
        body: String,
    ) -> Result<Message, Error> {
        if id.kind() != MessageKind::Reply {
            return Err(Error::Protocol(format!("{id} is an id of another kind")));
        }
        self.inner.answer(id, request_id, by, body).await
    }

    /// The last `tail` messages of a session, oldest first: received and sent.
    ///
    /// # Errors
    /// [`Error::SessionNotFound`], [`Error::Io`].
    pub fn inbox(&self, session: &SessionRef, tail: usize) -> Result<Vec<InboxItem>, Error> {
        self.inner.inbox(session, tail)
    }

    /// The messages of a session after a cursor, oldest first, at most `most`.
    ///
    /// # Errors
    /// As [`Sessions::inbox`].
    pub fn inbox_since(
        &self,
        session: &SessionRef,
        since: u64,
        most: usize,
    ) -> Result<Vec<InboxItem>, Error> {
        self.inner.inbox_since(session, since, most)
    }
}

fn draft(
    kind: MessageKind,
    id: MessageId,
    to: &SessionRef,
    from: Party,
    body: String,
) -> Result<Draft, Error> {
    if id.kind() != kind {
        return Err(Error::Protocol(format!("{id} is an id of another kind")));
    }
    Ok(Draft {
        id,
        from,
        to: to.clone(),
        body,
        delivery: Delivery::Inbox,
        deadline_ms: None,
    })
}
