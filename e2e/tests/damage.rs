//! Files of a node that were damaged while it was off: a last line torn at any byte, single bits
//! that have changed. It starts, says so, and loses nothing but what the damage took.

use std::path::{Path, PathBuf};

use e2e::home::Part;
use e2e::steps::{self, SLEEPER};
use e2e::{Local, PATIENCE, case, wait_until};
use serde_json::Value;

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// What the session gets.
const BODIES: [&str; 4] = ["one", "two", "three", "four"];

/// Bits from one that is changed to the next; the file has some thousands.
const APART: usize = 61;

/// A session with messages on a node that has crashed.
fn crashed(local: &Local) -> PathBuf {
    let cw = local.cw();
    steps::launch(cw, "coder", &SLEEPER);
    for body in BODIES {
        let _ = cw.run(&["msg", "--delivery", "inbox", "coder", body]).ok();
    }
    local.home().kill_both();
    local.home().dir().join("sessions/1")
}

/// Another session with these events.
fn copy(local: &Local, number: usize, events: &[u8]) {
    let dir = local.home().dir().join(format!("sessions/{number}"));
    std::fs::create_dir(&dir).expect("a directory of our own can be written");
    std::fs::write(dir.join("events.jsonl"), events).expect("so can a file in it");
}

fn bodies(local: &Local, number: usize) -> Vec<String> {
    let inbox = steps::inbox(local.cw(), &number.to_string());
    let body = |one: &Value| one["body"].as_str().unwrap_or_default().to_owned();
    inbox.iter().map(body).collect()
}

fn events(dir: &Path) -> Vec<u8> {
    std::fs::read(dir.join("events.jsonl")).expect("the session has events")
}

/// The bytes after each line feed, and 0: where lines begin.
fn starts(events: &[u8]) -> Vec<usize> {
    let ends = events
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n');
    std::iter::once(0)
        .chain(ends.map(|(at, _)| at + 1))
        .collect()
}

#[test]
fn a_last_line_torn_at_every_byte_costs_that_line() {
    case(&Local::new(CW), |local| {
        let whole = events(&crashed(local));
        let starts = starts(&whole);
        let (last, end) = (starts[starts.len() - 2], whole.len());
        for kept in last..=end {
            copy(local, 2 + kept - last, &whole[..kept]);
        }
        let _ = local.cw().run(&["start"]).ok();
        for kept in last..=end {
            // A line without its line feed is whole.
            let wanted = if kept + 1 < end { 3 } else { 4 };
            let found = bodies(local, 2 + kept - last);
            assert_eq!(found, BODIES[..wanted], "{kept} of {last}..{end}");
        }
        assert!(local.home().log().contains("events were damaged"));
        // What was mended takes more.
        let _ = local
            .cw()
            .run(&["launch", "next", "--", "sleep", "1000"])
            .ok();
        local.home().kill(Part::Node);
        assert_eq!(bodies(local, 2), BODIES[..3]);
    });
}

#[test]
fn a_bit_that_has_changed_costs_one_line() {
    case(&Local::new(CW), |local| {
        let whole = events(&crashed(local));
        let starts = starts(&whole);
        let flips: Vec<_> = (0..whole.len() * 8).step_by(APART).collect();
        for (number, bit) in flips.iter().enumerate() {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            copy(local, 2 + number, &damaged);
        }
        let _ = local.cw().run(&["start"]).ok();
        for (number, bit) in flips.iter().enumerate() {
            let line = starts.partition_point(|start| *start <= bit / 8) - 1;
            let hurt = text_of(&whole, &starts, line);
            let found = bodies(local, 2 + number);
            for body in BODIES
                .iter()
                .filter(|body| !hurt.contains(&format!("\"{body}\"")))
            {
                let there = found.iter().filter(|one| one == body).count();
                assert_eq!(there, 1, "{body}: {found:?} after bit {bit}, line {line}");
            }
        }
        assert_eq!(bodies(local, 1), BODIES);
    });
}

/// A line, as text.
fn text_of(whole: &[u8], starts: &[usize], line: usize) -> String {
    let end = starts.get(line + 1).copied().unwrap_or(whole.len());
    String::from_utf8_lossy(&whole[starts[line]..end]).into_owned()
}

#[test]
fn other_files_that_are_damaged_keep_no_node_from_starting() {
    case(&Local::new(CW), |local| {
        let _ = crashed(local);
        let dir = local.home().dir();
        for name in [
            "sessions.json",
            "membership.json",
            "netmap.json",
            "outbox.jsonl",
        ] {
            for damage in [&b""[..], b"{", b"[]\n", b"\0\0\0\0\n", b"\xff\xfe{\"x\":\n"] {
                std::fs::write(dir.join(name), damage).unwrap();
                let _ = local.cw().run(&["start"]).ok();
                assert_eq!(bodies(local, 1), BODIES, "{name}: {damage:?}");
                local.home().kill_both();
            }
            let _ = std::fs::remove_file(dir.join(name));
        }
    });
}

#[test]
fn a_log_that_cannot_be_written_keeps_nobody_from_working() {
    case(&Local::new(CW), |local| {
        // What is said goes to a disk that is full.
        let words = ["/bin/sh", "-c", "exec \"$@\" 2>/dev/full", "sh"];
        let cw = local.cw().clone().behind(&words);
        let _keeper = cw.env("CODEWIRE_LOG", "trace").start(&["keeper"]);
        wait_until("the node answers", PATIENCE, || {
            local
                .home()
                .socket()
                .exists()
                .then_some(())
                .ok_or_else(|| "no socket".to_owned())
        });
        steps::launch(local.cw(), "coder", &SLEEPER);
        for body in BODIES {
            let _ = local.cw().run(&["msg", "coder", body]).ok();
        }
        assert_eq!(bodies(local, 1), BODIES);
        let node = local.home().wait_for(Part::Node, None);
        assert_eq!(
            local.home().pid(Part::Node),
            Some(node),
            "it has not died of it"
        );
    });
}
