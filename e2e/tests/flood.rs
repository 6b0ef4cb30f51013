//! Nodes and the relay in a flood of forged packets, with calls going on: none of them dies, and
//! every call is answered. How soon is measured by `scripts/bench flood`.

use std::net::SocketAddr;

use e2e::case;
use e2e::forged::Flood;
use e2e::home::Part;
use e2e::processes::Processes;
use e2e::steps::{self, SLEEPER};
use e2e::substrate::{Host, Substrate, Way};
use e2e::wire::Wire;
use serde_json::json;

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// Packets in all, and a second: as many as a machine that does other things, too, can make.
const PACKETS: u64 = 30_000;
const PER_SECOND: u64 = 10_000;
/// Calls, at the least.
const CALLS: usize = 200;

fn flood(way: Way) {
    let processes = Processes::new(CW, way);
    case(&processes as &dyn Substrate, |substrate| {
        steps::join_both(substrate);
        steps::wait_until_online(substrate);
        let here = substrate.cw(Host::Dev1);
        steps::launch(&here, "dev-2:coder", &SLEEPER);
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let homes = Host::ALL.map(|host| processes.home(host));
        let pids = || homes.map(|home| home.pid(Part::Node));
        let before = pids();
        let mut targets: Vec<_> = homes
            .iter()
            .flat_map(|home| home.udp_ports())
            .map(local)
            .collect();
        targets.push(stun(&substrate.relay_log()));
        let relay = substrate.relay_url();
        let relay = relay.trim_start_matches("http://").parse();
        let relay: SocketAddr = relay.expect("the relay is on the loopback interface");

        let flood = Flood::start(&targets, relay, PER_SECOND);
        let mut wire = Wire::connect(&homes[0].socket());
        let mut calls = 0;
        while calls < CALLS || flood.sent() < PACKETS {
            let call = json!({"type": "GetStatus", "node": "dev-2", "name": "coder"});
            let answer = wire.ask(&call, "SessionStatus");
            assert_eq!(answer["info"]["name"], "coder", "{answer}");
            calls += 1;
        }
        drop(flood);
        assert_eq!(pids(), before, "nobody died");
        let _ = here.run(&["msg", "dev-2:coder", "still here?"]).ok();
        steps::wait_until_online(substrate);
    });
}

/// Where the relay answers questions of STUN.
#[track_caller]
fn stun(log: &str) -> SocketAddr {
    let line = log
        .lines()
        .find_map(|line| line.split_once("STUN listening on "));
    let (_, address) = line.expect("the relay says where");
    address.trim().parse().expect("that is an address")
}

#[test]
fn a_flood_of_forged_packets_does_no_harm_to_those_who_talk_directly() {
    flood(Way::Direct);
}

#[test]
fn a_flood_of_forged_packets_does_no_harm_to_those_who_talk_by_the_relay() {
    flood(Way::Relayed);
}
