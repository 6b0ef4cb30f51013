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

use super::Batch;
use super::port::{Socket, Source, any, open, receive};

#[derive(Debug)]
pub(super) struct Connected {
    io: AsyncFd<UdpSocket>,
    state: UdpSocketState,
    to: SocketAddr,
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
        let owner = SockRef::from(&own.io);
        // Only for the moment: nobody else is to share the port by accident.
        owner.set_reuse_port(true)?;
        let opened = open(any(&to, own.port), true);
        owner.set_reuse_port(false)?;
        let (socket, state) = opened?;
        socket.connect(to)?;
        Ok(Self {
            io: watch(socket)?,
            state,
            to,
            mark: AtomicU8::new(0),
        })
    }

    /// Sends datagrams, and says in how many calls.
    ///
    /// # Errors
    ///
    /// The system's, with what it has heard of earlier datagrams; then nothing was
    /// sent.
    pub(super) fn send(&self, batch: &Batch<'_>) -> io::Result<u64> {
        let &Batch { bytes, stride, .. } = batch;
        if bytes.len() > stride && batch.whole && self.state.max_gso_segments() > 1 {
            let transmit = Transmit {
                destination: self.to,
                ecn: batch.ecn,
                contents: bytes,
                segment_size: Some(stride),
                src_ip: None,
            };
            let sent = self.state.try_send(self.io.get_ref().into(), &transmit);
            return sent.map(|()| 1);
        }
        self.set_mark(batch.ecn)?;
        let mut calls = 0;
        for datagram in bytes.chunks(stride) {
            match self.io.get_ref().send(datagram) {
                // The rest is lost; saying so would repeat the first.
                Err(_) if calls > 0 => break,
                result => result?,
            };
            calls += 1;
        }
        Ok(calls)
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
