//! Segments, hosts and NATs: where a datagram ends up, and what it looks like
//! there.
//!
//! Segment 0 is the internet; every other one is a network behind a NAT. A
//! datagram that finds nobody in its segment goes through the segment's NAT
//! into the next one. Addresses behind different NATs are often the same, as in
//! life, so that probes meet strangers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::rng::Rng;

/// NATs forget a mapping after that long without a datagram (RFC 4787 asks for
/// two minutes; many do half a minute).
const LIFETIME: Duration = Duration::from_secs(30);

/// What is alike for all: does the NAT choose a port per destination, and whose
/// datagrams does it let in?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// One port for all; lets everybody in.
    FullCone,
    /// One port for all; lets in whose address was sent to.
    Restricted,
    /// One port for all; lets in whose address and port were sent to.
    PortRestricted,
    /// A port for each destination; lets in whose address and port were sent to.
    Symmetric,
}

pub(super) const KINDS: [Kind; 4] = [
    Kind::FullCone,
    Kind::Restricted,
    Kind::PortRestricted,
    Kind::Symmetric,
];

#[derive(Clone, Debug)]
struct Mapping {
    inside: SocketAddr,
    port: u16,
    /// Only of a symmetric NAT.
    to: Option<SocketAddr>,
    allowed: BTreeMap<SocketAddr, Instant>,
    used: Instant,
}

/// The way out of a segment.
#[derive(Clone, Debug)]
pub(super) struct Nat {
    kind: Kind,
    hairpin: bool,
    outside: usize,
    ip: IpAddr,
    mappings: Vec<Mapping>,
}

/// Where a host is, and what its line is like.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// `None`: unplugged.
    pub(super) segment: Option<usize>,
    pub(super) ip: IpAddr,
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    /// Lost datagrams in a thousand, each way.
    pub(super) loss: u64,
    /// Datagrams in a thousand that come twice.
    pub(super) twice: u64,
    /// The longest IP packet.
    pub(super) mtu: usize,
    /// No datagram passes, though TCP does.
    pub(super) no_udp: bool,
}

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) host: usize,
    pub(super) port: u16,
    pub(super) source: SocketAddr,
}

/// All segments and what is in them.
#[derive(Clone, Debug, Default)]
pub(super) struct Net {
    /// By segment; the internet has none.
    nats: Vec<Option<Nat>>,
    pub(super) hosts: Vec<Host>,
}

impl Net {
    pub(super) fn new() -> Self {
        Self {
            nats: vec![None],
            hosts: vec![],
        }
    }

    /// A new segment behind a NAT with a foot in `outside`.
    pub(super) fn add_segment(&mut self, kind: Kind, hairpin: bool, outside: usize) -> usize {
        let segment = self.nats.len();
        let ip = if outside == 0 {
            Ipv4Addr::new(203, 0, 113, segment as u8)
        } else {
            Ipv4Addr::new(100, 64, 0, segment as u8)
        };
        self.nats.push(Some(Nat {
            kind,
            hairpin,
            outside,
            ip: ip.into(),
            mappings: vec![],
        }));
        segment
    }

    /// A free address in a segment.
    pub(super) fn address_in(&self, segment: usize, host: usize) -> IpAddr {
        if segment == 0 {
            return Ipv4Addr::new(198, 51, 100, 10 + host as u8).into();
        }
        let here = |last: u8| IpAddr::from([192, 168, (segment % 2) as u8, last]);
        let taken = |ip: IpAddr| {
            let mut hosts = self.hosts.iter();
            hosts.any(|h| h.segment == Some(segment) && h.ip == ip)
        };
        let mut all = (10..250).map(here);
        all.find(|ip| !taken(*ip)).unwrap()
    }

    /// The NATs forget everything, as after a power cut.
    pub(super) fn forget_mappings(&mut self, segment: usize) {
        if let Some(nat) = &mut self.nats[segment] {
            nat.mappings.clear();
        }
    }

    /// Carries a datagram of `size` bytes (without IP and UDP headers) from a
    /// port of a host; without loss, which is the caller's.
    pub(super) fn carry(
        &mut self,
        from: (usize, u16),
        to: SocketAddr,
        size: usize,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<Delivery> {
        let host = &self.hosts[from.0];
        let mut segment = host.segment?;
        if host.no_udp || size + 28 > host.mtu {
            return None;
        }
        let mut source = SocketAddr::new(host.ip, from.1);
        let mut to = to;
        // Out, as far as needed, then in. More hops than segments is a loop.
        for _ in 0..8 {
            if let Some(found) = self.host_at(segment, to.ip()) {
                let host = &self.hosts[found];
                let fits = !host.no_udp && size + 28 <= host.mtu;
                return fits.then_some(Delivery {
                    host: found,
                    port: to.port(),
                    source,
                });
            }
            if let Some(inner) = self.nat_at(segment, to.ip()) {
                to = self.nats[inner].as_mut()?.inward(source, to.port(), now)?;
                segment = inner;
                continue;
            }
            let nat = self.nats[segment].as_mut()?;
            if nat.ip == to.ip() && !nat.hairpin {
                return None;
            }
            source = nat.outward(source, to, now, rng);
            segment = nat.outside;
        }
        None
    }

    fn host_at(&self, segment: usize, ip: IpAddr) -> Option<usize> {
        let mut hosts = self.hosts.iter();
        hosts.position(|host| host.segment == Some(segment) && host.ip == ip)
    }

    fn nat_at(&self, segment: usize, ip: IpAddr) -> Option<usize> {
        let at = |nat: &Nat| nat.outside == segment && nat.ip == ip;
        self.nats
            .iter()
            .position(|nat| nat.as_ref().is_some_and(at))
    }
}

impl Nat {
    fn outward(
        &mut self,
        source: SocketAddr,
        to: SocketAddr,
        now: Instant,
        rng: &mut Rng,
    ) -> SocketAddr {
        self.mappings
            .retain(|mapping| now < mapping.used + LIFETIME);
        let key = (self.kind == Kind::Symmetric).then_some(to);
        let mut known = self.mappings.iter();
        let at = known.position(|mapping| mapping.inside == source && mapping.to == key);
        let at = at.unwrap_or_else(|| {
            let port = loop {
                let port = 1024 + rng.below(64_512) as u16;
                if self.mappings.iter().all(|mapping| mapping.port != port) {
                    break port;
                }
            };
            self.mappings.push(Mapping {
                inside: source,
                port,
                to: key,
                allowed: BTreeMap::new(),
                used: now,
            });
            self.mappings.len() - 1
        });
        let mapping = &mut self.mappings[at];
        mapping.used = now;
        mapping.allowed.insert(to, now);
        SocketAddr::new(self.ip, mapping.port)
    }

    fn inward(&mut self, source: SocketAddr, port: u16, now: Instant) -> Option<SocketAddr> {
        let alive = |at: Instant| now < at + LIFETIME;
        let kind = self.kind;
        let mut known = self.mappings.iter_mut();
        let mapping = known.find(|mapping| mapping.port == port && alive(mapping.used))?;
        let mut allowed = mapping.allowed.iter().filter(|(_, at)| alive(**at));
        let good = match kind {
            Kind::FullCone => true,
            Kind::Restricted => allowed.any(|(to, _)| to.ip() == source.ip()),
            Kind::PortRestricted | Kind::Symmetric => allowed.any(|(to, _)| *to == source),
        };
        if !good {
            return None;
        }
        mapping.used = now;
        if let Some(at) = mapping.allowed.get_mut(&source) {
            *at = now;
        }
        Some(mapping.inside)
    }
}

mod tests {
    use super::*;

    /// A host behind a NAT of this kind, and two outside.
    fn net(kind: Kind) -> Net {
        let mut net = Net::new();
        let lan = net.add_segment(kind, false, 0);
        for segment in [lan, 0, 0] {
            let host = net.hosts.len();
            let ip = net.address_in(segment, host);
            net.hosts.push(Host {
                segment: Some(segment),
                ip,
                delay: Duration::ZERO,
                jitter: Duration::ZERO,
                loss: 0,
                twice: 0,
                mtu: 1500,
                no_udp: false,
            });
        }
        net
    }

    #[test]
    fn nats_are_what_they_are_called() {
        // Lets in: the one sent to, another port of it, another host. And:
        // whether both hosts see one address.
        let table = [
            (Kind::FullCone, [true, true, true], true),
            (Kind::Restricted, [true, true, false], true),
            (Kind::PortRestricted, [true, false, false], true),
            (Kind::Symmetric, [true, false, false], false),
        ];
        let now = Instant::now();
        for (kind, lets_in, same) in table {
            let mut rng = Rng::new(1);
            let mut net = net(kind);
            let outside = [1, 2].map(|host: usize| SocketAddr::new(net.hosts[host].ip, 7));
            let mut send = |from, to, now| net.carry(from, to, 100, now, &mut rng);
            let seen = send((0, 5), outside[0], now).unwrap().source;
            let got = [(1, 7), (1, 8), (2, 7)].map(|from| send(from, seen, now).is_some());
            assert_eq!(got, lets_in, "{kind:?}");
            let other = send((0, 5), outside[1], now).unwrap().source;
            assert_eq!(other == seen, same, "{kind:?}");
            assert!(send((1, 7), seen, now + LIFETIME).is_none(), "{kind:?}");
        }
    }

    #[test]
    fn what_is_too_long_or_unplugged_is_lost() {
        let now = Instant::now();
        let mut rng = Rng::new(1);
        let mut net = net(Kind::FullCone);
        let to = SocketAddr::new(net.hosts[1].ip, 7);
        net.hosts[1].mtu = 1300;
        assert!(net.carry((0, 5), to, 1272, now, &mut rng).is_some());
        assert!(net.carry((0, 5), to, 1273, now, &mut rng).is_none());
        net.hosts[1].segment = None;
        assert!(net.carry((0, 5), to, 1, now, &mut rng).is_none());
    }
}
