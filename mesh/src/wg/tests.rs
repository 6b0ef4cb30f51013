//! Two tunnels that talk through vectors.

mod forged;

use std::net::{IpAddr, Ipv4Addr};

use derp::NodeSecret;

use super::demux::{Class, Demux, Initiator, classify};
use super::*;
use crate::packet::{HEADER_LEN, Pair, Port};

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

struct Node {
    tunnel: Tunnel,
    demux: Demux,
    pair: Pair,
    key: NodeKey,
}

fn nodes(now: Instant) -> (Node, Node) {
    let secrets = [1, 2].map(|n| NodeSecret::from_bytes([n; 32]));
    let node = |mine: &NodeSecret, theirs: &NodeSecret, index| {
        let demux = Demux::new(mine);
        Node {
            tunnel: Tunnel::new(mine, &theirs.public(), index, demux.limiter(), now),
            demux,
            pair: Pair {
                local: crate::address_of(&mine.public()),
                remote: crate::address_of(&theirs.public()),
            },
            key: mine.public(),
        }
    };
    let [a, b] = &secrets;
    (node(a, b, 7), node(b, a, 9))
}

impl Node {
    fn send(&mut self, payload: &[u8], now: Instant) -> (Option<Vec<u8>>, Vec<Vec<u8>>) {
        let mut packet = vec![0; HEADER_LEN + payload.len()];
        self.pair.build(Port::Quic, payload, &mut packet);
        let mut out = vec![0; 4096];
        let mut emitted = vec![];
        match self.tunnel.seal(&packet, &mut out, now, &mut emitted) {
            Sealed::Data(len) => (Some(out[..len].to_vec()), emitted),
            Sealed::Queued | Sealed::Refused => (None, emitted),
        }
    }

    /// What came out, and what goes back.
    fn receive(&mut self, datagram: &[u8], now: Instant) -> (Opened, Vec<u8>, Vec<Vec<u8>>) {
        let mut out = vec![0; 70_000];
        let mut reply = vec![];
        let opened = self
            .tunnel
            .open(SOURCE, datagram, &mut out, now, &mut reply);
        let payload = match opened {
            Opened::Packet(len) => {
                assert_eq!(self.pair.parse(&out[..len]), Some(Port::Quic));
                out[HEADER_LEN..len].to_vec()
            }
            _ => vec![],
        };
        (opened, payload, reply)
    }
}

/// Brings up a session with `a` as the initiator.
fn connect(a: &mut Node, b: &mut Node, now: Instant) {
    let (_, init) = a.send(b"first", now);
    let (_, _, response) = b.receive(&init[0], now);
    let (_, _, rest) = a.receive(&response[0], now);
    assert_eq!(rest.len(), 2, "a keepalive and the queued packet");
    assert_eq!(b.receive(&rest[0], now).0, Opened::Nothing);
    assert_eq!(b.receive(&rest[1], now).1, b"first");
    assert!(a.tunnel.take_established() && b.tunnel.take_established());
}

#[test]
fn packets_get_through_both_ways() {
    let now = Instant::now();
    let (mut a, mut b) = nodes(now);
    assert!(!a.tunnel.has_session());
    connect(&mut a, &mut b, now);
    assert!(a.tunnel.has_session() && b.tunnel.has_session());
    let (data, emitted) = b.send(b"back", now);
    assert!(emitted.is_empty());
    let data = data.unwrap();
    assert_eq!(classify(&data), Class::For(7));
    assert_eq!(a.receive(&data, now).1, b"back");
    assert_eq!(a.receive(&data, now).0, Opened::Refused, "a replay");
    assert!(!a.tunnel.take_established(), "no new session");
}

#[test]
fn the_same_initiation_is_repeated_and_the_same_response_too() {
    let now = Instant::now();
    let (mut a, mut b) = nodes(now);
    let (_, init) = a.send(b"x", now);
    let mut again = vec![];
    let step = a.tunnel.poll_timeout();
    assert_eq!(step, now + Duration::from_millis(50));
    a.tunnel.tick(step, &mut again);
    assert_eq!(again, init, "identical bytes");

    let (_, _, first) = b.receive(&init[0], now);
    let (_, _, second) = b.receive(&init[0], now + Duration::from_secs(9));
    assert_eq!(first, second, "identical response");
    let (opened, _, late) = b.receive(&init[0], now + Duration::from_secs(11));
    assert_eq!((opened, late.len()), (Opened::Refused, 0));

    // The first response got lost; the second one completes the handshake.
    let (_, _, rest) = a.receive(&second[0], now);
    assert_eq!(b.receive(&rest[1], now).1, b"x");
    assert!(a.tunnel.poll_timeout() > step + Duration::from_millis(200));
}

#[test]
fn forged_packets_of_any_length_are_refused() {
    let now = Instant::now();
    let (mut a, mut b) = nodes(now);
    connect(&mut a, &mut b, now);
    for kind in 0..=5u8 {
        for len in (0..300).chain([1312, 3000, 9000, 65_507, 65_536]) {
            let mut forged = vec![0xa5; len];
            for (at, byte) in [kind, 0, 0, 0].into_iter().enumerate().take(len) {
                forged[at] = byte;
            }
            if len >= 12 {
                forged[4..8].copy_from_slice(&(7u32 << 8 | 1).to_le_bytes());
                forged[8..12].copy_from_slice(&(7u32 << 8 | 1).to_le_bytes());
            }
            let (opened, ..) = a.receive(&forged, now);
            assert!(matches!(opened, Opened::Refused | Opened::Stale));
        }
    }
    // A buffer shorter than the datagram never reaches boringtun.
    let mut forged = vec![0; 3000];
    forged[0] = 4;
    let mut short = [0; 2048];
    let opened = a.tunnel.open(SOURCE, &forged, &mut short, now, &mut vec![]);
    assert_eq!(opened, Opened::Refused);
    let (data, _) = b.send(b"still here", now);
    assert_eq!(a.receive(&data.unwrap(), now).1, b"still here");
}

#[test]
fn lengths_that_boringtun_would_panic_on_are_refused() {
    let now = Instant::now();
    let (mut a, mut b) = nodes(now);
    let packet = [0; MAX_PACKET + 1];
    let mut out = [0; 4096];
    let tunnel = &mut a.tunnel;
    let sealed = tunnel.seal(&packet, &mut out, now, &mut vec![]);
    assert_eq!(sealed, Sealed::Refused);
    let sealed = tunnel.seal(&packet[1..], &mut out[..MAX_PACKET], now, &mut vec![]);
    assert_eq!(sealed, Sealed::Refused);
    // A full packet waits, and goes out whatever the response's buffer was.
    let mut init = vec![];
    let sealed = tunnel.seal(&packet[1..], &mut out, now, &mut init);
    assert_eq!(sealed, Sealed::Queued);
    let (_, _, response) = b.receive(&init[0], now);
    let mut reply = vec![];
    let mut short = [0; MAX_HANDSHAKE];
    tunnel.open(SOURCE, &response[0], &mut short, now, &mut reply);
    let lengths: Vec<_> = reply.iter().map(Vec::len).collect();
    assert_eq!(
        lengths,
        [SEAL_LEN, MAX_PACKET + SEAL_LEN],
        "with the keepalive"
    );
}

#[test]
fn two_that_begin_at_once_do_not_replace_their_initiations() {
    let now = Instant::now();
    let (mut a, mut b) = nodes(now);
    let first = a.send(b"from a", now).1;
    let second = b.send(b"from b", now).1;
    let mut flying = (first, second);
    let mut got = (vec![], vec![]);
    for round in 0..4 {
        // Both go on sending before an answer can come.
        let later = now + Duration::from_millis(10 * round);
        assert_eq!(a.send(b"more", later).1.len(), 0, "round {round}");
        assert_eq!(b.send(b"more", later).1.len(), 0, "round {round}");
        let mut next = (vec![], vec![]);
        for datagram in flying.0 {
            let (opened, payload, reply) = b.receive(&datagram, later);
            got.1
                .extend(matches!(opened, Opened::Packet(_)).then_some(payload));
            next.1.extend(reply);
        }
        for datagram in flying.1 {
            let (opened, payload, reply) = a.receive(&datagram, later);
            got.0
                .extend(matches!(opened, Opened::Packet(_)).then_some(payload));
            next.0.extend(reply);
        }
        flying = next;
    }
    assert!(a.tunnel.has_session() && b.tunnel.has_session());
    assert!(got.0.contains(&b"from b".to_vec()), "{got:?}");
    assert!(got.1.contains(&b"from a".to_vec()), "{got:?}");
}

#[test]
fn the_initiator_makes_new_keys_and_nobody_uses_old_ones() {
    let start = Instant::now();
    let (mut a, mut b) = nodes(start);
    connect(&mut a, &mut b, start);
    let tick = |node: &mut Node, now| {
        let mut emitted = vec![];
        node.tunnel.tick(now, &mut emitted);
        emitted
            .into_iter()
            .filter(|bytes| is_initiation(bytes))
            .count()
    };
    let now = start + REKEY_AFTER - Duration::from_secs(1);
    a.send(b"in use", now);
    b.send(b"in use", now);
    assert_eq!(tick(&mut a, now), 0);
    let now = start + REKEY_AFTER;
    assert_eq!(tick(&mut a, now), 1);
    assert_eq!(tick(&mut b, now), 0, "not the initiator's task");
    assert!(!b.tunnel.is_spent(now));
    assert!(b.tunnel.is_spent(start + REJECT_AFTER));
}

#[test]
fn a_stranger_and_a_restarted_peer_are_told_apart_from_garbage() {
    let now = Instant::now();
    let (mut a, mut b) = nodes(now);
    connect(&mut a, &mut b, now);
    let (data, _) = a.send(b"to the old process", now);
    let (_, mut restarted) = nodes(now);
    assert_eq!(restarted.receive(&data.unwrap(), now).0, Opened::Stale);
    // It starts a handshake of its own beside a's old session.
    let mut init = vec![];
    restarted.tunnel.initiate(true, now, &mut init);
    let (_, _, response) = a.receive(&init[0], now);
    let (_, _, rest) = restarted.receive(&response[0], now);
    a.receive(&rest[0], now);
    assert!(a.tunnel.take_established() && restarted.tunnel.take_established());
    let (data, _) = a.send(b"to the new one", now);
    assert_eq!(restarted.receive(&data.unwrap(), now).1, b"to the new one");
}

#[test]
fn the_initiator_is_known_from_its_first_message() {
    let now = Instant::now();
    let (mut a, b) = nodes(now);
    let (_, init) = a.send(b"x", now);
    assert_eq!(classify(&init[0]), Class::Initiation);
    let Initiator::Key(key) = b.demux.initiator(SOURCE, &init[0], now) else {
        panic!("not recognised");
    };
    assert_eq!(key, a.key);
    let mut bad = init[0].clone();
    bad[20] ^= 1;
    assert!(matches!(
        b.demux.initiator(SOURCE, &bad, now),
        Initiator::Nobody
    ));
    // For somebody else.
    assert!(matches!(
        a.demux.initiator(SOURCE, &init[0], now),
        Initiator::Nobody
    ));
}

#[test]
fn under_load_an_initiator_gets_a_cookie_and_comes_back_with_it() {
    let now = Instant::now();
    let (mut a, mut b) = nodes(now);
    let (_, init) = a.send(b"x", now);
    for _ in 0..HANDSHAKES_PER_SECOND {
        b.demux.initiator(SOURCE, &init[0], now);
    }
    let (opened, _, cookie) = b.receive(&init[0], now);
    assert_eq!((opened, cookie[0][0]), (Opened::Nothing, 3));
    let (_, _, again) = a.receive(&cookie[0], now);
    assert_ne!(again, init);
    let (_, _, response) = b.receive(&again[0], now);
    assert_eq!(response[0][0], 2);
}

#[test]
fn simultaneous_initiations_end_in_a_working_tunnel() {
    let now = Instant::now();
    let (mut a, mut b) = nodes(now);
    let (_, init_a) = a.send(b"from a", now);
    let (_, init_b) = b.send(b"from b", now);
    let (_, _, response_b) = b.receive(&init_a[0], now);
    let (_, _, response_a) = a.receive(&init_b[0], now);
    let (_, _, rest_a) = a.receive(&response_b[0], now);
    let (_, _, rest_b) = b.receive(&response_a[0], now);
    let got: Vec<_> = rest_a.iter().map(|d| b.receive(d, now).1).collect();
    assert!(got.contains(&b"from a".to_vec()));
    let got: Vec<_> = rest_b.iter().map(|d| a.receive(d, now).1).collect();
    assert!(got.contains(&b"from b".to_vec()));
}

#[test]
fn a_peer_that_never_answers_and_an_idle_tunnel_are_given_up() {
    let now = Instant::now();
    let (mut a, mut b) = nodes(now);
    a.send(b"x", now);
    assert!(!a.tunnel.is_spent(now + GIVE_UP - TICK));
    assert!(a.tunnel.is_spent(now + GIVE_UP));
    let (mut a, _) = nodes(now);
    connect(&mut a, &mut b, now);
    assert!(!a.tunnel.is_spent(now + GIVE_UP));
    assert!(a.tunnel.is_spent(now + IDLE));
}

#[test]
fn a_quiet_tunnel_asks_for_no_timer() {
    let now = Instant::now();
    let (mut a, mut b) = nodes(now);
    connect(&mut a, &mut b, now);
    let mut at = now;
    let mut ticks = 0;
    while at < now + QUIET_AFTER * 2 {
        at = a.tunnel.poll_timeout();
        a.tunnel.tick(at, &mut vec![]);
        ticks += 1;
        assert!(ticks < 40, "runs for ever");
    }
    assert!(a.tunnel.is_spent(at));
}
