//! What a node says about its ways: to people, to programs, to monitoring, and through the doctor.

use e2e::cw::Cw;
use e2e::local::Local;
use e2e::processes::Processes;
use e2e::pty::Terminal;
use e2e::steps;
use e2e::substrate::{Host, Substrate, Way};
use e2e::{PATIENCE, case, wait_until};
use serde_json::Value;

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// The size of an IP packet that carries a probe of the larger size, by the address that it goes
/// to.
fn full_size(address: &str) -> u64 {
    if address.starts_with('[') { 1500 } else { 1480 }
}

fn standing(cw: &Cw) -> Value {
    serde_json::from_str(&cw.ok(&["node", "status", "--json"])).expect("it is JSON")
}

/// Asks until the answer is as it is to be.
fn wait_for(cw: &Cw, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    wait_until(what, PATIENCE, || {
        let now = standing(cw);
        if holds(&now) {
            Ok(now)
        } else {
            Err(now.to_string())
        }
    })
}

fn ready(substrate: &dyn Substrate) {
    steps::join_both(substrate);
    steps::wait_until_online(substrate);
}

#[test]
fn a_direct_way_is_shown_with_all_that_is_known_of_it() {
    case(
        &Processes::new(CW, Way::Direct) as &dyn Substrate,
        |substrate| {
            ready(substrate);
            let here = substrate.cw(Host::Dev1);
            let known = "the NAT is known, and what the direct path carries";
            let now = wait_for(&here, known, |now| {
                let network = &now["network"];
                let peer = &network["peers"][0];
                let full = peer["address"].as_str().map(full_size);
                network["udp"]["nat"] == "none" && full.is_some() && peer["mtu"].as_u64() == full
            });
            let network = &now["network"];
            assert_eq!(network["relay"]["url"], substrate.relay_url());
            assert_eq!(network["relay"]["connected"], true, "{now}");
            assert!(
                network["relay"]["rtt_ms"]
                    .as_f64()
                    .is_some_and(|ms| ms > 0.0),
                "{now}"
            );
            let outside = network["udp"]["outside"].as_str().unwrap_or_default();
            let port = network["udp"]["ports"][0].as_u64().unwrap_or_default();
            assert_eq!(outside, format!("127.0.0.1:{port}"));
            let peer = &network["peers"][0];
            assert_eq!(peer["name"], "dev-2");
            assert_eq!(peer["path"], "direct", "{peer}");
            assert_eq!(peer["nat"], "easy", "{peer}");
            assert_eq!(peer["why"], Value::Null, "{peer}");
            assert!(peer["rtt_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{peer}");

            let text = here.ok(&["node", "status", "dev-2"]);
            assert!(text.contains(" online   direct "), "{text}");
            assert!(
                text.contains(", round trip ") && text.contains("nat       none"),
                "{text}"
            );

            let pings = here.ok(&["node", "ping", "dev-2", "-c", "2", "--json"]);
            let pings: Value = serde_json::from_str(&pings).expect("it is JSON");
            assert_eq!(
                (&pings["sent"], &pings["answered"]),
                (&2.into(), &2.into()),
                "{pings}"
            );
            let spread = |field: &str| pings["rtt_ms"][field].as_f64().unwrap_or_default();
            assert!(spread("min") <= spread("avg") && spread("avg") <= spread("max"));
            let pings = here.run(&["node", "ping", "dev-2", "-c", "2"]).ok();
            assert_eq!(pings.stdout.lines().count(), 2, "{pings}");
            assert!(
                pings.stderr.contains("2 of 2 answered, 0 % lost"),
                "{pings}"
            );

            let mut many = Terminal::run(&here, &["node", "ping", "dev-2", "-c", "1000"]);
            many.shows("pong from dev-2", PATIENCE);
            many.type_in("\u{3}");
            many.shows("0 % lost", PATIENCE);
            assert_eq!(many.ends(PATIENCE), 130);
            for verb in ["ping", "status"] {
                here.run(&["node", verb, "dev-1"])
                    .fails("this_node")
                    .hints("node list");
            }

            numbers_are_told(&here);
            let doctor = here.run(&["doctor"]).ok();
            for line in ["ok  http", "ok  clock", "ok  udp", "ok  paths"] {
                assert!(doctor.stdout.contains(line), "{line}: {doctor}");
            }
        },
    );
}

fn numbers_are_told(cw: &Cw) {
    let metrics = cw.ok(&["node", "metrics"]);
    for line in [
        "codewire_node_relay_connected 1",
        "codewire_node_nat{kind=\"none\"} 1",
        "codewire_node_peer_online{peer=\"dev-2\"} 1",
        "codewire_node_peer_path{peer=\"dev-2\",path=\"direct\"} 1",
        "# TYPE codewire_node_udp_sent_bytes_total counter",
    ] {
        assert!(
            metrics.lines().any(|l| l == line),
            "{line} is not in\n{metrics}"
        );
    }
    let sent = number(&metrics, "codewire_node_udp_sent_bytes_total");
    assert!(sent > 0.0, "{metrics}");
    assert!(number(&metrics, "codewire_node_relay_rtt_seconds") > 0.0);
}

fn number(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
}

#[test]
fn it_is_said_why_a_way_is_not_direct() {
    case(
        &Processes::new(CW, Way::Relayed) as &dyn Substrate,
        |substrate| {
            ready(substrate);
            let here = substrate.cw(Host::Dev1);
            let now = wait_for(&here, "the path is there", |now| {
                now["network"]["peers"][0]["path"] == "relayed"
            });
            let network = &now["network"];
            assert_eq!(network["udp"]["nat"], "off");
            let peer = &network["peers"][0];
            assert_eq!(peer["why"]["code"], "udp_off", "{peer}");
            assert_eq!(peer["mtu"], Value::Null, "{peer}");
            let text = here.ok(&["node", "status"]);
            assert!(
                text.contains("not direct: UDP is switched off") && text.contains("udp       off"),
                "{text}"
            );
            assert!(here.run(&["doctor"]).ok().stdout.contains("ok  udp"));

            here.run(&["node", "status", "nobody"])
                .fails("node_unknown")
                .hints("node list");
            let cw = here
                .clone()
                .env("COMPLETE", "bash")
                .env("_CLAP_COMPLETE_INDEX", "3");
            for verb in ["status", "ping"] {
                let words = cw.ok(&["--", "cw", "node", verb, "de"]);
                assert!(words.contains("dev-2"), "{words}");
            }

            substrate.kill_node(Host::Dev2);
            let _ = wait_for(&here, "it is seen to be gone", |now| {
                now["network"]["peers"][0]["online"] == false
            });
            assert_eq!(standing(&here)["network"]["peers"][0]["path"], "none");
            // As any other call to it.
            let pings = here.run(&["node", "ping", "dev-2", "-c", "2"]);
            let pings = pings.fails("node_down").hints("cw start");
            assert_eq!(pings.status, Some(5), "{pings}");
            assert!(pings.stderr.contains("0 of 2 answered"), "{pings}");
            substrate.stop_relay();
            let now = wait_for(&here, "the relay is seen to be gone", |now| {
                now["network"]["relay"]["connected"] == false
            });
            assert!(now["network"]["relay"]["reason"].is_string(), "{now}");
            let ill = here.run(&["doctor"]);
            assert_eq!(ill.status, Some(1), "{ill}");
            assert!(ill.stdout.contains("BAD http"), "{ill}");
            assert!(ill.stdout.contains("BAD relay"), "{ill}");
        },
    );
}

#[test]
fn a_node_without_a_network_has_a_status_and_numbers() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let _ = cw.run(&["launch", "one", "--", "sleep", "600"]).ok();
        let text = cw.ok(&["node", "status"]);
        assert!(
            text.contains("network   none") && text.contains("1 session running"),
            "{text}"
        );
        assert_eq!(standing(cw)["network"], Value::Null);
        cw.run(&["node", "status", "dev-2"]).fails("no_network");
        let metrics = cw.ok(&["node", "metrics"]);
        assert!(
            metrics.contains("codewire_node_sessions{state=\"running\"} 1\n"),
            "{metrics}"
        );
        assert!(!metrics.contains("peer"), "{metrics}");
    });
}
