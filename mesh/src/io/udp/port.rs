//! One UDP socket, and the port that it is bound to.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};

use quinn::udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::Batch;

/// Enough for some 10 ms of a fast link; the system may grant less.
const BUFFER_LEN: usize = 4 << 20;

/// A batch of datagrams, as GRO makes it, is no longer.
pub(in crate::io) const SLOT: usize = 65_536;
/// Batches read in one call, where the system has a call for several.
pub(in crate::io) const BATCH: usize = if BATCH_SIZE < 8 { BATCH_SIZE } else { 8 };
/// Who gets fewer has got all. Elsewhere a call may read a single batch.
const READS_ALL: bool = cfg!(any(target_os = "linux", target_os = "android"));

#[derive(Debug)]
pub(in crate::io) struct Socket {
    pub(in crate::io) io: UdpSocket,
    pub(super) port: u16,
    state: UdpSocketState,
}

/// A socket that can be read.
pub(super) trait Source {
    /// Waits until there may be something to be read.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads what is there, if anything is: each batch of datagrams into a slot of
    /// [`SLOT`] bytes of the store.
    fn recv(&self, store: &mut [u8], metas: &mut [RecvMeta]) -> Option<usize>;
}

/// Every address of a family.
pub(super) const fn any(family_of: &SocketAddr, port: u16) -> SocketAddr {
    match family_of {
        SocketAddr::V4(_) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
        SocketAddr::V6(_) => SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port),
    }
}

impl Socket {
    /// One more port, for the family of an address.
    pub(in crate::io) fn beside(to: &SocketAddr) -> io::Result<Self> {
        Self::bind(any(to, 0))
    }

    /// Sends datagrams, in one call if that is wanted and possible. Returns how many calls it
    /// took.
    pub(super) fn send_batch(&self, to: SocketAddr, batch: &Batch<'_>) -> io::Result<u64> {
        let &Batch {
            bytes,
            stride,
            ecn,
            whole,
        } = batch;
        if bytes.len() <= stride {
            return self.send(to, bytes, None, ecn).map(|()| 1);
        }
        if whole && self.segments() {
            match self.send(to, bytes, Some(stride), ecn) {
                // The system refused to segment; quinn-udp has noted it.
                Ok(()) if !self.segments() => {}
                result => return result.map(|()| 1),
            }
        }
        let mut calls = 0;
        for datagram in bytes.chunks(stride) {
            match self.send(to, datagram, None, ecn) {
                // The rest is lost; saying "blocked" would repeat the first.
                Err(_) if calls > 0 => break,
                result => result?,
            }
            calls += 1;
        }
        Ok(calls)
    }

    pub(super) fn bind(addr: SocketAddr) -> io::Result<Self> {
        let (socket, state) = open(addr, false)?;
        Ok(Self {
            port: socket.local_addr()?.port(),
            io: UdpSocket::from_std(socket)?,
            state,
        })
    }

    /// Whether the system segments datagrams for us.
    pub(super) fn segments(&self) -> bool {
        self.state.max_gso_segments() > 1
    }

    fn send(
        &self,
        to: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
        ecn: Option<EcnCodepoint>,
    ) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn,
            contents,
            segment_size,
            src_ip: None,
        };
        let sent = self.io.try_io(Interest::WRITABLE, || {
            self.state.try_send((&self.io).into(), &transmit)
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            Err(error) => {
                tracing::trace!(%to, %error, "a datagram was not sent");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

impl Source for Socket {
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_recv_ready(cx)
    }

    fn recv(&self, store: &mut [u8], metas: &mut [RecvMeta]) -> Option<usize> {
        receive(&self.state, store, metas, |read| {
            self.io
                .try_io(Interest::READABLE, || read((&self.io).into()))
        })
    }
}

/// Binds a socket; a shared one to a port that may have another one.
pub(super) fn open(
    addr: SocketAddr,
    shared: bool,
) -> io::Result<(std::net::UdpSocket, UdpSocketState)> {
    let socket = RawSocket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // As large as the system lets us; smaller works too, only worse.
    let _ = socket.set_recv_buffer_size(BUFFER_LEN);
    let _ = socket.set_send_buffer_size(BUFFER_LEN);
    socket.set_nonblocking(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    let socket = std::net::UdpSocket::from(socket);
    let state = UdpSocketState::new((&socket).into())?;
    Ok((socket, state))
}

/// Reads a socket that tokio watches over; `io` tries that.
///
/// Whoever got less than there was room for has emptied the socket: the next
/// datagram wakes again, so tokio is told that the socket is blocked now, rather
/// than asking the system for nothing after each datagram. If one has come
/// meanwhile tokio knows of it and takes this for outdated.
pub(super) fn receive(
    state: &UdpSocketState,
    store: &mut [u8],
    metas: &mut [RecvMeta],
    io: impl FnOnce(&mut dyn FnMut(UdpSockRef<'_>) -> io::Result<()>) -> io::Result<()>,
) -> Option<usize> {
    let room = (store.len() / SLOT).min(metas.len()).min(BATCH);
    let mut slots = store.chunks_exact_mut(SLOT);
    let mut bufs: [IoSliceMut<'_>; BATCH] =
        std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
    let mut got = None;
    // An error is one of being blocked, or says nothing about what was read.
    let _ = io(&mut |socket| {
        let count = state.recv(socket, &mut bufs[..room], metas)?;
        got = Some(count);
        match count < room && READS_ALL {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => Ok(()),
        }
    });
    got
}
