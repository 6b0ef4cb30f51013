//! A node is killed at every system call that changes something, one after the other, while it is
//! used: every thirtieth of them here, all of them when asked for (their number is recorded).

use e2e::case::or_skip;
use e2e::faults::syscalls::{Script, available, kill_at, points};
use e2e::faults::world::{Kind, Programs, World};

/// Of so many points one is played with the other tests.
const OF: usize = 30;

fn world() -> World {
    let programs = Programs {
        cw: env!("CARGO_BIN_EXE_cw-under-test").to_owned(),
        say_frame: env!("CARGO_BIN_EXE_say-frame").to_owned(),
    };
    let world = World::new(&programs, Kind::Stepped);
    world.unwrap_or_else(|why| panic!("{why}"))
}

/// Kills at every `of`-th point of all scripts.
#[expect(clippy::print_stderr, reason = "the figures are recorded")]
fn kill_at_every(of: usize) {
    if or_skip(available()).is_none() {
        return;
    }
    let mut broken = Vec::new();
    for script in Script::ALL {
        let mut world = world();
        let points = points(&world, script);
        let (mut played, mut hits, mut acknowledged) = (0, 0, 0);
        for point in points.iter().step_by(of) {
            let killed = kill_at(&world, point);
            played += 1;
            hits += usize::from(killed.hit);
            acknowledged += killed.outcome.tally.calls();
            if !killed.outcome.broken.is_empty() {
                let history = e2e::history::to_text(&killed.outcome.history);
                eprintln!("----- {point}: {:?}\n{history}", killed.outcome.broken);
                broken.push(format!("{point}: {:?}", killed.outcome.broken));
                world = self::world();
            }
        }
        eprintln!(
            "{script:?}: {} points, {played} played, {hits} killed a node, {acknowledged} \
             acknowledged calls, broken so far: {}",
            points.len(),
            broken.len()
        );
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_node_killed_at_a_system_call_loses_nothing() {
    kill_at_every(OF);
}

#[test]
#[ignore = "takes many minutes; its figures are recorded"]
fn a_node_killed_at_every_system_call_loses_nothing() {
    kill_at_every(1);
}
