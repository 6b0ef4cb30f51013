//! Measures our mesh beside raw quinn, iroh, wireguard-go and TCP, in one run, in alternating
//! rounds. Nothing here passes or fails.
//!
//! `cw-meshes [calls|bulk|relayed|wireguard|connect|switch|mtu …]`: all of them, or those named;
//! `mtu` tries every eleventh MTU, and `each-mtu`, if it is named, every one.
//! Each end of each way, and each relay, runs in a process of its own (`cw-meshes end …`,
//! `cw-meshes relay …`), so that what it takes of the processor can be told apart. Printed are
//! medians over the rounds, the ratio, the goal and the machine's load. What cannot be measured here
//! is named.
//!
//! `calls` to `wireguard` are by loopback; `connect` to `mtu` need root, iproute2 and TUN devices.

mod awake;
mod bulk;
mod calls;
mod child;
mod cipher;
mod connect;
mod end;
mod lab;
mod mtu;
mod relay;
#[path = "../../bench/src/report.rs"]
#[expect(dead_code, reason = "others print more")]
mod report;
mod shim;
mod switch;
mod way;
mod wireguard;

use anyhow::{Result, bail};
use lab::Lab;
use report::{Samples, head, load, row};
use way::Kind;

const PARTS: [&str; 7] = [
    "calls",
    "bulk",
    "relayed",
    "wireguard",
    "connect",
    "switch",
    "mtu",
];
/// Too long to be measured unless it is named: ten minutes.
const EACH_MTU: &str = "each-mtu";

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["end", kind, side, relay, about] => end::run(kind, side, relay, about),
        ["relay", whose, at] => relay::run(whose, at),
        ["awake", core] => awake::run(core),
        [] => measure(&PARTS),
        _ if words.iter().all(|it| PARTS.contains(it) || *it == EACH_MTU) => measure(&words),
        _ => bail!("usage: cw-meshes [{}|{EACH_MTU} …]", PARTS.join("|")),
    }
}

fn measure(parts: &[&str]) -> Result<()> {
    println!("load before: {}", load());
    if !Kind::Iroh.is_here() {
        println!("absent: iroh was not built");
    }
    head();
    let mut lab = None;
    for part in parts {
        match *part {
            "calls" => calls::direct()?,
            "bulk" => bulk::direct()?,
            "relayed" => {
                calls::relayed()?;
                bulk::relayed()?;
            }
            "wireguard" => wireguard::measure()?,
            _ => match lab.get_or_insert_with(Lab::new) {
                Err(why) => println!("not measured: {part} ({why:#})"),
                Ok(lab) if *part == "connect" => connect::measure(lab)?,
                Ok(lab) if *part == "switch" => switch::measure(lab)?,
                Ok(lab) if *part == EACH_MTU => mtu::measure(lab, 1)?,
                // Odd ones among them.
                Ok(lab) => mtu::measure(lab, 11)?,
            },
        }
    }
    println!("load after: {}", load());
    Ok(())
}

/// Alternating rounds of everything.
const fn rounds() -> usize {
    7
}

/// A line for each peer: ours, the peer's, the ratio and the goal.
fn lines(name: &str, unit: &str, ours: &Samples, peers: &[(&str, Option<Samples>, &str)]) {
    for (number, (peer, theirs, goal)) in peers.iter().enumerate() {
        let name = if number == 0 { name } else { "" };
        match theirs {
            Some(theirs) => row(name, unit, ours, Some((peer, theirs)), goal),
            None if *peer == "-" => row(name, unit, ours, None, goal),
            None => row(name, unit, ours, None, &format!("{goal}; {peer} is absent")),
        }
    }
}
