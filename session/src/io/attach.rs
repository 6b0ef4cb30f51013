//! Clients at the terminal.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::desk::Desk;
use super::inner::Inner;
use super::{Chunk, From, Reader};
use crate::{Error, EventKind, SessionId};

/// Bytes of output shown to a client that comes: some screens full. To be
/// replaced by the screen as it is.
const REPAINT: u64 = 64 * 1024;

/// One client at a session's terminal. Dropping it detaches.
#[derive(Debug)]
pub struct Attachment {
    /// What to write to the client's terminal first: at present the end of the
    /// output, from the beginning of a line.
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
        let (desk, _) = inner.terminal(id)?;
        let mut reader = desk.log.reader(From::End)?;
        let end = reader.offset();
        let repaint = tail(&desk, end)?;
        // Whatever came meanwhile is still before the reader.
        if repaint.end > end {
            reader = desk.log.reader(From::Offset(repaint.end))?;
        }
        let client = inner.clients.fetch_add(1, Ordering::Relaxed) + 1;
        desk.attached.fetch_add(1, Ordering::Relaxed);
        let presence = Presence {
            inner: Arc::clone(inner),
            desk,
            client,
        };
        inner.note(id, EventKind::Attached { client });
        Ok(Self {
            repaint: repaint.bytes,
            reader,
            _presence: presence,
        })
    }
}

struct Tail {
    bytes: Bytes,
    end: u64,
}

/// The end of the output from the start of a line.
fn tail(desk: &Desk, end: u64) -> Result<Tail, Error> {
    let start = end.saturating_sub(REPAINT);
    let mut reader = desk.log.reader(From::Offset(start))?;
    let mut bytes = Vec::new();
    while reader.offset() < end {
        match reader.try_next()? {
            Some(Chunk::Bytes { bytes: more, .. }) => bytes.extend_from_slice(&more),
            Some(Chunk::Gap { .. }) => bytes.clear(),
            Some(Chunk::End { .. }) | None => break,
        }
    }
    let cut = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(feed) if start > 0 => feed + 1,
        _ => 0,
    };
    Ok(Tail {
        bytes: Bytes::from(bytes).slice(cut..),
        end: reader.offset(),
    })
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.desk.attached.fetch_sub(1, Ordering::Relaxed);
        let client = self.client;
        self.inner
            .note(self.desk.id, EventKind::Detached { client });
    }
}
