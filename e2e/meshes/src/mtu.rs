//! A mebibyte at every MTU, in steps, by IPv4 and by IPv6, on a network with a short delay.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;

use crate::child::Pair;
use crate::lab::{Ip, Lab};
use crate::lines;
use crate::report::Samples;
use crate::way::Kind;

const ROUND_TRIP: Duration = Duration::from_millis(2);
const LENGTH: u64 = 1 << 20;
/// How long the nodes have to find the straight path, where there is one.
const FOUND: Duration = Duration::from_secs(1);

/// Measures and prints: at MTUs that are so many bytes apart.
pub fn measure(lab: &Lab, step: usize) -> Result<()> {
    lab.shim.set_round_trip(ROUND_TRIP);
    each(lab, Ip::V4, "IPv4", step)?;
    lab.number(Ip::V6)?;
    each(lab, Ip::V6, "IPv6", step)?;
    lab.number(Ip::V4)
}

/// By addresses of one kind.
fn each(lab: &Lab, ip: Ip, name: &str, step: usize) -> Result<()> {
    let (mut tried, mut arrived) = (0, 0);
    let mut times = Samples::default();
    let mut straight = Vec::new();
    for mtu in (1280..=1500).step_by(step) {
        tried += 1;
        lab.set_mtu(mtu)?;
        let relay = lab.relay_by(ip)?;
        let mut pair = Pair::by(Kind::Ours, &relay.about, lab.nodes())?;
        pair.near.ask("first")?;
        sleep(FOUND);
        match pair.bulk(LENGTH) {
            Ok(bulk) => {
                arrived += 1;
                times.number(LENGTH as f64 * 8.0 / bulk.gbits / 1e6);
            }
            Err(error) => println!("  {name}, MTU {mtu}: {error:#}"),
        }
        if pair.near.ask("which")? == "direct" {
            straight.push(mtu);
        }
    }
    let title = format!("1 MiB, MTU 1280 to 1500, {name}");
    lines(&title, "ms", &times, &[("-", None, "reported")]);
    let straight = match (straight.first(), straight.last()) {
        (Some(first), Some(last)) => format!("{} of them, {first} to {last}", straight.len()),
        _ => "none".to_owned(),
    };
    println!(
        "  arrived at {arrived} of {tried} MTUs, goal all; straight at {straight}, else by the relay"
    );
    Ok(())
}
