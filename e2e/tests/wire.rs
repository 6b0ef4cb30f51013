//! The local socket as a client sees it that was written by somebody else: frames by hand, names
//! and fields as they are documented.

use e2e::wire::{Frame, Wire};
use e2e::{Local, PATIENCE, case, wait_until};
use serde_json::{Value, json};

const CW: &str = env!("CARGO_BIN_EXE_cw-under-test");
const SAY_FRAME: &str = env!("CARGO_BIN_EXE_say-frame");

/// A node that runs, and a connection to it.
#[track_caller]
fn connected(local: &Local) -> Wire {
    let _ = local.cw().run(&["start"]).ok();
    Wire::connect(&local.home().socket())
}

/// Starts `sh -c <script>`, and returns its number.
#[track_caller]
fn launch(wire: &mut Wire, name: &str, script: &str) -> u64 {
    let call = json!({
        "type": "Launch", "command": ["sh", "-c", script], "working_dir": "/", "name": name,
    });
    let id = wire.ask(&call, "Launched")["id"].as_u64();
    id.expect("a session has a number")
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn many_calls_on_one_connection() {
    case(&Local::new(CW), |local| {
        let mut wire = connected(local);
        assert_eq!(
            wire.ask(&json!({"type": "ListSessions"}), "SessionList")["sessions"],
            json!([])
        );
        let call = json!({
            "type": "Launch",
            "command": ["sh", "-c", "read -r x; echo \"$A:$x\"; read -r y; exit 6"],
            "working_dir": "/tmp",
            "name": "coder",
            "tags": ["worker", "blue"],
            "env": ["A=b"],
            "stdin_data": base64("typed\n"),
            "unknown_field": {"is": "ignored"},
        });
        assert_eq!(wire.ask(&call, "Launched")["id"], 1);
        let list = wire.ask(&json!({"type": "ListSessions"}), "SessionList");
        let session = &list["sessions"][0];
        for (field, value) in [
            ("id", json!(1)),
            ("name", json!("coder")),
            ("working_dir", json!("/tmp")),
            ("status", json!("running")),
            ("attached", json!(false)),
            ("tags", json!(["worker", "blue"])),
        ] {
            assert_eq!(session[field], value, "{field} of {session}");
        }
        assert!(
            session["pid"].is_u64() && session["created_at"].is_string(),
            "{session}"
        );

        wait_until("what was typed comes back", PATIENCE, || {
            let logs = logs(&mut wire, &json!({"type": "Logs", "id": 1}));
            if logs.contains("b:typed") {
                Ok(())
            } else {
                Err(logs)
            }
        });
        let sent = wire.ask(
            &json!({"type": "SendInput", "id": 1, "data": base64("more\n")}),
            "InputSent",
        );
        assert_eq!(sent["bytes"], 5);
        wait_until("it ends", PATIENCE, || {
            let status = wire.ask(&json!({"type": "GetStatus", "id": 1}), "SessionStatus");
            let ended = status["info"]["status"] == "completed (6)";
            assert!(status["output_size"].is_u64(), "{status}");
            if ended {
                Ok(())
            } else {
                Err(status.to_string())
            }
        });

        let _ = wire.ask(&json!({"type": "ListSessions"}), "SessionList");
    });
}

#[test]
fn killing_and_what_is_not_there() {
    case(&Local::new(CW), |local| {
        let mut wire = connected(local);
        let kill = |id: u64| json!({"type": "Kill", "id": id});
        let id = launch(&mut wire, "sleeper", "sleep 1000");
        assert_eq!(wire.ask(&kill(id), "Killed")["id"], id);
        for name in ["one", "two"] {
            let _ = launch(&mut wire, name, "sleep 1000");
        }
        assert_eq!(
            wire.ask(&json!({"type": "KillAll"}), "KilledAll")["count"],
            2
        );
        let list = wire.ask(
            &json!({"type": "ListSessions", "status": "running"}),
            "SessionList",
        );
        assert_eq!(list["sessions"], json!([]));
        let error = wire.ask(&json!({"type": "Kill", "id": 99}), "Error");
        assert_eq!(error["code"], "session_not_found");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| text.contains("not found")),
            "{error}"
        );
        let _ = wire.ask(&json!({"type": "ListSessions"}), "SessionList");
    });
}

/// All the text of a call for logs.
#[track_caller]
fn logs(wire: &mut Wire, call: &Value) -> String {
    let mut text = String::new();
    wire.say(call);
    loop {
        let piece = wire.expect("LogData");
        text += piece["data"].as_str().unwrap_or_default();
        if piece["done"] == true {
            return text;
        }
    }
}

#[test]
fn s63_an_attachment_types_resizes_and_lets_go() {
    case(&Local::new(CW), |local| {
        let mut wire = connected(local);
        let id = launch(&mut wire, "shell", "PS1='$ ' exec sh -i");
        let mut first = Wire::connect(&local.home().socket());
        let attached = first.ask(&json!({"type": "Attach", "id": id}), "Attached");
        assert_eq!(attached["id"], id);
        first.say(&json!({"type": "Resize", "cols": 93, "rows": 31}));
        first.type_in(b"stty size; echo one-$((40+2))\r");
        let shown = first.shows("one-42");
        assert!(shown.contains("31 93"), "{shown}");

        let mut second = Wire::connect(&local.home().socket());
        let _ = second.ask(&json!({"type": "Attach", "id": id}), "Attached");
        let _ = second.shows("one-42");
        let mut blank = Wire::connect(&local.home().socket());
        let without = json!({"type": "Attach", "id": id, "include_history": false});
        let _ = blank.ask(&without, "Attached");
        second.type_in(b"echo two-$((40+2))\r");
        let _ = first.shows("two-42");
        assert!(!blank.shows("two-42").contains("one-42"));

        first.say(&json!({"type": "Detach"}));
        let (_, answer) = first.rest();
        assert_eq!(answer, json!({"type": "Detached", "id": id}));
        // The connection is good for more.
        let status = first.ask(&json!({"type": "GetStatus", "id": id}), "SessionStatus");
        assert_eq!(status["info"]["attached_count"], 2, "{status}");
    });
}

#[test]
fn w05_w41_the_end_of_a_session_comes_after_its_last_byte() {
    case(&Local::new(CW), |local| {
        let mut wire = connected(local);
        let id = launch(&mut wire, "shell", "read -r x; seq 1 20000; exit 3");
        let mut old = Wire::connect(&local.home().socket());
        let _ = old.ask(&json!({"type": "Attach", "id": id}), "Attached");
        let mut new = Wire::connect(&local.home().socket());
        let welcome = new.ask(&json!({"type": "Hello", "version": 1}), "Hello");
        assert_eq!(
            (&welcome["node"], &welcome["version"]),
            (&json!("dev-1"), &json!(1))
        );
        let _ = new.ask(&json!({"type": "Attach", "id": id}), "Attached");
        let mut watcher = Wire::connect(&local.home().socket());
        watcher.say(&json!({"type": "Logs", "id": id, "follow": true, "frames": true}));

        let go = json!({"type": "SendInput", "id": id, "data": base64("go\n")});
        let _ = wire.ask(&go, "InputSent");
        let (shown, end) = new.rest();
        assert!(String::from_utf8_lossy(&shown).ends_with("19999\r\n20000\r\n"));
        assert_eq!(
            (&end["type"], &end["exit_code"]),
            (&json!("Exited"), &json!(3)),
            "{end}"
        );
        assert_eq!(end["status"], "completed (3)");
        // One that has said no hello gets what such clients take for the end.
        let (again, end) = old.rest();
        assert!(again == shown, "{} and {} bytes", again.len(), shown.len());
        assert_eq!(
            (&end["type"], &end["message"]),
            (&json!("Error"), &json!("session completed (3)"))
        );
        let (followed, end) = watcher.rest();
        assert!(String::from_utf8_lossy(&followed).ends_with("19999\n20000\n"));
        assert_eq!(end["done"], true);
    });
}

#[test]
fn s37_s39_s42_s47_messages_requests_and_replies() {
    case(&Local::new(CW), |local| {
        let mut wire = connected(local);
        let planner = launch(&mut wire, "planner", "sleep 1000");
        let coder = launch(&mut wire, "coder", "sleep 1000");
        let reviewer = launch(&mut wire, "reviewer", "sleep 1000");

        let call =
            json!({"type": "MsgSend", "id": planner, "to_name": "coder", "body": "é\u{1b}[2J"});
        let sent = wire.ask(&call, "MsgSent");
        let message = sent["message_id"].as_str().unwrap_or_default();
        assert!(message.starts_with("msg_") && message.len() == 26, "{sent}");
        let read = wire.ask(
            &json!({"type": "MsgRead", "to_name": "coder"}),
            "MsgReadResult",
        );
        let first = &read["messages"][0];
        for (field, value) in [
            ("message_id", json!(message)),
            ("type", json!("direct.message")),
            ("from", json!(planner)),
            ("from_name", json!("planner")),
            ("to", json!(coder)),
            ("body", json!("é\u{1b}[2J")),
        ] {
            assert_eq!(first[field], value, "{field} of {first}");
        }

        let mut asker = Wire::connect(&local.home().socket());
        let call = json!({
            "type": "MsgRequest", "id": planner, "to_id": coder, "body": "?", "timeout_seconds": 60,
        });
        asker.say(&call);
        let request = wait_until("coder is asked", PATIENCE, || {
            let call = json!({"type": "MsgRead", "id": coder, "tail": 1});
            let read = wire.ask(&call, "MsgReadResult");
            let last = &read["messages"][0];
            let id = last["request_id"]
                .as_str()
                .filter(|_| last["state"] == "pending");
            id.map(str::to_owned).ok_or_else(|| read.to_string())
        });
        let reply =
            |id: u64| json!({"type": "MsgReply", "request_id": request, "id": id, "body": "!"});
        let refused = wire.ask(&reply(reviewer), "Error");
        assert_eq!(refused["code"], "not_addressee", "{refused}");
        let text = refused["message"].as_str().unwrap_or_default();
        assert!(
            text.contains(&format!("may only be replied to by session {coder}")),
            "{refused}"
        );
        assert_eq!(
            wire.ask(&reply(coder), "MsgReplySent")["request_id"],
            request.as_str()
        );
        let answer = asker.expect("MsgRequestResult");
        for (field, value) in [
            ("request_id", json!(request)),
            ("reply_body", json!("!")),
            ("from_id", json!(coder)),
            ("from_name", json!("coder")),
        ] {
            assert_eq!(answer[field], value, "{field} of {answer}");
        }
        let error = wire.ask(&json!({"type": "MsgSend", "body": "to whom?"}), "Error");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| text.contains("to_id or to_name"))
        );
    });
}

/// A client writes many calls before it reads an answer; with `sync = "always"` too.
#[track_caller]
fn back_to_back(sync: &str) {
    const CALLS: usize = 600;
    let local = Local::new(CW);
    let start = local
        .cw()
        .clone()
        .env("CODEWIRE_SYNC", sync)
        .run(&["start"]);
    case(&local, |local| {
        let _ = start.ok();
        let mut wire = Wire::connect(&local.home().socket());
        launch(&mut wire, "coder", "read -r x");
        let mut expected = Vec::new();
        for number in 0..CALLS {
            let (call, answer) = match number % 50 {
                10 => (json!({"type": "ListSessions"}), "SessionList"),
                20 => {
                    let call = json!({"type": "MsgSend", "to_name": "nobody", "body": "x"});
                    (call, "session_not_found")
                }
                30 => {
                    let call = json!({
                        "type": "MsgSend", "to_name": "coder", "body": "x", "id": 9,
                    });
                    (call, "session_not_found")
                }
                _ => {
                    let call = json!({
                        "type": "MsgSend", "to_name": "coder", "body": number.to_string(),
                    });
                    (call, "MsgSent")
                }
            };
            wire.say(&call);
            expected.push(answer);
        }
        // What was said before something that is no frame is acknowledged all the same.
        wire.raw(&[9]);
        expected.push("bad_request");
        let mut answers = Vec::new();
        while let Some(Frame::Control(answer)) = wire.hear() {
            let which = answer["code"].as_str().or_else(|| answer["type"].as_str());
            answers.push(which.unwrap_or_default().to_owned());
        }
        assert_eq!(answers, expected);
        let mut wire = Wire::connect(&local.home().socket());
        let read = json!({"type": "MsgRead", "to_name": "coder", "tail": CALLS});
        let read = wire.ask(&read, "MsgReadResult");
        let read = read["messages"].as_array().cloned().unwrap_or_default();
        let bodies: Vec<_> = read.iter().map(|message| message["body"].clone()).collect();
        let sent = |number: &usize| !matches!(number % 50, 10 | 20 | 30);
        let sent: Vec<_> = (0..CALLS)
            .filter(sent)
            .map(|number| json!(number.to_string()))
            .collect();
        assert_eq!(bodies, sent);
    });
}

#[test]
fn messages_back_to_back_are_acknowledged_in_order() {
    back_to_back("group");
}

#[test]
fn messages_back_to_back_are_on_the_disk_when_acknowledged() {
    back_to_back("always");
}

#[test]
fn s40_a_listener_hears_what_is_said() {
    case(&Local::new(CW), |local| {
        let mut wire = connected(local);
        let coder = launch(&mut wire, "coder", "sleep 1000");
        let other = launch(&mut wire, "other", "sleep 1000");
        let mut listener = Wire::connect(&local.home().socket());
        let _ = listener.ask(&json!({"type": "MsgListen", "id": coder}), "MsgListenAck");
        for (to, body) in [(other, "not for you"), (coder, "for you")] {
            let _ = wire.ask(
                &json!({"type": "MsgSend", "to_id": to, "body": body}),
                "MsgSent",
            );
        }
        let heard = listener.expect("Event");
        assert_eq!(heard["session_id"], coder);
        assert_eq!(heard["event"]["type"], "direct.message");
        assert_eq!(heard["event"]["data"]["body"], "for you");
    });
}

#[test]
fn w41_what_is_no_call_is_told_so() {
    case(&Local::new(CW), |local| {
        let socket = local.home().socket();
        let mut wire = connected(local);
        let error = wire.ask(&json!({"type": "Dance"}), "Error");
        assert_eq!(error["code"], "bad_request");
        let text = error["message"].as_str().unwrap_or_default();
        assert!(
            text.contains("unknown request type") && text.contains("Dance"),
            "{error}"
        );
        for nonsense in [
            json!({}),
            json!([]),
            json!("Launch"),
            json!({"type": "Attach"}),
        ] {
            let error = Wire::connect(&socket).ask(&nonsense, "Error");
            assert_eq!(error["code"], "bad_request", "{nonsense}");
        }
        let mut early = Wire::connect(&socket);
        early.type_in(b"raw bytes before any call");
        assert_eq!(early.expect("Error")["code"], "bad_request");
        assert_eq!(early.hear(), None);
        let numbers = json!({"type": "Logs", "id": 1, "tail": u64::MAX});
        let _ = Wire::connect(&socket).ask(&numbers, "Error");
        let _ = Wire::connect(&socket).ask(&json!({"type": "ListSessions"}), "SessionList");
    });
}

#[test]
fn w26_a_process_in_a_session_is_that_session_whatever_it_says() {
    case(&Local::new(CW), |local| {
        let mut wire = connected(local);
        let planner = launch(&mut wire, "planner", "sleep 1000");
        let _ = launch(&mut wire, "coder", "sleep 1000");
        let socket = local.home().socket();
        let says = |call: Value| format!("{SAY_FRAME} {} '{call}'", socket.display());
        let claims =
            json!({"type": "MsgSend", "id": planner, "to_name": "coder", "body": "forged"});
        let honest = json!({"type": "MsgSend", "to_name": "coder", "body": "honest"});
        let reads = json!({"type": "MsgRead", "id": planner});
        let stops = json!({"type": "StopNode", "grace": 0});
        let script = [claims, honest, reads, stops].map(says).join("; ");
        // Also from a process that has left the group and the terminal of its session.
        let _ = launch(
            &mut wire,
            "evil",
            &format!(
                "setsid -w sh -c \"{}\"; exit 0",
                script.replace('"', "\\\"")
            ),
        );
        wait_until("it has tried everything", PATIENCE, || {
            let status = wire.ask(
                &json!({"type": "GetStatus", "name": "evil"}),
                "SessionStatus",
            );
            let ended = status["info"]["status"] == "completed (0)";
            if ended {
                Ok(())
            } else {
                Err(status.to_string())
            }
        });
        let log = logs(&mut wire, &json!({"type": "Logs", "name": "evil"}));
        let answers: Vec<Value> = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let kinds: Vec<&str> = answers
            .iter()
            .map(|answer| {
                answer["code"]
                    .as_str()
                    .or_else(|| answer["type"].as_str())
                    .unwrap_or_default()
            })
            .collect();
        assert_eq!(
            kinds,
            ["sender_forbidden", "MsgSent", "denied", "denied"],
            "{log}"
        );
        let read = wire.ask(
            &json!({"type": "MsgRead", "to_name": "coder"}),
            "MsgReadResult",
        );
        let [only] = read["messages"].as_array().map_or(&[][..], Vec::as_slice) else {
            panic!("one message, not {read}")
        };
        assert_eq!(
            (&only["from_name"], &only["body"]),
            (&json!("evil"), &json!("honest"))
        );
        // Frames still come one by one.
        wire.say(&json!({"type": "ListSessions"}));
        assert!(matches!(wire.hear(), Some(Frame::Control(_))));
    });
}
