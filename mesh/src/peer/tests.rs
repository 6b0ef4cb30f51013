//! Two peers, joined by function calls.

use super::*;
use crate::wg::demux::Demux;

const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

struct World {
    now: Instant,
    cores: [Core; 2],
    addrs: [SocketAddr; 2],
    relay: bool,
    udp: bool,
    got: [Vec<Vec<u8>>; 2],
}

fn core(mine: u8, theirs: u8, boot: u64) -> Core {
    let [mine, theirs] = [mine, theirs].map(|n| NodeSecret::from_bytes([n; 32]));
    Core::new(Setup {
        local: mine.public(),
        remote: theirs.public(),
        index: boot as u32 & 0xff_ffff,
        limiter: Arc::clone(Demux::new(&mine).limiter()),
        boot,
        direct: true,
        first_id: 1,
        secret: mine,
    })
}

impl World {
    fn new() -> Self {
        let addrs = [1, 2].map(|n| SocketAddr::from(([127, 0, 0, n], 1000)));
        let mut cores = [core(1, 2, 11), core(2, 1, 22)];
        cores[0].set_endpoints(addrs[..1].into());
        cores[1].set_endpoints(addrs[1..].into());
        Self {
            now: Instant::now(),
            cores,
            addrs,
            relay: true,
            udp: true,
            got: [vec![], vec![]],
        }
    }

    fn send(&mut self, from: usize, payload: &[u8]) {
        let (mut scratch, mut out) = ([0; 2048], [0; 2048]);
        let core = &mut self.cores[from];
        let route = core.route_for(0, self.now).unwrap();
        if let Some(len) = core.seal(payload, &mut scratch, &mut out, self.now) {
            let direct = route.direct.map(Via::Direct);
            let relay = route.relay.then_some(Via::Relay);
            for via in direct.into_iter().chain(relay) {
                self.deliver(from, via, &out[..len]);
            }
        }
        self.exchange();
    }

    fn deliver(&mut self, from: usize, via: Via, bytes: &[u8]) {
        let to = 1 - from;
        let via = match via {
            Via::Relay if self.relay => Via::Relay,
            Via::Direct(addr) if self.udp && addr == self.addrs[to] => {
                Via::Direct(self.addrs[from])
            }
            _ => return,
        };
        let mut buf = vec![0; 70_000];
        let got = self.cores[to].handle(via, SOURCE, bytes, &mut buf, self.now);
        self.got[to].extend(got.map(|range| buf[range].to_vec()));
    }

    /// Delivers until nobody has anything to say.
    fn exchange(&mut self) {
        loop {
            let next = (0..2).find_map(|from| Some((from, self.cores[from].poll_transmit()?)));
            let Some((from, transmit)) = next else {
                return;
            };
            self.deliver(from, transmit.via, &transmit.bytes);
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            let timers = self.cores.iter().filter_map(Core::poll_timeout);
            self.now = timers.min().unwrap_or(until).clamp(self.now, until);
            for core in &mut self.cores {
                core.handle_timeout(self.now);
            }
            self.exchange();
        }
    }

    fn events(&mut self, of: usize) -> Vec<Event> {
        let all = std::iter::from_fn(|| self.cores[of].poll_event());
        // Every answered probe says where it came from.
        all.filter(|event| !matches!(event, Event::Seen(_)))
            .collect()
    }
}

#[test]
fn the_first_packet_brings_up_everything() {
    let mut world = World::new();
    world.send(0, b"hello");
    assert_eq!(world.got[1], [b"hello"]);
    assert_eq!(world.events(0), [Event::Revived, Event::Hello { boot: 22 }]);
    assert_eq!(world.events(1), [Event::Revived, Event::Hello { boot: 11 }]);
    let route = world.cores[0].route_for(0, world.now).unwrap();
    assert_eq!((route.direct, route.relay), (Some(world.addrs[1]), false));
    world.send(1, b"back");
    assert_eq!(world.got[0], [b"back"]);
}

#[test]
fn a_lost_handshake_or_hello_is_repeated() {
    let mut world = World::new();
    world.relay = false;
    world.send(0, b"hello");
    world.run(Duration::from_millis(120));
    world.relay = true;
    world.run(Duration::from_millis(100));
    assert_eq!(world.got[1], [b"hello"]);
    assert_eq!(world.cores[0].remote_boot(), Some(22));
}

#[test]
fn packets_in_doubt_arrive_once() {
    let mut world = World::new();
    world.send(0, b"hello");
    world.run(Duration::from_secs(30));
    let route = world.cores[0].current_route(world.now);
    assert!(route.direct.is_some() && route.relay);
    world.send(0, b"again");
    assert_eq!(world.got[1], [&b"hello"[..], b"again"]);
}

#[test]
fn a_restarted_peer_is_known_by_its_number() {
    let mut world = World::new();
    world.send(0, b"hello");
    world.events(0);
    for boot in 100..110 {
        world.cores[1] = core(2, 1, boot);
        world.got[1].clear();
        // The relay forwards a packet of the old session.
        world.udp = false;
        world.run(Duration::from_secs(2));
        world.send(0, b"anybody there?");
        world.run(Duration::from_secs(2));
        // Every session that comes up, and there may be two, is a way found again.
        let mut events = world.events(0);
        events.retain(|event| *event != Event::Revived);
        assert_eq!(events, [Event::Hello { boot }]);
        world.send(0, b"you again");
        assert_eq!(world.got[1].last().unwrap(), b"you again");
    }
}

#[test]
fn a_restarted_peer_is_found_without_the_relay() {
    let mut world = World::new();
    world.send(0, b"hello");
    world.events(0);
    world.relay = false;
    world.cores[1] = core(2, 1, 33);
    world.send(0, b"lost");
    world.run(Duration::from_secs(4));
    assert_eq!(world.events(0), [Event::Revived, Event::Hello { boot: 33 }]);
}

#[test]
fn what_is_heard_after_a_silence_is_told() {
    let mut world = World::new();
    world.send(0, b"hello");
    world.events(0);
    (world.relay, world.udp) = (false, false);
    world.send(0, b"lost");
    world.run(Duration::from_secs(8));
    assert_eq!(world.events(0), []);
    // Somebody says that the peer is there again: the next try is due now, not in a while.
    world.relay = true;
    let now = world.now;
    world.cores[0].handle_return(now);
    world.run(Duration::from_millis(10));
    assert!(world.cores[0].last_heard() >= Some(now));
    // Once by who said so, once because it is so.
    assert_eq!(world.events(0)[..2], [Event::Revived, Event::Revived]);
    // Who waits for nothing is not disturbed.
    world.run(Duration::from_secs(1));
    let (now, heard) = (world.now, world.cores[0].last_heard());
    world.cores[0].handle_return(now);
    world.run(Duration::from_millis(10));
    assert_eq!(world.cores[0].last_heard(), heard);
}

#[test]
fn who_had_nothing_to_say_was_not_silent() {
    let mut world = World::new();
    // By the relay, where nothing else asks.
    world.udp = false;
    world.send(0, b"hello");
    world.send(1, b"back");
    world.events(0);
    world.events(1);
    // Nothing answers the last word but an echo, when it is asked for.
    for _ in 0..5 {
        world.run(Duration::from_millis(300));
        world.send(0, b"and that is that");
        world.run(ASK_AFTER + Duration::from_millis(10));
        assert_eq!((world.events(0), world.events(1)), (vec![], vec![]));
    }
    // Who answers late was silent.
    world.relay = false;
    world.send(0, b"lost");
    world.run(ASK_AFTER + AT_ONCE + Duration::from_millis(10));
    world.relay = true;
    world.send(1, b"here I am");
    assert_eq!(world.events(0), [Event::Revived]);
}

#[test]
fn an_echo_is_answered_on_the_path_in_use() {
    let mut world = World::new();
    world.send(0, b"hello");
    world.events(0);
    world.cores[0].echo(77, world.now);
    world.exchange();
    let via = Via::Direct(world.addrs[1]);
    assert_eq!(world.events(0), [Event::Echoed { id: 77, via }]);
}

#[test]
fn a_good_bye_ends_the_session_and_strays_do_not_revive_it() {
    let mut world = World::new();
    world.send(0, b"hello");
    world.events(1);
    let (mut scratch, mut late) = ([0; 2048], [0; 2048]);
    let len = world.cores[0].seal(b"late", &mut scratch, &mut late, world.now);
    world.cores[0].say_bye(world.now);
    world.exchange();
    assert_eq!(world.events(1), [Event::Departed]);
    assert!(!world.cores[1].has_session());
    world.deliver(0, Via::Relay, &late[..len.unwrap()]);
    assert_eq!(world.cores[1].poll_transmit(), None);
    assert_eq!(world.got[1], [b"hello"]);
}

#[test]
fn an_authentic_packet_with_a_foreign_source_is_dropped() {
    let mut world = World::new();
    world.send(0, b"hello");
    world.cores[0].pair.local = "fd7a:115c:a1e0::bad".parse().unwrap();
    world.send(0, b"forged");
    assert_eq!(world.got[1], [b"hello"]);
}

#[test]
fn an_oversized_payload_is_dropped() {
    let mut world = World::new();
    world.send(0, b"hello");
    let (mut scratch, mut out) = ([0; 4096], [0; 4096]);
    let payload = [0; MAX_QUIC_DATAGRAM + 1];
    let core = &mut world.cores[0];
    assert_eq!(core.seal(&payload, &mut scratch, &mut out, world.now), None);
    // A peer that does not care about the limit.
    let len = core.pair.build(Port::Quic, &payload, &mut scratch);
    let tunnel = core.tunnel(world.now);
    let sealed = tunnel.seal(&scratch[..len], &mut out, world.now, &mut vec![]);
    let Sealed::Data(len) = sealed else {
        panic!("no session");
    };
    world.deliver(0, Via::Relay, &out[..len]);
    assert_eq!(world.got[1], [b"hello"]);
}

#[test]
fn an_idle_peer_costs_no_timer_and_no_tunnel() {
    let mut world = World::new();
    world.send(0, b"hello");
    world.run(Duration::from_secs(400));
    for core in &world.cores {
        assert!(core.tunnel.is_none());
        assert_eq!(core.poll_timeout(), None);
    }
    world.send(0, b"once more");
    assert_eq!(world.got[1].last().unwrap(), b"once more");
}
