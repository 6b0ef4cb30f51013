//! Requests and what became of them.
//!
//! A request is pending while the log of the session it was addressed to has
//! the request and no reply. Only that session may reply, and only once.

use std::collections::HashMap;

use crate::{Error, Message, MessageId, Party, RequestState, SessionId};

/// One request to a session of this node.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Who was asked, and alone may reply.
    pub to: SessionId,
    /// Who asked.
    pub from: Party,
    /// The reply, if there is one.
    pub reply: Option<MessageId>,
    /// Who was asked has ended without a reply.
    pub abandoned: bool,
}

/// All requests to sessions of this node.
#[derive(Clone, Debug, Default)]
pub struct Asks {
    by_id: HashMap<MessageId, Ask>,
}

impl Asks {
    /// Whether `by` may reply to `request` now.
    ///
    /// # Errors
    /// [`Error::RequestNotFound`] when it does not wait for a reply (any more);
    /// [`Error::NotAddressee`].
    pub fn check_reply(&self, request: MessageId, by: Option<SessionId>) -> Result<&Ask, Error> {
        let not_found = || Error::RequestNotFound(request.to_string());
        let ask = self.by_id.get(&request).ok_or_else(not_found)?;
        if self.state(request) != Some(RequestState::Pending) {
            return Err(not_found());
        }
        if by != Some(ask.to) {
            let session = ask.to;
            return Err(Error::NotAddressee { request, session });
        }
        Ok(ask)
    }

    /// Takes note of a message in the log of `owner`.
    pub fn note(&mut self, owner: SessionId, message: &Message) {
        if message.is_for(owner) && message.kind == crate::MessageKind::Request {
            self.by_id.entry(message.id).or_insert_with(|| Ask {
                to: owner,
                from: message.from.clone(),
                reply: None,
                abandoned: false,
            });
        }
        if message.kind == crate::MessageKind::Reply
            && let Some(request) = message.request_id
            && let Some(ask) = self.by_id.get_mut(&request)
            && ask.to == owner
        {
            ask.reply.get_or_insert(message.id);
        }
    }

    /// A session has ended: what it was asked is not answered any more. Returns
    /// the requests that this concerns.
    pub fn abandon(&mut self, session: SessionId) -> Vec<MessageId> {
        let mut abandoned = Vec::new();
        for (id, ask) in &mut self.by_id {
            if ask.to == session && ask.reply.is_none() && !ask.abandoned {
                ask.abandoned = true;
                abandoned.push(*id);
            }
        }
        abandoned
    }

    /// A session is no more, nor is what it was asked.
    pub fn forget(&mut self, session: SessionId) {
        self.by_id.retain(|_, ask| ask.to != session);
    }

    /// What became of a request; `None` when it was not to a session here.
    #[must_use]
    pub fn state(&self, request: MessageId) -> Option<RequestState> {
        let ask = self.by_id.get(&request)?;
        Some(match (ask.reply, ask.abandoned) {
            (Some(_), _) => RequestState::Answered,
            (None, true) => RequestState::Abandoned,
            (None, false) => RequestState::Pending,
        })
    }

    /// A request, if it was to a session here.
    #[must_use]
    pub fn get(&self, request: MessageId) -> Option<&Ask> {
        self.by_id.get(&request)
    }

    /// Every request that has a reply.
    pub fn answered(&self) -> impl Iterator<Item = (&Ask, MessageId)> {
        self.by_id
            .values()
            .filter_map(|ask| Some((ask, ask.reply?)))
    }
}
