//! Defects that are known of the system whose interface this one has, one test each, named after
//! the row of the list they are on. Those of the session's own machinery are in its crate.

use std::os::unix::fs::PermissionsExt;

use e2e::home::Part;
use e2e::pty::Terminal;
use e2e::steps::{self, ECHO};
use e2e::wire::Wire;
use e2e::{Local, PATIENCE, case, wait_until};
use serde_json::{Value, json};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

#[test]
fn w01_hostile_numbers_harm_nobody() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(
            cw,
            "coder",
            &["sh", "-c", "printf 'a\\nb\\nc\\n'; sleep 600"],
        );
        steps::wait_for_output(cw, "coder", "c");
        let socket = local.home().socket();
        for number in [
            json!(-1),
            json!(u64::MAX),
            json!(1_u64 << 63),
            json!(1e300),
            json!("7"),
            json!(null),
        ] {
            for call in [
                "Logs",
                "WatchSession",
                "Attach",
                "Wait",
                "MsgRead",
                "GetStatus",
                "Kill",
            ] {
                for field in [
                    "tail",
                    "history_lines",
                    "timeout_seconds",
                    "since",
                    "id",
                    "cols",
                ] {
                    let mut wire = Wire::connect(&socket);
                    let mut call = json!({"type": call, "id": 99});
                    call[field] = number.clone();
                    wire.say(&call);
                    let _ = wire.hear();
                }
            }
        }
        for tail in ["-1", "99999999999999999999", "x"] {
            assert_ne!(
                cw.run(&["logs", "coder", &format!("--tail={tail}")]).status,
                Some(0)
            );
        }
        assert_eq!(
            cw.ok(&["logs", "coder", "--tail", "4294967295"]),
            "a\nb\nc\n"
        );
        assert!(cw.ok(&["list"]).contains("running"));
    });
}

#[test]
fn w02_w03_escapes_of_two_bytes_stop_nothing() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let script = "printf 'A\\033(B B\\0337C\\0338\\033=D\\033Px+q544e\\033\\\\E\\n'; seq 1 20000; \
                      printf '\\033[6n'; stty raw -echo min 1 time 0; dd bs=1 count=4 2>/dev/null | od -An -c; sleep 600";
        steps::launch(cw, "coder", &["sh", "-c", script]);
        // The question at the end is answered, since nobody else is there to do it.
        steps::wait_for_output(cw, "coder", "033   [");
        let text = cw.ok(&["logs", "coder"]);
        assert!(text.starts_with("A BDE\n"), "{:?}", &text[..40]);
        assert!(text.contains("\n20000\n"));
    });
}

#[test]
fn w08_a_slow_client_misses_nothing_unsaid() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(
            cw,
            "flood",
            &["sh", "-c", "read -r x; seq 1 300000; echo end; sleep 600"],
        );
        let mut slow = Wire::connect(&local.home().socket());
        let _ = slow.ask(&json!({"type": "Attach", "id": 1}), "Attached");
        let _ = cw.run(&["send", "flood", "go"]).ok();
        // It reads nothing while everything is printed.
        steps::wait_for_output(cw, "flood", "end");
        let mut shown = String::new();
        while !shown.contains("end") {
            shown = slow
                .shows("\n")
                .chars()
                .rev()
                .take(10_000)
                .collect::<String>()
                .chars()
                .rev()
                .collect();
        }
        assert!(shown.contains("300000"), "the screen at the end is right");
        assert!(cw.ok(&["list"]).contains("running"));
    });
}

#[test]
fn w09_following_a_log_ends_with_the_session() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "coder", &["sh", "-c", "read -r x; echo last"]);
        let follow = cw.start(&["logs", "-f", "coder"]);
        let mut gone = cw.start(&["logs", "-f", "coder"]);
        let node = local.home().pid(Part::Node).expect("it runs");
        let files = || {
            std::fs::read_dir(format!("/proc/{}/fd", node.as_raw_nonzero()))
                .map_or(0, Iterator::count)
        };
        let before = wait_until("both follow", PATIENCE, || Ok(files()));
        gone.kill();
        let _ = cw.run(&["send", "coder", "go"]).ok();
        assert!(follow.wait(PATIENCE).ok().stdout.ends_with("last\n"));
        wait_until("nothing is left open", PATIENCE, || {
            let now = files();
            if now <= before {
                Ok(())
            } else {
                Err(format!("{before} files before, {now} now"))
            }
        });
    });
}

#[test]
fn w11_files_do_not_grow_with_ended_sessions() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let node = || {
            let pids = [local.home().pid(Part::Node), local.home().pid(Part::Keeper)];
            let count = |pid: rustix::process::Pid| {
                std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()))
                    .map_or(0, Iterator::count)
            };
            pids.into_iter().flatten().map(count).sum::<usize>()
        };
        let round = || {
            let mut wire = Wire::connect(&local.home().socket());
            for _ in 0..40 {
                let call = json!({"type": "Launch", "command": ["true"], "working_dir": "/", "tags": ["t"]});
                let _ = wire.ask(&call, "Launched");
            }
            let _ = wire.ask(&json!({"type": "Wait", "tags": ["t"]}), "WaitResult");
        };
        let _ = cw.run(&["start"]).ok();
        round();
        let before = node();
        round();
        wait_until("the files are as many as before", PATIENCE, || {
            let now = node();
            if now <= before + 4 {
                Ok(())
            } else {
                Err(format!("{before} before, {now} now"))
            }
        });
    });
}

#[test]
fn w12_logs_larger_than_a_frame_are_read() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(
            cw,
            "large",
            &[
                "sh",
                "-c",
                "yes 0123456789abcdef | head -c 20000000; echo; echo end",
            ],
        );
        let _ = cw.run_with(&["wait", "large"], b"", PATIENCE * 3).ok();
        let raw = cw.run(&["logs", "large", "--raw"]).ok();
        assert!(raw.stdout.len() > 20_000_000 && raw.stdout.ends_with("end\r\n"));
        let mut wire = Wire::connect(&local.home().socket());
        wire.say(&json!({"type": "Logs", "id": 1}));
        let mut bytes = 0;
        loop {
            let piece = wire.expect("LogData");
            bytes += piece["data"].as_str().map_or(0, str::len);
            if piece["done"] == true {
                break;
            }
        }
        assert!(bytes > 18_000_000, "{bytes}");
    });
}

#[test]
fn w15_w17_w14_what_was_is_there_after_a_restart() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let _ = cw
            .run(&["launch", "coder", "--", "sh", "-c", "echo SECRET"])
            .ok();
        let _ = cw.run(&["wait", "coder"]).ok();
        let _ = cw.run(&["stop"]).ok();
        std::fs::write(local.home().dir().join("sessions.json"), "{ broken").expect("a file");
        let next = cw
            .run(&["launch", "coder", "--", "sh", "-c", "echo fresh"])
            .ok();
        assert!(next.stderr.starts_with("Session 2 "), "{next}");
        let _ = cw.run(&["wait", "coder"]).ok();
        assert_eq!(cw.ok(&["logs", "1"]), "SECRET\n");
        assert_eq!(cw.ok(&["logs", "coder"]), "fresh\n");
        // A second node in the same directory changes nothing for the first.
        let second = cw.run(&["node", "run"]);
        assert_eq!(second.status, Some(6), "{second}");
        assert_eq!(cw.ok(&["list"]).lines().count(), 3);
    });
}

#[test]
fn w18_typing_into_what_is_over_is_an_error() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let _ = cw.run(&["launch", "over", "--", "true"]).ok();
        let _ = cw.run(&["wait", "over"]).ok();
        cw.run(&["send", "over", "x"])
            .fails("session_not_running")
            .hints("cw status");
        cw.run(&["kill", "over"]).fails("session_not_running");
        assert!(
            cw.ok(&["list"]).contains("completed (0)"),
            "w19: it stays what it was"
        );
    });
}

#[test]
fn w21_a_lone_escape_passes_at_once() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let script =
            "stty raw -echo; echo ready; dd bs=1 count=1 2>/dev/null | od -An -tx1; sleep 600";
        steps::launch(cw, "keys", &["sh", "-c", script]);
        steps::wait_for_output(cw, "keys", "ready");
        let mut terminal = Terminal::run(cw, &["attach", "keys"]);
        terminal.shows("attached", PATIENCE);
        terminal.type_in("\u{1b}");
        terminal.shows("1b", PATIENCE);
        terminal.type_in("\u{2}d");
        assert_eq!(terminal.ends(PATIENCE), 0);
    });
}

#[test]
fn w25_text_is_never_cut_inside_a_character() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let script = "i=0; while [ $i -lt 200 ]; do printf 'é%.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17; i=$((i+1)); done; echo";
        steps::launch(cw, "text", &["sh", "-c", script]);
        let _ = cw.run(&["wait", "text"]).ok();
        let mut wire = Wire::connect(&local.home().socket());
        wire.say(&json!({"type": "WatchSession", "id": 1}));
        let mut text = String::new();
        loop {
            let update = wire.expect("WatchUpdate");
            text += update["output"].as_str().unwrap_or_default();
            if update["done"] == true {
                break;
            }
        }
        assert!(!text.contains('\u{fffd}') && text.matches('é').count() == 3400);
        // And bytes that are no text come through as they are.
        let _ = cw
            .run(&[
                "launch",
                "bytes",
                "--",
                "sh",
                "-c",
                "printf '\\377\\376\\001'",
            ])
            .ok();
        let _ = cw.run(&["wait", "bytes"]).ok();
        let out = cw
            .command(&["logs", "bytes", "--raw"])
            .output()
            .expect("it runs");
        assert_eq!(out.stdout, [0xff, 0xfe, 1]);
    });
}

#[test]
fn w29_w30_the_callers_path_and_a_terminal_with_a_size() {
    case(&Local::new(CW), |local| {
        let _ = local.cw().run(&["start"]).ok();
        let tools = tempfile::tempdir().expect("a directory");
        let tool = tools.path().join("my-agent");
        std::fs::write(&tool, "#!/bin/sh\necho \"agent in $PWD\"; stty size\n").expect("a file");
        std::fs::set_permissions(&tool, PermissionsExt::from_mode(0o755)).expect("ours");
        let path = format!("{}:/usr/bin:/bin", tools.path().display());
        let cw = local.cw().clone().env("PATH", path);
        let _ = cw.run(&["launch", "agent", "--", "my-agent"]).ok();
        let _ = cw.run(&["wait", "agent"]).ok();
        let text = cw.ok(&["logs", "agent"]);
        assert!(
            text.starts_with("agent in ") && text.ends_with("40 120\n"),
            "{text}"
        );
        let relative = cw
            .run(&[
                "launch",
                "here",
                "-d",
                tools.path().to_str().expect("text"),
                "--",
                "./my-agent",
            ])
            .ok();
        assert!(relative.stderr.contains("launched"), "{relative}");
        let _ = cw.run(&["wait", "here"]).ok();
        local
            .cw()
            .run(&["launch", "--", "my-agent"])
            .fails("command_not_found");
    });
}

#[test]
fn w35_everything_is_for_its_owner_alone() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(cw, "coder", &ECHO);
        let _ = cw.run(&["msg", "coder", "secret"]).ok();
        let _ = cw.run(&["send", "coder", "x"]).ok();
        steps::wait_for_output(cw, "coder", "got:x");
        let _ = cw
            .run(&["server", "add", "x", "h:1", "--token", "0123456789abcdef"])
            .ok();
        let mut left = vec![local.home().dir().to_owned()];
        while let Some(path) = left.pop() {
            let found = std::fs::symlink_metadata(&path).expect("it is there");
            let mode = found.permissions().mode() & 0o777;
            assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", path.display());
            if found.is_dir() {
                let entries = std::fs::read_dir(&path).expect("a directory");
                left.extend(entries.map(|entry| entry.expect("an entry").path()));
            }
        }
    });
}

#[test]
fn w38_w40_a_status_does_not_read_the_log() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        steps::launch(
            cw,
            "large",
            &["sh", "-c", "yes | head -c 12000000; printf 'one\\ntwo\\n'"],
        );
        let _ = cw.run_with(&["wait", "large"], b"", PATIENCE * 3).ok();
        let node = local
            .home()
            .pid(Part::Node)
            .expect("it runs")
            .as_raw_nonzero();
        let read = || {
            let io = std::fs::read_to_string(format!("/proc/{node}/io")).unwrap_or_default();
            let line = io
                .lines()
                .find_map(|line| line.strip_prefix("rchar: ").map(str::to_owned));
            line.and_then(|count| count.parse::<u64>().ok())
                .unwrap_or_default()
        };
        let is_told = || {
            let status: Value =
                serde_json::from_str(&cw.ok(&["status", "large", "--json"])).expect("JSON");
            let snippet = status["last_output_snippet"].as_str();
            snippet
                .is_some_and(|text| text.ends_with("one\ntwo"))
                .then_some(())
                .ok_or_else(|| status.to_string())
        };
        // What the session has said last may still be on its way to the node, which reads it once.
        wait_until("to ask costs little", PATIENCE, || {
            let before = read();
            is_told()?;
            for _ in 0..10 {
                let _ = cw.ok(&["list"]);
            }
            let cost = read() - before;
            (cost < 2_000_000)
                .then_some(())
                .ok_or_else(|| format!("{cost} bytes"))
        });
        let size = std::fs::metadata(local.home().dir().join("sessions.json"))
            .map_or(0, |found| found.len());
        assert!(size < 10_000, "{size}");
    });
}

#[test]
fn w39_a_tail_has_as_many_lines_as_were_asked_for() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let _ = cw
            .run(&["launch", "abc", "--", "printf", "a\\nb\\nc\\n"])
            .ok();
        let _ = cw.run(&["wait", "abc"]).ok();
        for (tail, text) in [
            ("0", ""),
            ("1", "c\n"),
            ("2", "b\nc\n"),
            ("3", "a\nb\nc\n"),
            ("9", "a\nb\nc\n"),
        ] {
            assert_eq!(cw.ok(&["logs", "abc", "--tail", tail]), text, "{tail}");
        }
        assert_eq!(
            cw.ok(&["list", "--status", "running", "--json"]).trim(),
            "[]"
        );
    });
}

#[test]
fn w42_a_node_in_the_foreground_stops_cleanly() {
    case(&Local::new(CW), |local| {
        let cw = local.cw();
        let node = cw.start(&["node"]);
        wait_until("the node answers", PATIENCE, || {
            let done = cw.run(&["health"]);
            if done.status == Some(0) {
                Ok(())
            } else {
                Err(done.to_string())
            }
        });
        let mut polite = cw.command(&[
            "launch",
            "polite",
            "--",
            "sh",
            "-c",
            "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done",
        ]);
        assert!(polite.status().expect("it runs").success());
        // Before, the signal would end it as it ends everybody.
        steps::wait_for_output(cw, "polite", "ready");
        let pid = rustix::process::Pid::from_raw(i32::try_from(node.pid()).expect("small"))
            .expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
        let _ = node.wait(PATIENCE).ok();
        let text = cw.ok(&["logs", "polite"]);
        assert!(text.ends_with("bye\n"), "{text}");
    });
}
