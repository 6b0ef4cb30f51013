//! Where others see us: asking the relay's STUN server.
//!
//! From behind a NAT a node cannot know its own address. It asks every 20 s,
//! which also keeps the NAT's mapping open (they close after 30 s), and at once
//! when the machine has other addresses or has slept. A question goes out up to
//! five times, and its answer is believed once, from the server that was asked.
//!
//! A server that listens at a second port is asked there, too, once for each
//! address that it finds: if the answers differ, the NAT in front of us gives us
//! another address for each of those we talk to.
//!
//! Peers see us, too: a pong says where its probe came from ([`Reflector::handle_seen`]).
//! If that is the address the server saw, the NAT gives us one address whomever
//! we talk to, and anybody who knows it can reach us once we have sent
//! something there; if not, it gives us another one for each of them.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::stun::{self, Id};

const REFRESH: Duration = Duration::from_secs(20);
/// Pauses between the tries of one question; the last one ends it.
const PAUSES_MS: [u64; 5] = [100, 200, 400, 800, 800];

/// How the NAT in front of us, if any, chooses the address that others see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mapping {
    /// Not known (yet).
    #[default]
    Unknown,
    /// The same for all of them (RFC 4787: endpoint-independent).
    Same,
    /// Another one for each of them.
    Varies,
}

/// A node as those outside its NAT see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outside {
    /// Where the relay's server sees it.
    pub(crate) addr: SocketAddr,
    /// Whether others see it there, too.
    pub(crate) mapping: Mapping,
}

/// Asks, and remembers what was answered.
#[derive(Debug, Default)]
pub(crate) struct Reflector {
    server: Option<SocketAddr>,
    asked: Option<Id>,
    tries: usize,
    due: Option<Instant>,
    found: Option<SocketAddr>,
    /// The server's second port, while it is being asked there.
    second: Option<SocketAddr>,
    /// It was asked there for `found`.
    compared: bool,
    /// Questions in a row that nobody has answered.
    unanswered: u32,
    /// Where a peer has seen us last.
    seen: Option<SocketAddr>,
    mapping: Mapping,
}

impl Reflector {
    /// Says which server to ask, or none.
    pub(crate) fn set_server(&mut self, server: Option<SocketAddr>, now: Instant) {
        if self.server != server {
            *self = Self {
                server,
                due: server.map(|_| now),
                ..Self::default()
            };
        }
    }

    /// Our address as the server sees it.
    pub(crate) const fn found(&self) -> Option<SocketAddr> {
        self.found
    }

    /// What is known about the NAT.
    pub(crate) const fn mapping(&self) -> Mapping {
        self.mapping
    }

    /// Whether there is a server, and it has left the last question unanswered.
    pub(crate) const fn is_unanswered(&self) -> bool {
        self.server.is_some() && self.unanswered > 0
    }

    /// Where we are seen from outside and how that is chosen, for a peer that
    /// may have to guess.
    pub(crate) fn outside(&self) -> Option<Outside> {
        let addr = self.found.filter(|_| self.mapping != Mapping::Unknown)?;
        let mapping = self.mapping;
        Some(Outside { addr, mapping })
    }

    /// The machine has other addresses now, or has slept: what was found is
    /// void.
    pub(crate) fn handle_move(&mut self, now: Instant) {
        let server = self.server.take();
        self.set_server(server, now);
    }

    /// A peer sees us at this address. Returns whether that changes what is
    /// known. Where no server tells our address, a peer's word is better than
    /// none.
    pub(crate) fn handle_seen(&mut self, seen: SocketAddr) -> bool {
        let Some(found) = self.found else {
            return self.seen.replace(seen) != Some(seen);
        };
        // An address of our own, or one inside the NAT, says nothing about it.
        if found.ip() != seen.ip() {
            return false;
        }
        let mapping = if found == seen {
            Mapping::Same
        } else {
            Mapping::Varies
        };
        std::mem::replace(&mut self.mapping, mapping) != mapping
    }

    /// The addresses that peers are told, best first: the one seen from outside
    /// and that of a port the gateway lends, so that a machine with many interfaces
    /// does not cut them off, then our own.
    pub(crate) fn endpoints(
        &self,
        mapped: Option<SocketAddr>,
        own: &[SocketAddr],
    ) -> Vec<SocketAddr> {
        let outside = self.found.or(self.seen);
        let mapped = mapped.filter(|addr| Some(*addr) != outside);
        let told = |addr: &SocketAddr| Some(*addr) == outside || Some(*addr) == mapped;
        let own = own.iter().filter(|addr| !told(addr));
        let first = outside.iter().chain(&mapped);
        first.chain(own).copied().collect()
    }

    /// When [`Reflector::handle_timeout`] wants to be called.
    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Whom to send what, if it is time to. `id` is a random number.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        id: Id,
    ) -> Option<(SocketAddr, [u8; 20])> {
        let server = self.server?;
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        if self.tries >= PAUSES_MS.len() {
            // No answer: the server is away. What it found may well be true yet.
            if self.second.take().is_none() {
                self.unanswered = self.unanswered.saturating_add(1);
            }
            self.asked = None;
            self.tries = 0;
            self.due = Some(now + REFRESH);
            return None;
        }
        let id = *self.asked.get_or_insert(id);
        self.due = Some(now + Duration::from_millis(PAUSES_MS[self.tries]));
        self.tries += 1;
        Some((self.second.unwrap_or(server), stun::request(&id)))
    }

    /// Takes a datagram that is not WireGuard's. Returns whether something is
    /// known now that was not, or there is more to ask.
    pub(crate) fn handle(&mut self, source: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        let Some(answer) = stun::parse_response(datagram) else {
            return false;
        };
        let asked = self.second.or(self.server);
        if asked != Some(source) || self.asked != Some(answer.id) {
            return false;
        }
        self.asked = None;
        self.tries = 0;
        self.due = Some(now + REFRESH);
        if self.second.take().is_some() {
            return self.compare(answer.addr);
        }
        self.unanswered = 0;
        let new = self.found.replace(answer.addr) != Some(answer.addr);
        if new {
            self.mapping = Mapping::Unknown;
            self.compared = false;
        }
        // At the same host: nobody may send us elsewhere.
        let second = answer
            .other
            .map(|at| SocketAddr::new(source.ip(), at.port()));
        let second = second.filter(|at| !self.compared && *at != source && at.port() != 0);
        if second.is_some() {
            self.compared = true;
            self.second = second;
            self.due = Some(now);
        }
        new || second.is_some()
    }

    /// The server sees us at this address when asked at its second port.
    fn compare(&mut self, addr: SocketAddr) -> bool {
        let mapping = if self.found == Some(addr) {
            Mapping::Same
        } else {
            Mapping::Varies
        };
        std::mem::replace(&mut self.mapping, mapping) != mapping
    }
}

/// Whether a machine that had these addresses and now has those has moved: one
/// is gone that packets may have left from, or it had none. A further one, as of
/// a container's bridge, changes nothing for what is under way.
pub(crate) fn has_moved(before: &[IpAddr], after: &[IpAddr]) -> bool {
    let outside = |ips: &[IpAddr]| ips.iter().any(|ip| !ip.is_loopback());
    before.iter().any(|ip| !after.contains(ip)) || (!outside(before) && outside(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: SocketAddr =
        SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 3478);

    fn response(request: &[u8], port: u8) -> Vec<u8> {
        let mut response = request.to_vec();
        response[0..4].copy_from_slice(&[1, 1, 0, 12]);
        response.extend([0, 1, 0, 8, 0, 1, 0, port, 192, 0, 2, 9]);
        response
    }

    #[test]
    fn only_the_asked_server_is_believed_and_only_once() {
        let now = Instant::now();
        let other = SocketAddr::from(([192, 0, 2, 2], 3478));
        let mut reflector = Reflector::default();
        assert!(reflector.handle_timeout(now, [1; 12]).is_none());
        reflector.set_server(Some(SERVER), now);
        let (to, request) = reflector.handle_timeout(now, [7; 12]).unwrap();
        assert_eq!(to, SERVER);
        let response = response(&request, 80);
        assert!(!reflector.handle(other, &response, now));
        let mut forged = response.clone();
        forged[8] ^= 1;
        assert!(!reflector.handle(SERVER, &forged, now));
        assert!(reflector.handle(SERVER, &response, now));
        assert_eq!(reflector.found(), Some("192.0.2.9:80".parse().unwrap()));
        assert!(
            !reflector.handle(SERVER, &response, now),
            "already answered"
        );
        reflector.set_server(None, now);
        assert_eq!(reflector.found(), None);
        assert_eq!(reflector.poll_timeout(), None);
    }

    #[test]
    fn a_question_is_repeated_then_given_up_then_asked_again() {
        let start = Instant::now();
        let mut reflector = Reflector::default();
        reflector.set_server(Some(SERVER), start);
        let mut now = start;
        let mut ids = vec![];
        while let Some((_, request)) = reflector.handle_timeout(now, [ids.len() as u8; 12]) {
            ids.push(request[8..].to_vec());
            now = reflector.poll_timeout().unwrap();
        }
        assert_eq!(ids, vec![vec![0; 12]; PAUSES_MS.len()], "one question");
        assert_eq!(reflector.poll_timeout(), Some(now + REFRESH));
        let now = now + REFRESH;
        let (_, request) = reflector.handle_timeout(now, [9; 12]).unwrap();
        assert_eq!(request[8..], [9; 12]);
    }

    #[test]
    fn peers_tell_whether_the_nat_gives_one_address_to_all() {
        let now = Instant::now();
        let mut reflector = Reflector::default();
        reflector.set_server(Some(SERVER), now);
        let (_, request) = reflector.handle_timeout(now, [7; 12]).unwrap();
        reflector.handle(SERVER, &response(&request, 80), now);
        assert!(
            !reflector.handle_seen("10.0.0.9:80".parse().unwrap()),
            "inside"
        );
        assert_eq!(reflector.mapping(), Mapping::Unknown);
        assert!(reflector.handle_seen("192.0.2.9:80".parse().unwrap()));
        assert_eq!(reflector.mapping(), Mapping::Same);
        assert!(reflector.handle_seen("192.0.2.9:81".parse().unwrap()));
        assert_eq!(reflector.mapping(), Mapping::Varies);
        reflector.handle_move(now);
        assert_eq!(
            (reflector.found(), reflector.mapping()),
            (None, Mapping::Unknown)
        );
        assert_eq!(reflector.poll_timeout(), Some(now));
    }

    #[test]
    fn a_second_port_of_the_server_shows_how_the_nat_chooses() {
        let now = Instant::now();
        let second = SocketAddr::new(SERVER.ip(), 3479);
        // An address elsewhere, and the port that counts.
        let other = [0x80, 0x2c, 0, 8, 0, 1, 0x0d, 0x97, 203, 0, 113, 5];
        for (port, mapping) in [(80, Mapping::Same), (81, Mapping::Varies)] {
            let mut reflector = Reflector::default();
            reflector.set_server(Some(SERVER), now);
            let (_, request) = reflector.handle_timeout(now, [7; 12]).unwrap();
            let mut first = response(&request, 80);
            first[3] += 12;
            first.extend(other);
            assert!(reflector.handle(SERVER, &first, now));
            assert_eq!(reflector.outside(), None);
            let (to, request) = reflector.handle_timeout(now, [8; 12]).unwrap();
            assert_eq!(to, second);
            let answer = response(&request, port);
            assert!(!reflector.handle(SERVER, &answer, now), "asked elsewhere");
            assert!(reflector.handle(second, &answer, now));
            assert_eq!(reflector.mapping(), mapping);
            let found = "192.0.2.9:80".parse().unwrap();
            let addr = reflector.outside().unwrap().addr;
            assert_eq!((addr, reflector.found()), (found, Some(found)));
            // The same address again: nothing more to ask.
            let later = now + REFRESH;
            let (to, request) = reflector.handle_timeout(later, [9; 12]).unwrap();
            assert_eq!(to, SERVER);
            let mut again = response(&request, 80);
            again[3] += 12;
            again.extend(other);
            assert!(!reflector.handle(SERVER, &again, later));
            assert_eq!(reflector.poll_timeout(), Some(later + REFRESH));
        }
    }

    #[test]
    fn a_second_port_that_is_silent_is_not_asked_again() {
        let mut now = Instant::now();
        let mut reflector = Reflector::default();
        reflector.set_server(Some(SERVER), now);
        let (_, request) = reflector.handle_timeout(now, [7; 12]).unwrap();
        let mut first = response(&request, 80);
        first[3] += 12;
        first.extend([0x80, 0x2c, 0, 8, 0, 1, 0x0d, 0x97, 0, 0, 0, 0]);
        assert!(reflector.handle(SERVER, &first, now));
        while reflector.handle_timeout(now, [8; 12]).is_some() {
            now = reflector.poll_timeout().unwrap();
        }
        assert!(!reflector.is_unanswered(), "the first port has answered");
        let later = reflector.poll_timeout().unwrap();
        assert_eq!(later, now + REFRESH);
        let (to, _) = reflector.handle_timeout(later, [9; 12]).unwrap();
        assert_eq!(to, SERVER);
        assert_eq!(reflector.mapping(), Mapping::Unknown);
    }

    #[test]
    fn a_machine_moves_when_an_address_goes_or_the_first_one_comes() {
        let [lo, a, b] = ["127.0.0.1", "192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
        assert!(!has_moved(&[lo, a], &[lo, a]));
        assert!(!has_moved(&[lo, a], &[lo, a, b]), "one more");
        assert!(has_moved(&[lo, a, b], &[lo, a]), "one less");
        assert!(has_moved(&[lo, a], &[lo, b]), "another one");
        assert!(has_moved(&[lo], &[lo, a]), "the first one");
    }

    #[test]
    fn the_address_from_outside_comes_first_and_once() {
        let now = Instant::now();
        let own = [1, 9].map(|n| SocketAddr::from(([192, 0, 2, n], 80)));
        let mut reflector = Reflector::default();
        assert_eq!(reflector.endpoints(None, &own), own);
        let seen = "192.0.2.3:5".parse().unwrap();
        assert!(reflector.handle_seen(seen));
        assert_eq!(reflector.endpoints(None, &own), [seen, own[0], own[1]]);
        // A port that the gateway lends comes after it, and nothing comes twice.
        let lent = SocketAddr::from(([192, 0, 2, 9], 7777));
        let with = reflector.endpoints(Some(lent), &own);
        assert_eq!(with, [seen, lent, own[0], own[1]]);
        let with = reflector.endpoints(Some(seen), &own);
        assert_eq!(with, [seen, own[0], own[1]]);
        reflector.set_server(Some(SERVER), now);
        let (_, request) = reflector.handle_timeout(now, [7; 12]).unwrap();
        reflector.handle(SERVER, &response(&request, 80), now);
        assert_eq!(reflector.endpoints(None, &own), [own[1], own[0]]);
    }
}
