//! Datagrams: how they are sent, delayed, lost and doubled, and who gets them. The relays' STUN servers
//! are among those.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::relay::State;
use super::run::{MS, What, World};
use crate::path::Via;

/// Where a relay's machine answers STUN.
pub(super) const STUN_PORT: u16 = 3478;
/// Where it does so too, which tells a NAT that gives each destination another port.
const OTHER_PORT: u16 = 3479;

impl World {
    /// Sends a datagram into the network.
    pub(super) fn send_udp(&mut self, node: usize, to: SocketAddr, bytes: &[u8]) {
        self.sent[node] += 1;
        let port = self.nodes[node].port_for(to);
        self.carry((node, port), to, bytes);
    }

    /// Carries a datagram from a port of a host to whoever is there.
    pub(super) fn carry(&mut self, from: (usize, u16), to: SocketAddr, bytes: &[u8]) {
        let (now, size) = (self.now, bytes.len());
        let Some(there) = self.net.carry(from, to, size, now, &mut self.rng) else {
            return;
        };
        self.watched.gets_there(from.0, to, size, now);
        let [a, b] = [from.0, there.host].map(|host| &self.net.hosts[host]);
        let near = a.segment == b.segment && a.segment != Some(0);
        let delay = if near { MS } else { a.delay + b.delay };
        let jitter = (a.jitter + b.jitter).as_micros() as u64;
        let (loss, twice) = ([a.loss, b.loss], a.twice + b.twice);
        if loss.iter().any(|loss| self.rng.permille(*loss)) {
            return;
        }
        let copies = 1 + usize::from(self.rng.permille(twice));
        let bytes: Rc<[u8]> = bytes.into();
        for _ in 0..copies {
            let at = now + delay + self.rng.micros(jitter);
            let what = What::Datagram {
                host: there.host,
                port: there.port,
                source: there.source,
                bytes: Rc::clone(&bytes),
            };
            self.push(at, what);
        }
    }

    /// A datagram has arrived.
    pub(super) fn datagram(
        &mut self,
        host: usize,
        port: u16,
        source: SocketAddr,
        bytes: &[u8],
    ) -> Result<(), String> {
        if let Some(relay) = host.checked_sub(self.nodes_len()) {
            self.answer_stun(relay, source, port, bytes);
            return Ok(());
        }
        if !self.is_awake(host) || !self.nodes[host].listens(port, source) {
            return Ok(());
        }
        self.take(host, Via::Direct(source), None, bytes)
    }

    fn answer_stun(&mut self, relay: usize, source: SocketAddr, port: u16, request: &[u8]) {
        let IpAddr::V4(ip) = source.ip() else { return };
        let known = [STUN_PORT, OTHER_PORT].contains(&port);
        if !known || request.len() != 20 || self.relays[relay].state != State::Up {
            return;
        }
        let mut answer = request.to_vec();
        answer[..4].copy_from_slice(&[1, 1, 0, 24]);
        answer.extend([0, 1, 0, 8, 0, 1]);
        answer.extend(source.port().to_be_bytes());
        answer.extend(ip.octets());
        answer.extend([0x80, 0x2c, 0, 8, 0, 1]);
        answer.extend(OTHER_PORT.to_be_bytes());
        answer.extend([0; 4]);
        self.carry((self.nodes_len() + relay, port), source, &answer);
    }
}
