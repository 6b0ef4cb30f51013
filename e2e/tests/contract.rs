//! What every substrate has to be able to do for a scenario, tried on each.

use e2e::docker::Docker;
use e2e::kind::Kind;
use e2e::netns::Netns;
use e2e::processes::Processes;
use e2e::pty::Terminal;
use e2e::steps::{self, ECHO, SLEEPER};
use e2e::substrate::{Host, Substrate, Way};
use e2e::{Cw, PATIENCE, case};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// How long the loss of a path, or a better one, may take to be noticed.
const PATH: std::time::Duration = std::time::Duration::from_secs(30);

#[test]
fn processes() {
    holds(&Processes::new(CW, Way::Direct));
}

#[test]
fn processes_relayed() {
    holds(&Processes::new(CW, Way::Relayed));
}

#[test]
fn netns_direct() {
    if let Some(substrate) = Netns::or_skip(CW, Way::Direct) {
        holds(&substrate);
    }
}

#[test]
fn netns_relayed() {
    if let Some(substrate) = Netns::or_skip(CW, Way::Relayed) {
        holds(&substrate);
    }
}

#[test]
fn docker_direct() {
    if let Some(substrate) = Docker::or_skip(Way::Direct) {
        holds(&substrate);
    }
}

#[test]
fn docker_relayed() {
    if let Some(substrate) = Docker::or_skip(Way::Relayed) {
        holds(&substrate);
    }
}

/// Both in one: the pods have the same names.
#[test]
fn kind() {
    for outside in [true, false] {
        if let Some(substrate) = Kind::or_skip(CW, outside) {
            holds(&substrate);
        }
    }
}

#[track_caller]
fn holds(substrate: &dyn Substrate) {
    case(substrate, |substrate| {
        steps::join_both(substrate);
        for host in Host::ALL {
            substrate.start_node(host);
        }
        steps::wait_until_online(substrate);
        let there = substrate.cw(Host::Dev2);
        steps::launch(&there, "coder", &ECHO);
        commands(&substrate.cw(Host::Dev1), "dev-2:coder");
        commands(&there, "coder");
        the_relay(substrate);
        a_node(substrate);
        cables(substrate);
        assert!(substrate.relay_log().contains("HTTP listening"));
        for host in Host::ALL {
            assert!(!substrate.node_log(host).is_empty(), "{host:?} logs");
        }
        substrate.tear_down();
        substrate.tear_down();
        assert_eq!(substrate.remains(), [] as [String; 0]);
        assert!(substrate.relay_log().contains("HTTP listening"));
    });
}

/// Commands are run with arguments, status, both streams, input, and a terminal.
#[track_caller]
fn commands(cw: &Cw, session: &str) {
    let odd = "two words, \"quotes\", $HOME, ä and *";
    let _ = cw.run(&["msg", session, odd]).ok();
    let inbox = steps::inbox(cw, session);
    assert!(inbox.iter().any(|m| m["body"] == odd), "{inbox:?}");
    cw.run(&["status", "nobody"]).fails("session_not_found");
    let sent = cw.run_with(&["send", session, "--stdin"], b"from a pipe", PATIENCE);
    assert!(sent.ok().stderr.contains("Sent 12 bytes"));
    steps::wait_for_output(cw, session, "got:from a pipe");
    let mut terminal = Terminal::run(cw, &["attach", session]);
    terminal.shows("got:from a pipe", PATIENCE);
    terminal.type_in("typed\r");
    terminal.shows("got:typed", PATIENCE);
    terminal.type_in("\x02d");
    assert_eq!(terminal.ends(PATIENCE), 0, "{}", terminal.text());
    terminal.restored().unwrap_or_else(|why| panic!("{why}"));
}

/// The relay is stopped, killed, restarted, and has what it had.
#[track_caller]
fn the_relay(substrate: &dyn Substrate) {
    for polite in [true, false] {
        if polite {
            substrate.stop_relay();
        } else {
            substrate.kill_relay();
        }
        let url = substrate.relay_url();
        let list = ["network", "list", "--relay-url", &url];
        let done = substrate.admin().run(&list);
        assert_ne!(done.status, Some(0), "{done}");
        substrate.start_relay();
        assert!(steps::invite(substrate, &[]).starts_with("CW-INV-"));
        steps::wait_until_online(substrate);
    }
    substrate.restart_relay();
    steps::wait_until_reached(&substrate.cw(Host::Dev1), "dev-2:coder");
    steps::wait_until_online(substrate);
}

/// A node is killed with its sessions and started again with its data.
#[track_caller]
fn a_node(substrate: &dyn Substrate) {
    let (here, there) = (substrate.cw(Host::Dev1), "dev-2:coder");
    substrate.kill_node(Host::Dev2);
    steps::wait_for_node(&here, "dev-2", "offline", |node| node["online"] == false);
    substrate.start_node(Host::Dev2);
    steps::wait_until_online(substrate);
    assert_eq!(steps::inbox(&here, there).len(), 2);
    assert_ne!(steps::status(&here, there)["status"], "running");
    substrate.restart_node(Host::Dev2);
    steps::wait_until_reached(&here, there);
    steps::wait_until_online(substrate);
    assert_eq!(steps::inbox(&here, there).len(), 2);
    steps::launch(&substrate.cw(Host::Dev2), "tester", &SLEEPER);
}

/// Cables are pulled and plugged in, where there are any.
#[track_caller]
fn cables(substrate: &dyn Substrate) {
    let here = substrate.cw(Host::Dev1);
    if substrate.cut(Host::Dev2) {
        // On its way while nobody knows of the cut yet.
        let _ = here.run(&["msg", "dev-2:tester", "under way"]).ok();
        steps::wait_for_node(&here, "dev-2", "offline", |node| node["online"] == false);
        substrate.heal(Host::Dev2);
        steps::wait_until_heard(&here, "dev-2:tester", "back?");
        steps::wait_until_online(substrate);
    }
    if substrate.way() == Way::Direct {
        steps::wait_for_way(&here, "dev-2", Way::Direct, PATH);
    }
    if substrate.cut_direct() {
        steps::wait_for_way(&here, "dev-2", Way::Relayed, PATH);
        let _ = here.run(&["msg", "dev-2:tester", "by the relay"]).ok();
        substrate.heal_direct();
        steps::wait_for_way(&here, "dev-2", Way::Direct, PATH);
    }
}
