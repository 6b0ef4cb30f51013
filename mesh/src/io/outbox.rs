//! What has been encrypted for a peer and not been sent yet.
//!
//! quinn hands out at most ten datagrams at a time, the system takes 64 in one
//! call, and the call is what costs. So the direct path collects: a full hand of
//! ten waits for more, until 48 are together, something else comes, or the task
//! that flushes has its turn (right after the sender's). Less than a full hand
//! is sent at once, so a single request never waits.
//!
//! When the socket or the relay's queue is full, or the relay is not there, what
//! is already encrypted stays here, and quinn is told to wait.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use derp::NodeKey;
use quinn::udp::EcnCodepoint;

use super::relay::Relays;
use super::udp::{Family, Udp};
use crate::packet::SEAL_LEN;
use crate::peer::MAX_INNER;
use crate::wg::MAX_HANDSHAKE;

/// The most datagrams the system takes in one call is 64; quinn comes with ten.
const MAX_COUNT: usize = 48;
/// The most bytes it takes in one call is just below 64 KiB.
const MAX_LEN: usize = 65_000;
/// A hand of this many datagrams means that more are likely to come.
pub(super) const FULL_HAND: usize = 10;
/// Times that a trusted path is used before it gets a socket of its own: one that
/// is used once or twice is not worth the descriptor.
const MUCH: u32 = 64;
/// As many times more it must be used each time that this has come to nothing, so that
/// a path that such a socket does not suit is seldom disturbed; that many times at most.
const MORE: u32 = 16;
const MOST_FAILURES: u32 = 3;
/// Room that encrypting one more datagram may need.
const HEADROOM: usize = if MAX_INNER + SEAL_LEN > MAX_HANDSHAKE {
    MAX_INNER + SEAL_LEN
} else {
    MAX_HANDSHAKE
};

/// What a sender has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocked {
    /// Room in the relay's queue.
    Relay,
    /// Room in a socket's buffer.
    Udp(Family),
}

/// Datagrams of one length for one address, and packets for the relay.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) scratch: Vec<u8>,
    bytes: Vec<u8>,
    len: usize,
    count: usize,
    stride: usize,
    to: Option<SocketAddr>,
    ecn: Option<EcnCodepoint>,
    relayed: VecDeque<Vec<u8>>,
    /// The last flush did not get everything sent.
    held_up: bool,
    /// The direct path that is not in doubt, and how often it has been used since.
    trusted: Option<SocketAddr>,
    used: u32,
    /// Whether that has a socket of its own, and how often one has come to nothing.
    connected: bool,
    failures: u32,
    /// Whether the flushing task knows about this outbox.
    pub(super) queued: bool,
}

impl Outbox {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0 && self.relayed.is_empty()
    }

    /// Whether senders have to wait for what is in here already.
    pub(super) const fn is_held_up(&self) -> bool {
        self.held_up
    }

    /// Whether `count` more datagrams of `stride` bytes for `to` can join those
    /// that wait.
    pub(super) fn takes(
        &self,
        to: Option<SocketAddr>,
        ecn: Option<EcnCodepoint>,
        stride: usize,
        count: usize,
    ) -> bool {
        self.len == 0
            || (self.to == to
                && self.ecn == ecn
                && self.stride == stride
                && self.len == self.count * stride
                && self.count + count <= MAX_COUNT
                && self.len + count * stride <= MAX_LEN)
    }

    /// Scratch space for the inner packet, and where the next datagram is to be
    /// encrypted to.
    pub(super) fn space(&mut self) -> (&mut [u8], &mut [u8]) {
        self.scratch.resize(MAX_INNER, 0);
        let needed = self.len + HEADROOM;
        if self.bytes.len() < needed {
            // Grows in few steps: a single datagram needs little, bulk all.
            let target = if needed > 4 * HEADROOM {
                MAX_LEN + HEADROOM
            } else {
                4 * HEADROOM
            };
            self.bytes.resize(target.max(needed), 0);
        }
        (&mut self.scratch, &mut self.bytes[self.len..])
    }

    /// A datagram of `len` bytes has been encrypted into [`Outbox::space`].
    pub(super) const fn push(&mut self, len: usize) {
        if self.len == 0 {
            self.stride = len;
        }
        self.len += len;
        self.count += 1;
    }

    /// Says where what was pushed goes.
    pub(super) const fn address(&mut self, to: Option<SocketAddr>, ecn: Option<EcnCodepoint>) {
        self.to = to;
        self.ecn = ecn;
    }

    /// The path is used, and trusted if one is named: if much, it gets a socket
    /// of its own, which it loses as soon as it is in doubt.
    pub(super) fn note_use(&mut self, trusted: Option<SocketAddr>, udp: &Udp) {
        if trusted != self.trusted {
            let failed = self.connected && trusted.is_none();
            self.disconnect(udp);
            self.failures += u32::from(failed);
            self.trusted = trusted;
        } else if let Some(to) = trusted.filter(|_| !self.connected) {
            self.used += 1;
            if self.used > MUCH * MORE.pow(self.failures.min(MOST_FAILURES)) {
                udp.connect(to);
                self.connected = true;
            }
        }
    }

    fn disconnect(&mut self, udp: &Udp) {
        if let Some(to) = self.trusted.filter(|_| self.connected) {
            udp.disconnect(to);
        }
        self.connected = false;
        self.used = 0;
    }

    /// Whether it is better to wait for more than to send now.
    pub(super) const fn wants_more(&self, hand: usize) -> bool {
        hand >= FULL_HAND
            && self.len == self.count * self.stride
            && self.count + FULL_HAND <= MAX_COUNT
    }

    /// How many bytes of datagrams wait.
    pub(super) const fn waiting(&self) -> usize {
        self.len
    }

    /// Gives the datagrams from byte `start` on to the relay. With `only`, what
    /// the relay does not take stays here; else it is lost, as another copy goes
    /// straight.
    pub(super) fn relay(&mut self, start: usize, only: bool, peer: &NodeKey, relays: &Relays) {
        if self.stride == 0 {
            return;
        }
        for datagram in self.bytes[start..self.len].chunks(self.stride) {
            let full = !self.relayed.is_empty() || relays.send(peer, datagram).is_err();
            if full && only {
                self.relayed.push_back(datagram.to_vec());
            }
        }
        if only {
            self.len = start;
            self.count = start / self.stride;
        }
    }

    /// Sends what waits.
    ///
    /// # Errors
    ///
    /// What to wait for, if not everything could be sent.
    pub(super) fn flush(
        &mut self,
        peer: &NodeKey,
        relays: &Relays,
        udp: Option<&Udp>,
    ) -> Result<(), Blocked> {
        self.held_up = true;
        while let Some(packet) = self.relayed.front() {
            relays.send(peer, packet).map_err(|_| Blocked::Relay)?;
            self.relayed.pop_front();
        }
        if let (Some(to), Some(udp)) = (self.to, udp)
            && self.len > 0
        {
            let mut start = 0;
            if self.connected && self.trusted == Some(to) {
                let there;
                let bytes = &self.bytes[..self.len];
                (start, there) = udp.send_connected(to, bytes, self.stride, self.ecn);
                if !there {
                    self.disconnect(udp);
                    self.failures += 1;
                }
            }
            // What has been sent is sent again if the rest has to wait. It does no harm.
            let rest = &self.bytes[start..self.len];
            let sent = udp.send_batch(to, rest, self.stride, self.ecn);
            if matches!(sent, Err(ref error) if error.kind() == io::ErrorKind::WouldBlock) {
                return Err(Blocked::Udp(udp.family_for(&to)));
            }
        }
        self.held_up = false;
        self.len = 0;
        self.count = 0;
        Ok(())
    }

    /// Gives up on what waits for the relay.
    pub(super) fn forget_relayed(&mut self) {
        self.relayed.clear();
    }

    /// Gives back what a peer at rest does not need, if nothing waits.
    pub(super) fn rest(&mut self, udp: Option<&Udp>) {
        if let Some(udp) = udp {
            self.disconnect(udp);
            self.trusted = None;
        }
        if self.is_empty() {
            self.bytes = Vec::new();
            self.scratch = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeKey = NodeKey::from_bytes([1; 32]);

    fn addr() -> Option<SocketAddr> {
        Some(SocketAddr::from(([127, 0, 0, 1], 9)))
    }

    /// An outbox with `count` datagrams of `len` bytes, each filled with its
    /// number.
    fn filled(count: u8, len: usize) -> Outbox {
        let mut outbox = Outbox::default();
        for number in 0..count {
            outbox.space().1[..len].fill(number);
            outbox.push(len);
        }
        outbox
    }

    #[test]
    fn what_the_relay_does_not_take_stays_in_order() {
        let relays = Relays::default();
        let mut outbox = filled(3, 100);
        outbox.relay(0, true, &PEER, &relays);
        assert_eq!(outbox.waiting(), 0);
        assert_eq!(outbox.flush(&PEER, &relays, None), Err(Blocked::Relay));
        assert!(outbox.is_held_up());
        let numbers: Vec<u8> = outbox.relayed.iter().map(|packet| packet[0]).collect();
        assert_eq!(numbers, [0, 1, 2]);
        outbox.forget_relayed();
        assert_eq!(outbox.flush(&PEER, &relays, None), Ok(()));
        assert!(!outbox.is_held_up() && outbox.is_empty());
    }

    #[test]
    fn a_second_copy_that_the_relay_does_not_take_is_dropped() {
        let mut outbox = filled(3, 100);
        outbox.relay(0, false, &PEER, &Relays::default());
        assert_eq!(outbox.waiting(), 300, "the first copy goes straight");
        assert!(outbox.relayed.is_empty());
    }

    #[test]
    fn only_equal_datagrams_for_one_address_are_collected() {
        let mut outbox = filled(10, 1000);
        outbox.address(addr(), None);
        assert!(outbox.takes(addr(), None, 1000, 10));
        assert!(!outbox.takes(addr(), None, 1001, 10));
        assert!(!outbox.takes(None, None, 1000, 10));
        assert!(!outbox.takes(addr(), Some(EcnCodepoint::Ce), 1000, 10));
        assert!(!outbox.takes(addr(), None, 1000, 39), "more than 48");
        outbox.push(999);
        assert!(!outbox.takes(addr(), None, 1000, 1), "after a short one");
        assert!(filled(0, 0).takes(addr(), None, 1312, 10));
    }

    #[test]
    fn a_full_hand_waits_and_less_does_not() {
        assert!(filled(10, 1312).wants_more(10));
        assert!(filled(30, 1312).wants_more(10));
        assert!(!filled(40, 1312).wants_more(10), "full");
        assert!(!filled(9, 1312).wants_more(9));
        let mut short = filled(9, 1312);
        short.push(100);
        assert!(
            !short.wants_more(10),
            "the last one is the end of something"
        );
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_path_that_is_used_much_has_a_socket_of_its_own_until_it_is_in_doubt() {
        let udp = Udp::bind(0).await.unwrap();
        let mut outbox = Outbox::default();
        let elsewhere = Some(SocketAddr::from(([127, 0, 0, 1], 10)));
        for (trusted, uses, lanes) in [
            (addr(), MUCH, 0),
            (addr(), 2, 1),
            (addr(), 200, 1),
            // Another path: at once no longer, and after as much use again.
            (elsewhere, MUCH, 0),
            (elsewhere, 2, 1),
            // In doubt, and only after much more use again.
            (None, 1, 0),
            (elsewhere, MUCH * MORE, 0),
            (elsewhere, 2, 1),
        ] {
            for _ in 0..uses {
                outbox.note_use(trusted, &udp);
            }
            assert_eq!(udp.lanes(), lanes, "{trusted:?} {uses}");
        }
        outbox.rest(Some(&udp));
        assert_eq!(udp.lanes(), 0);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_a_socket_of_its_own_does_not_take_goes_the_ordinary_way() {
        let udp = Udp::bind(0).await.unwrap();
        let peer = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = peer.local_addr().ok();
        let mut outbox = filled(0, 0);
        let mut send = |byte: u8, closed: bool| {
            outbox.note_use(to, &udp);
            if closed {
                udp.forget_lanes();
            }
            outbox.space().1[..100].fill(byte);
            outbox.push(100);
            outbox.address(to, None);
            assert_eq!(outbox.flush(&PEER, &Relays::default(), Some(&udp)), Ok(()));
            outbox.connected
        };
        for byte in 0..=255 {
            let connected = send(byte, byte == 200);
            assert_eq!(connected, (65..200).contains(&byte), "{byte}");
            let mut got = [0; 200];
            let heard = peer.recv(&mut got);
            let heard = tokio::time::timeout(std::time::Duration::from_secs(20), heard).await;
            assert_eq!(heard.unwrap().unwrap(), 100);
            assert_eq!(got[..100], [byte; 100]);
        }
    }
}
