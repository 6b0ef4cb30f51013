//! Two agents, a hand-moved clock and a network that does what it is told.

use super::direct::HEARTBEAT;
use super::*;
use crate::packet::QUIC_MTU;

const MS: Duration = Duration::from_millis(1);

/// Two agents at fixed addresses. Messages arrive after `delay`.
struct World {
    now: Instant,
    start: Instant,
    agents: [Agent; 2],
    addrs: [SocketAddr; 2],
    /// Whether a datagram from this agent arrives by UDP.
    udp: [bool; 2],
    relay: bool,
    /// Whether datagrams of the larger size arrive by UDP.
    wide: bool,
    delay: Duration,
    flying: Vec<(Instant, usize, Via, Message)>,
    probes: usize,
}

impl World {
    fn new() -> Self {
        let addrs = [1, 2].map(|n| SocketAddr::from(([192, 0, 2, n], 1000)));
        let mut agents = [1, 1_000_000].map(|id| Agent::new(true, id));
        for (agent, addr) in agents.iter_mut().zip(addrs) {
            agent.set_endpoints([addr].into());
        }
        let now = Instant::now();
        Self {
            now,
            start: now,
            agents,
            addrs,
            udp: [true; 2],
            relay: true,
            wide: true,
            delay: 10 * MS,
            flying: vec![],
            probes: 0,
        }
    }

    fn connected() -> Self {
        let mut world = Self::new();
        world.agents[0].handle_session(world.now);
        world.agents[1].handle_session(world.now);
        world
    }

    fn collect(&mut self) {
        for from in 0..2 {
            while let Some((via, message)) = self.agents[from].poll_transmit() {
                let to = 1 - from;
                let (arrives, via) = match via {
                    Via::Relay => (self.relay, Via::Relay),
                    Via::Fan(_) => panic!("nobody is behind a NAT"),
                    Via::Direct(addr) => {
                        self.probes += usize::from(matches!(message, Message::Probe { .. }));
                        let right = addr == self.addrs[to];
                        let fits =
                            self.wide || !matches!(message, Message::Probe { wide: true, .. });
                        let arrives = self.udp[from] && right && fits;
                        (arrives, Via::Direct(self.addrs[from]))
                    }
                };
                if arrives {
                    self.flying.push((self.now + self.delay, to, via, message));
                }
            }
        }
    }

    /// Moves the clock to the next event, at most to `until`.
    fn step(&mut self, until: Instant) {
        self.collect();
        let timers = self.agents.iter().filter_map(Agent::poll_timeout);
        let arrivals = self.flying.iter().map(|(at, ..)| *at);
        let next = timers.chain(arrivals).min().unwrap_or(until);
        self.now = next.clamp(self.now, until);
        let (arrived, flying) = std::mem::take(&mut self.flying)
            .into_iter()
            .partition(|(at, ..)| *at <= self.now);
        self.flying = flying;
        let arrived: Vec<_> = arrived;
        for (_, to, via, message) in arrived {
            let agent = &mut self.agents[to];
            agent.handle_heard(via, self.now);
            match message {
                Message::CallMeMaybe { endpoints } => {
                    agent.handle_call_me_maybe(&endpoints, self.now);
                }
                Message::Probe { id, .. } => agent.handle_probe(id, via, self.now),
                Message::Pong { id, .. } => agent.handle_pong(id, via, self.now),
                other => panic!("unexpected {other:?}"),
            }
        }
        for agent in &mut self.agents {
            agent.handle_timeout(self.now);
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        let mut steps = 0;
        while self.now < until {
            self.step(until);
            steps += 1;
            assert!(steps < 100_000, "the clock stands still");
        }
    }

    /// Runs while agent 0 sends something every 100 ms, and its peer answers
    /// what arrives.
    fn run_with_traffic(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            let route = self.agents[0].route(self.now);
            if route.direct == Some(self.addrs[1]) && self.udp[0] {
                self.agents[1].handle_heard(Via::Direct(self.addrs[0]), self.now);
            }
            if self.agents[1].route(self.now).direct == Some(self.addrs[0]) && self.udp[1] {
                self.agents[0].handle_heard(Via::Direct(self.addrs[1]), self.now);
            }
            self.run(100 * MS);
        }
    }

    fn route(&mut self) -> Route {
        self.agents[0].current(self.now)
    }

    fn elapsed(&self) -> Duration {
        self.now.duration_since(self.start)
    }
}

fn direct(world: &World) -> Route {
    Route {
        direct: Some(world.addrs[1]),
        relay: false,
    }
}

#[test]
fn the_relay_comes_first_and_the_direct_path_soon() {
    let mut world = World::connected();
    assert_eq!(world.agents[0].route(world.now), Route::RELAY);
    world.run(50 * MS);
    assert_eq!(world.route(), direct(&world));
    assert_eq!(world.agents[0].rtt(), Some(20 * MS));
    assert!(world.agents[1].current(world.now).direct.is_some());
}

#[test]
fn without_udp_everything_stays_on_the_relay_and_probing_slows_down() {
    let mut world = World::connected();
    world.udp = [false; 2];
    world.run_with_traffic(Duration::from_secs(60));
    assert_eq!(world.route(), Route::RELAY);
    assert!(world.probes < 150, "{} probes", world.probes);
    // It works again: found by the next round.
    world.udp = [true; 2];
    world.run_with_traffic(Duration::from_secs(35));
    assert_eq!(world.route(), direct(&world));
}

#[test]
fn one_way_udp_is_no_path() {
    let mut world = World::connected();
    world.udp = [true, false];
    world.run_with_traffic(Duration::from_secs(20));
    assert_eq!(world.route(), Route::RELAY);
    assert_eq!(world.agents[1].current(world.now), Route::RELAY);
}

#[test]
fn a_disabled_agent_never_probes_nor_answers() {
    let mut world = World::new();
    world.agents[0] = Agent::new(false, 1);
    world.agents[0].handle_session(world.now);
    world.agents[1].handle_session(world.now);
    world.run_with_traffic(Duration::from_secs(10));
    assert_eq!(world.route(), Route::RELAY);
    assert_eq!(world.agents[1].current(world.now), Route::RELAY);
}

#[test]
fn a_dying_path_is_doubted_within_a_second_then_given_up_then_found_again() {
    let mut world = World::connected();
    world.run_with_traffic(Duration::from_secs(10));
    assert_eq!(world.route(), direct(&world));

    world.udp = [false; 2];
    world.run_with_traffic(1000 * MS);
    let both = Route {
        direct: Some(world.addrs[1]),
        relay: true,
    };
    assert_eq!(world.route(), both, "both ways while in doubt");
    world.run_with_traffic(Duration::from_secs(6));
    assert_eq!(world.route(), Route::RELAY, "given up");

    world.udp = [true; 2];
    world.run_with_traffic(Duration::from_secs(11));
    assert_eq!(world.route(), direct(&world), "found again");
}

#[test]
fn a_path_that_is_dead_in_our_direction_only_is_given_up_too() {
    let mut world = World::connected();
    world.run_with_traffic(Duration::from_secs(3));
    world.udp[0] = false;
    world.run_with_traffic(Duration::from_secs(3));
    assert!(
        world.route().relay,
        "the peer is heard, but does not hear us"
    );
    world.run_with_traffic(Duration::from_secs(6));
    assert_eq!(world.route(), Route::RELAY);
}

#[test]
fn a_lost_probe_alone_changes_nothing() {
    let mut world = World::connected();
    world.run_with_traffic(Duration::from_secs(3));
    // Lose everything for 200 ms, less than it takes to doubt.
    world.udp = [false; 2];
    world.run(200 * MS);
    world.udp = [true; 2];
    world.run_with_traffic(2000 * MS);
    assert_eq!(world.route(), direct(&world));
}

#[test]
fn an_idle_path_is_silent_and_doubted_at_first_use() {
    let mut world = World::connected();
    world.run_with_traffic(Duration::from_secs(2));
    world.run(IN_USE + HEARTBEAT);
    let probes = world.probes;
    world.run(Duration::from_secs(600));
    assert_eq!(world.probes, probes, "silence");
    assert!(
        world
            .agents
            .iter()
            .all(|agent| agent.poll_timeout().is_none())
    );

    let first = world.agents[0].route(world.now);
    assert_eq!((first.direct.is_some(), first.relay), (true, true));
    world.run(25 * MS);
    assert_eq!(world.route(), direct(&world), "one answer is enough");
}

#[test]
fn the_larger_size_goes_where_it_has_arrived() {
    let mut world = World::connected();
    let wide = |world: &mut World| world.agents[0].route_for(QUIC_MTU + 1, world.now);
    assert_eq!(wide(&mut world), None, "not by the relay, as a first try");
    world.run(35 * MS);
    assert!(world.route().direct.is_some());
    assert_eq!(wide(&mut world), None, "not before its own answer");
    world.run(20 * MS);
    assert_eq!(wide(&mut world), Some(direct(&world)));
    let small = world.agents[0].route_for(QUIC_MTU, world.now);
    assert_eq!(small, Some(direct(&world)));

    // Whoever is used to it gets it through, whatever becomes of the path.
    world.udp = [false; 2];
    world.run_with_traffic(Duration::from_secs(7));
    assert_eq!(wide(&mut world), Some(Route::RELAY));
    world.udp = [true; 2];
    world.wide = false;
    while world.route().direct.is_none() {
        world.run_with_traffic(100 * MS);
    }
    let both = Route {
        relay: true,
        ..direct(&world)
    };
    assert_eq!(wide(&mut world), Some(both), "nobody knows yet");
    world.run_with_traffic(1000 * MS);
    assert_eq!(wide(&mut world), None, "QUIC is to notice");
    assert_eq!(world.route(), direct(&world));
    // Until it arrives.
    world.wide = true;
    world.run_with_traffic(Duration::from_secs(61));
    assert_eq!(wide(&mut world), Some(direct(&world)));
}

#[test]
fn who_has_moved_asks_for_the_larger_size_again() {
    let mut world = World::connected();
    world.run_with_traffic(Duration::from_secs(1));
    assert!(world.agents[0].is_wide(world.now));
    world.wide = false;
    world.agents[0].handle_move(world.now);
    assert!(!world.agents[0].is_wide(world.now));
    world.run_with_traffic(1000 * MS);
    assert_eq!(world.agents[0].route_for(QUIC_MTU + 1, world.now), None);
    assert_eq!(world.route(), direct(&world));
}

#[test]
fn a_node_without_udp_may_use_any_size() {
    let now = Instant::now();
    let mut agent = Agent::new(false, 1);
    assert_eq!(agent.route_for(QUIC_MTU + 1, now), Some(Route::RELAY));
}

#[test]
fn the_source_of_a_probe_is_probed_although_nobody_named_it() {
    let mut world = World::new();
    // Agent 1 does not know its address as seen from outside.
    world.agents[1].set_endpoints([].into());
    world.agents[0].handle_session(world.now);
    world.agents[1].handle_session(world.now);
    world.run(100 * MS);
    assert_eq!(world.route(), direct(&world));
}

#[test]
fn a_lost_call_is_repeated() {
    let mut world = World::connected();
    world.relay = false;
    world.run(50 * MS);
    world.relay = true;
    world.run_with_traffic(ROUNDS[0] + 100 * MS);
    assert_eq!(world.route(), direct(&world), "after {:?}", world.elapsed());
}

#[test]
fn an_answer_from_another_address_does_not_count() {
    let now = Instant::now();
    let mut agent = Agent::new(true, 7);
    let named = SocketAddr::from(([192, 0, 2, 1], 1));
    let other = SocketAddr::from(([192, 0, 2, 2], 1));
    agent.handle_call_me_maybe(&[named], now);
    agent.handle_pong(7, Via::Direct(other), now);
    agent.handle_pong(7, Via::Relay, now);
    agent.handle_pong(8, Via::Direct(named), now);
    assert_eq!(agent.current(now), Route::RELAY);
    agent.handle_pong(7, Via::Direct(named), now);
    assert_eq!(agent.current(now).direct, Some(named));
}

#[test]
fn a_peer_cannot_make_us_flood_others() {
    let mut now = Instant::now();
    let mut agent = Agent::new(true, 0);
    let mut probes = 0;
    for n in 0..1000u16 {
        let endpoints: Vec<_> = (0..16)
            .map(|host| SocketAddr::from(([198, 51, (n % 250) as u8, host], 1 + n)))
            .collect();
        agent.handle_call_me_maybe(&endpoints, now);
        agent.handle_timeout(now);
        while let Some((via, _)) = agent.poll_transmit() {
            probes += usize::from(via != Via::Relay);
        }
        now += 10 * MS;
    }
    // 16,000 addresses in 10 s.
    assert!(probes <= 16 * 5 * 11, "{probes} probes");
}

#[test]
fn addresses_that_are_no_host_are_ignored() {
    let now = Instant::now();
    let mut agent = Agent::new(true, 0);
    let bad = [
        "0.0.0.0:1",
        "192.0.2.1:0",
        "224.0.0.1:5",
        "255.255.255.255:5",
        "[::]:1",
        "[fe80::1]:1",
        "[ff02::1]:1",
    ];
    let bad: Vec<SocketAddr> = bad.iter().map(|text| text.parse().unwrap()).collect();
    agent.handle_call_me_maybe(&bad, now);
    assert_eq!(agent.possible().count(), 0);
}

#[test]
fn a_better_address_takes_over_and_a_departure_forgets_all() {
    let now = Instant::now();
    let mut agent = Agent::new(true, 0);
    let slow = SocketAddr::from(([192, 0, 2, 1], 1));
    let fast = SocketAddr::from(([192, 0, 2, 2], 1));
    agent.handle_call_me_maybe(&[slow, fast], now);
    agent.handle_pong(0, Via::Direct(slow), now + 50 * MS);
    assert_eq!(agent.current(now).direct, Some(slow));
    agent.handle_pong(1, Via::Direct(fast), now + 60 * MS);
    assert_eq!(agent.current(now).direct, Some(slow), "not better");
    let later = now + UPGRADE + 50 * MS;
    agent.route(later - MS);
    agent.handle_timeout(later);
    let ids: Vec<_> = std::iter::from_fn(|| agent.poll_transmit())
        .filter_map(|(via, message)| match message {
            Message::Probe { id, .. } if via == Via::Direct(fast) => Some(id),
            _ => None,
        })
        .collect();
    agent.handle_pong(*ids.last().unwrap(), Via::Direct(fast), later + 10 * MS);
    assert_eq!(agent.current(later).direct, Some(fast));
    agent.handle_departure();
    assert_eq!(agent.current(later), Route::RELAY);
    assert_eq!(agent.possible().count(), 0);
}
