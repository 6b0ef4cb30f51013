//! What existing clients of the local socket do, as they do it: no greeting, one question on a
//! connection, the names and fields they know. Each test has the numbers of the scenarios that it
//! plays; those about messages are in `wire`, those that need a terminal in `local` and `verbs`.

use e2e::home::Part;
use e2e::wire::{Frame, Wire};
use e2e::{Local, PATIENCE, case, wait_until};
use serde_json::{Value, json};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");

/// A node that runs.
#[track_caller]
fn started(local: &Local) {
    let _ = local.cw().run(&["start"]).ok();
}

/// One question on a connection of its own.
#[track_caller]
fn ask(local: &Local, call: &Value, kind: &str) -> Value {
    Wire::connect(&local.home().socket()).ask(call, kind)
}

#[track_caller]
fn launch(local: &Local, script: &str, more: &Value) -> u64 {
    let mut call = json!({
        "type": "Launch", "command": ["sh", "-c", script], "working_dir": "/tmp",
    });
    let fields = more.as_object().cloned().unwrap_or_default();
    call.as_object_mut().expect("an object").extend(fields);
    let id = ask(local, &call, "Launched")["id"].as_u64();
    id.expect("a session has a number")
}

fn sessions(local: &Local) -> Vec<Value> {
    let list = ask(local, &json!({"type": "ListSessions"}), "SessionList");
    list["sessions"].as_array().cloned().unwrap_or_default()
}

#[track_caller]
fn until_status(local: &Local, id: u64, status: &str) -> Value {
    wait_until(&format!("session {id} is {status}"), PATIENCE, || {
        let all = sessions(local);
        let found = all.iter().find(|one| one["id"] == id).cloned();
        found
            .filter(|one| one["status"] == status)
            .ok_or_else(|| format!("{all:?}"))
    })
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// All text of a call for logs.
#[track_caller]
fn logs(local: &Local, id: u64) -> String {
    let mut wire = Wire::connect(&local.home().socket());
    wire.say(&json!({"type": "Logs", "id": id}));
    let mut text = String::new();
    loop {
        let piece = wire.expect("LogData");
        text += piece["data"].as_str().unwrap_or_default();
        if piece["done"] == true {
            return text;
        }
    }
}

#[test]
fn s01_s02_s03_s04_s31_sessions_are_launched_listed_and_killed() {
    case(&Local::new(CW), |local| {
        started(local);
        let first = launch(local, "sleep 600", &json!({}));
        let listed = &sessions(local)[0];
        assert_eq!(
            (&listed["id"], &listed["status"]),
            (&json!(first), &json!("running"))
        );
        assert!(
            listed["prompt"]
                .as_str()
                .is_some_and(|text| text.contains("sleep 600"))
        );
        let killed = ask(local, &json!({"type": "Kill", "id": first}), "Killed");
        assert_eq!(killed["id"], first);
        let _ = until_status(local, first, "killed");
        let _ = (
            launch(local, "sleep 600", &json!({})),
            launch(local, "sleep 600", &json!({})),
        );
        assert_eq!(
            ask(local, &json!({"type": "KillAll"}), "KilledAll")["count"],
            2
        );
        let short = launch(local, "echo done", &json!({}));
        let ended = until_status(local, short, "completed (0)");
        // 31: the end is told with all that belongs to it.
        assert_eq!(ended["exit_code"], 0);
        for field in [
            "completed_at",
            "duration_ms",
            "output_bytes",
            "output_lines",
            "created_at",
        ] {
            assert!(!ended[field].is_null(), "{field} of {ended}");
        }
    });
}

#[test]
fn s05_s12_logs_hold_what_was_printed_and_typed() {
    case(&Local::new(CW), |local| {
        started(local);
        let id = launch(local, "cat", &json!({}));
        let typed = json!({"type": "SendInput", "id": id, "data": base64("é hello\n".as_bytes())});
        assert_eq!(ask(local, &typed, "InputSent")["bytes"], 9);
        wait_until("the text is in the log", PATIENCE, || {
            let text = logs(local, id);
            if text.matches("é hello").count() == 2 {
                Ok(())
            } else {
                Err(text)
            }
        });
    });
}

#[test]
fn s06_s07_s08_s09_s10_s11_terminals_are_shared_and_let_go() {
    case(&Local::new(CW), |local| {
        started(local);
        let socket = local.home().socket();
        let id = launch(local, "echo before; cat", &json!({}));
        let mut first = Wire::connect(&socket);
        let _ = first.ask(&json!({"type": "Attach", "id": id}), "Attached");
        let _ = first.shows("before");
        let mut second = Wire::connect(&socket);
        let _ = second.ask(&json!({"type": "Attach", "id": id}), "Attached");
        first.type_in(b"both see this\n");
        let _ = first.shows("both see this");
        let _ = second.shows("both see this");
        first.say(&json!({"type": "Resize", "cols": 120, "rows": 40}));
        first.say(&json!({"type": "Detach"}));
        assert_eq!(first.rest().1, json!({"type": "Detached", "id": id}));
        drop(second);
        wait_until("nobody is attached", PATIENCE, || {
            let one = sessions(local)[0].clone();
            if one["attached"] == false && one["status"] == "running" {
                Ok(())
            } else {
                Err(one.to_string())
            }
        });
        let error = ask(local, &json!({"type": "Attach", "id": 9999}), "Error");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| text.contains("not found"))
        );
        let gone = launch(local, "true", &json!({}));
        let _ = until_status(local, gone, "completed (0)");
        let error = ask(local, &json!({"type": "Attach", "id": gone}), "Error");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| text.contains("not running")),
            "{error}"
        );
    });
}

#[test]
fn s13_s15_s16_s23_s30_a_session_has_what_it_was_given() {
    case(&Local::new(CW), |local| {
        started(local);
        let more = json!({"env": ["GREETING=hello"], "stdin_data": base64(b"typed\n"), "name": "coder", "tags": ["a", "b"]});
        let script = "read -r x; echo \"$GREETING $x $CW_SESSION_ID $CW_SESSION_NAME $CW_COHORT_TAG\"; sleep 600";
        let id = launch(local, script, &more);
        wait_until("the session has spoken", PATIENCE, || {
            let text = logs(local, id);
            let wanted = format!("hello typed {id} coder a");
            if text.contains(&wanted) {
                Ok(())
            } else {
                Err(text)
            }
        });
        let status = ask(
            local,
            &json!({"type": "GetStatus", "id": id}),
            "SessionStatus",
        );
        assert!(
            status["info"]["pid"].is_u64() && status["info"]["output_size_bytes"].is_u64(),
            "{status}"
        );
        assert!(
            status["output_size"].as_u64().is_some_and(|size| size > 0),
            "{status}"
        );
        assert_eq!(status["info"]["tags"], json!(["a", "b"]));
    });
}

#[test]
fn s14_s17_watching_one_and_many() {
    case(&Local::new(CW), |local| {
        started(local);
        let text = |wire: &mut Wire| {
            let mut text = String::new();
            loop {
                let update = wire.expect("WatchUpdate");
                text += update["output"].as_str().unwrap_or_default();
                if update["done"] == true {
                    return (text, update);
                }
            }
        };
        let id = launch(
            local,
            "seq 1 50; read -r x; echo last",
            &json!({"tags": ["both"]}),
        );
        let other = launch(local, "read -r x; echo other", &json!({"tags": ["both"]}));
        let mut one = Wire::connect(&local.home().socket());
        one.say(&json!({"type": "WatchSession", "id": id, "history_lines": 10}));
        let mut both = Wire::connect(&local.home().socket());
        both.say(&json!({"type": "WatchSession", "tags": ["both"]}));
        for id in [id, other] {
            let go = json!({"type": "SendInput", "id": id, "data": base64(b"go\n")});
            let _ = ask(local, &go, "InputSent");
        }
        let (seen, end) = text(&mut one);
        assert!(
            seen.contains("last") && end["status"] == "completed (0)",
            "{seen} {end}"
        );
        let (seen, _) = text(&mut both);
        assert!(seen.contains("last") && seen.contains("other"), "{seen}");
        // One that is over is shown and ends.
        let mut over = Wire::connect(&local.home().socket());
        over.say(&json!({"type": "WatchSession", "id": id, "history_lines": 1}));
        assert_eq!(text(&mut over).0, "last\r\n");
    });
}

#[test]
fn s18_the_snapshot_is_still_while_nothing_happens() {
    case(&Local::new(CW), |local| {
        started(local);
        let id = launch(local, "sleep 600", &json!({}));
        let file = local.home().dir().join("sessions.json");
        let read = || std::fs::read_to_string(&file).unwrap_or_default();
        wait_until("the session is in the snapshot", PATIENCE, || {
            let text = read();
            if text.contains("sleep 600") {
                Ok(())
            } else {
                Err(text)
            }
        });
        let written = || {
            std::fs::metadata(&file)
                .and_then(|found| found.modified())
                .expect("it is there")
        };
        let before = written();
        for _ in 0..20 {
            let _ = sessions(local);
        }
        assert_eq!(written(), before);
        let _ = ask(local, &json!({"type": "Kill", "id": id}), "Killed");
        wait_until("the end is in the snapshot", PATIENCE, || {
            let text = read();
            if text.contains("killed") {
                Ok(())
            } else {
                Err(text)
            }
        });
    });
}

#[test]
fn s20_s22_s33_tags_and_numbers() {
    case(&Local::new(CW), |local| {
        started(local);
        let tagged = launch(local, "sleep 600", &json!({"tags": ["batch-99"]}));
        let other = launch(local, "sleep 600", &json!({}));
        let cw = local.cw();
        let killed = cw.run(&["kill", "batch-99"]).ok();
        assert_eq!(killed.stderr, "Killed 1 session(s)\n");
        let _ = until_status(local, tagged, "killed");
        let running = cw.ok(&["list", "--status", "running"]);
        assert!(
            running.contains(&format!("\n{other} ")) && running.lines().count() == 2,
            "{running}"
        );
        let (one, two) = (json!({"tags": ["x"]}), json!({"tags": ["x", "y"]}));
        let _ = (
            launch(local, "sleep 600", &one),
            launch(local, "sleep 600", &two),
        );
        let count = ask(
            local,
            &json!({"type": "KillByTags", "tags": ["x", "z"]}),
            "KilledAll",
        );
        assert_eq!(count["count"], 2);
        let _ = until_status(local, other, "running");
    });
}

#[test]
fn s21_s32_waiting_as_old_clients_do() {
    case(&Local::new(CW), |local| {
        started(local);
        let mut ids = Vec::new();
        for _ in 0..2 {
            ids.push(launch(
                local,
                "read -r x; echo result; exit 0",
                &json!({"tags": ["w"]}),
            ));
        }
        let mut all = Wire::connect(&local.home().socket());
        all.say(&json!({"type": "Wait", "tags": ["w"], "condition": "all", "timeout_seconds": 60}));
        let mut one = Wire::connect(&local.home().socket());
        one.say(&json!({"type": "Wait", "id": ids[0]}));
        for id in &ids {
            let go = json!({"type": "SendInput", "id": id, "data": base64(b"go\n")});
            let _ = ask(local, &go, "InputSent");
        }
        let result = all.expect("WaitResult");
        assert_eq!(
            result["sessions"].as_array().map(Vec::len),
            Some(2),
            "{result}"
        );
        let result = one.expect("WaitResult");
        assert_eq!(result["sessions"][0]["exit_code"], 0, "{result}");
        assert!(
            result["sessions"][0]["last_output_snippet"]
                .as_str()
                .is_some_and(|text| text.contains("result"))
        );
        for nobody in [json!({"type": "Wait", "id": 99}), json!({"type": "Wait"})] {
            let error = ask(local, &nobody, "Error");
            assert!(error["code"].is_string(), "w10: {error}");
        }
    });
}

#[test]
fn s25_lists_and_attachments_at_once() {
    case(&Local::new(CW), |local| {
        started(local);
        let id = launch(local, "while sleep 0.01; do echo tick; done", &json!({}));
        std::thread::scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|| assert_eq!(sessions(local).len(), 1));
            }
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut wire = Wire::connect(&local.home().socket());
                    let _ = wire.ask(&json!({"type": "Attach", "id": id}), "Attached");
                    let _ = wire.shows("tick");
                    wire.say(&json!({"type": "Detach"}));
                    assert_eq!(wire.rest().1["type"], "Detached");
                });
            }
        });
    });
}

#[test]
fn s34_a_subscriber_hears_of_sessions_launched_later() {
    case(&Local::new(CW), |local| {
        started(local);
        let mut wire = Wire::connect(&local.home().socket());
        let call =
            json!({"type": "Subscribe", "event_types": ["session.status"], "tags": ["later"]});
        assert!(wire.ask(&call, "SubscribeAck")["subscription_id"].is_u64());
        let _ = launch(local, "true", &json!({}));
        let id = launch(local, "exit 5", &json!({"tags": ["later"]}));
        let heard = wire.expect("Event");
        assert_eq!(heard["session_id"], id);
        assert_eq!(heard["event"]["data"]["exit_code"], 5);
        let _ = wire.ask(&json!({"type": "Unsubscribe"}), "Unsubscribed");
    });
}

#[test]
fn s36_s50_s53_names_are_checked_and_free_again() {
    case(&Local::new(CW), |local| {
        started(local);
        for bad in [
            "",
            "-a",
            "a_b",
            "a b",
            "a.b",
            "é",
            "a23456789012345678901234567890123",
        ] {
            let call =
                json!({"type": "Launch", "command": ["true"], "working_dir": "/", "name": bad});
            let error = ask(local, &call, "Error");
            assert_eq!(error["code"], "name_invalid", "{bad:?}: {error}");
        }
        let long = "a2345678901234567890123456789012";
        for good in ["a", "7a", "a-b", "A-1-", long] {
            let id = launch(local, "sleep 600", &json!({"name": good}));
            let call =
                json!({"type": "Launch", "command": ["true"], "working_dir": "/", "name": good});
            assert_eq!(ask(local, &call, "Error")["code"], "name_taken");
            let _ = ask(
                local,
                &json!({"type": "Kill", "id": id, "grace_seconds": 1}),
                "Killed",
            );
            let again = launch(local, "true", &json!({"name": good}));
            let _ = until_status(local, again, "completed (0)");
        }
    });
}

#[test]
fn s54_names_and_sessions_outlive_the_node() {
    case(&Local::new(CW), |local| {
        started(local);
        let id = launch(local, "sleep 600", &json!({"name": "coder", "tags": ["t"]}));
        let before = local.home().kill(Part::Node);
        let _ = local.home().wait_for(Part::Node, Some(before));
        let one = wait_until("the node answers", PATIENCE, || {
            let stream = std::os::unix::net::UnixStream::connect(local.home().socket());
            stream.map_err(|error| error.to_string())?;
            sessions(local)
                .into_iter()
                .next()
                .ok_or_else(|| "no session".to_owned())
        });
        assert_eq!(
            (&one["id"], &one["name"], &one["status"]),
            (&json!(id), &json!("coder"), &json!("running"))
        );
        let next = launch(local, "true", &json!({}));
        assert!(next > id, "w14: a number is never used twice");
    });
}

#[test]
fn s61_frames_of_all_sizes() {
    case(&Local::new(CW), |local| {
        started(local);
        let id = launch(local, "stty raw -echo; cat | wc -c; sleep 600", &json!({}));
        let mut wire = Wire::connect(&local.home().socket());
        let _ = wire.ask(&json!({"type": "Attach", "id": id}), "Attached");
        wire.type_in(b"");
        wire.type_in(&[b'x'; 100_000]);
        drop(wire);
        let mut cut = Wire::connect(&local.home().socket());
        cut.raw(&[0, 0, 0]);
        drop(cut);
        let mut oversize = Wire::connect(&local.home().socket());
        oversize.raw(&[0, 0xff, 0xff, 0xff, 0xff]);
        match oversize.hear() {
            Some(Frame::Control(error)) => assert_eq!(error["code"], "frame_too_large", "{error}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(sessions(local).len(), 1);
    });
}
