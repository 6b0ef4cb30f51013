//! Messages beside NATS JetStream and Redis streams, as far as they are on the `PATH`.
//!
//! *Sending.* A sender is a connection: to the node's Unix socket, or over loopback to the peer.
//! It writes a burst of messages in one go, reads an acknowledgement of each, and writes the next
//! burst. One thread drives all the senders of a round. Every party gets bytes that were made
//! beforehand, so what is measured is the server; the driver's own work is in the figures of all
//! three alike. Each sender has a recipient of its own: a session, a subject of one file-backed
//! stream, a stream. Bodies are 200 bytes.
//!
//! *Asking.* One connection asks and waits for the reply; another is told of the request and
//! replies. Request and reply are stored by all three: in inboxes, in two subjects of a JetStream
//! stream with a push consumer each, in two Redis streams.
//!
//! *Durable* means that of the configuration: ours is on the disk within 100 ms, or with
//! `sync = "always"` before it is acknowledged; Redis writes an append-only file with
//! `appendfsync everysec` (its default) or `always`; JetStream's file store syncs every two
//! minutes by default, and always where its version can be told to.
//!
//! Every round begins with a new server in an empty directory, and another party is the first.
//! What was acknowledged is counted where it is stored.

mod ask;
mod cw;
mod drive;
mod nats;
mod redis;
mod server;

pub use cw::frame;

use std::path::Path;

use anyhow::{Context as _, Result};

use self::drive::Load;
use self::server::Server;
use crate::report::{Samples, head, load, rows};

/// Alternating rounds, unless `CW_BENCH_ROUNDS` says otherwise.
const ROUNDS: usize = 5;

/// Bytes of a message.
const BODY: usize = 200;

/// Requests in a round.
const ASKED: usize = 1000;

/// What is measured of sending: name, senders, messages in a burst, messages of each sender, the
/// goal by default, and with `always`.
const LOADS: [(&str, Load, &str, &str); 3] = [
    (
        "1 sender, bursts of 256",
        Load {
            senders: 1,
            burst: 256,
            each: 51_200,
        },
        ">= 50 000/s",
        ">= 5 000/s",
    ),
    (
        "100 senders, bursts of 32",
        Load {
            senders: 100,
            burst: 32,
            each: 640,
        },
        ">= 50 000/s",
        ">= 5 000/s",
    ),
    (
        "100 senders, one by one",
        Load {
            senders: 100,
            burst: 1,
            each: 200,
        },
        "",
        "",
    ),
];

/// What came of one party in all rounds.
#[derive(Default)]
struct Figures {
    rate: Samples,
    cpu: Samples,
    driver: Samples,
}

/// Measures and prints.
pub fn run(program: &str) -> Result<()> {
    let program = Path::new(program).canonicalize()?;
    let rounds = rounds();
    println!("load before: {}; {rounds} rounds", load());
    server::introduce();
    head();
    for always in [false, true] {
        let parties = server::parties(&program, always)?;
        let setting = if always { "sync always" } else { "default" };
        asking(&parties, setting, rounds)?;
        for (name, work, goal, goal_always) in &LOADS {
            let goal = if always { goal_always } else { goal };
            sending(&parties, (setting, name), work, goal, rounds)?;
        }
    }
    println!("load after: {}", load());
    Ok(())
}

fn asking(parties: &[Server], setting: &str, rounds: usize) -> Result<()> {
    let mut figures: Vec<[Samples; 2]> = parties.iter().map(|_| Default::default()).collect();
    for round in 0..rounds {
        for at in turn(parties.len(), round) {
            let party = &parties[at];
            let times = ask::run(party, ASKED);
            let times = times.with_context(|| format!("{} is asked", party.name()))?;
            figures[at][0].number(times.quantile(0.5));
            figures[at][1].number(times.quantile(0.99));
        }
    }
    for (which, (percentile, goal)) in [("p50", "<= 1 ms"), ("p99", "")].into_iter().enumerate() {
        let name = format!("request to reply, {percentile}, {setting}");
        let of = |at: usize| (parties[at].name(), &figures[at][which]);
        let peers: Vec<_> = (1..parties.len()).map(of).collect();
        print(&name, "us", &figures[0][which], &peers, goal);
    }
    Ok(())
}

fn sending(
    parties: &[Server],
    (setting, name): (&str, &str),
    work: &Load,
    goal: &str,
    rounds: usize,
) -> Result<()> {
    let mut figures: Vec<Figures> = parties.iter().map(|_| Figures::default()).collect();
    for round in 0..rounds {
        for at in turn(parties.len(), round) {
            let party = &parties[at];
            let done = drive::run(party, work);
            let done = done.with_context(|| format!("{}, {name}", party.name()))?;
            let messages = (work.senders * work.each) as f64;
            figures[at].rate.number(messages / done.seconds);
            figures[at].cpu.number(done.server_cpu / messages * 1e6);
            figures[at].driver.number(done.driver_cpu / messages * 1e6);
        }
    }
    println!("-- {name}, {setting}");
    let of = |pick: fn(&Figures) -> &Samples| {
        let peers = (1..parties.len()).map(|at| (parties[at].name(), pick(&figures[at])));
        (pick(&figures[0]), peers.collect::<Vec<_>>())
    };
    let (ours, peers) = of(|figures| &figures.rate);
    print("messages", "/s", ours, &peers, goal);
    let (ours, peers) = of(|figures| &figures.cpu);
    print("cpu of the server, a message", "us", ours, &peers, "");
    let (ours, peers) = of(|figures| &figures.driver);
    print("cpu of the driver, a message", "us", ours, &peers, "");
    Ok(())
}

fn print(name: &str, unit: &str, ours: &Samples, peers: &[(&str, &Samples)], goal: &str) {
    rows(name, unit, ours, peers, goal);
}

fn rounds() -> usize {
    let said = std::env::var("CW_BENCH_ROUNDS").ok();
    said.and_then(|rounds| rounds.parse().ok())
        .unwrap_or(ROUNDS)
}

/// Who comes when in a round: each is the first in turn.
fn turn(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |at| (at + round) % count)
}
