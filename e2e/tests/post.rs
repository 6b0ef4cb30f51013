//! Messages between two nodes of which one may be away, may die, or both: none is lost, none comes
//! twice, and what became of each is told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::home::Part;
use e2e::processes::Processes;
use e2e::steps::{self, SLEEPER};
use e2e::substrate::{Host, Substrate, Way};
use e2e::{Cw, PATIENCE, case, wait_until};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// How often nodes are killed under traffic, in the ordinary test and in the recorded one.
const KILLS: (usize, usize) = (30, 300);

/// How long everything may take to arrive in the end.
const ARRIVES: Duration = Duration::from_secs(90);

/// Both nodes with a session each: `planner` on dev-1, `coder` on dev-2.
fn with_both(test: impl FnOnce(&Processes, &Cw, &Cw)) {
    let processes = Processes::new(CW, Way::Relayed);
    case(&processes as &dyn Substrate, |substrate| {
        steps::join_both(substrate);
        steps::wait_until_online(substrate);
        let (here, there) = (substrate.cw(Host::Dev1), substrate.cw(Host::Dev2));
        steps::launch(&here, "planner", &SLEEPER);
        steps::launch(&there, "coder", &SLEEPER);
        test(&processes, &here, &there);
    });
}

/// Stops a node as a closed lid would, until it is held for absent.
fn put_to_sleep(processes: &Processes, host: Host, seen_by: &Cw) {
    let node = processes.home(host).wait_for(Part::Node, None);
    kill_process(node, Signal::STOP).expect("it runs");
    wait_until("it is away", Duration::from_secs(90), || {
        let list = seen_by.run(&["node", "list", "--json"]).ok().stdout;
        let list: Value = json(&list);
        let nodes = list["nodes"].as_array().cloned().unwrap_or_default();
        let online = nodes
            .iter()
            .any(|node| node["name"] == host.name() && node["online"] == true);
        (!online).then_some(()).ok_or_else(|| list.to_string())
    });
}

fn wake(processes: &Processes, host: Host) {
    let node = processes.home(host).wait_for(Part::Node, None);
    kill_process(node, Signal::CONT).expect("it is there");
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

#[track_caller]
fn list(text: &str) -> Vec<Value> {
    json(text).as_array().cloned().unwrap_or_default()
}

fn bodies(cw: &Cw, session: &str) -> Vec<String> {
    let text = cw.ok(&["inbox", session, "--json", "--tail", "10000"]);
    let inbox = list(&text);
    let of = |message: &Value| message["body"].as_str().unwrap_or_default().to_owned();
    inbox.iter().filter(|one| one["to"] != 0).map(of).collect()
}

fn outbox(cw: &Cw) -> Vec<Value> {
    list(&cw.ok(&["outbox", "--json", "--tail", "10000"]))
}

#[track_caller]
fn wait_for_bodies(cw: &Cw, session: &str, expected: &[&str]) {
    wait_until(&format!("{session} has {expected:?}"), ARRIVES, || {
        let bodies = bodies(cw, session);
        (bodies == expected)
            .then_some(())
            .ok_or_else(|| format!("{bodies:?}"))
    });
}

#[test]
fn a_node_that_is_away_gets_its_messages_later() {
    with_both(|processes, here, there| {
        put_to_sleep(processes, Host::Dev2, here);
        let one = here.run(&["msg", "dev-2:coder", "one"]).ok();
        assert!(one.stderr.contains("is down"), "{one}");
        assert!(one.stderr.contains("kept here"), "{one}");
        let _ = here
            .run(&["msg", "-f", "planner", "dev-2:coder", "two"])
            .ok();
        let _ = here
            .run(&["msg", "-f", "planner", "dev-2:nobody", "lost?"])
            .ok();
        here.run(&["msg", "--no-queue", "dev-2:coder", "now or never"])
            .fails("node_down");
        here.run(&["msg", "dev-9:coder", "who?"])
            .fails("node_unknown");
        let waits = here.ok(&["outbox", "--queued"]);
        assert_eq!(waits.lines().count(), 3, "{waits}");
        // It is on disk: the sender's node may die.
        processes.home(Host::Dev1).kill(Part::Node);
        let _ = here.run(&["msg", "dev-2:coder", "three"]).ok();
        let sent = here.ok(&["inbox", "planner"]);
        assert!(
            sent.contains("planner → dev-2:coder (queued): two"),
            "{sent}"
        );
        wake(processes, Host::Dev2);
        wait_for_bodies(there, "coder", &["one", "two", "three"]);
        // That the session does not exist was not to be known before.
        let refused = wait_until("it is refused", PATIENCE, || {
            let letters = outbox(here);
            let lost = letters.iter().find(|letter| letter["body"] == "lost?");
            let lost = lost.filter(|letter| letter["state"] == "refused").cloned();
            lost.ok_or_else(|| format!("{letters:?}"))
        });
        assert_eq!(refused["code"], "session_not_found", "{refused}");
        let sent = here.ok(&["inbox", "planner"]);
        assert!(sent.contains("(refused): lost?"), "{sent}");
        // The session that sent them was told each step.
        let listener = here.start(&[
            "listen",
            "--session",
            "planner",
            "--receipts",
            "--since",
            "0",
        ]);
        let _ = listener.stdout.line(" refused (session", PATIENCE);
        let heard = listener.stdout.text();
        let of = |state: &str| heard.lines().filter(|line| line.contains(state)).count();
        assert_eq!(
            (of(" queued ("), of(" delivered"), of(" refused (")),
            (2, 1, 1),
            "{heard}"
        );
        // While it is there, that is an error at once.
        here.run(&["msg", "dev-2:nobody", "hello?"])
            .fails("session_not_found");
        let from: Vec<_> = steps::inbox(there, "coder")
            .iter()
            .map(|message| message["from_name"].clone())
            .collect();
        assert_eq!(from, ["dev-1", "dev-1:planner", "dev-1"]);
    });
}

#[test]
fn a_request_outlives_everybody() {
    with_both(|processes, here, there| {
        put_to_sleep(processes, Host::Dev2, here);
        let asked = here
            .run(&[
                "request",
                "--async",
                "-f",
                "planner",
                "dev-2:coder",
                "ready?",
            ])
            .ok();
        let id = asked.stdout.trim().to_owned();
        assert!(
            id.starts_with("req_") && asked.stderr.contains("kept here"),
            "{asked}"
        );
        wake(processes, Host::Dev2);
        assert_eq!(steps::wait_for_request(there, "coder"), id);
        let mine = steps::inbox(here, "planner");
        assert_eq!(mine[0]["state"], "pending", "{mine:?}");
        // Whoever waits may be killed, and so may both nodes and the relay.
        let mut waiting = here.start(&["request", "--resume", &id]);
        waiting.kill();
        processes.kill_relay();
        processes.home(Host::Dev1).kill(Part::Node);
        processes.home(Host::Dev2).kill(Part::Node);
        let _ = there.run(&["reply", &id, "yes", "-f", "coder"]).ok();
        there
            .run(&["reply", &id, "no", "-f", "coder"])
            .fails("request_not_found");
        processes.home(Host::Dev2).kill(Part::Node);
        processes.start_relay();
        let resumed = here.run_with(
            &["request", "--resume", &id, "--raw", "--timeout", "90"],
            b"",
            ARRIVES,
        );
        assert_eq!(resumed.ok().stdout, "yes\n");
        let again = here.ok(&["request", "--resume", &id, "--raw"]);
        assert_eq!(again, "yes\n");
        let inbox = steps::inbox(here, "planner");
        let reply = inbox.last().unwrap();
        assert_eq!(
            (&reply["body"], &reply["from_name"], &reply["request_id"]),
            (&"yes".into(), &"dev-2:coder".into(), &id.clone().into()),
            "{inbox:?}"
        );
        assert_eq!(inbox[0]["state"], "answered", "{inbox:?}");
        here.run(&["request", "--resume", "req_AAAAAAAAAAAAAAAAAAAAAA"])
            .fails("request_not_found");
    });
}

#[test]
fn a_request_expires_and_a_late_reply_is_taken() {
    with_both(|processes, here, there| {
        let words = ["request", "-f", "planner", "--timeout", "1", "dev-2:coder"];
        here.run(&[&words[..], &["ready?"]].concat())
            .fails("timeout")
            .hints("a late reply is kept");
        let id = steps::wait_for_request(there, "coder");
        let told = |expected: &str| {
            for (cw, session) in [(here, "planner"), (there, "coder")] {
                wait_until(&format!("{session}'s is {expected}"), ARRIVES, || {
                    let inbox = steps::inbox(cw, session);
                    let asked = inbox.iter().find(|one| one["message_id"] == *id);
                    let is_told = asked.is_some_and(|one| one["state"] == expected);
                    is_told.then_some(()).ok_or_else(|| format!("{inbox:?}"))
                });
            }
        };
        told("expired");
        // It is written down: whoever dies knows it again.
        for host in [Host::Dev1, Host::Dev2] {
            processes.home(host).kill(Part::Node);
        }
        told("expired");
        let shown = there.ok(&["inbox", "coder"]);
        assert!(shown.contains(&format!("(req={id}, expired)")), "{shown}");
        let _ = there.run(&["reply", &id, "late", "-f", "coder"]).ok();
        wait_for_bodies(here, "planner", &["late"]);
        told("answered");
    });
}

#[test]
fn a_waiting_requester_sees_no_restart() {
    with_both(|processes, here, there| {
        let asked = here.start(&[
            "request",
            "dev-2:coder",
            "ready?",
            "--raw",
            "--timeout",
            "90",
        ]);
        let id = steps::wait_for_request(there, "coder");
        processes.home(Host::Dev1).kill(Part::Node);
        processes.home(Host::Dev2).kill(Part::Node);
        let _ = there.run(&["reply", &id, "yes", "-f", "coder"]).ok();
        assert_eq!(asked.wait(ARRIVES).ok().stdout, "yes\n");
    });
}

#[test]
fn all_with_a_tag_get_a_message_each() {
    with_both(|_, here, there| {
        for name in ["w-1", "w-2"] {
            for cw in [here, there] {
                let _ = cw
                    .run(&["launch", name, "-t", "worker", "--", "sleep", "1000"])
                    .ok();
            }
        }
        let sent = here.run(&["msg", "@tag:worker", "to all here"]).ok();
        assert_eq!(sent.stdout.lines().count(), 2, "{sent}");
        assert!(
            sent.stdout.lines().all(|line| line.ends_with(" delivered")),
            "{sent}"
        );
        let sent = here.run(&["msg", "dev-2:@tag:worker", "to all there"]).ok();
        assert!(sent.stdout.contains("dev-2:w-1: msg_"), "{sent}");
        for (cw, body) in [(here, "to all here"), (there, "to all there")] {
            for name in ["w-1", "w-2"] {
                assert_eq!(bodies(cw, name), [body]);
            }
        }
        here.run(&["msg", "@tag:nobody", "x"])
            .fails("session_not_found");
        here.run(&["msg", "@group:mesh", "x"])
            .fails("group_unknown");
    });
}

#[test]
fn a_sender_may_wait_until_it_is_read() {
    with_both(|_, here, there| {
        let reads = format!("{CW} inbox reader >/dev/null; sleep 1000");
        let _ = here
            .run(&["msg", "dev-2:coder", "x", "--wait", "delivered"])
            .ok();
        let late = here.run(&[
            "msg",
            "dev-2:coder",
            "y",
            "--wait",
            "read",
            "--timeout",
            "1",
        ]);
        assert_eq!(late.fails("timeout").status, Some(124));
        let gate = "read -r go; ";
        steps::launch(there, "reader", &["sh", "-c", &format!("{gate}{reads}")]);
        for (cw, to) in [(here, "dev-2:reader"), (there, "reader")] {
            let waits = cw.start(&[
                "msg",
                to,
                "read me",
                "--wait",
                "read",
                "--timeout",
                "60",
                "--json",
            ]);
            if to == "reader" {
                let done = waits.wait(PATIENCE).ok();
                assert!(done.stdout.contains("\"read\""), "{done}");
                continue;
            }
            wait_for_bodies(there, "reader", &["read me"]);
            let _ = there.run(&["msg", "reader", "me too"]).ok();
            let _ = there.run(&["send", "reader", "go"]).ok();
            let done = waits.wait(PATIENCE).ok();
            assert!(done.stdout.contains("\"read\""), "{done}");
            steps::launch(there, "again", &["sh", "-c", "sleep 1000"]);
            // From here on the session reads all the time.
            let _ = there.run(&["kill", "reader"]).ok();
            let loops = format!("while :; do {CW} inbox reader >/dev/null; sleep 0.2; done");
            steps::launch(there, "reader", &["sh", "-c", &loops]);
        }
    });
}

#[test]
fn who_listens_misses_nothing() {
    with_both(|processes, here, there| {
        let listener = here.start(&["listen", "--session", "dev-2:coder", "--json"]);
        let _ = listener.stderr.line("listening", PATIENCE);
        let _ = there.run(&["msg", "coder", "before"]).ok();
        let _ = listener.stdout.line("before", PATIENCE);
        processes.home(Host::Dev2).kill(Part::Node);
        for body in ["between", "after"] {
            let _ = there.run(&["msg", "coder", body]).ok();
        }
        let _ = listener.stdout.line("after", ARRIVES);
        processes.home(Host::Dev1).kill(Part::Node);
        let _ = there.run(&["msg", "coder", "last"]).ok();
        let _ = listener.stdout.line("last", ARRIVES);
        let heard: Vec<Value> = listener.stdout.text().lines().map(json).collect();
        let bodies: Vec<_> = heard
            .iter()
            .map(|one| &one["event"]["data"]["body"])
            .collect();
        assert_eq!(bodies, ["before", "between", "after", "last"]);
        // From a cursor on, by listen and by inbox.
        let cursor = heard[1]["event"]["cursor"].to_string();
        let rest = there.ok(&["inbox", "coder", "--since", &cursor, "--json"]);
        let rest = list(&rest);
        let rest: Vec<_> = rest.iter().map(|one| &one["body"]).collect();
        assert_eq!(rest, ["after", "last"]);
        let listener = here.start(&["listen", "--session", "dev-2:coder", "--since", &cursor]);
        let _ = listener.stdout.line("last", PATIENCE);
        assert_eq!(listener.stdout.text().lines().count(), 2);
    });
}

/// Says that it is over, also when what it is in has failed: those who talk would else do so for
/// ever, and so would the test.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Both sessions write to each other without a pause while their nodes are killed.
fn killed_under_traffic(kills: usize) {
    with_both(|processes, here, there| {
        let over = AtomicBool::new(false);
        let talk = |cw: &Cw, from: &str, to: &str| {
            let mut acknowledged = Vec::new();
            for number in 0.. {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let body = format!("{from}-{number}");
                let words = ["msg", "--delivery", "inbox", "-f", from, to, &body];
                let done = cw.run_with(&words, b"", ARRIVES);
                if done.status == Some(0) {
                    acknowledged.push(body);
                }
            }
            acknowledged
        };
        let (sent_here, sent_there) = std::thread::scope(|scope| {
            let one = scope.spawn(|| talk(here, "planner", "dev-2:coder"));
            let other = scope.spawn(|| talk(there, "coder", "dev-1:planner"));
            let ends = Ends(&over);
            let mut seed: u64 = 7;
            for kill in 0..kills {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let host = Host::ALL[usize::from(seed >> 33 & 1 == 1)];
                let before = processes.home(host).kill(Part::Node);
                let _ = processes.home(host).wait_for(Part::Node, Some(before));
                if kill % 10 == 9 {
                    works_again(host.name(), processes, host);
                }
            }
            drop(ends);
            (
                one.join().expect("it talks"),
                other.join().expect("it talks"),
            )
        });
        arrived(there, "coder", "planner", &sent_here);
        arrived(here, "planner", "coder", &sent_there);
    });
}

/// Lets traffic go on for a moment: until the node answers.
fn works_again(name: &str, processes: &Processes, host: Host) {
    wait_until(&format!("{name} answers"), PATIENCE, || {
        let done = processes.cw(host).run(&["list"]);
        (done.status == Some(0))
            .then_some(())
            .ok_or_else(|| done.to_string())
    });
}

/// Every acknowledged message is there once and in order; of others at most one each.
#[track_caller]
fn arrived(cw: &Cw, session: &str, from: &str, sent: &[String]) {
    let number = |body: &str| {
        body.rsplit('-')
            .next()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let got = wait_until(&format!("all of {from} is there"), ARRIVES, || {
        let got: Vec<_> = bodies(cw, session)
            .into_iter()
            .filter(|body| body.starts_with(from))
            .collect();
        let missing = sent.iter().filter(|body| !got.contains(body)).count();
        (missing == 0)
            .then_some(got)
            .ok_or_else(|| format!("{missing} of {} are missing", sent.len()))
    });
    let numbers: Vec<_> = got.iter().map(|body| number(body)).collect();
    assert!(numbers.is_sorted(), "the order is not kept: {got:?}");
    let mut once = numbers.clone();
    once.dedup();
    assert_eq!(once, numbers, "some came twice");
    assert!(!sent.is_empty());
}

#[test]
fn nodes_killed_under_traffic_lose_nothing() {
    killed_under_traffic(KILLS.0);
}

#[test]
#[ignore = "takes minutes; its figures are recorded"]
fn nodes_killed_three_hundred_times_lose_nothing() {
    killed_under_traffic(KILLS.1);
}
