//! Sockets by which one address alone is reached.
//!
//! A *lane* is either a port that was guessed (`crate::io::fan`): then there is no
//! other way to that address. Or it is one more socket at the port that we have
//! anyhow, connected to an address to which much is sent: the system then looks up
//! the way there once and not for each datagram, which is a quarter of what
//! sending one costs. What others send keeps coming in by the socket that is not
//! connected.
//!
//! A connected socket keeps its own address and its way when the machine's change,
//! and hears of datagrams that nobody took, from anybody who says so. So it is an
//! aid only: it carries data alone, while the path is not in doubt
//! (`crate::io::outbox`), and not what finds out whether there is a path. It is
//! closed when the path comes into doubt and when the system reports an error of
//! it, and what it does not take goes the ordinary way.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, RwLock};
use quinn::udp::EcnCodepoint;

use super::connected::{Connected, Sent};
use super::port::{Socket, Source};
use super::{Batch, Family, Udp};

/// Lanes of either kind; then the oldest goes.
const MAX_LANES: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Lanes {
    list: RwLock<Vec<Lane>>,
    /// Whether there are any; looked at for each datagram.
    any: AtomicBool,
    /// Which one is read first, of each family.
    turns: [AtomicUsize; 2],
    /// Who reads, for when there is another lane to be read.
    reader: Mutex<Option<Waker>>,
}

#[derive(Debug)]
struct Lane {
    to: SocketAddr,
    by: By,
}

#[derive(Debug)]
enum By {
    Guessed(Arc<Socket>),
    Connected(Connected),
}

impl Lane {
    const fn is_guessed(&self) -> bool {
        self.guessed().is_some()
    }

    const fn guessed(&self) -> Option<&Arc<Socket>> {
        match &self.by {
            By::Guessed(socket) => Some(socket),
            By::Connected(_) => None,
        }
    }

    const fn connected(&self) -> Option<&Connected> {
        match &self.by {
            By::Guessed(_) => None,
            By::Connected(socket) => Some(socket),
        }
    }

    fn source(&self) -> &dyn Source {
        match &self.by {
            By::Guessed(socket) => &**socket,
            By::Connected(socket) => socket,
        }
    }
}

impl Lanes {
    /// Sends datagrams by the port that was guessed for that address, and says in
    /// how many calls; `None` if there is none.
    pub(super) fn send_guessed(&self, to: SocketAddr, batch: &Batch<'_>) -> Option<u64> {
        if !self.any.load(Relaxed) {
            return None;
        }
        let list = self.list.read();
        let mut lanes = list.iter().filter(|lane| lane.to == to);
        // Nobody waits for it to be writable: then this is a loss.
        let socket = lanes.find_map(Lane::guessed)?;
        Some(socket.send_batch(to, batch).unwrap_or(1))
    }

    /// Sends datagrams by the socket that is connected to that address, or as many
    /// of them as it takes. Says, too, whether that socket is there still.
    pub(super) fn send_connected(&self, to: SocketAddr, batch: &Batch<'_>) -> (Sent, bool) {
        let mut sent = Sent::default();
        let list = self.list.read();
        let mut lanes = list.iter().filter(|lane| lane.to == to);
        let Some(socket) = lanes.find_map(Lane::connected) else {
            return (sent, false);
        };
        let result = socket.send(batch, &mut sent);
        drop(list);
        let there = result.map_or_else(|e| e.kind() == io::ErrorKind::WouldBlock, |()| true);
        if !there {
            self.disconnect(&to);
        }
        (sent, there)
    }

    /// From now on `to` is reached by this socket alone.
    pub(super) fn adopt(&self, to: SocketAddr, socket: Arc<Socket>) {
        let mut list = self.list.write();
        list.retain(|lane| lane.to != to);
        let by = By::Guessed(socket);
        self.add(&mut list, Lane { to, by });
        drop(list);
        self.wake();
    }

    /// Connects one more socket at the port of `own` to an address, in place of the
    /// one that somebody may have left.
    pub(super) fn connect(&self, to: SocketAddr, own: &Socket) {
        // Locked meanwhile, as no two may be connected at once.
        let mut list = self.list.write();
        list.retain(|lane| lane.to != to || lane.is_guessed());
        if list.iter().any(|lane| lane.to == to) {
            return;
        }
        match Connected::new(own, to).map(By::Connected) {
            Ok(by) => self.add(&mut list, Lane { to, by }),
            Err(error) => return tracing::debug!(%to, %error, "a socket was not connected"),
        }
        drop(list);
        self.wake();
    }

    /// Closes what is connected to an address.
    pub(super) fn disconnect(&self, to: &SocketAddr) {
        let mut list = self.list.write();
        list.retain(|lane| lane.to != *to || lane.is_guessed());
        self.any.store(!list.is_empty(), Relaxed);
    }

    /// Closes all that are connected.
    pub(super) fn disconnect_all(&self) {
        let mut list = self.list.write();
        list.retain(Lane::is_guessed);
        self.any.store(!list.is_empty(), Relaxed);
    }

    /// Closes all.
    pub(super) fn clear(&self) {
        self.any.store(false, Relaxed);
        self.list.write().clear();
    }

    fn add(&self, list: &mut Vec<Lane>, lane: Lane) {
        let of_kind = |other: &Lane| other.is_guessed() == lane.is_guessed();
        if list.iter().filter(|other| of_kind(other)).count() >= MAX_LANES
            && let Some(oldest) = list.iter().position(of_kind)
        {
            list.remove(oldest);
        }
        list.push(lane);
        self.any.store(true, Relaxed);
    }

    fn wake(&self) {
        if let Some(reader) = self.reader.lock().take() {
            reader.wake();
        }
    }

    /// Who reads is to be woken when there is another lane to be read.
    pub(super) fn register(&self, cx: &Context<'_>) {
        let mut reader = self.reader.lock();
        if !reader.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
            *reader = Some(cx.waker().clone());
        }
    }

    /// Reads `own` and the lanes of its family, each of them first in its turn,
    /// until one has something.
    pub(super) fn poll(
        &self,
        family: Family,
        own: Option<&Socket>,
        mut read: impl FnMut(&dyn Source) -> Poll<usize>,
    ) -> Poll<usize> {
        if !self.any.load(Relaxed) {
            return own.map_or(Poll::Pending, |own| read(own));
        }
        let own = own.map(|own| own as &dyn Source);
        let list = self.list.read();
        let lanes = list.iter().filter(|lane| Family::of(&lane.to) == family);
        let lanes = lanes.map(Lane::source);
        let count = lanes.clone().count() + usize::from(own.is_some());
        let turn = self.turns[family as usize].fetch_add(1, Relaxed) % count.max(1);
        let twice = lanes.clone().chain(own).chain(lanes).chain(own);
        for socket in twice.skip(turn).take(count) {
            if let Poll::Ready(count) = read(socket) {
                return Poll::Ready(count);
            }
        }
        Poll::Pending
    }
}

impl Udp {
    /// From now on `to` is reached by this socket.
    pub(in crate::io) fn adopt(&self, to: SocketAddr, socket: Arc<Socket>) {
        self.lanes.adopt(to, socket);
    }

    /// Much is sent to an address. Where that is of no use, nothing changes.
    pub(in crate::io) fn connect(&self, to: SocketAddr) {
        let to = self.outward(to);
        if let Some(own) = self.socket(Family::of(&to))
            && cfg!(target_os = "linux")
        {
            self.lanes.connect(to, own);
        }
    }

    /// Sends datagrams to an address by the socket that is connected to it. Returns
    /// how many bytes of them need not be sent in another way, and whether that
    /// socket is there still.
    pub(in crate::io) fn send_connected(
        &self,
        to: SocketAddr,
        bytes: &[u8],
        stride: usize,
        ecn: Option<EcnCodepoint>,
    ) -> (usize, bool) {
        let to = self.outward(to);
        if self.loses(stride) {
            return (bytes.len(), true);
        }
        let batch = self.batch(bytes, stride, ecn);
        let (sent, there) = self.lanes.send_connected(to, &batch);
        self.count(&bytes[..sent.bytes], stride, sent.calls);
        (sent.bytes, there)
    }

    /// The path to an address is in doubt, or not used any more.
    pub(in crate::io) fn disconnect(&self, to: SocketAddr) {
        self.lanes.disconnect(&self.outward(to));
    }

    /// The machine is elsewhere: what was guessed is void.
    pub(in crate::io) fn forget_lanes(&self) {
        self.fan.close();
        self.lanes.clear();
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use quinn::udp::RecvMeta;
    use tokio::net::UdpSocket;
    use tokio::time::timeout;

    use super::super::SLOT;
    use super::*;

    const WITHIN: Duration = Duration::from_secs(20);

    impl Lanes {
        fn count(&self) -> usize {
            self.list.read().len()
        }
    }

    impl Udp {
        /// Addresses that have a socket of their own.
        pub(in crate::io) fn lanes(&self) -> usize {
            self.lanes.count()
        }
    }

    /// What comes in next, and whom it is from.
    async fn next(udp: &Udp, family: Family) -> (Vec<u8>, SocketAddr) {
        let mut store = vec![0; SLOT];
        let mut metas = [RecvMeta::default()];
        let received = poll_fn(|cx| {
            udp.register(cx);
            udp.poll_recv(family, cx, &mut store, &mut metas)
        });
        assert_eq!(timeout(WITHIN, received).await.unwrap(), 1);
        (store[..metas[0].len].to_vec(), metas[0].addr)
    }

    /// What a peer gets next, and where from.
    async fn heard(peer: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buf = [0; 2000];
        let (len, from) = timeout(WITHIN, peer.recv_from(&mut buf))
            .await
            .unwrap()
            .unwrap();
        (buf[..len].to_vec(), from)
    }

    #[tokio::test]
    async fn a_connected_socket_has_the_same_port_and_takes_nothing_of_others() {
        for (family, ip) in [(Family::V4, "127.0.0.1"), (Family::V6, "::1")] {
            let udp = Udp::bind(0).await.unwrap();
            let Some(port) = udp.port(family) else {
                continue;
            };
            let here = SocketAddr::new(ip.parse().unwrap(), port);
            let [peer, other] = [
                UdpSocket::bind((ip, 0)).await.unwrap(),
                UdpSocket::bind((ip, 0)).await.unwrap(),
            ];
            let to = peer.local_addr().unwrap();
            udp.connect(to);
            udp.connect(to);
            assert_eq!(udp.lanes.count(), 1);
            for ecn in [None, Some(EcnCodepoint::Ect0)] {
                let sent = udp.send_connected(to, b"by the lane", 11, ecn);
                assert_eq!(sent, (11, true));
                assert_eq!(heard(&peer).await, (b"by the lane".to_vec(), here));
            }
            for (unsegmented, calls) in [(false, 1), (true, 3)] {
                udp.unsegmented.store(unsegmented, Relaxed);
                let before = udp.traffic.calls.load(Relaxed);
                let sent = udp.send_connected(to, &[7; 2998], 1000, None);
                assert_eq!(sent, (2998, true));
                assert_eq!(udp.traffic.calls.load(Relaxed) - before, calls);
                for len in [1000, 1000, 998] {
                    assert_eq!(heard(&peer).await, (vec![7; len], here));
                }
            }
            // Both are read, whoever comes first and however often.
            for round in 0..20 {
                let word = [round; 5];
                peer.send_to(&word, here).await.unwrap();
                other.send_to(&word, here).await.unwrap();
                let mut from = vec![];
                for _ in 0..2 {
                    let (bytes, who) = next(&udp, family).await;
                    assert_eq!(bytes, word);
                    from.push(who);
                }
                from.sort_unstable();
                let mut both = vec![to, other.local_addr().unwrap()];
                both.sort_unstable();
                assert_eq!(from, both);
            }
            // The port is nobody else's for all that.
            assert!(Socket::bind(here).is_err());
            udp.disconnect(to);
            assert_eq!(udp.lanes.count(), 0);
            assert_eq!(udp.send_connected(to, b"not", 3, None), (0, false));
            udp.send(to, b"the ordinary way");
            assert_eq!(heard(&peer).await, (b"the ordinary way".to_vec(), here));
            peer.send_to(b"back", here).await.unwrap();
            assert_eq!(next(&udp, family).await, (b"back".to_vec(), to));
        }
    }

    #[tokio::test]
    async fn who_is_not_there_costs_the_lane_and_no_datagram_after_that() {
        let udp = Udp::bind(0).await.unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = peer.local_addr().unwrap();
        drop(peer);
        udp.connect(to);
        // The system tells at the next call that nobody took the first.
        let (sent, there) = udp.send_connected(to, b"lost", 4, None);
        assert_eq!((sent, there), (4, true));
        let closed = async {
            loop {
                match udp.send_connected(to, b"lost too", 8, None) {
                    (8, true) => tokio::task::yield_now().await,
                    // What the error has cost is not counted as sent.
                    other => break assert_eq!(other, (0, false)),
                }
            }
        };
        timeout(WITHIN, closed).await.unwrap();
        assert_eq!(udp.lanes.count(), 0);
        let peer = UdpSocket::bind(to).await.unwrap();
        udp.send(to, b"found");
        assert_eq!(heard(&peer).await.0, b"found");
    }

    #[tokio::test]
    async fn there_are_few_of_a_kind_and_the_guessed_ones_are_not_given_up_for_others() {
        let udp = Udp::bind(0).await.unwrap();
        let guessed = SocketAddr::from(([127, 0, 0, 1], 9));
        let socket = Socket::beside(&guessed).unwrap();
        udp.adopt(guessed, Arc::new(socket));
        for port in 20_000..20_040 {
            udp.connect(SocketAddr::from(([127, 0, 0, 1], port)));
        }
        udp.connect(guessed);
        udp.disconnect(guessed);
        assert_eq!(udp.lanes.count(), MAX_LANES + 1);
        let is_guessed = |lane: &Lane| lane.is_guessed() && lane.to == guessed;
        assert!(udp.lanes.list.read().iter().any(is_guessed));
        udp.forget_lanes();
        assert_eq!(udp.lanes.count(), 0);
    }
}
