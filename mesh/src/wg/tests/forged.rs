//! Datagrams that nobody should send: one row each, against a tunnel that works. Whatever comes of
//! one, the tunnel still does.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use boringtun::noise::Tunn;
use derp::{NodeKey, NodeSecret};

use crate::fuzzing::forged_initiation;
use crate::packet::{HEADER_LEN, Pair, Port};
use crate::wg::demux::{Class, Demux, Initiator, classify};
use crate::wg::{Opened, Sealed, Tunnel};

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// The u-coordinates of small order on Curve25519 and what is the same as they: a secret shared
/// with one of them is zero, and known to everybody.
const LOW_ORDER: [(&str, &str); 7] = [
    (
        "0",
        "0000000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "1",
        "0100000000000000000000000000000000000000000000000000000000000000",
    ),
    (
        "order 8",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    ),
    (
        "order 8 too",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    ),
    (
        "p - 1",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ),
    (
        "p",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ),
    (
        "p + 1",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ),
];

struct World {
    us: Tunnel,
    them: Tunnel,
    demux: Demux,
    our_key: NodeKey,
    pair: Pair,
    now: Instant,
}

impl World {
    /// Two with a session.
    fn new() -> Self {
        let now = Instant::now();
        let (ours, theirs) = (
            NodeSecret::from_bytes([1; 32]),
            NodeSecret::from_bytes([2; 32]),
        );
        let (demux, their_demux) = (Demux::new(&ours), Demux::new(&theirs));
        let mut world = Self {
            us: Tunnel::new(&ours, &theirs.public(), 7, demux.limiter(), now),
            them: Tunnel::new(&theirs, &ours.public(), 9, their_demux.limiter(), now),
            demux,
            our_key: ours.public(),
            pair: Pair {
                local: crate::address_of(&ours.public()),
                remote: crate::address_of(&theirs.public()),
            },
            now,
        };
        let mut initiation = Vec::new();
        world.them.initiate(false, now, &mut initiation);
        let (_, response) = world.take(&initiation[0]);
        let mut room = [0; 4096];
        let mut keepalive = Vec::new();
        world
            .them
            .open(SOURCE, &response[0], &mut room, now, &mut keepalive);
        world.take(&keepalive[0]);
        world.works("at first");
        world
    }

    fn take(&mut self, datagram: &[u8]) -> (Opened, Vec<Vec<u8>>) {
        let mut room = vec![0; 70_000];
        let mut reply = Vec::new();
        let opened = self
            .us
            .open(SOURCE, datagram, &mut room, self.now, &mut reply);
        (opened, reply)
    }

    /// An inner packet from them, whatever is in it.
    fn sealed(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 4096];
        let sealed = self.them.seal(packet, &mut out, self.now, &mut Vec::new());
        let Sealed::Data(len) = sealed else {
            panic!("{sealed:?}")
        };
        out.truncate(len);
        out
    }

    fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let there = Pair {
            local: self.pair.remote,
            remote: self.pair.local,
        };
        let mut packet = vec![0; HEADER_LEN + payload.len()];
        there.build(Port::Quic, payload, &mut packet);
        packet
    }

    #[track_caller]
    fn works(&mut self, row: &str) {
        let packet = self.packet(b"still here");
        let datagram = self.sealed(&packet);
        let (opened, _) = self.take(&datagram);
        assert_eq!(opened, Opened::Packet(packet.len()), "after {row}");
    }
}

fn of(kind: u32, len: usize) -> Vec<u8> {
    let mut datagram = vec![0xa5; len];
    datagram[..4].copy_from_slice(&kind.to_le_bytes());
    datagram
}

/// A data packet with a counter, for the session of ours with this index.
fn data(index: u32, counter: u64, len: usize) -> Vec<u8> {
    let mut datagram = of(4, 16 + len);
    datagram[4..8].copy_from_slice(&index.to_le_bytes());
    datagram[8..16].copy_from_slice(&counter.to_le_bytes());
    datagram
}

#[test]
fn a5_wireguard_what_has_no_form_is_garbage() {
    let mut rows: Vec<(String, Vec<u8>)> = Vec::new();
    for kind in (0..=255).filter(|kind| !(1..=4).contains(kind)) {
        rows.push((format!("type {kind}"), of(kind, 148)));
    }
    for (kind, len) in [(1, 148), (2, 92), (3, 64)] {
        for off in [len - 1, len + 1, len + 16, 2 * len, 4, 5, 65_507] {
            rows.push((format!("type {kind} of {off} bytes"), of(kind, off)));
        }
    }
    for len in 4..32 {
        rows.push((format!("data of {len} bytes"), of(4, len)));
    }
    for kind in 1..=4 {
        for place in 1..4 {
            let mut datagram = of(kind, 148);
            datagram[place] = 1;
            rows.push((format!("type {kind}, reserved byte {place}"), datagram));
        }
    }
    for len in 0..4 {
        rows.push((format!("{len} bytes"), vec![1; len]));
    }
    let mut world = World::new();
    for (row, datagram) in rows {
        assert_eq!(classify(&datagram), Class::Garbage, "{row}");
        let (opened, reply) = world.take(&datagram);
        assert!(matches!(opened, Opened::Refused), "{row}: {opened:?}");
        assert!(reply.is_empty(), "{row}: nobody is answered");
    }
    world.works("all of it");
}

#[test]
fn a5_wireguard_what_is_not_authentic_is_refused() {
    let mut world = World::new();
    let packet = world.packet(b"data");
    let real = world.sealed(&packet);
    let index = u32::from_le_bytes(*real[4..].first_chunk().unwrap());
    let mut rows: Vec<(String, Vec<u8>)> = Vec::new();
    for counter in [
        0,
        1,
        5,
        8191,
        8192,
        1 << 32,
        1 << 60,
        u64::MAX - 1,
        u64::MAX,
    ] {
        rows.push((format!("counter {counter}"), data(index, counter, 64)));
    }
    for other in [
        0,
        index ^ 1,
        index + 1,
        index.wrapping_sub(1),
        7 << 8 | 0xff,
        u32::MAX,
    ] {
        rows.push((format!("index {other:#x}"), data(other, 9, 64)));
    }
    for len in [16, 17, 31, 33, 47, 63, 1500, 9000, 65_000] {
        rows.push((format!("{len} bytes of noise"), data(index, 9, len)));
    }
    for at in 8..real.len() {
        let mut turned = real.clone();
        turned[at] ^= 1 << (at % 8);
        rows.push((format!("a bit of byte {at} turned"), turned));
    }
    for len in 32..real.len() {
        rows.push((format!("cut to {len} bytes"), real[..len].to_vec()));
    }
    for more in [1, 15, 16, 1000] {
        rows.push((
            format!("{more} bytes more"),
            [&real[..], &vec![0; more]].concat(),
        ));
    }
    rows.push(("a response to nothing".into(), of(2, 92)));
    rows.push(("a cookie for nothing".into(), of(3, 64)));
    rows.push(("an initiation without a mac".into(), of(1, 148)));
    for (row, datagram) in rows {
        let (opened, reply) = world.take(&datagram);
        let refused = matches!(opened, Opened::Refused | Opened::Stale);
        assert!(refused, "{row}: {opened:?}");
        assert!(reply.is_empty(), "{row}");
    }
    // None of it has used up the counter of the real one.
    assert_eq!(world.take(&real).0, Opened::Packet(packet.len()));
    assert_eq!(world.take(&real).0, Opened::Refused, "but it comes once");
    world.works("all of it");
}

/// First messages of somebody who knows our key, and therefore can make the first mac.
#[test]
fn a5_wireguard_initiations_with_a_right_mac_lead_nowhere() {
    let mut world = World::new();
    let hex = |text: &str| hex::decode(text).unwrap();
    let mut rows: Vec<(String, Vec<u8>)> = vec![
        ("zeros".into(), vec![0; 148]),
        ("noise".into(), of(1, 148)),
        ("ones".into(), vec![0xff; 148]),
        (
            "our own key".into(),
            [&[0; 8][..], world.our_key.as_bytes(), &[0xa5; 108]].concat(),
        ),
    ];
    for (name, point) in LOW_ORDER {
        let point = hex(point);
        for index in [0_u32, 7 << 8, u32::MAX] {
            let head = [&[1, 0, 0, 0][..], &index.to_le_bytes()].concat();
            let row = format!("the point {name}, index {index:#x}");
            rows.push((row, [&head[..], &point, &[0xa5; 108]].concat()));
        }
    }
    for (number, (row, content)) in (0..).zip(rows) {
        // Far enough apart for the limit of an address not to be what refuses.
        let now = world.now + Duration::from_secs(number);
        let datagram = forged_initiation(&world.our_key, &content);
        assert!(Tunn::parse_incoming_packet(&datagram).is_ok(), "{row}");
        let found = world.demux.initiator(SOURCE, &datagram, now);
        assert!(matches!(found, Initiator::Nobody), "{row}: somebody");
        let (opened, reply) = world.take(&datagram);
        assert_eq!((opened, reply.len()), (Opened::Refused, 0), "{row}");
    }
    world.works("all of it");
}

/// Past the limit strangers get a cookie, which is shorter than what they sent, and the peer that
/// has a session does not notice.
#[test]
fn a5_wireguard_a_flood_of_initiations_gets_cookies_at_most() {
    let mut world = World::new();
    let mut cookies = 0;
    for number in 0..2_000_u32 {
        let content = [&[0; 8][..], &number.to_le_bytes(), &[9; 100]].concat();
        let datagram = forged_initiation(&world.our_key, &content);
        match world.demux.initiator(SOURCE, &datagram, world.now) {
            Initiator::Cookie(cookie) => {
                assert_eq!(cookie.len(), 64);
                assert!(cookie.len() < datagram.len(), "nothing is amplified");
                cookies += 1;
            }
            Initiator::Nobody => {}
            Initiator::Key(key) => panic!("{key:?}"),
        }
        if number % 500 == 0 {
            world.works("some of it");
        }
    }
    assert!(cookies > 1_000, "{cookies}");
    world.works("all of it");
}

/// What an authentic peer may put inside: only our packets, from its own address.
#[test]
fn a5_wireguard_inner_packets_of_a_peer_that_lies() {
    let mut world = World::new();
    let good = world.packet(b"payload");
    let turned = |at: usize, to: u8| {
        let mut packet = good.clone();
        packet[at] = to;
        packet
    };
    let mut fragment = good.clone();
    fragment[6] = 44;
    let ipv4_of = |len: u16| {
        let [high, low] = len.to_be_bytes();
        let head = [
            0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        [&head[..], &[0; 20]].concat()
    };
    let mut rows: Vec<(&str, Vec<u8>)> = vec![
        ("another source", turned(20, 0xee)),
        ("our own address as source", {
            let mut packet = good.clone();
            packet.copy_within(24..40, 8);
            packet
        }),
        ("another destination", turned(39, 0xee)),
        ("another port", turned(43, 0xee)),
        ("TCP", turned(6, 6)),
        ("ICMP", turned(6, 58)),
        ("a fragment", fragment),
        ("an IPv4 packet", ipv4_of(40)),
        ("an IPv4 packet longer than it is", ipv4_of(0xff00)),
        ("an IPv4 packet of no length", ipv4_of(0)),
        ("version 0", turned(0, 0)),
        ("version 15", turned(0, 0xf0)),
        ("a UDP length too long", turned(45, 0xff)),
        ("a UDP length of zero", turned(45, 0)),
        ("an IPv6 length too long", turned(4, 0xff)),
        ("a header alone", good[..40].to_vec()),
        ("half a header", good[..20].to_vec()),
        ("one byte", vec![0x60]),
        ("nothing but zeros", vec![0; 100]),
    ];
    rows.push(("no port", good[..44].to_vec()));
    for (row, packet) in rows {
        let datagram = world.sealed(&packet);
        let mut room = vec![0; 4096];
        let opened = world
            .us
            .open(SOURCE, &datagram, &mut room, world.now, &mut Vec::new());
        if let Opened::Packet(len) = opened {
            assert_eq!(world.pair.parse(&room[..len]), None, "{row} is for nobody");
        }
        world.works(row);
    }
    for _ in 0..1_000 {
        let keepalive = world.sealed(&[]);
        assert_eq!(world.take(&keepalive).0, Opened::Nothing);
    }
    world.works("a thousand keepalives");
}
