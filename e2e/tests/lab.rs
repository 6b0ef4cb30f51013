//! Real NATs, filters, MTUs and links: pairs of nodes find each other as the simulated world of the
//! mesh predicts, whatever fits or not, and a call outlives a change of networks.

use std::time::Duration;

use e2e::cw::Cw;
use e2e::gateway::Lends;
use e2e::lab::{Ip, Lab, Nat, Out, Place};
use e2e::steps::{self, ECHO};
use e2e::substrate::{Host, Substrate, Way};
use e2e::{case, wait_until};
use serde_json::Value;

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// How long a path may take to be found, with ports to be guessed, on a busy machine.
const FOUND: Duration = Duration::from_secs(90);
/// How long a large message may take.
const LONG: Duration = Duration::from_secs(60);

fn standing(cw: &Cw) -> Result<Value, String> {
    let done = cw.run(&["node", "status", "--json"]);
    serde_json::from_str(&done.stdout).map_err(|_| done.to_string())
}

/// Waits until a host says what it is expected to say of its own network and of its way.
fn wait_for(cw: &Cw, what: &str, holds: impl Fn(&Value) -> bool) {
    wait_until(what, FOUND, || {
        let now = standing(cw)?;
        holds(&now["network"])
            .then_some(())
            .ok_or_else(|| now.to_string())
    });
}

fn word(place: Place) -> &'static str {
    match (place.out, place.nat) {
        (Out::NoUdp | Out::Only443, _) => "blocked",
        (Out::All, Nat::Open) => "none",
        (Out::All, Nat::Easy) => "easy",
        (Out::All, Nat::Hard) => "hard",
    }
}

/// Two hosts at these places reach each other; directly, or, for this reason, by the relay.
fn pair(places: [Place; 2], why_relayed: Option<&str>) {
    let way = match why_relayed {
        None => Way::Direct,
        Some(_) => Way::Relayed,
    };
    let Some(lab) = Lab::or_skip(CW, places, Ip::V4, way) else {
        return;
    };
    case(&lab as &dyn Substrate, |lab| {
        steps::join_both(lab);
        steps::wait_until_online(lab);
        steps::launch(&lab.cw(Host::Dev2), "coder", &ECHO);
        for (host, place) in Host::ALL.into_iter().zip(places) {
            let what = format!("{} is behind {}", host.name(), word(place));
            wait_for(&lab.cw(host), &what, |now| now["udp"]["nat"] == word(place));
        }
        let here = lab.cw(Host::Dev1);
        wait_for(&here, &format!("the way is {way:?}"), |now| {
            let peer = &now["peers"][0];
            peer["path"] == way.word() && peer["why"]["code"].as_str() == why_relayed
        });
        carries(lab, 1000);
        // It is the same seen from the other side.
        let there = lab.cw(Host::Dev2);
        wait_for(&there, &format!("the way back is {way:?}"), |now| {
            now["peers"][0]["path"] == way.word()
        });
    });
}

/// A message of so many bytes arrives as it was sent.
fn carries(lab: &dyn Substrate, len: usize) {
    let letters = (0..len).map(|at| char::from(b'a' + (at * 7 % 26) as u8));
    let body: String = letters.collect();
    let words = ["msg", "--no-queue", "dev-2:coder", "-"];
    let here = lab.cw(Host::Dev1);
    wait_until("the message is taken", LONG, || {
        let done = here.run_with(&words, body.as_bytes(), LONG);
        (done.status == Some(0))
            .then_some(())
            .ok_or_else(|| done.to_string())
    });
    let inbox = steps::inbox(&lab.cw(Host::Dev2), "coder");
    let same = |message: &&Value| message["body"] == body.as_str();
    assert_eq!(
        inbox.iter().filter(same).count(),
        1,
        "{} messages",
        inbox.len()
    );
}

fn behind(nats: [Nat; 2]) -> [Place; 2] {
    nats.map(Place::behind)
}

#[test]
fn open_and_easy_are_direct() {
    pair(behind([Nat::Open, Nat::Easy]), None);
}

#[test]
fn easy_and_easy_are_direct() {
    pair(behind([Nat::Easy, Nat::Easy]), None);
}

#[test]
fn hard_and_open_are_direct() {
    pair(behind([Nat::Hard, Nat::Open]), None);
}

#[test]
fn hard_and_easy_are_direct_by_guessing() {
    pair(behind([Nat::Hard, Nat::Easy]), None);
}

#[test]
fn easy_and_hard_are_direct_by_guessing() {
    pair(behind([Nat::Easy, Nat::Hard]), None);
}

#[test]
fn hard_and_hard_go_by_the_relay() {
    pair(behind([Nat::Hard, Nat::Hard]), Some("both_nats_hard"));
}

/// Both NATs are hard, but one router lends a port: that is a way. It has it back when the node
/// stops.
fn lent(how: Lends, by: &str) {
    let [mut here, there] = behind([Nat::Hard, Nat::Hard]);
    here.lends = Some(how);
    let Some(lab) = Lab::or_skip(CW, [here, there], Ip::V4, Way::Direct) else {
        return;
    };
    case(&lab as &dyn Substrate, |substrate| {
        steps::join_both(substrate);
        steps::wait_until_online(substrate);
        steps::launch(&substrate.cw(Host::Dev2), "coder", &ECHO);
        let here = substrate.cw(Host::Dev1);
        wait_for(&here, &format!("a port is lent by {by}"), |now| {
            now["udp"]["mapped"]["by"] == by
        });
        assert_eq!(lab.lent(), 1);
        for host in Host::ALL {
            let what = format!("the way of {} is direct", host.name());
            wait_for(&substrate.cw(host), &what, |now| {
                now["peers"][0]["path"] == "direct"
            });
        }
        carries(substrate, 1000);
        let told = here.run(&["doctor"]);
        let line = told
            .stdout
            .lines()
            .find(|line| line.contains("port mapping"));
        assert!(line.is_some_and(|line| line.contains(by)), "{told}");
        let _ = here.run(&["stop"]).ok();
        wait_until("the port is given back", LONG, || match lab.lent() {
            0 => Ok(()),
            count => Err(format!("{count} are lent")),
        });
    });
}

#[test]
fn hard_and_hard_are_direct_when_a_gateway_lends_a_port_by_pcp() {
    lent(Lends::Pcp, "PCP");
}

#[test]
fn hard_and_hard_are_direct_when_a_gateway_lends_a_port_by_upnp() {
    lent(Lends::Upnp, "UPnP");
}

#[test]
fn without_udp_everything_goes_by_the_relay() {
    let [mut here, there] = behind([Nat::Easy, Nat::Open]);
    here.out = Out::NoUdp;
    pair([here, there], Some("udp_blocked"));
}

#[test]
fn where_only_port_443_is_open_everything_goes_by_the_relay() {
    let [mut here, there] = behind([Nat::Easy, Nat::Easy]);
    here.out = Out::Only443;
    pair([here, there], Some("udp_blocked"));
}

/// A mebibyte arrives whatever the MTU: directly where a full packet fits, else by the relay.
fn mebibyte(ip: Ip, mtu: u32) {
    let places = behind([Nat::Open, Nat::Open]).map(|place| Place { mtu, ..place });
    let (full, larger) = match ip {
        Ip::V4 => (1340, 1480),
        Ip::V6 => (1360, 1500),
    };
    let way = if mtu >= full {
        Way::Direct
    } else {
        Way::Relayed
    };
    let Some(lab) = Lab::or_skip(CW, places, ip, way) else {
        return;
    };
    case(&lab as &dyn Substrate, |lab| {
        steps::join_both(lab);
        steps::wait_until_online(lab);
        steps::launch(&lab.cw(Host::Dev2), "coder", &ECHO);
        wait_for(&lab.cw(Host::Dev1), &format!("the way is {way:?}"), |now| {
            let peer = &now["peers"][0];
            let why = peer["why"]["code"].as_str();
            peer["path"] == way.word() && (way == Way::Direct || why == Some("no_answer"))
        });
        carries(lab, 1 << 20);
        if way == Way::Direct {
            let size = if mtu >= larger { larger } else { full };
            wait_for(
                &lab.cw(Host::Dev1),
                &format!("packets of {size} bytes"),
                |now| now["peers"][0]["mtu"] == size,
            );
        }
    });
}

#[test]
fn a_mebibyte_passes_at_every_mtu_by_ipv4() {
    for mtu in [1280, 1400, 1500] {
        mebibyte(Ip::V4, mtu);
    }
}

#[test]
fn a_mebibyte_passes_at_every_mtu_by_ipv6() {
    for mtu in [1280, 1400, 1500] {
        mebibyte(Ip::V6, mtu);
    }
}

#[test]
fn a_call_goes_on_when_the_network_changes_under_it() {
    let places = behind([Nat::Easy, Nat::Easy]);
    let Some(lab) = Lab::or_skip(CW, places, Ip::V4, Way::Direct) else {
        return;
    };
    case(&lab as &dyn Substrate, |substrate| {
        steps::join_both(substrate);
        steps::wait_until_online(substrate);
        let (here, there) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
        steps::launch(&there, "coder", &ECHO);
        wait_for(&here, "the way is direct", |now| {
            now["peers"][0]["path"] == "direct"
        });
        let mut follow = here.start(&["logs", "dev-2:coder", "-f"]);
        let say = |line: &str| {
            let _ = there.run(&["send", "coder", line]).ok();
        };
        say("before");
        let _ = follow.stdout.line("got:before", LONG);
        lab.swap();
        say("after");
        let _ = follow.stdout.line("got:after", LONG);
        wait_for(&here, "the way is direct again", |now| {
            now["peers"][0]["path"] == "direct"
        });
        say("at last");
        let _ = follow.stdout.line("got:at last", LONG);
        let text = follow.stdout.text();
        let got = text.lines().filter(|line| line.starts_with("got:"));
        assert_eq!(
            got.collect::<Vec<_>>(),
            ["got:before", "got:after", "got:at last"]
        );
        assert!(follow.runs(), "the call was not made again");
        follow.kill();
    });
}
