//! Many ports towards one address, for the hard side of a guess
//! (`crate::path`): whichever of them the peer's knock comes in by is kept, as a
//! lane (`super::udp`), and the others are closed.
//!
//! There is one fan at a time, for half a minute at most; whoever wants another
//! one meanwhile goes without. What comes in is only looked at, not taken: the
//! reader of the lane gets it as its first datagram.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::node::Node;
use super::udp::Socket;

/// Ports in a fan. With fewer descriptors left there are fewer.
const PORTS: usize = 256;
/// A fan is closed that long after it was last sent from.
const OPEN_FOR: Duration = Duration::from_secs(6);

/// The ports that are open at the moment.
#[derive(Debug, Default)]
pub(super) struct Fan {
    open: Mutex<Option<Open>>,
    /// There is one, or there is none any more.
    changed: Notify,
}

#[derive(Debug)]
struct Open {
    to: SocketAddr,
    sockets: Vec<Arc<Socket>>,
    until: Instant,
}

impl Fan {
    /// Sends a datagram from each of many ports, opening them if need be.
    pub(super) fn spread(&self, to: SocketAddr, bytes: &[u8]) {
        let mut open = self.open.lock();
        let until = Instant::now() + OPEN_FOR;
        match &mut *open {
            Some(fan) if fan.to == to => fan.until = until,
            Some(_) => return,
            none => {
                let sockets = std::iter::repeat_with(|| Socket::beside(&to));
                let sockets = sockets.take(PORTS).map_while(Result::ok);
                let sockets = sockets.map(Arc::new).collect();
                *none = Some(Open { to, sockets, until });
                self.changed.notify_one();
            }
        }
        for socket in open.iter().flat_map(|fan| &fan.sockets) {
            // tokio takes a new socket for blocked; the system does not. What is lost is sent
            // again with the next round.
            let _ = SockRef::from(&socket.io).send_to(bytes, &to.into());
        }
    }

    /// Closes all ports.
    pub(super) fn close(&self) {
        self.open.lock().take();
        self.changed.notify_one();
    }

    fn now_open(&self) -> Option<(SocketAddr, Vec<Arc<Socket>>)> {
        let open = self.open.lock();
        open.as_ref().map(|fan| (fan.to, fan.sockets.clone()))
    }

    fn until(&self) -> Option<Instant> {
        self.open.lock().as_ref().map(|fan| fan.until)
    }

    /// The first port of the fan that something comes in by; none when it is
    /// closed before.
    async fn knocked(&self, to: SocketAddr, sockets: Vec<Arc<Socket>>) -> Option<Arc<Socket>> {
        let mut listening = JoinSet::new();
        for socket in sockets {
            listening.spawn(async move { comes_in(&socket, to).await.then_some(socket) });
        }
        loop {
            let until = self.until()?;
            tokio::select! {
                came = timeout_at(until.into(), listening.join_next()) => match came {
                    Ok(Some(Ok(Some(socket)))) => return Some(socket),
                    Ok(Some(_)) => {}
                    // All have failed.
                    Ok(None) => return None,
                    Err(_) if self.until().is_some_and(|until| until > Instant::now()) => {}
                    Err(_) => return None,
                },
                () = self.changed.notified() => {}
            }
        }
    }
}

/// Waits until a datagram from `to` is there to be read; drops those of others.
async fn comes_in(socket: &Socket, to: SocketAddr) -> bool {
    let mut first = [0; 1];
    loop {
        match socket.io.peek_from(&mut first).await {
            Ok((_, from)) if from == to => return socket.io.writable().await.is_ok(),
            Ok(_) => drop(socket.io.try_recv_from(&mut first)),
            // The echo of what we sent, which nobody took; it is gone by being read.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

impl Node {
    /// Watches over the fan, until the task is aborted.
    pub(super) async fn run_fan(self: Arc<Self>) {
        let Some(udp) = &self.udp else {
            return;
        };
        loop {
            let Some((to, sockets)) = udp.fan.now_open() else {
                udp.fan.changed.notified().await;
                continue;
            };
            let found = udp.fan.knocked(to, sockets).await;
            if let Some(socket) = found {
                tracing::debug!(%to, "a port was guessed");
                udp.adopt(to, socket);
            }
            udp.fan.open.lock().take();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::Ordering::Relaxed;

    use tokio::net::UdpSocket;
    use tokio::time::timeout;

    use super::*;
    use crate::io::Config;

    const WITHIN: Duration = Duration::from_secs(20);

    async fn next(peer: &UdpSocket) -> (Vec<u8>, SocketAddr) {
        let mut buf = [0; 100];
        let got = timeout(WITHIN, peer.recv_from(&mut buf)).await;
        let (len, from) = got.unwrap().unwrap();
        (buf[..len].to_vec(), from)
    }

    #[tokio::test]
    async fn the_port_that_is_knocked_at_is_kept_and_the_others_are_closed() {
        let config = Config {
            identity: Arc::new(crate::Identity::from_seed(&crate::Seed::from_bytes(
                [7; 32],
            ))),
            udp_port: 0,
            direct: true,
            port_mapping: false,
        };
        let node = Arc::new(Node::new(&config).await.unwrap());
        let task = tokio::spawn(Arc::clone(&node).run_fan());
        let udp = node.udp.as_ref().unwrap();
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = peer.local_addr().unwrap();
        udp.fan.spread(to, b"open");
        let mut ports = BTreeSet::new();
        // The peer's buffer may be too small for all of them.
        while ports.len() < 100 {
            let (bytes, from) = next(&peer).await;
            assert_eq!(bytes, b"open");
            ports.insert(from);
        }
        assert!(
            !ports.contains(&(to.ip(), udp.port(super::super::udp::Family::V4).unwrap()).into())
        );
        let hole = *ports.iter().nth(50).unwrap();
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let other = ports.first().unwrap();
        stranger.send_to(b"stranger", other).await.unwrap();
        peer.send_to(b"knock", hole).await.unwrap();
        let kept = async {
            while udp.fan.now_open().is_some() {
                tokio::task::yield_now().await;
            }
        };
        timeout(WITHIN, kept).await.unwrap();
        // What is sent there leaves by that port from now on, and what came is still there.
        let from = loop {
            udp.send(to, b"answer");
            let (bytes, from) = next(&peer).await;
            if bytes == b"answer" {
                break from;
            }
        };
        assert_eq!(from, hole);
        let mut store = vec![0; super::super::udp::SLOT];
        let mut metas = [quinn::udp::RecvMeta::default()];
        let family = super::super::udp::Family::V4;
        let received = std::future::poll_fn(|cx| udp.poll_recv(family, cx, &mut store, &mut metas));
        timeout(WITHIN, received).await.unwrap();
        assert_eq!((&store[..metas[0].len], metas[0].addr), (&b"knock"[..], to));
        assert!(udp.traffic.sent.load(Relaxed) > 0);
        udp.forget_lanes();
        udp.send(to, b"again");
        let (_, from) = loop {
            let got = next(&peer).await;
            if got.0 == b"again" {
                break got;
            }
        };
        assert_ne!(from, hole);
        task.abort();
    }
}
