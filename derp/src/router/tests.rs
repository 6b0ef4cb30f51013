//! The router on its own, with a clock moved by hand.

use proptest::prelude::*;

use super::*;
use crate::frame::{KeepAlive, Ping, Reason, Receives, SendPacket, WatchConns, decode};

/// A router and what drives it.
struct World {
    router: Router<&'static str>,
    now: Instant,
}

/// What a client reads, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Got {
    Packet(NodeKey, Vec<u8>),
    Gone(NodeKey, Reason),
    Other(u8),
}

impl World {
    fn new(limits: Limits) -> Self {
        Self {
            router: Router::new(limits),
            now: Instant::now(),
        }
    }

    fn connect(&mut self, name: &'static str) -> ConnId {
        self.connect_as(name, false)
    }

    fn connect_as(&mut self, name: &'static str, can_ack_pings: bool) -> ConnId {
        let client = Introduction {
            key: key(name),
            can_ack_pings,
            is_mesh: false,
            is_prober: false,
        };
        let id = self.router.handle_connect(client, name, self.now, 7);
        if !can_ack_pings {
            assert_eq!(self.router.poll_transmit(id), Transmit::Idle);
        }
        id
    }

    fn send(&mut self, from: ConnId, to: &str, data: &[u8]) -> Outcome {
        let to = key(to);
        let frame = Frame::SendPacket(SendPacket { to, data });
        self.router.handle_frame(from, &frame, self.now).unwrap()
    }

    fn fill(&mut self, from: ConnId, to: &str) -> usize {
        let mut sent = 0;
        while self.send(from, to, &[9; 1000]) == Outcome::Taken {
            sent += 1;
        }
        sent
    }

    /// One chunk, as the client reads it.
    fn chunk(&mut self, id: ConnId) -> Vec<Got> {
        let Transmit::Chunk(bytes) = self.router.poll_transmit(id) else {
            return Vec::new();
        };
        let mut rest = &bytes[..];
        let mut found = Vec::new();
        while let Some((frame, used)) = decode(Receives::Client, rest).unwrap() {
            found.push(match frame {
                Frame::RecvPacket(packet) => Got::Packet(packet.from, packet.data.to_vec()),
                Frame::PeerGone(gone) => Got::Gone(gone.key, gone.reason),
                other => Got::Other(other.kind()),
            });
            rest = &rest[used..];
        }
        found
    }

    fn drain(&mut self, id: ConnId) -> Vec<Got> {
        let mut found = Vec::new();
        loop {
            let some = self.chunk(id);
            if some.is_empty() {
                return found;
            }
            found.extend(some);
        }
    }

    fn wakes(&mut self) -> Vec<&'static str> {
        let mut wakes = Vec::new();
        self.router.poll_wakes(&mut wakes);
        wakes
    }
}

fn key(name: &str) -> NodeKey {
    let mut bytes = [0; 32];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    NodeKey::from_bytes(bytes)
}

fn small() -> Limits {
    Limits {
        queue: 100_000,
        ..Limits::default()
    }
}

const HEALTH: Got = Got::Other(0x14);

#[test]
fn a_packet_goes_to_its_key_and_wakes_once() {
    let mut world = World::new(small());
    let (a, b) = (world.connect("a"), world.connect("b"));
    assert_eq!(world.send(a, "b", b"one"), Outcome::Taken);
    assert_eq!(world.send(a, "b", b"two"), Outcome::Taken);
    assert_eq!(world.wakes(), ["b"]);
    let packets = [b"one", b"two"].map(|data| Got::Packet(key("a"), data.to_vec()));
    assert_eq!(world.drain(b), packets);
    assert_eq!(world.drain(a), []);
    assert_eq!(world.router.counters().packets, 2);
    assert_eq!(world.router.counters().bytes, 6);
}

#[test]
fn a_full_queue_holds_the_sender_up_and_loses_nothing() {
    let mut world = World::new(small());
    let (a, b) = (world.connect("a"), world.connect("b"));
    let sent = world.fill(a, "b");
    assert_eq!(sent, 100_000 / 1037);
    world.wakes();

    // Another pair does not notice.
    let (c, d) = (world.connect("c"), world.connect("d"));
    assert_eq!(world.send(c, "d", b"hi"), Outcome::Taken);
    assert_eq!(world.drain(d).len(), 1);
    world.wakes();

    assert!(!world.chunk(b).is_empty());
    assert_eq!(world.wakes(), [""; 0], "still more than half full");
    assert!(matches!(
        world.send(a, "b", &[9; 1000]),
        Outcome::Blocked(_)
    ));
    assert!(!world.chunk(b).is_empty());
    assert_eq!(world.wakes(), ["a"]);
    assert_eq!(world.send(a, "b", &[9; 1000]), Outcome::Taken);
    assert_eq!(world.router.counters().dropped, 0);
    assert_eq!(world.router.counters().held_up, 1);
}

#[test]
fn a_stuck_receiver_delays_a_sender_once() {
    let mut world = World::new(small());
    let (a, b, c) = (world.connect("a"), world.connect("b"), world.connect("c"));
    let sent = world.fill(a, "b");
    let Outcome::Blocked(until) = world.send(a, "b", &[9; 1000]) else {
        panic!("there was room");
    };
    assert_eq!(until, world.now + small().patience);
    assert!(matches!(
        world.send(c, "b", &[9; 1000]),
        Outcome::Blocked(_)
    ));
    world.wakes();

    world.now = until;
    assert_eq!(world.send(a, "b", &[9; 1000]), Outcome::Taken);
    let mut wakes = world.wakes();
    wakes.sort_unstable();
    assert_eq!(wakes, ["a", "c"]);
    // From here on nobody waits for b, and nothing piles up.
    for _ in 0..100 {
        assert_eq!(world.send(a, "b", &[9; 1000]), Outcome::Taken);
        assert_eq!(world.send(c, "b", &[9; 1000]), Outcome::Taken);
    }
    assert_eq!(world.router.counters().dropped, 201);
    assert_eq!(world.drain(b).len(), sent);
    // And once b reads again, it is as before.
    assert_eq!(world.fill(a, "b"), sent);
    assert!(matches!(
        world.send(a, "b", &[9; 1000]),
        Outcome::Blocked(_)
    ));
}

#[test]
fn one_who_waits_is_woken_when_the_receiver_leaves() {
    let mut world = World::new(small());
    let (a, b) = (world.connect("a"), world.connect("b"));
    world.fill(a, "b");
    world.wakes();
    world.router.handle_disconnect(b);
    assert!(world.wakes().contains(&"a"));
    assert_eq!(world.send(a, "b", &[9; 1000]), Outcome::Taken);
    assert_eq!(world.router.counters().not_here, 1);
}

#[test]
fn a_handshake_passes_a_full_queue() {
    let mut world = World::new(small());
    let (a, b) = (world.connect("a"), world.connect("b"));
    let sent = world.fill(a, "b");
    let mut hello = vec![0; 148];
    hello[0] = 1;
    assert_eq!(world.send(a, "b", &hello), Outcome::Taken);
    let got = world.drain(b);
    assert_eq!(got.len(), sent + 1);
    assert_eq!(got[0], Got::Packet(key("a"), hello.clone()));
    // Its shape alone counts, not its first byte.
    world.fill(a, "b");
    hello.resize(1000, 0);
    assert!(matches!(world.send(a, "b", &hello), Outcome::Blocked(_)));
}

#[test]
fn who_exchanged_packets_learns_who_left() {
    let mut world = World::new(small());
    let (a, b, c) = (world.connect("a"), world.connect("b"), world.connect("c"));
    let d = world.connect("d");
    world.send(a, "b", b"x");
    world.send(b, "c", b"x");
    world.drain(b);
    world.drain(c);
    world.router.handle_disconnect(b);
    let gone = Got::Gone(key("b"), Reason::DISCONNECTED);
    for (id, why) in [(a, "it sent to b"), (c, "b sent to it")] {
        assert_eq!(world.drain(id), std::slice::from_ref(&gone), "{why}");
    }
    assert_eq!(world.drain(d), [], "a stranger");
}

#[test]
fn nobody_there_is_said_but_not_for_each_packet() {
    let mut world = World::new(small());
    let a = world.connect("a");
    for _ in 0..1000 {
        assert_eq!(world.send(a, "nobody", b"x"), Outcome::Taken);
    }
    let got = world.drain(a);
    assert_eq!(got.len(), 10);
    assert_eq!(got[0], Got::Gone(key("nobody"), Reason::NOT_HERE));
    assert_eq!(world.router.counters().not_here, 1000);
}

#[test]
fn of_two_with_one_key_the_last_to_speak_receives() {
    let mut world = World::new(small());
    let (a, b1) = (world.connect("a"), world.connect_as("b", true));
    let b2 = world.connect_as("b", true);
    assert_eq!(world.drain(b1), [HEALTH]);
    assert_eq!(world.drain(b2), [HEALTH]);
    world.send(a, "b", b"to the newest");
    assert_eq!(world.drain(b1), []);
    assert_eq!(world.drain(b2).len(), 1);
    world.send(b1, "a", b"I am here");
    world.send(a, "b", b"to the one that spoke");
    assert_eq!(world.drain(b1).len(), 1);
    assert_eq!(world.drain(b2), []);
    // The other takes over, is told that all is well, and nobody that b left.
    world.drain(a);
    world.router.handle_disconnect(b1);
    world.send(a, "b", b"to the one that is left");
    assert_eq!(world.drain(a), []);
    let got = world.drain(b2);
    assert_eq!(got.len(), 2);
    assert_eq!(got[0], HEALTH);
}

#[test]
fn duplicates_are_bounded() {
    let mut world = World::new(small());
    let conns: Vec<_> = (0..6).map(|_| world.connect_as("b", true)).collect();
    for (n, id) in conns.into_iter().enumerate() {
        let closed = matches!(world.router.poll_transmit(id), Transmit::Close(_));
        assert_eq!(closed, n < 2, "connection {n}");
    }
}

#[test]
fn early_clients_get_no_frames_they_stumble_over() {
    let mut world = World::new(small());
    let (old, new) = (world.connect("a"), world.connect_as("a", true));
    let second = Duration::from_secs(1);
    world.router.handle_restart(second, second);
    assert_eq!(world.drain(old), []);
    assert_eq!(world.drain(new), [HEALTH, Got::Other(0x15)]);
}

#[test]
fn a_ping_is_answered_and_a_note_counted() {
    let mut world = World::new(small());
    let a = world.connect("a");
    let ping = Frame::Ping(Ping { data: [4; 8] });
    world.router.handle_frame(a, &ping, world.now).unwrap();
    assert_eq!(world.wakes(), ["a"]);
    assert_eq!(world.drain(a), [Got::Other(0x13)]);
    for preferred in [true, true, false, true] {
        let note = Frame::NotePreferred(crate::frame::NotePreferred { preferred });
        world.router.handle_frame(a, &note, world.now).unwrap();
        assert_eq!(world.router.counters().preferred, u64::from(preferred));
    }
    world.router.handle_disconnect(a);
    assert_eq!(world.router.counters().preferred, 0);
}

#[test]
fn pings_without_reading_are_bounded() {
    let mut world = World::new(small());
    let a = world.connect("a");
    let ping = Frame::Ping(Ping { data: [4; 8] });
    for _ in 0..100_000 {
        world.router.handle_frame(a, &ping, world.now).unwrap();
    }
    assert!(world.drain(a).len() < 6000);
    assert!(world.router.counters().control_dropped > 90_000);
}

#[test]
fn orders_of_other_servers_are_refused() {
    let mut world = World::new(small());
    let a = world.connect("a");
    let watch = Frame::WatchConns(WatchConns);
    assert!(world.router.handle_frame(a, &watch, world.now).is_err());
}

#[test]
fn a_revoked_key_is_cut_off() {
    let mut world = World::new(small());
    let (a1, a2, b) = (world.connect("a"), world.connect("a"), world.connect("b"));
    world.router.handle_revoke(&key("a"));
    assert_eq!(world.wakes(), ["a", "a"]);
    for id in [a1, a2] {
        assert!(world.router.poll_close(id).is_some());
        let (to, data) = (key("b"), b"last words");
        let frame = Frame::SendPacket(SendPacket { to, data });
        assert!(world.router.handle_frame(id, &frame, world.now).is_err());
        assert!(matches!(world.router.poll_transmit(id), Transmit::Close(_)));
        world.router.handle_disconnect(id);
    }
    assert_eq!(world.router.poll_transmit(b), Transmit::Idle);
    assert!(!world.router.contains(&key("a")));
    assert_eq!(world.router.len(), 1);
}

#[test]
fn connections_are_kept_alive_out_of_step() {
    let mut world = World::new(small());
    let a = world.connect("a");
    let mut gaps = HashSet::new();
    for _ in 0..20 {
        let due = world.router.poll_timeout(a).unwrap();
        let gap = due - world.now;
        assert!(gap >= Duration::from_secs(60) && gap < Duration::from_secs(65));
        gaps.insert(gap);
        world.router.handle_timeout(a, world.now);
        assert_eq!(world.drain(a), [], "not yet due");
        world.now = due;
        world.router.handle_timeout(a, world.now);
        assert_eq!(world.wakes(), ["a"]);
        assert_eq!(
            world.drain(a),
            [Got::Other(<KeepAlive as crate::frame::Body>::KIND)]
        );
    }
    assert!(gaps.len() > 10, "{gaps:?}");
}

#[test]
fn a_silent_client_that_could_answer_is_gone() {
    let mut world = World::new(small());
    let a = world.connect_as("a", true);
    let mut pings = 0;
    while world.router.poll_transmit(a) == Transmit::Idle {
        world.now = world.router.poll_timeout(a).unwrap();
        world.router.handle_timeout(a, world.now);
        pings += world.drain(a).len();
        assert!(pings < 10);
    }
    assert!(matches!(world.router.poll_transmit(a), Transmit::Close(_)));
    assert_eq!(pings, 2);
}

#[derive(Debug, Clone)]
enum Op {
    Connect(usize),
    Disconnect(usize),
    Send { from: usize, to: usize, len: usize },
    Read(usize),
    Later,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => (0..4usize).prop_map(Op::Connect),
        1 => (0..4usize).prop_map(Op::Disconnect),
        20 => (0..4usize, 0..4usize, 8..3000usize)
            .prop_map(|(from, to, len)| Op::Send { from, to, len }),
        6 => (0..4usize).prop_map(Op::Read),
        1 => Just(Op::Later),
    ]
}

/// Counts packets and checks that their numbers rise from each sender.
fn in_order(
    chunk: &[Got],
    at: &'static str,
    last: &mut HashMap<(&'static str, NodeKey), u64>,
) -> u64 {
    let mut count = 0;
    for got in chunk {
        if let Got::Packet(from, data) = got {
            let number = u64::from_be_bytes(data[..8].try_into().unwrap());
            let before = last.insert((at, *from), number);
            assert!(before.is_none_or(|before| before < number), "out of order");
            count += 1;
        }
    }
    count
}

proptest! {
    /// Each packet is delivered, dropped and counted, or refused because the
    /// sender must wait; what is delivered is in order; queues are bounded.
    #[test]
    fn every_packet_is_accounted_for(ops in proptest::collection::vec(op(), 1..400)) {
        let limits = Limits { queue: 10_000, ..Limits::default() };
        let mut world = World::new(limits);
        let mut conns: [Option<ConnId>; 4] = [None; 4];
        let (mut number, mut taken, mut got, mut lost) = (0u64, 0u64, 0u64, 0u64);
        let mut last: HashMap<_, _> = HashMap::new();
        for op in ops {
            match op {
                Op::Connect(at) if conns[at].is_none() => {
                    conns[at] = Some(world.connect(NAMES[at]));
                }
                Op::Disconnect(at) => if let Some(id) = conns[at].take() {
                    let waiting = world.drain(id);
                    lost += waiting.iter().filter(|got| matches!(got, Got::Packet(..))).count() as u64;
                    world.router.handle_disconnect(id);
                },
                Op::Send { from, to, len } => if let Some(id) = conns[from] {
                    number += 1;
                    let mut data = vec![0xff; len];
                    data[..8].copy_from_slice(&number.to_be_bytes());
                    if world.send(id, NAMES[to], &data) == Outcome::Taken {
                        taken += 1;
                    }
                },
                Op::Read(at) => if let Some(id) = conns[at] {
                    let chunk = world.chunk(id);
                    got += in_order(&chunk, NAMES[at], &mut last);
                },
                Op::Later => world.now += Duration::from_millis(100),
                Op::Connect(_) => {}
            }
            for conn in world.router.conns.values() {
                prop_assert!(conn.queue.len() <= 10_000);
            }
        }
        for (name, id) in NAMES.iter().zip(conns) {
            if let Some(id) = id {
                got += in_order(&world.drain(id), name, &mut last);
            }
        }
        let counters = world.router.counters();
        prop_assert_eq!(counters.packets, got + lost);
        prop_assert_eq!(taken, counters.packets + counters.dropped + counters.not_here);
    }
}
