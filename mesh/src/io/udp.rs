//! The UDP sockets: one for IPv6, one for IPv4.
//!
//! Two sockets rather than one for both families, because the system then
//! reports addresses and ECN marks as they are and forbids fragmentation for
//! each. In a network without IPv4 what is for IPv4 goes through the network's
//! translator, if it has one, and what comes from there looks as if it came by
//! IPv4. Sends and receives go through quinn's `UdpSocketState`, which batches
//! with GSO and GRO where the system can.
//!
//! A *lane* is one more socket, with which alone one address is reached: a port
//! that was guessed (`super::fan`). What is sent to that address leaves by its
//! lane, and lanes are read along with the sockets of their family.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};

use parking_lot::{Mutex, RwLock};
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::fan::Fan;
use crate::nat64::Prefix;

/// Enough for some 10 ms of a fast link; the system may grant less.
const BUFFER_LEN: usize = 4 << 20;

/// Addresses that are reached by a port of their own; then the oldest goes.
const MAX_LANES: usize = 16;
/// Times that a socket is read in vain before other tasks have their turn.
const FRUITLESS: usize = 16;

/// An address family, and with it a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    const fn of(addr: &SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }
}

/// Both sockets, or the one that the machine has.
#[derive(Debug)]
pub(super) struct Udp {
    v4: Option<Socket>,
    v6: Option<Socket>,
    /// The translator to IPv4, where that is not here itself.
    translator: RwLock<Option<Prefix>>,
    /// Whether there is one; looked at for each datagram.
    translates: AtomicBool,
    /// For tests: UDP is as good as dead.
    pub(super) dead: AtomicBool,
    /// For tests: the system segments nothing for us.
    pub(super) unsegmented: AtomicBool,
    /// For tests: longer datagrams do not arrive.
    pub(super) longest: AtomicUsize,
    /// Ports that are open for a guess.
    pub(super) fan: Fan,
    lanes: RwLock<Vec<(SocketAddr, Arc<Socket>)>>,
    /// Whether there are any; looked at for each datagram.
    has_lanes: AtomicBool,
    /// Which lane is read first.
    turn: AtomicUsize,
    /// Who reads, for when there is another lane to be read.
    reader: Mutex<Option<Waker>>,
    pub(super) traffic: Traffic,
}

/// What has passed, through the sockets or by the relay.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) sent: AtomicU64,
    /// Calls of the system, by UDP alone.
    pub(super) calls: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) received_bytes: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) io: UdpSocket,
    state: UdpSocketState,
    port: u16,
}

impl Udp {
    /// Binds `port`, or one port for both families if it is 0.
    pub(super) async fn bind(port: u16) -> io::Result<Self> {
        let v6 = Socket::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        let same = v6.as_ref().map_or(port, |socket| socket.port);
        let v4_at = |port| Socket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
        // If somebody else has the same port for IPv4, another one will do.
        let v4 = if port == 0 {
            v4_at(same).or_else(|_| v4_at(0))
        } else {
            v4_at(port)
        };
        if let (Err(_), Err(error)) = (&v6, &v4) {
            return Err(io::Error::new(error.kind(), error.to_string()));
        }
        let udp = Self {
            v4: v4.ok(),
            v6: v6.ok(),
            translator: RwLock::default(),
            translates: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            unsegmented: AtomicBool::new(false),
            longest: AtomicUsize::new(usize::MAX),
            fan: Fan::default(),
            lanes: RwLock::default(),
            has_lanes: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            reader: Mutex::default(),
            traffic: Traffic::default(),
        };
        // Before it was writable once, tokio takes a socket for blocked.
        for socket in udp.v4.iter().chain(&udp.v6) {
            socket.io.writable().await?;
        }
        Ok(udp)
    }

    /// The bound port of a family.
    pub(super) fn port(&self, family: Family) -> Option<u16> {
        self.socket(family).map(|socket| socket.port)
    }

    /// Says by which prefix IPv4 is reached, if not by IPv4.
    pub(super) fn set_translator(&self, prefix: Option<Prefix>) {
        *self.translator.write() = prefix;
        self.translates.store(prefix.is_some(), Relaxed);
    }

    fn translator(&self) -> Option<Prefix> {
        self.translates
            .load(Relaxed)
            .then(|| *self.translator.read())?
    }

    /// Which socket sends to an address.
    pub(super) fn family_for(&self, to: &SocketAddr) -> Family {
        if self.translates.load(Relaxed) {
            return Family::V6;
        }
        Family::of(to)
    }

    /// Sends one datagram; what cannot be sent at once is lost.
    pub(super) fn send(&self, to: SocketAddr, bytes: &[u8]) {
        // A full buffer loses datagrams as any network does.
        let _ = self.send_batch(to, bytes, bytes.len(), None);
    }

    /// Sends datagrams of `stride` bytes, the last one maybe shorter: at most
    /// 64, and 65,000 bytes in all.
    ///
    /// # Errors
    ///
    /// Only `WouldBlock`: nothing was sent, [`Udp::writable`] says when to try
    /// again. Any other trouble is a loss, like on the way.
    pub(super) fn send_batch(
        &self,
        to: SocketAddr,
        bytes: &[u8],
        stride: usize,
        ecn: Option<EcnCodepoint>,
    ) -> io::Result<()> {
        let to = self.translator().map_or(to, |prefix| prefix.outward(to));
        let lost = self.dead.load(Relaxed) || stride > self.longest.load(Relaxed);
        if bytes.is_empty() || lost {
            return Ok(());
        }
        let whole = !self.unsegmented.load(Relaxed);
        let calls = if let Some(lane) = self.lane(&to) {
            // Nobody waits for a lane to be writable: then this is a loss.
            lane.send_batch(to, bytes, stride, ecn, whole).unwrap_or(1)
        } else if let Some(socket) = self.socket(Family::of(&to)) {
            socket.send_batch(to, bytes, stride, ecn, whole)?
        } else {
            return Ok(());
        };
        let count = bytes.len().div_ceil(stride.max(1)) as u64;
        self.traffic.sent.fetch_add(count, Relaxed);
        self.traffic.calls.fetch_add(calls, Relaxed);
        let len = bytes.len() as u64;
        self.traffic.sent_bytes.fetch_add(len, Relaxed);
        Ok(())
    }

    fn lane(&self, to: &SocketAddr) -> Option<Arc<Socket>> {
        if !self.has_lanes.load(Relaxed) {
            return None;
        }
        let lanes = self.lanes.read();
        let mut found = lanes.iter().filter(|(at, _)| at == to);
        found.next().map(|(_, socket)| Arc::clone(socket))
    }

    /// From now on `to` is reached by this socket.
    pub(super) fn adopt(&self, to: SocketAddr, socket: Arc<Socket>) {
        let mut lanes = self.lanes.write();
        lanes.retain(|(at, _)| *at != to);
        if lanes.len() >= MAX_LANES {
            lanes.remove(0);
        }
        lanes.push((to, socket));
        self.has_lanes.store(true, Relaxed);
        drop(lanes);
        if let Some(reader) = self.reader.lock().take() {
            reader.wake();
        }
    }

    /// The machine is elsewhere: what was guessed is void.
    pub(super) fn forget_lanes(&self) {
        self.fan.close();
        self.has_lanes.store(false, Relaxed);
        self.lanes.write().clear();
    }

    /// Waits until a family's socket takes datagrams again.
    pub(super) async fn writable(&self, family: Family) {
        if let Some(socket) = self.socket(family) {
            // An error shows again, and is handled, at the next send.
            let _ = socket.io.writable().await;
        }
    }

    /// Receives into `bufs`, or registers the task.
    pub(super) fn poll_recv(
        &self,
        family: Family,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<usize> {
        self.register(cx);
        let mut read = |socket: &Socket| self.poll_socket(socket, cx, bufs, metas);
        if self.has_lanes.load(Relaxed) {
            let lanes = self.lanes.read();
            let turn = self.turn.fetch_add(1, Relaxed) % lanes.len().max(1);
            let (before, after) = lanes.split_at(turn);
            for (at, socket) in after.iter().chain(before) {
                if Family::of(at) == family
                    && let Poll::Ready(count) = read(socket)
                {
                    return Poll::Ready(count);
                }
            }
        }
        self.socket(family).map_or(Poll::Pending, read)
    }

    /// Who reads is to be woken when there is another lane to be read.
    fn register(&self, cx: &Context<'_>) {
        let mut reader = self.reader.lock();
        if !reader.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
            *reader = Some(cx.waker().clone());
        }
    }

    fn poll_socket(
        &self,
        socket: &Socket,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<usize> {
        for _ in 0..FRUITLESS {
            if ready!(socket.io.poll_recv_ready(cx)).is_err() {
                return Poll::Pending;
            }
            let received = socket.io.try_io(Interest::READABLE, || {
                socket.state.recv((&socket.io).into(), bufs, metas)
            });
            match received {
                Ok(_) if self.dead.load(Relaxed) => {}
                Ok(count) => {
                    let len: usize = metas[..count].iter().map(|meta| meta.len).sum();
                    let bytes = &self.traffic.received_bytes;
                    bytes.fetch_add(len as u64, Relaxed);
                    if let Some(prefix) = self.translator() {
                        for meta in &mut metas[..count] {
                            meta.addr = prefix.inward(meta.addr);
                        }
                    }
                    return Poll::Ready(count);
                }
                // Blocked: ask again, to be registered. Anything else is the
                // echo of an earlier send (ICMP), and gone by being read.
                Err(_) => {}
            }
        }
        // An error that does not go away must not keep the others from their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    const fn socket(&self, family: Family) -> Option<&Socket> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }
}

impl Socket {
    /// One more port, for the family of an address.
    pub(super) fn beside(to: &SocketAddr) -> io::Result<Self> {
        Self::bind(match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        })
    }

    /// Sends datagrams, in one call if that is wanted and possible. Returns how many calls it
    /// took.
    fn send_batch(
        &self,
        to: SocketAddr,
        bytes: &[u8],
        stride: usize,
        ecn: Option<EcnCodepoint>,
        whole: bool,
    ) -> io::Result<u64> {
        if bytes.len() <= stride {
            return self.send(to, bytes, None, ecn).map(|()| 1);
        }
        if whole && self.state.max_gso_segments() > 1 {
            match self.send(to, bytes, Some(stride), ecn) {
                // The system refused to segment; quinn-udp has noted it.
                Ok(()) if self.state.max_gso_segments() <= 1 => {}
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

    fn bind(addr: SocketAddr) -> io::Result<Self> {
        let socket = RawSocket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // As large as the system lets us; smaller works too, only worse.
        let _ = socket.set_recv_buffer_size(BUFFER_LEN);
        let _ = socket.set_send_buffer_size(BUFFER_LEN);
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        let socket = std::net::UdpSocket::from(socket);
        let state = UdpSocketState::new((&socket).into())?;
        let port = socket.local_addr()?.port();
        Ok(Self {
            io: UdpSocket::from_std(socket)?,
            state,
            port,
        })
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    async fn receive(udp: &Udp, family: Family) -> Vec<Vec<u8>> {
        let mut store = vec![0; 65_536];
        let mut metas = [RecvMeta::default()];
        let received = poll_fn(|cx| {
            let mut bufs = [IoSliceMut::new(&mut store)];
            udp.poll_recv(family, cx, &mut bufs, &mut metas)
        });
        let limit = Duration::from_secs(10);
        assert_eq!(tokio::time::timeout(limit, received).await.unwrap(), 1);
        let datagrams = store[..metas[0].len].chunks(metas[0].stride);
        datagrams.map(<[u8]>::to_vec).collect()
    }

    #[tokio::test]
    async fn batches_arrive_as_datagrams_in_both_families() {
        let [a, b] = [Udp::bind(0).await.unwrap(), Udp::bind(0).await.unwrap()];
        for (family, ip) in [(Family::V4, "127.0.0.1"), (Family::V6, "::1")] {
            let Some(port) = b.port(family) else {
                continue;
            };
            let to = SocketAddr::new(ip.parse().unwrap(), port);
            let mut bytes = vec![1; 1000];
            bytes.extend([2; 1000]);
            bytes.extend([3; 7]);
            a.send_batch(to, &bytes, 1000, None).unwrap();
            let mut got = vec![];
            while got.len() < 3 {
                got.extend(receive(&b, family).await);
            }
            assert_eq!(got, [vec![1; 1000], vec![2; 1000], vec![3; 7]]);
        }
    }

    #[tokio::test]
    async fn what_is_for_ipv4_goes_through_the_translator() {
        let [a, b] = [Udp::bind(0).await.unwrap(), Udp::bind(0).await.unwrap()];
        let Some(port) = b.port(Family::V6) else {
            return;
        };
        // In the prefix of all zeros 0.0.0.1 is IPv6's loopback address.
        let prefix = Prefix::discover(["::192.0.0.170".parse().unwrap()]);
        a.set_translator(prefix);
        b.set_translator(prefix);
        let to = SocketAddr::from(([0, 0, 0, 1], port));
        assert_eq!(a.family_for(&to), Family::V6);
        a.send(to, b"through");
        let mut store = [0; 2048];
        let mut metas = [RecvMeta::default()];
        let received = poll_fn(|cx| {
            let mut bufs = [IoSliceMut::new(&mut store)];
            b.poll_recv(Family::V6, cx, &mut bufs, &mut metas)
        });
        let limit = Duration::from_secs(10);
        assert_eq!(tokio::time::timeout(limit, received).await.unwrap(), 1);
        assert_eq!(&store[..metas[0].len], b"through");
        assert_eq!(metas[0].addr.ip(), std::net::IpAddr::from([0, 0, 0, 1]));
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error() {
        let first = Udp::bind(0).await.unwrap();
        let port = first.port(Family::V4).unwrap();
        let second = Udp::bind(port).await;
        // With an IPv6 socket of its own on that port it could still work.
        assert!(second.is_err() || second.unwrap().port(Family::V4).is_none());
    }
}
