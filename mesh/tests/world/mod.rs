//! A world of nodes, NATs and relays, in one thread, with its own time.
//!
//! Nothing here has a socket or waits for anything. The nodes are made of the
//! state machines that real nodes are made of: peers with their WireGuard
//! tunnels and path agents, the connections to the relays, the questions to a
//! STUN server; and a relay is derp's router. Around them is a network that
//! delays, loses, repeats and reorders datagrams, translates their addresses,
//! and changes: machines move to other networks, sleep, restart; a relay
//! dies with and without a word, and where there are two, they lose each other,
//! and a node loses one of them.
//!
//! A world follows from its seed and the number of its relays. What must hold in
//! each of them:
//!
//! - a call is answered within a bounded time after the last disturbance, if
//!   there is a path at all;
//! - two nodes do not go on making new sessions with each other;
//! - what is sent on a direct path alone arrives: within little more than a
//!   second after a path has ceased to carry full-size packets it is not
//!   trusted any more;
//! - datagrams of the larger size go straight, and nowhere else, only where one
//!   has arrived lately;
//! - nothing grows: queues, tables, and the packets of a node at rest.
//!
//! `MESH_WORLD_SEEDS=from..to` runs other seeds than the first 200, and a
//! failure prints the seed it is to be run with.

mod call;
mod connection;
mod datagram;
mod net;
mod node;
mod promise;
mod region;
mod relay;
mod rng;
mod run;
mod scenario;
mod serve;
mod table;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds that have found a fault. They stay: two agents kept each other awake;
/// a dead path was trusted for what was on its way already, or had been sent
/// before.
const REGRESSIONS: [u64; 4] = [17, 76, 243, 272];

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("MESH_WORLD_SEEDS") else {
        return 0..200;
    };
    let parsed = text
        .split_once("..")
        .and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    parsed.expect("MESH_WORLD_SEEDS is from..to")
}

/// Runs seeds on all cores, one world a thread; the seeds that failed.
fn run_all(relays: usize, seeds: impl Iterator<Item = u64> + Send) -> Vec<(u64, String)> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let seeds = std::sync::Mutex::new(seeds);
    let failed = std::sync::Mutex::new(vec![]);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = next(&seeds) {
                    if let Err(why) = run_seed(seed, relays) {
                        failed.lock().unwrap().push((seed, why));
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap()
}

fn next(seeds: &std::sync::Mutex<impl Iterator<Item = u64>>) -> Option<u64> {
    seeds.lock().unwrap().next()
}

fn run_seed(seed: u64, relays: usize) -> Result<(), String> {
    let run = AssertUnwindSafe(|| scenario::run(seed, relays));
    match catch_unwind(run) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(format!("panic: {}", text.unwrap_or_default()))
        }
    }
}

fn keep_their_promises(relays: usize, seeds: impl Iterator<Item = u64> + Send) {
    let failed = run_all(relays, seeds);
    let show = |(seed, why): &(u64, String)| {
        let again = format!("MESH_WORLD_SEEDS={seed}..{}", seed + 1);
        format!("seed {seed} ({again}):\n{why}")
    };
    let shown: Vec<_> = failed.iter().take(3).map(show).collect();
    assert!(
        failed.is_empty(),
        "{} worlds failed: {:?}\n{}",
        failed.len(),
        failed.iter().map(|(seed, _)| seed).collect::<Vec<_>>(),
        shown.join("\n")
    );
}

#[test]
fn every_world_keeps_its_promises() {
    keep_their_promises(1, REGRESSIONS.into_iter().chain(seeds()));
}

#[test]
fn every_world_of_two_relays_keeps_its_promises() {
    keep_their_promises(2, seeds());
}

#[test]
#[ignore = "ten thousand worlds of each kind: many minutes"]
fn ten_thousand_worlds_keep_their_promises() {
    for relays in [1, 2] {
        let count = AtomicU64::new(0);
        let seeds = (0..10_000).inspect(|_| {
            let count = count.fetch_add(1, Ordering::Relaxed);
            if count.is_multiple_of(1000) {
                println!("{count} worlds, relays in each: {relays}");
            }
        });
        keep_their_promises(relays, seeds);
    }
}
