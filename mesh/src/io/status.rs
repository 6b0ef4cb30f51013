//! What the node knows about its ways: for people, and for metrics.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use derp::NodeKey;

use super::udp::Family;
use super::{Mesh, Path};
use crate::packet::{FULL_DATAGRAM, WIDE_DATAGRAM};
use crate::path::Obstacle;
use crate::portmap::Mapped;
use crate::reflect::Mapping;

/// IP and UDP headers, bytes.
const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;

/// What is known about the way to a peer.
#[derive(Clone, Copy, Debug)]
pub struct PeerStatus {
    /// The path in use.
    pub path: Path,
    /// The round-trip time, if one was measured.
    pub rtt: Option<Duration>,
    /// When the last authentic packet came in.
    pub last_heard: Option<Instant>,
    /// Which part of the packets of the present connection was lost, 0 to 1.
    pub loss: Option<f64>,
    /// The size of the IP packets that the direct path was seen to carry, bytes.
    pub mtu: Option<usize>,
    /// How the peer's NAT chooses addresses, as far as the peer has said.
    pub nat: Mapping,
    /// Why the path is not direct, if it is not.
    pub obstacle: Option<Obstacle>,
}

/// How this node looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat {
    /// Whether UDP is used at all.
    pub enabled: bool,
    /// Where the relay's STUN server sees us.
    pub outside: Option<SocketAddr>,
    /// There is such a server, and it does not answer.
    pub unanswered: bool,
    /// Whether others see us there, too.
    pub mapping: Mapping,
    /// The address seen from outside is one of our own: there is no NAT.
    pub open: bool,
    /// The port that the gateway lends us.
    pub mapped: Option<Mapped>,
}

/// What has passed since the start, all peers together. By UDP these are the
/// bytes of datagrams, by the relay those of the packets in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams sent by UDP.
    pub udp_sent: u64,
    /// Calls of the system that took.
    pub udp_calls: u64,
    /// Bytes in them.
    pub udp_sent_bytes: u64,
    /// Bytes received by UDP, from whomever.
    pub udp_received_bytes: u64,
    /// Packets given to relays; twice what both were given.
    pub relay_sent: u64,
    /// Bytes in them.
    pub relay_sent_bytes: u64,
    /// Bytes of packets that came by the relay.
    pub relay_received_bytes: u64,
}

impl Mesh {
    /// What is known about the way to a peer; `None` for strangers.
    pub fn status(&self, key: &NodeKey) -> Option<PeerStatus> {
        let node = &self.inside().node;
        let entry = node.by_key(key)?;
        let quic = entry.links.lock().live().map(|link| link.stats().path);
        let state = entry.state.lock();
        let core = &state.core;
        let now = Instant::now();
        let path = match core.current_route(now).direct {
            _ if !core.has_session() => Path::None,
            Some(addr) => Path::Direct(addr),
            None if node.relays.is_connected() => Path::Relayed,
            None => Path::None,
        };
        let datagram = match core.is_wide(now) {
            true => WIDE_DATAGRAM,
            false => FULL_DATAGRAM,
        };
        let mtu = |addr: SocketAddr| match addr {
            SocketAddr::V4(_) => datagram + HEADERS_V4,
            SocketAddr::V6(_) => datagram + HEADERS_V6,
        };
        Some(PeerStatus {
            rtt: core.rtt().or_else(|| quic.map(|quic| quic.rtt)),
            last_heard: core.last_heard(),
            loss: quic
                .filter(|quic| quic.sent_packets > 0)
                .map(|quic| quic.lost_packets as f64 / quic.sent_packets as f64),
            mtu: match path {
                Path::Direct(addr) => Some(mtu(addr)),
                Path::Relayed | Path::None => None,
            },
            nat: core.peer_mapping(),
            obstacle: core.obstacle(now),
            path,
        })
    }

    /// Whether a relay is connected right now.
    pub fn relay_connected(&self) -> bool {
        self.inside().node.relays.is_connected()
    }

    /// Whether the first relay is connected right now.
    pub fn first_connected(&self) -> bool {
        self.inside().node.relays.first.is_connected()
    }

    /// Whether the relay that stands by is connected right now.
    pub fn standby_connected(&self) -> bool {
        self.inside().node.relays.other.is_connected()
    }

    /// The round-trip time to the relay in use, if it was measured.
    pub fn relay_rtt(&self) -> Option<Duration> {
        self.inside().node.relays.rtt()
    }

    /// How this node looks from outside.
    pub fn nat(&self) -> Nat {
        let node = &self.inside().node;
        let outside = node.reflection.found();
        let own = super::platform::host_addresses();
        Nat {
            enabled: node.udp.is_some(),
            outside,
            unanswered: node.udp.is_some() && node.reflection.is_unanswered(),
            mapping: node.reflection.mapping(),
            open: outside.is_some_and(|addr| own.contains(&addr.ip())),
            mapped: node.mapper.mapped(),
        }
    }

    /// The bound UDP ports, IPv4 and IPv6; `None` where there is no socket.
    pub fn udp_ports(&self) -> (Option<u16>, Option<u16>) {
        let port = |family| self.inside().node.udp.as_ref()?.port(family);
        (port(Family::V4), port(Family::V6))
    }

    /// The UDP addresses that peers are told, the one seen from outside first.
    pub fn endpoints(&self) -> Vec<SocketAddr> {
        self.inside().node.endpoints()
    }

    /// What has passed since the start.
    pub fn traffic(&self) -> Traffic {
        let node = &self.inside().node;
        let mut traffic = Traffic::default();
        for relay in node.relays.traffic() {
            traffic.relay_sent += relay.sent.load(Relaxed);
            traffic.relay_sent_bytes += relay.sent_bytes.load(Relaxed);
            traffic.relay_received_bytes += relay.received_bytes.load(Relaxed);
        }
        if let Some(udp) = &node.udp {
            traffic.udp_sent = udp.traffic.sent.load(Relaxed);
            traffic.udp_calls = udp.traffic.calls.load(Relaxed);
            traffic.udp_sent_bytes = udp.traffic.sent_bytes.load(Relaxed);
            traffic.udp_received_bytes = udp.traffic.received_bytes.load(Relaxed);
        }
        traffic
    }
}
