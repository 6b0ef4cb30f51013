//! How long it takes from nothing to the first answer, and to the straight path, on a network with
//! a delay.
//!
//! *Cold*: both nodes are connected to the relay and know each other, nothing else. *Warm*: there is
//! a WireGuard session, and no connection in it. *Resumed*: the same, but there was a connection
//! before, and the call is one that may be made twice (0-RTT). *Kept*: the connection is there, as it
//! is after every call.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::child::Pair;
use crate::lab::Lab;
use crate::report::Samples;
use crate::way::Kind;
use crate::{lines, rounds};

const ROUND_TRIP: Duration = Duration::from_millis(50);

/// Measures and prints.
pub fn measure(lab: &Lab) -> Result<()> {
    lab.shim.set_round_trip(ROUND_TRIP);
    let [
        mut cold,
        mut direct,
        mut warm,
        mut resumed,
        mut kept,
        mut theirs,
        mut trip,
    ] = [const { Samples::new() }; 7];
    let mut failed = 0.0;
    for _ in 0..rounds() {
        trip.number(ROUND_TRIP.as_secs_f64() * 1e3);
        let [first, straight, missed] = from_nothing(lab, "upgrade", Kind::Ours)?;
        cold.number(first);
        direct.number(straight);
        failed += missed;
        let [first, second, third] = from_ping(lab)?;
        warm.number(first);
        kept.number(second);
        resumed.number(third);
        if Kind::Iroh.is_here() {
            let [first] = from_nothing(lab, "first", Kind::Iroh)?;
            theirs.number(first);
        }
    }
    let round_trips = |goal| ("RTT", Some(trip.clone()), goal);
    let iroh = (!theirs.is_empty()).then_some(theirs);
    lines(
        "cold connect to answer, 50 ms RTT",
        "ms",
        &cold,
        &[
            round_trips("<= 3.2 x + 5 ms = 165"),
            ("iroh", iroh, "reported"),
        ],
    );
    lines("  warm", "ms", &warm, &[round_trips("<= 2.1 x = 105")]);
    let title = "  resumed by 0-RTT";
    lines(title, "ms", &resumed, &[round_trips("<= 1.2 x = 60")]);
    let title = "  on the connection that is kept";
    lines(title, "ms", &kept, &[round_trips("<= 1.2 x = 60")]);
    lines(
        "from nothing to the direct path",
        "ms",
        &direct,
        &[round_trips("<= 3 x + 20 ms = 170")],
    );
    println!("  calls that failed meanwhile: {failed}; goal 0");
    Ok(())
}

/// New nodes by a new relay, and what the near one says when it is asked.
fn from_nothing<const N: usize>(lab: &Lab, line: &str, kind: Kind) -> Result<[f64; N]> {
    let whose = match kind {
        Kind::Iroh => "iroh",
        _ => "ours",
    };
    let relay = lab.relay(whose, None)?;
    let mut pair = Pair::by(kind, &relay.about, lab.nodes())?;
    pair.near.numbers(line)
}

/// The first call in a WireGuard session, the next one, and the first one after the connection.
fn from_ping(lab: &Lab) -> Result<[f64; 3]> {
    let relay = lab.relay("ours", None)?;
    let mut pair = Pair::by(Kind::Ours, &relay.about, lab.nodes())?;
    pair.near.ask("ping")?;
    pair.near.ask("path direct")?;
    let [first] = pair.near.numbers("first")?;
    let [second] = pair.near.numbers("first")?;
    pair.near.ask("drop")?;
    let [third, early] = pair.near.numbers("early")?;
    ensure!(early == 1.0, "it has waited for the handshake");
    Ok([first, second, third])
}
