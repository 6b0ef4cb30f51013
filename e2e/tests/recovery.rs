//! Faults while it is used: the relay, the nodes and the network go away and come back, and
//! everything works again without anybody's help.

use std::time::Duration;

use e2e::home::Part;
use e2e::netns::Netns;
use e2e::processes::Processes;
use e2e::steps::{self, RECOVERY, SLEEPER};
use e2e::substrate::{Host, Substrate, Way};
use e2e::{case, wait_until};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// How long a call may wait for a host of which nothing is heard any more.
const VANISHED: Duration = Duration::from_secs(45);

/// How often a node is killed in a row.
const KILLS: usize = 10;

/// Two nodes, a session `planner` on the first and `coder` on the second, who have spoken.
#[track_caller]
fn ready(substrate: &dyn Substrate) {
    steps::join_both(substrate);
    steps::wait_until_online(substrate);
    for (host, name) in [(Host::Dev1, "planner"), (Host::Dev2, "coder")] {
        steps::launch(&substrate.cw(host), name, &SLEEPER);
    }
    speak(substrate, "first");
}

/// A message goes either way within the time that a recovery may take.
#[track_caller]
fn speak(substrate: &dyn Substrate, body: &str) {
    steps::wait_until_heard(&substrate.cw(Host::Dev1), "dev-2:coder", body);
    steps::wait_until_heard(&substrate.cw(Host::Dev2), "dev-1:planner", body);
}

#[test]
fn s21_the_relay_is_killed_and_started_again() {
    case(
        &Processes::new(CW, Way::Relayed) as &dyn Substrate,
        |substrate| {
            ready(substrate);
            for round in ["after a kill", "after another"] {
                substrate.kill_relay();
                substrate.start_relay();
                speak(substrate, round);
                steps::wait_until_online(substrate);
            }
            substrate.stop_relay();
            substrate.start_relay();
            speak(substrate, "after a stop");
            // Nothing came twice, and nothing that was acknowledged is missing.
            let inbox = steps::inbox(&substrate.cw(Host::Dev2), "coder");
            for body in ["first", "after a kill", "after another", "after a stop"] {
                assert!(
                    inbox.iter().any(|message| message["body"] == body),
                    "{body}: {inbox:?}"
                );
            }
        },
    );
}

#[test]
fn a_path_between_nodes_outlives_the_relay() {
    case(
        &Processes::new(CW, Way::Direct) as &dyn Substrate,
        |substrate| {
            ready(substrate);
            let here = substrate.cw(Host::Dev1);
            wait_until("the path is direct", e2e::PATIENCE, || {
                let pong = here.run(&["node", "ping", "dev-2"]);
                if pong.stdout.contains("direct") {
                    Ok(())
                } else {
                    Err(pong.to_string())
                }
            });
            substrate.kill_relay();
            speak(substrate, "without a relay");
            let list = wait_until("the loss of the relay is told", RECOVERY, || {
                let list = here.run(&["node", "list"]);
                if list.stderr.contains("relay is not reached") {
                    Ok(list)
                } else {
                    Err(list.to_string())
                }
            });
            assert_eq!(list.status, Some(0), "{list}");
            substrate.start_relay();
            steps::wait_until_online(substrate);
        },
    );
}

#[test]
fn s21_a_node_is_killed_ten_times_in_a_row() {
    let processes = Processes::new(CW, Way::Relayed);
    case(&processes as &dyn Substrate, |substrate| {
        ready(substrate);
        for round in 0..KILLS {
            processes.home(Host::Dev2).kill(Part::Node);
            let body = format!("round {round}");
            steps::wait_until_heard(&substrate.cw(Host::Dev1), "dev-2:coder", &body);
        }
        let status = steps::status(&substrate.cw(Host::Dev1), "dev-2:coder");
        assert_eq!(status["status"], "running");
        let inbox = steps::inbox(&substrate.cw(Host::Dev2), "coder");
        for round in 0..KILLS {
            let body = format!("round {round}");
            assert!(
                inbox.iter().any(|message| message["body"] == body.as_str()),
                "{inbox:?}"
            );
        }
    });
}

#[test]
fn s20_a_node_that_is_gone_is_seen_as_gone_and_seen_again() {
    let processes = Processes::new(CW, Way::Direct);
    case(&processes as &dyn Substrate, |substrate| {
        ready(substrate);
        let here = substrate.cw(Host::Dev1);
        processes.home(Host::Dev2).kill_both();
        wait_until("dev-2 is offline", RECOVERY, || {
            let list = here.ok(&["node", "list"]);
            let line = list.lines().find(|line| line.starts_with("dev-2"));
            if line.is_some_and(|line| line.contains("offline")) {
                Ok(())
            } else {
                Err(list)
            }
        });
        here.run(&["msg", "--no-queue", "dev-2:coder", "anybody?"])
            .fails("node_down")
            .hints("cw start");
        let _ = substrate.cw(Host::Dev2).run(&["start"]).ok();
        steps::launch(&substrate.cw(Host::Dev2), "coder", &SLEEPER);
        speak(substrate, "back");
    });
}

#[test]
fn a_request_outlives_the_node_that_was_asked() {
    let processes = Processes::new(CW, Way::Relayed);
    case(&processes as &dyn Substrate, |substrate| {
        ready(substrate);
        let (here, there) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
        let request = here.start(&["request", "-f", "planner", "dev-2:coder", "still there?"]);
        let id = steps::wait_for_request(&there, "coder");
        processes.home(Host::Dev2).kill(Part::Node);
        // The request is not lost, and whoever waits for its answer waits on.
        let inbox = steps::inbox(&there, "coder");
        assert!(
            inbox.iter().any(|message| message["state"] == "pending"),
            "{inbox:?}"
        );
        let _ = there.run(&["reply", &id, "yes", "-f", "coder"]).ok();
        let done = request.wait(e2e::PATIENCE).ok();
        assert_eq!(done.stdout, "[reply from coder] yes\n");
    });
}

#[test]
fn netns_direct_cable_is_pulled_and_plugged_in() {
    pull_and_plug(Way::Direct);
}

#[test]
fn netns_relayed_cable_is_pulled_and_plugged_in() {
    pull_and_plug(Way::Relayed);
}

fn pull_and_plug(way: Way) {
    let Some(substrate) = Netns::or_skip(CW, way) else {
        return;
    };
    case(&substrate as &dyn Substrate, |substrate| {
        ready(substrate);
        assert!(substrate.cut(Host::Dev2));
        let waiting = substrate
            .cw(Host::Dev1)
            .start(&["msg", "dev-2:coder", "into the void"]);
        steps::wait_for_node(&substrate.cw(Host::Dev1), "dev-2", "offline", |node| {
            node["online"] == false
        });
        substrate.heal(Host::Dev2);
        speak(substrate, "plugged in");
        // What was said meanwhile has arrived once, or the sender knows that it may not have.
        let done = waiting.wait(e2e::PATIENCE);
        let inbox = steps::inbox(&substrate.cw(Host::Dev2), "coder");
        let arrived = inbox
            .iter()
            .filter(|message| message["body"] == "into the void")
            .count();
        assert!(
            arrived <= 1 && (arrived == 1 || done.status != Some(0)),
            "{done}, {inbox:?}"
        );
        steps::wait_until_online(substrate);
    });
}

#[test]
fn netns_relayed_call_to_a_host_that_vanished_ends() {
    let Some(substrate) = Netns::or_skip(CW, Way::Relayed) else {
        return;
    };
    case(&substrate as &dyn Substrate, |substrate| {
        ready(substrate);
        let here = substrate.cw(Host::Dev1);
        assert!(substrate.cut(Host::Dev2));
        let done = here
            .start(&["msg", "--no-queue", "dev-2:coder", "anybody?"])
            .wait(VANISHED);
        assert_eq!(done.status, Some(5), "{done}");
        // By then everybody knows.
        here.run(&["msg", "--no-queue", "dev-2:coder", "anybody?"])
            .fails("node_down");
    });
}
