//! Clients at the terminal.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::desk::Desk;
use super::inner::Inner;
use super::{From, Reader, unix_ms_now};
use crate::{Error, EventKind, SessionId, Size};

/// A client that is so many bytes behind is better served by what the screen
/// shows now: at 2 MB/s it would look at the past for two seconds. On a busy
/// machine even a fast one is, when a program prints tens of megabytes; its
/// program is not slowed down for it.
const FAR_BEHIND: u64 = 4 * 1024 * 1024;

/// Undoes what a program may have done to a client's terminal, without touching
/// what is above the screen: alternate screen, mouse, focus, paste, keyboard
/// (kitty, modifyOtherKeys), keypad, cursor, colours, and the soft reset.
const UNDO: &[u8] = b"\x1b[?1049l\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l\
    \x1b[?1006l\x1b[?1015l\x1b[?2004l\x1b[?2026l\x1b[?5l\x1b[=0u\x1b[>4;0m\x1b>\x1b[0 q\
    \x1b]104\x1b\\\x1b]110\x1b\\\x1b]111\x1b\\\x1b]112\x1b\\\x1b[!p\x1b[?7h\x1b[?25h";

/// How a client comes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct How {
    /// It only watches: it cannot type, and its size does not matter.
    pub read_only: bool,
    /// The size of its window, if it wants the terminal to have that.
    pub size: Option<Size>,
}

/// One client at a session's terminal. Dropping it and its [`Seat`] detaches.
#[derive(Debug)]
pub struct Attachment {
    /// What to write to the client's terminal first: it then shows what the
    /// session shows, with some lines above, and what it showed before is above
    /// those.
    pub repaint: Bytes,
    /// The output that follows, without a seam. It stays in the log until it is
    /// asked for: a client that does not read costs no memory.
    pub reader: Reader,
    /// Where the client types.
    pub seat: Seat,
}

/// A place at a terminal, to type and to say one's size. Clones are the same
/// place; the client is there as long as one of them is.
#[derive(Clone, Debug)]
pub struct Seat {
    presence: Arc<Presence>,
}

/// What to write to the terminal of a client that was far behind.
#[derive(Clone, Debug, PartialEq)]
pub struct CatchUp {
    /// Brings it to what the session shows now.
    pub repaint: Bytes,
    /// The first byte of output that it was not sent.
    pub from: u64,
    /// Where its output goes on.
    pub to: u64,
}

/// A client counts while this lives.
#[derive(Debug)]
struct Presence {
    inner: Arc<Inner>,
    desk: Arc<Desk>,
    client: u64,
    read_only: bool,
}

impl Attachment {
    pub(super) fn new(inner: &Arc<Inner>, id: SessionId, how: How) -> Result<Self, Error> {
        let (desk, terminal) = inner.terminal(id)?;
        let client = inner.clients.fetch_add(1, Ordering::Relaxed) + 1;
        let others = desk.attached.fetch_add(1, Ordering::Relaxed);
        let seat = Seat {
            presence: Arc::new(Presence {
                inner: Arc::clone(inner),
                desk: Arc::clone(&desk),
                client,
                read_only: how.read_only,
            }),
        };
        inner.note(id, EventKind::Attached { client });
        if !how.read_only {
            // Before it is painted. A terminal that cannot be resized is one
            // that ends.
            let _ = desk.seated(|seats| seats.handle_come(client, how.size));
        }
        let (repaint, offset, answers) = desk.screen.attach()?;
        let reader = desk.log.reader(From::Offset(offset))?;
        if others == 0 && !answers.is_empty() {
            // Asked before anybody was there.
            inner
                .runtime
                .spawn(async move { terminal.input(answers.into()).await });
        }
        Ok(Self {
            repaint,
            reader,
            seat,
        })
    }

    /// Whether the client is so far behind that it is better repainted. If so,
    /// skips what it missed: its reader goes on at [`CatchUp::to`]. To be asked
    /// when the client has taken what it was sent.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::ShuttingDown`].
    pub async fn catch_up(&mut self) -> Result<Option<CatchUp>, Error> {
        let desk = &self.seat.presence.desk;
        let from = self.reader.offset();
        let behind = desk.log.state().end.saturating_sub(from);
        if behind <= FAR_BEHIND || desk.terminal().is_none() {
            return Ok(None);
        }
        let painter = Arc::clone(desk);
        let painted = tokio::task::spawn_blocking(move || painter.screen.attach());
        let (repaint, to, _) = match painted.await.map_err(|_| Error::ShuttingDown)? {
            Ok(painted) => painted,
            // It has ended meanwhile; its last words are in the log.
            Err(Error::SessionEnded(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        self.reader = desk.log.reader(From::Offset(to))?;
        let gap = gap(to.saturating_sub(from));
        let repaint = [UNDO, gap.as_bytes(), &repaint].concat().into();
        Ok(Some(CatchUp { repaint, from, to }))
    }
}

/// Says under what the terminal shows, with which it goes up, that something is missing there.
fn gap(bytes: u64) -> String {
    let mib = bytes.div_ceil(1024 * 1024);
    format!("\x1b[999;1H\r\n[cw] {mib} MiB of output are only in the log\r\n")
}

impl Seat {
    /// The number of the client, as in its events; unique in one life of the
    /// node.
    #[must_use]
    pub fn client(&self) -> u64 {
        self.presence.client
    }

    /// Whether the terminal has the size of this client.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.presence.desk.leader() == Some(self.client())
    }

    /// The client's window has this size. The terminal gets it if this client
    /// leads: if it typed last, or nobody has and it was here first.
    ///
    /// # Errors
    /// [`Error::SessionNotRunning`], [`Error::Io`].
    pub fn propose(&self, size: Size) -> Result<(), Error> {
        let client = self.client();
        let desk = &self.presence.desk;
        desk.seated(|seats| seats.handle_size(client, size))
    }

    /// Types, and thereby leads. Otherwise as
    /// [`Sessions::input`](super::Sessions::input).
    ///
    /// # Errors
    /// [`Error::Protocol`] for who only watches; [`Error::SessionNotRunning`];
    /// [`Error::SessionEnded`] when it ends while waiting.
    pub async fn input(&self, bytes: Bytes) -> Result<usize, Error> {
        let Presence {
            inner,
            desk,
            client,
            read_only,
        } = &*self.presence;
        if *read_only {
            return Err(Error::Protocol("this client only watches".into()));
        }
        desk.seated(|seats| seats.handle_typed(*client))?;
        let terminal = desk.terminal().ok_or(Error::SessionNotRunning(desk.id))?;
        let len = bytes.len();
        terminal.input(bytes).await?;
        if let Some(bytes) = desk.tally(len as u64, unix_ms_now()) {
            let source = "input".to_owned();
            inner.note(desk.id, EventKind::Input { source, bytes });
        }
        Ok(len)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        if self.desk.attached.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.desk.screen.handle_alone();
        }
        let client = self.client;
        // Of a session that has ended nothing follows.
        let _ = self.desk.seated(|seats| seats.handle_leave(client));
        self.inner
            .note(self.desk.id, EventKind::Detached { client });
    }
}
