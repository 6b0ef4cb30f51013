//! Clients at the terminal.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::desk::Desk;
use super::inner::Inner;
use super::{From, Reader};
use crate::{Error, EventKind, SessionId};

/// One client at a session's terminal. Dropping it detaches.
#[derive(Debug)]
pub struct Attachment {
    /// What to write to the client's terminal first: it then shows what the
    /// session shows, with some lines above, and what it showed before is above
    /// those.
    pub repaint: Bytes,
    /// The output that follows, without a seam.
    pub reader: Reader,
    _presence: Presence,
}

/// A client counts while this lives.
#[derive(Debug)]
struct Presence {
    inner: Arc<Inner>,
    desk: Arc<Desk>,
    client: u64,
}

impl Attachment {
    pub(super) fn new(inner: &Arc<Inner>, id: SessionId) -> Result<Self, Error> {
        let (desk, terminal) = inner.terminal(id)?;
        let (repaint, offset, answers) = desk.screen.attach()?;
        let reader = desk.log.reader(From::Offset(offset))?;
        let client = inner.clients.fetch_add(1, Ordering::Relaxed) + 1;
        let others = desk.attached.fetch_add(1, Ordering::Relaxed);
        if others == 0 && !answers.is_empty() {
            // Asked before anybody was there.
            inner
                .runtime
                .spawn(async move { terminal.input(answers.into()).await });
        }
        let presence = Presence {
            inner: Arc::clone(inner),
            desk,
            client,
        };
        inner.note(id, EventKind::Attached { client });
        Ok(Self {
            repaint,
            reader,
            _presence: presence,
        })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if self.desk.attached.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.desk.screen.handle_alone();
        }
        let client = self.client;
        self.inner
            .note(self.desk.id, EventKind::Detached { client });
    }
}
