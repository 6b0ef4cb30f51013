//! The scenario on every substrate; the trace is the same on each.

use e2e::case;
use e2e::docker::Docker;
use e2e::kind::Kind;
use e2e::netns::Netns;
use e2e::processes::Processes;
use e2e::scenario;
use e2e::substrate::{Substrate, Way};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// What people see, whatever lies between the machines.
const TRACE: &str = include_str!("scenario.trace");

#[test]
fn processes() {
    play(&Processes::new(CW, Way::Direct));
}

#[test]
fn processes_relayed() {
    play(&Processes::new(CW, Way::Relayed));
}

#[test]
fn processes_relayed_over_tls() {
    play(&Processes::with_tls(CW));
}

#[test]
fn netns_direct() {
    in_namespaces(Way::Direct);
}

#[test]
fn netns_relayed() {
    in_namespaces(Way::Relayed);
}

#[test]
fn docker_direct() {
    in_containers(Way::Direct);
}

#[test]
fn docker_relayed() {
    in_containers(Way::Relayed);
}

fn in_containers(way: Way) {
    if let Some(substrate) = Docker::or_skip(way) {
        play(&substrate);
    }
}

fn in_namespaces(way: Way) {
    if let Some(substrate) = Netns::or_skip(CW, way) {
        play(&substrate);
    }
}

/// Both in one: the pods have the same names.
#[test]
fn kind() {
    for outside in [true, false] {
        if let Some(substrate) = Kind::or_skip(CW, outside) {
            play(&substrate);
        }
    }
}

#[track_caller]
fn play(substrate: &dyn Substrate) {
    case(substrate, |substrate| {
        scenario::play(substrate).must_be(TRACE);
    });
}
