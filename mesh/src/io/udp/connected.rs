//! One more socket at the port of another, connected to one address.
//!
//! It is registered for reading alone. Else the system would wake us each time
//! that a datagram of ours has left, to say that there is room for another; what
//! finds no room goes by the socket that is not connected, and waits there.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll};

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;

use super::Batch;
use super::port::{Socket, Source, any, open, receive};

/// What became of datagrams.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// How many bytes of them the system has taken.
    pub(super) bytes: usize,
    pub(super) calls: u64,
}

#[derive(Debug)]
pub(super) struct Connected {
    io: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    to: SocketAddr,
    /// The system segments for the other socket.
    segments: bool,
    /// The ECN mark of what is sent without saying one.
    mark: AtomicU8,
}

impl Connected {
    /// Connects a socket at the port of `own`. Not for two callers at once.
    ///
    /// # Errors
    ///
    /// The system's, also where it does not let two sockets share a port.
    pub(super) fn new(own: &Socket, to: SocketAddr) -> io::Result<Self> {
        // tokio would panic.
        Handle::try_current().map_err(io::Error::other)?;
        let owner = SockRef::from(&own.io);
        // Only for the moment. Who shares a port must be of the same user, and ask for it.
        owner.set_reuse_port(true)?;
        let opened = open(any(&to, own.port), true);
        owner.set_reuse_port(false)?;
        let (socket, state) = opened?;
        socket.connect(to)?;
        Ok(Self {
            io: watch(socket)?,
            state,
            to,
            segments: own.segments(),
            mark: AtomicU8::new(0),
        })
    }

    /// Sends datagrams, or as many of them as it can. Not for two callers at once.
    ///
    /// # Errors
    ///
    /// Why not all were sent: the system's, of these or of earlier datagrams.
    pub(super) fn send(&self, batch: &Batch<'_>, sent: &mut Sent) -> io::Result<()> {
        let &Batch { bytes, stride, .. } = batch;
        if bytes.len() > stride && batch.whole && self.segments {
            let transmit = Transmit {
                destination: self.to,
                ecn: batch.ecn,
                contents: bytes,
                segment_size: Some(stride),
                src_ip: None,
            };
            self.state.try_send(self.io.get_ref().into(), &transmit)?;
            (sent.bytes, sent.calls) = (bytes.len(), 1);
            return Ok(());
        }
        self.set_mark(batch.ecn)?;
        for datagram in bytes.chunks(stride) {
            self.io.get_ref().send(datagram)?;
            sent.bytes += datagram.len();
            sent.calls += 1;
        }
        Ok(())
    }

    fn set_mark(&self, ecn: Option<EcnCodepoint>) -> io::Result<()> {
        let mark = ecn.map_or(0, |ecn| ecn as u8);
        if self.mark.swap(mark, Relaxed) == mark {
            return Ok(());
        }
        let socket = SockRef::from(self.io.get_ref());
        match self.to {
            SocketAddr::V4(_) => socket.set_tos_v4(mark.into()),
            SocketAddr::V6(_) => socket.set_tclass_v6(mark.into()),
        }
    }
}

#[expect(unsafe_code, reason = "tokio registers descriptors unchecked")]
fn watch(socket: UdpSocket) -> io::Result<AsyncFd<UdpSocket>> {
    // SAFETY: the socket owns its descriptor, and nobody replaces it.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}

impl Source for Connected {
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_read_ready(cx).map_ok(drop)
    }

    fn recv(&self, store: &mut [u8], metas: &mut [RecvMeta]) -> Option<usize> {
        receive(&self.state, store, metas, |read| {
            self.io
                .try_io(Interest::READABLE, |socket| read(socket.into()))
        })
    }
}
