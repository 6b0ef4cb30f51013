//! A mebibyte at every MTU, in steps, on a network with a short delay.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use crate::child::Pair;
use crate::lab::Lab;
use crate::lines;
use crate::report::Samples;
use crate::way::Kind;

const ROUND_TRIP: Duration = Duration::from_millis(2);
const LENGTH: u64 = 1 << 20;
/// How long the nodes have to find the straight path, where there is one.
const FOUND: Duration = Duration::from_secs(1);

/// Measures and prints.
pub fn measure(lab: &Lab) -> Result<()> {
    lab.shim.set_round_trip(ROUND_TRIP);
    let (mut tried, mut arrived) = (0, 0);
    let mut times = Samples::default();
    let mut straight = Vec::new();
    for mtu in (1280..=1500).step_by(20) {
        tried += 1;
        lab.set_mtu(mtu)?;
        let relay = lab.relay("ours", None)?;
        let mut pair = Pair::by(Kind::Ours, &relay.about, lab.nodes())?;
        pair.near.ask("first")?;
        sleep(FOUND);
        match pair.bulk(LENGTH) {
            Ok(bulk) => {
                arrived += 1;
                times.number(LENGTH as f64 * 8.0 / bulk.gbits / 1e6);
            }
            Err(error) => println!("  MTU {mtu}: {error:#}"),
        }
        if pair.near.ask("which")? == "direct" {
            straight.push(mtu);
        }
    }
    lines(
        "1 MiB, MTU 1280 to 1500, IPv4",
        "ms",
        &times,
        &[("-", None, "reported")],
    );
    println!(
        "  arrived at {arrived} of {tried} MTUs, goal all; straight from {:?} on, else by the relay",
        straight.first()
    );
    println!("  IPv6: `cargo test -p e2e --test lab a_mebibyte`");
    Ok(())
}
