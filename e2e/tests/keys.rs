//! Who speaks for a network: its issuer hands over, a network ends, a node comes by itself, one is
//! put out. None of it may be missed by who was away.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use e2e::cw::Cw;
use e2e::home::Part;
use e2e::processes::Processes;
use e2e::relay::TOKEN;
use e2e::steps::{self, SLEEPER};
use e2e::substrate::{Host, Substrate, Way};
use e2e::{PATIENCE, case, wait_until};
use serde_json::Value;

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// How long a call may wait for a host of which nothing is heard any more.
const VANISHED: Duration = Duration::from_secs(60);

/// Calls each way that have to succeed between two hand-overs.
const CALLS: u32 = 5;

fn ready(substrate: &dyn Substrate) {
    steps::join_both(substrate);
    steps::wait_until_online(substrate);
    steps::launch(&substrate.cw(Host::Dev1), "planner", &SLEEPER);
    steps::launch(&substrate.cw(Host::Dev2), "coder", &SLEEPER);
    steps::wait_until_heard(&substrate.cw(Host::Dev1), "dev-2:coder", "first");
    steps::wait_until_heard(&substrate.cw(Host::Dev2), "dev-1:planner", "first");
}

fn rotate(substrate: &dyn Substrate, overlap: &str) -> Value {
    let url = substrate.relay_url();
    let words = ["network", "rotate", "--json", "--overlap", overlap];
    let printed = substrate
        .admin()
        .ok(&[&words[..], &["--relay-url", &url]].concat());
    serde_json::from_str(&printed).expect("it went as the test says")
}

/// Calls without a pause until told to end; what failed.
fn keep_calling(cw: &Cw, to: &str, end: &AtomicBool, count: &AtomicU32) -> Vec<String> {
    let mut failed = Vec::new();
    while !end.load(Ordering::SeqCst) {
        for words in [
            &["status", to][..],
            &["msg", "--no-queue", to, "still there?"],
        ] {
            let done = cw.run(words);
            if done.status != Some(0) {
                failed.push(done.to_string());
            }
        }
        count.fetch_add(1, Ordering::SeqCst);
    }
    failed
}

fn calls_go_on(substrate: &dyn Substrate, times: usize) {
    ready(substrate);
    let (end, counts) = (AtomicBool::new(false), [const { AtomicU32::new(0) }; 2]);
    let sides = [(Host::Dev1, "dev-2:coder"), (Host::Dev2, "dev-1:planner")];
    let failed = std::thread::scope(|scope| {
        let calling: Vec<_> = sides
            .iter()
            .zip(&counts)
            .map(|((host, to), count)| {
                let (cw, end) = (substrate.cw(*host), &end);
                scope.spawn(move || keep_calling(&cw, to, end, count))
            })
            .collect();
        let more = || {
            let before = counts.each_ref().map(|count| count.load(Ordering::SeqCst));
            wait_until("calls go on", PATIENCE * 3, || {
                let grown = counts
                    .iter()
                    .zip(before)
                    .all(|(count, before)| count.load(Ordering::SeqCst) >= before + CALLS);
                grown.then_some(()).ok_or_else(|| format!("{counts:?}"))
            });
        };
        // What fails here must not leave the callers calling.
        let driven = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            more();
            for number in 1..=times {
                let rotated = rotate(substrate, "0s");
                assert_eq!(rotated["number"], number);
                assert_eq!(rotated["node_count"], 2);
                more();
            }
        }));
        end.store(true, Ordering::SeqCst);
        let failed: Vec<String> = calling
            .into_iter()
            .flat_map(|calls| calls.join().expect("it went as the test says"))
            .collect();
        driven.map(|()| failed)
    });
    match failed {
        Ok(failed) => assert!(failed.is_empty(), "{failed:#?}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
    for host in Host::ALL {
        let log = substrate.node_log(host);
        assert_eq!(
            log.matches("the issuer has handed over").count(),
            2,
            "{log}"
        );
    }
}

#[test]
fn s36_calls_go_on_by_the_relay_while_the_issuer_hands_over_twice() {
    case(
        &Processes::new(CW, Way::Relayed) as &dyn Substrate,
        |substrate| calls_go_on(substrate, 2),
    );
}

#[test]
fn s36_calls_go_on_directly_while_the_issuer_hands_over_twice() {
    case(
        &Processes::new(CW, Way::Direct) as &dyn Substrate,
        |substrate| calls_go_on(substrate, 2),
    );
}

#[test]
fn a_node_that_was_away_for_two_hand_overs_is_back_and_the_relay_started_again() {
    case(
        &Processes::new(CW, Way::Relayed) as &dyn Substrate,
        |substrate| {
            ready(substrate);
            substrate.kill_node(Host::Dev2);
            rotate(substrate, "0s");
            substrate.kill_relay();
            substrate.start_relay();
            rotate(substrate, "0s");
            substrate.start_node(Host::Dev2);
            steps::wait_until_online(substrate);
            steps::launch(&substrate.cw(Host::Dev2), "coder", &SLEEPER);
            steps::wait_until_heard(&substrate.cw(Host::Dev1), "dev-2:coder", "back");
            steps::wait_until_heard(&substrate.cw(Host::Dev2), "dev-1:planner", "back");
            // Both again, and both with what they keep on their disks alone.
            substrate.restart_node(Host::Dev1);
            substrate.restart_relay();
            steps::wait_until_online(substrate);
            steps::wait_until_heard(&substrate.cw(Host::Dev1), "dev-2:coder", "again");
        },
    );
}

#[test]
fn a_rotation_is_the_owners_and_says_what_it_takes() {
    case(
        &Processes::new(CW, Way::Relayed) as &dyn Substrate,
        |substrate| {
            steps::join_both(substrate);
            let (url, words) = (substrate.relay_url(), ["network", "rotate", "--relay-url"]);
            let words = [&words[..], &[url.as_str()]].concat();
            substrate.cw(Host::Dev1).run(&words).fails("unauthorized");
            let stranger = substrate
                .admin()
                .env("CODEWIRE_RELAY_AUTH_TOKEN", "guessed");
            stranger.run(&words).fails("unauthorized");
            let long = [&words[..], &["--overlap", "31d"]].concat();
            substrate.admin().run(&long).fails("bad_request");
            let done = substrate.admin().run(&words).ok();
            assert_eq!(done.stdout.lines().count(), 1, "the key alone: {done}");
            for part in ["hand-over 1", "2 records", "believed until"] {
                assert!(done.stderr.contains(part), "{done}");
            }
        },
    );
}

#[test]
fn a_network_that_was_deleted_is_told_to_who_was_away_and_direct_peers_do_not_go_on() {
    case(
        &Processes::new(CW, Way::Direct) as &dyn Substrate,
        |substrate| {
            ready(substrate);
            let (here, there) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
            steps::wait_for_way(&here, "dev-2", Way::Direct, PATIENCE);
            substrate.kill_node(Host::Dev2);
            let (admin, url) = (substrate.admin(), substrate.relay_url());
            let network = substrate.network();
            let words = ["network", "delete", &network, "--relay-url", &url];
            let _ = admin.run(&words).ok();
            let told = |cw: &Cw| {
                wait_until("it is told that the network was deleted", PATIENCE, || {
                    let list = cw.run(&["node", "list"]);
                    if list.stderr.contains("[network_deleted]") {
                        Ok(())
                    } else {
                        Err(list.to_string())
                    }
                });
            };
            told(&here);
            // There is one of that name again, which is another.
            let again = ["network", "create", &network, "--relay-url", &url];
            let _ = admin.run(&again).ok();
            substrate.start_node(Host::Dev2);
            told(&there);
            for (cw, to) in [(&here, "dev-2:coder"), (&there, "dev-1:planner")] {
                cw.run(&["status", to])
                    .fails("network_deleted")
                    .hints("join");
            }
            let doctor = there.run(&["doctor"]);
            assert!(doctor.stdout.contains("was deleted"), "{doctor}");
            assert_ne!(doctor.status, Some(0), "{doctor}");
            // Without the relay it is not forgotten, and another network takes them in.
            substrate.stop_relay();
            substrate.restart_node(Host::Dev2);
            told(&there);
            substrate.start_relay();
            for host in Host::ALL {
                let invite = steps::invite(substrate, &["--mine"]);
                let _ = steps::join(substrate, host, &invite).ok();
            }
            steps::wait_until_online(substrate);
        },
    );
}

#[test]
fn a_node_joins_the_selected_network_when_the_relay_is_there_at_last() {
    case(
        &Processes::new(CW, Way::Relayed) as &dyn Substrate,
        |substrate| {
            let _ = steps::network(substrate);
            let url = substrate.relay_url();
            substrate.stop_relay();
            let selected = |host| {
                let cw = substrate.cw(host);
                cw.env("CODEWIRE_RELAY_URL", &url)
                    .env("CODEWIRE_RELAY_NETWORK", substrate.network())
            };
            let _ = selected(Host::Dev1)
                .env("CODEWIRE_RELAY_AUTH_TOKEN", TOKEN)
                .run(&["start"])
                .ok();
            let here = substrate.cw(Host::Dev1);
            let tried = wait_until("it says that it tries", PATIENCE, || {
                let list = here.run(&["node", "list"]);
                if list.stderr.contains("[not_joined]") {
                    Ok(list)
                } else {
                    Err(list.to_string())
                }
            });
            assert!(tried.stderr.contains("no answer from"), "{tried}");
            let doctor = here.run(&["doctor"]);
            assert!(doctor.stdout.contains("tries again"), "{doctor}");
            assert_ne!(doctor.status, Some(0), "{doctor}");
            substrate.start_relay();
            // It waits for a minute at most between two attempts.
            wait_until("it has joined", PATIENCE * 5, || {
                let list = here.run(&["node", "list"]);
                (list.status == Some(0) && list.stdout.contains("dev-1"))
                    .then_some(())
                    .ok_or_else(|| list.to_string())
            });

            // One that is refused says so, and leaves it at that.
            let _ = selected(Host::Dev2)
                .env("CODEWIRE_RELAY_AUTH_TOKEN", "guessed")
                .run(&["start"])
                .ok();
            let there = substrate.cw(Host::Dev2);
            wait_until("it says that it was refused", PATIENCE, || {
                let list = there.run(&["node", "list"]);
                let told =
                    list.stderr.contains("may not join") && list.stderr.contains("[unauthorized]");
                told.then_some(()).ok_or_else(|| list.to_string())
            });
            let log = substrate.node_log(Host::Dev2);
            assert_eq!(log.matches("may not join").count(), 1, "{log}");
            // By hand it goes.
            let invite = steps::invite(substrate, &["--mine"]);
            let _ = steps::join(substrate, Host::Dev2, &invite).ok();
            steps::wait_until_online(substrate);
        },
    );
}

/// A stream that runs from a node that is put out ends, on whatever path; the node stays out when
/// it, its peer and the relay have been started again.
fn a_stream_is_cut(substrate: &dyn Substrate, homes: &Processes) {
    ready(substrate);
    let (here, there) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
    steps::wait_for_way(&here, "dev-2", substrate.way(), PATIENCE);
    let mut stream = there.start(&["logs", "-f", "dev-1:planner"]);
    let mut watch = there.start(&["listen", "--session", "dev-1:planner"]);
    let _ = watch.stderr.line("listening", PATIENCE);
    let _ = here.run(&["msg", "planner", "heard"]).ok();
    let _ = watch.stdout.line("heard", PATIENCE);
    let url = substrate.relay_url();
    let words = ["network", "revoke", "dev-2", "--relay-url", &url];
    let _ = substrate.admin().run(&words).ok();
    wait_until("dev-2 is out", PATIENCE, || {
        let list = here.ok(&["node", "list"]);
        (!list.contains("dev-2")).then_some(()).ok_or(list)
    });
    // Nothing that is said from here on is heard, though nobody has told the reader yet.
    let _ = here.run(&["msg", "planner", "among us"]).ok();
    steps::launch(&here, "later", &SLEEPER);
    for again in ["at once", "after everything was started again"] {
        let refused = there.run_with(&["status", "dev-1:planner"], b"", VANISHED);
        assert_ne!(refused.status, Some(0), "{again}: {refused}");
        let list = here.ok(&["node", "list"]);
        assert!(!list.contains("dev-2"), "{again}: {list}");
        if again == "at once" {
            assert!(!watch.stdout.text().contains("among us"));
            stream.kill();
            watch.kill();
            homes.home(Host::Dev1).kill(Part::Node);
            substrate.restart_node(Host::Dev2);
            substrate.restart_relay();
            wait_until("dev-1 has a relay again", PATIENCE, || {
                let list = here.run(&["node", "list"]);
                (list.status == Some(0) && list.stderr.is_empty())
                    .then_some(())
                    .ok_or_else(|| list.to_string())
            });
            wait_until("dev-2 is told that it is out", PATIENCE, || {
                let list = there.run(&["node", "list"]);
                let told = list.stderr.contains("was revoked");
                told.then_some(()).ok_or_else(|| list.to_string())
            });
        }
    }
}

#[test]
fn s26_b11_u24_who_is_put_out_is_cut_on_a_direct_path_and_stays_out() {
    let processes = Processes::new(CW, Way::Direct);
    case(&processes as &dyn Substrate, |substrate| {
        a_stream_is_cut(substrate, &processes);
    });
}

#[test]
fn s26_b11_u24_who_is_put_out_is_cut_by_the_relay_and_stays_out() {
    let processes = Processes::new(CW, Way::Relayed);
    case(&processes as &dyn Substrate, |substrate| {
        a_stream_is_cut(substrate, &processes);
    });
}
