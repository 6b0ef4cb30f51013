//! A world by chance: who is where, what happens, who calls whom.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::net::{Host, KINDS};
use super::relay::State;
use super::run::{MS, SECOND, World};
use crate::packet::WIDE_MTU;

/// How long a call may take after the last disturbance.
const BOUND: Duration = Duration::from_secs(8);
/// The same where datagrams are lost: calls are repeated every 2 s in the end,
/// and up to a fifth of all questions and answers is lost.
const LOSSY_BOUND: Duration = Duration::from_secs(20);
/// An attempt to connect that began before the relay came back fails only then.
const RELAY_BACK: Duration = Duration::from_secs(4);
/// Packets a second of a node at rest, with up to four peers: the questions to
/// relay and STUN server.
const AT_REST: f64 = 1.0;
/// Packets a second of a node besides those of calls, whatever happens.
const AT_MOST: f64 = 400.0;

/// Runs the world of this seed, with one relay or two.
pub(super) fn run(seed: u64, relays: usize) -> Result<(), String> {
    let mut world = World::new(seed, relays, BOUND);
    let count = 2 + world.rng.index(4);
    let segments = build(&mut world, count);
    // The first relay may be late.
    if world.rng.permille(100) {
        set_relay(&mut world, 0, State::Ended);
    }
    for node in 0..count {
        world.rouse(node)?;
    }
    let end = world.now + world.rng.millis(30_000, 90_000);
    let mut busy = Busy::new(&mut world, count);
    let mut disturbance = world.now + world.rng.millis(3000, 15_000);
    let sent_before: u64 = world.sent.iter().sum();
    let (began, mut calls) = (world.now, 0);
    while world.now < end {
        let next = busy.next.min(disturbance).min(end);
        world.run_until(next)?;
        if next == busy.next {
            calls += busy.call(&mut world)?;
        }
        if next == disturbance {
            disturb(&mut world, count, segments)?;
            world.look_again();
            let pause = if world.rng.permille(200) { 100 } else { 15_000 };
            disturbance = world.now + world.rng.millis(50, 50 + pause);
        }
    }
    calm_down(&mut world, count)?;
    world.look_again();
    // The last calls are answered, then there is peace.
    let bound = world.bound + RELAY_BACK;
    world.run_for(bound + SECOND)?;
    if let Some(node) = (0..count).find(|node| !world.nodes[*node].calls.is_empty()) {
        return Err(world.fail(&format!("calls of {node} are left over")));
    }
    let time = world.now.duration_since(began).as_secs_f64();
    let sent = world.sent.iter().sum::<u64>() - sent_before;
    let rate = (sent as f64 - 12.0 * calls as f64) / time / count as f64;
    if rate > AT_MOST {
        return Err(world.fail(&format!("{rate:.0} packets a second and node")));
    }
    rest(&mut world, count)
}

/// Makes networks, nodes in them, and relays. Returns how many networks.
fn build(world: &mut World, count: usize) -> usize {
    let lans = world.rng.index(count + 1);
    let mut segments = 1;
    for _ in 0..lans {
        let kind = world.rng.pick(&KINDS);
        let hairpin = world.rng.permille(500);
        // Some are behind another one: double NAT.
        let outside = if world.rng.permille(250) {
            segments - 1
        } else {
            0
        };
        world.net.add_segment(kind, hairpin, outside);
        segments += 1;
    }
    let mut hosts: Vec<Host> = vec![];
    let lossy = world.rng.permille(400);
    if lossy {
        world.bound = LOSSY_BOUND;
    }
    for node in 0..count {
        let segment = world.rng.index(segments);
        world.net.hosts.clone_from(&hosts);
        let rng = &mut world.rng;
        hosts.push(Host {
            segment: Some(segment),
            ip: world.net.address_in(segment, node),
            delay: rng.millis(0, 60),
            jitter: rng.millis(0, 8),
            loss: if lossy { rng.below(50) } else { 0 },
            twice: if lossy { rng.below(30) } else { 0 },
            mtu: rng.pick(&[1500, 1500, 1500, 1420, 1400, 1340, 1339, 1280]),
            no_udp: rng.permille(70),
        });
    }
    world.populate(hosts);
    segments
}

/// Who calls whom, and how often.
struct Busy {
    next: Instant,
    pairs: Vec<(usize, usize)>,
    pause: u64,
}

impl Busy {
    fn new(world: &mut World, count: usize) -> Self {
        let mut pairs = vec![];
        for a in 0..count {
            for b in 0..count {
                if a != b && world.rng.permille(600) {
                    pairs.push((a, b));
                }
            }
        }
        if pairs.is_empty() {
            pairs.push((0, 1));
        }
        Self {
            next: world.now,
            pairs,
            pause: world.rng.pick(&[60, 200, 500, 2000, 9000]),
        }
    }

    fn call(&mut self, world: &mut World) -> Result<usize, String> {
        let (from, to) = world.rng.pick(&self.pairs);
        self.next = world.now + world.rng.millis(1, self.pause);
        // A program on a machine that sleeps calls nobody.
        if !world.is_awake(from) || world.nodes[from].calls.len() >= 20 {
            return Ok(0);
        }
        let size = world.rng.pick(&[9, 100, 1200, WIDE_MTU]);
        world.call(from, to, size)?;
        Ok(1)
    }
}

/// Something goes wrong, or right again.
fn disturb(world: &mut World, count: usize, segments: usize) -> Result<(), String> {
    let node = world.rng.index(count);
    match world.rng.below(100) {
        0..25 => {
            let there = world.rng.index(segments);
            move_node(world, node, Some(there))
        }
        25..35 => unplug_or_plug(world, node, segments),
        35..50 => sleep_or_wake(world, node),
        50..60 => {
            world.note(|| format!("{node} is restarted"));
            world.disturbed[node] = world.now;
            forget_proven(world, node);
            if world.is_awake(node) {
                world.restart_node(node);
                return world.rouse(node);
            }
            Ok(())
        }
        60..75 => {
            disturb_relays(world, node);
            Ok(())
        }
        75..85 => {
            let segment = world.rng.index(segments);
            world.note(|| format!("the NAT of network {segment} forgets everything"));
            world.net.forget_mappings(segment);
            for node in 0..count {
                world.disturbed[node] = world.now;
                forget_proven(world, node);
            }
            Ok(())
        }
        85..93 => {
            let host = &mut world.net.hosts[node];
            host.no_udp = !host.no_udp;
            let what = if host.no_udp {
                "is lost"
            } else {
                "passes again"
            };
            world.note(|| format!("UDP of {node} {what}"));
            world.disturbed[node] = world.now;
            forget_proven(world, node);
            Ok(())
        }
        _ => {
            let mtu = world.rng.pick(&[1500, 1340, 1339, 1280]);
            world.note(|| format!("{node} has an MTU of {mtu}"));
            world.net.hosts[node].mtu = mtu;
            world.disturbed[node] = world.now;
            forget_proven(world, node);
            Ok(())
        }
    }
}

fn forget_proven(world: &mut World, node: usize) {
    world.proven.retain(|(a, b)| *a != node && *b != node);
}

/// The machine changes networks, and notices.
pub(super) fn move_node(
    world: &mut World,
    node: usize,
    segment: Option<usize>,
) -> Result<(), String> {
    world.note(|| format!("{node} moves to network {segment:?}"));
    world.disturbed[node] = world.now;
    forget_proven(world, node);
    world.cut_conns(node);
    world.net.hosts[node].segment = None;
    if let Some(segment) = segment {
        world.net.hosts[node].ip = world.net.address_in(segment, node);
        world.net.hosts[node].segment = Some(segment);
    }
    if !world.is_awake(node) {
        return Ok(());
    }
    let now = world.local(node);
    for link in &mut world.nodes[node].links {
        link.home.handle_move(now);
    }
    world.nodes[node].reflector.handle_move(now);
    world.nodes[node].forget_lanes();
    world.refresh(node);
    for core in world.nodes[node].cores.iter_mut().flatten() {
        core.handle_move(now);
    }
    world.rouse(node)
}

fn unplug_or_plug(world: &mut World, node: usize, segments: usize) -> Result<(), String> {
    let there = match world.net.hosts[node].segment {
        Some(_) => None,
        None => Some(world.rng.index(segments)),
    };
    move_node(world, node, there)
}

fn sleep_or_wake(world: &mut World, node: usize) -> Result<(), String> {
    if world.is_awake(node) {
        world.note(|| format!("{node} falls asleep"));
        world.nodes[node].asleep = Some(world.now);
        world.disturbed[node] = world.now;
        forget_proven(world, node);
        return Ok(());
    }
    wake(world, node)
}

/// The machine wakes up. Its clock may have stood still meanwhile, or not.
pub(super) fn wake(world: &mut World, node: usize) -> Result<(), String> {
    let Some(since) = world.nodes[node].asleep.take() else {
        return Ok(());
    };
    let slept = world.now.duration_since(since);
    world.note(|| format!("{node} wakes after {slept:?}"));
    world.disturbed[node] = world.now;
    if world.rng.permille(500) {
        world.nodes[node].lag += slept;
    }
    let now = world.local(node);
    for call in &mut world.nodes[node].calls {
        call.next = call.next.max(world.now);
    }
    for link in &mut world.nodes[node].links {
        link.home.handle_move(now);
    }
    world.nodes[node].reflector.handle_move(now);
    world.nodes[node].forget_lanes();
    for core in world.nodes[node].cores.iter_mut().flatten() {
        core.handle_sleep(slept, now);
    }
    world.rouse(node)
}

/// Something happens to a relay; where there are two, maybe between them, or between one and a node.
fn disturb_relays(world: &mut World, node: usize) {
    let count = world.relays.len();
    let relay = if count > 1 { world.rng.index(count) } else { 0 };
    let what = if count > 1 { world.rng.below(5) } else { 0 };
    match what {
        2 => bar(world, node, relay, !world.barred[node][relay]),
        3 => set_apart(world, !world.apart),
        4 => part_silently(world, !world.apart),
        _ => {
            let next = match world.relays[relay].state {
                State::Up if world.rng.permille(500) => State::Ended,
                State::Up => State::Dark,
                _ => State::Up,
            };
            set_relay(world, relay, next);
        }
    }
}

/// A node cannot reach a relay any more, or can again; nobody is told.
pub(super) fn bar(world: &mut World, node: usize, relay: usize, barred: bool) {
    world.note(|| format!("{node} reaches relay {relay}: {}", !barred));
    let noticed = if barred { Duration::ZERO } else { RELAY_BACK };
    world.disturbed[node] = world.disturbed[node].max(world.now + noticed);
    forget_proven(world, node);
    world.barred[node][relay] = barred;
    world.cut_conns_with(node, relay);
}

/// The relays cannot reach each other any more, or can again.
pub(super) fn set_apart(world: &mut World, apart: bool) {
    world.note(|| format!("the relays reach each other: {}", !apart));
    world.relay_disturbed = world.relay_disturbed.max(world.now);
    world.apart = apart;
    world.relink();
}

/// The same, and nobody is told, neither that it is so nor that it is over.
pub(super) fn part_silently(world: &mut World, apart: bool) {
    world.note(|| format!("the relays could reach each other: {}", !apart));
    world.relay_disturbed = world.relay_disturbed.max(world.now);
    world.apart = apart;
    if apart {
        world.cut_links();
    } else {
        world.uncut_links();
    }
}

pub(super) fn set_relay(world: &mut World, relay: usize, state: State) {
    world.note(|| format!("relay {relay} is {state:?}"));
    if state == State::Up {
        world.relays[relay].state = state;
        world.relay_disturbed = world.now + RELAY_BACK;
        world.proven.clear();
        world.relink();
        return;
    }
    let count = world.nodes.len();
    let mut proven = BTreeSet::new();
    for a in 0..count {
        for b in a + 1..count {
            let settled = world.peace(a, b) + 10 * SECOND < world.now;
            let direct = |from: usize, to: usize| {
                let core = world.nodes[from].cores[to].as_ref().unwrap();
                let route = core.current_route(world.local(from));
                route.direct.is_some() && !route.relay
            };
            if settled && direct(a, b) && direct(b, a) {
                proven.insert((a, b));
            }
        }
    }
    world.relay_disturbed = world.relay_disturbed.max(world.now);
    world.proven = proven.into_iter().collect();
    world.end_relay(relay, state);
}

/// Everything that can be mended is mended.
fn calm_down(world: &mut World, count: usize) -> Result<(), String> {
    for relay in 0..world.relays.len() {
        if world.relays[relay].state != State::Up {
            set_relay(world, relay, State::Up);
        }
    }
    if world.apart {
        set_apart(world, false);
    }
    for node in 0..count {
        for relay in 0..world.relays.len() {
            if world.barred[node][relay] {
                bar(world, node, relay, false);
            }
        }
        wake(world, node)?;
        if world.net.hosts[node].segment.is_none() {
            move_node(world, node, Some(0))?;
        }
    }
    Ok(())
}

/// Nobody calls anybody for a while: hardly anything is sent.
fn rest(world: &mut World, count: usize) -> Result<(), String> {
    // What goes on by itself for a while: new keys for a session that was used lately, and the
    // attempt at guessing a port that may follow them.
    world.run_for(60 * SECOND)?;
    world.sent.fill(0);
    let time = 100 * SECOND;
    world.run_for(time)?;
    for node in 0..count {
        let rate = world.sent[node] as f64 / time.as_secs_f64();
        if rate > AT_REST {
            return Err(world.fail(&format!("{node} sends {rate:.1} packets a second at rest")));
        }
    }
    // And then one more call, after a pause in which NATs forget.
    let size = world.rng.pick(&[9, 1200, WIDE_MTU]);
    world.call(0, 1, size)?;
    world.run_for(world.bound + 100 * MS)?;
    Ok(())
}
