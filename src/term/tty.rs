//! The user's keyboard and screen, read and written on the thread that waits for them.
//!
//! Each key and each answer to it would otherwise go through a thread of its own, which costs more
//! than all the rest of their way. The descriptors stay blocking, for they are shared with the
//! shell and whoever else was started there; we ask the system before each step whether it can be
//! done at once. What cannot be waited for in this way, a file or an odd system's terminal, is
//! read and written by tokio's threads.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};

/// Written in one step. Whatever says that it can be written to takes this much from a pipe, and
/// from a terminal without waiting for long.
const PIECE: usize = 4096;

/// Standard input.
pub struct Keyboard {
    ready: Option<AsyncFd<io::Stdin>>,
    otherwise: tokio::io::Stdin,
}

/// Standard output.
pub struct Screen {
    ready: Option<AsyncFd<io::Stdout>>,
    otherwise: tokio::io::Stdout,
}

impl Keyboard {
    /// Within a runtime.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ready: watch(io::stdin(), Interest::READABLE),
            otherwise: tokio::io::stdin(),
        }
    }

    /// What has been typed; nothing at the end. May be cancelled.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(input) = &self.ready else {
            return self.otherwise.read(buffer).await;
        };
        loop {
            let mut ready = input.readable().await?;
            if can(input.get_ref().as_fd(), PollFlags::IN)? {
                match rustix::io::read(input.get_ref(), &mut *buffer) {
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                    read => return Ok(read?),
                }
            } else {
                ready.clear_ready();
            }
        }
    }
}

impl Default for Keyboard {
    fn default() -> Self {
        Self::new()
    }
}

impl Screen {
    /// Within a runtime.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ready: watch(io::stdout(), Interest::WRITABLE),
            otherwise: tokio::io::stdout(),
        }
    }

    /// Shows bytes, all of them when this returns. Others have their turn while the terminal
    /// takes no more.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn show(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(output) = &self.ready else {
            self.otherwise.write_all(bytes).await?;
            return self.otherwise.flush().await;
        };
        while !bytes.is_empty() {
            let mut ready = output.writable().await?;
            if can(output.get_ref().as_fd(), PollFlags::OUT)? {
                let piece = &bytes[..bytes.len().min(PIECE)];
                match rustix::io::write(output.get_ref(), piece) {
                    Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                    written => bytes = &bytes[written?..],
                }
            } else {
                ready.clear_ready();
            }
        }
        Ok(())
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits on it, if the system can do that.
#[expect(
    unsafe_code,
    reason = "the descriptor must stay open while it is watched"
)]
fn watch<T: AsRawFd>(stream: T, interest: Interest) -> Option<AsyncFd<T>> {
    // SAFETY: standard input and output, which are all this is called with, are never closed.
    unsafe { AsyncFd::register_with_interest(stream, interest) }.ok()
}

/// Whether the next step is done at once, if only because it fails.
fn can(fd: BorrowedFd<'_>, what: PollFlags) -> io::Result<bool> {
    let now = Timespec::try_from(Duration::ZERO).map_err(io::Error::other)?;
    Ok(poll(&mut [PollFd::new(&fd, what)], Some(&now))? > 0)
}
