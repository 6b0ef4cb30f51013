//! The UDP sockets: one for IPv6, one for IPv4.
//!
//! Two sockets rather than one for both families, because the system then
//! reports addresses and ECN marks as they are and forbids fragmentation for
//! each. In a network without IPv4 what is for IPv4 goes through the network's
//! translator, if it has one, and what comes from there looks as if it came by
//! IPv4. Sends and receives go through quinn's `UdpSocketState`, which batches
//! with GSO and GRO where the system can.
//!
//! What is sent to an address that has a socket of its own (`lanes`) leaves by
//! that, and those are read along with the sockets of their family.

mod connected;
mod lanes;
mod port;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use lanes::Lanes;
use parking_lot::RwLock;
use port::Source;
pub(super) use port::{BATCH, SLOT, Socket};
use quinn::udp::{EcnCodepoint, RecvMeta};

use super::fan::Fan;
use crate::nat64::Prefix;

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
    lanes: Lanes,
    pub(super) traffic: Traffic,
}

/// Datagrams of one length, the last one maybe shorter.
struct Batch<'a> {
    bytes: &'a [u8],
    stride: usize,
    ecn: Option<EcnCodepoint>,
    /// The system may segment them.
    whole: bool,
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
            lanes: Lanes::default(),
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
        self.lanes.disconnect_all();
    }

    fn translator(&self) -> Option<Prefix> {
        self.translates
            .load(Relaxed)
            .then(|| *self.translator.read())?
    }

    /// The address by which one is reached.
    fn outward(&self, to: SocketAddr) -> SocketAddr {
        self.translator().map_or(to, |prefix| prefix.outward(to))
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
        let to = self.outward(to);
        if bytes.is_empty() || self.loses(stride) {
            return Ok(());
        }
        let batch = self.batch(bytes, stride, ecn);
        let calls = if let Some(calls) = self.lanes.send_guessed(to, &batch) {
            calls
        } else if let Some(socket) = self.socket(Family::of(&to)) {
            socket.send_batch(to, &batch)?
        } else {
            return Ok(());
        };
        self.count(bytes, stride, calls);
        Ok(())
    }

    fn batch<'a>(&self, bytes: &'a [u8], stride: usize, ecn: Option<EcnCodepoint>) -> Batch<'a> {
        Batch {
            bytes,
            stride,
            ecn,
            whole: !self.unsegmented.load(Relaxed),
        }
    }

    /// For tests: whether datagrams of that length get lost.
    fn loses(&self, stride: usize) -> bool {
        self.dead.load(Relaxed) || stride > self.longest.load(Relaxed)
    }

    fn count(&self, bytes: &[u8], stride: usize, calls: u64) {
        let count = bytes.len().div_ceil(stride.max(1)) as u64;
        self.traffic.sent.fetch_add(count, Relaxed);
        self.traffic.calls.fetch_add(calls, Relaxed);
        let len = bytes.len() as u64;
        self.traffic.sent_bytes.fetch_add(len, Relaxed);
    }

    /// Waits until a family's socket takes datagrams again.
    pub(super) async fn writable(&self, family: Family) {
        if let Some(socket) = self.socket(family) {
            // An error shows again, and is handled, at the next send.
            let _ = socket.io.writable().await;
        }
    }

    /// Receives into `store`, each batch of datagrams into a slot of [`SLOT`]
    /// bytes of it, or registers the task.
    pub(super) fn poll_recv(
        &self,
        family: Family,
        cx: &mut Context<'_>,
        store: &mut [u8],
        metas: &mut [RecvMeta],
    ) -> Poll<usize> {
        let read = |socket: &dyn Source| self.poll_socket(socket, cx, store, metas);
        self.lanes.poll(family, self.socket(family), read)
    }

    /// Who reads is to be woken when there is another lane to be read.
    pub(super) fn register(&self, cx: &Context<'_>) {
        self.lanes.register(cx);
    }

    fn poll_socket(
        &self,
        socket: &dyn Source,
        cx: &mut Context<'_>,
        store: &mut [u8],
        metas: &mut [RecvMeta],
    ) -> Poll<usize> {
        for _ in 0..FRUITLESS {
            if ready!(socket.poll_ready(cx)).is_err() {
                return Poll::Pending;
            }
            let count = match socket.recv(store, metas) {
                Some(count) if !self.dead.load(Relaxed) => count,
                // Blocked: ask again, to be registered. Anything else is the
                // echo of an earlier send (ICMP), and gone by being read.
                _ => continue,
            };
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    async fn receive(udp: &Udp, family: Family) -> Vec<Vec<u8>> {
        let mut store = vec![0; SLOT];
        let mut metas = [RecvMeta::default()];
        let received = poll_fn(|cx| udp.poll_recv(family, cx, &mut store, &mut metas));
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
        let mut store = vec![0; SLOT];
        let mut metas = [RecvMeta::default()];
        let received = poll_fn(|cx| b.poll_recv(Family::V6, cx, &mut store, &mut metas));
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
