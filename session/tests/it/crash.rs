//! `kill -9` of either process: what must not be lost.

use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::common::PROGRAM;
use crate::world::{World, signal};

/// Writes numbers until told to stop.
const COUNT: &str = "trap 'stop=1' USR1; i=0; \
    while [ -z \"$stop\" ]; do echo $i; i=$((i+1)); done; echo end; exit 7";

/// Waits to be told how to end.
const WAIT: &str = "trap 'exit 42' USR1; echo ready; while :; do read x; done";

/// The numbers are all there, each once and in order.
fn check_numbers(output: &[u8]) {
    let text = std::str::from_utf8(output).unwrap();
    let numbers = text.strip_suffix("end\r\n").expect("the last line");
    let mut expected = 0;
    for line in numbers.split_terminator("\r\n") {
        assert_eq!(line, expected.to_string(), "after {expected} lines");
        expected += 1;
    }
    assert!(expected > 0);
}

#[test]
fn w14_w15_a_killed_node_loses_nothing() {
    killed_nodes(4);
}

#[test]
#[ignore = "takes many minutes"]
fn w14_w15_a_thousand_killed_nodes_lose_nothing() {
    killed_nodes(200);
}

/// Kills five nodes in each of so many directories, under numbered output and
/// a request that waits.
fn killed_nodes(worlds: usize) {
    // The pause before a restart grows; a new world begins with a short one.
    for _ in 0..worlds {
        let world = World::start();
        let (id, pid) = world.launch("counter", COUNT);
        let (asker, _) = world.launch("asker", WAIT);
        world.call(&["deliver", "counter", "hello"]);
        let request = world.call(&["request", "asker", "counter", "what is it?"]);
        let request = request["id"].as_str().unwrap();
        for _ in 0..5 {
            let before = world.output(&id).len();
            world.kill_node();
            let found = world.call(&["find", "counter"]);
            assert_eq!(found["id"].to_string(), id);
            assert_eq!(found["pid"].as_u64(), Some(u64::from(pid)));
            assert_eq!(found["word"], "running");
            assert_eq!(found["pending"], 1);
            world.wait_for_output(&id, before);
        }
        let inbox = world.call(&["inbox", "counter"]);
        assert_eq!(inbox[0]["body"], "hello");
        assert_eq!(inbox[1]["state"], "Pending");
        assert!(world.call(&["reply", request, &id, "42"])["id"].is_string());
        let inbox = world.call(&["inbox", &asker]);
        assert_eq!(inbox[0]["state"], "Answered");
        assert_eq!(inbox[1]["body"], "42");

        signal(pid, Signal::USR1);
        let ended = world.call(&["wait", &id]);
        assert_eq!(ended["status"], "completed (7)");
        let output = world.output(&id);
        check_numbers(&output);
        assert_eq!(ended["output_end"].as_u64(), Some(output.len() as u64));
        let lines = output.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(ended["output_lines"].as_u64(), Some(lines as u64));
        // Numbers go on.
        assert_eq!(world.launch("", "echo next").0, "3");
        check_events(&world);
    }
}

/// Every event is there once: no number is missing in any session, and no
/// cursor is used twice.
fn check_events(world: &World) {
    let mut cursors = std::collections::BTreeSet::new();
    for id in 1..=3 {
        let path = world.path().join(format!("sessions/{id}/events.jsonl"));
        let text = std::fs::read_to_string(path).unwrap();
        let whole = text.lines().take_while(|line| line.ends_with('}'));
        let mut last = 0;
        for (line, seq) in whole.zip(1..) {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(event["seq"].as_u64(), Some(seq), "{text}");
            let cursor = event["cursor"].as_u64().unwrap();
            assert!(cursor > last && cursors.insert(cursor), "{text}");
            last = cursor;
        }
    }
}

#[test]
fn a_session_that_ends_while_there_is_no_node_keeps_its_code() {
    let world = World::start();
    let (id, pid) = world.launch("", WAIT);
    let node = world.node_pid();
    // A stopped node hears nothing of the end before it dies.
    signal(node, Signal::STOP);
    signal(pid, Signal::USR1);
    signal(node, Signal::KILL);
    assert_eq!(world.call(&["wait", &id])["status"], "completed (42)");
}

#[test]
fn a_killed_keeper_is_replaced_and_codes_still_arrive() {
    let mut world = World::start();
    let (code, code_pid) = world.launch("code", WAIT);
    let (killed, killed_pid) = world.launch("killed", WAIT);
    let (counter, counter_pid) = world.launch("counter", COUNT);
    let node = world.node_pid();
    world.kill_keeper();
    assert_eq!(world.node_pid(), node);
    world.wait_for_output(&counter, world.output(&counter).len());

    signal(code_pid, Signal::USR1);
    assert_eq!(world.call(&["wait", &code])["status"], "completed (42)");
    signal(killed_pid, Signal::KILL);
    let status = world.call(&["wait", &killed])["status"].clone();
    assert_eq!(status, "completed (signal 9)");

    // The new keeper is one like the first.
    let (late, late_pid) = world.launch("late", WAIT);
    signal(late_pid, Signal::USR1);
    assert_eq!(world.call(&["wait", &late])["status"], "completed (42)");

    // It restarts the node that started it, and is replaced by that in turn.
    world.kill_node();
    let (second, second_pid) = world.launch("second", WAIT);
    world.kill_keeper();
    world.kill_node();
    signal(second_pid, Signal::USR1);
    assert_eq!(world.call(&["wait", &second])["status"], "completed (42)");
    signal(counter_pid, Signal::USR1);
    assert_eq!(world.call(&["wait", &counter])["status"], "completed (7)");
    check_numbers(&world.output(&counter));
}

#[test]
fn a_session_that_ends_together_with_the_keeper_keeps_its_code() {
    let mut world = World::start();
    let (id, pid) = world.launch("", WAIT);
    let keeper = world.keeper_pid().unwrap();
    // A stopped keeper does not collect its child before it dies.
    signal(keeper, Signal::STOP);
    signal(pid, Signal::USR1);
    world.kill_keeper();
    assert_eq!(world.call(&["wait", &id])["status"], "completed (42)");
}

#[test]
fn when_both_die_sessions_end_as_unknown() {
    let world = World::start();
    let (id, _) = world.launch("gone", WAIT);
    world.call(&["deliver", "gone", "keep this"]);
    let (keeper, node) = (world.keeper_pid().unwrap(), world.node_pid());
    for pid in [keeper, node] {
        signal(pid, Signal::STOP);
    }
    for pid in [keeper, node] {
        signal(pid, Signal::KILL);
    }
    // The next one waits for the lock to be free.
    let path = world.path();
    let mut second = None;
    world.until("a free directory", || {
        let child = second.get_or_insert_with(|| start_keeper(&path));
        if child.try_wait().unwrap().is_some() {
            second = None;
        }
        let pid = world.keeper_pid();
        second.as_ref().is_some_and(|child| pid == Some(child.id()))
    });
    let found = world.call(&["find", &id]);
    assert_eq!(found["status"], "completed (unknown)");
    assert_eq!(world.call(&["inbox", "gone"])[0]["body"], "keep this");
    let (next, _) = world.launch("gone", "echo next");
    assert_eq!(next, "2");
    drop(world);
    second.unwrap().wait().unwrap();
}

fn start_keeper(home: &std::path::Path) -> std::process::Child {
    Command::new(PROGRAM)
        .arg("keeper")
        .arg(home)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn w17_a_second_keeper_is_refused_whoever_holds_the_lock() {
    let mut world = World::start();
    world.node_pid();
    for _ in 0..2 {
        let second = Command::new(PROGRAM)
            .arg("keeper")
            .arg(world.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(!second.status.success());
        let said = String::from_utf8(second.stderr).unwrap();
        let pid = world.keeper_pid().unwrap().to_string();
        assert!(said.starts_with("locked: "), "{said}");
        assert!(said.contains(&pid), "{said} does not name {pid}");
        world.kill_keeper();
    }
}

#[test]
fn w42_stopping_ends_sessions_and_exits_cleanly() {
    let mut world = World::start();
    let (_, pid) = world.launch("worker", WAIT);
    let status = world.stop();
    assert!(status.success(), "{status}");
    let snapshot = std::fs::read(world.path().join("sessions.json")).unwrap();
    let list: serde_json::Value = serde_json::from_slice(&snapshot).unwrap();
    assert_eq!(list[0]["status"], "killed");
    let gone = rustix::process::Pid::from_raw(pid as i32).unwrap();
    assert!(rustix::process::test_kill_process(gone).is_err());
}

#[test]
fn many_sessions_change_hands_at_once() {
    let mut world = World::start();
    let sessions: Vec<_> = (0..150).map(|_| world.launch("", WAIT)).collect();
    world.kill_node();
    world.kill_keeper();
    world.kill_node();
    let list = world.call(&["list"]);
    let running = list.as_array().unwrap().iter();
    let running = running.filter(|info| info["word"] == "running").count();
    assert_eq!(running, sessions.len());
    for (_, pid) in &sessions {
        signal(*pid, Signal::USR1);
    }
    for (id, _) in &sessions {
        assert_eq!(world.call(&["wait", id])["status"], "completed (42)");
    }
}

/// The program behind a process.
fn program_of(pid: u32) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/{pid}/exe")).unwrap()
}

#[test]
fn a_keeper_becomes_another_program_under_a_hundred_sessions() {
    let world = World::start();
    world.node_pid();
    let keeper = world.keeper_pid().unwrap();
    let waiting: Vec<_> = (0..100).map(|_| world.launch("", WAIT)).collect();
    let (counter, counter_pid) = world.launch("counter", COUNT);
    // One whose end the old keeper has seen, with no node to tell it to.
    let (early, early_pid) = world.launch("early", WAIT);

    let next = world.path().join("next");
    std::fs::copy(PROGRAM, &next).unwrap();
    for bad in ["/no/such/program", "/etc/passwd"] {
        let refused = world.call(&["upgrade", bad]);
        assert_eq!(refused["code"], "launch_failed", "{refused}");
    }
    assert_eq!(program_of(keeper), std::path::Path::new(PROGRAM));
    signal(early_pid, Signal::USR1);
    for _ in 0..3 {
        let upgraded = world.call(&["upgrade", next.to_str().unwrap()]);
        assert_eq!(upgraded["upgraded"], true, "{upgraded}");
    }
    assert_eq!(program_of(keeper), next);
    assert_eq!(world.keeper_pid(), Some(keeper));
    assert_eq!(world.call(&["wait", &early])["status"], "completed (42)");

    // The node is started from it too, and a signal still stops everything.
    world.kill_node();
    assert_eq!(program_of(world.node_pid()), next);
    for (_, pid) in &waiting {
        signal(*pid, Signal::USR1);
    }
    for (id, _) in &waiting {
        let ended = world.call(&["wait", id]);
        assert_eq!(ended["status"], "completed (42)");
        // As only a parent can know.
        assert_eq!(ended["usage"], true);
    }
    signal(counter_pid, Signal::USR1);
    assert_eq!(world.call(&["wait", &counter])["status"], "completed (7)");
    check_numbers(&world.output(&counter));
    let (late, late_pid) = world.launch("late", WAIT);
    signal(late_pid, Signal::USR1);
    assert_eq!(world.call(&["wait", &late])["status"], "completed (42)");
    let mut world = world;
    assert!(world.stop().success());
}
