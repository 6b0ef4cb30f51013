//! How fast nodes find each other and recover, in the world's time: the goals
//! of the mesh, as a table.
//!
//! Figures, not assertions, except for those that follow from what the state
//! machines are told to do and from nothing else: time here is the world's own,
//! and does not depend on the machine.

use std::time::{Duration, Instant};

use super::net::{Host, Kind};
use super::relay::State;
use super::run::{MS, SECOND, World};
use super::scenario::{bar, move_node, part_silently, set_apart, set_relay, wake};

/// Runs of each kind.
const RUNS: u64 = 50;

/// The places of the matrix.
const PLACES: [(&str, Option<Kind>); 4] = [
    ("none", None),
    ("full cone", Some(Kind::FullCone)),
    ("port-restricted", Some(Kind::PortRestricted)),
    ("symmetric", Some(Kind::Symmetric)),
];

/// Two nodes, each behind one of these, with `trip` from one to the other and
/// back, and to the relay and back.
fn pair(seed: u64, relays: usize, kinds: [Option<Kind>; 2], trip: Duration) -> World {
    let mut world = World::new(seed, relays, 30 * SECOND);
    let mut hosts: Vec<Host> = vec![];
    for (node, kind) in kinds.into_iter().enumerate() {
        let segment = kind.map_or(0, |kind| world.net.add_segment(kind, false, 0));
        world.net.hosts.clone_from(&hosts);
        hosts.push(Host {
            segment: Some(segment),
            ip: world.net.address_in(segment, node),
            delay: trip / 4,
            jitter: MS / 10,
            loss: 0,
            twice: 0,
            mtu: 1500,
            no_udp: false,
        });
    }
    // One more network to move to.
    world.net.add_segment(Kind::PortRestricted, false, 0);
    world.populate(hosts);
    for node in 0..2 {
        world.rouse(node).unwrap();
    }
    world
}

fn spare_segment(kinds: [Option<Kind>; 2]) -> usize {
    1 + kinds.into_iter().flatten().count()
}

fn is_direct(world: &World) -> bool {
    [(0, 1), (1, 0)].iter().all(|(from, to)| {
        let core = world.nodes[*from].cores[*to].as_ref().unwrap();
        let route = core.current_route(world.local(*from));
        route.direct.is_some() && !route.relay
    })
}

/// Both are there for a second, then one calls. Returns when that was, once
/// the path is direct, at most after `within`.
fn until_direct(world: &mut World, within: Duration) -> Option<Duration> {
    world.run_for(SECOND).unwrap();
    let began = world.now;
    world.call(0, 1, 100).unwrap();
    let mut next = world.now;
    while world.now < began + within {
        world.run_for(MS).unwrap();
        if is_direct(world) {
            return Some(world.now.duration_since(began));
        }
        if world.now >= next {
            next = world.now + 100 * MS;
            world.call(0, 1, 100).unwrap();
        }
    }
    None
}

/// Calls both ways for some time, then something happens, then more calls. The
/// longest time that a call begun from then on, or under way then, has waited
/// since.
fn stall(world: &mut World, happens: impl FnOnce(&mut World) -> Result<(), String>) -> Duration {
    let calls = |world: &mut World, time: Duration| {
        let until = world.now + time;
        while world.now < until {
            for (from, to) in [(0, 1), (1, 0)] {
                if world.is_awake(from) {
                    world.call(from, to, 100).unwrap();
                }
            }
            let pause = world.rng.millis(20, 80);
            world.run_for(pause).unwrap();
        }
    };
    calls(world, 10 * SECOND);
    happens(world).unwrap();
    let since: Instant = world.now;
    world.answered.clear();
    calls(world, 15 * SECOND);
    world.run_for(10 * SECOND).unwrap();
    assert!(world.nodes.iter().all(|node| node.calls.is_empty()));
    let waits = world.answered.iter().map(|call| {
        let end = call.started + call.took;
        end.duration_since(since.max(call.started))
    });
    waits.max().unwrap()
}

/// Something that happens to a world.
type Happens = fn(&mut World) -> Result<(), String>;

struct Figures(Vec<Duration>);

impl Figures {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort();
        Self(all)
    }

    fn at(&self, percent: usize) -> u128 {
        self.0[(self.0.len() - 1) * percent / 100].as_millis()
    }

    fn show(&self, what: &str, goal: &str) {
        let [p50, p99, max] = [50, 99, 100].map(|percent| self.at(percent));
        println!("| {what} | {p50} | {p99} | {max} | {goal} |");
    }
}

fn easy(seed: u64, relays: usize, trip: Duration) -> World {
    pair(seed, relays, [Some(Kind::PortRestricted), None], trip)
}

fn upgrades(trip: Duration) -> Figures {
    let within = 20 * SECOND;
    Figures::of(
        (0..RUNS)
            .map(|seed| until_direct(&mut easy(seed, 1, trip), within).unwrap())
            .collect(),
    )
}

/// Stalls by something that happens to an established pair.
fn stalls(trip: Duration, happens: Happens) -> Figures {
    let one = |seed| stall(&mut easy(seed, 1, trip), happens);
    Figures::of((0..RUNS).map(one).collect())
}

fn relayed_stalls(relays: usize, trip: Duration, happens: Happens) -> Figures {
    let one = |seed| {
        let mut world = easy(seed, relays, trip);
        world.net.hosts[0].no_udp = true;
        stall(&mut world, happens)
    };
    Figures::of((0..RUNS).map(one).collect())
}

fn cut_udp(world: &mut World) -> Result<(), String> {
    world.net.hosts[0].no_udp = true;
    Ok(())
}

fn restart_relay(world: &mut World) -> Result<(), String> {
    set_relay(world, 0, State::Ended);
    set_relay(world, 0, State::Up);
    Ok(())
}

fn end_relay(world: &mut World) -> Result<(), String> {
    set_relay(world, 0, State::Ended);
    Ok(())
}

fn lose_relay(world: &mut World) -> Result<(), String> {
    set_relay(world, 0, State::Dark);
    Ok(())
}

/// Its machine is lost without a word, and another one takes its place.
fn replace_relay(world: &mut World) -> Result<(), String> {
    set_relay(world, 0, State::Dark);
    set_relay(world, 0, State::Up);
    // Nobody says that the old connections are gone.
    world.relay_mute = true;
    Ok(())
}

fn swap_link(world: &mut World) -> Result<(), String> {
    move_node(
        world,
        0,
        Some(spare_segment([Some(Kind::PortRestricted), None])),
    )
}

fn sleep(world: &mut World) -> Result<(), String> {
    world.nodes[0].asleep = Some(world.now);
    world.run_for(90 * SECOND)?;
    wake(world, 0)
}

#[test]
#[ignore = "a table to read; run with --nocapture"]
fn recovery_times() {
    println!("| ms, R = 50 ms, {RUNS} runs each | p50 | p99 | max | goal |");
    println!("|---|---|---|---|---|");
    let trip = 50 * MS;
    upgrades(trip).show(
        "from first call to direct, both ways",
        "p50 ≤ 170, p99 ≤ 1000",
    );
    stalls(trip, cut_udp).show("direct path dies silently", "p99 ≤ 1000");
    stalls(trip, swap_link).show("link swap", "≤ 1500");
    stalls(trip, sleep).show("sleep of 90 s", "≤ 1500");
    relayed_stalls(1, trip, restart_relay).show("relay restarts, relayed", "≤ 2000");
    relayed_stalls(1, trip, replace_relay).show("relay dies silently, relayed", "≤ 2000");
    relayed_stalls(2, trip, lose_relay).show(
        "relay dies silently and another stands by, relayed",
        "≤ 2000",
    );
    relayed_stalls(1, trip, swap_link).show("link swap, relayed", "≤ 1500");
    relayed_stalls(1, trip, sleep).show("sleep of 90 s, relayed", "≤ 1500");
    stalls(trip, lose_relay).show("relay dies, direct", "no stall");
    assert_eq!(matrix(), 15, "all but symmetric with symmetric");
}

/// A relay and a node lose each other without a word.
fn lose_each_other(world: &mut World) -> Result<(), String> {
    bar(world, 0, 0, true);
    Ok(())
}

/// Both nodes lose a relay, not the same one.
fn lose_one_each(world: &mut World) -> Result<(), String> {
    bar(world, 0, 0, true);
    bar(world, 1, 1, true);
    Ok(())
}

/// The relays lose each other, and a node one of them.
fn fall_apart(world: &mut World) -> Result<(), String> {
    set_apart(world, true);
    lose_each_other(world)
}

/// The same, and the relays do not know.
fn fall_apart_silently(world: &mut World) -> Result<(), String> {
    part_silently(world, true);
    lose_each_other(world)
}

#[test]
fn nobody_waits_for_a_relay_while_another_stands_by() {
    let kinds: [(&str, Happens, Duration); 6] = [
        ("a relay ends", end_relay, 500 * MS),
        ("a relay dies", lose_relay, 500 * MS),
        // The other node sends there until it hears by the relay that is left; then it repeats.
        ("one node loses one", lose_each_other, SECOND),
        ("the relays lose each other", fall_apart, SECOND),
        ("without a word", fall_apart_silently, SECOND),
        // There is no way until one has missed its own, which is asked every five seconds if it
        // is the one that stands by.
        ("each node loses one", lose_one_each, 8 * SECOND),
    ];
    for (what, happens, most) in kinds {
        for seed in 0..12 {
            let mut world = easy(seed, 2, 50 * MS);
            world.net.hosts[0].no_udp = true;
            // Each way to be at two relays.
            for node in 0..2 {
                world.first[node] = (seed as usize >> node) & 1;
                world.restart_node(node);
            }
            let firsts = world.first.clone();
            let longest = stall(&mut world, happens);
            assert!(
                longest <= most,
                "{what}, seed {seed}, at {firsts:?}: {longest:?}"
            );
        }
    }
}

/// How many of the 16 pairs find a direct path.
fn matrix() -> usize {
    println!(
        "\n| NAT matrix: direct of 20 runs, median ms | none | full cone | port-restricted | symmetric |"
    );
    println!("|---|---|---|---|---|");
    let mut good = 0;
    for (name, one) in PLACES {
        let mut line = format!("| {name} |");
        for (_, other) in PLACES {
            let runs = (0..20).map(|seed| {
                let mut world = pair(seed, 1, [one, other], 50 * MS);
                until_direct(&mut world, 25 * SECOND)
            });
            let times: Vec<_> = runs.flatten().collect();
            good += usize::from(times.len() >= 19);
            let count = times.len();
            let median = match count {
                0 => "-".to_owned(),
                _ => Figures::of(times).at(50).to_string(),
            };
            line.push_str(&format!(" {count}/20, {median} |"));
        }
        println!("{line}");
    }
    println!("direct in at least 19 of 20 runs: {good} of 16 pairs (goal 15)");
    good
}

#[test]
fn ports_of_a_symmetric_nat_are_guessed() {
    let kinds = [Some(Kind::PortRestricted), Some(Kind::Symmetric)];
    for (seed, kinds) in [(1, kinds), (2, [kinds[1], kinds[0]])] {
        let mut world = pair(seed, 1, kinds, 50 * MS);
        let took = until_direct(&mut world, 25 * SECOND);
        assert!(took.is_some(), "seed {seed}");
        let sent: u64 = world.sent.iter().sum();
        assert!(sent < 8000, "{sent} datagrams");
        // The path holds while it is used.
        world.run_for(60 * SECOND).unwrap();
    }
    let mut world = pair(3, 1, [kinds[1]; 2], 50 * MS);
    assert_eq!(until_direct(&mut world, 25 * SECOND), None);
    let sent: u64 = world.sent.iter().sum();
    assert!(sent < 3000, "{sent} datagrams for nothing");
}
