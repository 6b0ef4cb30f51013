//! The live side of a session: its terminal, what is typed into it, and the
//! news that its program has ended.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::keeper::fds::Fds;
use super::{front, platform};
use crate::typing::Manner;
use crate::{Ended, Error, SessionId, Size};

/// Bytes typed but not yet taken by the terminal; then whoever types waits. A
/// pasted file fits; a program that does not read costs no more than this.
pub(super) const QUEUE: usize = 1024 * 1024;

/// Bytes that enter the queue at once.
const PIECE: usize = 64 * 1024;

/// How long to wait before trying a terminal again that nobody has open.
const CLOSED: Duration = Duration::from_millis(200);

/// The terminal of a live session.
#[derive(Debug)]
pub(super) struct Terminal {
    id: SessionId,
    pid: u32,
    fds: Fds,
    master: AsyncFd<Arc<OwnedFd>>,
    exit: watch::Sender<Option<Ended>>,
    room: Arc<Semaphore>,
    queue: mpsc::UnboundedSender<Piece>,
    /// Makes a long input arrive in one piece.
    turn: tokio::sync::Mutex<()>,
    /// Output is on its way to the log.
    moving: AtomicBool,
}

type Piece = (Bytes, OwnedSemaphorePermit);

/// Who holds it types alone.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    terminal: &'a Terminal,
    _alone: tokio::sync::MutexGuard<'a, ()>,
}

impl Turn<'_> {
    /// Puts bytes into the queue, waiting for room.
    pub(super) async fn input(&self, bytes: Bytes) -> Result<(), Error> {
        self.terminal.enqueue(bytes).await
    }
}

/// What is to be typed, in order.
pub(super) type Typed = mpsc::UnboundedReceiver<Piece>;

impl Terminal {
    /// Takes the descriptors of a session. Within the runtime that shall move
    /// its bytes.
    pub(super) fn new(id: SessionId, pid: u32, fds: Fds) -> Result<(Arc<Self>, Typed), Error> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let master = platform::await_on(&fds.master, interest)
            .map_err(|error| Error::io("wait for a terminal", error))?;
        let (queue, typed) = mpsc::unbounded_channel();
        let terminal = Self {
            id,
            pid,
            fds,
            master,
            exit: watch::Sender::new(None),
            room: Arc::new(Semaphore::new(QUEUE)),
            queue,
            turn: tokio::sync::Mutex::new(()),
            moving: AtomicBool::new(false),
        };
        Ok((Arc::new(terminal), typed))
    }

    pub(super) const fn id(&self) -> SessionId {
        self.id
    }

    /// The process that leads the session.
    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) const fn fds(&self) -> &Fds {
        &self.fds
    }

    /// The program has ended. The first news counts.
    pub(super) fn handle_exit(&self, ended: Ended) {
        self.exit.send_if_modified(|exit| {
            let first = exit.is_none();
            exit.get_or_insert(ended);
            first
        });
    }

    /// How the program ended, once it has.
    pub(super) fn exit(&self) -> watch::Receiver<Option<Ended>> {
        self.exit.subscribe()
    }

    /// Waits until there may be something to read.
    pub(super) async fn readable(&self) -> Result<(), Error> {
        let ready = self.master.readable().await;
        // Stays ready until a read says otherwise.
        ready
            .map(|_| ())
            .map_err(|error| Error::io("wait for a terminal", error))
    }

    /// Reads by `read` if we were told that there is something, or `at_once`.
    /// When there is nothing, [`Terminal::readable`] waits.
    pub(super) fn try_read(
        &self,
        at_once: bool,
        mut read: impl FnMut() -> io::Result<usize>,
    ) -> io::Result<usize> {
        if at_once {
            match read() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
        self.master.try_io(Interest::READABLE, |_| read())
    }

    /// Changes the size; the program is told by SIGWINCH.
    pub(super) fn resize(&self, size: Size) -> Result<(), Error> {
        let size = size.at_least_one();
        let winsize = rustix::termios::Winsize {
            ws_row: size.rows,
            ws_col: size.cols,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        rustix::termios::tcsetwinsize(&self.fds.master, winsize)
            .map_err(|errno| Error::io("resize the terminal", errno.into()))
    }

    /// Puts bytes into the queue, waiting for room. With nothing before them
    /// they are typed at once, as far as the terminal takes them: a key then
    /// does not wait for another thread.
    pub(super) async fn input(&self, bytes: Bytes) -> Result<(), Error> {
        self.turn().await.input(bytes).await
    }

    /// Waits until nobody else types; nobody else does while it is held.
    pub(super) async fn turn(&self) -> Turn<'_> {
        Turn {
            terminal: self,
            _alone: self.turn.lock().await,
        }
    }

    /// Bytes that were typed and that the program has not read, as far as the
    /// system tells; 0 when all is read.
    pub(super) fn unread(&self) -> u64 {
        let queued = QUEUE.saturating_sub(self.room.available_permits());
        queued as u64 + front::unread(&self.fds.master).unwrap_or(0)
    }

    /// Output is being moved to the log, or has been.
    pub(super) fn set_moving(&self, moving: bool) {
        self.moving.store(moving, Ordering::SeqCst);
    }

    /// Whether the program has written something that is not in the log yet: it
    /// is in the terminal, waits for the disk, or is between the two.
    pub(super) fn has_output(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let ends = [&self.fds.master, &self.fds.pipe_r];
        let mut ends = ends.map(|end| PollFd::new(end, PollFlags::IN));
        let ready = poll(&mut ends, Some(&Timespec::default()));
        let has_some = |end: &PollFd<'_>| end.revents().contains(PollFlags::IN);
        // Asked last: whoever moves says so before taking anything.
        ready.is_ok() && ends.iter().any(has_some) || self.moving.load(Ordering::SeqCst)
    }

    /// How the program reads.
    pub(super) fn manner(&self) -> Result<Manner, Error> {
        use rustix::termios::{LocalModes, tcgetattr};
        let state = tcgetattr(&self.fds.master)
            .map_err(|errno| Error::io("ask the terminal", errno.into()))?;
        Ok(Manner {
            lines: state.local_modes.contains(LocalModes::ICANON),
            echo: state.local_modes.contains(LocalModes::ECHO),
        })
    }

    /// The name of the program that has the terminal, if that can be told.
    pub(super) fn front(&self) -> Option<String> {
        front::front(&self.fds.master)
    }

    async fn enqueue(&self, mut bytes: Bytes) -> Result<(), Error> {
        let ended = || Error::SessionEnded(self.id);
        // All of the queue is free only when its last piece has been typed.
        if !self.room.is_closed() && self.room.available_permits() == QUEUE {
            // It does not block. What fails here, fails again below.
            let written = rustix::io::write(&self.fds.master, &bytes).unwrap_or(0);
            bytes.advance(written);
        }
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            let len = u32::try_from(piece.len()).expect("a piece is small");
            let room = Arc::clone(&self.room);
            let permit = room.acquire_many_owned(len).await.map_err(|_| ended())?;
            self.queue.send((piece, permit)).map_err(|_| ended())?;
        }
        Ok(())
    }

    /// Puts the input of a launch into the queue, where nothing is yet.
    pub(super) fn first_input(&self, mut bytes: Bytes) -> Result<(), Error> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            let len = u32::try_from(piece.len()).expect("a piece is small");
            let permit = Arc::clone(&self.room)
                .try_acquire_many_owned(len)
                .map_err(|_| Error::CommandInvalid("more than 1 MiB of input at the start"))?;
            // The receiver is there until the session has ended.
            let _ = self.queue.send((piece, permit));
        }
        Ok(())
    }

    /// Types what is in the queue until the program has ended; whoever waits
    /// for room then hears that.
    pub(super) async fn type_all(self: Arc<Self>, mut typed: Typed) {
        let mut exit = self.exit();
        let typing = async {
            while let Some((bytes, _room)) = typed.recv().await {
                self.type_one(&bytes).await;
            }
        };
        tokio::select! {
            () = typing => {}
            _ = exit.wait_for(Option::is_some) => {}
        }
        self.room.close();
    }

    async fn type_one(&self, mut bytes: &[u8]) {
        let mut failures = 0_u32;
        while !bytes.is_empty() {
            // A terminal that has hung up is called ready for ever.
            if failures > 1 {
                tokio::time::sleep(CLOSED).await;
            }
            let Ok(mut ready) = self.master.writable().await else {
                return;
            };
            match ready.try_io(|master| Ok(rustix::io::write(master.get_ref(), bytes)?)) {
                Ok(Ok(written)) => {
                    bytes = &bytes[written..];
                    failures = 0;
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, session = %self.id, "nobody reads the terminal");
                    failures += 2;
                }
                Err(_would_block) => failures = failures.saturating_add(1),
            }
        }
    }
}
