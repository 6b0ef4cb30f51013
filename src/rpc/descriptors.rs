//! Descriptors that travel with frames on the Unix socket.
//!
//! They ride as `SCM_RIGHTS` on the first byte of the frame that speaks of them. Whatever comes
//! unasked is closed: no client can make a node hold more than three of them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;

/// Most descriptors that wait to be asked for, and that go with one frame: a terminal's two
/// directions, and how far it has got.
pub(super) const MOST: usize = 3;

/// What has come and is not asked for yet.
pub(super) type Arrived = Arc<Mutex<Vec<OwnedFd>>>;

/// Reads a Unix socket, and sets aside the descriptors that come with the bytes.
pub(super) struct Reader {
    stream: OwnedReadHalf,
    arrived: Arrived,
}

impl Reader {
    pub(super) fn new(stream: OwnedReadHalf) -> (Self, Arrived) {
        let arrived = Arrived::default();
        let reader = Self {
            stream,
            arrived: Arc::clone(&arrived),
        };
        (reader, arrived)
    }

    fn receive(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slice = [IoSliceMut::new(bytes)];
        let received = recvmsg(
            self.stream.as_ref(),
            &mut slice,
            &mut control,
            receive_flags(),
        )?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                let mut arrived = self.arrived.lock();
                for fd in fds {
                    close_on_exec(&fd)?;
                    if arrived.len() < MOST {
                        arrived.push(fd);
                    }
                }
            }
        }
        Ok(received.bytes)
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let stream = self.stream.as_ref();
            ready!(stream.poll_read_ready(context))?;
            let space = buffer.initialize_unfilled();
            match stream.try_io(Interest::READABLE, || self.receive(space)) {
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Sends a short frame with descriptors. It goes out whole or not at all.
///
/// # Errors
///
/// `WouldBlock` when the socket has no room, and what the system says.
pub(super) fn send(stream: &UnixStream, frame: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let slice = [IoSlice::new(frame)];
    let sent = sendmsg(stream.as_fd(), &slice, &mut control, SendFlags::empty())?;
    if sent < frame.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn receive_flags() -> RecvFlags {
    RecvFlags::CMSG_CLOEXEC
}

#[cfg(not(target_os = "linux"))]
fn receive_flags() -> RecvFlags {
    RecvFlags::empty()
}

/// Where the flag above does not exist, there is a moment in which a process started by another
/// thread inherits the descriptor.
fn close_on_exec(fd: &OwnedFd) -> io::Result<()> {
    if cfg!(not(target_os = "linux")) {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    }
    Ok(())
}
