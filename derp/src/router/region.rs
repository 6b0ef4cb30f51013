//! Several servers, one region: a client may be at any of them.
//!
//! Each server connects to every other one as a client that holds the mesh key
//! of the region (a *link*), and says `WatchConns`. From then on the other says
//! who is there: `PeerPresent` for each of its clients, at first and whenever
//! one connects, `PeerGone` when one has left. A packet for a key that is not
//! here, but there, goes over the link as `ForwardPacket`; the other server
//! gives it to its client, and to nobody else: there is one hop. If that client
//! has just left, the answer is `PeerGone` once more.
//!
//! A key may be at two servers for a moment, when its client has moved and one
//! of them does not know yet. Who connected last receives: `PeerPresent` that
//! does not answer the question of the beginning outweighs a connection here
//! until that sends a packet or a ping. (The answers to that question carry a
//! flag that other implementations do not know, and ignore.) A client that is at
//! two servers, and has lost one of them without a word, says to the other that
//! this is its home now (`NotePreferred`), and is told of anew, though not at any
//! rate.
//!
//! A link whose other end does not answer is over after some seconds, and made anew
//! ([`Limits::link_silence`](super::Limits)): what goes by it meanwhile is lost.
//!
//! What is told of presence is not queued but looked up when it is written, so
//! a server that reads slowly costs no more than one entry a key. Packets wait
//! for a link like for any client. From a link nobody waits, or one client's
//! full queue would hold up those of all others: what does not fit is dropped.

use std::collections::HashSet;
use std::time::Instant;

use super::conn::Role;
use super::limits::MAX_AWAY;
use super::{ConnId, Outcome, Router};
use crate::NodeKey;
use crate::frame::{self, ForwardPacket, Frame, PeerGone, PeerPresent, Reason, WatchConns};
use crate::handshake::Introduction;

/// Flag of `PeerPresent`: a regular client.
const REGULAR: u8 = 1;
/// Flag of `PeerPresent`: was here before the question came.
const BEFORE: u8 = 0x40;
/// Clients named in one chunk.
const NAMES: usize = 1_000;

/// Somebody who is connected to other servers of the region.
#[derive(Debug, Default)]
pub(super) struct Away {
    /// The links to them; the last one has it since last.
    links: Vec<ConnId>,
    /// Clients here that it exchanged packets with.
    known: HashSet<NodeKey>,
}

/// Of whom another server is yet to be told.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Who was here when it asked.
    before: Vec<NodeKey>,
    /// Who has come or gone since.
    changed: HashSet<NodeKey>,
}

impl<H: Clone> Router<H> {
    /// Adds a connection that we have made to another server of the region,
    /// with the mesh key. `seed` is any random number.
    pub fn handle_link(&mut self, server: NodeKey, handle: H, now: Instant, seed: u64) -> ConnId {
        let client = Introduction {
            key: server,
            can_ack_pings: true,
            is_mesh: true,
            is_prober: false,
        };
        let id = self.add(client, Role::Link, handle, now, seed);
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.control(&WatchConns, &mut self.counters);
        }
        id
    }

    /// How many servers of the region we are connected to.
    pub fn links(&self) -> usize {
        self.conns.values().filter(|conn| conn.is_link()).count()
    }

    /// Whether we are connected to the server of the region with this key.
    pub fn is_linked(&self, server: &NodeKey) -> bool {
        let mut conns = self.conns.values();
        conns.any(|conn| conn.is_link() && conn.client.key == *server)
    }

    /// How many clients other servers of the region have.
    pub fn away(&self) -> usize {
        self.away.len()
    }

    /// Whether somebody with this key is connected to another server of the
    /// region.
    pub fn is_away(&self, key: &NodeKey) -> bool {
        self.away.contains_key(key)
    }

    /// The link to the server where `key` is.
    pub(super) fn link_to(&self, key: &NodeKey) -> Option<ConnId> {
        self.away.get(key)?.links.last().copied()
    }

    /// Remembers that a client here has exchanged packets with one elsewhere.
    pub(super) fn acquaint(&mut self, away: NodeKey, here: NodeKey) {
        let limit = self.limits.known;
        if let Some(away) = self.away.get_mut(&away)
            && away.known.len() < limit
        {
            away.known.insert(here);
        }
    }

    /// Another server wants to know who is here.
    pub(super) fn handle_watch(&mut self, id: ConnId) {
        let before = self.peers.keys().copied().collect();
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        let changed = HashSet::new();
        conn.role = Role::Server(Some(Watch { before, changed }));
        if !self.watchers.contains(&id) {
            self.watchers.push(id);
        }
        self.wake_idle(id);
    }

    /// Somebody has come, or gone.
    pub(super) fn tell_watchers(&mut self, key: NodeKey) {
        for id in self.watchers.clone() {
            if let Some(conn) = self.conns.get_mut(&id)
                && let Role::Server(Some(watch)) = &mut conn.role
            {
                watch.changed.insert(key);
                self.wake_idle(id);
            }
        }
    }

    /// The next bytes about who is here, for a server that wants to know.
    pub(super) fn poll_presence(&mut self, id: ConnId) -> Option<Vec<u8>> {
        let conn = self.conns.get_mut(&id)?;
        let Role::Server(Some(watch)) = &mut conn.role else {
            return None;
        };
        let (keys, flags): (Vec<NodeKey>, u8) = if watch.before.is_empty() {
            let keys: Vec<_> = watch.changed.iter().take(NAMES).copied().collect();
            for key in &keys {
                watch.changed.remove(key);
            }
            (keys, REGULAR)
        } else {
            let rest = watch.before.len().saturating_sub(NAMES);
            (watch.before.split_off(rest), REGULAR | BEFORE)
        };
        let mut out = Vec::new();
        for key in keys {
            if self.peers.contains_key(&key) {
                let (address, flags) = (None, Some(flags));
                let present = PeerPresent {
                    key,
                    address,
                    flags,
                };
                frame::encode(&present, &mut out);
            } else {
                let reason = Reason::DISCONNECTED;
                frame::encode(&PeerGone { key, reason }, &mut out);
            }
        }
        (!out.is_empty()).then_some(out)
    }

    /// Another server says who is there, or is no more.
    pub(super) fn handle_presence(&mut self, link: ConnId, frame: &Frame<'_>) {
        match frame {
            Frame::PeerPresent(present) => {
                let before = present.flags.is_some_and(|flags| flags & BEFORE != 0);
                self.handle_present(link, present.key, before);
            }
            Frame::PeerGone(gone) => self.handle_absent(link, gone.key),
            _ => {}
        }
    }

    fn handle_present(&mut self, link: ConnId, key: NodeKey, before: bool) {
        if self.away.len() >= MAX_AWAY && !self.away.contains_key(&key) {
            return;
        }
        let away = self.away.entry(key).or_default();
        let last = away.links.last().copied();
        away.links.retain(|other| *other != link);
        let at = if before { 0 } else { away.links.len() };
        away.links.insert(at, link);
        let mut is_news = away.links.last().copied() != last;
        if let Some(peer) = self.peers.get_mut(&key)
            && !before
        {
            is_news |= !std::mem::replace(&mut peer.moved, true);
        }
        // Routes are looked up anew only if one may lead elsewhere now.
        self.epoch += u64::from(is_news);
    }

    fn handle_absent(&mut self, link: ConnId, key: NodeKey) {
        let Some(away) = self.away.get_mut(&key) else {
            return;
        };
        away.links.retain(|other| *other != link);
        self.epoch += 1;
        if !away.links.is_empty() {
            return;
        }
        let known = self.away.remove(&key).map(|away| away.known);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.moved = false;
        } else {
            self.tell_gone(key, known.unwrap_or_default());
        }
    }

    /// A link is over, and with it all that was known by it.
    pub(super) fn drop_link(&mut self, link: ConnId) {
        let through = |away: &Away| away.links.contains(&link);
        let away = self.away.iter().filter(|(_, away)| through(away));
        let keys: Vec<_> = away.map(|(key, _)| *key).collect();
        for key in keys {
            self.handle_absent(link, key);
        }
    }

    /// Another server has a packet for one of our clients.
    pub(super) fn handle_forward(
        &mut self,
        link: ConnId,
        packet: &ForwardPacket<'_>,
        now: Instant,
    ) -> Outcome {
        let here = self.peers.get(&packet.to);
        let Some(to) = here.and_then(|peer| peer.conns.last().copied()) else {
            self.not_here(link, packet.to, now);
            return Outcome::Taken;
        };
        self.acquaint(packet.from, packet.to);
        self.deliver(link, to, (packet.from, packet.to), packet.data, now)
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::{TELL_BURST, TELL_EVERY};
    use super::super::{Limits, Transmit};
    use super::*;
    use crate::frame::{NotePreferred, Receives, SendPacket, decode};

    /// Two servers and the links between them, driven by hand.
    struct Region {
        routers: [Router<&'static str>; 2],
        /// What the other server is to each: its connection here, and our link
        /// to it.
        servers: [ConnId; 2],
        links: [ConnId; 2],
        now: Instant,
    }

    fn key(byte: u8) -> NodeKey {
        NodeKey::from_bytes([byte; 32])
    }

    fn introduction(byte: u8, is_mesh: bool) -> Introduction {
        Introduction {
            key: key(byte),
            can_ack_pings: true,
            is_mesh,
            is_prober: false,
        }
    }

    impl Region {
        fn new() -> Self {
            let now = Instant::now();
            let mut routers = [(); 2].map(|()| Router::new(Limits::default()));
            let servers = [1, 0].map(|other: u8| {
                let client = introduction(200 + other, true);
                routers[usize::from(1 - other)].handle_connect(client, "server", now, 7)
            });
            let links = [1, 0].map(|other: u8| {
                routers[usize::from(1 - other)].handle_link(key(200 + other), "link", now, 7)
            });
            Self {
                routers,
                servers,
                links,
                now,
            }
        }

        fn join(&mut self, at: usize, byte: u8) -> ConnId {
            self.routers[at].handle_connect(introduction(byte, false), "client", self.now, 7)
        }

        /// Carries between the servers what they have for each other.
        fn carry(&mut self) {
            let mut quiet = false;
            while !quiet {
                quiet = true;
                for at in [0, 1] {
                    let other = 1 - at;
                    // Our link is the other's incoming connection.
                    for (out, into) in [
                        (self.links[at], self.servers[other]),
                        (self.servers[at], self.links[other]),
                    ] {
                        if let Transmit::Chunk(bytes) = self.routers[at].poll_transmit(out) {
                            quiet = false;
                            self.feed(other, into, &bytes);
                        }
                    }
                }
            }
        }

        fn feed(&mut self, at: usize, into: ConnId, bytes: &[u8]) {
            let mut rest = bytes;
            while let Some((frame, used)) = decode(Receives::Client, rest).unwrap() {
                let outcome = self.routers[at].handle_frame(into, &frame, self.now);
                assert_eq!(outcome.unwrap(), Outcome::Taken);
                rest = &rest[used..];
            }
        }

        fn send(&mut self, at: usize, from: ConnId, to: u8, data: &[u8]) {
            let to = key(to);
            let frame = Frame::SendPacket(SendPacket { to, data });
            let sent = self.routers[at].handle_frame(from, &frame, self.now);
            assert_eq!(sent.unwrap(), Outcome::Taken);
            self.carry();
        }

        /// What a client reads: packets, and who is gone.
        fn read(&mut self, at: usize, id: ConnId) -> Vec<(u8, Vec<u8>)> {
            let mut found = Vec::new();
            while let Transmit::Chunk(bytes) = self.routers[at].poll_transmit(id) {
                let mut rest = &bytes[..];
                while let Some((frame, used)) = decode(Receives::Client, rest).unwrap() {
                    match frame {
                        Frame::RecvPacket(packet) => {
                            found.push((packet.from.as_bytes()[0], packet.data.to_vec()));
                        }
                        Frame::PeerGone(gone) => {
                            found.push((gone.key.as_bytes()[0], b"gone".to_vec()));
                        }
                        _ => {}
                    }
                    rest = &rest[used..];
                }
            }
            found
        }
    }

    #[test]
    fn clients_of_two_servers_exchange_packets() {
        let mut region = Region::new();
        let one = region.join(0, 1);
        region.carry();
        let two = region.join(1, 2);
        region.carry();
        assert!(region.routers[0].is_away(&key(2)) && region.routers[1].is_away(&key(1)));
        region.send(0, one, 2, b"there");
        assert_eq!(region.read(1, two), [(1, b"there".to_vec())]);
        region.send(1, two, 1, b"back");
        assert_eq!(region.read(0, one), [(2, b"back".to_vec())]);
        assert_eq!(region.routers[0].counters().forwarded, 1);
        // Who leaves is missed at the other server, too.
        region.routers[1].handle_disconnect(two);
        region.carry();
        assert_eq!(region.read(0, one), [(2, b"gone".to_vec())]);
        assert_eq!(region.routers[0].away(), 0);
    }

    #[test]
    fn who_was_there_before_is_known_however_many() {
        let mut region = Region::new();
        for number in 0..3 * NAMES {
            let mut bytes = [9; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            let mut client = introduction(0, false);
            client.key = NodeKey::from_bytes(bytes);
            region.routers[1].handle_connect(client, "client", region.now, 7);
        }
        region.carry();
        assert_eq!(region.routers[0].away(), 3 * NAMES);
        region.routers[0].handle_disconnect(region.links[0]);
        assert_eq!(region.routers[0].away(), 0);
        assert_eq!(region.routers[0].links(), 0);
    }

    #[test]
    fn a_client_that_moves_is_found_where_it_went() {
        let mut region = Region::new();
        let sender = region.join(0, 1);
        let old = region.join(0, 2);
        region.carry();
        region.send(0, sender, 2, b"first");
        assert_eq!(region.read(0, old), [(1, b"first".to_vec())]);
        // It turns up at the other server; nobody has told this one that the
        // old connection is dead.
        let new = region.join(1, 2);
        region.carry();
        region.send(0, sender, 2, b"second");
        assert_eq!(region.read(0, old), []);
        assert_eq!(region.read(1, new), [(1, b"second".to_vec())]);
        // When the old one goes at last, nobody is told that the client is gone.
        region.routers[0].handle_disconnect(old);
        assert_eq!(region.read(0, sender), []);
        region.send(0, sender, 2, b"third");
        assert_eq!(region.read(1, new), [(1, b"third".to_vec())]);
        // And it is missed when it leaves there.
        region.routers[1].handle_disconnect(new);
        region.carry();
        assert_eq!(region.read(0, sender), [(2, b"gone".to_vec())]);
    }

    #[test]
    fn who_has_lost_one_of_two_servers_is_found_at_the_other() {
        let mut region = Region::new();
        let sender = region.join(0, 1);
        let kept = region.join(1, 2);
        region.carry();
        let lost = region.join(0, 2);
        region.carry();
        region.send(0, sender, 2, b"first");
        assert_eq!(region.read(0, lost), [(1, b"first".to_vec())]);
        // Nothing gets through to the client here any more, and nobody knows but itself.
        let near = region.join(1, 3);
        region.carry();
        for (preferred, found) in [(false, [2, 0]), (true, [0, 2])] {
            let note = Frame::NotePreferred(NotePreferred { preferred });
            let now = region.now;
            region.routers[1].handle_frame(kept, &note, now).unwrap();
            region.carry();
            region.send(0, sender, 2, b"next");
            region.send(1, near, 2, b"next");
            let got = [region.read(0, lost), region.read(1, kept)].map(|got| got.len());
            assert_eq!(got, found);
        }
    }

    #[test]
    fn a_client_is_not_told_of_at_any_rate() {
        let mut region = Region::new();
        let client = region.join(1, 2);
        region.carry();
        let note = Frame::NotePreferred(NotePreferred { preferred: true });
        let told = |region: &mut Region| {
            let now = region.now;
            region.routers[1].handle_frame(client, &note, now).unwrap();
            let server = region.servers[1];
            matches!(region.routers[1].poll_transmit(server), Transmit::Chunk(_))
        };
        let at_once = (0..100).filter(|_| told(&mut region)).count();
        assert_eq!(at_once, TELL_BURST as usize);
        region.now += TELL_EVERY;
        assert!(told(&mut region));
        assert!(!told(&mut region));
    }

    #[test]
    fn who_is_at_both_servers_and_asks_here_is_found_here() {
        let mut region = Region::new();
        let (sender, here) = (region.join(0, 1), region.join(0, 2));
        region.carry();
        let there = region.join(1, 2);
        region.carry();
        region.send(0, sender, 2, b"round about");
        assert_eq!(region.read(1, there), [(1, b"round about".to_vec())]);
        let ping = Frame::Ping(frame::Ping { data: [1; 8] });
        let taken = region.routers[0].handle_frame(here, &ping, region.now);
        assert_eq!(taken.unwrap(), Outcome::Taken);
        region.send(0, sender, 2, b"straight");
        assert_eq!(region.read(0, here), [(1, b"straight".to_vec())]);
        assert_eq!(region.read(1, there), []);
    }

    #[test]
    fn who_is_here_before_the_link_stays_here() {
        let mut region = Region::new();
        let (here, sender) = (region.join(0, 2), region.join(0, 1));
        region.join(1, 2);
        // Both servers learn of the other's by the first question: that says
        // nothing about who was first.
        region.carry();
        region.send(0, sender, 2, b"x");
        assert_eq!(region.read(0, here), [(1, b"x".to_vec())]);
    }

    #[test]
    fn a_packet_makes_one_hop() {
        let mut region = Region::new();
        let sender = region.join(0, 1);
        let gone = region.join(1, 2);
        region.carry();
        // It goes, but the word of it is still under way; and both servers
        // believe it to be at the other one.
        region.routers[1].handle_disconnect(gone);
        let link = region.links[1];
        region.routers[1].handle_present(link, key(2), false);
        region.send(0, sender, 2, b"x");
        assert_eq!(region.routers[1].counters().not_here, 1);
        assert_eq!(region.read(0, sender), [(2, b"gone".to_vec())]);
    }

    #[test]
    fn only_servers_give_orders() {
        let mut region = Region::new();
        let client = region.join(0, 1);
        for frame in [
            Frame::WatchConns(WatchConns),
            Frame::ForwardPacket(ForwardPacket {
                from: key(3),
                to: key(1),
                data: b"x",
            }),
        ] {
            let taken = region.routers[0].handle_frame(client, &frame, region.now);
            assert!(taken.is_err());
        }
        let claim = Frame::PeerPresent(PeerPresent {
            key: key(7),
            address: None,
            flags: None,
        });
        for id in [client, region.servers[0]] {
            let _ = region.routers[0].handle_frame(id, &claim, region.now);
        }
        assert_eq!(region.routers[0].away(), 0);
    }

    #[test]
    fn nobody_waits_for_the_client_of_another_server() {
        let mut region = Region::new();
        region.join(1, 2);
        let packet = Frame::ForwardPacket(ForwardPacket {
            from: key(1),
            to: key(2),
            data: &[7; 60_000],
        });
        for _ in 0..100 {
            let taken = region.routers[1].handle_frame(region.servers[1], &packet, region.now);
            assert_eq!(taken.unwrap(), Outcome::Taken);
        }
        assert!(region.routers[1].counters().dropped > 0);
        assert_eq!(region.routers[1].counters().held_up, 0);
    }

    #[test]
    fn a_dead_link_is_noticed_and_a_quiet_one_kept() {
        let limits = Limits::default();
        let most = limits.link_silence + 2 * limits.link_keep_alive;
        for answers in [true, false] {
            let mut region = Region::new();
            let (link, start) = (region.links[0], region.now);
            while region.now < start + most {
                region.now = region.routers[0].poll_timeout(link).unwrap();
                region.routers[0].handle_timeout(link, region.now);
                if answers {
                    region.carry();
                }
            }
            let mut last = region.routers[0].poll_transmit(link);
            while let Transmit::Chunk(_) = last {
                last = region.routers[0].poll_transmit(link);
            }
            let is_closed = matches!(last, Transmit::Close(_));
            assert_eq!(is_closed, !answers, "{last:?}");
        }
    }
}
