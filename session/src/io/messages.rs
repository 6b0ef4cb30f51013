//! Sending, asking and replying: from the engine's decision to the disk, and to
//! whoever waits for a reply.
//!
//! A reply is written twice: to the log of who gives it, which settles the
//! request, and to that of who asked. When the disk takes the first only, the
//! second is [`Owed`]: it is written before anything else that somebody says to
//! that session, so that it is where it belongs, and as soon as there is room.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::inner::Inner;
use super::unix_ms_now;
use crate::engine::{Delivery, Draft, Engine};
use crate::record::{self, Place};
use crate::{
    Error, Event, EventKind, InboxItem, Message, MessageId, MessageKind, RequestState, SessionId,
    SessionRef,
};

/// How long to wait before a full disk is asked again to take what is owed.
const RETRY: Duration = Duration::from_secs(1);

type Reply = Result<Message, Error>;

/// A reply that is in the log of `replier` and has to get into that of `asker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owed {
    replier: SessionId,
    asker: SessionId,
    reply: MessageId,
}

/// Those who wait for replies, here and now. Losing one loses no reply: it is
/// in the logs.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    waiting: Mutex<HashMap<MessageId, Vec<oneshot::Sender<Reply>>>>,
}

impl Waiters {
    /// Waits for the reply to a request.
    fn add(&self, request: MessageId) -> PendingReply {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        let waiting = waiting.entry(request).or_default();
        waiting.retain(|other| !other.is_closed());
        waiting.push(sender);
        PendingReply { receiver }
    }

    /// Gives everybody who waits for this request its end.
    pub(super) fn settle(&self, request: MessageId, reply: impl Fn() -> Reply) {
        let waiting = self.waiting.lock().remove(&request);
        for waiter in waiting.into_iter().flatten() {
            // Whoever has left finds it in the inbox.
            let _ = waiter.send(reply());
        }
    }

    /// Nothing will come any more.
    pub(super) fn clear(&self) {
        self.waiting.lock().clear();
    }
}

/// The reply to a request, when it comes. Dropping it loses nothing: the reply
/// is in the logs, and in the inbox of a requester that is a local session.
#[derive(Debug)]
pub struct PendingReply {
    receiver: oneshot::Receiver<Reply>,
}

impl PendingReply {
    fn settled(reply: Reply) -> Self {
        let (sender, receiver) = oneshot::channel();
        // The receiver is here.
        let _ = sender.send(reply);
        Self { receiver }
    }
}

impl Future for PendingReply {
    /// [`Error::SessionEnded`] when the session that was asked ended without a
    /// reply; [`Error::ShuttingDown`].
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        let reply = ready!(Pin::new(&mut self.receiver).poll(context));
        Poll::Ready(reply.unwrap_or(Err(Error::ShuttingDown)))
    }
}

impl Inner {
    /// Delivers a message or request. Acknowledged when it is kept.
    pub(super) async fn send(&self, draft: Draft) -> Result<(Message, bool), Error> {
        let (message, flush) = self.send_open(draft)?;
        self.flusher.acknowledge(flush.unwrap_or(0)).await;
        Ok((message, flush.is_some()))
    }

    /// As [`Inner::send`], but whoever acknowledges it has to wait for the flush first.
    pub(super) fn send_open(&self, draft: Draft) -> Result<(Message, Option<u64>), Error> {
        self.check_open()?;
        self.send_now(draft)
    }

    /// Delivers a request and waits for its reply from this moment on.
    pub(super) async fn ask(&self, draft: Draft) -> Result<(Message, PendingReply), Error> {
        self.check_open()?;
        // Before it is there, so that no reply comes in between.
        let early = self.waiters.add(draft.id);
        let (message, flush) = self.send_now(draft)?;
        self.flusher.acknowledge(flush.unwrap_or(0)).await;
        let reply = self.reply_that_is_there(&message)?;
        Ok((message, reply.map_or(early, PendingReply::settled)))
    }

    /// The message that is kept, and the flush to wait for if it is new.
    fn send_now(&self, draft: Draft) -> Result<(Message, Option<u64>), Error> {
        let mut engine = self.engine.lock();
        let (id, from, to) = (draft.id, draft.from.clone(), draft.to.clone());
        if self.owes()
            && let Delivery::New(events) = engine.handle_draft(draft.clone(), unix_ms_now())?
        {
            self.pay_before(&mut engine, &events)?;
        }
        match engine.handle_draft(draft, unix_ms_now())? {
            Delivery::New(events) => {
                let mut events = events.into_iter();
                let event = events.next().ok_or(Error::ShuttingDown)?;
                let (mut flush, event) = self.write(&mut engine, event)?;
                for copy in events {
                    match self.write(&mut engine, copy) {
                        Ok((later, _)) => flush = later,
                        // The message itself is delivered.
                        Err(error) => tracing::warn!(%error, "no copy for the sender"),
                    }
                }
                message_of(event).map(|message| (message, Some(flush)))
            }
            Delivery::Known { session, place } => {
                let message = self.read_message(session, place)?;
                if !message.from.is_same(&from) || !was_meant(&message, &to) {
                    return Err(Error::IdTaken(id));
                }
                Ok((message, None))
            }
        }
    }

    /// The end of a request that was repeated: it may be settled already.
    fn reply_that_is_there(&self, request: &Message) -> Result<Option<Reply>, Error> {
        let engine = self.engine.lock();
        let place = engine.reply_to(request.id);
        let state = engine.request_state(request.id);
        drop(engine);
        if let Some((session, place)) = place {
            return self
                .read_message(session, place)
                .map(|reply| Some(Ok(reply)));
        }
        let ended = request.to.local_session();
        Ok(ended
            .filter(|_| state == Some(RequestState::Abandoned))
            .map(|session| Err(Error::SessionEnded(session))))
    }

    /// Replies as session `by`.
    pub(super) async fn answer(
        self: &Arc<Self>,
        reply: MessageId,
        request: &str,
        by: Option<SessionId>,
        body: String,
    ) -> Result<Message, Error> {
        self.check_open()?;
        let request: MessageId = request.parse()?;
        let (message, flush) = {
            let mut engine = self.engine.lock();
            if let Some((session, place)) = engine.reply_to(request)
                && by == Some(session)
                && engine.get(session)?.inbox.find(reply) == Some(place)
            {
                return self.read_message(session, place);
            }
            if self.owes() {
                let now = unix_ms_now();
                let events = engine.handle_reply(request, by, reply, body.clone(), now)?;
                self.pay_before(&mut engine, &events)?;
            }
            let events = engine.handle_reply(request, by, reply, body, unix_ms_now())?;
            let mut events = events.into_iter();
            let event = events.next().ok_or(Error::ShuttingDown)?;
            let replier = event.session;
            let (mut flush, event) = self.write(&mut engine, event)?;
            for copy in events {
                let asker = copy.session;
                match self.write(&mut engine, copy) {
                    Ok((later, _)) => flush = later,
                    Err(error) => {
                        tracing::warn!(%error, "a reply is not in the inbox yet");
                        let owed = Owed {
                            replier,
                            asker,
                            reply,
                        };
                        self.owe(vec![owed]);
                    }
                }
            }
            (message_of(event)?, flush)
        };
        self.flusher.acknowledge(flush).await;
        self.waiters.settle(request, || Ok(message.clone()));
        Ok(message)
    }

    /// The last messages of a session, oldest first.
    pub(super) fn inbox(&self, session: &SessionRef, tail: usize) -> Result<Vec<InboxItem>, Error> {
        let (id, places) = {
            let engine = self.engine.lock();
            let id = engine.resolve(session)?;
            (id, engine.get(id)?.inbox.tail(tail).to_vec())
        };
        let read = |place| self.read_event(id, place);
        let events: Vec<_> = places.into_iter().map(read).collect::<Result<_, _>>()?;
        events.into_iter().map(|event| self.item(event)).collect()
    }

    /// The messages of a session after a cursor, oldest first, at most `most`.
    pub(super) fn inbox_since(
        &self,
        session: &SessionRef,
        since: u64,
        most: usize,
    ) -> Result<Vec<InboxItem>, Error> {
        let (id, places) = {
            let engine = self.engine.lock();
            let id = engine.resolve(session)?;
            (id, engine.get(id)?.inbox.places().to_vec())
        };
        // They are in the order of their cursors.
        let mut failed = None;
        let first = places.partition_point(|place| match self.read_event(id, *place) {
            Ok(event) => event.cursor <= since,
            Err(error) => {
                failed = Some(error);
                true
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let wanted = places[first..].iter().take(most);
        wanted
            .map(|place| self.item(self.read_event(id, *place)?))
            .collect()
    }

    fn item(&self, event: Event) -> Result<InboxItem, Error> {
        let cursor = event.cursor;
        let message = message_of(event)?;
        let engine = self.engine.lock();
        let asked = message.kind == MessageKind::Request;
        let state = asked.then(|| engine.request_state(message.id)).flatten();
        let to = message.to.local_session();
        let progress = to.and_then(|to| engine.get(to).ok()?.inbox.progress(message.id));
        Ok(InboxItem {
            message,
            state,
            progress,
            cursor,
        })
    }

    /// The reply to a request to a session here, when it comes.
    pub(super) fn resume(&self, request: MessageId) -> Result<(Message, PendingReply), Error> {
        let early = self.waiters.add(request);
        let (session, place) = {
            let engine = self.engine.lock();
            let not_found = || Error::RequestNotFound(request.to_string());
            let to = engine.asked(request).ok_or_else(not_found)?;
            let place = engine.get(to)?.inbox.find(request).ok_or_else(not_found)?;
            (to, place)
        };
        let message = self.read_message(session, place)?;
        let reply = self.reply_that_is_there(&message)?;
        Ok((message, reply.map_or(early, PendingReply::settled)))
    }

    /// Puts a reply from another node into the inbox of who asked.
    pub(super) async fn receive_reply(
        &self,
        asker: SessionId,
        message: Message,
    ) -> Result<(), Error> {
        self.check_open()?;
        let flush = {
            let mut engine = self.engine.lock();
            self.pay(&mut engine, Some(asker))?;
            match engine.handle_foreign_reply(asker, message, unix_ms_now())? {
                Some(event) => self.write(&mut engine, event)?.0,
                None => return Ok(()),
            }
        };
        self.flusher.acknowledge(flush).await;
        Ok(())
    }

    /// Replies to other nodes, younger than `since_ms`.
    pub(super) fn foreign_replies(&self, since_ms: u64) -> Vec<Message> {
        let places: Vec<_> = {
            let engine = self.engine.lock();
            let place = |(session, reply)| {
                let session: SessionId = session;
                Some((session, engine.get(session).ok()?.inbox.find(reply)?))
            };
            engine.foreign_replies().filter_map(place).collect()
        };
        let read = |(session, place)| self.read_event(session, place).ok();
        let mut events: Vec<_> = places.into_iter().filter_map(read).collect();
        // As they were given, whatever the clock said.
        events.sort_by_key(|event| event.cursor);
        events
            .into_iter()
            .filter_map(|event| message_of(event).ok())
            .filter(|message| message.at_ms >= since_ms)
            .collect()
    }

    /// Takes note of replies that have to be written, and goes on trying.
    fn owe(self: &Arc<Self>, owed: Vec<Owed>) {
        if owed.is_empty() {
            return;
        }
        let mut all = self.owed.lock();
        let idle = all.is_empty();
        all.extend(owed);
        drop(all);
        if idle {
            self.runtime.spawn(pay_all(Arc::downgrade(self)));
        }
    }

    fn owes(&self) -> bool {
        !self.owed.lock().is_empty()
    }

    /// Writes what is owed to the sessions of events that are to come. These have
    /// numbers and times already and have to be made anew: what is written here
    /// comes before them.
    fn pay_before(&self, engine: &mut Engine, events: &[Event]) -> Result<(), Error> {
        events
            .iter()
            .try_for_each(|event| self.pay(engine, Some(event.session)))
    }

    /// Writes what is owed to a session, or to all, the oldest first. Nothing else
    /// may be said to a session before this is done.
    fn pay(&self, engine: &mut Engine, asker: Option<SessionId>) -> Result<(), Error> {
        let mut all = self.owed.lock();
        if all.is_empty() {
            return Ok(());
        }
        let mut failed = None;
        let mut kept = Vec::new();
        for owed in std::mem::take(&mut *all) {
            let is_due = asker.is_none_or(|asker| asker == owed.asker);
            let stuck = kept.iter().any(|other: &Owed| other.asker == owed.asker);
            if !is_due || stuck {
                kept.push(owed);
                continue;
            }
            match self.pay_one(engine, owed) {
                Ok(()) => {}
                // One of the two is no more: nobody is there to be owed anything.
                Err(Error::SessionNotFound(_) | Error::RequestNotFound(_)) => {}
                Err(error) => {
                    failed = Some(error);
                    kept.push(owed);
                }
            }
        }
        *all = kept;
        failed.map_or(Ok(()), Err)
    }

    fn pay_one(&self, engine: &mut Engine, owed: Owed) -> Result<(), Error> {
        if engine.get(owed.asker)?.inbox.find(owed.reply).is_some() {
            return Ok(());
        }
        let place = engine.get(owed.replier)?.inbox.find(owed.reply);
        let place = place.ok_or_else(|| Error::RequestNotFound(owed.reply.to_string()))?;
        let message = self.read_message(owed.replier, place)?;
        let kind = EventKind::Message(message);
        let event = engine.handle_happened(owed.asker, kind, unix_ms_now())?;
        self.write(engine, event).map(drop)
    }

    fn read_message(&self, session: SessionId, place: Place) -> Result<Message, Error> {
        message_of(self.read_event(session, place)?)
    }

    /// An event as it is on disk.
    pub(super) fn read_event(&self, session: SessionId, place: Place) -> Result<Event, Error> {
        let line = self.desk(session)?.journal.read(place)?;
        record::decode(session, &line)?
            .ok_or_else(|| Error::Protocol("an event has changed its type".into()))
    }
}

/// A new id.
pub(super) fn random_id(kind: MessageKind) -> Result<MessageId, Error> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| Error::io("random numbers", std::io::Error::other(error.to_string())))?;
    Ok(MessageId::new(kind, random))
}

/// Whether a message went to who is named now, or had the name then.
fn was_meant(message: &Message, to: &SessionRef) -> bool {
    let got = message.to.session.as_ref();
    got.is_some_and(|(id, name)| match to {
        SessionRef::Id(wanted) => id == wanted,
        SessionRef::Name(wanted) => name.as_ref() == Some(wanted),
    })
}

fn message_of(event: Event) -> Result<Message, Error> {
    match event.kind {
        EventKind::Message(message) => Ok(message),
        _ => Err(Error::Protocol("an event is no message".into())),
    }
}

/// Tries until nothing is owed.
async fn pay_all(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(RETRY).await;
        let Some(inner) = inner.upgrade() else { return };
        let mut engine = inner.engine.lock();
        if inner.pay(&mut engine, None).is_ok() {
            return;
        }
    }
}

/// Writes what a crash has kept from being written: see
/// [`missing_replies`](crate::engine::Engine::missing_replies).
pub(super) fn repair_replies(inner: &Arc<Inner>) {
    let mut engine = inner.engine.lock();
    let owed = engine.missing_replies().into_iter();
    let owed = owed.map(|(replier, asker, reply)| Owed {
        replier,
        asker,
        reply,
    });
    inner.owe(owed.collect());
    if let Err(error) = inner.pay(&mut engine, None) {
        tracing::error!(%error, "a reply is not in the inbox yet");
    }
}
